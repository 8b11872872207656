#include "pipes.h"

#include <fcntl.h>

#include <algorithm>

namespace kup {

namespace {

constexpr int kWantedCapacity = 1 << 20;
// Smaller ones, which is what is left at the user's limit, cost more than copying.
constexpr int kUsefulCapacity = 1 << 16;

}  // namespace

PipeHolder::~PipeHolder() {
  if (pipe_ != nullptr) pipe_->pool_->giveBack(this);
}

PipePool::PipePool(uint32_t maxPipes) : maxPipes_(maxPipes) {}

PipePool::~PipePool() {
  for (const auto& pipe : pipes_) {
    if (pipe->holder_ != nullptr) pipe->holder_->pipe_ = nullptr;
  }
}

bool PipePool::lend(PipeHolder* holder) {
  if (holder->pipe_ != nullptr) return true;
  Pipe* pipe = nullptr;
  if (!free_.empty()) {
    pipe = free_.back();
    free_.pop_back();
    fewestFree_ = std::min(fewestFree_, free_.size());
  } else if (auto made = pipes_.size() < maxPipes_ ? make() : nullptr) {
    pipe = made.get();
    pipes_.push_back(std::move(made));
  } else {
    pipe = steal();
  }
  if (pipe == nullptr) return false;
  pipe->holder_ = holder;
  holder->pipe_ = pipe;
  linkLast(pipe);
  return true;
}

void PipePool::used(PipeHolder* holder) {
  Pipe* pipe = holder->pipe_;
  if (pipe == last_) return;
  unlink(pipe);
  linkLast(pipe);
}

void PipePool::giveBack(PipeHolder* holder) {
  Pipe* pipe = holder->pipe_;
  if (pipe == nullptr) return;
  holder->pipe_ = nullptr;
  pipe->holder_ = nullptr;
  unlink(pipe);
  if (pipe->filled == 0) {
    free_.push_back(pipe);
    return;
  }
  destroy(pipe);
}

// The ones that came first are those that were lent last: the end of the list is used again and again.
void PipePool::trim() {
  const auto idle = free_.begin() + static_cast<std::ptrdiff_t>(std::min(fewestFree_, free_.size()));
  for (auto pipe = free_.begin(); pipe != idle; ++pipe) destroy(*pipe);
  free_.erase(free_.begin(), idle);
  fewestFree_ = free_.size();
}

void PipePool::destroy(Pipe* pipe) {
  pipes_.erase(std::find_if(pipes_.begin(), pipes_.end(), [&](const auto& one) { return one.get() == pipe; }));
}

std::unique_ptr<Pipe> PipePool::make() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return nullptr;
  auto pipe = std::make_unique<Pipe>();
  pipe->read_ = Fd(ends[0]);
  pipe->write_ = Fd(ends[1]);
  pipe->pool_ = this;
  ::fcntl(ends[1], F_SETPIPE_SZ, kWantedCapacity);
  const int capacity = ::fcntl(ends[1], F_GETPIPE_SZ);
  if (capacity < kUsefulCapacity) return nullptr;
  pipe->capacity_ = static_cast<size_t>(capacity);
  return pipe;
}

// Only an empty one: what is in a pipe belongs to its flow.
Pipe* PipePool::steal() {
  for (Pipe* pipe = first_; pipe != nullptr; pipe = pipe->next_) {
    if (pipe->filled > 0) continue;
    unlink(pipe);
    pipe->holder_->pipe_ = nullptr;
    return pipe;
  }
  return nullptr;
}

void PipePool::unlink(Pipe* pipe) {
  (pipe->previous_ != nullptr ? pipe->previous_->next_ : first_) = pipe->next_;
  (pipe->next_ != nullptr ? pipe->next_->previous_ : last_) = pipe->previous_;
  pipe->previous_ = pipe->next_ = nullptr;
}

void PipePool::linkLast(Pipe* pipe) {
  pipe->previous_ = last_;
  (last_ != nullptr ? last_->next_ : first_) = pipe;
  last_ = pipe;
}

}  // namespace kup
