#!/usr/bin/perl
# Passes netlink messages between nf_tables and a pipe, as they are: those that arrive on standard input are sent to
# the kernel, its answers and the trace of every marked packet (`-j TRACE`, `meta nftrace set 1`) go to standard
# output. Each is preceded by its length in four octets, big endian; the first one out is empty and says "ready". Ends
# with its input. Needs CAP_NET_ADMIN and no module beyond perl-base.
use strict;
use warnings;
use Errno qw(EAGAIN);
use Socket qw(SOCK_RAW SOL_SOCKET MSG_DONTWAIT);

# linux/netlink.h, linux/netfilter/nfnetlink.h, asm-generic/socket.h
use constant { AF_NETLINK => 16, NETLINK_NETFILTER => 12, SOL_NETLINK => 270, NETLINK_ADD_MEMBERSHIP => 1 };
use constant { NFNLGRP_NFTRACE => 9, SO_RCVBUFFORCE => 33 };
# A burst of packets is traced faster than anybody reads; what does not fit is lost, and recv fails (ENOBUFS).
use constant { RECEIVE_BUFFER => 32 << 20, MAX_MESSAGE => 1 << 17 };

socket(my $netlink, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER) or die "socket: $!\n";
bind($netlink, pack('S x2 L L', AF_NETLINK, 0, 0)) or die "bind: $!\n";
setsockopt($netlink, SOL_SOCKET, SO_RCVBUFFORCE, pack('i', RECEIVE_BUFFER)) or die "SO_RCVBUFFORCE: $!\n";
setsockopt($netlink, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, pack('i', NFNLGRP_NFTRACE)) or die "join: $!\n";
my $kernel = pack('S x2 L L', AF_NETLINK, 0, 0);

sub put {
  my ($octets) = @_;
  while (length $octets) {
    my $written = syswrite(STDOUT, $octets) // die "write: $!\n";
    substr($octets, 0, $written, '');
  }
}

binmode $_ for *STDIN, *STDOUT;
put(pack 'N', 0);
my $input = '';
for (;;) {
  my $readable = '';
  vec($readable, fileno $_, 1) = 1 for *STDIN, $netlink;
  next if select($readable, undef, undef, undef) < 0;
  if (vec $readable, fileno $netlink, 1) {
    my $output = '';
    while (defined recv($netlink, my $message, MAX_MESSAGE, MSG_DONTWAIT)) {
      $output .= pack 'N/a*', $message;
    }
    $! == EAGAIN or die "recv: $!\n";
    put($output);
  }
  if (vec $readable, fileno *STDIN, 1) {
    sysread(STDIN, $input, 65_536, length $input) or exit 0;
    while (length $input >= 4 && length $input >= 4 + unpack 'N', $input) {
      my ($message) = unpack 'N/a', $input;
      substr($input, 0, 4 + length $message, '');
      defined send($netlink, $message, 0, $kernel) or die "send: $!\n";
    }
  }
}
