// One end of a connection as the fuzz has it: a client or a backend. Knows what it has sent, checks each byte that it
// gets against what its peer has sent, and remembers how the connection ended for it.
//
// Owns its socket.
#pragma once

#include "support.h"

namespace kup::test {

// An endless sequence of bytes, in which a piece that is lost, doubled or misplaced shows. Never the byte that stands
// for urgent data.
class Content {
 public:
  static constexpr uint8_t kUrgentByte = 255;
  static constexpr size_t kMostAtOnce = 3 << 20;

  Content() = default;
  explicit Content(Random& random) : base_(random.next()) {}
  // `kMostAtOnce` bytes from there.
  const uint8_t* from(uint64_t offset) const;

 private:
  uint64_t base_ = 0;
};

class Endpoint {
 public:
  Endpoint(Fd socket, Random& random);
  // A client begins with this.
  void connect(const Address& to, int bufferBytes) { startConnect(socket_.get(), to, bufferBytes); }

  // --- What it does ------------------------------------------------------------------------------------------------

  // As much of `most` as the kernel takes. All of these do nothing when it cannot be done any more.
  void write(size_t most);
  void writeUrgent();
  // At most so much; checks it.
  void read(size_t most);
  // Ends its direction.
  void finish();
  // In order when nothing is left to be read; a reset otherwise, now or when something comes.
  void close();
  void reset();

  // --- What it is to get -------------------------------------------------------------------------------------------

  void expectPreamble(const Content& content, size_t length);
  // From its beginning, after the preamble.
  void expectFrom(const Endpoint* peer) { peer_ = peer; }

  // --- What happened -----------------------------------------------------------------------------------------------

  uint64_t sent() const { return sent_; }
  uint32_t urgentSent() const { return urgentSent_; }
  // Of its peer, without the preamble.
  uint64_t received() const { return received_ > preambleLength_ ? received_ - preambleLength_ : 0; }
  bool hasWholePreamble() const { return received_ >= preambleLength_; }
  bool isOpen() const { return socket_.isOpen(); }
  bool hasFinished() const { return hasFinished_; }
  bool hasClosed() const { return hasClosed_; }
  bool hasReset() const { return hasReset_; }
  // It got the end, after which `sawReset` may still become true.
  bool sawEnd() const { return sawEnd_; }
  bool sawReset() const { return error_ != 0; }
  int error() const { return error_; }
  // It will hear no more.
  bool isDone() const { return !isOpen() || sawEnd_ || sawReset(); }
  // Looks for a reset that came after the end.
  void lookForReset();

 private:
  void failed(int error);
  void check(const uint8_t* bytes, size_t length);

  Fd socket_;
  const Content content_;
  uint64_t sent_ = 0;
  uint32_t urgentSent_ = 0;
  Content preamble_;
  size_t preambleLength_ = 0;
  const Endpoint* peer_ = nullptr;
  uint64_t received_ = 0;
  uint32_t urgentReceived_ = 0;
  int error_ = 0;
  bool hasFinished_ = false;
  bool hasClosed_ = false;
  bool hasReset_ = false;
  bool sawEnd_ = false;
};

}  // namespace kup::test
