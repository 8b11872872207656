#include "udp_listener.h"

#include <algorithm>

#include "udp_session.h"

namespace kup {

namespace {

// Sessions that may be open before the controller has heard of them.
constexpr uint32_t kMaxUnreported = 4096;
// Longer than the kernel takes to queue a datagram for which it has chosen the socket.
constexpr uint64_t kRetiredMs = 100;

bool has(const std::vector<Address>& addresses, const Address& address) {
  return std::any_of(addresses.begin(), addresses.end(),
                     [&address](const Address& other) { return isSameHost(address, other); });
}

std::vector<Address> withoutDoubles(const std::vector<Address>& addresses) {
  std::vector<Address> different;
  for (const Address& address : addresses) {
    if (!has(different, address)) different.push_back(address);
  }
  return different;
}

}  // namespace

int openUdpListener(EngineThread* thread, uint32_t id, const std::vector<Address>& addresses,
                    std::unique_ptr<Listener>* out) {
  auto listener = std::make_unique<UdpListener>(thread, id);
  const int error = listener->bind(addresses);
  if (error == 0) *out = std::move(listener);
  return error;
}

// --- Its life ----------------------------------------------------------------------------------------------

int UdpListener::bind(const std::vector<Address>& addresses) {
  addresses_ = withoutDoubles(addresses);
  if (addresses_.empty()) return 0;
  socket_ = std::make_unique<UdpSocket>(thread_, this);
  return socket_->bind(addresses_);
}

int UdpListener::start() {
  const int error = socket_ == nullptr ? 0 : socket_->start();
  // Here and now: what has been registered is for this thread alone to forget.
  if (error != 0) socket_.reset();
  return error;
}

void UdpListener::close() {
  endSessions([](const UdpFlow&) { return true; });
  socket_.reset();
  retired_.reset();
  thread_->listenerClosed(this);
}

int UdpListener::setAddresses(const std::vector<Address>& addresses) {
  std::vector<Address> wanted = withoutDoubles(addresses);
  std::unique_ptr<UdpSocket> next;
  if (!wanted.empty() && (socket_ == nullptr || !socket_->suits(wanted))) {
    next = std::make_unique<UdpSocket>(thread_, this);
    int error = socket_ == nullptr ? next->bind(wanted) : next->bindBeside(*socket_, wanted);
    if (error == 0) error = next->start();
    if (error != 0) return error;
  }
  addresses_ = std::move(wanted);
  endSessions([this](const UdpFlow& flow) { return !serves(flow.local); });
  if (addresses_.empty() || next != nullptr) replaceSocket(std::move(next));
  return 0;
}

// The former one still takes what the kernel was about to give it, unless its address has gone too.
void UdpListener::replaceSocket(std::unique_ptr<UdpSocket> next) {
  retired_ = std::move(socket_);
  socket_ = std::move(next);
  const Address* boundTo = retired_ == nullptr ? nullptr : retired_->boundTo();
  if (boundTo == nullptr || !serves(*boundTo)) {
    retired_.reset();
    return;
  }
  retired_->retire();
  thread_->loop().wheel().arm(this, thread_->loop().now() + kRetiredMs);
}

template <typename IsOver>
void UdpListener::endSessions(IsOver isOver) {
  std::vector<UdpSession*> over;
  for (const auto& [key, session] : sessions_) {
    if (isOver(session->flow())) over.push_back(session);
  }
  for (UdpSession* session : over) session->end(CloseCause::stopped);
}

bool UdpListener::serves(const Address& local) const { return has(addresses_, local); }

// --- Datagrams ---------------------------------------------------------------------------------------------

// What came in a row of one flow goes to its session in one piece.
void UdpListener::deliver(const Address* local, unsigned count) {
  const UdpBatch& batch = thread_->udpBatch();
  const auto flowOf = [&batch, local](unsigned at) {
    return UdpFlow{batch.source(at), local == nullptr ? batch.local(at) : *local};
  };
  unsigned first = 0;
  while (first < count) {
    const UdpFlow flow = flowOf(first);
    const FlowKey key(flow);
    unsigned end = first + 1;
    while (end < count && FlowKey(flowOf(end)) == key) ++end;
    deliverRun(flow, key, first, end);
    first = end;
  }
}

void UdpListener::deliverRun(const UdpFlow& flow, const FlowKey& key, unsigned first, unsigned end) {
  const UdpBatch& batch = thread_->udpBatch();
  bool isCounted = false;
  while (first < end) {
    const auto found = sessions_.find(key);
    UdpSession* session = found != sessions_.end() ? found->second : open(flow, key);
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

UdpSession* UdpListener::open(const UdpFlow& flow, const FlowKey& key) {
  // Port 0 is legal on the wire and impossible to answer.
  if (!serves(flow.local) || flow.client.port() == 0) return nullptr;
  if (thread_->outbox().unreportedFlows() >= kMaxUnreported) return nullptr;
  UdpSession* session = UdpSession::open(thread_, this, flow);
  sessions_.emplace(key, session);
  return session;
}

void UdpListener::reply(const iovec* datagrams, unsigned count, const UdpFlow& flow) {
  socket_->reply(datagrams, count, flow);
}

void UdpListener::remove(const UdpFlow& flow) { sessions_.erase(FlowKey(flow)); }

}  // namespace kup
