// Datagrams in batches: one system call moves many. The memory is the thread's, shared by all its UDP sockets: what was
// received is valid until the next `receive`. Each datagram has room for the largest there is, so that none is cut; the
// kernel gives the memory page by page as it is used, so small datagrams cost 128 KiB in all and the largest 2 MiB.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>

#include "engine.h"

namespace kup {

class UdpBatch {
 public:
  static constexpr unsigned kMost = 32;

  UdpBatch();
  UdpBatch(const UdpBatch&) = delete;
  UdpBatch& operator=(const UdpBatch&) = delete;
  ~UdpBatch();

  // Takes up to `kMost` datagrams, and with each its source when `wantsSource`. Returns how many, or -errno.
  //
  // Fewer than `kMost` is proof that the socket was empty after its last edge: the kernel stops early only when it
  // finds nothing, or an error, which it keeps for the next call. Whatever comes after that look, datagram or error,
  // raises an edge of its own, even while this call is still under way. So there is no need to read until EAGAIN.
  // It is no proof after -errno: behind an error may be datagrams that came before it.
  int receive(int fd, bool wantsSource);
  const iovec* datagrams() const { return received_; }
  const Address& source(unsigned at) const { return sources_[at]; }

  // Sends them in order, to `to` or where the socket is connected to. Returns how many were sent, at least one, or
  // -errno of the first. `count` is at most `kMost`.
  int send(int fd, const iovec* datagrams, unsigned count, const Address* to);

 private:
  bool allocate();

  char* memory_ = nullptr;
  iovec room_[kMost];
  iovec received_[kMost];
  Address sources_[kMost];
  mmsghdr incoming_[kMost];
  mmsghdr outgoing_[kMost];
};

}  // namespace kup
