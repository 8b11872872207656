#!/usr/bin/perl
# Sends IP packets of either family through raw sockets, headers and all, so that a test chooses every address and port
# and no socket is there to send anything again. They come on standard input, each preceded by its length in four
# octets, big endian. One empty message on standard output, four zero octets, says "ready". Ends with its input. Needs
# CAP_NET_RAW and no module beyond perl-base.
use strict;
use warnings;
use Errno qw(EPERM);
use Socket qw(AF_INET AF_INET6 SOCK_RAW pack_sockaddr_in pack_sockaddr_in6);

use constant { IPPROTO_RAW => 255 };    # Implies that the header is ours (raw(7); net/ipv6/raw.c).

my %socket_by_version;
for ([4, AF_INET], [6, AF_INET6]) {
  my ($version, $family) = @$_;
  socket($socket_by_version{$version}, $family, SOCK_RAW, IPPROTO_RAW) or die "socket: $!\n";
}
$| = 1;
binmode $_ for *STDIN, *STDOUT;
print pack 'N', 0;

my $input = '';
while (sysread STDIN, $input, 65_536, length $input) {
  while (length $input >= 4 && length $input >= 4 + unpack 'N', $input) {
    my ($packet) = unpack 'N/a', $input;
    substr($input, 0, 4 + length $packet, '');
    my $version = ord($packet) >> 4;
    my $address = $version == 4 ? substr $packet, 16, 4 : substr $packet, 24, 16;
    my $to = $version == 4 ? pack_sockaddr_in(0, $address) : pack_sockaddr_in6(0, $address);
    # A rule in OUTPUT that refuses the packet is seen as EPERM: for a test an outcome like any other.
    defined send($socket_by_version{$version}, $packet, 0, $to) or $! == EPERM or die "send: $!\n";
  }
}
