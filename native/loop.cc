#include "loop.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <ctime>

#include "engine.h"

namespace kup {

double nowMs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

int Watch::start(Loop* loop, int fd, uint32_t events, Watcher* watcher, uint32_t tag) {
  forget();
  uint32_t slot = 0;
  if (loop->freeSlots_.empty()) {
    slot = static_cast<uint32_t>(loop->slots_.size());
    loop->slots_.emplace_back();
  } else {
    slot = loop->freeSlots_.back();
    loop->freeSlots_.pop_back();
  }
  Loop::Slot& entry = loop->slots_[slot];
  entry.watcher = watcher;
  entry.tag = tag;
  loop_ = loop;
  slot_ = slot;
  epoll_event event{};
  event.events = events;
  event.data.u64 = uint64_t{entry.generation} << 32 | slot;
  if (::epoll_ctl(loop->epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) return 0;
  const int error = errno;
  forget();
  return error;
}

void Watch::forget() {
  if (loop_ == nullptr) return;
  Loop::Slot& entry = loop_->slots_[slot_];
  entry.watcher = nullptr;
  ++entry.generation;
  loop_->freeSlots_.push_back(slot_);
  loop_ = nullptr;
}

Loop::Loop() : now_(clockMs()), wheel_(now_) {}

int Loop::init() {
  epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.isOpen()) return errno;
  wakeup_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wakeup_.isOpen()) return errno;
  epoll_event event{};
  // Edge-triggered, every write is an event of its own and the count need never be read.
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = kWakeToken;
  return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wakeup_.get(), &event) == 0 ? 0 : errno;
}

void Loop::wake() {
  if (!isAsleep_.exchange(false)) return;
  const uint64_t one = 1;
  // Fails only when the count is at its limit, and then the loop has been woken.
  [[maybe_unused]] const ssize_t written = ::write(wakeup_.get(), &one, sizeof one);
}

void Loop::defer(Task* task) {
  if (task->isQueued_) return;
  task->isQueued_ = true;
  deferred_.push_back(task);
}

void Loop::cancel(Task* task) {
  if (!task->isQueued_) return;
  task->isQueued_ = false;
  std::replace(deferred_.begin(), deferred_.end(), task, static_cast<Task*>(nullptr));
  std::replace(running_.begin(), running_.end(), task, static_cast<Task*>(nullptr));
}

int Loop::waitMs(int maxWaitMs) {
  if (!deferred_.empty()) return 0;
  const int timeout = wheel_.timeoutMs(clockMs());
  if (timeout < 0 || (maxWaitMs >= 0 && maxWaitMs < timeout)) return maxWaitMs;
  return timeout;
}

void Loop::dispatch(int count) {
  for (int at = 0; at < count; ++at) {
    const uint64_t token = events_[at].data.u64;
    if (token == kWakeToken) continue;
    const Slot& slot = slots_[token & UINT32_MAX];
    if (slot.watcher == nullptr || slot.generation != token >> 32) continue;
    slot.watcher->onReady(events_[at].events, slot.tag);
  }
}

void Loop::runDeferred() {
  running_.swap(deferred_);
  for (size_t at = 0; at < running_.size(); ++at) {
    Task* task = running_[at];
    if (task == nullptr) continue;
    task->isQueued_ = false;
    running_[at] = nullptr;
    task->run();
  }
  running_.clear();
}

uint64_t Loop::clockMs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
}

}  // namespace kup
