// One UDP client flow: the datagrams of one client address and port on one local address, and a connected
// socket to the backend, so that the kernel delivers only the backend's replies and its ICMP refusals. It
// owns that socket.
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
#include "udp_key.h"

struct iovec;

namespace kup {

class UdpListener;

class UdpSession final : public Session, private Watcher, private Task, private Timer {
 public:
  // Opens one and reports it. The listener forgets it when it is told to `remove` it.
  static UdpSession* open(EngineThread* thread, UdpListener* listener, const UdpFlow& flow);
  UdpSession(EngineThread* thread, UdpListener* listener, const UdpFlow& flow);
  ~UdpSession() override;

  const UdpFlow& flow() const { return flow_; }
  // From the client. Returns how many of them it has taken or lost, at least one: fewer than `count` when it
  // has ended meanwhile, and the others belong to a new session.
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
  UdpListener* const listener_;
  const UdpFlow flow_;
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
