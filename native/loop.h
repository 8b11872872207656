// The event loop of the engine's thread: epoll, edge-triggered, and who is told of which descriptor.
//
// A descriptor is registered once, for everything; a `Watch` names it by slot and generation, never by pointer. That
// holds against events that come too late: in one batch for a session that ended earlier in the batch, and for a
// descriptor that was closed while a child process between fork and exec still held a copy of it.
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "fd.h"
#include "wheel.h"

namespace kup {

// Everything a stream socket can tell. A short read is proof of emptiness unless one of `kMoreToRead` came with it:
// behind them may stand an end, an error, or bytes after urgent data, for which no further edge comes.
inline constexpr uint32_t kStreamEvents = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
inline constexpr uint32_t kMoreToRead = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI;
inline constexpr uint32_t kDatagramEvents = EPOLLIN | EPOLLOUT | EPOLLET;

class Watcher {
 public:
  virtual ~Watcher() = default;
  // `events`: what epoll says; `tag`: which of its descriptors.
  virtual void onReady(uint32_t events, uint32_t tag) = 0;
};

class Loop;

// The registration of one descriptor. Forgotten when it goes, before or after the descriptor is closed.
class Watch {
 public:
  Watch() = default;
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch() { forget(); }

  // 0 or the errno. Events of an earlier registration come no more.
  int start(Loop* loop, int fd, uint32_t events, Watcher* watcher, uint32_t tag);
  void forget();

 private:
  Loop* loop_ = nullptr;
  uint32_t slot_ = 0;
};

// Work that is to be gone on with in the next turn, after all others had their share. At most once in the queue.
class Task {
 public:
  Task() = default;
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  virtual ~Task() = default;
  virtual void run() = 0;

 private:
  friend class Loop;
  bool isQueued_ = false;
};

class Loop {
 public:
  Loop();
  // 0 or the errno.
  int init();

  // Any thread: the turn that waits ends at once. Costs nothing while the loop is busy.
  void wake();
  // Engine's thread, as all that follows. Waits for events, at most `maxWaitMs` (-1: no limit), and tells who watches.
  // `hasWork` is asked after other threads were asked to wake the loop: true means that it must not sleep.
  // `beforeEvents` is called before anybody is told: what another thread wanted before it caused an event comes first.
  template <typename HasWork, typename BeforeEvents>
  void turn(int maxWaitMs, HasWork hasWork, BeforeEvents beforeEvents);

  // Milliseconds of CLOCK_MONOTONIC at the beginning of this turn.
  uint64_t now() const { return now_; }
  Wheel& wheel() { return wheel_; }
  // To be called again in the next turn.
  void defer(Task* task);
  // It is about to go.
  void cancel(Task* task);

 private:
  friend class Watch;
  static constexpr int kMaxEvents = 256;
  static constexpr uint64_t kWakeToken = UINT64_MAX;

  struct Slot {
    Watcher* watcher = nullptr;
    uint32_t generation = 0;
    uint32_t tag = 0;
  };

  int waitMs(int maxWaitMs);
  void dispatch(int count);
  void runDeferred();
  static uint64_t clockMs();

  Fd epoll_;
  Fd wakeup_;
  std::atomic<bool> isAsleep_{false};
  uint64_t now_;
  Wheel wheel_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> freeSlots_;
  std::vector<Task*> deferred_;
  std::vector<Task*> running_;
  epoll_event events_[kMaxEvents];
};

template <typename HasWork, typename BeforeEvents>
void Loop::turn(int maxWaitMs, HasWork hasWork, BeforeEvents beforeEvents) {
  int timeout = waitMs(maxWaitMs);
  if (timeout != 0) {
    isAsleep_.store(true);
    if (hasWork()) timeout = 0;
  }
  const int count = ::epoll_wait(epoll_.get(), events_, kMaxEvents, timeout);
  isAsleep_.store(false);
  now_ = clockMs();
  beforeEvents();
  dispatch(count);
  // After the sockets: an answer that is there already is not late.
  wheel_.advance(now_);
  runDeferred();
}

}  // namespace kup
