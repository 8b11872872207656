// Datagrams in batches: one system call moves many. The memory is the thread's, shared by all its UDP
// sockets: what was received is valid until the next `receive`. Each datagram has room for the largest there
// is, so that none is cut; the kernel gives the memory page by page as it is used, so small datagrams cost
// 128 KiB in all and the largest 2 MiB.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>

#include "engine.h"

namespace kup {

// One control message with a local address: IP_PKTINFO or IPV6_PKTINFO.
struct alignas(cmsghdr) PacketInfo {
  char room[CMSG_SPACE(sizeof(in6_pktinfo))];
  cmsghdr* header() { return reinterpret_cast<cmsghdr*>(room); }
  const cmsghdr* header() const { return reinterpret_cast<const cmsghdr*>(room); }
};

class UdpBatch {
 public:
  static constexpr unsigned kMost = 32;

  // Of what is sent. `to`: null where the socket is connected; `from`: a local address, null where the socket
  // is bound to it.
  struct Route {
    const Address* to = nullptr;
    const Address* from = nullptr;
  };

  UdpBatch();
  UdpBatch(const UdpBatch&) = delete;
  UdpBatch& operator=(const UdpBatch&) = delete;
  ~UdpBatch();

  // Takes up to `kMost` datagrams. Returns how many, or -errno.
  //
  // Fewer than `kMost` is proof that the socket was empty after its last edge: the kernel stops early only
  // when it finds nothing, or an error, which it keeps for the next call. Whatever comes after that look,
  // datagram or error, raises an edge of its own, even while this call is still under way. So there is no
  // need to read until EAGAIN. It is no proof after -errno: behind an error may be datagrams that came before
  // it.
  int receive(int fd);
  const iovec* datagrams() const { return received_; }
  // The same, from a socket that is not connected: with each its source, and the local address it came to.
  int receiveFromAnybody(int fd);
  const Address& source(unsigned at) const { return sources_[at]; }
  // With port 0. AF_UNSPEC unless the socket was asked to tell it, see `tellLocal`.
  Address local(unsigned at) const;
  // 0 or the errno.
  static int tellLocal(int fd, sa_family_t family);

  // Sends them in order. Returns how many were sent, at least one, or -errno of the first. `count` is at most
  // `kMost`.
  int send(int fd, const iovec* datagrams, unsigned count, const Route& route);

 private:
  bool allocate();
  int receive(int fd, mmsghdr* headers);
  PacketInfo* sourceOf(const Address* from);

  char* memory_ = nullptr;
  iovec room_[kMost];
  iovec received_[kMost];
  Address sources_[kMost];
  PacketInfo locals_[kMost];
  mmsghdr incoming_[kMost];
  mmsghdr fromAnybody_[kMost];
  mmsghdr outgoing_[kMost];
  PacketInfo source4_;
  PacketInfo source6_;
};

}  // namespace kup
