#!/bin/sh
# tunnel: 4 nodes, 4 links
# Run as root; to take it away again:
#   for n in h1 r1 r2 h2 r1-r2.wire; do ip netns del "$n"; done
set -e

# Nodes: a network namespace each, loopback up
ip netns add h1
ip -n h1 link set lo up
ip netns add r1
ip -n r1 link set lo up
ip netns add r2
ip -n r2 link set lo up
ip netns add h2
ip -n h2 link set lo up
ip netns add r1-r2.wire
ip -n r1-r2.wire link set lo up

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
ip netns exec h2 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec h2 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec r1-r2.wire sysctl -qw net.ipv6.conf.all.disable_ipv6=1
ip netns exec r1-r2.wire sysctl -qw net.ipv6.conf.default.disable_ipv6=1

# Links: veth pairs, both ends born in their nodes
ip link add name eth0 address 02:76:dd:c8:2f:57 mtu 1500 netns h1 type veth peer name eth0 address 02:0f:1d:ba:d0:ee mtu 1500 netns r1
ip link add name eth1 address 02:63:c3:70:50:ec mtu 1500 netns r1 type veth peer name p0 address 02:76:c1:1e:96:f5 mtu 1500 netns r1-r2.wire
ip link add name eth0 address 02:31:9b:98:f8:11 mtu 1500 netns r2 type veth peer name p1 address 02:b6:d5:d5:c4:e0 mtu 1500 netns r1-r2.wire
ip link add name eth1 address 02:cb:6b:61:28:09 mtu 1500 netns r2 type veth peer name eth0 address 02:97:a8:76:ca:ba mtu 1500 netns h2

# Tunnels: packets inside packets, between addresses of two nodes
ip -n h1 link add name site0 address 02:73:fa:2a:18:68 mtu 1450 type vxlan id 42 local 10.212.161.1 remote 10.214.86.2 dstport 4789
ip -n h2 link add name site0 address 02:be:fd:1d:a2:f5 mtu 1450 type vxlan id 42 local 10.214.86.2 remote 10.212.161.1 dstport 4789

# Bridges: inside switches, and in the middle of impaired links
ip -n r1-r2.wire link add name br0 type bridge stp_state 0 mcast_snooping 0
ip -n r1-r2.wire link set p0 master br0
ip -n r1-r2.wire link set p1 master br0

# Offloads off: a captured packet is a packet on the wire
ip netns exec h1 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec r1 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec r1 ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec r2 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec r1-r2.wire ethtool -K p0 tso off gso off gro off tx off rx off
ip netns exec r1-r2.wire ethtool -K p1 tso off gso off gro off tx off rx off
ip netns exec r2 ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec h2 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec h1 ethtool -K site0 tso off gso off gro off tx off rx off
ip netns exec h2 ethtool -K site0 tso off gso off gro off tx off rx off

# Addresses
ip -n h1 address add 10.212.161.1/24 dev eth0
ip -n h1 address add fd6e:6574:6c61:d4a1::1/64 dev eth0 nodad
ip -n h1 address add 172.16.0.1/24 dev site0
ip -n h1 address add fd00:0:0:42::1/64 dev site0 nodad
ip -n r1 address add 10.212.161.2/24 dev eth0
ip -n r1 address add fd6e:6574:6c61:d4a1::2/64 dev eth0 nodad
ip -n r1 address add 10.56.240.1/24 dev eth1
ip -n r1 address add fd6e:6574:6c61:38f0::1/64 dev eth1 nodad
ip -n r2 address add 10.56.240.2/24 dev eth0
ip -n r2 address add fd6e:6574:6c61:38f0::2/64 dev eth0 nodad
ip -n r2 address add 10.214.86.1/24 dev eth1
ip -n r2 address add fd6e:6574:6c61:d656::1/64 dev eth1 nodad
ip -n h2 address add 10.214.86.2/24 dev eth0
ip -n h2 address add fd6e:6574:6c61:d656::2/64 dev eth0 nodad
ip -n h2 address add 172.16.0.2/24 dev site0
ip -n h2 address add fd00:0:0:42::2/64 dev site0 nodad

# Interfaces up
ip -n h1 link set eth0 up
ip -n h1 link set site0 up
ip -n r1 link set eth0 up
ip -n r1 link set eth1 up
ip -n r2 link set eth0 up
ip -n r2 link set eth1 up
ip -n h2 link set eth0 up
ip -n h2 link set site0 up
ip -n r1-r2.wire link set p0 up
ip -n r1-r2.wire link set p1 up
ip -n r1-r2.wire link set br0 up

# Routes
ip -n h1 route add default via 10.212.161.2 dev eth0
ip -6 -n h1 route add default via fd6e:6574:6c61:d4a1::2 dev eth0
ip -n r1 route add 10.214.86.0/24 via 10.56.240.2 dev eth1
ip -6 -n r1 route add fd6e:6574:6c61:d656::/64 via fd6e:6574:6c61:38f0::2 dev eth1
ip -n r2 route add default via 10.56.240.1 dev eth0
ip -6 -n r2 route add default via fd6e:6574:6c61:38f0::1 dev eth0
ip -n h2 route add default via 10.214.86.1 dev eth0
ip -6 -n h2 route add default via fd6e:6574:6c61:d656::1 dev eth0

# Impairments: queue disciplines where packets leave the middle of a link
tc -n r1-r2.wire qdisc replace dev p0 root handle 1: netem limit 98657 delay 5ms
tc -n r1-r2.wire qdisc replace dev p1 root handle 1: netem limit 98657 delay 5ms
