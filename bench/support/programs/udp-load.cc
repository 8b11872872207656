/**
 * UDP echo servers and their load, for bench/peers.ts: programs that cost little, so that what is measured is the
 * proxy between them. Compiled when the benchmark runs.
 *
 *     udp-load serve   ADDRESS PORT
 *     udp-load steady  ADDRESS PORT SECONDS SOCKETS BYTES
 *     udp-load flows   ADDRESS PORT SECONDS CONCURRENCY BYTES SOURCE…
 *     udp-load offered ADDRESS PORT SECONDS PER-SECOND BYTES SOURCE…
 *
 * steady: each socket has one datagram under way; the next follows the answer.
 * flows: each datagram comes from a port that none has come from, over all ports of all SOURCE addresses in turn; so
 * many are under way at a time, and the next follows an answer.
 * offered: as flows, but begun when the pace says so, whatever became of those before.
 *
 * A datagram that has no answer after a second is lost; an answer that comes later is none. At the end one line of
 * JSON: what was sent, answered and lost, the seconds in which was sent, and the latency of the answers.
 */
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
#include <string>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <vector>

namespace {

constexpr double kLostAfterSeconds = 1.0;
constexpr int kBatch = 64;
constexpr size_t kMaxBytes = 2048;
constexpr int kBufferBytes = 4 << 20;
/** Of the ports of a source address; those below need a privilege. */
constexpr uint32_t kFirstPort = 1024;
constexpr uint32_t kPorts = 65536 - kFirstPort;
/** Descriptors that are left for something else. */
constexpr size_t kSpareDescriptors = 64;

[[noreturn]] void die(const char* what) {
  fprintf(stderr, "udp-load: %s: %s\n", what, strerror(errno));
  exit(1);
}

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

sockaddr_in addressOf(const char* text, uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (inet_pton(AF_INET, text, &address.sin_addr) != 1) {
    fprintf(stderr, "udp-load: not an IPv4 address: %s\n", text);
    exit(2);
  }
  return address;
}

const sockaddr* generic(const sockaddr_in& address) { return reinterpret_cast<const sockaddr*>(&address); }

int openSocket(int flags) {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | flags, 0);
  if (fd < 0) die("socket");
  return fd;
}

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

int steady(const Load& load, size_t sockets) {
  struct Slot {
    int fd;
    uint64_t id;
    double sentAt;
  };
  Account account(load);
  Poller poller;
  std::vector<Slot> slots(sockets);
  std::vector<size_t> slotByFd;
  uint64_t next = 1;
  const double start = now();
  const double end = start + load.seconds;
  size_t underWay = 0;
  const auto begin = [&](Slot& slot, double time) {
    if (time >= end) {
      slot.id = 0;
      return;
    }
    slot.id = next++;
    slot.sentAt = time;
    underWay++;
    account.send(slot.fd, slot.id, time);
  };
  for (size_t i = 0; i < sockets; i++) {
    Slot& slot = slots[i];
    slot.fd = openSocket(SOCK_NONBLOCK);
    if (slotByFd.size() <= static_cast<size_t>(slot.fd)) slotByFd.resize(static_cast<size_t>(slot.fd) + 1);
    slotByFd[static_cast<size_t>(slot.fd)] = i;
    poller.add(slot.fd, i);
  }
  for (Slot& slot : slots) begin(slot, now());
  epoll_event events[kBatch];
  while (underWay > 0) {
    const int count = poller.wait(events, 10);
    const double time = now();
    for (int i = 0; i < count; i++) {
      Slot& slot = slots[events[i].data.u64];
      const uint64_t id = account.receive(slot.fd);
      if (id == 0 || id != slot.id) continue;
      account.answeredAfter(now() - slot.sentAt);
      underWay--;
      begin(slot, time);
    }
    account.expire(time, [&](int fd, uint64_t id) {
      Slot& slot = slots[slotByFd[static_cast<size_t>(fd)]];
      if (slot.id != id) return;
      account.lost++;
      underWay--;
      begin(slot, time);
    });
  }
  for (const Slot& slot : slots) close(slot.fd);
  account.print(load.seconds);
  return 0;
}

/** Flows of one datagram each. Their sockets are theirs alone, and closed with the answer or when it is too late. */
class Flows {
 public:
  Flows(const Load& load, size_t most) : load_(load), account_(load), most_(most) {}

