// A part of udp_check.cc: one socket for all local addresses of a listener, and what becomes of it and of the
// sessions when the addresses change.
#include <atomic>
#include <thread>

#include "udp_scene.h"

using namespace check;

namespace {

std::vector<Address> allAt(const std::vector<std::string>& literals, uint16_t port) {
  std::vector<Address> addresses;
  for (const auto& literal : literals) addresses.push_back(at(literal, port));
  return addresses;
}

int setAddresses(const Scene& scene, const std::vector<std::string>& literals, uint16_t port) {
  return scene.fixture.engine->setAddresses(scene.fixture.lastListener, allAt(literals, port));
}

// As another program would, which shares the port with whoever shares it too, or with nobody. 0 or the errno.
int bindTo(const std::string& literal, uint16_t port, bool isShared, kup::Fd* socket) {
  const Address address = at(literal, port);
  *socket = kup::Fd(::socket(address.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  kup::setOption(socket->get(), SOL_SOCKET, SO_REUSEADDR, isShared ? 1 : 0);
  return ::bind(socket->get(), &address.sa, address.length()) == 0 ? 0 : errno;
}

int errorOfSharedBind(const std::string& literal, uint16_t port) {
  kup::Fd socket;
  return bindTo(literal, port, true, &socket);
}

void replyAddress() {
  Scene scene;
  const uint16_t port = scene.fixture.listen({"127.0.0.1", "127.0.0.2"});
  scene.exchange(at("127.0.0.2", port), 1);
  scene.exchange(at("127.0.0.1", port), 2);
  scene.exchange(at("127.0.0.2", port), 3);
  CHECK_EQUAL(name(scene.client.from[0]), name(at("127.0.0.2", port)));
  CHECK_EQUAL(name(scene.client.from[1]), name(at("127.0.0.1", port)));
  CHECK_EQUAL(name(scene.client.from[2]), name(at("127.0.0.2", port)));
  // A session for each local address.
  CHECK_EQUAL(scene.fixture.count(EventKind::opened), 2u);
}

// The second one is nobody's: what counts is that the socket is not bound to the first.
void replyAddressInIPv6() {
  Scene scene({}, "::1");
  const Address listener = at("::1", scene.fixture.listen({"::1", "fd6b:7570::1"}));
  for (size_t count = 1; count <= 3; ++count) scene.exchange(listener, count);
  CHECK_EQUAL(name(scene.client.from[2]), name(listener));
  // The other family is not taken.
  CHECK(Peer("127.0.0.1", listener.port()).isBound());
}

void oneDescriptor() {
  Scene scene;
  const size_t before = openDescriptors();
  const uint16_t port = scene.fixture.listen({});
  CHECK_EQUAL(openDescriptors(), before);
  CHECK_EQUAL(setAddresses(scene, {"127.0.0.1"}, port), 0);
  CHECK_EQUAL(openDescriptors(), before + 1);
  CHECK_EQUAL(setAddresses(scene, {"127.0.0.1", "127.0.0.2", "127.0.0.2"}, port), 0);
  scene.fixture.until("the former socket to close", [&] { return openDescriptors() == before + 1; });
  std::vector<std::string> many;
  for (int last = 1; last <= 200; ++last) many.push_back("127.0.0." + std::to_string(last));
  CHECK_EQUAL(setAddresses(scene, many, port), 0);
  CHECK_EQUAL(openDescriptors(), before + 1);
  CHECK_EQUAL(setAddresses(scene, {}, port), 0);
  CHECK_EQUAL(openDescriptors(), before);
  CHECK(Peer("127.0.0.1", port).isBound());
}

void addressesChange() {
  Scene scene;
  const uint16_t port = scene.fixture.listen({"127.0.0.1", "127.0.0.2"});
  scene.exchange(at("127.0.0.1", port), 1);
  scene.exchange(at("127.0.0.2", port), 2);
  CHECK_EQUAL(setAddresses(scene, {"127.0.0.2", "127.0.0.3"}, port), 0);
  CHECK_EQUAL(causeOf(scene.closed(scene.opened())), CloseCause::stopped);
  scene.exchange(at("127.0.0.3", port), 3);
  scene.exchange(at("127.0.0.2", port), 4);
  CHECK_EQUAL(scene.fixture.count(EventKind::opened), 3u);
  const uint32_t unknown = scene.fixture.lastListener + 1;
  CHECK_EQUAL(scene.fixture.engine->setAddresses(unknown, {at("127.0.0.9", port)}), 0);
}

// The socket gets them all the same.
void otherAddresses() {
  Scene scene;
  const uint16_t port = scene.fixture.listen({"127.0.0.1", "127.0.0.2"});
  scene.client.send("not ours", at("127.0.0.3", port));
  scene.client.allowBroadcast();
  scene.client.send("to all", at("127.255.255.255", port));
  CHECK_EQUAL(setAddresses(scene, {"127.0.0.1"}, port), 0);
  scene.client.send("not ours any more", at("127.0.0.2", port));
  scene.exchange(at("127.0.0.1", port), 1);
  CHECK_EQUAL(scene.fixture.engine->totals().datagramsDropped, 3u);
  CHECK_EQUAL(scene.fixture.engine->totals().datagramsIn, 1u);
  CHECK_EQUAL(scene.fixture.count(EventKind::opened), 1u);
}

void openFails() {
  Fixture fixture;
  const size_t before = openDescriptors();
  {
    const Peer holder("127.0.0.2");
    const uint16_t port = holder.address().port();
    const auto addresses = allAt({"127.0.0.1", "127.0.0.2", "127.0.0.3"}, port);
    CHECK_EQUAL(fixture.engine->open(1, kup::Protocol::udp, addresses), EADDRINUSE);
    CHECK(Peer("127.0.0.1", port).isBound());
  }
  CHECK_EQUAL(fixture.engine->open(1, kup::Protocol::udp, {at("192.0.2.1", 20'000)}), EADDRNOTAVAIL);
  CHECK_EQUAL(openDescriptors(), before);
}

// From the one address to several: the session goes on.
void severalAfterOne() {
  Scene scene;
  const uint16_t port = scene.fixture.listen({"127.0.0.1"});
  scene.exchange(at("127.0.0.1", port), 1);
  const size_t before = openDescriptors();
  CHECK_EQUAL(setAddresses(scene, {"127.0.0.1", "127.0.0.2"}, port), 0);
  scene.fixture.until("the former socket to close", [&] { return openDescriptors() == before; });
  scene.exchange(at("127.0.0.1", port), 2);
  CHECK_EQUAL(scene.fixture.count(EventKind::opened), 1u);
  scene.exchange(at("127.0.0.2", port), 3);
  CHECK_EQUAL(name(scene.client.from[1]), name(at("127.0.0.1", port)));
  CHECK_EQUAL(name(scene.client.from[2]), name(at("127.0.0.2", port)));
  CHECK_EQUAL(errorOfSharedBind("127.0.0.1", port), EADDRINUSE);
  CHECK_EQUAL(errorOfSharedBind("127.0.0.9", port), EADDRINUSE);
}

// The port is another program's on an address that is wanted, or on one that is not; or on one where that
// program would share it.
void takenElsewhere() {
  for (const auto& [held, isShared] :
       {std::pair("127.0.0.2", false), std::pair("127.0.0.9", false), std::pair("127.0.0.3", true)}) {
    Scene scene;
    const uint16_t port = scene.fixture.listen({"127.0.0.1"});
    scene.exchange(at("127.0.0.1", port), 1);
    kup::Fd holder;
    CHECK_EQUAL(bindTo(held, port, isShared, &holder), 0);
    const size_t before = openDescriptors();
    CHECK_EQUAL(setAddresses(scene, {"127.0.0.1", "127.0.0.2", "127.0.0.3"}, port), EADDRINUSE);
    CHECK_EQUAL(openDescriptors(), before);
    scene.exchange(at("127.0.0.1", port), 2);
    CHECK_EQUAL(scene.fixture.count(EventKind::opened), 1u);
    CHECK_EQUAL(errorOfSharedBind("127.0.0.1", port), EADDRINUSE);
    holder.close();
    CHECK_EQUAL(setAddresses(scene, {"127.0.0.1", "127.0.0.2", "127.0.0.3"}, port), 0);
    scene.exchange(at("127.0.0.3", port), 3);
  }
}

void anotherAfterOne() {
  Scene scene;
  const uint16_t port = scene.fixture.listen({"127.0.0.1"});
  scene.exchange(at("127.0.0.1", port), 1);
  const size_t before = openDescriptors();
  CHECK_EQUAL(setAddresses(scene, {"127.0.0.2"}, port), 0);
  // Without the former socket and the session's.
  CHECK_EQUAL(openDescriptors(), before - 1);
  CHECK_EQUAL(causeOf(scene.closed(scene.opened())), CloseCause::stopped);
  CHECK(Peer("127.0.0.1", port).isBound());
  scene.exchange(at("127.0.0.2", port), 2);
  CHECK_EQUAL(setAddresses(scene, {"192.0.2.1"}, port), EADDRNOTAVAIL);
  scene.exchange(at("127.0.0.2", port), 3);
  CHECK_EQUAL(scene.fixture.count(EventKind::opened), 2u);
}

// What the former socket holds is delivered, and before all that comes after.
void queuedAcross() {
  Scene scene;
  const uint16_t port = scene.fixture.listen({"127.0.0.1"});
  const Address listener = at("127.0.0.1", port);
  scene.exchange(listener, 1);
  Peer other;
  scene.fixture.stall();
  other.send("other", listener);
  scene.fixture.untilStalled();
  std::vector<std::string> texts{"datagram 1"};
  for (int index = 0; index < 100; ++index) {
    scene.client.send(texts.emplace_back(std::to_string(index)), listener);
  }
  std::thread change([&] { CHECK_EQUAL(setAddresses(scene, {"127.0.0.1", "127.0.0.2"}, port), 0); });
  scene.fixture.release();
  change.join();
  scene.client.send(texts.emplace_back("after"), listener);
  scene.fixture.until("all echoes", [&] { return scene.client.texts.size() >= texts.size(); });
  CHECK(scene.client.texts == texts);
}

// A client that does not pause while the socket is exchanged.
void noGap() {
  for (int round = 0; round < 100; ++round) {
    Scene scene;
    scene.backend.isEcho = false;
    const uint16_t port = scene.fixture.listen({"127.0.0.1"});
    const auto taken = [&] { return scene.fixture.engine->totals().datagramsIn; };
    std::atomic<bool> isOver{false};
    uint64_t sent = 0;
    std::thread client([&] {
      while (!isOver.load()) {
        // As many as fit into a small queue.
        if (sent - taken() > 50) continue;
        scene.client.send("x", at("127.0.0.1", port));
        ++sent;
      }
    });
    scene.fixture.until("a session that relays", [&] { return taken() > 100; });
    CHECK_EQUAL(setAddresses(scene, {"127.0.0.1", "127.0.0.2"}, port), 0);
    const uint64_t before = taken();
    scene.fixture.until("more", [&] { return taken() > before + 100; });
    isOver.store(true);
    client.join();
    scene.fixture.until("every datagram", [&] { return taken() == sent; });
    CHECK_EQUAL(scene.fixture.count(EventKind::opened), 1u);
  }
}

}  // namespace

void check::checkAddresses() {
  RUN(replyAddress);
  RUN(replyAddressInIPv6);
  RUN(oneDescriptor);
  RUN(addressesChange);
  RUN(otherAddresses);
  RUN(openFails);
  RUN(severalAfterOne);
  RUN(takenElsewhere);
  RUN(anotherAfterOne);
  RUN(queuedAcross);
  RUN(noGap);
}
