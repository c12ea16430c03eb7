#!/bin/sh
# groups: 5 nodes, 4 links
# Run as root; to take it away again:
#   for n in r1 r2 c1 c2 s1; do ip netns del "$n"; done
set -e

# Nodes: a network namespace each, loopback up
ip netns add r1
ip -n r1 link set lo up
ip netns add r2
ip -n r2 link set lo up
ip netns add c1
ip -n c1 link set lo up
ip netns add c2
ip -n c2 link set lo up
ip netns add s1
ip -n s1 link set lo up

# Kernel settings
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
ip netns exec c1 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec c1 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec c1 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec c1 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec c1 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec c1 sysctl -qw net.ipv4.tcp_sack=1
ip netns exec c1 sysctl -qw net.ipv4.tcp_no_metrics_save=1
ip netns exec c1 sysctl -qw net.ipv4.tcp_window_scaling=0
ip netns exec c2 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec c2 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec c2 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec c2 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec c2 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec c2 sysctl -qw net.ipv4.tcp_sack=0
ip netns exec c2 sysctl -qw net.ipv4.tcp_no_metrics_save=1
ip netns exec c2 sysctl -qw net.ipv4.tcp_window_scaling=0
ip netns exec s1 sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec s1 sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec s1 sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec s1 sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec s1 sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec s1 sysctl -qw net.ipv4.tcp_sack=1
ip netns exec s1 sysctl -qw net.ipv4.tcp_no_metrics_save=1
ip netns exec s1 sysctl -qw 'net.ipv4.tcp_rmem=4096 131072 6291456'

# Links: veth pairs, both ends born in their nodes
ip link add name eth0 address 02:39:0b:13:7f:5b mtu 9000 netns c1 type veth peer name eth0 address 02:0f:1d:ba:d0:ee mtu 9000 netns r1
ip link add name eth0 address 02:8c:df:91:d6:81 mtu 9000 netns c2 type veth peer name eth1 address 02:63:c3:70:50:ec mtu 9000 netns r1
ip link add name eth2 address 02:18:98:0d:e7:f0 mtu 1500 netns r1 type veth peer name eth0 address 02:31:9b:98:f8:11 mtu 1500 netns r2
ip link add name eth1 address 02:cb:6b:61:28:09 mtu 9000 netns r2 type veth peer name eth0 address 02:2b:2f:87:dc:71 mtu 9000 netns s1

# Offloads off: a captured packet is a packet on the wire
ip netns exec c1 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec r1 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec c2 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec r1 ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec r1 ethtool -K eth2 tso off gso off gro off tx off rx off
ip netns exec r2 ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec r2 ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec s1 ethtool -K eth0 tso off gso off gro off tx off rx off

# Addresses
ip -n r1 address add 10.183.165.2/24 dev eth0
ip -n r1 address add fd6e:6574:6c61:b7a5::2/64 dev eth0 nodad
ip -n r1 address add 10.128.19.2/24 dev eth1
ip -n r1 address add fd6e:6574:6c61:8013::2/64 dev eth1 nodad
ip -n r1 address add 10.56.240.1/24 dev eth2
ip -n r1 address add fd6e:6574:6c61:38f0::1/64 dev eth2 nodad
ip -n r2 address add 10.56.240.2/24 dev eth0
ip -n r2 address add fd6e:6574:6c61:38f0::2/64 dev eth0 nodad
ip -n r2 address add 10.122.179.1/24 dev eth1
ip -n r2 address add fd6e:6574:6c61:7ab3::1/64 dev eth1 nodad
ip -n c1 address add 10.183.165.1/24 dev eth0
ip -n c1 address add fd6e:6574:6c61:b7a5::1/64 dev eth0 nodad
ip -n c2 address add 10.128.19.1/24 dev eth0
ip -n c2 address add fd6e:6574:6c61:8013::1/64 dev eth0 nodad
ip -n s1 address add 192.0.2.1/32 dev lo
ip -n s1 address add 2001:db8::1/128 dev lo nodad
ip -n s1 address add 10.122.179.2/24 dev eth0
ip -n s1 address add fd6e:6574:6c61:7ab3::2/64 dev eth0 nodad

# Interfaces up
ip -n r1 link set eth0 up
ip -n r1 link set eth1 up
ip -n r1 link set eth2 up
ip -n r2 link set eth0 up
ip -n r2 link set eth1 up
ip -n c1 link set eth0 up
ip -n c2 link set eth0 up
ip -n s1 link set eth0 up

# Routes
ip -n r1 route add 10.122.179.0/24 via 10.56.240.2 dev eth2
ip -n r1 route add 192.0.2.1/32 via 10.56.240.2 dev eth2
ip -6 -n r1 route add 2001:db8::1/128 via fd6e:6574:6c61:38f0::2 dev eth2
ip -6 -n r1 route add fd6e:6574:6c61:7ab3::/64 via fd6e:6574:6c61:38f0::2 dev eth2
ip -n r2 route add default via 10.56.240.1 dev eth0
ip -n r2 route add 192.0.2.1/32 via 10.122.179.2 dev eth1
ip -6 -n r2 route add default via fd6e:6574:6c61:38f0::1 dev eth0
ip -6 -n r2 route add 2001:db8::1/128 via fd6e:6574:6c61:7ab3::2 dev eth1
ip -n c1 route add default via 10.183.165.2 dev eth0
ip -6 -n c1 route add default via fd6e:6574:6c61:b7a5::2 dev eth0
ip -n c2 route add default via 10.128.19.2 dev eth0
ip -6 -n c2 route add default via fd6e:6574:6c61:8013::2 dev eth0
ip -n s1 route add default via 10.122.179.1 dev eth0
ip -6 -n s1 route add default via fd6e:6574:6c61:7ab3::1 dev eth0
