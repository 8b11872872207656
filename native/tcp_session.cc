#include "tcp_session.h"

#include <netinet/tcp.h>
#include <poll.h>

#include <algorithm>

namespace kup {

namespace {

// Most connections are gone before a vanished peer matters, so keep-alive is switched on after a while.
constexpr uint64_t kKeepAliveAfterMs = 5000;

}  // namespace

void TcpSession::accept(EngineThread* thread, Fd client, uint32_t listener, const Address& from) {
  auto session = std::make_unique<TcpSession>(thread, std::move(client));
  TcpSession* self = session.get();
  // Before anybody hears of it: a connection that cannot be watched cannot be served, and is reset.
  if (self->client_.watch.start(&thread->loop(), self->client_.socket.get(), kStreamEvents, self, kClient) != 0) {
    self->client_.socket.reset();
    bump(thread->totals().listenerErrors);
    return;
  }
  thread->add(std::move(session), listener, from, false);
}

TcpSession::TcpSession(EngineThread* thread, Fd client) : thread_(thread) { client_.socket = std::move(client); }

TcpSession::~TcpSession() { thread_->loop().cancel(this); }

// --- Decisions and dials ----------------------------------------------------------------------------------------

void TcpSession::answer(const Command& command, const uint8_t* preamble) {
  if (state_ == State::ended) return;
  const bool isNews = command.epoch > epoch();
  if (state_ == State::relaying && !isNews) return;
  setEpoch(command.epoch);
  if (command.kind == static_cast<uint32_t>(CommandKind::refuse)) {
    end(CloseCause::refused);
  } else if (state_ != State::relaying || isUntouched()) {
    dial(command, preamble);
  } else {
    // The dial it was to replace has succeeded, and the backend has been spoken to: so it stays.
    thread_->reportEstablished(*this);
  }
}

bool TcpSession::isUntouched() {
  const auto relaxed = std::memory_order_relaxed;
  return counters().bytesIn.load(relaxed) == 0 && counters().bytesOut.load(relaxed) == 0 &&
         !inward_.hasEnded() && !outward_.hasEnded();
}

void TcpSession::dial(const Command& command, const uint8_t* preamble) {
  abandonDial();
  Address to;
  if (!Address::parse(command.address, command.addressLength, static_cast<uint16_t>(command.port), &to)) {
    thread_->reportDialFailed(*this, EINVAL);
    return;
  }
  const int error = connectTo(to);
  if (error != 0) {
    abandonDial();
    thread_->reportDialFailed(*this, error);
    return;
  }
  state_ = State::dialling;
  inward_.hold(preamble, command.preambleLength);
  // By the clock of this moment: the turn may have begun a while ago, and no dial is to end early.
  thread_->loop().wheel().arm(this, static_cast<uint64_t>(nowMs()) + command.timeoutMs);
}

int TcpSession::connectTo(const Address& to) {
  backend_.socket = Fd(::socket(to.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!backend_.socket.isOpen()) return errno;
  const int fd = backend_.socket.get();
  // The acknowledgement of the handshake waits for something to go with (tcp(7): TCP_QUICKACK), see `established`.
  setOption(fd, IPPROTO_TCP, TCP_QUICKACK, 0);
  if (::connect(fd, &to.sa, to.length()) != 0 && errno != EINPROGRESS) return errno;
  return backend_.watch.start(&thread_->loop(), fd, kStreamEvents, this, kBackend);
}

// Back to deciding; a dial under way is dropped and will report nothing.
void TcpSession::abandonDial() {
  disarm();
  // What is connected already is reset: nobody will read what it may have to say.
  if (state_ == State::relaying) backend_.socket.reset();
  backend_.forget();
  inward_.clear(thread_->relayRoom());
  state_ = State::deciding;
}

void TcpSession::dialFailed(int error) {
  abandonDial();
  thread_->reportDialFailed(*this, error);
}

void TcpSession::dialSettled() {
  const int error = pendingError(backend_.socket.get());
  if (error != 0) {
    dialFailed(error);
  } else {
    established();
  }
}

void TcpSession::established() {
  state_ = State::relaying;
  disarm();
  client_.isWritable = true;
  client_.isPrompt = true;  // from its listener
  backend_.isWritable = true;
  lastMovedMs_ = thread_->loop().now();
  thread_->reportEstablished(*this);
  armRelayDeadline();
  relay();
  // With the client's first words it is a packet less. Without them it must go at once: until it arrives, the backend
  // has no connection to accept, and may be the one to speak first.
  if (state_ == State::relaying && !backend_.hasBeenWritten) {
    setOption(backend_.socket.get(), IPPROTO_TCP, TCP_QUICKACK, 1);
  }
}

// --- Events -----------------------------------------------------------------------------------------------------

void TcpSession::onReady(uint32_t events, uint32_t tag) {
  Side& side = tag == kClient ? client_ : backend_;
  side.note(events);
  switch (state_) {
    case State::relaying:
      relay();
      break;
    case State::dialling:
      if (tag == kBackend) {
        if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
          dialSettled();
        } else if ((events & EPOLLOUT) != 0) {
          established();
        }
        break;
      }
      [[fallthrough]];
    case State::deciding:
      // Nothing is read of a client that nobody serves yet; only that it has gone matters.
      if ((events & (EPOLLERR | EPOLLHUP)) != 0) end(CloseCause::clientReset);
      break;
    case State::ended:
      break;
  }
}

void TcpSession::run() {
  if (state_ == State::relaying) relay();
}

void TcpSession::onDeadline() {
  const uint64_t now = thread_->loop().now();
  if (state_ == State::dialling) {
    // Its answer may stand in line behind a whole batch of events.
    pollfd poll{backend_.socket.get(), POLLOUT, 0};
    if (::poll(&poll, 1, 0) == 1) {
      dialSettled();
    } else {
      dialFailed(ETIMEDOUT);
    }
    return;
  }
  if (state_ != State::relaying) return;
  startKeepAlive();
  CloseCause cause = CloseCause::idle;
  if (silenceEndsAt(&cause) <= now) {
    end(cause);
  } else {
    armRelayDeadline();
  }
}

// --- The relay --------------------------------------------------------------------------------------------------

void TcpSession::relay() {
  if (!pump(inward_, client_, backend_, outward_) || !pump(outward_, backend_, client_, inward_)) return;
  if (hasPassedInward_ && hasPassedOutward_) {
    end(CloseCause::fin);
    return;
  }
  // A client that has gone is not waited for. What a backend said before it went is still delivered.
  const bool isClientBeingRead = !hasPassedInward_ && client_.isReadable && backend_.isWritable;
  const bool isBackendToBeRead = !hasPassedOutward_ && backend_.isReadable;
  if (!isClientBeingRead && endIfFailed(client_)) return;
  if (!isBackendToBeRead) endIfFailed(backend_);
}

bool TcpSession::pump(Flow& flow, Side& from, Side& to, Flow& back) {
  const bool isInward = &flow == &inward_;
  bool& hasPassed = isInward ? hasPassedInward_ : hasPassedOutward_;
  if (hasPassed) return true;
  auto& carried = isInward ? counters().bytesIn : counters().bytesOut;
  const Flow::Step step = flow.pump(thread_->relayRoom(), from, to, carried);
  if (flow.takeMoved()) lastMovedMs_ = thread_->loop().now();
  switch (step) {
    case Flow::Step::waits:
      return true;
    case Flow::Step::goesOn:
      thread_->loop().defer(this);
      return true;
    case Flow::Step::ended:
      hasPassed = true;
      lastMovedMs_ = thread_->loop().now();
      // Where both have ended, closing says it to both.
      if (!(isInward ? hasPassedOutward_ : hasPassedInward_)) ::shutdown(to.socket.get(), SHUT_WR);
      armRelayDeadline();
      return true;
    case Flow::Step::sourceFailed:
      end(resetBy(from));
      return false;
    case Flow::Step::sinkFailed:
      sinkFailed(to, from, back);
      return false;
  }
  return true;
}

// Its last words may have arrived before its reset: a server that answers and closes without reading to the end.
void TcpSession::sinkFailed(Side& broken, Side& other, Flow& back) {
  auto& carried = &back == &inward_ ? counters().bytesIn : counters().bytesOut;
  broken.isReadable = broken.readToEnd = true;
  back.pump(thread_->relayRoom(), broken, other, carried);
  end(resetBy(broken));
}

// A side that cannot be read now, or has ended: its reset shows nowhere else.
bool TcpSession::endIfFailed(Side& side) {
  if (!side.hasFailed) return false;
  side.hasFailed = false;
  if (pendingError(side.socket.get()) == 0) return false;
  end(resetBy(side));
  return true;
}

CloseCause TcpSession::resetBy(const Side& side) const {
  return &side == &client_ ? CloseCause::clientReset : CloseCause::backendReset;
}

// --- Time -------------------------------------------------------------------------------------------------------

void TcpSession::startKeepAlive() {
  if (keepsAlive_) return;
  keepsAlive_ = true;
  client_.keepAlive();
  backend_.keepAlive();
}

void TcpSession::armRelayDeadline() {
  CloseCause cause = CloseCause::idle;
  uint64_t at = silenceEndsAt(&cause);
  if (!keepsAlive_) at = std::min(at, thread_->loop().now() + kKeepAliveAfterMs);
  if (at != UINT64_MAX) thread_->loop().wheel().arm(this, at);
}

uint64_t TcpSession::silenceEndsAt(CloseCause* cause) const {
  const Options& options = thread_->options();
  const bool isHalfClosed = hasPassedInward_ || hasPassedOutward_;
  uint64_t limit = options.tcpIdleTimeoutMs == 0 ? UINT64_MAX : options.tcpIdleTimeoutMs;
  *cause = CloseCause::idle;
  if (isHalfClosed && options.halfCloseTimeoutMs != 0 && options.halfCloseTimeoutMs < limit) {
    limit = options.halfCloseTimeoutMs;
    *cause = CloseCause::halfClose;
  }
  return limit == UINT64_MAX ? UINT64_MAX : lastMovedMs_ + limit;
}

// --- The end ----------------------------------------------------------------------------------------------------

void TcpSession::end(CloseCause cause) {
  if (state_ == State::ended) return;
  const bool isRelaying = state_ == State::relaying;
  state_ = State::ended;
  disarm();
  thread_->loop().cancel(this);
  client_.watch.forget();
  backend_.watch.forget();
  inward_.clear(thread_->relayRoom());
  outward_.clear(thread_->relayRoom());
  if (cause == CloseCause::fin) {
    client_.socket.close();
    backend_.socket.close();
  } else {
    client_.socket.reset();
    if (isRelaying) backend_.socket.reset();
    backend_.socket.close();
  }
  thread_->reportClosed(this, cause);
}

}  // namespace kup
