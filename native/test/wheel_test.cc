// The timer wheel against a model that is a plain list: no timer is early, none is later than the first tick that is
// not before its deadline (or, armed too late for that, the next tick), none is lost, and `timeoutMs` lets nobody sleep
// past a deadline.
//
// Usage: wheel_test [first seed [rounds]]
#include "../wheel.h"

#include <algorithm>
#include <vector>

#include "support.h"

namespace {

using kup::Timer;
using kup::Wheel;
using kup::test::Random;

class Model;

struct Probe final : Timer {
  void onDeadline() override;

  Model* model = nullptr;
  uint64_t dueTick = 0;
  // The tick it was then when it was armed.
  uint64_t armedTick = 0;
  // What the model believes.
  bool isWaiting = false;
};

class Model {
 public:
  explicit Model(uint64_t seed)
      : random_(seed), nowMs_(random_.below(uint64_t{1} << 40)), wheel_(nowMs_), probes_(random_.between(1, 200)) {
    for (Probe& probe : probes_) probe.model = this;
  }

  void run() {
    for (int step = 0; step < 400; ++step) {
      const uint64_t action = random_.below(6);
      if (action < 2) {
        arm(any());
      } else if (action == 2) {
        disarm(any());
      } else if (action == 3) {
        sleep();
      } else {
        advance(nowMs_ + anySpan());
      }
      checkAll();
    }
    drain();
  }

  void fired(Probe& probe) {
    EXPECT(probe.isWaiting, "a timer that was not armed has fired");
    EXPECT(!probe.isArmed(), "a timer is still armed while it fires");
    EXPECT(isAdvancing_, "a timer fired outside of advance");
    EXPECT(probe.dueTick <= tick(), "early: due at tick %lu, fired before %lu", probe.dueTick, tick());
    probe.isWaiting = false;
    ++fired_;
    if (isDraining_) return;
    if (random_.chance(30)) arm(probe);
    if (random_.chance(10)) arm(any());
    if (random_.chance(10)) disarm(any());
  }

  uint64_t countFired() const { return fired_; }

 private:
  uint64_t tick() const { return nowMs_ / Wheel::kTickMs; }
  Probe& any() { return probes_[random_.below(probes_.size())]; }

  // Of every level of the wheel, of their borders, and beyond the last (18.6 hours).
  uint64_t anySpan() {
    static constexpr uint64_t kSpans[] = {1, 4, 40, 1024, 5000, 262'144, 1'000'000, 67'108'864, 300'000'000};
    const uint64_t span = random_.of(kSpans);
    return random_.chance(20) ? span : random_.below(span + 1);
  }

  void arm(Probe& probe) {
    const bool isPast = random_.chance(5);
    const uint64_t atMs = isPast ? nowMs_ - random_.below(nowMs_ + 1) : nowMs_ + anySpan();
    probe.dueTick = (atMs + Wheel::kTickMs - 1) / Wheel::kTickMs;
    probe.armedTick = tick();
    probe.isWaiting = true;
    wheel_.arm(&probe, atMs);
  }

  void disarm(Probe& probe) {
    probe.isWaiting = false;
    probe.disarm();
  }

  void advance(uint64_t toMs) {
    nowMs_ = toMs;
    isAdvancing_ = true;
    wheel_.advance(nowMs_);
    isAdvancing_ = false;
    for (const Probe& probe : probes_) {
      if (!probe.isWaiting || probe.armedTick == tick()) continue;
      EXPECT(probe.dueTick > tick(), "late: due at tick %lu, and it is %lu", probe.dueTick, tick());
    }
  }

  // As the loop does it: exactly as long as one is told.
  void sleep() {
    const int timeout = wheel_.timeoutMs(nowMs_);
    if (timeout < 0) return;
    const uint64_t untilMs = nowMs_ + static_cast<uint64_t>(timeout);
    for (const Probe& probe : probes_) {
      const uint64_t next = std::max(probe.dueTick, tick() + 1);
      EXPECT(!probe.isWaiting || untilMs <= next * Wheel::kTickMs, "sleeps until %lu past tick %lu", untilMs, next);
    }
    advance(untilMs);
  }

  void checkAll() {
    bool isAnyWaiting = false;
    for (const Probe& probe : probes_) {
      EXPECT(probe.isWaiting == probe.isArmed(), "armed: %d, believed: %d", probe.isArmed(), probe.isWaiting);
      isAnyWaiting = isAnyWaiting || probe.isWaiting;
    }
    EXPECT(!isAnyWaiting || wheel_.timeoutMs(nowMs_) >= 0, "timers wait, and nobody will wake");
  }

  // Whoever does nothing but sleep sees them all, and then is not woken any more.
  void drain() {
    isDraining_ = true;
    for (int turn = 0; wheel_.timeoutMs(nowMs_) >= 0; ++turn) {
      EXPECT(turn < 10'000, "the wheel wakes for ever");
      sleep();
    }
    for (const Probe& probe : probes_) EXPECT(!probe.isWaiting, "lost: due at tick %lu", probe.dueTick);
  }

  Random random_;
  uint64_t nowMs_;
  Wheel wheel_;
  std::vector<Probe> probes_;
  uint64_t fired_ = 0;
  bool isAdvancing_ = false;
  bool isDraining_ = false;
};

void Probe::onDeadline() { model->fired(*this); }

}  // namespace

int main(int count, char** arguments) {
  const uint64_t first = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 1;
  const uint64_t rounds = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 1000;
  uint64_t fired = 0;
  for (uint64_t seed = first; seed < first + rounds; ++seed) {
    Model model(seed);
    model.run();
    fired += model.countFired();
  }
  std::printf("wheel_test: seeds %lu to %lu, %lu deadlines, none early, late or lost\n", first, first + rounds - 1,
              fired);
}
