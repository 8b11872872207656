// The judgement over a session of the fuzz that has ended; the rules are at the head of fuzz_session.h.
#include <algorithm>

#include "fuzz_session.h"

namespace kup::test {

namespace {

bool hasEnded(const Endpoint* end) { return end != nullptr && (end->hasFinished() || end->hasClosed()); }
bool wasRude(const Endpoint* end) { return end != nullptr && (end->hasReset() || end->hasClosed()); }

}  // namespace

bool FuzzSession::isOver() {
  if (!hasSettled()) return false;
  judge();
  return true;
}

bool FuzzSession::hasSettled() {
  if (policy_ == Policy::unheard) {
    // Who was not accepted before the listener was closed is told so.
    return scene_->isGone(listener_) && client_.isDone();
  }
  if (policy_ != Policy::closed || !client_.isDone()) return false;
  acceptBackends();
  return std::all_of(dials_.begin(), dials_.end(),
                     [](const Dial& dial) { return !dial.backend || dial.backend->isDone(); });
}

void FuzzSession::judge() {
  Tally& tally = scene_->tally();
  ++tally.sessions;
  if (policy_ == Policy::unheard) {
    ++tally.neverOpened;
    EXPECT(client_.received() == 0 && !client_.sawEnd(), "a client that was never accepted was served");
    return;
  }
  ++tally.causes[closed_.cause];
  tally.bytes += static_cast<uint64_t>(closed_.bytesIn + closed_.bytesOut);
  client_.lookForReset();
  if (!isCauseGiven()) {
    describe();
    FAIL("session %.0f ended with cause %u, for which nobody gave reason", id_, closed_.cause);
  }
  judgeBytes();
  judgeEnd(client_, live(), false);
  for (const Dial& dial : dials_) {
    if (!dial.backend) continue;
    dial.backend->lookForReset();
    const bool isLive = dial.backend.get() == live();
    EXPECT(isLive || dial.backend->received() == 0, "an abandoned backend has got %lu bytes", dial.backend->received());
    judgeEnd(*dial.backend, &client_, !isLive || !(wasEstablished_ || isOrderly()));
  }
}

bool FuzzSession::isCauseGiven() const {
  const Options& options = scene_->options();
  const Endpoint* const client = &client_;
  const double livedMs = nowMs() - bornMs_ + 1;
  const auto isOverdue = [&](uint64_t limitMs) { return limitMs > 0 && livedMs >= static_cast<double>(limitMs); };
  switch (static_cast<CloseCause>(closed_.cause)) {
    case CloseCause::fin:
      return hasEnded(client) && hasEnded(live());
    case CloseCause::clientReset:
      return wasRude(client);
    case CloseCause::backendReset:
      return wasRude(live());
    case CloseCause::idle:
      return isOverdue(options.tcpIdleTimeoutMs);
    case CloseCause::halfClose:
      return isOverdue(options.halfCloseTimeoutMs) && (hasEnded(client) || hasEnded(live()));
    case CloseCause::evicted:
      return wasEvicted_;
    case CloseCause::stopped:
      return wasStopped_ || scene_->hasStopped();
    case CloseCause::refused:
      return wasRefused_;
    case CloseCause::backendRefused:
      return false;
  }
  return false;
}

void FuzzSession::judgeBytes() const {
  const Endpoint& client = client_;
  const Endpoint* const backend = live();
  const auto in = static_cast<uint64_t>(closed_.bytesIn);
  const auto out = static_cast<uint64_t>(closed_.bytesOut);
  EXPECT(closed_.bytesIn >= seen_.bytesIn && closed_.bytesOut >= seen_.bytesOut, "bytes have shrunk");
  if (backend == nullptr) {
    EXPECT(in == 0 && out == 0, "%lu in and %lu out without a backend", in, out);
    return;
  }
  EXPECT(in >= backend->received() && in <= client.sent() + client.urgentSent(), "%lu in: sent %lu, got %lu", in,
         client.sent(), backend->received());
  EXPECT(out >= client.received() && out <= backend->sent() + backend->urgentSent(), "%lu out: sent %lu, got %lu", out,
         backend->sent(), client.received());
  if (!isOrderly()) return;
  EXPECT(in >= client.sent() && out >= backend->sent(), "fin after %lu of %lu in, %lu of %lu out", in, client.sent(),
         out, backend->sent());
}

void FuzzSession::seen(const SessionBytes& bytes) {
  EXPECT(bytes.bytesIn >= seen_.bytesIn && bytes.bytesOut >= seen_.bytesOut, "session %.0f: its bytes have shrunk", id_);
  EXPECT(bytes.bytesIn <= static_cast<double>(client_.sent() + client_.urgentSent()), "more than was sent");
  seen_ = bytes;
}

// `mayBeAbandoned`: a backend of a dial that came to nothing is closed in whichever way.
void FuzzSession::judgeEnd(const Endpoint& self, const Endpoint* peer, bool mayBeAbandoned) const {
  if (self.sawEnd() && !mayBeAbandoned) {
    EXPECT(hasEnded(peer), "session %.0f: an end that nobody has given", id_);
    EXPECT(self.hasWholePreamble() && self.received() == peer->sent(), "session %.0f: the end after %lu of %lu bytes",
           id_, self.received(), peer->sent());
  }
  if (!self.isOpen()) return;
  if (isOrderly()) {
    EXPECT(mayBeAbandoned || (self.sawEnd() && !self.sawReset()), "session %.0f: fin, but error %d was seen", id_,
           self.error());
  } else if (!mayBeAbandoned) {
    EXPECT(self.sawReset() || (self.sawEnd() && self.hasFinished()),
           "session %.0f: cause %u shows as an orderly end", id_, closed_.cause);
  }
}

void FuzzSession::describe() const {
  const auto say = [](const char* who, const Endpoint& end) {
    std::fprintf(stderr, "  %s: sent %lu, got %lu, %s%s%s%s%s error %d\n", who, end.sent(), end.received(),
                 end.isOpen() ? "open " : "", end.hasFinished() ? "finished " : "", end.hasClosed() ? "closed " : "",
                 end.hasReset() ? "reset " : "", end.sawEnd() ? "saw the end," : "", end.error());
  };
  say("client", client_);
  for (const Dial& dial : dials_) {
    std::fprintf(stderr, "  dial to %d, %u ms, preamble %zu\n", static_cast<int>(dial.to), dial.timeoutMs,
                 dial.preambleLength);
    if (dial.backend) say("backend", *dial.backend);
  }
}

void FuzzSession::hangs() const {
  describe();
  FAIL("session %.0f hangs: policy %d, epoch %u, cause %u", id_, static_cast<int>(policy_), epoch_, closed_.cause);
}

}  // namespace kup::test
