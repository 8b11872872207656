// Who a datagram is from, as the key of a hash table. Clients choose their addresses and ports, so the hash is keyed
// with a secret of this process: SipHash-2-4 (Aumasson and Bernstein, 2012). Nobody can fill one bucket on purpose.
#pragma once

#include <sys/random.h>

#include <cstdint>
#include <cstring>

#include "engine.h"

namespace kup {

struct ClientKey {
  // The address in network order; the port, and for IPv6 link-local addresses the interface.
  uint64_t words[3];

  explicit ClientKey(const Address& client) : words{0, 0, 0} {
    if (client.sa.sa_family == AF_INET6) {
      std::memcpy(words, &client.v6.sin6_addr, sizeof client.v6.sin6_addr);
      words[2] = uint64_t{client.v6.sin6_scope_id} << 16 | client.v6.sin6_port;
    } else {
      words[0] = client.v4.sin_addr.s_addr;
      words[2] = client.v4.sin_port;
    }
  }

  bool operator==(const ClientKey& other) const {
    return words[0] == other.words[0] && words[1] == other.words[1] && words[2] == other.words[2];
  }
};

class ClientKeyHash {
 public:
  size_t operator()(const ClientKey& key) const {
    const Secret& secret = ownSecret();
    uint64_t v[4] = {secret.k0 ^ 0x736f6d6570736575, secret.k1 ^ 0x646f72616e646f6d, secret.k0 ^ 0x6c7967656e657261,
                     secret.k1 ^ 0x7465646279746573};
    for (const uint64_t word : key.words) absorb(v, word);
    absorb(v, uint64_t{sizeof key.words} << 56);
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
