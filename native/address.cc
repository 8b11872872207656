#include <arpa/inet.h>

#include <cstring>

#include "engine.h"

namespace kup {

uint16_t Address::port() const { return ntohs(sa.sa_family == AF_INET6 ? v6.sin6_port : v4.sin_port); }

size_t Address::format(char* text) const {
  const void* bytes = sa.sa_family == AF_INET6 ? static_cast<const void*>(&v6.sin6_addr) : &v4.sin_addr;
  if (::inet_ntop(sa.sa_family, bytes, text, INET6_ADDRSTRLEN) == nullptr) return 0;
  return std::strlen(text);
}

bool Address::parse(const char* text, size_t length, uint16_t port, Address* out) {
  char terminated[INET6_ADDRSTRLEN];
  if (length >= sizeof terminated) return false;
  std::memcpy(terminated, text, length);
  terminated[length] = '\0';
  *out = Address{};
  if (::inet_pton(AF_INET, terminated, &out->v4.sin_addr) == 1) {
    out->v4.sin_family = AF_INET;
    out->v4.sin_port = htons(port);
    return true;
  }
  if (::inet_pton(AF_INET6, terminated, &out->v6.sin6_addr) == 1) {
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons(port);
    return true;
  }
  return false;
}

bool Address::operator==(const Address& other) const {
  if (sa.sa_family != other.sa.sa_family) return false;
  if (sa.sa_family == AF_INET6) {
    return v6.sin6_port == other.v6.sin6_port && v6.sin6_scope_id == other.v6.sin6_scope_id &&
           std::memcmp(&v6.sin6_addr, &other.v6.sin6_addr, sizeof v6.sin6_addr) == 0;
  }
  return v4.sin_port == other.v4.sin_port && v4.sin_addr.s_addr == other.v4.sin_addr.s_addr;
}

}  // namespace kup
