#include "fuzz_session.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace kup::test {

Manners::Manners(Random& random, bool mayBeSilent) {
  static constexpr uint64_t kSteps[] = {0, 3, 10, 40, 120};
  static constexpr uint64_t kWriteMost[] = {1, 100, 5000, 65'536, 70'000, 400'000, 3 << 20};
  static constexpr uint64_t kInAll[] = {1, 4096, 200'000, 2 << 20, 8 << 20};
  static constexpr uint64_t kReadMost[] = {0, 1, 1000, 65'536, 8 << 20, 8 << 20};
  static constexpr unsigned kPercent[] = {5, 30, 80, 100};
  steps = random.below(random.of(kSteps) + 1);
  writeMost = random.of(kWriteMost);
  writeInAll = random.of(kInAll);
  readMost = random.of(kReadMost);
  writePercent = random.of(kPercent);
  readPercent = random.of(kPercent);
  finishPercent = random.chance(50) ? 3 : 0;
  rudePercent = random.chance(30) ? 3 : 0;
  urgentPercent = random.chance(10) ? 10 : 0;
  policyPercent = random.chance(30) ? 5 : 0;
  static constexpr int kBuffers[] = {0, 0, 0, 4096, 60'000};
  bufferBytes = random.of(kBuffers);
  isHasty = random.chance(20);
  isSilent = mayBeSilent && random.chance(20);
  if (!isSilent && random.chance(40)) waitsFor = random.chance(50) ? WaitsFor::theEnd : WaitsFor::aReset;
  isClientWaiting = random.chance(50);
}

FuzzSession::FuzzSession(FuzzScene* scene, const Listening& listening, Fd socket)
    : scene_(scene),
      listener_(listening.id),
      manners_(scene->random(), scene->options().tcpIdleTimeoutMs > 0),
      clientAddress_(addressOf(socket.get())),
      client_(std::move(socket), scene->random()),
      bornMs_(nowMs()) {
  client_.connect(listening.at, manners_.bufferBytes);
}

// --- What is done ---------------------------------------------------------------------------------------------------

void FuzzSession::step() {
  acceptBackends();
  const bool isEnding = manners_.steps == 0 || policy_ == Policy::closed;
  if (!isEnding) {
    --manners_.steps;
    act(client_);
    for (const Dial& dial : dials_) {
      if (dial.backend) act(*dial.backend);
    }
    decideAtRandom();
    return;
  }
  if (endingSinceMs_ == 0) endingSinceMs_ = nowMs();
  if (nowMs() - endingSinceMs_ > scene_->patienceMs()) hangs();
  finishUp(client_);
  for (const Dial& dial : dials_) {
    if (dial.backend) finishUp(*dial.backend);
  }
  // A client that has reset needs no decision: the session ends by itself.
  if (client_.hasReset()) return;
  const bool isInVain = policy_ == Policy::dialling && dials_.back().to == To::blackHole;
  if (policy_ == Policy::deciding || isInVain) decide(false);
}

void FuzzSession::act(Endpoint& end) {
  Random& random = scene_->random();
  if (random.chance(manners_.readPercent)) end.read(manners_.readMost);
  const uint64_t room = manners_.writeInAll - std::min(manners_.writeInAll, end.sent());
  if (manners_.isHasty) {
    end.write(room);
    if (random.chance(50)) end.finish();
    if (random.chance(20)) end.close();
    return;
  }
  if (room > 0 && random.chance(manners_.writePercent)) {
    end.write(std::min(room, random.between(1, manners_.writeMost)));
  }
  if (random.chance(manners_.urgentPercent)) end.writeUrgent();
  if (random.chance(manners_.finishPercent)) end.finish();
  if (random.chance(manners_.rudePercent)) random.chance(50) ? end.close() : end.reset();
}

// Reads on, and ends its direction.
void FuzzSession::finishUp(Endpoint& end) {
  Random& random = scene_->random();
  if (policy_ == Policy::established && mustWait(end)) return;
  end.read(random.chance(50) ? 8 << 20 : 100'000);
  if (manners_.isSilent && policy_ != Policy::closed) return;
  if (random.chance(50)) end.finish();
  if (manners_.rudePercent > 0 && random.chance(1)) random.chance(50) ? end.close() : end.reset();
}

// One side does nothing until it has heard of the other's end, or of its reset, which then comes after an end in order
// or without one. A backend does not even read meanwhile: the reset of a client passes all that waits.
bool FuzzSession::mustWait(Endpoint& end) {
  const Endpoint* const other = &end == &client_ ? live() : &client_;
  // Who has closed can do neither any more.
  if (manners_.waitsFor == WaitsFor::nothing || other == nullptr || other->hasClosed()) return false;
  const bool isWaiting = (&end == &client_) == manners_.isClientWaiting;
  if (manners_.waitsFor == WaitsFor::theEnd) {
    if (isWaiting) end.read(8 << 20);
    return isWaiting && !end.isDone();
  }
  if (!isWaiting) {
    if (scene_->random().chance(10)) end.reset();
    return false;
  }
  if (manners_.isClientWaiting) end.read(8 << 20);
  end.lookForReset();
  return !end.sawReset() && end.isOpen();
}

void FuzzSession::acceptBackends() {
  for (Dial& dial : dials_) {
    if (!dial.listener.isOpen()) continue;
    Fd socket(::accept4(dial.listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.isOpen()) continue;
    dial.listener.close();
    const Endpoint* const before = live();
    dial.backend = std::make_unique<Endpoint>(std::move(socket), scene_->random());
    dial.backend->expectPreamble(dial.preamble, dial.preambleLength);
    dial.backend->expectFrom(&client_);
    client_.expectFrom(live());
    // An earlier dial may show later: the last packet of its handshake waits for the first data.
    EXPECT(live() == before || before == nullptr || (before->received() == 0 && client_.received() == 0),
           "session %.0f: a new backend after %lu bytes in and %lu out", id_, before->received(), client_.received());
    if (manners_.isHasty) act(*dial.backend);
  }
}

Endpoint* FuzzSession::live() const {
  for (auto dial = dials_.rbegin(); dial != dials_.rend(); ++dial) {
    if (dial->backend) return dial->backend.get();
  }
  return nullptr;
}

// --- The policy -----------------------------------------------------------------------------------------------------

void FuzzSession::decideAtRandom() {
  Random& random = scene_->random();
  if (policy_ == Policy::unheard || policy_ == Policy::closed) return;
  if (policy_ == Policy::deciding && random.chance(20)) decide(false);
  if (!random.chance(manners_.policyPercent)) return;
  if (policy_ == Policy::dialling) {
    ++scene_->tally().dialsAbandoned;
    decide(false);
  } else if (policy_ == Policy::established && random.chance(30)) {
    // Of the epoch that it is in already: it comes too late, and is to be passed over.
    send(CommandKind::refuse);
  } else if (random.chance(30)) {
    const bool isEviction = random.chance(50);
    (isEviction ? wasEvicted_ : wasStopped_) = true;
    send(isEviction ? CommandKind::evict : CommandKind::stop);
  }
}

// In a batch: the answer to an event. Otherwise the events that are under way are about something abandoned.
void FuzzSession::decide(bool isInBatch) {
  Random& random = scene_->random();
  if (isInBatch && random.chance(25)) return;
  if (!isInBatch) ++epoch_;
  if (random.chance(4)) {
    wasRefused_ = true;
    send(CommandKind::refuse);
    return;
  }
  dials_.push_back(makeDial());
  policy_ = Policy::dialling;
  send(CommandKind::dial);
}

FuzzSession::Dial FuzzSession::makeDial() {
  Random& random = scene_->random();
  Dial dial;
  dial.sinceMs = nowMs();
  dial.timeoutMs = 60'000;
  const bool isEnding = manners_.steps == 0;
  if (!isEnding && random.chance(10)) {
    dial.to = To::closedPort;
  } else if (!isEnding && random.chance(10)) {
    dial.to = To::blackHole;
    if (random.chance(80)) dial.timeoutMs = static_cast<uint32_t>(random.below(60));
  } else if (random.chance(5)) {
    dial.timeoutMs = static_cast<uint32_t>(random.below(3));
  }
  static constexpr size_t kPreambles[] = {0, 0, 28, 107, 50'000, 300'000};
  dial.preambleLength = random.of(kPreambles);
  dial.preamble = Content(random);
  return dial;
}

void FuzzSession::send(CommandKind kind) {
  Command command{};
  command.session = id_;
  command.kind = static_cast<uint32_t>(kind);
  command.epoch = epoch_;
  if (kind != CommandKind::dial) {
    scene_->submit(command, "", nullptr);
    return;
  }
  Dial& dial = dials_.back();
  const int family = scene_->random().chance(30) ? AF_INET6 : AF_INET;
  Address to = dial.to == To::blackHole ? scene_->blackHoleAt(family) : scene_->closedAt(family);
  if (dial.to == To::backend) {
    dial.listener = listenOn(family, 1, manners_.bufferBytes);
    to = addressOf(dial.listener.get());
  }
  char text[INET6_ADDRSTRLEN];
  const std::string address(text, to.format(text));
  command.timeoutMs = dial.timeoutMs;
  command.port = to.port();
  command.preambleLength = static_cast<uint32_t>(dial.preambleLength);
  scene_->submit(command, address, dial.preamble.from(0));
}

void FuzzSession::handle(const Event& event) {
  const auto kind = static_cast<EventKind>(event.kind);
  EXPECT(policy_ != Policy::closed, "event %u after the end of session %.0f", event.kind, id_);
  EXPECT(event.epoch <= epoch_, "epoch %u of %u", event.epoch, epoch_);
  if (kind == EventKind::opened) {
    opened(event);
  } else if (kind == EventKind::closed) {
    policy_ = Policy::closed;
    closed_ = event;
  } else if (event.epoch == epoch_) {
    EXPECT(policy_ == Policy::dialling, "event %u without a dial", event.kind);
    if (kind == EventKind::dialFailed) {
      dialFailed(event);
    } else {
      EXPECT(kind == EventKind::established, "event %u", event.kind);
      policy_ = Policy::established;
      wasEstablished_ = true;
    }
  }
}

void FuzzSession::opened(const Event& event) {
  EXPECT(policy_ == Policy::unheard, "session %.0f opened twice", id_);
  char text[INET6_ADDRSTRLEN];
  const std::string own(text, clientAddress_.format(text));
  const std::string seen(event.address, event.addressLength);
  EXPECT(event.listener == listener_ && seen == own, "%s at listener %u", seen.c_str(), event.listener);
  id_ = event.session;
  policy_ = Policy::deciding;
  decide(true);
}

void FuzzSession::dialFailed(const Event& event) {
  const Dial& dial = dials_.back();
  const double tookMs = nowMs() - dial.sinceMs;
  bool isLegal = event.error == ETIMEDOUT && tookMs >= dial.timeoutMs - 1.0;
  if (dial.to == To::closedPort) isLegal = isLegal || event.error == ECONNREFUSED;
  if (dial.to == To::backend) {
    acceptBackends();
    const bool wasRude = dial.backend && (dial.backend->hasReset() || dial.backend->hasClosed());
    // EPIPE: it had ended before it reset.
    isLegal = isLegal || ((event.error == ECONNRESET || event.error == EPIPE) && wasRude);
  }
  EXPECT(isLegal, "a dial of kind %d failed with %s after %.1f of %u ms", static_cast<int>(dial.to),
         std::strerror(event.error), tookMs, dial.timeoutMs);
  ++scene_->tally().dialsFailed;
  policy_ = Policy::deciding;
  decide(true);
}

}  // namespace kup::test
