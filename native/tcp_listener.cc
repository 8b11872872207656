#include "tcp_listener.h"

#include <netinet/tcp.h>

#include "tcp_session.h"

namespace kup {

namespace {

// A burst waits in the kernel, which cuts this to net.core.somaxconn.
constexpr int kBacklog = 4096;
// Connections of one listener in one turn; the others have their share too.
constexpr int kAcceptsPerTurn = 64;
// When no descriptor was to be had, not even the one that is kept for that.
constexpr uint64_t kRetryMs = 100;

}  // namespace

int openTcpListener(EngineThread* thread, uint32_t id, const Address& at, std::unique_ptr<Listener>* out) {
  Fd socket(::socket(at.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.isOpen()) return errno;
  const int fd = socket.get();
  int error = setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (error == 0 && at.sa.sa_family == AF_INET6) error = setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  // What is accepted inherits it.
  if (error == 0) error = setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (error != 0) return error;
  if (::bind(fd, &at.sa, at.length()) != 0) return errno;
  if (::listen(fd, kBacklog) != 0) return errno;
  *out = std::make_unique<TcpListener>(thread, id, std::move(socket));
  return 0;
}

TcpListener::TcpListener(EngineThread* thread, uint32_t id, Fd socket)
    : Listener(id), thread_(thread), socket_(std::move(socket)) {}

TcpListener::~TcpListener() { thread_->loop().cancel(this); }

int TcpListener::start() { return watch_.start(&thread_->loop(), socket_.get(), EPOLLIN | EPOLLET, this, 0); }

void TcpListener::close() {
  if (isClosing_) return;
  isClosing_ = true;
  closingRest_ = kBacklog;
  accept();
}

void TcpListener::resume() { accept(); }

void TcpListener::onReady(uint32_t, uint32_t) { accept(); }

void TcpListener::run() { accept(); }

void TcpListener::onDeadline() { accept(); }

void TcpListener::accept() {
  if (!socket_.isOpen()) return;
  for (int count = 0; count < kAcceptsPerTurn; ++count) {
    // It comes again by `resume`.
    if (!thread_->mayAccept(this)) return;
    const bool isEmpty = !acceptOne();
    if (isClosing_ && (isEmpty || closingRest_-- == 0)) {
      watch_.forget();
      socket_.close();
      thread_->listenerClosed(this);
      return;
    }
    if (isEmpty) return;
  }
  thread_->loop().defer(this);
}

// False: nobody is waiting, or a timer will look again.
bool TcpListener::acceptOne() {
  Address client;
  socklen_t length = sizeof client;
  Fd socket(::accept4(socket_.get(), &client.sa, &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!socket.isOpen()) return acceptFailed(errno);
  TcpSession::accept(thread_, std::move(socket), id(), client);
  return true;
}

bool TcpListener::acceptFailed(int error) {
  switch (error) {
    case EAGAIN:
      return false;
    case EMFILE:
    case ENFILE:
      // Whoever waits is told at once that it is in vain: a reset lets him try elsewhere, silence does not. The kernel
      // takes a descriptor before it looks whether anybody waits: most often nobody does.
      error = thread_->turnAway(socket_.get());
      if (error == EAGAIN) return false;
      bump(thread_->totals().listenerErrors);
      if (error == 0) return true;
      break;
    // The connection was gone before it was accepted, or a firewall forbids it: there may be others (accept(2)).
    case ECONNABORTED:
    case EINTR:
    case EPERM:
    case EPROTO:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENONET:
    case ETIMEDOUT:
      return true;
    default:
      bump(thread_->totals().listenerErrors);
      break;
  }
  thread_->loop().wheel().arm(this, thread_->loop().now() + kRetryMs);
  return false;
}

}  // namespace kup
