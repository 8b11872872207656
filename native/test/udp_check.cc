// The promises of the UDP half, each on real sockets on loopback: datagrams here, local addresses in
// udp_check_addresses.cc, time, late answers and ends in udp_check_lives.cc. Prints what holds; the first
// that does not aborts. Build it of udp_check*.cc and the core.
#include "udp_scene.h"

using namespace check;

namespace {

constexpr size_t kLargest = 65'507;

std::string makeBytes(size_t size) {
  std::string bytes(size, '\0');
  uint32_t state = static_cast<uint32_t>(size);
  for (char& byte : bytes) byte = static_cast<char>((state = state * 1'103'515'245 + 12'345) >> 16);
  return bytes;
}

void wholeDatagrams() {
  for (const char* loopback : {"127.0.0.1", "::1"}) {
    for (const size_t size : {size_t{0}, size_t{1}, size_t{1472}, size_t{4096}, size_t{8192}, kLargest}) {
      Scene scene({}, loopback);
      const Address listener = at(loopback, scene.fixture.listen({loopback}));
      const std::string content = makeBytes(size);
      scene.client.send(content, listener);
      scene.fixture.until("the echo", [&] { return !scene.client.texts.empty(); });
      CHECK(scene.client.texts.front() == content);
      CHECK_EQUAL(name(scene.client.from.front()), name(listener));
      const Event opened = scene.opened();
      CHECK_EQUAL(std::string(opened.address, opened.addressLength) + " " + std::to_string(opened.port),
                  name(scene.client.address()));
      CHECK_EQUAL(opened.isUdp, 1);
    }
  }
}

void orderAndBorders() {
  Scene scene;
  const Address listener = at("127.0.0.1", scene.fixture.listen());
  std::vector<std::string> texts;
  for (int index = 0; index < 60; ++index) {
    texts.push_back(index % 7 == 3 ? "" : "datagram " + std::to_string(index));
  }
  for (const auto& text : texts) scene.client.send(text, listener);
  scene.fixture.until("all echoes", [&] { return scene.client.texts.size() == 60; });
  CHECK(scene.client.texts == texts);
  CHECK(scene.backend.texts == texts);
  CHECK_EQUAL(scene.fixture.count(EventKind::opened), 1u);
  const kup::Totals totals = scene.fixture.engine->totals();
  CHECK_EQUAL(totals.datagramsIn, 60u);
  CHECK_EQUAL(totals.datagramsOut, 60u);
  CHECK_EQUAL(totals.datagramsDropped, 0u);
}

// More than one turn takes of one socket, both ways: nothing is lost, nothing changes place.
void pileUp(const std::vector<std::string>& literals) {
  Scene scene;
  const Address listener = at("127.0.0.1", scene.fixture.listen(literals));
  scene.exchange(listener, 1);
  Peer other;
  std::vector<std::string> texts{"datagram 1"};
  // The wake of another session holds the thread.
  scene.fixture.stall();
  other.send("other", listener);
  scene.fixture.untilStalled();
  const auto next = [&] { return texts.emplace_back(std::to_string(texts.size())); };
  for (int index = 0; index < 500; ++index) scene.client.send(next(), listener);
  scene.fixture.release();
  scene.fixture.until("500 in", [&] { return scene.backend.texts.size() >= 502; });
  scene.fixture.until("500 out", [&] { return scene.client.texts.size() >= 501; });
  CHECK(scene.client.texts == texts);
  CHECK_EQUAL(scene.fixture.engine->totals().datagramsDropped, 0u);

  const Address outward = scene.backend.from.front();
  scene.backend.isEcho = false;
  scene.fixture.stall();
  Peer third;
  third.send("third", listener);
  scene.fixture.untilStalled();
  for (int index = 0; index < 500; ++index) scene.backend.send(next(), outward);
  scene.fixture.release();
  scene.fixture.until("500 replies", [&] { return scene.client.texts.size() >= 1001; });
  CHECK(scene.client.texts == texts);
}

void pileUpOnOne() { pileUp({"127.0.0.1"}); }
void pileUpOnSeveral() { pileUp({"127.0.0.1", "127.0.0.2"}); }

void manyClients() {
  constexpr size_t kClients = 400;
  Scene scene;
  const Address listener = at("127.0.0.1", scene.fixture.listen());
  std::vector<std::unique_ptr<Peer>> clients;
  for (size_t index = 0; index < kClients; ++index) {
    clients.push_back(std::make_unique<Peer>());
    scene.fixture.peers.push_back(clients.back().get());
    clients.back()->send("client " + std::to_string(index), listener);
  }
  for (size_t index = 0; index < kClients; ++index) {
    scene.fixture.until("its echo", [&] { return !clients[index]->texts.empty(); });
    CHECK_EQUAL(clients[index]->texts.front(), "client " + std::to_string(index));
  }
  CHECK_EQUAL(scene.fixture.count(EventKind::opened), kClients);
  CHECK_EQUAL(scene.fixture.engine->totals().datagramsDropped, 0u);
}

void heldDatagrams() {
  Scene scene;
  scene.fixture.decide = [](const Event&) { return Answer{}; };
  scene.backend.isEcho = false;
  const Address listener = at("127.0.0.1", scene.fixture.listen());
  for (size_t index = 0; index < 5; ++index) {
    scene.client.send(makeBytes(kLargest - index), listener);
    scene.untilTaken(index + 1);
  }
  CHECK_EQUAL(scene.fixture.engine->totals().datagramsDropped, 3u);
  scene.fixture.submit(scene.opened(), dialTo(scene.backend), 1);
  scene.fixture.until("the held", [&] { return scene.backend.texts.size() >= 2; });
  scene.client.send("after", listener);
  scene.fixture.until("the next", [&] { return scene.backend.texts.size() >= 3; });
  CHECK(scene.backend.texts[0] == makeBytes(kLargest));
  CHECK(scene.backend.texts[1] == makeBytes(kLargest - 1));
  CHECK_EQUAL(scene.backend.texts[2], std::string("after"));

  Peer second;
  for (size_t index = 0; index < 100; ++index) second.send(std::string(index % 3, 'x'), listener);
  scene.untilTaken(106);
  scene.fixture.submit(scene.opened(1), dialTo(scene.backend), 1);
  scene.fixture.until("all held", [&] { return scene.backend.texts.size() >= 103; });
  for (size_t index = 0; index < 100; ++index) CHECK_EQUAL(scene.backend.texts[3 + index].size(), index % 3);
}

void refusal() {
  Scene scene;
  scene.fixture.decide = [](const Event&) { return refuse(); };
  const Address listener = at("127.0.0.1", scene.fixture.listen());
  scene.client.send("first", listener);
  const Event closed = scene.closed(scene.opened());
  CHECK_EQUAL(causeOf(closed), CloseCause::refused);
  CHECK_EQUAL(closed.bytesIn, 0.0);
  CHECK_EQUAL(scene.fixture.engine->totals().datagramsDropped, 1u);
  scene.fixture.decide = [&](const Event&) { return dialTo(scene.backend); };
  scene.exchange(listener, 1);
  CHECK_EQUAL(scene.backend.texts.size(), 1u);
}

void dialFails() {
  for (const auto& [loopback, wrong, error] :
       {std::tuple("127.0.0.1", "255.255.255.255", EACCES), std::tuple("::1", "fe80::1", EINVAL)}) {
    Scene scene({}, loopback);
    const Address nowhere = at(wrong, 9);
    scene.fixture.decide = [&](const Event& event) {
      const bool isFirst = event.kind == static_cast<uint32_t>(EventKind::opened);
      return isFirst ? Answer{Answer::dial, nowhere} : dialTo(scene.backend);
    };
    scene.exchange(at(loopback, scene.fixture.listen({loopback})), 1);
    CHECK_EQUAL(scene.fixture.all(EventKind::dialFailed)[0].error, error);
    scene.fixture.until("established", [&] { return scene.fixture.count(EventKind::established) == 1; });
  }
}

void backendRefuses() {
  Scene scene;
  Peer dead;
  scene.fixture.decide = [&](const Event&) { return dialTo(dead); };
  const Address listener = at("127.0.0.1", scene.fixture.listen());
  scene.client.send("first", listener);
  scene.untilTaken(1);
  const Event first = scene.opened();
  scene.fixture.until("the datagram", [&] {
    dead.take();
    return !dead.texts.empty();
  });
  dead.close();
  // A run of several: some go out before the refusal of the first is seen.
  Peer other;
  scene.fixture.stall();
  other.send("other", listener);
  scene.fixture.untilStalled();
  for (int index = 0; index < 5; ++index) scene.client.send("lost", listener);
  scene.fixture.release();
  CHECK_EQUAL(causeOf(scene.closed(first)), CloseCause::backendRefused);
  scene.fixture.decide = [&](const Event&) { return dialTo(scene.backend); };
  scene.exchange(listener, 1);
}

void strangers() {
  Scene scene;
  Peer stranger;
  const Address listener = at("127.0.0.1", scene.fixture.listen());
  scene.exchange(listener, 1);
  stranger.send("forged", scene.backend.from.front());
  scene.exchange(listener, 2);
  CHECK_EQUAL(scene.client.texts[1], std::string("datagram 2"));
}

void bytesAndEviction() {
  Scene scene;
  const Address listener = at("127.0.0.1", scene.fixture.listen());
  scene.exchange(listener, 1);
  const Event session = scene.opened();
  std::vector<kup::SessionBytes> bytes;
  scene.fixture.engine->sessionBytes(&bytes);
  CHECK_EQUAL(bytes.size(), 1u);
  CHECK_EQUAL(bytes[0].bytesIn, 10.0);
  CHECK_EQUAL(bytes[0].bytesOut, 10.0);
  double usedMs = 0;
  CHECK(scene.fixture.engine->lastUsed(session.session, &usedMs));
  CHECK(usedMs > kup::nowMs() - 5000 && usedMs <= kup::nowMs());
  scene.fixture.end(session, CommandKind::evict);
  const Event closed = scene.closed(session);
  CHECK_EQUAL(causeOf(closed), CloseCause::evicted);
  CHECK_EQUAL(closed.bytesIn, 10.0);
  CHECK_EQUAL(closed.bytesOut, 10.0);
  CHECK(!scene.fixture.engine->lastUsed(session.session, &usedMs));
  scene.exchange(listener, 2);
  CHECK_EQUAL(scene.fixture.count(EventKind::opened), 2u);
}

}  // namespace

int main() {
  const size_t before = openDescriptors();
  RUN(wholeDatagrams);
  RUN(orderAndBorders);
  RUN(pileUpOnOne);
  RUN(pileUpOnSeveral);
  RUN(manyClients);
  RUN(heldDatagrams);
  RUN(refusal);
  RUN(dialFails);
  RUN(backendRefuses);
  RUN(strangers);
  RUN(bytesAndEviction);
  checkAddresses();
  checkLives();
  CHECK_EQUAL(openDescriptors(), before);
}
