#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <cstring>

namespace kup::test {

Address loopback(int family, uint16_t port) {
  const char* literal = family == AF_INET6 ? "::1" : "127.0.0.1";
  Address address;
  EXPECT(Address::parse(literal, std::strlen(literal), port, &address), "%s", literal);
  return address;
}

Address addressOf(int socket) {
  Address address{};
  socklen_t length = sizeof address;
  EXPECT(::getsockname(socket, &address.sa, &length) == 0, "getsockname: %s", std::strerror(errno));
  return address;
}

namespace {

void setBuffers(int socket, int bytes) {
  if (bytes == 0) return;
  setOption(socket, SOL_SOCKET, SO_SNDBUF, bytes);
  setOption(socket, SOL_SOCKET, SO_RCVBUF, bytes);
}

}  // namespace

Fd bindAnywhere(int family) {
  Fd socket(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  EXPECT(socket.isOpen(), "socket: %s", std::strerror(errno));
  const Address any = loopback(family);
  EXPECT(::bind(socket.get(), &any.sa, any.length()) == 0, "bind: %s", std::strerror(errno));
  return socket;
}

Fd listenOn(int family, int backlog, int bufferBytes) {
  Fd socket = bindAnywhere(family);
  setBuffers(socket.get(), bufferBytes);
  EXPECT(::listen(socket.get(), backlog) == 0, "listen: %s", std::strerror(errno));
  return socket;
}

void startConnect(int socket, const Address& to, int bufferBytes) {
  setBuffers(socket, bufferBytes);
  (void)::connect(socket, &to.sa, to.length());
}

Fd connectTo(const Address& to, int bufferBytes) {
  Fd socket = bindAnywhere(to.sa.sa_family);
  startConnect(socket.get(), to, bufferBytes);
  return socket;
}

int openDescriptors() {
  DIR* directory = ::opendir("/proc/self/fd");
  EXPECT(directory != nullptr, "/proc/self/fd: %s", std::strerror(errno));
  int count = 0;
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count - 3;  // ".", ".." and the directory itself
}

BlackHole::BlackHole(int family) : listener_(listenOn(family, 0)) {
  for (Fd& fill : fill_) fill = connectTo(address());
}

Alarm::Alarm() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  EXPECT(event_.isOpen(), "eventfd: %s", std::strerror(errno));
}

void Alarm::ring(void* self) {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(static_cast<Alarm*>(self)->event_.get(), &one, sizeof one);
}

void Alarm::wait(int timeoutMs) {
  pollfd poll{event_.get(), POLLIN, 0};
  if (::poll(&poll, 1, timeoutMs) <= 0) return;
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(event_.get(), &count, sizeof count);
}

Address openListener(Engine& engine, Random& random, uint32_t listener, int family) {
  for (int attempt = 0; attempt < 1000; ++attempt) {
    // Below the ephemeral ports.
    const Address at = loopback(family, static_cast<uint16_t>(random.between(10'000, 30'000)));
    const int error = engine.open(listener, Protocol::tcp, {at});
    if (error == 0) return at;
    EXPECT(error == EADDRINUSE, "open: %s", std::strerror(error));
  }
  FAIL("no free port");
}

}  // namespace kup::test
