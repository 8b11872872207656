// Pipes for splice(2): bytes go from socket to socket without a copy. There are few of them: without CAP_SYS_RESOURCE
// a user gets about 62 of 1 MiB (fs.pipe-user-pages-soft), and each takes two descriptors. So a flow that carries bulk
// borrows one, and one that has been idle with it longest gives its own up to the next that needs one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "fd.h"

namespace kup {

class Pipe;
class PipePool;

// Who holds a pipe. It goes back to the pool when the holder goes.
class PipeHolder {
 public:
  PipeHolder() = default;
  PipeHolder(const PipeHolder&) = delete;
  PipeHolder& operator=(const PipeHolder&) = delete;
  ~PipeHolder();

  Pipe* pipe() const { return pipe_; }

 private:
  friend class PipePool;
  Pipe* pipe_ = nullptr;
};

// Both ends, and how much is in it. Whoever moves bytes keeps `filled` right.
class Pipe {
 public:
  int readEnd() const { return read_.get(); }
  int writeEnd() const { return write_.get(); }
  size_t capacity() const { return capacity_; }
  size_t filled = 0;

 private:
  friend class PipePool;
  friend class PipeHolder;
  Fd read_;
  Fd write_;
  size_t capacity_ = 0;
  PipePool* pool_ = nullptr;
  PipeHolder* holder_ = nullptr;
  // Holders in the order in which they used theirs last.
  Pipe* previous_ = nullptr;
  Pipe* next_ = nullptr;
};

class PipePool {
 public:
  explicit PipePool(uint32_t maxPipes);
  ~PipePool();

  // The holder's pipe is empty or gone before. False: none is to be had, so copy.
  bool lend(PipeHolder* holder);
  // It carries something: others give theirs up before it.
  void used(PipeHolder* holder);
  // A pipe with anything left in it is destroyed.
  void giveBack(PipeHolder* holder);
  // Closes those that nobody has needed since the last call. To be called now and then while there are any.
  void trim();
  bool isEmpty() const { return pipes_.empty(); }

 private:
  std::unique_ptr<Pipe> make();
  Pipe* steal();
  void unlink(Pipe* pipe);
  void linkLast(Pipe* pipe);
  void destroy(Pipe* pipe);

  const uint32_t maxPipes_;
  std::vector<std::unique_ptr<Pipe>> pipes_;
  std::vector<Pipe*> free_;
  // The fewest that were free at a time since the last trim.
  size_t fewestFree_ = 0;
  Pipe* first_ = nullptr;
  Pipe* last_ = nullptr;
};

}  // namespace kup
