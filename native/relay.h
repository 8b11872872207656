// One direction of a TCP connection that is carried from one socket to another. Small messages are read and written,
// which takes two system calls; what fills the buffer goes on through a pipe, and is not copied any more.
//
// Nothing is read as long as the other side does not take what was read before: that is all the back-pressure there is.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "fd.h"
#include "loop.h"
#include "pipes.h"

namespace kup {

// One end of a session, and what edges have said of it that no system call has disproved yet.
struct Side {
  Fd socket;
  Watch watch;
  bool isReadable = false;
  bool isWritable = false;
  // A short read is no proof that there is nothing more.
  bool readToEnd = false;
  // EPOLLRDHUP: the end has arrived, and with it everything that comes before it.
  bool hasEndInSight = false;
  // Urgent data: splice(2) cannot pass the mark, and says that there is nothing.
  bool isUrgent = false;
  // EPOLLERR.
  bool hasFailed = false;
  // Small segments do not wait for the acknowledgement of others (TCP_NODELAY). Before a second write it makes no
  // difference, and most short connections never come to that.
  bool isPrompt = false;
  bool hasBeenWritten = false;

  void note(uint32_t events);
  // To be called before each write.
  void writing();
  void keepAlive();
  // As if there had never been a socket.
  void forget();
};

// What the engine's thread lends to whichever flow is at work.
struct RelayRoom {
  static constexpr size_t kBufferBytes = 1 << 16;
  // A flow lets others have their turn after so much.
  static constexpr size_t kTurnBytes = 2 << 20;

  explicit RelayRoom(uint32_t maxPipes) : pipes(maxPipes) {}
  PipePool pipes;
  std::atomic<uint64_t> pauses{0};
  uint8_t buffer[kBufferBytes];
};

class Flow {
 public:
  enum class Step {
    waits,        // for an edge
    goesOn,       // had its share of this turn
    ended,        // the source's end was read and everything before it was written
    sourceFailed,
    sinkFailed,
  };

  // As far as it gets. `carried` counts what is read, before it is written.
  Step pump(RelayRoom& room, Side& from, Side& to, std::atomic<uint64_t>& carried);
  // Written before anything that is read, and not counted.
  void hold(const uint8_t* bytes, size_t length);
  // Drops what is held.
  void clear(RelayRoom& room);

  // Something was read or written since the last call.
  bool takeMoved();
  bool hasEnded() const { return hasEnded_; }

 private:
  enum class Moved { all, some, failed };

  Moved writeHeld(RelayRoom& room, Side& to);
  Moved emptyPipe(RelayRoom& room, Side& to);
  // Bytes read, 0 when there is nothing now or an end or a fault was met.
  size_t fillPipe(RelayRoom& room, Side& from, std::atomic<uint64_t>& carried);
  size_t copy(RelayRoom& room, Side& from, Side& to, std::atomic<uint64_t>& carried);
  int sendFlags() const;
  void blocked(RelayRoom& room, Side& to);
  bool mustCopy(RelayRoom& room, const Side& from);
  bool readFailed(Side& from, int error);

  PipeHolder pipe_;
  std::unique_ptr<uint8_t[]> held_;
  size_t heldAt_ = 0;
  size_t heldEnd_ = 0;
  // Read through the pipe since it was last found empty.
  size_t stretch_ = 0;
  bool isBulk_ = false;
  bool hasMoved_ = false;
  bool hasEnded_ = false;
  bool sourceFailed_ = false;
  bool sinkFailed_ = false;
};

}  // namespace kup
