#include "endpoint.h"

#include <netinet/tcp.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace kup::test {

namespace {

// A prime, so that no buffer's size divides it.
constexpr size_t kPeriod = 1'048'573;

const std::vector<uint8_t>& table() {
  static const std::vector<uint8_t> bytes = [] {
    std::vector<uint8_t> made(kPeriod + Content::kMostAtOnce);
    Random random(42);
    for (size_t at = 0; at < made.size(); ++at) {
      made[at] = at < kPeriod ? static_cast<uint8_t>(random.below(Content::kUrgentByte)) : made[at - kPeriod];
    }
    return made;
  }();
  return bytes;
}

uint8_t readBuffer[1 << 18];

}  // namespace

const uint8_t* Content::from(uint64_t offset) const { return table().data() + (base_ % kPeriod + offset) % kPeriod; }

Endpoint::Endpoint(Fd socket, Random& random) : socket_(std::move(socket)), content_(random) {}

void Endpoint::write(size_t most) {
  if (!isOpen() || hasFinished_ || sawReset()) return;
  const size_t length = std::min(most, Content::kMostAtOnce);
  const ssize_t took = ::send(socket_.get(), content_.from(sent_), length, MSG_NOSIGNAL);
  if (took >= 0) {
    sent_ += static_cast<uint64_t>(took);
  } else {
    failed(errno);
  }
}

void Endpoint::writeUrgent() {
  if (!isOpen() || hasFinished_ || sawReset()) return;
  const uint8_t byte = Content::kUrgentByte;
  const ssize_t took = ::send(socket_.get(), &byte, 1, MSG_NOSIGNAL | MSG_OOB);
  if (took == 1) {
    ++urgentSent_;
  } else {
    failed(errno);
  }
}

void Endpoint::read(size_t most) {
  while (most > 0 && !isDone()) {
    const size_t length = std::min(most, sizeof readBuffer);
    const ssize_t got = ::recv(socket_.get(), readBuffer, length, 0);
    if (got > 0) {
      check(readBuffer, static_cast<size_t>(got));
      most -= static_cast<size_t>(got);
    } else if (got == 0) {
      sawEnd_ = true;
    } else {
      if (errno == EAGAIN || errno == ENOTCONN) return;
      failed(errno);
    }
  }
}

void Endpoint::finish() {
  if (!isOpen() || hasFinished_) return;
  // ENOTCONN: a reset has come, or the handshake goes on; the next step will see.
  if (::shutdown(socket_.get(), SHUT_WR) == 0) hasFinished_ = true;
}

void Endpoint::close() {
  if (!isOpen()) return;
  socket_.close();
  hasClosed_ = true;
}

// A connection that both have ended cannot be reset any more: Linux sends nothing then.
void Endpoint::reset() {
  if (!isOpen()) return;
  tcp_info info{};
  socklen_t length = sizeof info;
  ::getsockopt(socket_.get(), IPPROTO_TCP, TCP_INFO, &info, &length);
  const bool isLate = info.tcpi_state == TCP_LAST_ACK || info.tcpi_state == TCP_CLOSING || info.tcpi_state == TCP_CLOSE;
  socket_.reset();
  (isLate ? hasClosed_ : hasReset_) = true;
}

void Endpoint::expectPreamble(const Content& content, size_t length) {
  preamble_ = content;
  preambleLength_ = length;
}

void Endpoint::lookForReset() {
  if (!isOpen() || sawReset()) return;
  int error = 0;
  socklen_t length = sizeof error;
  if (::getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error != 0) failed(error);
}

void Endpoint::failed(int error) {
  if (error == EAGAIN || error == ENOTCONN || error == EINPROGRESS) return;
  EXPECT(error == ECONNRESET || error == EPIPE || error == ECONNREFUSED, "a socket says: %s", std::strerror(error));
  // What came before the reset is checked too.
  for (;;) {
    const ssize_t got = ::recv(socket_.get(), readBuffer, sizeof readBuffer, 0);
    if (got <= 0) break;
    check(readBuffer, static_cast<size_t>(got));
  }
  error_ = error;
}

// Urgent bytes are passed over: whether they come in line is not ours to decide.
void Endpoint::check(const uint8_t* bytes, size_t length) {
  const uint8_t* const end = bytes + length;
  while (bytes < end) {
    if (*bytes == Content::kUrgentByte) {
      ++urgentReceived_;
      EXPECT(peer_ != nullptr && urgentReceived_ <= peer_->urgentSent_, "urgent data that nobody sent");
      ++bytes;
      continue;
    }
    const uint8_t* const stop = std::find(bytes, end, Content::kUrgentByte);
    size_t piece = std::min(static_cast<size_t>(stop - bytes), Content::kMostAtOnce);
    const uint8_t* wanted = nullptr;
    if (received_ < preambleLength_) {
      piece = std::min<size_t>(piece, preambleLength_ - received_);
      wanted = preamble_.from(received_);
    } else {
      EXPECT(peer_ != nullptr, "%zu bytes from nobody", piece);
      EXPECT(received() + piece <= peer_->sent_, "%zu bytes after %lu of %lu", piece, received(), peer_->sent_);
      wanted = peer_->content_.from(received());
    }
    EXPECT(std::memcmp(bytes, wanted, piece) == 0, "%zu wrong bytes after %lu", piece, received_);
    received_ += piece;
    bytes += piece;
  }
}

}  // namespace kup::test
