// A part of udp_check.cc. One check needs CAP_NET_RAW and says so where it is passed over.
#include <netinet/udp.h>

#include "udp_scene.h"

using namespace check;

namespace {

double lifeMs(const Fixture& fixture, const Event& session) {
  double openedMs = 0;
  for (size_t index = 0; index < fixture.events.size(); ++index) {
    const Event& event = fixture.events[index];
    if (event.session != session.session) continue;
    if (event.kind == static_cast<uint32_t>(EventKind::opened)) openedMs = fixture.times[index];
    if (event.kind == static_cast<uint32_t>(EventKind::closed)) return fixture.times[index] - openedMs;
  }
  return -1;
}

void idleTimes() {
  // Either may be the longer one.
  for (const auto& [unrepliedMs, repliedMs] : {std::pair(200u, 600u), std::pair(5000u, 300u)}) {
    kup::Options options;
    options.udpUnrepliedTimeoutMs = unrepliedMs;
    options.udpRepliedTimeoutMs = repliedMs;
    Scene scene(options);
    const Address listener = at("127.0.0.1", scene.fixture.listen());
    scene.exchange(listener, 1);
    const Event replied = scene.opened();
    CHECK_EQUAL(causeOf(scene.closed(replied)), CloseCause::idle);
    CHECK(lifeMs(scene.fixture, replied) >= repliedMs - 10.0);
    CHECK(lifeMs(scene.fixture, replied) < repliedMs + 2000.0);
  }
  kup::Options options;
  options.udpUnrepliedTimeoutMs = 200;
  Scene scene(options);
  scene.backend.isEcho = false;
  const Address listener = at("127.0.0.1", scene.fixture.listen());
  scene.client.send("anybody?", listener);
  const Event unreplied = scene.opened();
  CHECK_EQUAL(causeOf(scene.closed(unreplied)), CloseCause::idle);
  CHECK(lifeMs(scene.fixture, unreplied) >= 190.0);
  // One that nobody decides about, too.
  scene.fixture.decide = [](const Event&) { return Answer{}; };
  scene.client.send("anybody?", listener);
  CHECK_EQUAL(causeOf(scene.closed(scene.opened(1))), CloseCause::idle);
  CHECK_EQUAL(scene.fixture.engine->totals().datagramsDropped, 1u);
}

void keptByEither() {
  kup::Options options;
  options.udpUnrepliedTimeoutMs = options.udpRepliedTimeoutMs = 400;
  Scene scene(options);
  scene.backend.isEcho = false;
  const Address listener = at("127.0.0.1", scene.fixture.listen());
  scene.fixture.forMs(1000, [&] { scene.client.send("statsd", listener); });
  CHECK_EQUAL(scene.fixture.count(EventKind::opened), 1u);
  const Address outward = scene.backend.from.front();
  scene.fixture.forMs(1000, [&] { scene.backend.send("news", outward); });
  CHECK_EQUAL(scene.fixture.count(EventKind::closed), 0u);
  CHECK(scene.client.texts.size() > 10);
  CHECK_EQUAL(causeOf(scene.closed(scene.opened())), CloseCause::idle);
}

void portZero() {
  Scene scene;
  const uint16_t port = scene.fixture.listen();
  const kup::Fd raw(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_UDP));
  if (!raw.isOpen()) {
    std::printf("(no CAP_NET_RAW) ");
    return;
  }
  udphdr header{};
  header.dest = htons(port);
  header.len = htons(sizeof header);
  const Address to = at("127.0.0.1");
  CHECK(::sendto(raw.get(), &header, sizeof header, 0, &to.sa, to.length()) > 0);
  scene.fixture.until("a drop", [&] { return scene.fixture.engine->totals().datagramsDropped == 1; });
  scene.exchange(at("127.0.0.1", port), 1);
  CHECK_EQUAL(scene.fixture.count(EventKind::opened), 1u);
}

