/**
 * What the UDP programs of bench/peers.ts have in common: sockets, and the account of what became of each datagram.
 */
#pragma once

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <vector>

constexpr double kLostAfterSeconds = 1.0;
constexpr int kBatch = 64;
constexpr size_t kMaxBytes = 2048;

[[noreturn]] inline void die(const char* what) {
  fprintf(stderr, "udp: %s: %s\n", what, strerror(errno));
  exit(1);
}

inline double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

inline sockaddr_in addressOf(const char* text, uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (inet_pton(AF_INET, text, &address.sin_addr) != 1) {
    fprintf(stderr, "udp: not an IPv4 address: %s\n", text);
    exit(2);
  }
  return address;
}

inline const sockaddr* generic(const sockaddr_in& address) { return reinterpret_cast<const sockaddr*>(&address); }

inline int openSocket(int flags) {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | flags, 0);
  if (fd < 0) die("socket");
  return fd;
}

struct Load {
  sockaddr_in target;
  double seconds;
  size_t bytes;
  std::vector<sockaddr_in> sources;
};

/** What the datagrams became of, and of each one under way when it was sent. */
class Account {
 public:
  explicit Account(const Load& load) : load_(load) {}

  uint64_t sent = 0, answered = 0, lost = 0, refused = 0, unsent = 0;

  /** Its own number is what tells an answer from one to an earlier datagram. */
  void send(int fd, uint64_t id, double time) {
    memcpy(payload_, &id, sizeof id);
    // An error here is that of an earlier datagram, or a queue that is full: the datagram counts as lost in time.
    if (sendto(fd, payload_, load_.bytes, 0, generic(load_.target), sizeof load_.target) < 0) refused++;
    sent++;
    waiting_.push_back({fd, id, time});
  }

  /** The number that the next answer carries; 0 when there is none. */
  uint64_t receive(int fd) {
    char answer[kMaxBytes];
    uint64_t id = 0;
    const ssize_t size = recv(fd, answer, sizeof answer, 0);
    if (size < 0) return 0;
    if (static_cast<size_t>(size) == load_.bytes) memcpy(&id, answer, sizeof id);
    return id;
  }

  void answeredAfter(double seconds) {
    answered++;
    latencies_.push_back(static_cast<float>(seconds * 1e6));
  }

  /** Calls `lose(fd, id)` for each datagram whose time is up; those that were answered are for it to know. */
  template <typename Lose>
  void expire(double time, Lose lose) {
    while (!waiting_.empty() && waiting_.front().sentAt + kLostAfterSeconds <= time) {
      const Waiting first = waiting_.front();
      waiting_.pop_front();
      lose(first.fd, first.id);
    }
  }

  void print(double seconds) {
    printf("{\"sent\":%llu,\"answered\":%llu,\"lost\":%llu,\"refused\":%llu,\"unsent\":%llu,\"seconds\":%.6f,"
           "\"p50Us\":%.1f,\"p99Us\":%.1f,\"p999Us\":%.1f}\n",
           count(sent), count(answered), count(lost), count(refused), count(unsent), seconds, quantile(0.5),
           quantile(0.99), quantile(0.999));
  }

 private:
  struct Waiting {
    int fd;
    uint64_t id;
    double sentAt;
  };

  static unsigned long long count(uint64_t value) { return value; }

  double quantile(double part) {
    if (latencies_.empty()) return 0;
    const size_t index = static_cast<size_t>(std::ceil(static_cast<double>(latencies_.size()) * part)) - 1;
    std::nth_element(latencies_.begin(), latencies_.begin() + static_cast<std::ptrdiff_t>(index), latencies_.end());
    return static_cast<double>(latencies_[index]);
  }

  const Load& load_;
  char payload_[kMaxBytes] = {};
  std::deque<Waiting> waiting_;
  std::vector<float> latencies_;
};

class Poller {
 public:
  Poller() : fd_(epoll_create1(EPOLL_CLOEXEC)) {
    if (fd_ < 0) die("epoll_create1");
  }
  ~Poller() { close(fd_); }
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  void add(int fd, uint64_t data) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = data;
    if (epoll_ctl(fd_, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
  }

  /** What is ready, after at most that many milliseconds. */
  int wait(epoll_event (&events)[kBatch], int milliseconds) {
    return std::max(0, epoll_wait(fd_, events, kBatch, milliseconds));
  }

 private:
  const int fd_;
};
