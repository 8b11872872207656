#!/usr/bin/perl
# Sends one TCP segment over IPv4 through a raw socket, so that a test can put on the wire what no TCP stack would:
# a segment out of window, of a connection that does not exist, or from another host's address. Needs CAP_NET_RAW
# and no module beyond perl-base.
#
#   forge-segment.pl SRC SPORT DST DPORT SEQ ACK FLAGS [PAYLOAD_BYTES]      FLAGS: letters of F S R P A U
use strict;
use warnings;
use Socket qw(AF_INET SOCK_RAW inet_aton pack_sockaddr_in);

use constant { IPPROTO_RAW => 255, IPPROTO_TCP => 6, WINDOW => 65_535, TTL => 64 };

die "usage: forge-segment.pl SRC SPORT DST DPORT SEQ ACK FLAGS [PAYLOAD_BYTES]\n" if @ARGV < 7 || @ARGV > 8;
my ($src, $sport, $dst, $dport, $seq, $ack, $letters, $payload_bytes) = (@ARGV, 0);

my %bit_by_letter = (F => 1, S => 2, R => 4, P => 8, A => 16, U => 32);
my $flags = 0;
for my $letter (split //, $letters) {
  $flags |= $bit_by_letter{$letter} // die "not a TCP flag: $letter\n";
}
for my $address ($src, $dst) {
  die "not an IPv4 address: $address\n" unless $address =~ /\A\d+(?:\.\d+){3}\z/ && inet_aton($address);
}
for my $limit ([$sport, 65_535], [$dport, 65_535], [$seq, 0xffff_ffff], [$ack, 0xffff_ffff], [$payload_bytes, 1_460]) {
  my ($number, $max) = @$limit;
  die "not a number from 0 to $max: $number\n" unless $number =~ /\A\d+\z/ && $number <= $max;
}

# RFC 1071: the complement of the ones' complement sum of all 16-bit words.
sub checksum {
  my ($octets) = @_;
  $octets .= "\0" if length($octets) % 2;
  my $sum = 0;
  $sum += $_ for unpack 'n*', $octets;
  $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
  return ~$sum & 0xffff;
}

my $payload = 'x' x $payload_bytes;
my $build_tcp = sub { pack('nnNNCCnnn', $sport, $dport, $seq, $ack, 5 << 4, $flags, WINDOW, $_[0], 0) . $payload };
my $without_checksum = $build_tcp->(0);
my $pseudo_header = inet_aton($src) . inet_aton($dst) . pack('CCn', 0, IPPROTO_TCP, length $without_checksum);
my $tcp = $build_tcp->(checksum($pseudo_header . $without_checksum));

# IPPROTO_RAW implies IP_HDRINCL; the kernel fills in the identification and the header's checksum (raw(7)).
my $ip = pack('CCnnnCCn', 0x45, 0, 20 + length $tcp, 0, 0, TTL, IPPROTO_TCP, 0) . inet_aton($src) . inet_aton($dst);
socket(my $socket, AF_INET, SOCK_RAW, IPPROTO_RAW) or die "socket: $!\n";
defined send($socket, $ip . $tcp, 0, pack_sockaddr_in(0, inet_aton($dst))) or die "send: $!\n";
