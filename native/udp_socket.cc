#include "udp_socket.h"

#include "udp_listener.h"

namespace kup {

namespace {

// What may wait for us in the kernel while we are busy, as far as net.core.rmem_max lets it: some thousand
// datagrams.
constexpr int kReceiveQueueBytes = 4 << 20;
// Batches of one socket in one turn; the others have their share too.
constexpr int kBatchesPerTurn = 4;

Address wildcardOf(const Address& address) {
  Address wildcard;
  wildcard.v6 = {};
  wildcard.sa.sa_family = address.sa.sa_family;
  // In the same place in both families.
  wildcard.v4.sin_port = address.v4.sin_port;
  return wildcard;
}

}  // namespace

UdpSocket::~UdpSocket() { thread_->loop().cancel(this); }

// --- Binding -----------------------------------------------------------------------------------------------

int UdpSocket::bind(const std::vector<Address>& addresses) {
  const int error = open(addresses);
  return error == 0 ? take() : error;
}

// Two sockets of one program share a port when both ask for it, and so does a third of another program that
// asks for it too: so only for the moment of the bind. Who has the port already is noticed one address after
// the other, before.
int UdpSocket::bindBeside(const UdpSocket& other, const std::vector<Address>& addresses) {
  if (addresses.size() == 1) return bind(addresses);
  for (const Address& address : addresses) {
    if (isSameHost(address, other.address_)) continue;
    UdpSocket probe(thread_, listener_);
    // On the wildcard an address need not be there yet.
    const int error = probe.bind({address});
    if (error != 0 && error != EADDRNOTAVAIL) return error;
  }
  int error = open(addresses);
  if (error != 0) return error;
  setOption(other.socket_.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  setOption(socket_.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  error = take();
  setOption(other.socket_.get(), SOL_SOCKET, SO_REUSEADDR, 0);
  if (error == 0) setOption(socket_.get(), SOL_SOCKET, SO_REUSEADDR, 0);
  return error;
}

int UdpSocket::open(const std::vector<Address>& addresses) {
  isWildcard_ = addresses.size() > 1;
  address_ = isWildcard_ ? wildcardOf(addresses.front()) : addresses.front();
  const sa_family_t family = address_.sa.sa_family;
  socket_ = Fd(::socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket_.isOpen()) return errno;
  int error = setOption(socket_.get(), SOL_SOCKET, SO_RCVBUF, kReceiveQueueBytes);
  if (error == 0 && family == AF_INET6) error = setOption(socket_.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (error == 0 && isWildcard_) error = UdpBatch::tellLocal(socket_.get(), family);
  return error;
}

int UdpSocket::take() {
  if (::bind(socket_.get(), &address_.sa, address_.length()) == 0) return 0;
  const int error = errno;
  socket_.close();
  return error;
}

bool UdpSocket::suits(const std::vector<Address>& addresses) const {
  return isWildcard_ || (addresses.size() == 1 && isSameHost(addresses.front(), address_));
}

int UdpSocket::start() { return watch_.start(&thread_->loop(), socket_.get(), EPOLLIN | EPOLLET, this, 0); }

// --- In and out --------------------------------------------------------------------------------------------

void UdpSocket::onReady(uint32_t, uint32_t) { receive(); }

void UdpSocket::run() { receive(); }

void UdpSocket::receive() {
  for (int batches = 0; batches < kBatchesPerTurn; ++batches) {
    const int count = thread_->udpBatch().receiveFromAnybody(socket_.get());
    if (count == -EAGAIN) return;
    if (count < 0) {
      bump(thread_->totals().listenerErrors);
      continue;
    }
    listener_->deliver(boundTo(), static_cast<unsigned>(count));
    if (static_cast<unsigned>(count) < UdpBatch::kMost) return;
  }
  thread_->loop().defer(this);
}

// With itself as its only peer it is passed over for the datagrams of all others. All it has is read at once:
// it came before whatever the next socket has.
void UdpSocket::retire() {
  static_cast<void>(::connect(socket_.get(), &address_.sa, address_.length()));
  int count = 0;
  while ((count = thread_->udpBatch().receiveFromAnybody(socket_.get())) > 0) {
    listener_->deliver(boundTo(), static_cast<unsigned>(count));
  }
}

void UdpSocket::reply(const iovec* datagrams, unsigned count, const UdpFlow& flow) {
  const UdpBatch::Route route{&flow.client, isWildcard_ ? &flow.local : nullptr};
  sendAll(&thread_->udpBatch(), socket_.get(), datagrams, count, route, &hasGrown_, [this](int) {
    bump(thread_->totals().datagramsDropped);
    return true;
  });
}

}  // namespace kup
