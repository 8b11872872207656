#include "udp_batch.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "fd.h"

namespace kup {

namespace {

// More than the largest datagram of either family without jumbograms (65,507 and 65,527 bytes). The odd cache
// line keeps the beginnings of all datagrams from competing for the same sets of the processor's cache.
constexpr size_t kStride = 65'536 + 64;
constexpr size_t kMemory = UdpBatch::kMost * kStride;

PacketInfo infoOf(int level, int type, size_t length) {
  PacketInfo info{};
  info.header()->cmsg_level = level;
  info.header()->cmsg_type = type;
  info.header()->cmsg_len = CMSG_LEN(length);
  return info;
}

template <typename Info>
Info read(const PacketInfo& from) {
  Info info;
  std::memcpy(&info, CMSG_DATA(from.header()), sizeof info);
  return info;
}

template <typename Info>
void write(const Info& info, PacketInfo* to) {
  std::memcpy(CMSG_DATA(to->header()), &info, sizeof info);
}

bool isOf(const PacketInfo& info, int level, int type) {
  return info.header()->cmsg_level == level && info.header()->cmsg_type == type;
}

}  // namespace

UdpBatch::UdpBatch()
    : room_{},
      received_{},
      sources_{},
      locals_{},
      incoming_{},
      fromAnybody_{},
      outgoing_{},
      source4_(infoOf(IPPROTO_IP, IP_PKTINFO, sizeof(in_pktinfo))),
      source6_(infoOf(IPPROTO_IPV6, IPV6_PKTINFO, sizeof(in6_pktinfo))) {}

UdpBatch::~UdpBatch() {
  if (memory_ != nullptr) ::munmap(memory_, kMemory);
}

bool UdpBatch::allocate() {
  void* memory = ::mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  // A huge page would be all there at the first datagram.
  ::madvise(memory, kMemory, MADV_NOHUGEPAGE);
  memory_ = static_cast<char*>(memory);
  for (unsigned at = 0; at < kMost; ++at) {
    room_[at] = {memory_ + at * kStride, kStride};
    incoming_[at].msg_hdr.msg_iov = &room_[at];
    incoming_[at].msg_hdr.msg_iovlen = 1;
    msghdr& header = fromAnybody_[at].msg_hdr;
    header = incoming_[at].msg_hdr;
    header.msg_name = &sources_[at];
    header.msg_namelen = sizeof sources_[at];
    header.msg_control = &locals_[at];
    header.msg_controllen = sizeof locals_[at];
  }
  return true;
}

// --- In ----------------------------------------------------------------------------------------------------

int UdpBatch::receive(int fd) { return receive(fd, incoming_); }

int UdpBatch::receiveFromAnybody(int fd) {
  const int count = receive(fd, fromAnybody_);
  for (int at = 0; at < count; ++at) {
    // The kernel has said how much it wrote. What it wrote of `locals_` is read by `local`.
    msghdr& header = fromAnybody_[at].msg_hdr;
    if (header.msg_controllen == 0) locals_[at].header()->cmsg_type = 0;
    header.msg_namelen = sizeof sources_[at];
    header.msg_controllen = sizeof locals_[at];
  }
  return count;
}

int UdpBatch::receive(int fd, mmsghdr* headers) {
  if (memory_ == nullptr && !allocate()) return -ENOMEM;
  const int count = ::recvmmsg(fd, headers, kMost, MSG_DONTWAIT, nullptr);
  if (count < 0) return -errno;
  for (int at = 0; at < count; ++at) received_[at] = {room_[at].iov_base, headers[at].msg_len};
  return count;
}

int UdpBatch::tellLocal(int fd, sa_family_t family) {
  return family == AF_INET6 ? setOption(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
                            : setOption(fd, IPPROTO_IP, IP_PKTINFO, 1);
}

// What the packet was sent to as it stands: the local address that REDIRECT has chosen; of a broadcast that
// of the broadcast, which nobody serves.
Address UdpBatch::local(unsigned at) const {
  Address local;
  local.v6 = {};
  const PacketInfo& info = locals_[at];
  if (isOf(info, IPPROTO_IP, IP_PKTINFO)) {
    local.v4.sin_family = AF_INET;
    local.v4.sin_addr = read<in_pktinfo>(info).ipi_addr;
  } else if (isOf(info, IPPROTO_IPV6, IPV6_PKTINFO)) {
    const auto arrived = read<in6_pktinfo>(info);
    local.v6.sin6_family = AF_INET6;
    local.v6.sin6_addr = arrived.ipi6_addr;
    if (IN6_IS_ADDR_LINKLOCAL(&arrived.ipi6_addr)) local.v6.sin6_scope_id = arrived.ipi6_ifindex;
  }
  return local;
}

// --- Out ---------------------------------------------------------------------------------------------------

int UdpBatch::send(int fd, const iovec* datagrams, unsigned count, const Route& route) {
  const socklen_t length = route.to == nullptr ? 0 : route.to->length();
  if (count == 1 && route.from == nullptr) {
    const sockaddr* address = route.to == nullptr ? nullptr : &route.to->sa;
    const auto sent = ::sendto(fd, datagrams->iov_base, datagrams->iov_len, MSG_DONTWAIT, address, length);
    return sent < 0 ? -errno : 1;
  }
  const auto control = sourceOf(route.from);
  for (unsigned at = 0; at < count; ++at) {
    msghdr& header = outgoing_[at].msg_hdr;
    // The kernel reads all of them and changes none.
    header.msg_iov = const_cast<iovec*>(datagrams + at);
    header.msg_iovlen = 1;
    header.msg_name = const_cast<Address*>(route.to);
    header.msg_namelen = length;
    header.msg_control = control;
    // Not CMSG_SPACE: for just that much the kernel has room without allocating.
    header.msg_controllen = control == nullptr ? 0 : control->header()->cmsg_len;
  }
  if (count == 1) return ::sendmsg(fd, &outgoing_[0].msg_hdr, MSG_DONTWAIT) < 0 ? -errno : 1;
  const int sent = ::sendmmsg(fd, outgoing_, count, MSG_DONTWAIT);
  return sent < 0 ? -errno : sent;
}

PacketInfo* UdpBatch::sourceOf(const Address* from) {
  if (from == nullptr) return nullptr;
  if (from->sa.sa_family == AF_INET6) {
    // The interface is 0, left to the routes, but for a link-local address.
    write(in6_pktinfo{from->v6.sin6_addr, from->v6.sin6_scope_id}, &source6_);
    return &source6_;
  }
  write(in_pktinfo{0, from->v4.sin_addr, {}}, &source4_);
  return &source4_;
}

}  // namespace kup
