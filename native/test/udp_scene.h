// A fixture with a backend and a client, for the checks of the UDP half, and the list of those.
#pragma once

#include "udp_fixture.h"

namespace check {

// A fixture with an echoing backend to which everybody is sent, and a client.
struct Scene {
  explicit Scene(kup::Options options = {}, const std::string& loopback = "127.0.0.1")
      : backend(loopback), client(loopback), fixture(options) {
    backend.isEcho = true;
    fixture.peers = {&backend, &client};
    fixture.decide = [this](const Event&) { return dialTo(backend); };
  }
  void exchange(const Address& to, size_t count) {
    client.send("datagram " + std::to_string(count), to);
    fixture.until("an echo", [&] { return client.texts.size() >= count; });
  }
  Event opened(size_t index = 0) {
    fixture.until("a session", [&] { return fixture.count(EventKind::opened) > index; });
    return fixture.all(EventKind::opened)[index];
  }
  Event closed(const Event& session) {
    Event found{};
    fixture.until("its end", [&] {
      for (const Event& event : fixture.all(EventKind::closed)) {
        if (event.session == session.session) found = event;
      }
      return found.kind != 0;
    });
    return found;
  }
  void untilTaken(uint64_t datagrams) {
    fixture.until("datagrams to be taken", [&] { return fixture.engine->totals().datagramsIn == datagrams; });
  }

  Peer backend;
  Peer client;
  Fixture fixture;
};

// Run them, printing the name of each.
void checkAddresses();
void checkLives();

#define RUN(promise) \
  promise();         \
  std::printf("%s\n", #promise)

}  // namespace check
