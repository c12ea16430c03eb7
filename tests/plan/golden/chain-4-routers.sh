#!/bin/sh
# chain-4-routers: 6 nodes, 5 links
# Run as root; to take it away again:
#   for n in h1 r1 r2 r3 r4 h2; do ip netns del "$n"; done
set -e

# Nodes: a network namespace each, loopback up
ip netns add h1
ip -n h1 link set lo up
ip netns add r1
ip -n r1 link set lo up
ip netns add r2
ip -n r2 link set lo up
ip netns add r3
ip -n r3 link set lo up
ip netns add r4
ip -n r4 link set lo up
ip netns add h2
ip -n h2 link set lo up

# Kernel settings
ip netns exec h1 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec h1 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec h1 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec h1 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec h1 sysctl -qw net.ipv6.conf.default.router_solicitations=0
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
ip netns exec r3 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec r3 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec r3 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec r3 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec r3 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec r3 sysctl -qw net.ipv4.ip_forward=1
ip netns exec r3 sysctl -qw net.ipv6.conf.all.forwarding=1
ip netns exec r4 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec r4 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec r4 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec r4 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec r4 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec r4 sysctl -qw net.ipv4.ip_forward=1
ip netns exec r4 sysctl -qw net.ipv6.conf.all.forwarding=1
ip netns exec h2 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.router_solicitations=0

# Links: veth pairs, both ends born in their nodes
ip link add name eth0 address 02:76:dd:c8:2f:57 mtu 1500 netns h1 type veth peer name eth0 address 02:0f:1d:ba:d0:ee mtu 1500 netns r1
ip link add name eth1 address 02:63:c3:70:50:ec mtu 1500 netns r1 type veth peer name eth0 address 02:31:9b:98:f8:11 mtu 1500 netns r2
ip link add name eth1 address 02:cb:6b:61:28:09 mtu 1500 netns r2 type veth peer name eth0 address 02:43:e2:0e:ab:f3 mtu 1500 netns r3
ip link add name eth1 address 02:c0:76:59:3d:51 mtu 1500 netns r3 type veth peer name eth0 address 02:b3:81:11:0e:37 mtu 1500 netns r4
ip link add name eth1 address 02:63:0d:e0:0d:22 mtu 1500 netns r4 type veth peer name eth0 address 02:97:a8:76:ca:ba mtu 1500 netns h2

# Offloads off: a captured packet is a packet on the wire
ip netns exec h1 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec r1 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec r1 ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec r2 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec r2 ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec r3 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec r3 ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec r4 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec r4 ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec h2 ethtool -K eth0 tso off gso off gro off tx off rx off

# Addresses
ip -n h1 address add 10.0.0.1/24 dev eth0
ip -n h1 address add fd6e:6574:6c61::1/64 dev eth0 nodad
ip -n r1 address add 10.0.0.2/24 dev eth0
ip -n r1 address add fd6e:6574:6c61::2/64 dev eth0 nodad
ip -n r1 address add 10.0.1.1/24 dev eth1
ip -n r1 address add fd6e:6574:6c61:1::1/64 dev eth1 nodad
ip -n r2 address add 10.0.1.2/24 dev eth0
ip -n r2 address add fd6e:6574:6c61:1::2/64 dev eth0 nodad
ip -n r2 address add 10.0.2.1/24 dev eth1
ip -n r2 address add fd6e:6574:6c61:2::1/64 dev eth1 nodad
ip -n r3 address add 10.0.2.2/24 dev eth0
ip -n r3 address add fd6e:6574:6c61:2::2/64 dev eth0 nodad
ip -n r3 address add 10.0.3.1/24 dev eth1
ip -n r3 address add fd6e:6574:6c61:3::1/64 dev eth1 nodad
ip -n r4 address add 10.0.3.2/24 dev eth0
ip -n r4 address add fd6e:6574:6c61:3::2/64 dev eth0 nodad
ip -n r4 address add 10.0.4.1/24 dev eth1
ip -n r4 address add fd6e:6574:6c61:4::1/64 dev eth1 nodad
ip -n h2 address add 10.0.4.2/24 dev eth0
ip -n h2 address add fd6e:6574:6c61:4::2/64 dev eth0 nodad

# Interfaces up
ip -n h1 link set eth0 up
ip -n r1 link set eth0 up
ip -n r1 link set eth1 up
ip -n r2 link set eth0 up
ip -n r2 link set eth1 up
ip -n r3 link set eth0 up
ip -n r3 link set eth1 up
ip -n r4 link set eth0 up
ip -n r4 link set eth1 up
ip -n h2 link set eth0 up

# Routes
ip -n h1 route add default via 10.0.0.2 dev eth0
ip -6 -n h1 route add default via fd6e:6574:6c61::2 dev eth0
ip -n r1 route add default via 10.0.1.2 dev eth1
ip -6 -n r1 route add default via fd6e:6574:6c61:1::2 dev eth1
ip -n r2 route add 10.0.0.0/24 via 10.0.1.1 dev eth0
ip -n r2 route add 10.0.3.0/24 via 10.0.2.2 dev eth1
ip -n r2 route add 10.0.4.0/24 via 10.0.2.2 dev eth1
ip -6 -n r2 route add fd6e:6574:6c61::/64 via fd6e:6574:6c61:1::1 dev eth0
ip -6 -n r2 route add fd6e:6574:6c61:3::/64 via fd6e:6574:6c61:2::2 dev eth1
ip -6 -n r2 route add fd6e:6574:6c61:4::/64 via fd6e:6574:6c61:2::2 dev eth1
ip -n r3 route add default via 10.0.2.1 dev eth0
ip -n r3 route add 10.0.4.0/24 via 10.0.3.2 dev eth1
ip -6 -n r3 route add default via fd6e:6574:6c61:2::1 dev eth0
ip -6 -n r3 route add fd6e:6574:6c61:4::/64 via fd6e:6574:6c61:3::2 dev eth1
ip -n r4 route add default via 10.0.3.1 dev eth0
ip -6 -n r4 route add default via fd6e:6574:6c61:3::1 dev eth0
ip -n h2 route add default via 10.0.4.1 dev eth0
ip -6 -n h2 route add default via fd6e:6574:6c61:4::1 dev eth0
