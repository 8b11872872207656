// What TCP and UDP sessions have in common: an id, counts that the controller may read, and an end.
#pragma once

#include <atomic>
#include <cstdint>

#include "engine.h"

namespace kup {

// Only one thread writes; any may read.
inline void bump(std::atomic<uint64_t>& count, uint64_t by = 1) {
  count.store(count.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

// The part of a session that the controller reads while the engine's thread writes it.
struct Counters {
  std::atomic<uint64_t> session{0};  // 0: free
  std::atomic<uint64_t> bytesIn{0};
  std::atomic<uint64_t> bytesOut{0};
  std::atomic<uint64_t> lastUsedMs{0};  // UDP
};

// Owned by the engine's table from `EngineThread::add` until `closed` was reported, and destroyed at the end of that
// turn: whoever calls one need not fear that it goes under his feet.
class Session {
 public:
  virtual ~Session() = default;

  uint64_t id() const { return id_; }
  Counters& counters() { return *counters_; }
  // Of the last answer that was given outside of the batches.
  uint32_t epoch() const { return epoch_; }
  void setEpoch(uint32_t epoch) { epoch_ = epoch; }

  // `refuse` or `dial`; `preamble` has `command.preambleLength` bytes and is to be copied.
  virtual void answer(const Command& command, const uint8_t* preamble) = 0;
  // Reports `closed` with this cause; does nothing when it has ended.
  virtual void end(CloseCause cause) = 0;

 private:
  friend class EngineThread;
  uint64_t id_ = 0;
  Counters* counters_ = nullptr;
  uint32_t epoch_ = 0;
};

}  // namespace kup
