// A listening TCP socket. It accepts at once and hands every connection to a `TcpSession`, which owns it.
#pragma once

#include <memory>

#include "listener.h"
#include "loop.h"
#include "thread.h"

namespace kup {

// Controller's thread. 0, or the errno with nothing left open. Accepting once it was started.
int openTcpListener(EngineThread* thread, uint32_t id, const Address& at, std::unique_ptr<Listener>* out);

class TcpListener final : public Listener, private Watcher, private Task, private Timer {
 public:
  TcpListener(EngineThread* thread, uint32_t id, Fd socket);
  ~TcpListener() override;

  int start() override;
  void close() override;
  void resume() override;

 private:
  void onReady(uint32_t events, uint32_t tag) override;
  void run() override;
  void onDeadline() override;
  void accept();
  bool acceptOne();
  bool acceptFailed(int error);

  EngineThread* const thread_;
  Fd socket_;
  Watch watch_;
  bool isClosing_ = false;
  // How many connections a close still waits for at most: as many as the kernel can have queued when it began.
  uint32_t closingRest_ = 0;
};

}  // namespace kup
