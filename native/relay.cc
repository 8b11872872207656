#include "relay.h"

#include <fcntl.h>
#include <netinet/tcp.h>

#include <cstring>

#include "session.h"

namespace kup {

namespace {

// A flow whose stretches are shorter gives its pipe back: reading and writing is cheaper for it.
constexpr size_t kBulkBytes = 1 << 14;
// As the other engine has it: a vanished peer is noticed in 25 s.
constexpr int kKeepAliveIdleSeconds = 15;
constexpr int kKeepAliveIntervalSeconds = 1;
constexpr int kKeepAliveProbes = 10;
constexpr unsigned kSpliceFlags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;

bool isEmptyErrno(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

}  // namespace

void Side::note(uint32_t events) {
  if ((events & (EPOLLIN | kMoreToRead)) != 0) isReadable = true;
  if ((events & kMoreToRead) != 0) readToEnd = true;
  if ((events & EPOLLRDHUP) != 0) hasEndInSight = true;
  if ((events & EPOLLPRI) != 0) isUrgent = true;
  if ((events & EPOLLERR) != 0) hasFailed = true;
  if ((events & EPOLLOUT) != 0) isWritable = true;
}

void Side::writing() {
  if (hasBeenWritten && !isPrompt) {
    setOption(socket.get(), IPPROTO_TCP, TCP_NODELAY, 1);
    isPrompt = true;
  }
  hasBeenWritten = true;
}

// What has passed of the first delay by now counts.
void Side::keepAlive() {
  const int fd = socket.get();
  setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveIdleSeconds);
  setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveIntervalSeconds);
  setOption(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepAliveProbes);
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

void Side::forget() {
  watch.forget();
  socket.close();
  isReadable = isWritable = readToEnd = hasEndInSight = isUrgent = hasFailed = isPrompt = hasBeenWritten = false;
}

Flow::Step Flow::pump(RelayRoom& room, Side& from, Side& to, std::atomic<uint64_t>& carried) {
  size_t inTurn = 0;
  for (;;) {
    if (heldAt_ < heldEnd_ && writeHeld(room, to) != Moved::all) break;
    if (pipe_.pipe() != nullptr && emptyPipe(room, to) != Moved::all) break;
    if (sinkFailed_) break;
    if (hasEnded_) return Step::ended;
    if (!from.isReadable || sourceFailed_) break;
    if (!to.isWritable) break;
    if (inTurn >= RelayRoom::kTurnBytes) return Step::goesOn;
    inTurn += mustCopy(room, from) ? copy(room, from, to, carried) : fillPipe(room, from, carried);
  }
  if (sinkFailed_) return Step::sinkFailed;
  return sourceFailed_ ? Step::sourceFailed : Step::waits;
}

void Flow::hold(const uint8_t* bytes, size_t length) {
  if (length == 0) return;
  held_ = std::make_unique<uint8_t[]>(length);
  std::memcpy(held_.get(), bytes, length);
  heldAt_ = 0;
  heldEnd_ = length;
}

void Flow::clear(RelayRoom& room) {
  held_.reset();
  heldAt_ = heldEnd_ = 0;
  room.pipes.giveBack(&pipe_);
}

bool Flow::takeMoved() {
  const bool moved = hasMoved_;
  hasMoved_ = false;
  return moved;
}

Flow::Moved Flow::writeHeld(RelayRoom& room, Side& to) {
  if (!to.isWritable) return Moved::some;
  to.writing();
  const ssize_t sent = ::send(to.socket.get(), held_.get() + heldAt_, heldEnd_ - heldAt_, sendFlags());
  if (sent < 0 && !isEmptyErrno(errno)) {
    sinkFailed_ = true;
    return Moved::failed;
  }
  if (sent > 0) {
    hasMoved_ = true;
    heldAt_ += static_cast<size_t>(sent);
  }
  if (heldAt_ < heldEnd_) {
    blocked(room, to);
    return Moved::some;
  }
  held_.reset();
  heldAt_ = heldEnd_ = 0;
  return Moved::all;
}

Flow::Moved Flow::emptyPipe(RelayRoom& room, Side& to) {
  Pipe& pipe = *pipe_.pipe();
  while (pipe.filled > 0) {
    if (!to.isWritable) return Moved::some;
    to.writing();
    const ssize_t sent =
        ::splice(pipe.readEnd(), nullptr, to.socket.get(), nullptr, pipe.filled, kSpliceFlags);
    if (sent > 0) {
      hasMoved_ = true;
      pipe.filled -= static_cast<size_t>(sent);
    } else if (sent < 0 && isEmptyErrno(errno)) {
      blocked(room, to);
    } else {
      sinkFailed_ = true;
      return Moved::failed;
    }
  }
  return Moved::all;
}

size_t Flow::fillPipe(RelayRoom& room, Side& from, std::atomic<uint64_t>& carried) {
  Pipe& pipe = *pipe_.pipe();
  const ssize_t got =
      ::splice(from.socket.get(), nullptr, pipe.writeEnd(), nullptr, pipe.capacity(), kSpliceFlags);
  if (got > 0) {
    const size_t length = static_cast<size_t>(got);
    pipe.filled = length;
    stretch_ += length;
    hasMoved_ = true;
    bump(carried, length);
    room.pipes.used(&pipe_);
    return length;
  }
  if (got == 0) {
    // The end, or urgent data before it: only a read can tell.
    isBulk_ = false;
    room.pipes.giveBack(&pipe_);
    from.readToEnd = true;
  } else if (readFailed(from, errno)) {
    if (stretch_ < kBulkBytes) {
      isBulk_ = false;
      room.pipes.giveBack(&pipe_);
    }
    stretch_ = 0;
  }
  return 0;
}

size_t Flow::copy(RelayRoom& room, Side& from, Side& to, std::atomic<uint64_t>& carried) {
  const ssize_t got = ::recv(from.socket.get(), room.buffer, RelayRoom::kBufferBytes, 0);
  if (got == 0) {
    hasEnded_ = true;
    return 0;
  }
  if (got < 0) {
    readFailed(from, errno);
    return 0;
  }
  const size_t length = static_cast<size_t>(got);
  isBulk_ = length == RelayRoom::kBufferBytes;
  if (!isBulk_ && !from.readToEnd) from.isReadable = false;
  // It was seen before the read, so what the read left out is not there.
  if (!isBulk_ && from.hasEndInSight && !from.isUrgent && !from.hasFailed) hasEnded_ = true;
  hasMoved_ = true;
  bump(carried, length);
  to.writing();
  const ssize_t sent = ::send(to.socket.get(), room.buffer, length, sendFlags());
  if (sent < 0 && !isEmptyErrno(errno)) {
    sinkFailed_ = true;
    // What it had to say may still be there to be read; this direction is over.
    to.isWritable = false;
  } else if (static_cast<size_t>(sent < 0 ? 0 : sent) < length) {
    const size_t rest = sent < 0 ? 0 : static_cast<size_t>(sent);
    hold(room.buffer + rest, length - rest);
    blocked(room, to);
  }
  return length;
}

// The last bytes and the end that follows at once are one packet.
int Flow::sendFlags() const { return hasEnded_ ? MSG_NOSIGNAL | MSG_MORE : MSG_NOSIGNAL; }

void Flow::blocked(RelayRoom& room, Side& to) {
  to.isWritable = false;
  bump(room.pauses);
}

bool Flow::mustCopy(RelayRoom& room, const Side& from) {
  if (!isBulk_ || from.isUrgent) return true;
  return !room.pipes.lend(&pipe_);
}

// True: there is nothing now.
bool Flow::readFailed(Side& from, int error) {
  if (isEmptyErrno(error)) {
    from.isReadable = from.readToEnd = from.isUrgent = false;
    return true;
  }
  sourceFailed_ = true;
  return false;
}

}  // namespace kup
