// The one socket of a UDP listener, which it owns. Bound to the listener's address when that is the only one;
// else to the wildcard of the family, where the kernel tells of each datagram which local address it came to
// (IP_PKTINFO) and sends each reply from the address that it is told: so one descriptor does for a node with
// many addresses. Either way replies leave from the address and port that the client knows.
//
// Nobody shares the port: a bind fails where another program has it, and on the wildcard that is on any
// address of the node. A program that wants it later is told the same.
#pragma once

#include <vector>

#include "fd.h"
#include "loop.h"
#include "thread.h"
#include "udp_batch.h"
#include "udp_key.h"

namespace kup {

class UdpListener;

class UdpSocket final : private Watcher, private Task {
 public:
  UdpSocket(EngineThread* thread, UdpListener* listener) : thread_(thread), listener_(listener) {}
  ~UdpSocket() override;

  // Any thread. For these addresses, at least one and of one family. 0 or the errno.
  int bind(const std::vector<Address>& addresses);
  // The same while `other` has the port on one address, which it keeps.
  int bindBeside(const UdpSocket& other, const std::vector<Address>& addresses);
  // Engine's thread, as all that follows. 0 or the errno.
  int start();
  // Is it as `bind` would make it, or more?
  bool suits(const std::vector<Address>& addresses) const;
  // Null on the wildcard.
  const Address* boundTo() const { return isWildcard_ ? nullptr : &address_; }
  // Gives the listener all that has come. What is sent from now on goes to the socket bound beside it.
  void retire();
  // What the kernel does not take is counted as dropped.
  void reply(const iovec* datagrams, unsigned count, const UdpFlow& flow);

 private:
  void onReady(uint32_t events, uint32_t tag) override;
  void run() override;
  void receive();
  int open(const std::vector<Address>& addresses);
  int take();

  EngineThread* const thread_;
  UdpListener* const listener_;
  Address address_{};
  bool isWildcard_ = false;
  Fd socket_;
  Watch watch_;
  bool hasGrown_ = false;
};

// Asked for when the queue is full, in bytes.
inline constexpr int kSendQueueBytes = 4 << 20;

// Sends all, in order. `onError(errno)` is asked about each datagram that the kernel does not take: false
// ends it. Returns how many were sent or asked about.
//
// EAGAIN means that what was sent waits for a network that is slower than we are: the kernel's queue is made
// as long as net.core.wmem_max lets it, once (`*hasGrown`), and then datagrams are lost as they are in any
// full queue.
template <typename OnError>
unsigned sendAll(UdpBatch* batch, int fd, const iovec* datagrams, unsigned count,
                 const UdpBatch::Route& route, bool* hasGrown, OnError onError) {
  unsigned done = 0;
  while (done < count) {
    const int sent = batch->send(fd, datagrams + done, count - done, route);
    if (sent > 0) {
      done += static_cast<unsigned>(sent);
    } else if (sent == -EAGAIN && !*hasGrown) {
      *hasGrown = true;
      setOption(fd, SOL_SOCKET, SO_SNDBUF, kSendQueueBytes);
    } else {
      ++done;
      if (!onError(-sent)) break;
    }
  }
  return done;
}

}  // namespace kup
