// The addon: the core (engine.h) as functions for src/engine/native/addon.ts, which says what each takes.
// Every argument is believed here; what Node-API itself refuses is our own fault and ends the process.
//
// Nothing is global, so each thread that loads the addon has engines of its own. An engine belongs to a
// `Binding`, and that to the external value that JavaScript holds. It ends by `release`, or with the Node
// environment by a cleanup hook (a worker that is terminated), whichever comes first. `process.exit` calls no
// hook: there the kernel ends the thread.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <iterator>
#include <memory>
#include <vector>

#include "binding_values.h"
#include "engine.h"

namespace {

using namespace kup;

// To be counted up with every change of what crosses the border: addon.ts refuses a build that is older.
constexpr uint32_t kProtocol = 1;

// Read and written by src/engine/native/protocol.ts.
static_assert(offsetof(Event, bytesIn) == 8 && offsetof(Event, bytesOut) == 16);
static_assert(offsetof(Event, kind) == 24 && offsetof(Event, epoch) == 28);
static_assert(offsetof(Event, listener) == 32 && offsetof(Event, error) == 36);
static_assert(offsetof(Event, cause) == 40 && offsetof(Event, port) == 44);
static_assert(offsetof(Event, addressLength) == 48 && offsetof(Event, address) == 52);
static_assert(offsetof(Command, kind) == 8 && offsetof(Command, epoch) == 12);
static_assert(offsetof(Command, timeoutMs) == 16 && offsetof(Command, preambleLength) == 20);
static_assert(offsetof(Command, port) == 24 && offsetof(Command, addressLength) == 28);
static_assert(offsetof(Command, address) == 32);

// How it comes to call JavaScript, and the engine that wants it called.
struct Binding {
  napi_threadsafe_function wake = nullptr;
  std::unique_ptr<Engine> engine;
};

// The first argument of all functions but two is the handle.
template <size_t Count>
class Call : public Arguments<Count> {
 public:
  using Arguments<Count>::Arguments;

