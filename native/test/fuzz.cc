// A fuzz of the engine's TCP half on real sockets: many clients and backends at a time write, read, stall, end, close
// and reset at random, while the policy dials, changes its mind, refuses and evicts, and listeners come and go. What
// must hold of each session is at the head of fuzz_session.h. Everything is drawn from one seed, which is printed;
// the kernel's timing is not, so a seed makes a fault likely again, not certain.
//
// Usage: fuzz [--seed N] [--seconds S] [--sessions M] [--patience S]
// `sessions`: at a time. `patience`: how long one may take to end once all read on and finish.
#include <signal.h>

#include <cstring>
#include <ctime>

#include "fuzz_scene.h"

namespace {

using kup::test::FuzzScene;
using kup::test::Random;
using kup::test::Tally;

struct Arguments {
  uint64_t seed = static_cast<uint64_t>(std::time(nullptr));
  uint64_t seconds = 10;
  uint64_t sessions = 40;
  uint64_t patience = 30;
};

Arguments parse(int count, char** words) {
  Arguments arguments;
  for (int at = 1; at < count; at += 2) {
    uint64_t* value = nullptr;
    if (std::strcmp(words[at], "--seed") == 0) value = &arguments.seed;
    if (std::strcmp(words[at], "--seconds") == 0) value = &arguments.seconds;
    if (std::strcmp(words[at], "--sessions") == 0) value = &arguments.sessions;
    if (std::strcmp(words[at], "--patience") == 0) value = &arguments.patience;
    EXPECT(value != nullptr && at + 1 < count, "usage: fuzz [--seed N] [--seconds S] [--sessions M] [--patience S]");
    *value = std::strtoull(words[at + 1], nullptr, 10);
  }
  return arguments;
}

void print(const Tally& tally) {
  static const char* const kCauses[] = {"fin",     "clientReset", "backendReset",   "idle",   "halfClose",
                                        "evicted", "refused",     "backendRefused", "stopped"};
  std::printf("fuzz: %lu sessions, %lu MB; ended by", tally.sessions, tally.bytes >> 20);
  for (size_t cause = 0; cause < std::size(kCauses); ++cause) {
    if (tally.causes[cause] > 0) std::printf(" %s %lu,", kCauses[cause], tally.causes[cause]);
  }
  std::printf(" never accepted %lu; dials failed %lu, abandoned %lu; listeners closed %lu\n", tally.neverOpened,
              tally.dialsFailed, tally.dialsAbandoned, tally.listenersClosed);
}

}  // namespace

int main(int count, char** words) {
  const Arguments arguments = parse(count, words);
  ::signal(SIGPIPE, SIG_IGN);
  std::printf("fuzz: --seed %lu --seconds %lu --sessions %lu\n", arguments.seed, arguments.seconds, arguments.sessions);
  std::fflush(stdout);
  const double endMs = kup::nowMs() + static_cast<double>(arguments.seconds) * 1e3;
  Random random(arguments.seed);
  Tally tally;
  // Each round has an engine of its own, with other options.
  while (kup::nowMs() < endMs) {
    const double untilMs = kup::nowMs() + static_cast<double>(random.between(200, 2500));
    FuzzScene scene(random.next(), static_cast<unsigned>(arguments.patience), tally);
    scene.run(untilMs < endMs ? untilMs : endMs, random.between(1, arguments.sessions));
  }
  print(tally);
}
