/**
 * UDP load for bench/peers.ts, by a program that costs little, so that what is measured is the proxy. Compiled when the
 * benchmark runs.
 *
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
#include <string>
#include <sys/resource.h>

#include "udp-account.h"

namespace {

/** Of the ports of a source address; those below need a privilege. */
constexpr uint32_t kFirstPort = 1024;
constexpr uint32_t kPorts = 65536 - kFirstPort;
/** Descriptors that are left for something else. */
constexpr size_t kSpareDescriptors = 64;

/** Sockets with one datagram under way each, all of them for as long as the load lasts. */
class Steady {
 public:
  Steady(const Load& load, size_t sockets) : load_(load), account_(load), slots_(sockets) {
    for (size_t i = 0; i < sockets; i++) {
      const int fd = openSocket(SOCK_NONBLOCK);
      slots_[i].fd = fd;
      if (slotByFd_.size() <= static_cast<size_t>(fd)) slotByFd_.resize(static_cast<size_t>(fd) + 1);
      slotByFd_[static_cast<size_t>(fd)] = i;
      poller_.add(fd, i);
    }
  }

  int run() {
    end_ = now() + load_.seconds;
    for (Slot& slot : slots_) begin(slot, now());
    while (underWay_ > 0) handle();
    account_.print(load_.seconds);
    return 0;
  }

 private:
  struct Slot {
    int fd;
    /** Of the datagram under way; 0: none. */
    uint64_t id;
    double sentAt;
  };

  void begin(Slot& slot, double time) {
    slot.id = 0;
    if (time >= end_) return;
    slot.id = next_++;
    slot.sentAt = time;
    underWay_++;
    account_.send(slot.fd, slot.id, time);
  }

  void handle() {
    epoll_event events[kBatch];
    const int count = poller_.wait(events, 10);
    const double time = now();
    for (int i = 0; i < count; i++) {
      Slot& slot = slots_[events[i].data.u64];
      const uint64_t id = account_.receive(slot.fd);
      if (id == 0 || id != slot.id) continue;
      account_.answeredAfter(now() - slot.sentAt);
      underWay_--;
      begin(slot, time);
    }
    account_.expire(time, [&](int fd, uint64_t id) {
      Slot& slot = slots_[slotByFd_[static_cast<size_t>(fd)]];
      if (slot.id != id) return;
      account_.lost++;
      underWay_--;
      begin(slot, time);
    });
  }

  const Load& load_;
  Account account_;
  Poller poller_;
  std::vector<Slot> slots_;
  std::vector<size_t> slotByFd_;
  uint64_t next_ = 1;
  double end_ = 0;
  size_t underWay_ = 0;
};

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
  fprintf(stderr, "udp-load steady|flows|offered ADDRESS PORT SECONDS COUNT BYTES [SOURCE...]\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 7) return usage();
  const std::string command = argv[1];
  Load load{addressOf(argv[2], static_cast<uint16_t>(atoi(argv[3]))), 0, 0, {}};
  load.seconds = atof(argv[4]);
  const double count = atof(argv[5]);
  load.bytes = std::min(std::max(static_cast<size_t>(atoi(argv[6])), sizeof(uint64_t)), kMaxBytes);
  for (int i = 7; i < argc; i++) load.sources.push_back(addressOf(argv[i], 0));
  // Whatever else goes wrong, it ends.
  alarm(static_cast<unsigned>(load.seconds) + 30);
  if (command == "steady") return Steady(load, static_cast<size_t>(count)).run();
  if (load.sources.empty()) return usage();
  if (command == "flows") return flows(load, static_cast<size_t>(count));
  if (command == "offered") return offered(load, count);
  return usage();
}
