// One UDP client flow: the datagrams of one client address and port on one local address, and a connected socket to
// the backend, so that the kernel delivers only the backend's replies and its ICMP refusals. It owns that socket.
//
//     deciding ── dial ──> relaying ──> ended
//        └─────── refuse ───────────────>┘
#pragma once

#include <memory>
#include <vector>

#include "fd.h"
#include "loop.h"
#include "session.h"
#include "thread.h"

struct iovec;

namespace kup {

class UdpSocket;

class UdpSession final : public Session, private Watcher, private Task, private Timer {
 public:
  // Opens one and reports it. The socket forgets it when it is told to `remove` it.
  static UdpSession* open(EngineThread* thread, UdpSocket* socket, uint32_t listener, const Address& client);
  UdpSession(EngineThread* thread, UdpSocket* socket, const Address& client);
  ~UdpSession() override;

  // From the client. Returns how many of them it has taken or lost, at least one: fewer than `count` when it has ended
  // meanwhile, and the others belong to a new session.
  unsigned receive(const iovec* datagrams, unsigned count);
  void answer(const Command& command, const uint8_t* preamble) override;
  void end(CloseCause cause) override;

 private:
  void onReady(uint32_t events, uint32_t tag) override;
  void run() override;
  void onDeadline() override;

  bool isRelaying() const { return backend_.isOpen(); }
  void hangUp();
  void touch();
  uint64_t idleTimeoutMs() const;
  int dial(const Command& command);
  int connect(const Address& to);
  void hold(const iovec& datagram);
  void sendHeld();
  unsigned send(const iovec* datagrams, unsigned count);
  bool mayGoOn(int error);
  void forward();
  void forward(const iovec* datagrams, unsigned count);

  EngineThread* const thread_;
  UdpSocket* const socket_;
  const Address client_;
  Fd backend_;
  Watch watch_;
  uint64_t lastUsedMs_ = 0;
  bool hasReply_ = false;
  bool hasGrown_ = false;
  bool hasEnded_ = false;
  // What came before the backend was up, each datagram behind its length (two bytes).
  std::vector<uint8_t> held_;
  uint32_t heldDatagrams_ = 0;
};

}  // namespace kup
