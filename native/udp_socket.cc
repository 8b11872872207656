#include "udp_socket.h"

#include <vector>

#include "udp_session.h"

namespace kup {

namespace {

// What may wait for us in the kernel while we are busy, as far as net.core.rmem_max lets it: some thousand datagrams.
constexpr int kReceiveQueueBytes = 4 << 20;
// Batches of one socket in one turn; the others have their share too.
constexpr int kBatchesPerTurn = 4;
// Sessions that may be open before the controller has heard of them.
constexpr uint32_t kMaxUnreported = 4096;

}  // namespace

UdpSocket::UdpSocket(EngineThread* thread, uint32_t listener, const Address& at)
    : thread_(thread), listener_(listener), address_(at) {}

UdpSocket::~UdpSocket() { thread_->loop().cancel(this); }

int UdpSocket::bind() {
  Fd socket(::socket(address_.sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.isOpen()) return errno;
  int error = setOption(socket.get(), SOL_SOCKET, SO_RCVBUF, kReceiveQueueBytes);
  if (error == 0 && address_.sa.sa_family == AF_INET6) {
    error = setOption(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  }
  if (error != 0) return error;
  if (::bind(socket.get(), &address_.sa, address_.length()) != 0) return errno;
  socket_ = std::move(socket);
  return 0;
}

int UdpSocket::start() { return watch_.start(&thread_->loop(), socket_.get(), EPOLLIN | EPOLLET, this, 0); }

void UdpSocket::close() {
  std::vector<UdpSession*> sessions;
  sessions.reserve(sessions_.size());
  for (const auto& [key, session] : sessions_) sessions.push_back(session);
  for (UdpSession* session : sessions) session->end(CloseCause::stopped);
  watch_.forget();
  socket_.close();
}

void UdpSocket::remove(const Address& client) { sessions_.erase(ClientKey(client)); }

void UdpSocket::reply(const iovec* datagrams, unsigned count, const Address& client) {
  sendAll(&thread_->udpBatch(), socket_.get(), datagrams, count, &client, &hasGrown_, [this](int) {
    bump(thread_->totals().datagramsDropped);
    return true;
  });
}

void UdpSocket::onReady(uint32_t, uint32_t) { receive(); }

void UdpSocket::run() { receive(); }

void UdpSocket::receive() {
  for (int batches = 0; batches < kBatchesPerTurn; ++batches) {
    const int count = thread_->udpBatch().receive(socket_.get(), true);
    if (count == -EAGAIN) return;
    if (count < 0) {
      bump(thread_->totals().listenerErrors);
      continue;
    }
    deliver(static_cast<unsigned>(count));
    if (static_cast<unsigned>(count) < UdpBatch::kMost) return;
  }
  thread_->loop().defer(this);
}

// What came from one client in a row goes to his session in one piece.
void UdpSocket::deliver(unsigned count) {
  const UdpBatch& batch = thread_->udpBatch();
  unsigned first = 0;
  while (first < count) {
    const ClientKey key(batch.source(first));
    unsigned end = first + 1;
    while (end < count && ClientKey(batch.source(end)) == key) ++end;
    deliverRun(key, first, end);
    first = end;
  }
}

void UdpSocket::deliverRun(const ClientKey& key, unsigned first, unsigned end) {
  const UdpBatch& batch = thread_->udpBatch();
  bool isCounted = false;
  while (first < end) {
    const auto found = sessions_.find(key);
    UdpSession* session = found != sessions_.end() ? found->second : open(key, batch.source(first));
    if (session == nullptr) {
      bump(thread_->totals().datagramsDropped, end - first);
      return;
    }
    if (!isCounted) bump(thread_->totals().datagramsIn, end - first);
    isCounted = true;
    // Where it ends in the middle of them, the next one opens another.
    first += session->receive(batch.datagrams() + first, end - first);
  }
}

UdpSession* UdpSocket::open(const ClientKey& key, const Address& client) {
  // Port 0 is legal on the wire and impossible to answer.
  if (client.port() == 0 || thread_->outbox().unreportedFlows() >= kMaxUnreported) return nullptr;
  UdpSession* session = UdpSession::open(thread_, this, listener_, client);
  sessions_.emplace(key, session);
  return session;
}

}  // namespace kup
