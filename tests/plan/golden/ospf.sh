#!/bin/sh
# ospf: 7 nodes, 7 links
# Run as root; to take it away again:
#   for n in h1 west north far1 far2 east h2; do ip netns del "$n"; done
set -e

# Nodes: a network namespace each, loopback up
ip netns add h1
ip -n h1 link set lo up
ip netns add west
ip -n west link set lo up
ip netns add north
ip -n north link set lo up
ip netns add far1
ip -n far1 link set lo up
ip netns add far2
ip -n far2 link set lo up
ip netns add east
ip -n east link set lo up
ip netns add h2
ip -n h2 link set lo up

# Kernel settings
ip netns exec h1 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec h1 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec h1 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec h1 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec h1 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec west sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec west sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec west sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec west sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec west sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec west sysctl -qw net.ipv4.ip_forward=1
ip netns exec west sysctl -qw net.ipv6.conf.all.forwarding=1
ip netns exec north sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec north sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec north sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec north sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec north sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec north sysctl -qw net.ipv4.ip_forward=1
ip netns exec north sysctl -qw net.ipv6.conf.all.forwarding=1
ip netns exec far1 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec far1 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec far1 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec far1 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec far1 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec far1 sysctl -qw net.ipv4.ip_forward=1
ip netns exec far1 sysctl -qw net.ipv6.conf.all.forwarding=1
ip netns exec far2 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec far2 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec far2 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec far2 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec far2 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec far2 sysctl -qw net.ipv4.ip_forward=1
ip netns exec far2 sysctl -qw net.ipv6.conf.all.forwarding=1
ip netns exec east sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec east sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec east sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec east sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec east sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec east sysctl -qw net.ipv4.ip_forward=1
ip netns exec east sysctl -qw net.ipv6.conf.all.forwarding=1
ip netns exec h2 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.router_solicitations=0

# Links: veth pairs, both ends born in their nodes
ip link add name eth0 address 02:76:dd:c8:2f:57 mtu 1500 netns h1 type veth peer name eth0 address 02:c7:2d:2d:b4:ea mtu 1500 netns west
ip link add name eth1 address 02:94:db:b0:05:e0 mtu 1500 netns west type veth peer name eth0 address 02:1f:10:ed:e5:16 mtu 1500 netns north
ip link add name eth1 address 02:86:6e:cc:84:22 mtu 1500 netns north type veth peer name eth0 address 02:4f:1d:e0:83:52 mtu 1500 netns east
ip link add name eth2 address 02:0f:14:2d:1c:ba mtu 1500 netns west type veth peer name eth0 address 02:6d:a7:be:b0:92 mtu 1500 netns far1
ip link add name eth1 address 02:d4:a5:ae:ef:79 mtu 1500 netns far1 type veth peer name eth0 address 02:3a:f4:2d:62:7a mtu 1500 netns far2
ip link add name eth1 address 02:49:2b:e0:6a:d1 mtu 1500 netns far2 type veth peer name eth1 address 02:58:71:bd:99:88 mtu 1500 netns east
ip link add name eth2 address 02:a3:33:4b:98:2d mtu 1500 netns east type veth peer name eth0 address 02:97:a8:76:ca:ba mtu 1500 netns h2

# Offloads off: a captured packet is a packet on the wire
ip netns exec h1 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec west ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec west ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec north ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec north ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec east ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec west ethtool -K eth2 tso off gso off gro off tx off rx off
ip netns exec far1 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec far1 ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec far2 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec far2 ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec east ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec east ethtool -K eth2 tso off gso off gro off tx off rx off
ip netns exec h2 ethtool -K eth0 tso off gso off gro off tx off rx off

# Addresses
ip -n h1 address add 10.234.106.1/24 dev eth0
ip -n h1 address add fd6e:6574:6c61:ea6a::1/64 dev eth0 nodad
ip -n west address add 10.234.106.2/24 dev eth0
ip -n west address add fd6e:6574:6c61:ea6a::2/64 dev eth0 nodad
ip -n west address add 10.66.10.1/24 dev eth1
ip -n west address add fd6e:6574:6c61:420a::1/64 dev eth1 nodad
ip -n west address add 10.164.109.1/24 dev eth2
ip -n west address add fd6e:6574:6c61:a46d::1/64 dev eth2 nodad
ip -n north address add 10.66.10.2/24 dev eth0
ip -n north address add fd6e:6574:6c61:420a::2/64 dev eth0 nodad
ip -n north address add 10.230.73.1/24 dev eth1
ip -n north address add fd6e:6574:6c61:e649::1/64 dev eth1 nodad
ip -n far1 address add 10.164.109.2/24 dev eth0
ip -n far1 address add fd6e:6574:6c61:a46d::2/64 dev eth0 nodad
ip -n far1 address add 10.179.248.1/24 dev eth1
ip -n far1 address add fd6e:6574:6c61:b3f8::1/64 dev eth1 nodad
ip -n far2 address add 10.179.248.2/24 dev eth0
ip -n far2 address add fd6e:6574:6c61:b3f8::2/64 dev eth0 nodad
ip -n far2 address add 10.128.117.1/24 dev eth1
ip -n far2 address add fd6e:6574:6c61:8075::1/64 dev eth1 nodad
ip -n east address add 10.230.73.2/24 dev eth0
ip -n east address add fd6e:6574:6c61:e649::2/64 dev eth0 nodad
ip -n east address add 10.128.117.2/24 dev eth1
ip -n east address add fd6e:6574:6c61:8075::2/64 dev eth1 nodad
ip -n east address add 10.135.167.1/24 dev eth2
ip -n east address add fd6e:6574:6c61:87a7::1/64 dev eth2 nodad
ip -n h2 address add 10.135.167.2/24 dev eth0
ip -n h2 address add fd6e:6574:6c61:87a7::2/64 dev eth0 nodad

# Interfaces up
ip -n h1 link set eth0 up
ip -n west link set eth0 up
ip -n west link set eth1 up
ip -n west link set eth2 up
ip -n north link set eth0 up
ip -n north link set eth1 up
ip -n far1 link set eth0 up
ip -n far1 link set eth1 up
ip -n far2 link set eth0 up
ip -n far2 link set eth1 up
ip -n east link set eth0 up
ip -n east link set eth1 up
ip -n east link set eth2 up
ip -n h2 link set eth0 up

# Routes
ip -n h1 route add default via 10.234.106.2 dev eth0
ip -6 -n h1 route add default via fd6e:6574:6c61:ea6a::2 dev eth0
ip -n h2 route add default via 10.135.167.1 dev eth0
ip -6 -n h2 route add default via fd6e:6574:6c61:87a7::1 dev eth0
