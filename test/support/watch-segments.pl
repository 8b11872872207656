#!/usr/bin/perl
# Prints what arrives of one TCP/IPv4 connection, a segment a line, until it is killed: "SEQ ACK FLAGS PAYLOAD_BYTES".
# The first line is "ready". A raw socket gets a copy of every segment that is delivered to this host (raw(7)), so
# nothing but CAP_NET_RAW and perl-base is needed.
#
#   watch-segments.pl SRC SPORT DPORT
use strict;
use warnings;
use Socket qw(AF_INET SOCK_RAW inet_ntoa);

use constant { IPPROTO_TCP => 6 };

die "usage: watch-segments.pl SRC SPORT DPORT\n" if @ARGV != 3;
my ($src, $sport, $dport) = @ARGV;
socket(my $socket, AF_INET, SOCK_RAW, IPPROTO_TCP) or die "socket: $!\n";
$| = 1;
print "ready\n";

while (defined recv($socket, my $packet, 65_535, 0)) {
  my ($version_and_length, $total, $address) = unpack 'C x n x8 a4', $packet;
  my $header = ($version_and_length & 0x0f) * 4;
  my ($from, $to, $seq, $ack, $offset, $bits) = unpack 'nnNNCC', substr($packet, $header);
  next if inet_ntoa($address) ne $src || $from != $sport || $to != $dport;
  my @letters = qw(F S R P A U);
  my $flags = join '', map { $bits & (1 << $_) ? $letters[$_] : () } 0 .. $#letters;
  printf "%u %u %s %d\n", $seq, $ack, $flags, $total - $header - ($offset >> 4) * 4;
}
die "recv: $!\n";