  /** Begins one, unless too many are under way. */
  void begin(double time) {
    if (underWay_ >= most_) {
      account_.unsent++;
      return;
    }
    const int fd = openSocket(SOCK_NONBLOCK);
    if (!bindNext(fd)) {
      close(fd);
      account_.unsent++;
      return;
    }
    const uint64_t id = next_++;
    if (flows_.size() <= static_cast<size_t>(fd)) flows_.resize(static_cast<size_t>(fd) + 1);
    flows_[static_cast<size_t>(fd)] = {id, time};
    poller_.add(fd, static_cast<uint64_t>(fd));
    underWay_++;
    account_.send(fd, id, time);
  }

  void handle(int milliseconds) {
    epoll_event events[kBatch];
    const int count = poller_.wait(events, milliseconds);
    for (int i = 0; i < count; i++) {
      const int fd = static_cast<int>(events[i].data.u64);
      const Flow& flow = flows_[static_cast<size_t>(fd)];
      if (account_.receive(fd) != flow.id) continue;
      account_.answeredAfter(now() - flow.begunAt);
      finish(fd);
    }
    account_.expire(now(), [&](int fd, uint64_t id) {
      if (flows_[static_cast<size_t>(fd)].id != id) return;
      account_.lost++;
      finish(fd);
    });
  }

  size_t underWay() const { return underWay_; }
  void print() { account_.print(load_.seconds); }

 private:
  struct Flow {
    /** 0: none. */
    uint64_t id = 0;
    double begunAt = 0;
  };

  /** A port that is taken is left out. */
  bool bindNext(int fd) {
    for (int attempt = 0; attempt < 100; attempt++, turn_++) {
      sockaddr_in source = load_.sources[turn_ % load_.sources.size()];
      source.sin_port = htons(static_cast<uint16_t>(kFirstPort + turn_ / load_.sources.size() % kPorts));
      if (bind(fd, generic(source), sizeof source) == 0) {
        turn_++;
        return true;
      }
      if (errno != EADDRINUSE) die("bind");
    }
    return false;
  }

  void finish(int fd) {
    flows_[static_cast<size_t>(fd)].id = 0;
    close(fd);
    underWay_--;
  }

  const Load& load_;
  Account account_;
  const size_t most_;
  Poller poller_;
  std::vector<Flow> flows_;
  uint64_t next_ = 1;
  size_t turn_ = 0;
  size_t underWay_ = 0;
};

int flows(const Load& load, size_t concurrency) {
  Flows flows(load, concurrency);
  const double end = now() + load.seconds;
  for (;;) {
    const double time = now();
    while (time < end && flows.underWay() < concurrency) flows.begin(now());
    if (flows.underWay() == 0) break;
    flows.handle(10);
  }
  flows.print();
  return 0;
}

int offered(const Load& load, double perSecond) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  Flows flows(load, static_cast<size_t>(limit.rlim_cur) - kSpareDescriptors);
  const double start = now();
  double begun = 0;
  for (;;) {
    const double elapsed = std::min(now() - start, load.seconds);
    for (; begun < elapsed * perSecond; begun++) flows.begin(now());
    if (elapsed >= load.seconds && flows.underWay() == 0) break;
    flows.handle(elapsed >= load.seconds ? 10 : 1);
  }
  flows.print();
  return 0;
}

int usage() {
  fprintf(stderr, "udp-load serve|steady|flows|offered ADDRESS PORT [SECONDS COUNT BYTES [SOURCE...]]\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return usage();
  const std::string command = argv[1];
  Load load{addressOf(argv[2], static_cast<uint16_t>(atoi(argv[3]))), 0, 0, {}};
  if (command == "serve") return serve(load.target);
  if (argc < 7) return usage();
  load.seconds = atof(argv[4]);
  const double count = atof(argv[5]);
  load.bytes = std::min(std::max(static_cast<size_t>(atoi(argv[6])), sizeof(uint64_t)), kMaxBytes);
  for (int i = 7; i < argc; i++) load.sources.push_back(addressOf(argv[i], 0));
  // Whatever else goes wrong, it ends.
  alarm(static_cast<unsigned>(load.seconds) + 30);
  if (command == "steady") return steady(load, static_cast<size_t>(count));
  if (load.sources.empty()) return usage();
  if (command == "flows") return flows(load, static_cast<size_t>(count));
  if (command == "offered") return offered(load, count);
  return usage();
}