// Answers of which the controller did not know that they come too late.
void newerAnswers() {
  Scene scene;
  Peer first;
  first.isEcho = true;
  scene.fixture.peers.push_back(&first);
  scene.fixture.decide = [&](const Event&) { return dialTo(first); };
  const Address listener = at("127.0.0.1", scene.fixture.listen());
  scene.exchange(listener, 1);
  const Event session = scene.opened();
  scene.fixture.submit(session, dialTo(scene.backend), 0);
  scene.exchange(listener, 2);
  CHECK_EQUAL(first.texts.size(), 2u);
  scene.fixture.submit(session, dialTo(scene.backend), 1);
  scene.fixture.until("a second time", [&] { return scene.fixture.count(EventKind::established) == 2; });
  CHECK_EQUAL(scene.fixture.all(EventKind::established)[1].epoch, 1u);
  scene.exchange(listener, 3);
  CHECK_EQUAL(first.texts.size(), 2u);
  CHECK_EQUAL(scene.backend.texts.size(), 1u);
  // One that fails takes the session back to where it waits for a decision.
  scene.fixture.decide = [](const Event&) { return Answer{}; };
  scene.fixture.submit(session, {Answer::dial, at("255.255.255.255", 9)}, 2);
  scene.fixture.until("a failure", [&] { return scene.fixture.count(EventKind::dialFailed) == 1; });
  scene.client.send("held", listener);
  scene.untilTaken(4);
  scene.fixture.submit(session, dialTo(first), 2);
  scene.fixture.until("the held", [&] { return first.texts.size() == 3; });
  scene.fixture.submit(session, refuse(), 3);
  const Event closed = scene.closed(session);
  CHECK_EQUAL(causeOf(closed), CloseCause::refused);
  CHECK_EQUAL(closed.epoch, 3u);
}

// A controller that does not look is no reason to take in whatever comes.
void controllerBehind() {
  constexpr uint64_t kMost = 4096;
  Scene scene;
  const Address listener = at("127.0.0.1", scene.fixture.listen());
  const auto seen = [&] {
    const kup::Totals totals = scene.fixture.engine->totals();
    return totals.datagramsIn + totals.datagramsDropped;
  };
  // Without a look at the events.
  const auto untilSeen = [&](uint64_t count) {
    const double deadline = kup::nowMs() + 10'000;
    while (seen() < count && kup::nowMs() < deadline) ::poll(nullptr, 0, 1);
    CHECK_EQUAL(seen(), count);
  };
  for (uint64_t index = 0; index < kMost + 100; ++index) {
    const std::string literal = "127.1." + std::to_string(index / 250);
    Peer(literal + "." + std::to_string(1 + index % 250)).send("x", listener);
    if (index % 100 == 99) untilSeen(index + 1);
  }
  untilSeen(kMost + 100);
  CHECK_EQUAL(scene.fixture.engine->totals().datagramsIn, kMost);
  CHECK_EQUAL(scene.fixture.engine->totals().datagramsDropped, 100u);
  scene.fixture.until("all to be opened", [&] { return scene.fixture.count(EventKind::opened) == kMost; });
  scene.exchange(listener, 1);
}

void closing() {
  Scene scene;
  const uint16_t port = scene.fixture.listen({"127.0.0.1", "127.0.0.2"});
  scene.exchange(at("127.0.0.1", port), 1);
  CHECK(scene.fixture.engine->close(scene.fixture.lastListener));
  CHECK(!scene.fixture.engine->close(scene.fixture.lastListener));
  CHECK_EQUAL(causeOf(scene.closed(scene.opened())), CloseCause::stopped);
  scene.fixture.until("its end", [&] { return scene.fixture.count(EventKind::listenerClosed) == 1; });
  CHECK(Peer("127.0.0.1", port).isBound());
  CHECK(Peer("127.0.0.2", port).isBound());
  // Left open: that is for `stop`.
  scene.exchange(at("127.0.0.1", scene.fixture.listen()), 2);
}

}  // namespace

void check::checkLives() {
  RUN(idleTimes);
  RUN(keptByEither);
  RUN(portZero);
  RUN(newerAnswers);
  RUN(controllerBehind);
  RUN(closing);
}
