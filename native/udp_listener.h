// A UDP proxy port: one `UdpSocket` for each local address on which redirected datagrams can arrive.
#pragma once

#include <memory>
#include <vector>

#include "listener.h"
#include "udp_socket.h"

namespace kup {

// Controller's thread. 0, or the errno with nothing left open. Receiving once it was started.
int openUdpListener(EngineThread* thread, uint32_t id, const std::vector<Address>& addresses,
                    std::unique_ptr<Listener>* out);

class UdpListener final : public Listener {
 public:
  UdpListener(EngineThread* thread, uint32_t id) : Listener(id), thread_(thread) {}

  int start() override;
  void close() override;
  // Closes what is gone with its sessions, then binds what is new. 0, or the first errno: the addresses that could be
  // bound stay bound.
  int setAddresses(const std::vector<Address>& addresses) override;
  // Any thread, before `start`. 0 or the errno.
  int bind(const std::vector<Address>& addresses);

 private:
  bool has(const Address& address) const;

  EngineThread* const thread_;
  std::vector<std::unique_ptr<UdpSocket>> sockets_;
};

}  // namespace kup
