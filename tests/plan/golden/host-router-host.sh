#!/bin/sh
# host-router-host: 3 nodes, 2 links
# Run as root; to take it away again:
#   for n in client router server; do ip netns del "$n"; done
set -e

# Nodes: a network namespace each, loopback up
ip netns add client
ip -n client link set lo up
ip netns add router
ip -n router link set lo up
ip netns add server
ip -n server link set lo up

# Kernel settings
ip netns exec client sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec client sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec client sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec client sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec client sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec router sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec router sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec router sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec router sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec router sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec router sysctl -qw net.ipv4.ip_forward=1
ip netns exec router sysctl -qw net.ipv6.conf.all.forwarding=1
ip netns exec server sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec server sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec server sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec server sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec server sysctl -qw net.ipv6.conf.default.router_solicitations=0

# Links: veth pairs, both ends born in their nodes
ip link add name eth0 address 02:90:18:f9:e6:31 mtu 1500 netns client type veth peer name eth0 address 02:d1:99:db:85:fc mtu 1500 netns router
ip link add name eth0 address 02:fd:09:48:70:20 mtu 1500 netns server type veth peer name eth1 address 02:85:26:c9:50:18 mtu 1500 netns router

# Offloads off: a captured packet is a packet on the wire
ip netns exec client ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec router ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec server ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec router ethtool -K eth1 tso off gso off gro off tx off rx off

# Addresses
ip -n client address add 10.0.1.1/24 dev eth0
ip -n client address add fd00:0:0:1::1/64 dev eth0 nodad
ip -n router address add 10.0.1.2/24 dev eth0
ip -n router address add fd00:0:0:1::2/64 dev eth0 nodad
ip -n router address add 10.0.2.2/24 dev eth1
ip -n router address add fd00:0:0:2::2/64 dev eth1 nodad
ip -n server address add 10.0.2.1/24 dev eth0
ip -n server address add fd00:0:0:2::1/64 dev eth0 nodad

# Interfaces up
ip -n client link set eth0 up
ip -n router link set eth0 up
ip -n router link set eth1 up
ip -n server link set eth0 up

# Routes
ip -n client route add default via 10.0.1.2 dev eth0
ip -6 -n client route add default via fd00:0:0:1::2 dev eth0
ip -n server route add default via 10.0.2.2 dev eth0
ip -6 -n server route add default via fd00:0:0:2::2 dev eth0
