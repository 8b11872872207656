// Where the sessions of a fuzz round live: one engine with options of its own, its listeners, and what the policy can
// send a client to.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "support.h"

namespace kup::test {

class FuzzSession;

struct Tally {
  uint64_t sessions = 0;
  uint64_t neverOpened = 0;
  uint64_t bytes = 0;
  uint64_t dialsFailed = 0;
  uint64_t dialsAbandoned = 0;
  uint64_t listenersClosed = 0;
  uint64_t causes[16] = {};
};

struct Listening {
  uint32_t id = 0;
  Address at;
  bool isClosing = false;
};

class FuzzScene {
 public:
  FuzzScene(uint64_t seed, unsigned patience, Tally& tally);
  ~FuzzScene();

  // Runs until `untilMs` and then until the last session has ended; or stops the engine in the middle.
  void run(double untilMs, size_t sessions);

  // --- For the sessions --------------------------------------------------------------------------------------------

  Random& random() { return random_; }
  const Options& options() const { return options_; }
  Tally& tally() { return tally_; }
  void submit(Command command, const std::string& address, const uint8_t* preamble);
  Address closedAt(int family) const { return addressOf(closed_[family == AF_INET6].get()); }
  Address blackHoleAt(int family) const { return holes_[family == AF_INET6].address(); }
  bool hasStopped() const { return hasStopped_; }
  // `listenerClosed` was heard of: whoever was accepted has been reported before.
  bool isGone(uint32_t listener) const;
  double patienceMs() const { return patienceMs_; }

 private:
  void openListeners();
  bool drain();
  void handle(const Event& event);
  void step();
  // False: enough for this turn.
  bool addSession();
  void forget(const FuzzSession& session);
  void changeListeners();
  void flush();
  void checkBytes();
  void stop();

  Random random_;
  Tally& tally_;
  const double patienceMs_;
  const int descriptorsBefore_;
  Options options_;
  Alarm alarm_;
  Fd closed_[2];
  BlackHole holes_[2];
  std::unique_ptr<Engine> engine_;
  uint32_t lastListener_ = 0;
  std::map<uint32_t, Listening> listeners_;
  std::vector<std::unique_ptr<FuzzSession>> sessions_;
  // By the port of the client: of both families at once.
  std::map<uint16_t, FuzzSession*> byPort_;
  std::map<double, FuzzSession*> byId_;
  double lastId_ = 0;
  std::vector<Command> commands_;
  std::vector<uint8_t> preambles_;
  bool hasStopped_ = false;
};

}  // namespace kup::test
