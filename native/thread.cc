#include "thread.h"

#include <fcntl.h>
#include <signal.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>

namespace kup {

namespace {

Event eventOf(EventKind kind, const Session& session) {
  Event event{};
  event.kind = static_cast<uint32_t>(kind);
  event.session = static_cast<double>(session.id());
  event.epoch = session.epoch();
  return event;
}

// Pipes that nobody needed for so long are closed.
constexpr uint64_t kPipeTrimMs = 2000;

Fd openSpare() { return Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

}  // namespace

EngineThread::EngineThread(const Options& options, Wake wake, void* context)
    : options_(options), relayRoom_(options.maxPipes), outbox_(wake, context) {}

EngineThread::~EngineThread() { stop(); }

int EngineThread::start() {
  const int error = loop_.init();
  if (error != 0) return error;
  spare_ = openSpare();
  // The signals of the process are the controller's.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const int failed = ::pthread_create(&thread_, nullptr, &EngineThread::main, this);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (failed == 0) ::pthread_setname_np(thread_, "kup-engine");
  isRunning_ = failed == 0;
  return failed;
}

void* EngineThread::main(void* self) {
  static_cast<EngineThread*>(self)->run();
  return nullptr;
}

void EngineThread::run() {
  int maxWaitMs = -1;
  while (!isStopping_.load()) {
    loop_.turn(
        maxWaitMs, [this] { return hasWork(); }, [this] { takeBatch(); });
    resumeStarved();
    bury();
    if (!isArmed() && !relayRoom_.pipes.isEmpty()) loop_.wheel().arm(this, loop_.now() + kPipeTrimMs);
    maxWaitMs = outbox_.flush(loop_.now());
  }
  endAll();
  bury();
  outbox_.flush(loop_.now());
}

void EngineThread::onDeadline() { relayRoom_.pipes.trim(); }

bool EngineThread::hasWork() const {
  const bool mayResume = !starved_.empty() && outbox_.unreported() < options_.maxUnreported;
  return mayResume || hasMail_.load() || isStopping_.load();
}

// --- Events out -------------------------------------------------------------------------------------------------

void EngineThread::adopt(std::unique_ptr<Session> session, uint32_t listener, const Address& client, bool isUdp) {
  session->id_ = ++lastSession_;
  session->counters_ = outbox_.take(session->id_, isUdp);
  Event event = eventOf(EventKind::opened, *session);
  event.listener = listener;
  event.isUdp = isUdp ? 1 : 0;
  event.port = client.port();
  event.addressLength = static_cast<uint32_t>(client.format(event.address));
  outbox_.add(event);
  sessions_.emplace(session->id_, std::move(session));
}

void EngineThread::reportDialFailed(const Session& session, int error) {
  Event event = eventOf(EventKind::dialFailed, session);
  event.error = error;
  outbox_.add(event);
}

void EngineThread::reportEstablished(const Session& session) {
  outbox_.add(eventOf(EventKind::established, session));
}

void EngineThread::reportClosed(Session* session, CloseCause cause) {
  const auto found = sessions_.find(session->id_);
  Event event = eventOf(EventKind::closed, *session);
  event.cause = static_cast<uint32_t>(cause);
  event.bytesIn = static_cast<double>(session->counters_->bytesIn.load(std::memory_order_relaxed));
  event.bytesOut = static_cast<double>(session->counters_->bytesOut.load(std::memory_order_relaxed));
  outbox_.add(event);
  outbox_.release(session->counters_);
  buriedSessions_.push_back(std::move(found->second));
  sessions_.erase(found);
}

void EngineThread::listenerClosed(Listener* listener) {
  Event event{};
  event.kind = static_cast<uint32_t>(EventKind::listenerClosed);
  event.listener = listener->id();
  outbox_.add(event);
  const auto found = listeners_.find(listener->id());
  buriedListeners_.push_back(std::move(found->second));
  listeners_.erase(found);
}

// Nobody refers to them any more; but until here they could be in the middle of a call.
void EngineThread::bury() {
  buriedSessions_.clear();
  for (const auto& listener : buriedListeners_) {
    starved_.erase(std::remove(starved_.begin(), starved_.end(), listener.get()), starved_.end());
  }
  buriedListeners_.clear();
}

// --- Accepting --------------------------------------------------------------------------------------------------

bool EngineThread::mayAccept(Listener* listener) {
  if (outbox_.unreported() < options_.maxUnreported) return true;
  if (std::find(starved_.begin(), starved_.end(), listener) == starved_.end()) starved_.push_back(listener);
  return false;
}

void EngineThread::resumeStarved() {
  if (starved_.empty() || outbox_.unreported() >= options_.maxUnreported) return;
  std::vector<Listener*> starved;
  starved.swap(starved_);
  for (Listener* listener : starved) listener->resume();
}

int EngineThread::turnAway(int listeningSocket) {
  if (!spare_.isOpen()) {
    spare_ = openSpare();
    if (!spare_.isOpen()) return EMFILE;
  }
  spare_.close();
  Fd client(::accept4(listeningSocket, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  const int error = client.isOpen() ? 0 : errno;
  client.reset();
  spare_ = openSpare();
  return error;
}

// --- Commands in ------------------------------------------------------------------------------------------------

void EngineThread::Batch::clear() {
  commands.clear();
  preambles.clear();
  work.clear();
}

void EngineThread::takeBatch() {
  if (!hasMail_.load()) return;
  {
    const std::lock_guard<std::mutex> lock(inboxMutex_);
    hasMail_.store(false);
    std::swap(inbox_, taken_);
  }
  for (const auto& work : taken_.work) work();
  const uint8_t* preamble = taken_.preambles.data();
  for (const Command& command : taken_.commands) {
    perform(command, preamble);
    preamble += command.preambleLength;
  }
  taken_.clear();
}

void EngineThread::perform(const Command& command, const uint8_t* preamble) {
  const auto found = sessions_.find(static_cast<uint64_t>(command.session));
  if (found == sessions_.end()) return;
  Session& session = *found->second;
  switch (static_cast<CommandKind>(command.kind)) {
    case CommandKind::stop:
      session.end(CloseCause::stopped);
      break;
    case CommandKind::evict:
      session.end(CloseCause::evicted);
      break;
    case CommandKind::refuse:
    case CommandKind::dial:
      session.answer(command, preamble);
      break;
  }
}

void EngineThread::endAll() {
  takeBatch();
  std::vector<Session*> sessions;
  sessions.reserve(sessions_.size());
  for (const auto& [id, session] : sessions_) sessions.push_back(session.get());
  for (Session* session : sessions) session->end(CloseCause::stopped);
  // Their sockets go with them: what the kernel has queued is reset.
  starved_.clear();
  listeners_.clear();
  spare_.close();
}

// --- For the controller -----------------------------------------------------------------------------------------

void EngineThread::post(std::function<void()> work) {
  {
    const std::lock_guard<std::mutex> lock(inboxMutex_);
    inbox_.work.push_back(std::move(work));
    hasMail_.store(true);
  }
  loop_.wake();
}

void EngineThread::call(const std::function<void()>& work) {
  if (!isRunning_) return;
  std::mutex mutex;
  std::condition_variable done;
  bool isDone = false;
  post([&] {
    work();
    const std::lock_guard<std::mutex> lock(mutex);
    isDone = true;
    done.notify_one();
  });
  std::unique_lock<std::mutex> lock(mutex);
  done.wait(lock, [&] { return isDone; });
}

int EngineThread::addListener(std::unique_ptr<Listener> listener) {
  int error = ECANCELED;
  call([&] {
    error = listener->start();
    if (error != 0) return;
    const uint32_t id = listener->id();
    listeners_.emplace(id, std::move(listener));
  });
  return error;
}

Listener* EngineThread::listener(uint32_t id) {
  const auto found = listeners_.find(id);
  return found == listeners_.end() ? nullptr : found->second.get();
}

void EngineThread::submit(const Command* commands, size_t count, const uint8_t* preambles) {
  size_t preambleBytes = 0;
  for (size_t at = 0; at < count; ++at) preambleBytes += commands[at].preambleLength;
  {
    const std::lock_guard<std::mutex> lock(inboxMutex_);
    inbox_.commands.insert(inbox_.commands.end(), commands, commands + count);
    inbox_.preambles.insert(inbox_.preambles.end(), preambles, preambles + preambleBytes);
    hasMail_.store(true);
  }
  loop_.wake();
}

size_t EngineThread::drain(Event* events, size_t capacity) {
  uint32_t unreportedBefore = 0;
  const size_t count = outbox_.drain(events, capacity, &unreportedBefore);
  // A listener may wait for that.
  if (unreportedBefore >= options_.maxUnreported && count > 0) loop_.wake();
  return count;
}

void EngineThread::stop() {
  if (!isRunning_) return;
  isStopping_.store(true);
  loop_.wake();
  ::pthread_join(thread_, nullptr);
  isRunning_ = false;
}

}  // namespace kup
