// The events on their way to the controller, and the counts of sessions that it may read at any time. Both change
// under one lock and at one moment, the end of a turn: so a session's bytes are always either among those of the open
// sessions or in a `closed` that waits or was drained, never in neither.
//
// Who waits for a decision is told of at once. That something is established or closed can wait a moment for company:
// it is told with the next event that cannot, or after `kPatienceMs`.
#pragma once

#include <deque>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "engine.h"
#include "session.h"

namespace kup {

class Outbox {
 public:
  static constexpr uint64_t kPatienceMs = 2;

  Outbox(Wake wake, void* context) : wake_(wake), context_(context) {}

  // --- Engine's thread -----------------------------------------------------------------------------------------

  // Counts of a new session, all zero.
  Counters* take(uint64_t session, bool isUdp);
  // Of a session whose `closed` is added in this turn.
  void release(Counters* counters);
  void add(const Event& event);
  // Ends the turn. Returns how long the next one may wait, in ms; -1: for ever.
  int flush(uint64_t nowMs);
  // TCP connections that the controller has not heard of yet.
  uint32_t unreported() const { return unreported_.load(); }
  // UDP sessions that it has not heard of yet.
  uint32_t unreportedFlows() const { return unreportedFlows_.load(std::memory_order_relaxed); }

  // --- Controller ----------------------------------------------------------------------------------------------

  // `*unreportedBefore`: of TCP, at the very moment at which these become fewer. Whoever looks earlier misses the one
  // that the engine adds in between, and with it the listener that waits from then on.
  size_t drain(Event* events, size_t capacity, uint32_t* unreportedBefore);
  bool lastUsed(double session, double* atMs) const;
  void sessionBytes(std::vector<SessionBytes>* out) const;

 private:
  static bool isUrgent(const Event& event);

  const Wake wake_;
  void* const context_;

  // Engine's thread only.
  std::vector<Event> fresh_;
  std::vector<Counters*> free_;
  std::vector<Counters*> released_;
  std::vector<Counters*> newUdp_;
  bool hasUrgent_ = false;
  uint64_t waitingSinceMs_ = 0;

  std::atomic<uint32_t> unreported_{0};
  std::atomic<uint32_t> unreportedFlows_{0};

  mutable std::mutex mutex_;
  std::vector<Event> queue_;
  size_t head_ = 0;
  bool isTold_ = false;
  // Their addresses stay as it grows.
  std::deque<Counters> counters_;
  std::unordered_map<uint64_t, Counters*> udp_;
};

}  // namespace kup
