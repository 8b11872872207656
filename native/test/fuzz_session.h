// One connection of the fuzz: its client, its backends, what the policy decides of it, and the judgement when all is
// over. What is done is drawn by lot; what may come of it is said by `judge`, and never guessed from the engine's code:
//
// - What an end has got is a beginning of what the other end has sent, after the preamble of its dial.
// - The end of a direction is told only when the other side has ended it, and after all of its bytes.
// - `fin`: both directions arrived whole. Anything else is a reset for whoever had not already ended and been ended.
// - `closed` comes once, with a cause that somebody has given, and counts between what arrived and what was sent.
// - Everybody is told of the end before long, once all read on and finish.
#pragma once

#include <memory>
#include <vector>

#include "endpoint.h"
#include "fuzz_scene.h"

namespace kup::test {

// What one side has to hear of the other before it ends, so that nothing but the engine can tell it.
enum class WaitsFor { nothing, theEnd, aReset };

// Drawn once for each session.
struct Manners {
  explicit Manners(Random& random, bool mayBeSilent);

  uint64_t steps;
  uint64_t writeMost;
  uint64_t writeInAll;
  uint64_t readMost;  // 0: nothing before it is to end
  unsigned writePercent;
  unsigned readPercent;
  unsigned finishPercent;
  unsigned rudePercent;
  unsigned urgentPercent;
  unsigned policyPercent;
  int bufferBytes;
  bool isHasty;   // whoever is connected says all at once and ends
  bool isSilent;  // does not end by itself: a time-out is to end it
  WaitsFor waitsFor = WaitsFor::nothing;
  bool isClientWaiting;  // else the backend
};

class FuzzSession {
 public:
  // `socket`: bound, of the family of the listener.
  FuzzSession(FuzzScene* scene, const Listening& listening, Fd socket);

  uint16_t port() const { return clientAddress_.port(); }
  double id() const { return id_; }
  // The controller has heard of its beginning and not of its end.
  bool isOpen() const { return policy_ != Policy::unheard && policy_ != Policy::closed; }
  // What the engine says of it while it is open.
  void seen(const SessionBytes& bytes);
  // One turn of everybody who takes part.
  void step();
  void handle(const Event& event);
  // It was judged, too.
  bool isOver();
  void hurry() { manners_.steps = 0; }

 private:
  enum class Policy { unheard, deciding, dialling, established, closed };
  enum class To { backend, closedPort, blackHole };

  struct Dial {
    To to = To::backend;
    Fd listener;
    Content preamble;
    size_t preambleLength = 0;
    uint32_t timeoutMs = 0;
    double sinceMs = 0;
    std::unique_ptr<Endpoint> backend;
  };

  void acceptBackends();
  void act(Endpoint& end);
  void finishUp(Endpoint& end);
  bool mustWait(Endpoint& end);
  void decide(bool isInBatch);
  void decideAtRandom();
  Dial makeDial();
  void send(CommandKind kind);
  void dialFailed(const Event& event);
  void opened(const Event& event);
  // The one that was connected last, null when there was none.
  Endpoint* live() const;

  bool hasSettled();
  bool isOrderly() const { return static_cast<CloseCause>(closed_.cause) == CloseCause::fin; }
  void judge();
  bool isCauseGiven() const;
  void judgeBytes() const;
  void judgeEnd(const Endpoint& self, const Endpoint* peer, bool mayBeAbandoned) const;
  void describe() const;
  [[noreturn]] void hangs() const;

  FuzzScene* const scene_;
  const uint32_t listener_;
  Manners manners_;
  const Address clientAddress_;
  Endpoint client_;
  std::vector<Dial> dials_;
  Policy policy_ = Policy::unheard;
  double id_ = 0;
  uint32_t epoch_ = 0;
  const double bornMs_;
  double endingSinceMs_ = 0;
  bool wasEstablished_ = false;
  bool wasRefused_ = false;
  bool wasEvicted_ = false;
  bool wasStopped_ = false;
  SessionBytes seen_{};
  Event closed_{};
};

}  // namespace kup::test
