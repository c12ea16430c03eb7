#!/bin/sh
# lan: 5 nodes, 5 links
# Run as root; to take it away again:
#   for n in gw h1 h2 h3 server office.lan; do ip netns del "$n"; done
set -e

# Nodes: a network namespace each, loopback up
ip netns add gw
ip -n gw link set lo up
ip netns add h1
ip -n h1 link set lo up
ip netns add h2
ip -n h2 link set lo up
ip netns add h3
ip -n h3 link set lo up
ip netns add server
ip -n server link set lo up
ip netns add office.lan
ip -n office.lan link set lo up

# Kernel settings
ip netns exec gw sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec gw sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec gw sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec gw sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec gw sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec gw sysctl -qw net.ipv4.ip_forward=1
ip netns exec gw sysctl -qw net.ipv6.conf.all.forwarding=1
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
ip netns exec h3 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec h3 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec h3 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec h3 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec h3 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec server sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec server sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec server sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec server sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec server sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec office.lan sysctl -qw net.ipv6.conf.all.disable_ipv6=1
ip netns exec office.lan sysctl -qw net.ipv6.conf.default.disable_ipv6=1

# Links: veth pairs, both ends born in their nodes
ip link add name eth0 address 02:87:72:34:4a:a2 mtu 1500 netns gw type veth peer name p1 address 02:a4:78:d6:45:8a mtu 1500 netns office.lan
ip link add name eth0 address 02:76:dd:c8:2f:57 mtu 1500 netns h1 type veth peer name p2 address 02:68:72:23:2a:8b mtu 1500 netns office.lan
ip link add name eth0 address 02:97:a8:76:ca:ba mtu 1500 netns h2 type veth peer name p3 address 02:53:4e:dc:53:84 mtu 1500 netns office.lan
ip link add name eth0 address 02:53:cd:a3:06:da mtu 1500 netns h3 type veth peer name p4 address 02:b9:75:6a:09:c7 mtu 1500 netns office.lan
ip link add name eth1 address 02:c9:21:a9:35:bc mtu 1500 netns gw type veth peer name eth0 address 02:fd:09:48:70:20 mtu 1500 netns server

# Bridges: inside switches, and in the middle of impaired links
ip -n office.lan link add name br0 type bridge stp_state 0 mcast_snooping 0
ip -n office.lan link set p1 master br0
ip -n office.lan link set p2 master br0
ip -n office.lan link set p3 master br0
ip -n office.lan link set p4 master br0

# Offloads off: a captured packet is a packet on the wire
ip netns exec gw ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec office.lan ethtool -K p1 tso off gso off gro off tx off rx off
ip netns exec h1 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec office.lan ethtool -K p2 tso off gso off gro off tx off rx off
ip netns exec h2 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec office.lan ethtool -K p3 tso off gso off gro off tx off rx off
ip netns exec h3 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec office.lan ethtool -K p4 tso off gso off gro off tx off rx off
ip netns exec gw ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec server ethtool -K eth0 tso off gso off gro off tx off rx off

# Addresses
ip -n gw address add 192.168.1.1/24 dev eth0
ip -n gw address add fd00:0:0:1::1/64 dev eth0 nodad
ip -n gw address add 198.51.100.1/24 dev eth1
ip -n gw address add fd00:0:0:2::1/64 dev eth1 nodad
ip -n h1 address add 192.168.1.2/24 dev eth0
ip -n h1 address add fd00:0:0:1::2/64 dev eth0 nodad
ip -n h2 address add 192.168.1.3/24 dev eth0
ip -n h2 address add fd00:0:0:1::3/64 dev eth0 nodad
ip -n h3 address add 192.168.1.4/24 dev eth0
ip -n h3 address add fd00:0:0:1::4/64 dev eth0 nodad
ip -n server address add 198.51.100.2/24 dev eth0
ip -n server address add fd00:0:0:2::2/64 dev eth0 nodad

# Interfaces up
ip -n gw link set eth0 up
ip -n gw link set eth1 up
ip -n h1 link set eth0 up
ip -n h2 link set eth0 up
ip -n h3 link set eth0 up
ip -n server link set eth0 up
ip -n office.lan link set p1 up
ip -n office.lan link set p2 up
ip -n office.lan link set p3 up
ip -n office.lan link set p4 up
ip -n office.lan link set br0 up

# Routes
ip -n h1 route add default via 192.168.1.1 dev eth0
ip -6 -n h1 route add default via fd00:0:0:1::1 dev eth0
ip -n h2 route add default via 192.168.1.1 dev eth0
ip -6 -n h2 route add default via fd00:0:0:1::1 dev eth0
ip -n h3 route add default via 192.168.1.1 dev eth0
ip -6 -n h3 route add default via fd00:0:0:1::1 dev eth0
ip -n server route add default via 198.51.100.1 dev eth0
ip -6 -n server route add default via fd00:0:0:2::1 dev eth0
