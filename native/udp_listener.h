// A UDP proxy port: the local addresses on which redirected datagrams can arrive, the one socket that takes
// them, which it owns, and the flows of the clients. A flow outlives the socket: when the addresses change so
// that another one is needed, those on addresses that stay go on there.
//
// The socket may take more than the list has, see udp_socket.h: what was sent to other addresses is dropped.
// Without addresses there is no socket.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "listener.h"
#include "udp_key.h"
#include "udp_socket.h"
#include "wheel.h"

namespace kup {

class UdpSession;

// Controller's thread. 0, or the errno with nothing left open. Receiving once it was started.
int openUdpListener(EngineThread* thread, uint32_t id, const std::vector<Address>& addresses,
                    std::unique_ptr<Listener>* out);

class UdpListener final : public Listener, private Timer {
 public:
  UdpListener(EngineThread* thread, uint32_t id) : Listener(id), thread_(thread) {}

  // Any thread, before `start`. 0 or the errno.
  int bind(const std::vector<Address>& addresses);
  int start() override;
  void close() override;
  // 0, or the errno with everything as it was before.
  int setAddresses(const std::vector<Address>& addresses) override;

  // From the socket: what `udpBatch` has received, sent to `local` or, when that is null, to where it says.
  void deliver(const Address* local, unsigned count);
  // From a session.
  void reply(const iovec* datagrams, unsigned count, const UdpFlow& flow);
  // The session has ended.
  void remove(const UdpFlow& flow);

 private:
  void onDeadline() override { retired_.reset(); }
  void replaceSocket(std::unique_ptr<UdpSocket> next);
  bool serves(const Address& local) const;
  void deliverRun(const UdpFlow& flow, const FlowKey& key, unsigned first, unsigned end);
  UdpSession* open(const UdpFlow& flow, const FlowKey& key);
  template <typename IsOver>
  void endSessions(IsOver isOver);

  EngineThread* const thread_;
  // No two alike.
  std::vector<Address> addresses_;
  std::unique_ptr<UdpSocket> socket_;
  // The one before, for a moment.
  std::unique_ptr<UdpSocket> retired_;
  std::unordered_map<FlowKey, UdpSession*, FlowKeyHash> sessions_;
};

}  // namespace kup
