#include "engine.h"

#include "tcp_listener.h"
#include "thread.h"
#include "udp_listener.h"

namespace kup {

Engine::Engine(std::unique_ptr<EngineThread> thread) : thread_(std::move(thread)) {}

Engine::~Engine() = default;

std::unique_ptr<Engine> Engine::start(const Options& options, Wake wake, void* context, int* error) {
  auto thread = std::make_unique<EngineThread>(options, wake, context);
  *error = thread->start();
  if (*error != 0) return nullptr;
  return std::unique_ptr<Engine>(new Engine(std::move(thread)));
}

int Engine::open(uint32_t listener, Protocol protocol, const std::vector<Address>& addresses) {
  if (addresses.empty() && protocol == Protocol::tcp) return EINVAL;
  std::unique_ptr<Listener> opened;
  const int error = protocol == Protocol::tcp
                        ? openTcpListener(thread_.get(), listener, addresses.front(), &opened)
                        : openUdpListener(thread_.get(), listener, addresses, &opened);
  return error != 0 ? error : thread_->addListener(std::move(opened));
}

int Engine::setAddresses(uint32_t listener, const std::vector<Address>& addresses) {
  int error = 0;
  thread_->call([&] {
    Listener* known = thread_->listener(listener);
    if (known != nullptr) error = known->setAddresses(addresses);
  });
  return error;
}

bool Engine::close(uint32_t listener) {
  bool isKnown = false;
  thread_->call([&] {
    Listener* closing = thread_->listener(listener);
    isKnown = closing != nullptr;
    if (isKnown) closing->close();
  });
  return isKnown;
}

void Engine::submit(const Command* commands, size_t count, const uint8_t* preambles) {
  thread_->submit(commands, count, preambles);
}

size_t Engine::drain(Event* events, size_t capacity) { return thread_->drain(events, capacity); }

bool Engine::lastUsed(double session, double* atMs) const { return thread_->outbox().lastUsed(session, atMs); }

void Engine::sessionBytes(std::vector<SessionBytes>* out) const { thread_->outbox().sessionBytes(out); }

Totals Engine::totals() const {
  const AtomicTotals& totals = thread_->totals();
  Totals copy;
  copy.datagramsIn = totals.datagramsIn.load(std::memory_order_relaxed);
  copy.datagramsOut = totals.datagramsOut.load(std::memory_order_relaxed);
  copy.datagramsDropped = totals.datagramsDropped.load(std::memory_order_relaxed);
  copy.flowControlPauses = thread_->relayRoom().pauses.load(std::memory_order_relaxed);
  copy.listenerErrors = totals.listenerErrors.load(std::memory_order_relaxed);
  return copy;
}

void Engine::stop() { thread_->stop(); }

}  // namespace kup
