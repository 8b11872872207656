// What a check of one promise needs: an engine, a controller that remembers what it heard and answers when it is told
// to, and a wait with a bound.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "endpoint.h"
#include "support.h"

namespace kup::test {

class Rig {
 public:
  explicit Rig(const Options& options = {}, uint64_t seed = 1) : random(seed) {
    int error = 0;
    engine = Engine::start(options, &Alarm::ring, &alarm_, &error);
    EXPECT(engine != nullptr, "start: %s", std::strerror(error));
    listener = openListener(*engine, random, 1, AF_INET);
    backend_ = listenOn(AF_INET, 4096);
  }

  // Drains until it holds.
  template <typename Condition>
  void until(const char* what, Condition condition) {
    const double endMs = nowMs() + 60'000;
    while (!condition()) {
      EXPECT(nowMs() < endMs, "in vain for %s", what);
      if (!drain() && !isRestless) alarm_.wait(5);
    }
  }

  bool drain() {
    Event batch[32];
    size_t count = 0;
    bool hasAny = false;
    while ((count = engine->drain(batch, std::size(batch))) > 0) {
      hasAny = true;
      for (size_t at = 0; at < count; ++at) {
        events.push_back(batch[at]);
        if (dialsAtOnce && batch[at].kind == static_cast<uint32_t>(EventKind::opened)) dial(batch[at].session);
      }
    }
    return hasAny;
  }

  size_t count(EventKind kind) const {
    size_t found = 0;
    for (const Event& event : events) found += event.kind == static_cast<uint32_t>(kind) ? 1 : 0;
    return found;
  }

  const Event& nth(EventKind kind, size_t index) const {
    for (const Event& event : events) {
      if (event.kind == static_cast<uint32_t>(kind) && index-- == 0) return event;
    }
    FAIL("no event %u", static_cast<unsigned>(kind));
  }

  void dial(double session) {
    Command command{};
    command.session = session;
    command.kind = static_cast<uint32_t>(CommandKind::dial);
    command.timeoutMs = 60'000;
    const Address to = addressOf(backend_.get());
    command.port = to.port();
    command.addressLength = static_cast<uint32_t>(to.format(command.address));
    engine->submit(&command, 1, nullptr);
  }

  void evict(double session) {
    Command command{};
    command.session = session;
    command.kind = static_cast<uint32_t>(CommandKind::evict);
    engine->submit(&command, 1, nullptr);
  }

  std::unique_ptr<Endpoint> connect() {
    return std::make_unique<Endpoint>(connectTo(listener), random);
  }

  // The next connection that has come to the backend.
  std::unique_ptr<Endpoint> accept() {
    Fd socket;
    until("a backend's connection", [&] {
      socket = Fd(::accept4(backend_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      return socket.isOpen();
    });
    return std::make_unique<Endpoint>(std::move(socket), random);
  }

  Random random;
  std::unique_ptr<Engine> engine;
  Address listener;
  std::vector<Event> events;
  bool dialsAtOnce = false;
  // Drains without waiting to be told.
  bool isRestless = false;

 private:
  Alarm alarm_;
  Fd backend_;
};

}  // namespace kup::test
