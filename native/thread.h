// The engine's thread and all that lives in it: listeners, sessions, the queues to and from the controller.
// Members above the line in `EngineThread` are for that thread alone, as are all sessions and listeners.
#pragma once

#include <pthread.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "engine.h"
#include "listener.h"
#include "loop.h"
#include "outbox.h"
#include "relay.h"
#include "session.h"
#include "udp_batch.h"

namespace kup {

struct AtomicTotals {
  std::atomic<uint64_t> datagramsIn{0};
  std::atomic<uint64_t> datagramsOut{0};
  std::atomic<uint64_t> datagramsDropped{0};
  std::atomic<uint64_t> listenerErrors{0};
};

class EngineThread : private Timer {
 public:
  EngineThread(const Options& options, Wake wake, void* context);
  ~EngineThread() override;
  // 0 or the errno.
  int start();

  // --- For the engine's thread ---------------------------------------------------------------------------------

  const Options& options() const { return options_; }
  Loop& loop() { return loop_; }
  RelayRoom& relayRoom() { return relayRoom_; }
  // Any thread may read them.
  AtomicTotals& totals() { return totals_; }
  UdpBatch& udpBatch() { return udpBatch_; }

  // Gives the session its id and reports `opened`. The caller goes on with the pointer that is returned.
  template <typename SessionType>
  SessionType* add(std::unique_ptr<SessionType> session, uint32_t listener, const Address& client, bool isUdp) {
    SessionType* added = session.get();
    adopt(std::move(session), listener, client, isUdp);
    return added;
  }
  void reportDialFailed(const Session& session, int error);
  void reportEstablished(const Session& session);
  // The session is gone for everybody else from here on, and destroyed when this turn ends.
  void reportClosed(Session* session, CloseCause cause);

  // False: the controller is behind; the listener is resumed when it has caught up.
  bool mayAccept(Listener* listener);
  // At the limit of open files: accepts one connection only to reset it, with the descriptor that is kept for that.
  // 0, EAGAIN when nobody waits, or another errno when the descriptor was not there.
  int turnAway(int listeningSocket);
  void listenerClosed(Listener* listener);

  // --- For the controller --------------------------------------------------------------------------------------

  // Starts it. 0 or the errno; ECANCELED: the engine has ended.
  int addListener(std::unique_ptr<Listener> listener);
  // Runs in the engine's thread, in the order of the calls, before the commands that are submitted later.
  void post(std::function<void()> work);
  // As `post`, and waits until it has run.
  void call(const std::function<void()>& work);
  Listener* listener(uint32_t id);  // within `post` and `call`
  void submit(const Command* commands, size_t count, const uint8_t* preambles);
  size_t drain(Event* events, size_t capacity);
  Outbox& outbox() { return outbox_; }
  void stop();

 private:
  struct Batch {
    std::vector<Command> commands;
    std::vector<uint8_t> preambles;
    std::vector<std::function<void()>> work;
    bool isEmpty() const { return commands.empty() && work.empty(); }
    void clear();
  };

  static void* main(void* self);
  void run();
  void onDeadline() override;
  bool hasWork() const;
  void takeBatch();
  void perform(const Command& command, const uint8_t* preamble);
  void resumeStarved();
  void endAll();
  void adopt(std::unique_ptr<Session> session, uint32_t listener, const Address& client, bool isUdp);
  void bury();

  const Options options_;
  Loop loop_;
  RelayRoom relayRoom_;
  AtomicTotals totals_;
  UdpBatch udpBatch_;
  std::unordered_map<uint64_t, std::unique_ptr<Session>> sessions_;
  std::unordered_map<uint32_t, std::unique_ptr<Listener>> listeners_;
  std::vector<std::unique_ptr<Session>> buriedSessions_;
  std::vector<std::unique_ptr<Listener>> buriedListeners_;
  std::vector<Listener*> starved_;
  Batch taken_;
  Fd spare_;
  uint64_t lastSession_ = 0;

  // ---------------------------------------------------------------------------------------------------------------

  Outbox outbox_;
  std::mutex inboxMutex_;
  Batch inbox_;
  std::atomic<bool> hasMail_{false};
  std::atomic<bool> isStopping_{false};
  bool isRunning_ = false;
  pthread_t thread_{};
};

}  // namespace kup
