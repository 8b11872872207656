#include "udp_listener.h"

#include <algorithm>

namespace kup {

int openUdpListener(EngineThread* thread, uint32_t id, const std::vector<Address>& addresses,
                    std::unique_ptr<Listener>* out) {
  auto listener = std::make_unique<UdpListener>(thread, id);
  const int error = listener->bind(addresses);
  if (error == 0) *out = std::move(listener);
  return error;
}

int UdpListener::bind(const std::vector<Address>& addresses) {
  for (const Address& address : addresses) {
    if (has(address)) continue;
    auto socket = std::make_unique<UdpSocket>(thread_, id(), address);
    const int error = socket->bind();
    if (error != 0) return error;
    sockets_.push_back(std::move(socket));
  }
  return 0;
}

int UdpListener::start() {
  for (const auto& socket : sockets_) {
    const int error = socket->start();
    if (error == 0) continue;
    // Here and now: what has been registered is for this thread alone to forget.
    sockets_.clear();
    return error;
  }
  return 0;
}

void UdpListener::close() {
  for (const auto& socket : sockets_) socket->close();
  sockets_.clear();
  thread_->listenerClosed(this);
}

int UdpListener::setAddresses(const std::vector<Address>& addresses) {
  const auto gone = std::partition(sockets_.begin(), sockets_.end(), [&addresses](const auto& socket) {
    return std::find(addresses.begin(), addresses.end(), socket->address()) != addresses.end();
  });
  for (auto socket = gone; socket != sockets_.end(); ++socket) (*socket)->close();
  sockets_.erase(gone, sockets_.end());
  int firstError = 0;
  for (const Address& address : addresses) {
    if (has(address)) continue;
    auto socket = std::make_unique<UdpSocket>(thread_, id(), address);
    int error = socket->bind();
    if (error == 0) error = socket->start();
    if (error == 0) sockets_.push_back(std::move(socket));
    if (firstError == 0) firstError = error;
  }
  return firstError;
}

bool UdpListener::has(const Address& address) const {
  return std::any_of(sockets_.begin(), sockets_.end(),
                     [&address](const auto& socket) { return socket->address() == address; });
}

}  // namespace kup
