#include "wheel.h"

#include <climits>

namespace kup {

void Timer::disarm() {
  if (next_ == nullptr) return;
  previous_->next_ = next_;
  next_->previous_ = previous_;
  previous_ = next_ = nullptr;
}

Wheel::Wheel(uint64_t nowMs) : tick_(nowMs / kTickMs) {
  for (auto& level : slots_) {
    for (Slot& slot : level) slot.previous_ = slot.next_ = &slot;
  }
}

Wheel::~Wheel() {
  for (auto& level : slots_) {
    for (Slot& slot : level) {
      while (slot.next_ != &slot) slot.next_->disarm();
      slot.previous_ = slot.next_ = nullptr;
    }
  }
}

void Wheel::arm(Timer* timer, uint64_t atMs) {
  timer->disarm();
  timer->deadlineTick_ = (atMs + kTickMs - 1) / kTickMs;
  place(timer);
}

void Wheel::advance(uint64_t nowMs) {
  const uint64_t until = nowMs / kTickMs;
  while (tick_ < until) {
    if (nextTick_ > until) {
      tick_ = until;
      return;
    }
    if (nextTick_ > tick_ + 1) tick_ = nextTick_ - 1;
    step();
    nextTick_ = firstTick();
  }
}

int Wheel::timeoutMs(uint64_t nowMs) {
  if (nextTick_ == kNever) return -1;
  const uint64_t atMs = nextTick_ * kTickMs;
  if (atMs <= nowMs) return 0;
  return atMs - nowMs > INT_MAX ? INT_MAX : static_cast<int>(atMs - nowMs);
}

void Wheel::step() {
  ++tick_;
  // What stood in a slot of a higher level is spread over the levels below when its time begins.
  for (int level = kLevels - 1; level > 0; --level) {
    const uint64_t below = (uint64_t{1} << (kBits * level)) - 1;
    if ((tick_ & below) == 0) fire(&slots_[level][(tick_ >> (kBits * level)) % kSlots]);
  }
  fire(&slots_[0][tick_ % kSlots]);
}

uint64_t Wheel::firstTick() const {
  uint64_t first = kNever;
  for (int level = 0; level < kLevels; ++level) {
    const uint64_t base = tick_ >> (kBits * level);
    for (uint64_t ahead = 1; ahead <= kSlots; ++ahead) {
      const Slot& slot = slots_[level][(base + ahead) % kSlots];
      if (slot.next_ == &slot) continue;
      const uint64_t tick = (base + ahead) << (kBits * level);
      if (tick < first) first = tick;
      break;
    }
  }
  return first;
}

void Wheel::place(Timer* timer) {
  if (timer->deadlineTick_ <= tick_) timer->deadlineTick_ = tick_ + 1;
  uint64_t ahead = timer->deadlineTick_ - tick_;
  uint64_t tick = timer->deadlineTick_;
  int level = 0;
  while (level < kLevels - 1 && ahead >= uint64_t{1} << (kBits * (level + 1))) ++level;
  // Beyond the last level: it waits in the slot that comes last, and is placed again then.
  const uint64_t most = (kSlots - 1) << (kBits * level);
  if (ahead > most && level == kLevels - 1) tick = tick_ + most;
  link(&slots_[level][(tick >> (kBits * level)) % kSlots], timer);
  const uint64_t begins = tick >> (kBits * level) << (kBits * level);
  if (begins < nextTick_) nextTick_ = begins;
}

// Takes the whole list first: whoever is called may arm himself anew.
void Wheel::fire(Slot* slot) {
  if (slot->next_ == slot) return;
  Slot due;
  due.next_ = slot->next_;
  due.previous_ = slot->previous_;
  due.next_->previous_ = due.previous_->next_ = &due;
  slot->previous_ = slot->next_ = slot;
  while (due.next_ != &due) {
    Timer* timer = due.next_;
    timer->disarm();
    if (timer->deadlineTick_ <= tick_) {
      timer->onDeadline();
    } else {
      place(timer);
    }
  }
  due.previous_ = due.next_ = nullptr;
}

void Wheel::link(Slot* slot, Timer* timer) {
  timer->previous_ = slot->previous_;
  timer->next_ = slot;
  slot->previous_->next_ = timer;
  slot->previous_ = timer;
}

}  // namespace kup
