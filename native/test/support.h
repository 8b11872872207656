// What the plain programs over the core have in common: a failure that says where, numbers that can be had again,
// and sockets on loopback.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "../engine.h"
#include "../fd.h"

namespace kup::test {

// Ends the program: what holds no more cannot be gone on with.
#define FAIL(...)                                        \
  do {                                                   \
    std::fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
    std::fprintf(stderr, __VA_ARGS__);                   \
    std::fputc('\n', stderr);                            \
    std::abort();                                        \
  } while (false)

#define EXPECT(condition, ...)                      \
  do {                                              \
    if (!(condition)) {                             \
      std::fprintf(stderr, "not %s: ", #condition); \
      FAIL(__VA_ARGS__);                            \
    }                                               \
  } while (false)

// SplitMix64 (Steele, Lea, Flood 2014): the same seed, the same numbers, everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t limit) { return next() % limit; }
  uint64_t between(uint64_t least, uint64_t most) { return least + below(most - least + 1); }
  bool chance(unsigned percent) { return below(100) < percent; }
  template <typename Value, size_t count>
  Value of(const Value (&values)[count]) {
    return values[below(count)];
  }

 private:
  uint64_t state_;
};

// Loopback of the family, AF_INET or AF_INET6.
Address loopback(int family, uint16_t port = 0);
Address addressOf(int socket);
// Non-blocking. `bufferBytes`: of both socket buffers, 0: what the system gives.
Fd listenOn(int family, int backlog, int bufferBytes = 0);
// Non-blocking, with a port of its own.
Fd bindAnywhere(int family);
// Whatever comes of it shows at the socket.
void startConnect(int socket, const Address& to, int bufferBytes = 0);
Fd connectTo(const Address& to, int bufferBytes = 0);
int openDescriptors();

// A backend that never answers: its queue is full.
class BlackHole {
 public:
  explicit BlackHole(int family);
  Address address() const { return addressOf(listener_.get()); }

 private:
  Fd listener_;
  Fd fill_[4];
};

// The controller's end of `Wake`.
class Alarm {
 public:
  Alarm();
  static void ring(void* self);
  // Returns as soon as it rings, or has rung since the last call.
  void wait(int timeoutMs);

 private:
  Fd event_;
};

// TCP on loopback, on a port that was free. Ends the program when there is none.
Address openListener(Engine& engine, Random& random, uint32_t listener, int family);

}  // namespace kup::test
