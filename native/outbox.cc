#include "outbox.h"

#include <algorithm>

namespace kup {

Counters* Outbox::take(uint64_t session, bool isUdp) {
  Counters* counters = nullptr;
  if (free_.empty()) {
    const std::lock_guard<std::mutex> lock(mutex_);
    counters = &counters_.emplace_back();
  } else {
    counters = free_.back();
    free_.pop_back();
  }
  counters->bytesIn.store(0, std::memory_order_relaxed);
  counters->bytesOut.store(0, std::memory_order_relaxed);
  counters->lastUsedMs.store(0, std::memory_order_relaxed);
  counters->session.store(session, std::memory_order_release);
  if (isUdp) newUdp_.push_back(counters);
  return counters;
}

void Outbox::release(Counters* counters) { released_.push_back(counters); }

void Outbox::add(const Event& event) {
  if (isUrgent(event)) hasUrgent_ = true;
  if (event.kind == static_cast<uint32_t>(EventKind::opened)) {
    (event.isUdp == 0 ? unreported_ : unreportedFlows_).fetch_add(1);
  }
  fresh_.push_back(event);
}

int Outbox::flush(uint64_t nowMs) {
  bool mustWake = false;
  int waitMs = -1;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (head_ == queue_.size()) {
      queue_.clear();
      head_ = 0;
      waitingSinceMs_ = nowMs;
    }
    queue_.insert(queue_.end(), fresh_.begin(), fresh_.end());
    for (Counters* counters : newUdp_) udp_.emplace(counters->session.load(std::memory_order_relaxed), counters);
    for (Counters* counters : released_) {
      udp_.erase(counters->session.load(std::memory_order_relaxed));
      counters->session.store(0, std::memory_order_release);
    }
    if (head_ < queue_.size() && !isTold_) {
      const uint64_t waited = nowMs - waitingSinceMs_;
      mustWake = hasUrgent_ || waited >= kPatienceMs;
      if (!mustWake) waitMs = static_cast<int>(kPatienceMs - waited);
      isTold_ = mustWake;
    }
  }
  free_.insert(free_.end(), released_.begin(), released_.end());
  fresh_.clear();
  newUdp_.clear();
  released_.clear();
  hasUrgent_ = false;
  if (mustWake) wake_(context_);
  return waitMs;
}

size_t Outbox::drain(Event* events, size_t capacity, uint32_t* unreportedBefore) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const size_t count = std::min(capacity, queue_.size() - head_);
  uint32_t reported = 0;
  uint32_t reportedFlows = 0;
  for (size_t at = 0; at < count; ++at) {
    const Event& event = queue_[head_ + at];
    events[at] = event;
    if (event.kind == static_cast<uint32_t>(EventKind::opened)) ++(event.isUdp == 0 ? reported : reportedFlows);
  }
  head_ += count;
  if (head_ == queue_.size()) {
    queue_.clear();
    head_ = 0;
    isTold_ = false;
  }
  *unreportedBefore = unreported_.fetch_sub(reported);
  unreportedFlows_.fetch_sub(reportedFlows);
  return count;
}

bool Outbox::lastUsed(double session, double* atMs) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = udp_.find(static_cast<uint64_t>(session));
  if (found == udp_.end()) return false;
  *atMs = static_cast<double>(found->second->lastUsedMs.load(std::memory_order_relaxed));
  return true;
}

void Outbox::sessionBytes(std::vector<SessionBytes>* out) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Counters& counters : counters_) {
    const uint64_t session = counters.session.load(std::memory_order_acquire);
    if (session == 0) continue;
    out->push_back({static_cast<double>(session),
                    static_cast<double>(counters.bytesIn.load(std::memory_order_relaxed)),
                    static_cast<double>(counters.bytesOut.load(std::memory_order_relaxed))});
  }
  for (size_t at = head_; at < queue_.size(); ++at) {
    const Event& event = queue_[at];
    if (event.kind != static_cast<uint32_t>(EventKind::closed)) continue;
    out->push_back({event.session, event.bytesIn, event.bytesOut});
  }
}

bool Outbox::isUrgent(const Event& event) {
  return event.kind != static_cast<uint32_t>(EventKind::established) &&
         event.kind != static_cast<uint32_t>(EventKind::closed);
}

}  // namespace kup
