// What is promised when something runs out: descriptors, pipes, or the controller's attention. Each check prints what
// holds; the first that does not ends the program.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <set>

#include "rig.h"

namespace kup::test {

namespace {

// --- Descriptors ----------------------------------------------------------------------------------------------------

// Leaves so many descriptors to the process as long as it lives.
class FewDescriptors {
 public:
  explicit FewDescriptors(int left) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    rlimit low = before_;
    for (low.rlim_cur = 0; left >= 0; ++low.rlim_cur) {
      if (::fcntl(static_cast<int>(low.rlim_cur), F_GETFD) < 0 && left-- == 0) break;
    }
    EXPECT(::setrlimit(RLIMIT_NOFILE, &low) == 0, "setrlimit: %s", std::strerror(errno));
  }
  ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

struct Waiting {
  explicit Waiting(size_t count) {
    for (size_t at = 0; at < count; ++at) sockets.push_back(bindAnywhere(AF_INET));
  }
  // Their descriptors were there before.
  void connect(Rig& rig) {
    for (Fd& socket : sockets) {
      startConnect(socket.get(), rig.listener);
      ends.push_back(std::make_unique<Endpoint>(std::move(socket), rig.random));
    }
  }
  size_t countReset() {
    for (const auto& end : ends) end->read(1);
    return static_cast<size_t>(std::count_if(ends.begin(), ends.end(), [](const auto& end) { return end->sawReset(); }));
  }

  std::vector<Fd> sockets;
  std::vector<std::unique_ptr<Endpoint>> ends;
};

void clientsBeyondTheLimitAreReset() {
  constexpr size_t kClients = 50;
  constexpr size_t kLeft = 4;
  Rig rig;
  Waiting clients(kClients);
  {
    const FewDescriptors few(kLeft);
    clients.connect(rig);
    rig.until("resets", [&] { return clients.countReset() == kClients - kLeft; });
    rig.until("sessions", [&] { return rig.count(EventKind::opened) == kLeft; });
    // A client may see its reset before it is counted.
    rig.until("errors", [&] { return rig.engine->totals().listenerErrors >= kClients - kLeft; });
    // Nobody is waiting any more: then there is no fault either.
    const uint64_t before = rig.engine->totals().listenerErrors;
    const double untilMs = nowMs() + 300;
    rig.until("some time", [&] { return nowMs() > untilMs; });
    EXPECT(rig.engine->totals().listenerErrors == before, "errors without a client");
    // A session that ends makes room for another.
    rig.evict(rig.nth(EventKind::opened, 0).session);
    rig.until("an end", [&] { return rig.count(EventKind::closed) == 1; });
    rig.until("its reset", [&] { return clients.countReset() == kClients - kLeft + 1; });
  }
  const auto late = rig.connect();
  rig.until("a late session", [&] { return rig.count(EventKind::opened) == kLeft + 1; });
  std::puts("pressure: clients beyond the limit of open files are reset, and it recovers");
}

void aDialWithoutDescriptorFails() {
  Rig rig;
  Waiting clients(1);
  {
    const FewDescriptors few(1);
    clients.connect(rig);
    rig.until("a session", [&] { return rig.count(EventKind::opened) == 1; });
    rig.dial(rig.nth(EventKind::opened, 0).session);
    rig.until("a failure", [&] { return rig.count(EventKind::dialFailed) == 1; });
    EXPECT(rig.nth(EventKind::dialFailed, 0).error == EMFILE, "error %d", rig.nth(EventKind::dialFailed, 0).error);
  }
  rig.dial(rig.nth(EventKind::opened, 0).session);
  rig.until("its backend", [&] { return rig.count(EventKind::established) == 1; });
  std::puts("pressure: a dial without a descriptor fails with EMFILE, and the next one can succeed");
}

// --- Pipes ----------------------------------------------------------------------------------------------------------

// Different pipes that are open in this process.
size_t countPipes() {
  std::set<std::string> pipes;
  for (int fd = 0; fd < 1024; ++fd) {
    char target[64];
    const ssize_t length = ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, sizeof target);
    if (length > 5 && std::strncmp(target, "pipe:", 5) == 0) pipes.emplace(target, static_cast<size_t>(length));
  }
  return pipes.size();
}

// Bulk in both directions on all of them at once, or in turns; every byte is checked.
void carryBulk(Rig& rig, size_t connections, bool inTurns) {
  constexpr uint64_t kEach = 6 << 20;
  rig.dialsAtOnce = true;
  std::vector<std::unique_ptr<Endpoint>> clients;
  std::vector<std::unique_ptr<Endpoint>> backends;
  for (size_t at = 0; at < connections; ++at) {
    clients.push_back(rig.connect());
    backends.push_back(rig.accept());
    clients.back()->expectFrom(backends.back().get());
    backends.back()->expectFrom(clients.back().get());
  }
  const auto work = [&](size_t at, uint64_t goal) {
    for (Endpoint* end : {clients[at].get(), backends[at].get()}) {
      if (end->sent() < goal) end->write(goal - end->sent());
    }
    clients[at]->read(1 << 20);
    backends[at]->read(1 << 20);
    return clients[at]->received() == goal && backends[at]->received() == goal;
  };
  for (uint64_t goal = inTurns ? kEach / 8 : kEach; goal <= kEach; goal += kEach / 8) {
    for (size_t at = 0; inTurns && at < connections; ++at) rig.until("its turn", [&] { return work(at, goal); });
    size_t done = 0;
    rig.until("bulk", [&] {
      done = 0;
      for (size_t at = 0; at < connections; ++at) done += work(at, goal) ? 1 : 0;
      return done == connections;
    });
  }
  for (size_t at = 0; at < connections; ++at) {
    clients[at]->finish();
    backends[at]->finish();
  }
  rig.until("their ends", [&] { return rig.count(EventKind::closed) == connections; });
  for (size_t at = 0; at < connections; ++at) {
    const Event& closed = rig.nth(EventKind::closed, at);
    EXPECT(closed.cause == static_cast<uint32_t>(CloseCause::fin), "cause %u", closed.cause);
    EXPECT(closed.bytesIn == kEach && closed.bytesOut == kEach, "%.0f in, %.0f out", closed.bytesIn, closed.bytesOut);
  }
}

void bulkWithoutPipes() {
  Options options;
  options.maxPipes = 0;
  const size_t before = countPipes();
  Rig rig(options);
  carryBulk(rig, 4, false);
  EXPECT(countPipes() == before, "%zu pipes more", countPipes() - before);
  std::puts("pressure: bulk arrives without pipes");
}

void bulkWithFewPipes() {
  Options options;
  options.maxPipes = 2;
  const size_t before = countPipes();
  Rig rig(options);
  carryBulk(rig, 8, true);
  EXPECT(countPipes() == before + 2, "%zu pipes more", countPipes() - before);
  carryBulk(*std::make_unique<Rig>(options, 2), 8, false);
  std::puts("pressure: eight bulk flows share two pipes, in turns and at once");
}

// As a user who has no pages for pipes left: what the kernel grants then is too small to be of use.
[[noreturn]] void bulkWithoutPagesForPipes() {
  // A user whom nobody else is.
  const uid_t user = 4'000'000 + static_cast<uid_t>(::getpid());
  if (::geteuid() == 0 && ::setresuid(user, user, user) != 0) std::_Exit(77);
  std::vector<Fd> hog;
  for (int count = 0; count < 5000; ++count) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) break;
    hog.emplace_back(ends[0]);
    hog.emplace_back(ends[1]);
    ::fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
    if (::fcntl(ends[1], F_GETPIPE_SZ) < 1 << 16) break;
  }
  if (::fcntl(hog.back().get(), F_GETPIPE_SZ) >= 1 << 16) std::_Exit(77);
  Rig rig;
  const size_t before = countPipes();
  carryBulk(rig, 4, false);
  EXPECT(countPipes() == before, "%zu pipes more", countPipes() - before);
  std::_Exit(0);
}

