#include "udp_batch.h"

#include <sys/mman.h>

#include <cerrno>

namespace kup {

namespace {

// More than the largest datagram of either family without jumbograms (65,507 and 65,527 bytes). The odd cache line
// keeps the beginnings of all datagrams from competing for the same sets of the processor's cache.
constexpr size_t kStride = 65'536 + 64;
constexpr size_t kMemory = UdpBatch::kMost * kStride;

}  // namespace

UdpBatch::UdpBatch() : room_{}, received_{}, sources_{}, incoming_{}, outgoing_{} {}

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
  }
  return true;
}

int UdpBatch::receive(int fd, bool wantsSource) {
  if (memory_ == nullptr && !allocate()) return -ENOMEM;
  for (unsigned at = 0; at < kMost; ++at) {
    incoming_[at].msg_hdr.msg_name = wantsSource ? &sources_[at] : nullptr;
    incoming_[at].msg_hdr.msg_namelen = wantsSource ? sizeof sources_[at] : 0;
  }
  const int count = ::recvmmsg(fd, incoming_, kMost, MSG_DONTWAIT, nullptr);
  if (count < 0) return -errno;
  for (int at = 0; at < count; ++at) received_[at] = {room_[at].iov_base, incoming_[at].msg_len};
  return count;
}

int UdpBatch::send(int fd, const iovec* datagrams, unsigned count, const Address* to) {
  const socklen_t length = to == nullptr ? 0 : to->length();
  if (count == 1) {
    const sockaddr* address = to == nullptr ? nullptr : &to->sa;
    const auto sent = ::sendto(fd, datagrams->iov_base, datagrams->iov_len, MSG_DONTWAIT, address, length);
    return sent < 0 ? -errno : 1;
  }
  for (unsigned at = 0; at < count; ++at) {
    // The kernel reads both and changes neither.
    outgoing_[at].msg_hdr.msg_iov = const_cast<iovec*>(datagrams + at);
    outgoing_[at].msg_hdr.msg_iovlen = 1;
    outgoing_[at].msg_hdr.msg_name = const_cast<Address*>(to);
    outgoing_[at].msg_hdr.msg_namelen = length;
  }
  const int sent = ::sendmmsg(fd, outgoing_, count, MSG_DONTWAIT);
  return sent < 0 ? -errno : sent;
}

}  // namespace kup
