/**
 * TCP connections that are held and do nothing, for bench/peers.ts. Compiled when the benchmark runs.
 *
 *     hold-load serve ADDRESS PORT
 *     hold-load hold  ADDRESS PORT COUNT
 *
 * serve: sends one octet upon each connection, and keeps it until the client ends it.
 * hold: opens COUNT connections, 64 at a time, each until its octet has come, and says on a line of JSON how many it
 * has. For every line on standard input it says how many of them are still open. At the end of standard input it
 * resets them and ends; after five minutes it does so in any case.
 */
#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <netinet/in.h>
#include <string>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

namespace {

constexpr int kBatch = 64;
constexpr size_t kAtOnce = 64;
constexpr int kBacklog = 4096;
constexpr unsigned kMaxSeconds = 300;
/** When no connection has come about for so long, there will be no more. */
constexpr int kStallMs = 5000;

[[noreturn]] void die(const char* what) {
  fprintf(stderr, "hold-load: %s: %s\n", what, strerror(errno));
  exit(1);
}

sockaddr_in addressOf(const char* text, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, text, &address.sin_addr) != 1) {
    fprintf(stderr, "hold-load: not an IPv4 address: %s\n", text);
    exit(2);
  }
  return address;
}

void raiseLimit() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int openPoller() {
  const int fd = epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0) die("epoll_create1");
  return fd;
}

void watch(int poller, int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
}

void acceptAll(int listener, int poller) {
  for (;;) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    if (send(fd, "!", 1, MSG_NOSIGNAL) == 1) watch(poller, fd, EPOLLIN);
    else close(fd);
  }
}

int serve(const sockaddr_in& address) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) die("bind");
  if (listen(listener, kBacklog) != 0) die("listen");
  const int poller = openPoller();
  watch(poller, listener, EPOLLIN);
  epoll_event events[kBatch];
  for (;;) {
    const int count = epoll_wait(poller, events, kBatch, -1);
    for (int i = 0; i < count; i++) {
      const int fd = events[i].data.fd;
      char octet;
      if (fd == listener) acceptAll(listener, poller);
      else if (recv(fd, &octet, 1, 0) <= 0) close(fd);
    }
  }
}

class Holder {
 public:
  explicit Holder(const sockaddr_in& address) : address_(address), poller_(openPoller()) {}

  void open(size_t count) {
    size_t begun = 0;
    size_t failed = 0;
    epoll_event events[kBatch];
    while (held_.size() + failed < count) {
      for (; begun < count && begun - held_.size() - failed < kAtOnce; begun++) failed += dial() ? 0 : 1;
      const int ready = epoll_wait(poller_, events, kBatch, kStallMs);
      if (ready == 0) break;
      for (int i = 0; i < ready; i++) failed += settle(events[i].data.fd) ? 0 : 1;
    }
    printf("{\"held\":%zu,\"failed\":%zu}\n", held_.size(), count - held_.size());
    fflush(stdout);
  }

  void report() {
    size_t open = 0;
    char octet;
    for (const int fd : held_) {
      const ssize_t size = recv(fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT);
      if (size > 0 || (size < 0 && errno == EAGAIN)) open++;
    }
    printf("{\"open\":%zu}\n", open);
    fflush(stdout);
  }

  /** By resets: nothing stays in TIME_WAIT then. */
  void resetAll() {
    const linger abort{1, 0};
    for (const int fd : held_) {
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
      close(fd);
    }
    held_.clear();
  }

 private:
  bool dial() {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    const sockaddr* target = reinterpret_cast<const sockaddr*>(&address_);
    if (connect(fd, target, sizeof address_) != 0 && errno != EINPROGRESS) {
      close(fd);
      return false;
    }
    watch(poller_, fd, EPOLLIN);
    return true;
  }

  bool settle(int fd) {
    char octet;
    epoll_ctl(poller_, EPOLL_CTL_DEL, fd, nullptr);
    if (recv(fd, &octet, 1, 0) == 1) {
      held_.push_back(fd);
      return true;
    }
    close(fd);
    return false;
  }

  const sockaddr_in address_;
  const int poller_;
  std::vector<int> held_;
};

int hold(const sockaddr_in& address, size_t count) {
  alarm(kMaxSeconds);
  Holder holder(address);
  holder.open(count);
  char line[16];
  while (fgets(line, sizeof line, stdin) != nullptr) holder.report();
  holder.resetAll();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc < 4 ? "" : argv[1];
  raiseLimit();
  if (command == "serve" && argc == 4) return serve(addressOf(argv[2], atoi(argv[3])));
  if (command == "hold" && argc == 5) {
    return hold(addressOf(argv[2], atoi(argv[3])), static_cast<size_t>(std::max(0, atoi(argv[4]))));
  }
  fprintf(stderr, "hold-load serve ADDRESS PORT | hold-load hold ADDRESS PORT COUNT\n");
  return 2;
}
