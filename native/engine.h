// The core of the native engine: one thread that accepts, dials and moves bytes, and decides nothing. This header is
// all that crosses its border; it knows neither Node nor JavaScript. The promises are those of src/engine/engine.ts.
//
// One other thread, the controller, may call everything below; the engine's own thread calls back only `wake`.
// What the controller wants goes in as commands, what happened comes out as events, both in batches:
//
//     engine thread:  epoll -> events queued -> wake()
//     controller:     drain(events) -> decide -> submit(commands) -> engine thread is woken
#pragma once

#include <netinet/in.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kup {

// An IP address and port. `sa.sa_family` is AF_INET or AF_INET6.
union Address {
  sockaddr sa;
  sockaddr_in v4;
  sockaddr_in6 v6;

  socklen_t length() const { return sa.sa_family == AF_INET6 ? sizeof v6 : sizeof v4; }
  uint16_t port() const;
  // Textual form without zone; returns its length. `text` has room for INET6_ADDRSTRLEN.
  size_t format(char* text) const;
  // False when it is no literal of either family.
  static bool parse(const char* text, size_t length, uint16_t port, Address* out);
  bool operator==(const Address& other) const;
};

enum class Protocol : uint32_t { tcp = 0, udp = 1 };

// The order is that of the names in src/engine/native/protocol.ts.
enum class CloseCause : uint32_t {
  fin,
  clientReset,
  backendReset,
  idle,
  halfClose,
  evicted,
  refused,
  backendRefused,
  stopped,
};

enum class EventKind : uint32_t {
  opened = 1,
  dialFailed,
  established,
  closed,
  // `close` of a listener is done.
  listenerClosed,
};

// What happened. Its layout is read byte by byte by src/engine/native/protocol.ts.
struct Event {
  double session;
  double bytesIn;   // closed: from the client to the backend, without preambles
  double bytesOut;  // closed: from the backend to the client
  uint32_t kind;    // EventKind
  // How many answers the session had got outside of the batches when this happened: an event of an older epoch
  // than the controller's last such answer is about a dial that it has abandoned.
  uint32_t epoch;
  uint32_t listener;  // opened, listenerClosed
  int32_t error;      // dialFailed: errno
  uint32_t cause;     // closed: CloseCause
  uint32_t port;      // opened: of the client
  uint32_t addressLength;
  char address[INET6_ADDRSTRLEN];  // opened: of the client, as text
  uint8_t isUdp;                   // opened
  uint8_t padding;
};
static_assert(sizeof(Event) == 104, "protocol.ts reads this layout");

enum class CommandKind : uint32_t {
  refuse = 0,
  dial = 1,
  // The two causes of `reset`.
  stop = 2,
  evict = 3,
};

// What the controller wants of a session. One that is gone is passed over.
struct Command {
  double session;
  uint32_t kind;   // CommandKind
  uint32_t epoch;  // of the controller, counting this answer
  uint32_t timeoutMs;
  uint32_t preambleLength;  // so many of the bytes that come with the batch
  uint32_t port;
  uint32_t addressLength;
  char address[INET6_ADDRSTRLEN];
  char padding[2];
};
static_assert(sizeof(Command) == 80, "protocol.ts writes this layout");

struct Options {
  uint64_t tcpIdleTimeoutMs = 0;    // 0: for ever
  uint64_t halfCloseTimeoutMs = 0;  // 0: for ever
  uint64_t udpUnrepliedTimeoutMs = 30'000;
  uint64_t udpRepliedTimeoutMs = 120'000;
  // Connections that may be accepted before the controller has heard of them; the others wait in the kernel.
  uint32_t maxUnreported = 32;
  // Pipes of the relay, two descriptors each.
  uint32_t maxPipes = 32;
};

struct SessionBytes {
  double session;
  double bytesIn;
  double bytesOut;
};

struct Totals {
  uint64_t datagramsIn = 0;
  uint64_t datagramsOut = 0;
  uint64_t datagramsDropped = 0;
  uint64_t flowControlPauses = 0;
  uint64_t listenerErrors = 0;
};

// Called by the engine's thread when events wait and the controller has not been told since its last `drain`.
// Must not block and must not call the engine.
using Wake = void (*)(void* context);

class EngineThread;

class Engine {
 public:
  // Null when the thread or its descriptors cannot be had; `*error` is the errno.
  static std::unique_ptr<Engine> start(const Options& options, Wake wake, void* context, int* error);
  // Ends the thread, and with it every descriptor. Events that were not drained are lost.
  ~Engine();

  // 0, or the errno with nothing left open. TCP: the one address. Accepting when it returns. UDP: one socket at
  // most, which has the port of every local address when there are several.
  int open(uint32_t listener, Protocol protocol, const std::vector<Address>& addresses);
  // UDP: the local addresses it serves from now on; sessions on others end. 0, or an errno with all as it was.
  int setAddresses(uint32_t listener, const std::vector<Address>& addresses);
  // Accepts what the kernel has queued, then closes; `listenerClosed` follows. UDP sessions end. False: unknown.
  bool close(uint32_t listener);
  // In order. `preambles`: the bytes of all commands' preambles, one after the other.
  void submit(const Command* commands, size_t count, const uint8_t* preambles);
  // Moves out up to `capacity` events, oldest first. Call it until it returns 0 after each wake.
  size_t drain(Event* events, size_t capacity);
  // UDP: milliseconds of CLOCK_MONOTONIC at which the session last carried a datagram; false when there is none.
  bool lastUsed(double session, double* atMs) const;
  // Of every session that is open or whose `closed` was not drained yet.
  void sessionBytes(std::vector<SessionBytes>* out) const;
  Totals totals() const;
  // Closes all listeners and sessions, whose events can be drained when it returns. Idempotent.
  void stop();

 private:
  explicit Engine(std::unique_ptr<EngineThread> thread);
  std::unique_ptr<EngineThread> thread_;
};

// CLOCK_MONOTONIC in milliseconds.
double nowMs();

}  // namespace kup