  Binding* binding() const { return static_cast<Binding*>(this->external(0)); }
  Engine* engine() const {
    assert(binding()->engine != nullptr);
    return binding()->engine.get();
  }
};

// --- From the engine's thread into JavaScript --------------------------------------------------------------

void wakeJavaScript(void* context) {
  auto* binding = static_cast<Binding*>(context);
  const napi_status status = napi_call_threadsafe_function(binding->wake, nullptr, napi_tsfn_nonblocking);
  assert(status == napi_ok);
  static_cast<void>(status);
}

// In the thread of JavaScript; `env` is null when the environment is going and nobody can be called any more.
void callJavaScript(napi_env env, napi_value callback, void* /*context*/, void* /*data*/) {
  if (env == nullptr) return;
  const napi_status status = napi_call_function(env, undefined(env), callback, 0, nullptr, nullptr);
  if (status != napi_pending_exception) return;
  // Node-API would only warn of it. It is a fault of ours like any other exception that nobody catches.
  napi_value fault = nullptr;
  if (napi_get_and_clear_last_exception(env, &fault) == napi_ok) napi_fatal_exception(env, fault);
}

// --- The life of a binding ---------------------------------------------------------------------------------

// The thread first: it uses what is released after. Idempotent.
void end(Binding* binding) {
  binding->engine.reset();
  if (binding->wake != nullptr) napi_release_threadsafe_function(binding->wake, napi_tsfn_abort);
  binding->wake = nullptr;
}

void onEnvironmentEnd(void* binding) { end(static_cast<Binding*>(binding)); }

void onGarbage(napi_env env, void* data, void* /*hint*/) {
  auto* binding = static_cast<Binding*>(data);
  napi_remove_env_cleanup_hook(env, onEnvironmentEnd, binding);
  end(binding);
  delete binding;
}

Options optionsOf(napi_env env, napi_value object) {
  const auto ms = [env, object](const char* name) {
    return static_cast<uint64_t>(std::ceil(property(env, object, name)));
  };
  Options options;
  options.tcpIdleTimeoutMs = ms("tcpIdleTimeoutMs");
  options.halfCloseTimeoutMs = ms("halfCloseTimeoutMs");
  options.udpUnrepliedTimeoutMs = ms("udpUnrepliedTimeoutMs");
  options.udpRepliedTimeoutMs = ms("udpRepliedTimeoutMs");
  options.maxUnreported = static_cast<uint32_t>(property(env, object, "maxUnreported"));
  options.maxPipes = static_cast<uint32_t>(property(env, object, "maxPipes"));
  return options;
}

// (options, wake) -> handle, or the errno
napi_value start(napi_env env, napi_callback_info info) {
  const Arguments<2> arguments(env, info);
  auto* binding = new Binding;
  napi_value name = nullptr;
  expect(napi_create_string_latin1(env, "kup_engine", NAPI_AUTO_LENGTH, &name));
  expect(napi_create_threadsafe_function(env, arguments[1], nullptr, name, 0, 1, nullptr, nullptr, nullptr,
                                         callJavaScript, &binding->wake));
  expect(napi_unref_threadsafe_function(env, binding->wake));
  int error = 0;
  binding->engine = Engine::start(optionsOf(env, arguments[0]), wakeJavaScript, binding, &error);
  if (binding->engine == nullptr) {
    end(binding);
    delete binding;
    return numberOf(env, error);
  }
  // After the function above, which has a hook of its own: the last to come is the first to be called.
  expect(napi_add_env_cleanup_hook(env, onEnvironmentEnd, binding));
  napi_value handle = nullptr;
  expect(napi_create_external(env, binding, onGarbage, nullptr, &handle));
  return handle;
}

napi_value stop(napi_env env, napi_callback_info info) {
  Call<1>(env, info).engine()->stop();
  return undefined(env);
}

napi_value release(napi_env env, napi_callback_info info) {
  end(Call<1>(env, info).binding());
  return undefined(env);
}

// (handle, keepsAlive)
napi_value setKeepsAlive(napi_env env, napi_callback_info info) {
  const Call<2> arguments(env, info);
  const napi_threadsafe_function wake = arguments.binding()->wake;
  expect(arguments.boolean(1) ? napi_ref_threadsafe_function(env, wake)
                              : napi_unref_threadsafe_function(env, wake));
  return undefined(env);
}

// --- Listeners ---------------------------------------------------------------------------------------------

// Literals with commas between them, or nothing. False when one is none.
bool parseAddresses(const std::string& text, uint16_t port, std::vector<Address>* addresses) {
  for (size_t from = 0; from < text.size();) {
    const size_t comma = std::min(text.find(',', from), text.size());
    if (!Address::parse(text.data() + from, comma - from, port, &addresses->emplace_back())) return false;
    from = comma + 1;
  }
  return true;
}

// (handle, listener, protocol, port, addresses) -> errno
napi_value open(napi_env env, napi_callback_info info) {
  const Call<5> arguments(env, info);
  std::vector<Address> addresses;
  if (!parseAddresses(arguments.text(4), static_cast<uint16_t>(arguments.uint32(3)), &addresses)) {
    return numberOf(env, EINVAL);
  }
  const auto protocol = static_cast<Protocol>(arguments.uint32(2));
  return numberOf(env, arguments.engine()->open(arguments.uint32(1), protocol, addresses));
}

// (handle, listener, port, addresses) -> errno
napi_value setAddresses(napi_env env, napi_callback_info info) {
  const Call<4> arguments(env, info);
  std::vector<Address> addresses;
  if (!parseAddresses(arguments.text(3), static_cast<uint16_t>(arguments.uint32(2)), &addresses)) {
    return numberOf(env, EINVAL);
  }
  return numberOf(env, arguments.engine()->setAddresses(arguments.uint32(1), addresses));
}

// (handle, listener) -> was it there?
napi_value close(napi_env env, napi_callback_info info) {
  const Call<2> arguments(env, info);
  return booleanOf(env, arguments.engine()->close(arguments.uint32(1)));
}

// --- Sessions ----------------------------------------------------------------------------------------------

// (handle, commands, count, preambles)
napi_value submit(napi_env env, napi_callback_info info) {
  const Call<4> arguments(env, info);
  size_t capacity = 0;
  size_t length = 0;
  const auto* commands = arguments.items<Command>(1, &capacity);
  const uint8_t* preambles = arguments.bytes(3, &length);
  const size_t count = arguments.uint32(2);
  assert(count <= capacity);
  arguments.engine()->submit(commands, count, preambles);
  return undefined(env);
}

// (handle, events) -> count
napi_value drain(napi_env env, napi_callback_info info) {
  const Call<2> arguments(env, info);
  size_t capacity = 0;
  auto* events = arguments.items<Event>(1, &capacity);
  return numberOf(env, static_cast<double>(arguments.engine()->drain(events, capacity)));
}

// (handle, session) -> milliseconds of now(), or undefined
napi_value lastUsed(napi_env env, napi_callback_info info) {
  const Call<2> arguments(env, info);
  double atMs = 0;
  return arguments.engine()->lastUsed(arguments.number(1), &atMs) ? numberOf(env, atMs) : undefined(env);
}

// --- Figures -----------------------------------------------------------------------------------------------

// (handle) -> session, bytesIn, bytesOut of each
napi_value sessionBytes(napi_env env, napi_callback_info info) {
  std::vector<SessionBytes> sessions;
  Call<1>(env, info).engine()->sessionBytes(&sessions);
  static_assert(sizeof(SessionBytes) == 3 * sizeof(double));
  double* items = nullptr;
  const napi_value result = numbers(env, sessions.size() * 3, &items);
  if (!sessions.empty()) std::memcpy(items, sessions.data(), sessions.size() * sizeof(SessionBytes));
  return result;
}

napi_value totals(napi_env env, napi_callback_info info) {
  const Totals totals = Call<1>(env, info).engine()->totals();
  const uint64_t counts[] = {totals.datagramsIn, totals.datagramsOut, totals.datagramsDropped,
                             totals.flowControlPauses, totals.listenerErrors};
  double* items = nullptr;
  const napi_value result = numbers(env, std::size(counts), &items);
  for (const uint64_t count : counts) *items++ = static_cast<double>(count);
  return result;
}

napi_value now(napi_env env, napi_callback_info /*info*/) { return numberOf(env, nowMs()); }

napi_property_descriptor method(const char* name, napi_callback callback) {
  return {name, nullptr, callback, nullptr, nullptr, nullptr, napi_enumerable, nullptr};
}

}  // namespace

NAPI_MODULE_INIT() {
  const napi_property_descriptor properties[] = {
      {"protocol", nullptr, nullptr, nullptr, nullptr, numberOf(env, kProtocol), napi_enumerable, nullptr},
      method("start", start),
      method("stop", stop),
      method("release", release),
      method("setKeepsAlive", setKeepsAlive),
      method("open", open),
      method("setAddresses", setAddresses),
      method("close", close),
      method("submit", submit),
      method("drain", drain),
      method("lastUsed", lastUsed),
      method("sessionBytes", sessionBytes),
      method("totals", totals),
      method("now", now),
  };
  expect(napi_define_properties(env, exports, std::size(properties), properties));
  return exports;
}
