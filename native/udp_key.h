// Which flow a datagram belongs to, as the key of a hash table. Clients choose their addresses and ports, so
// the hash is keyed with a secret of this process: SipHash-2-4 (Aumasson and Bernstein, 2012). Nobody can
// fill one bucket on purpose.
#pragma once

#include <sys/random.h>

#include <cstdint>
#include <cstring>

#include "engine.h"

namespace kup {

// Who sends, and to which local address. The port of `local` means nothing: all are on the listener's.
struct UdpFlow {
  Address client;
  Address local;
};

// Whatever the port, and the interface of a link-local address.
inline bool isSameHost(const Address& one, const Address& other) {
  if (one.sa.sa_family != other.sa.sa_family) return false;
  return one.sa.sa_family == AF_INET6 ? IN6_ARE_ADDR_EQUAL(&one.v6.sin6_addr, &other.v6.sin6_addr)
                                      : one.v4.sin_addr.s_addr == other.v4.sin_addr.s_addr;
}

struct FlowKey {
  // IPv4: both addresses, the client's port. IPv6: both addresses in two words each, the client's port and,
  // where an address is link-local, the interface, which is the same for both.
  uint64_t words[5];
  unsigned count;

  explicit FlowKey(const UdpFlow& flow) : words{0, 0, 0, 0, 0} {
    const auto& [client, local] = flow;
    if (client.sa.sa_family == AF_INET6) {
      std::memcpy(words, &client.v6.sin6_addr, sizeof client.v6.sin6_addr);
      std::memcpy(words + 2, &local.v6.sin6_addr, sizeof local.v6.sin6_addr);
      const uint64_t zone = local.v6.sin6_scope_id != 0 ? local.v6.sin6_scope_id : client.v6.sin6_scope_id;
      words[4] = zone << 16 | client.v6.sin6_port;
      count = 5;
    } else {
      words[0] = uint64_t{client.v4.sin_addr.s_addr} << 32 | local.v4.sin_addr.s_addr;
      words[1] = client.v4.sin_port;
      count = 2;
    }
  }

  bool operator==(const FlowKey& other) const {
    return std::memcmp(words, other.words, sizeof words) == 0;
  }
};

class FlowKeyHash {
 public:
  size_t operator()(const FlowKey& key) const {
    const Secret& secret = ownSecret();
    uint64_t v[4] = {secret.k0 ^ 0x736f6d6570736575, secret.k1 ^ 0x646f72616e646f6d,
                     secret.k0 ^ 0x6c7967656e657261, secret.k1 ^ 0x7465646279746573};
    for (unsigned at = 0; at < key.count; ++at) absorb(v, key.words[at]);
    absorb(v, uint64_t{key.count * sizeof key.words[0]} << 56);
    v[2] ^= 0xff;
    for (int count = 0; count < 4; ++count) mix(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
  }

 private:
  struct Secret {
    uint64_t k0 = 0;
    uint64_t k1 = 0;
    // Does not fail once the kernel has booted; a table with a known key would still be a table.
    Secret() {
      if (::getrandom(this, sizeof *this, 0) != static_cast<ssize_t>(sizeof *this)) k0 = k1 = 0;
    }
  };

  static const Secret& ownSecret() {
    static const Secret secret;
    return secret;
  }

  static uint64_t rotate(uint64_t word, int by) { return word << by | word >> (64 - by); }

  static void absorb(uint64_t* v, uint64_t word) {
    v[3] ^= word;
    mix(v);
    mix(v);
    v[0] ^= word;
  }

  static void mix(uint64_t* v) {
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
  }
};

}  // namespace kup
