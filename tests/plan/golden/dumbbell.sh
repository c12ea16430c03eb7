#!/bin/sh
# dumbbell: 6 nodes, 5 links
# Run as root; to take it away again:
#   for n in h1 h2 left right h3 h4; do ip netns del "$n"; done
set -e

# Nodes: a network namespace each, loopback up
ip netns add h1
ip -n h1 link set lo up
ip netns add h2
ip -n h2 link set lo up
ip netns add left
ip -n left link set lo up
ip netns add right
ip -n right link set lo up
ip netns add h3
ip -n h3 link set lo up
ip netns add h4
ip -n h4 link set lo up

# Kernel settings
ip netns exec h1 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec h1 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec h1 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec h1 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec h1 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec h2 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec left sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec left sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec left sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec left sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec left sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec left sysctl -qw net.ipv4.ip_forward=1
ip netns exec left sysctl -qw net.ipv6.conf.all.forwarding=1
ip netns exec right sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec right sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec right sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec right sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec right sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec right sysctl -qw net.ipv4.ip_forward=1
ip netns exec right sysctl -qw net.ipv6.conf.all.forwarding=1
ip netns exec h3 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec h3 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec h3 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec h3 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec h3 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec h4 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec h4 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec h4 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec h4 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec h4 sysctl -qw net.ipv6.conf.default.router_solicitations=0

# Links: veth pairs, both ends born in their nodes
ip link add name eth0 address 02:76:dd:c8:2f:57 mtu 1500 netns h1 type veth peer name eth0 address 02:4f:da:dd:ce:81 mtu 1500 netns left
ip link add name eth0 address 02:97:a8:76:ca:ba mtu 1500 netns h2 type veth peer name eth1 address 02:3c:96:0a:e3:98 mtu 1500 netns left
ip link add name eth2 address 02:3a:65:3b:3d:dd mtu 1500 netns left type veth peer name eth0 address 02:10:ca:09:f3:9e mtu 1500 netns right
ip link add name eth1 address 02:e2:a7:39:9c:87 mtu 1500 netns right type veth peer name eth0 address 02:53:cd:a3:06:da mtu 1500 netns h3
ip link add name eth2 address 02:b3:7d:31:ac:da mtu 1500 netns right type veth peer name eth0 address 02:ba:ad:38:dc:13 mtu 1500 netns h4

# Offloads off: a captured packet is a packet on the wire
ip netns exec h1 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec left ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec h2 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec left ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec left ethtool -K eth2 tso off gso off gro off tx off rx off
ip netns exec right ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec right ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec h3 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec right ethtool -K eth2 tso off gso off gro off tx off rx off
ip netns exec h4 ethtool -K eth0 tso off gso off gro off tx off rx off

# Addresses
ip -n h1 address add 10.37.59.1/24 dev eth0
ip -n h1 address add fd6e:6574:6c61:253b::1/64 dev eth0 nodad
ip -n h2 address add 10.200.139.1/24 dev eth0
ip -n h2 address add fd6e:6574:6c61:c88b::1/64 dev eth0 nodad
ip -n left address add 10.37.59.2/24 dev eth0
ip -n left address add fd6e:6574:6c61:253b::2/64 dev eth0 nodad
ip -n left address add 10.200.139.2/24 dev eth1
ip -n left address add fd6e:6574:6c61:c88b::2/64 dev eth1 nodad
ip -n left address add 10.76.153.1/24 dev eth2
ip -n left address add fd6e:6574:6c61:4c99::1/64 dev eth2 nodad
ip -n right address add 10.76.153.2/24 dev eth0
ip -n right address add fd6e:6574:6c61:4c99::2/64 dev eth0 nodad
ip -n right address add 10.174.102.1/24 dev eth1
ip -n right address add fd6e:6574:6c61:ae66::1/64 dev eth1 nodad
ip -n right address add 10.249.134.1/24 dev eth2
ip -n right address add fd6e:6574:6c61:f986::1/64 dev eth2 nodad
ip -n h3 address add 10.174.102.2/24 dev eth0
ip -n h3 address add fd6e:6574:6c61:ae66::2/64 dev eth0 nodad
ip -n h4 address add 10.249.134.2/24 dev eth0
ip -n h4 address add fd6e:6574:6c61:f986::2/64 dev eth0 nodad

# Interfaces up
ip -n h1 link set eth0 up
ip -n h2 link set eth0 up
ip -n left link set eth0 up
ip -n left link set eth1 up
ip -n left link set eth2 up
ip -n right link set eth0 up
ip -n right link set eth1 up
ip -n right link set eth2 up
ip -n h3 link set eth0 up
ip -n h4 link set eth0 up

# Routes
ip -n h1 route add default via 10.37.59.2 dev eth0
ip -6 -n h1 route add default via fd6e:6574:6c61:253b::2 dev eth0
ip -n h2 route add default via 10.200.139.2 dev eth0
ip -6 -n h2 route add default via fd6e:6574:6c61:c88b::2 dev eth0
ip -n left route add 10.174.102.0/24 via 10.76.153.2 dev eth2
ip -n left route add 10.249.134.0/24 via 10.76.153.2 dev eth2
ip -6 -n left route add fd6e:6574:6c61:ae66::/64 via fd6e:6574:6c61:4c99::2 dev eth2
ip -6 -n left route add fd6e:6574:6c61:f986::/64 via fd6e:6574:6c61:4c99::2 dev eth2
ip -n right route add default via 10.76.153.1 dev eth0
ip -6 -n right route add default via fd6e:6574:6c61:4c99::1 dev eth0
ip -n h3 route add default via 10.174.102.1 dev eth0
ip -6 -n h3 route add default via fd6e:6574:6c61:ae66::1 dev eth0
ip -n h4 route add default via 10.249.134.1 dev eth0
ip -6 -n h4 route add default via fd6e:6574:6c61:f986::1 dev eth0
