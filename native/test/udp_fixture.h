// What the checks of the UDP half need: an engine with a controller that does as it is told, plain sockets as
// clients and backends, and a bounded wait. The engine is driven through engine.h alone.
#pragma once

#include <dirent.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "../engine.h"
#include "../fd.h"

namespace check {

using kup::Address;
using kup::CloseCause;
using kup::CommandKind;
using kup::Event;
using kup::EventKind;

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
  std::abort();
}

#define CHECK(what) \
  if (!(what)) check::fail(__FILE__, __LINE__, #what)
#define CHECK_EQUAL(seen, wanted) \
  if (!((seen) == (wanted)))      \
  check::fail(__FILE__, __LINE__, #seen " is " + check::text(seen) + ", not " + check::text(wanted))

inline std::string text(const std::string& value) { return value.substr(0, 200); }
template <typename Number>
std::string text(Number value) {
  return std::to_string(static_cast<double>(value));
}

inline Address at(const std::string& literal, uint16_t port = 0) {
  Address address;
  CHECK(Address::parse(literal.data(), literal.size(), port, &address));
  return address;
}

inline std::string name(const Address& address) {
  char literal[INET6_ADDRSTRLEN];
  return std::string(literal, address.format(literal)) + " " + std::to_string(address.port());
}

// A bound UDP socket. `serve` echoes whatever is there.
class Peer {
 public:
  explicit Peer(const std::string& literal = "127.0.0.1", uint16_t port = 0) {
    const Address address = check::at(literal, port);
    socket_ = kup::Fd(::socket(address.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    kup::setOption(socket_.get(), SOL_SOCKET, SO_RCVBUF, 4 << 20);
    isBound_ = ::bind(socket_.get(), &address.sa, address.length()) == 0;
  }
  bool isBound() const { return isBound_; }
  Address address() const {
    Address own{};
    socklen_t length = sizeof own;
    ::getsockname(socket_.get(), &own.sa, &length);
    return own;
  }
  void allowBroadcast() { kup::setOption(socket_.get(), SOL_SOCKET, SO_BROADCAST, 1); }
  void send(const std::string& data, const Address& to) {
    const auto sent = ::sendto(socket_.get(), data.data(), data.size(), 0, &to.sa, to.length());
    CHECK_EQUAL(sent, static_cast<ssize_t>(data.size()));
  }
  // Takes what has come into `texts` and `from`.
  void take() {
    static char room[65'536];
    for (;;) {
      Address source{};
      socklen_t length = sizeof source;
      const auto size = ::recvfrom(socket_.get(), room, sizeof room, 0, &source.sa, &length);
      if (size < 0) return;
      texts.emplace_back(room, static_cast<size_t>(size));
      from.push_back(source);
      if (isEcho) ::sendto(socket_.get(), room, static_cast<size_t>(size), 0, &source.sa, length);
    }
  }
  void close() { socket_.close(); }

  bool isEcho = false;
  std::vector<std::string> texts;
  std::vector<Address> from;

 private:
  kup::Fd socket_;
  bool isBound_ = false;
};

struct Answer {
  enum { none, dial, refusal } kind = none;
  Address to{};
};

inline Answer dialTo(const Peer& backend) { return {Answer::dial, backend.address()}; }
inline Answer refuse() { return {Answer::refusal, {}}; }

// An engine and its controller, which acts only within `until`.
class Fixture {
 public:
  explicit Fixture(kup::Options options = {}) : wakeup_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    int error = 0;
    engine = kup::Engine::start(options, &Fixture::onWake, this, &error);
    CHECK_EQUAL(error, 0);
  }
  ~Fixture() {
    // What it refers to may be gone already.
    decide = [](const Event&) { return Answer{}; };
    release();
    engine->stop();
    pump();
    for (const auto& [session, kinds] : kindsOf) CHECK_EQUAL(kinds.back(), EventKind::closed);
  }

  // Opens a listener on a free port, which becomes that of all `addresses`.
  uint16_t listen(std::vector<std::string> literals = {"127.0.0.1"}) {
    static std::mt19937 random{std::random_device{}()};
    for (;;) {
      const auto port = static_cast<uint16_t>(20'000 + random() % 10'000);
      std::vector<Address> addresses;
      for (const auto& literal : literals) addresses.push_back(check::at(literal, port));
      const int error = engine->open(++lastListener, kup::Protocol::udp, addresses);
      if (error == 0) return port;
      CHECK_EQUAL(error, EADDRINUSE);
    }
  }

  void until(const char* what, const std::function<bool()>& isSo) {
    const double deadline = kup::nowMs() + 10'000;
    for (;;) {
      pump();
      for (Peer* peer : peers) peer->take();
      if (isSo()) return;
      if (kup::nowMs() > deadline) fail(__FILE__, __LINE__, std::string("waited in vain for: ") + what);
      pollfd wait{wakeup_.get(), POLLIN, 0};
      ::poll(&wait, 1, 1);
    }
  }

  // While others see to it that `isSo` stays false: for checks that something does not happen.
  void forMs(double ms, const std::function<void()>& meanwhile) {
    const double end = kup::nowMs() + ms;
    until("time to pass", [&] {
      meanwhile();
      return kup::nowMs() >= end;
    });
  }

  void submit(const Event& about, const Answer& answer, uint32_t epoch) {
    kup::Command command{};
    command.session = about.session;
    const bool isDial = answer.kind == Answer::dial;
    command.kind = static_cast<uint32_t>(isDial ? CommandKind::dial : CommandKind::refuse);
    command.epoch = epoch;
    if (isDial) {
      command.port = answer.to.port();
      command.addressLength = static_cast<uint32_t>(answer.to.format(command.address));
    }
    engine->submit(&command, 1, nullptr);
  }
  void end(const Event& about, CommandKind kind) {
    kup::Command command{};
    command.session = about.session;
    command.kind = static_cast<uint32_t>(kind);
    engine->submit(&command, 1, nullptr);
  }

  std::vector<Event> all(EventKind kind) const {
    std::vector<Event> found;
    for (const Event& event : events) {
      if (event.kind == static_cast<uint32_t>(kind)) found.push_back(event);
    }
    return found;
  }
  size_t count(EventKind kind) const { return all(kind).size(); }

  // Holds the engine's thread at its next wake, so that work piles up for it; see `release`.
  void stall() {
    const std::lock_guard<std::mutex> lock(mutex_);
    isStalled_ = true;
  }
  void untilStalled() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return isHeld_; });
  }
  void release() {
    const std::lock_guard<std::mutex> lock(mutex_);
    isStalled_ = false;
    changed_.notify_all();
  }

  void pump() {
    uint64_t rung = 0;
    if (::read(wakeup_.get(), &rung, sizeof rung) < 0) rung = 0;
    Event batch[64];
    for (size_t drained = engine->drain(batch, 64); drained > 0; drained = engine->drain(batch, 64)) {
      for (size_t index = 0; index < drained; ++index) handle(batch[index]);
    }
  }

  std::unique_ptr<kup::Engine> engine;
  std::function<Answer(const Event&)> decide = [](const Event&) { return Answer{}; };
  std::vector<Event> events;
  std::vector<double> times;
  std::map<double, std::vector<EventKind>> kindsOf;
  std::vector<Peer*> peers;
  uint32_t lastListener = 0;

 private:
  static void onWake(void* context) {
    auto* self = static_cast<Fixture*>(context);
    const uint64_t one = 1;
    if (::write(self->wakeup_.get(), &one, sizeof one) < 0) std::abort();
    std::unique_lock<std::mutex> lock(self->mutex_);
    self->isHeld_ = self->isStalled_;
    self->changed_.notify_all();
    self->changed_.wait(lock, [self] { return !self->isStalled_; });
    self->isHeld_ = false;
  }

  void handle(const Event& event) {
    events.push_back(event);
    times.push_back(kup::nowMs());
    const auto kind = static_cast<EventKind>(event.kind);
    if (kind == EventKind::listenerClosed) return;
    auto& kinds = kindsOf[event.session];
    CHECK(kinds.empty() == (kind == EventKind::opened));
    CHECK(kinds.empty() || kinds.back() != EventKind::closed);
    kinds.push_back(kind);
    if (kind != EventKind::opened && kind != EventKind::dialFailed) return;
    const Answer answer = decide(event);
    if (answer.kind != Answer::none) submit(event, answer, event.epoch);
  }

  kup::Fd wakeup_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool isStalled_ = false;
  bool isHeld_ = false;
};

inline CloseCause causeOf(const Event& event) { return static_cast<CloseCause>(event.cause); }

inline size_t openDescriptors() {
  DIR* directory = ::opendir("/proc/self/fd");
  size_t count = 0;
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count;
}

}  // namespace check
