#include "udp_session.h"

#include <cstring>

#include "udp_listener.h"

namespace kup {

namespace {

// What a client may have sent before its backend is up: two datagrams of the largest size. Two bytes for the
// length of each are among them, so that empty ones are not held without end.
constexpr size_t kMaxHeldBytes = 131'072;
// What may wait for us in the kernel while we are busy, as far as net.core.rmem_max lets it.
constexpr int kReceiveQueueBytes = 1 << 20;
// Batches of one backend in one turn; the others have their share too.
constexpr int kBatchesPerTurn = 4;

size_t bytesOf(const iovec* datagrams, unsigned count) {
  size_t bytes = 0;
  for (unsigned at = 0; at < count; ++at) bytes += datagrams[at].iov_len;
  return bytes;
}

}  // namespace

UdpSession* UdpSession::open(EngineThread* thread, UdpListener* listener, const UdpFlow& flow) {
  auto session = std::make_unique<UdpSession>(thread, listener, flow);
  UdpSession* opened = thread->add(std::move(session), listener->id(), flow.client, true);
  opened->touch();
  thread->loop().wheel().arm(opened, opened->lastUsedMs_ + opened->idleTimeoutMs());
  return opened;
}

UdpSession::UdpSession(EngineThread* thread, UdpListener* listener, const UdpFlow& flow)
    : thread_(thread), listener_(listener), flow_(flow) {}

UdpSession::~UdpSession() { thread_->loop().cancel(this); }

// --- The life of a session ---------------------------------------------------------------------------------

void UdpSession::answer(const Command& command, const uint8_t*) {
  // Once it relays, only an answer that was given before the controller could know of that still counts.
  if (hasEnded_ || (isRelaying() && command.epoch <= epoch())) return;
  setEpoch(command.epoch);
  hangUp();
  if (command.kind == static_cast<uint32_t>(CommandKind::refuse)) {
    end(CloseCause::refused);
    return;
  }
  const int error = dial(command);
  if (error != 0) {
    thread_->reportDialFailed(*this, error);
    return;
  }
  thread_->reportEstablished(*this);
  sendHeld();
}

void UdpSession::end(CloseCause cause) {
  if (hasEnded_) return;
  hasEnded_ = true;
  hangUp();
  disarm();
  bump(thread_->totals().datagramsDropped, heldDatagrams_);
  listener_->remove(flow_);
  thread_->reportClosed(this, cause);
}

void UdpSession::hangUp() {
  thread_->loop().cancel(this);
  watch_.forget();
  backend_.close();
}

// Datagrams do not move the timer: when it is due it looks how long the session really was idle.
void UdpSession::onDeadline() {
  const uint64_t idleAtMs = lastUsedMs_ + idleTimeoutMs();
  if (idleAtMs <= thread_->loop().now()) {
    end(CloseCause::idle);
  } else {
    thread_->loop().wheel().arm(this, idleAtMs);
  }
}

void UdpSession::touch() {
  lastUsedMs_ = thread_->loop().now();
  counters().lastUsedMs.store(lastUsedMs_, std::memory_order_relaxed);
}

uint64_t UdpSession::idleTimeoutMs() const {
  const Options& options = thread_->options();
  return hasReply_ ? options.udpRepliedTimeoutMs : options.udpUnrepliedTimeoutMs;
}

// --- Dialling ----------------------------------------------------------------------------------------------

int UdpSession::dial(const Command& command) {
  Address to;
  const auto port = static_cast<uint16_t>(command.port);
  if (!Address::parse(command.address, command.addressLength, port, &to)) return EINVAL;
  const int error = connect(to);
  if (error != 0) hangUp();
  return error;
}

int UdpSession::connect(const Address& to) {
  backend_ = Fd(::socket(to.sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!backend_.isOpen()) return errno;
  hasGrown_ = false;
  const int error = setOption(backend_.get(), SOL_SOCKET, SO_RCVBUF, kReceiveQueueBytes);
  if (error != 0) return error;
  if (::connect(backend_.get(), &to.sa, to.length()) != 0) return errno;
  // Not EPOLLOUT: every datagram that has left would be an event.
  return watch_.start(&thread_->loop(), backend_.get(), EPOLLIN | EPOLLET, this, 0);
}

// --- From the client to the backend ------------------------------------------------------------------------

unsigned UdpSession::receive(const iovec* datagrams, unsigned count) {
  touch();
  if (isRelaying()) return send(datagrams, count);
  for (unsigned at = 0; at < count; ++at) hold(datagrams[at]);
  return count;
}

void UdpSession::hold(const iovec& datagram) {
  const auto length = static_cast<uint16_t>(datagram.iov_len);
  if (held_.size() + sizeof length + length > kMaxHeldBytes) {
    bump(thread_->totals().datagramsDropped);
    return;
  }
  const auto* bytes = static_cast<const uint8_t*>(datagram.iov_base);
  const size_t before = held_.size();
  held_.resize(before + sizeof length);
  std::memcpy(held_.data() + before, &length, sizeof length);
  held_.insert(held_.end(), bytes, bytes + length);
  ++heldDatagrams_;
}

void UdpSession::sendHeld() {
  std::vector<uint8_t> held;
  held.swap(held_);
  iovec datagrams[UdpBatch::kMost];
  size_t at = 0;
  while (at < held.size() && !hasEnded_) {
    unsigned count = 0;
    for (; at < held.size() && count < UdpBatch::kMost; ++count) {
      uint16_t length = 0;
      std::memcpy(&length, held.data() + at, sizeof length);
      at += sizeof length;
      datagrams[count] = {held.data() + at, length};
      at += length;
    }
    heldDatagrams_ -= count;
    const unsigned rest = count - send(datagrams, count);
    bump(thread_->totals().datagramsDropped, rest);
  }
}

unsigned UdpSession::send(const iovec* datagrams, unsigned count) {
  // Before they leave: whoever sees one arrive shall find it counted.
  bump(counters().bytesIn, bytesOf(datagrams, count));
  const auto onError = [this](int error) {
    // The refusal is of an earlier one, and this one has not left either.
    if (error == ECONNREFUSED) bump(thread_->totals().datagramsDropped);
    return mayGoOn(error);
  };
  return sendAll(&thread_->udpBatch(), backend_.get(), datagrams, count, {}, &hasGrown_, onError);
}

// A refusal ends the session, so that the client's next datagram finds another endpoint; all else is one
// datagram lost.
bool UdpSession::mayGoOn(int error) {
  if (error == ECONNREFUSED) {
    end(CloseCause::backendRefused);
    return false;
  }
  bump(thread_->totals().datagramsDropped);
  return true;
}

// --- From the backend to the client ------------------------------------------------------------------------

void UdpSession::onReady(uint32_t, uint32_t) { forward(); }

void UdpSession::run() { forward(); }

void UdpSession::forward() {
  for (int batches = 0; batches < kBatchesPerTurn; ++batches) {
    const int count = thread_->udpBatch().receive(backend_.get());
    if (count == -EAGAIN) return;
    if (count < 0) {
      if (!mayGoOn(-count)) return;
      continue;
    }
    forward(thread_->udpBatch().datagrams(), static_cast<unsigned>(count));
    if (static_cast<unsigned>(count) < UdpBatch::kMost) return;
  }
  thread_->loop().defer(this);
}

void UdpSession::forward(const iovec* datagrams, unsigned count) {
  touch();
  bump(counters().bytesOut, bytesOf(datagrams, count));
  bump(thread_->totals().datagramsOut, count);
  if (!hasReply_) {
    hasReply_ = true;
    // The second time-out may be the shorter one.
    thread_->loop().wheel().arm(this, lastUsedMs_ + idleTimeoutMs());
  }
  listener_->reply(datagrams, count, flow_);
}

}  // namespace kup
