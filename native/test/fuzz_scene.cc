#include "fuzz_scene.h"

#include <algorithm>
#include <cstring>

#include "fuzz_session.h"

namespace kup::test {

namespace {

constexpr int kFamilies[] = {AF_INET, AF_INET, AF_INET6};

Options anyOptions(Random& random) {
  static constexpr uint64_t kIdle[] = {0, 0, 0, 150, 600};
  static constexpr uint64_t kHalfClose[] = {0, 0, 80, 400};
  static constexpr uint32_t kUnreported[] = {1, 2, 32};
  static constexpr uint32_t kPipes[] = {0, 1, 2, 32};
  Options options;
  options.tcpIdleTimeoutMs = random.of(kIdle);
  options.halfCloseTimeoutMs = random.of(kHalfClose);
  options.maxUnreported = random.of(kUnreported);
  options.maxPipes = random.of(kPipes);
  return options;
}

}  // namespace

FuzzScene::FuzzScene(uint64_t seed, unsigned patience, Tally& tally)
    : random_(seed),
      tally_(tally),
      patienceMs_(patience * 1e3),
      descriptorsBefore_(openDescriptors()),
      options_(anyOptions(random_)),
      closed_{bindAnywhere(AF_INET), bindAnywhere(AF_INET6)},
      holes_{BlackHole(AF_INET), BlackHole(AF_INET6)} {
  int error = 0;
  engine_ = Engine::start(options_, &Alarm::ring, &alarm_, &error);
  EXPECT(engine_ != nullptr, "start: %s", std::strerror(error));
}

// All that the engine and its sessions had open must be closed again.
FuzzScene::~FuzzScene() {
  engine_.reset();
  sessions_.clear();
  constexpr int kOwn = 1 + 2 + 2 * 5;  // the alarm, the closed ports, the black holes
  const int left = openDescriptors() - descriptorsBefore_ - kOwn;
  EXPECT(left == 0, "%d descriptors are left", left);
}

void FuzzScene::run(double untilMs, size_t sessions) {
  openListeners();
  const bool stopsInTheMiddle = random_.chance(25);
  while (nowMs() < untilMs) {
    while (sessions_.size() < sessions && addSession()) {
    }
    changeListeners();
    step();
  }
  if (stopsInTheMiddle) stop();
  for (const auto& session : sessions_) session->hurry();
  while (!sessions_.empty()) step();
  checkBytes();
  stop();
  checkBytes();
}

void FuzzScene::step() {
  bool hasMoved = drain();
  for (auto& session : sessions_) {
    if (random_.chance(60)) session->step();
    if (!session->isOver()) continue;
    forget(*session);
    session.reset();
    hasMoved = true;
  }
  sessions_.erase(std::remove(sessions_.begin(), sessions_.end(), nullptr), sessions_.end());
  flush();
  if (random_.chance(1)) checkBytes();
  // Everybody has had a turn; the engine has its own now and then.
  if (!hasMoved) alarm_.wait(random_.chance(30) ? 1 : 0);
}

// --- Listeners and sessions -----------------------------------------------------------------------------------------

void FuzzScene::openListeners() {
  size_t open = 0;
  for (const auto& [id, listening] : listeners_) open += listening.isClosing ? 0 : 1;
  for (; open < 3; ++open) {
    const uint32_t id = ++lastListener_;
    listeners_[id] = {id, openListener(*engine_, random_, id, random_.of(kFamilies)), false};
  }
}

// Closes one now and then while clients are on their way to it, and opens another.
void FuzzScene::changeListeners() {
  if (!random_.chance(1)) return;
  auto at = listeners_.begin();
  std::advance(at, random_.below(listeners_.size()));
  if (!at->second.isClosing) {
    at->second.isClosing = true;
    EXPECT(engine_->close(at->first), "listener %u is not known", at->first);
  }
  openListeners();
}

bool FuzzScene::isGone(uint32_t listener) const { return hasStopped_ || listeners_.count(listener) == 0; }

bool FuzzScene::addSession() {
  auto at = listeners_.begin();
  std::advance(at, random_.below(listeners_.size()));
  // One that closes now is tried as well.
  const Listening& listening = at->second;
  Fd socket = bindAnywhere(listening.at.sa.sa_family);
  const uint16_t port = addressOf(socket.get()).port();
  // By which `opened` names it.
  if (byPort_.count(port) > 0) return false;
  sessions_.push_back(std::make_unique<FuzzSession>(this, listening, std::move(socket)));
  byPort_[port] = sessions_.back().get();
  return random_.chance(80);
}

void FuzzScene::forget(const FuzzSession& session) {
  byPort_.erase(session.port());
  byId_.erase(session.id());
}

// --- Events and commands --------------------------------------------------------------------------------------------

bool FuzzScene::drain() {
  Event events[64];
  bool hasAny = false;
  while (const size_t count = engine_->drain(events, random_.between(1, 64))) {
    hasAny = true;
    for (size_t at = 0; at < count; ++at) handle(events[at]);
    flush();
  }
  return hasAny;
}

void FuzzScene::handle(const Event& event) {
  const auto kind = static_cast<EventKind>(event.kind);
  if (kind == EventKind::listenerClosed) {
    EXPECT(listeners_.count(event.listener) > 0 && listeners_[event.listener].isClosing, "listener %u", event.listener);
    listeners_.erase(event.listener);
    ++tally_.listenersClosed;
    return;
  }
  if (kind == EventKind::opened) {
    const auto found = byPort_.find(static_cast<uint16_t>(event.port));
    EXPECT(found != byPort_.end(), "a client at port %u whom nobody knows", event.port);
    EXPECT(event.session > lastId_, "session %.0f after %.0f", event.session, lastId_);
    lastId_ = event.session;
    byId_[event.session] = found->second;
  }
  const auto found = byId_.find(event.session);
  EXPECT(found != byId_.end(), "event %u for session %.0f, which is not there", event.kind, event.session);
  found->second->handle(event);
}

void FuzzScene::submit(Command command, const std::string& address, const uint8_t* preamble) {
  command.addressLength = static_cast<uint32_t>(address.copy(command.address, sizeof command.address));
  commands_.push_back(command);
  if (command.preambleLength > 0) preambles_.insert(preambles_.end(), preamble, preamble + command.preambleLength);
}

void FuzzScene::flush() {
  if (commands_.empty()) return;
  engine_->submit(commands_.data(), commands_.size(), preambles_.data());
  commands_.clear();
  preambles_.clear();
}

// --- The end --------------------------------------------------------------------------------------------------------

// Between a session's `opened` and `closed`, both as the controller hears of them, its bytes show and grow.
void FuzzScene::checkBytes() {
  std::vector<SessionBytes> bytes;
  engine_->sessionBytes(&bytes);
  size_t known = 0;
  for (const SessionBytes& one : bytes) {
    const auto found = byId_.find(one.session);
    EXPECT(found != byId_.end() || one.session > lastId_, "bytes of session %.0f, which has ended", one.session);
    if (found == byId_.end()) continue;
    ++known;
    found->second->seen(one);
  }
  size_t open = 0;
  for (const auto& [id, session] : byId_) open += session->isOpen() ? 1 : 0;
  EXPECT(known == open, "bytes of %zu sessions, %zu are open", known, open);
}

void FuzzScene::stop() {
  if (hasStopped_) return;
  flush();
  engine_->stop();
  hasStopped_ = true;
  drain();
}

}  // namespace kup::test
