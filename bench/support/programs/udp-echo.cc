/**
 * A UDP echo server for bench/peers.ts, which takes and gives many datagrams with one system call. Compiled when the
 * benchmark runs.
 *
 *     udp-echo ADDRESS PORT
 */
#include "udp-account.h"

namespace {

constexpr int kBufferBytes = 4 << 20;

int serve(const sockaddr_in& address) {
  const int fd = openSocket(0);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kBufferBytes, sizeof kBufferBytes);
  if (bind(fd, generic(address), sizeof address) != 0) die("bind");
  static char bytes[kBatch][kMaxBytes];
  sockaddr_in peers[kBatch];
  iovec parts[kBatch];
  mmsghdr messages[kBatch];
  for (;;) {
    for (int i = 0; i < kBatch; i++) {
      parts[i] = {bytes[i], kMaxBytes};
      messages[i] = {};
      messages[i].msg_hdr = {&peers[i], sizeof peers[i], &parts[i], 1, nullptr, 0, 0};
    }
    const int count = recvmmsg(fd, messages, kBatch, MSG_WAITFORONE, nullptr);
    if (count < 0 && errno != EINTR) die("recvmmsg");
    for (int i = 0; i < count; i++) parts[i].iov_len = messages[i].msg_len;
    // What a full queue refuses is lost, as on any network.
    for (int sent = 0; sent < count;) sent += std::max(1, sendmmsg(fd, messages + sent, count - sent, 0));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "udp-echo ADDRESS PORT\n");
    return 2;
  }
  return serve(addressOf(argv[1], static_cast<uint16_t>(atoi(argv[2]))));
}
