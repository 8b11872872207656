// One local address of a UDP listener: the socket that is bound to it, which it owns, and the sessions of the clients
// that send there. Replies leave by the same socket, and so from the address and port that the client knows.
//
// Bound to the one address, and exclusively: the kernel then sorts out what is for other addresses, says so when the
// port is taken, and leaves the port of all other addresses to others. One socket on the wildcard with IP_PKTINFO
// would hold the port of every address of the node.
#pragma once

#include <unordered_map>

#include "fd.h"
#include "loop.h"
#include "thread.h"
#include "udp_batch.h"
#include "udp_key.h"

namespace kup {

class UdpSession;

class UdpSocket final : private Watcher, private Task {
 public:
  UdpSocket(EngineThread* thread, uint32_t listener, const Address& at);
  // Without a word to the sessions: they must have ended.
  ~UdpSocket() override;

  // Any thread. 0 or the errno.
  int bind();
  // Engine's thread, as all that follows. 0 or the errno.
  int start();
  // Ends all sessions with `stopped`.
  void close();

  const Address& address() const { return address_; }
  // To that client. What the kernel does not take is counted as dropped.
  void reply(const iovec* datagrams, unsigned count, const Address& client);
  // The session has ended.
  void remove(const Address& client);

 private:
  void onReady(uint32_t events, uint32_t tag) override;
  void run() override;
  void receive();
  void deliver(unsigned count);
  void deliverRun(const ClientKey& key, unsigned first, unsigned end);
  UdpSession* open(const ClientKey& key, const Address& client);

  EngineThread* const thread_;
  const uint32_t listener_;
  const Address address_;
  Fd socket_;
  Watch watch_;
  bool hasGrown_ = false;
  std::unordered_map<ClientKey, UdpSession*, ClientKeyHash> sessions_;
};

// Asked for when the queue is full, in bytes.
inline constexpr int kSendQueueBytes = 4 << 20;

// Sends all, in order, to `to` or where the socket is connected to. `onError(errno)` is asked about each datagram that
// the kernel does not take: false ends it. Returns how many were sent or asked about.
//
// EAGAIN means that what was sent waits for a network that is slower than we are: the kernel's queue is made as long
// as net.core.wmem_max lets it, once (`*hasGrown`), and then datagrams are lost as they are in any full queue.
template <typename OnError>
unsigned sendAll(UdpBatch* batch, int fd, const iovec* datagrams, unsigned count, const Address* to, bool* hasGrown,
                 OnError onError) {
  unsigned done = 0;
  while (done < count) {
    const int sent = batch->send(fd, datagrams + done, count - done, to);
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
