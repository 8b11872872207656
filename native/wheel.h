// Deadlines of any number of sessions for the price of a list operation each: a hierarchical timing wheel
// (Varghese and Lauck, 1987). Ticks of 4 ms; 256 slots of 4 ms, then of 1 s, then of 4.4 minutes. A deadline beyond
// the last level (18.6 hours) waits there and goes round again.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kup {

// Something with at most one deadline. Disarms itself when it goes.
class Timer {
 public:
  Timer() = default;
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  virtual ~Timer() { disarm(); }

  bool isArmed() const { return next_ != nullptr; }
  void disarm();

 protected:
  // Not before its deadline, and not armed any more. May arm or disarm any timer, this one included.
  virtual void onDeadline() = 0;

 private:
  friend class Wheel;
  Timer* previous_ = nullptr;
  Timer* next_ = nullptr;
  uint64_t deadlineTick_ = 0;
};

class Wheel {
 public:
  static constexpr uint64_t kTickMs = 4;

  explicit Wheel(uint64_t nowMs);
  Wheel(const Wheel&) = delete;
  Wheel& operator=(const Wheel&) = delete;
  // Disarms whatever is armed.
  ~Wheel();

  // At the first tick that is not before `atMs`; replaces an earlier deadline.
  void arm(Timer* timer, uint64_t atMs);
  // Calls every timer whose deadline has come by `nowMs`.
  void advance(uint64_t nowMs);
  // Milliseconds until something may be due, 0 when it is already, -1 when nothing is armed.
  int timeoutMs(uint64_t nowMs);

 private:
  static constexpr int kLevels = 3;
  static constexpr uint64_t kSlots = 256;
  static constexpr int kBits = 8;

  // The head of a circular list.
  struct Slot : Timer {
    void onDeadline() override {}
  };

  static constexpr uint64_t kNever = UINT64_MAX;

  void place(Timer* timer);
  void fire(Slot* slot);
  void step();
  uint64_t firstTick() const;
  static void link(Slot* slot, Timer* timer);

  uint64_t tick_;
  // No slot with anything in it begins before this: until then there is nothing to look for.
  uint64_t nextTick_ = kNever;
  Slot slots_[kLevels][kSlots];
};

}  // namespace kup