void inAChild(const char* what, void (*check)()) {
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child == 0) check();
  int status = 0;
  EXPECT(::waitpid(child, &status, 0) == child, "waitpid: %s", std::strerror(errno));
  EXPECT(WIFEXITED(status), "%s: signal %d", what, WTERMSIG(status));
  const int code = WEXITSTATUS(status);
  EXPECT(code == 0 || code == 77, "%s: exit code %d", what, code);
  std::printf("pressure: %s%s\n", what, code == 0 ? "" : " (LEFT OUT: this machine does not limit pipes)");
}

// --- Attention ------------------------------------------------------------------------------------------------------

// A listener that has to wait for the controller goes on as soon as that has drained, even if it answers nothing.
void starvedListenersGoOn() {
  for (const uint32_t most : {1U, 2U}) {
    Options options;
    options.maxUnreported = most;
    Rig rig(options);
    rig.isRestless = true;
    constexpr size_t kClients = 3000;
    constexpr size_t kAtATime = 30;
    for (size_t opened = 0; opened < kClients; opened += kAtATime) {
      std::vector<std::unique_ptr<Endpoint>> clients;
      for (size_t at = 0; at < kAtATime; ++at) clients.push_back(rig.connect());
      rig.until("all to be opened", [&] { return rig.count(EventKind::opened) == kAtATime; });
      for (const auto& client : clients) client->reset();
      rig.until("all to be closed", [&] { return rig.count(EventKind::closed) == kAtATime; });
      rig.events.clear();
    }
  }
  std::puts("pressure: a listener that waited for the controller goes on when that has drained");
}

}  // namespace

}  // namespace kup::test

int main() {
  using namespace kup::test;
  ::signal(SIGPIPE, SIG_IGN);
  ::setvbuf(stdout, nullptr, _IOLBF, 0);
  // Before this process has a thread.
  inAChild("bulk arrives where no pages are left for pipes", &bulkWithoutPagesForPipes);
  clientsBeyondTheLimitAreReset();
  aDialWithoutDescriptorFails();
  bulkWithoutPipes();
  bulkWithFewPipes();
  starvedListenersGoOn();
}
