// What TCP and UDP listeners have in common. Owned by the engine's table until it has closed.
#pragma once

#include <cstdint>
#include <vector>

#include "engine.h"

namespace kup {

class Listener {
 public:
  explicit Listener(uint32_t id) : id_(id) {}
  virtual ~Listener() = default;
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  uint32_t id() const { return id_; }

  // Engine's thread: registers what was opened. 0 or the errno.
  virtual int start() = 0;
  // Takes what the kernel has queued, then calls `EngineThread::listenerClosed`, now or in a later turn.
  virtual void close() = 0;
  // UDP: the local addresses it serves from now on. 0 or the errno.
  virtual int setAddresses(const std::vector<Address>&) { return 0; }
  // It had to stop accepting because the controller was behind; now there is room again.
  virtual void resume() {}

 private:
  const uint32_t id_;
};

}  // namespace kup
