// One TCP connection: the client's socket from accept to close, the dials on its behalf, and the relay.
//
//     deciding --> dialling --> relaying --> ended
//         ^            |            (any state --> ended)
//         +-- dial failed
//
// Owns both sockets. Anything but an orderly end is a reset for both.
#pragma once

#include "relay.h"
#include "thread.h"

namespace kup {

class TcpSession final : public Session, private Watcher, private Task, private Timer {
 public:
  // Takes over a connection that `listener` has accepted, and reports it.
  static void accept(EngineThread* thread, Fd client, uint32_t listener, const Address& from);

  TcpSession(EngineThread* thread, Fd client);
  ~TcpSession() override;

  void answer(const Command& command, const uint8_t* preamble) override;
  void end(CloseCause cause) override;

 private:
  enum class State : uint8_t { deciding, dialling, relaying, ended };
  enum Tag : uint32_t { kClient, kBackend };

  void onReady(uint32_t events, uint32_t tag) override;
  void run() override;
  void onDeadline() override;

  void dial(const Command& command, const uint8_t* preamble);
  int connectTo(const Address& to);
  void dialSettled();
  void dialFailed(int error);
  void abandonDial();
  void established();
  bool isUntouched();

  void relay();
  // False: the session has ended.
  bool pump(Flow& flow, Side& from, Side& to, Flow& back);
  bool endIfFailed(Side& side);
  void sinkFailed(Side& broken, Side& other, Flow& back);
  CloseCause resetBy(const Side& side) const;

  void startKeepAlive();
  void armRelayDeadline();
  // When it is to end for silence; UINT64_MAX: never.
  uint64_t silenceEndsAt(CloseCause* cause) const;

  EngineThread* const thread_;
  Side client_;
  Side backend_;
  Flow inward_;   // client to backend
  Flow outward_;  // backend to client
  uint64_t lastMovedMs_ = 0;
  State state_ = State::deciding;
  bool hasPassedInward_ = false;
  bool hasPassedOutward_ = false;
  bool keepsAlive_ = false;
};

}  // namespace kup
