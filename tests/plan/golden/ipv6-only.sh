#!/bin/sh
# ipv6-only: 4 nodes, 3 links
# Run as root; to take it away again:
#   for n in client r1 r2 server; do ip netns del "$n"; done
set -e

# Nodes: a network namespace each, loopback up
ip netns add client
ip -n client link set lo up
ip netns add r1
ip -n r1 link set lo up
ip netns add r2
ip -n r2 link set lo up
ip netns add server
ip -n server link set lo up

# Kernel settings
ip netns exec client sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec client sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec client sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec client sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec client sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec r1 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec r1 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec r1 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec r1 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec r1 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec r1 sysctl -qw net.ipv4.ip_forward=1
ip netns exec r1 sysctl -qw net.ipv6.conf.all.forwarding=1
ip netns exec r2 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec r2 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec r2 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec r2 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec r2 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec r2 sysctl -qw net.ipv4.ip_forward=1
ip netns exec r2 sysctl -qw net.ipv6.conf.all.forwarding=1
ip netns exec server sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec server sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec server sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec server sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec server sysctl -qw net.ipv6.conf.default.router_solicitations=0

# Links: veth pairs, both ends born in their nodes
ip link add name eth0 address 02:90:18:f9:e6:31 mtu 1500 netns client type veth peer name eth0 address 02:0f:1d:ba:d0:ee mtu 1500 netns r1
ip link add name eth1 address 02:63:c3:70:50:ec mtu 1500 netns r1 type veth peer name eth0 address 02:31:9b:98:f8:11 mtu 1500 netns r2
ip link add name eth1 address 02:cb:6b:61:28:09 mtu 1500 netns r2 type veth peer name eth0 address 02:fd:09:48:70:20 mtu 1500 netns server

# Offloads off: a captured packet is a packet on the wire
ip netns exec client ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec r1 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec r1 ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec r2 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec r2 ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec server ethtool -K eth0 tso off gso off gro off tx off rx off

# Addresses
ip -n client address add 2001:db8::1/64 dev eth0 nodad
ip -n r1 address add 2001:db8::2/64 dev eth0 nodad
ip -n r1 address add 2001:db8:0:1::1/64 dev eth1 nodad
ip -n r2 address add 2001:db8:0:1::2/64 dev eth0 nodad
ip -n r2 address add 2001:db8:0:2::1/64 dev eth1 nodad
ip -n server address add 2001:db8:0:2::2/64 dev eth0 nodad

# Interfaces up
ip -n client link set eth0 up
ip -n r1 link set eth0 up
ip -n r1 link set eth1 up
ip -n r2 link set eth0 up
ip -n r2 link set eth1 up
ip -n server link set eth0 up

# Routes
ip -6 -n client route add default via 2001:db8::2 dev eth0
ip -6 -n r1 route add 2001:db8:0:2::/64 via 2001:db8:0:1::2 dev eth1
ip -6 -n r2 route add default via 2001:db8:0:1::1 dev eth0
ip -6 -n server route add default via 2001:db8:0:2::1 dev eth0
