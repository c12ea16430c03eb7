#!/bin/sh
# impairments: 4 nodes, 3 links
# Run as root; to take it away again:
#   for n in laptop modem isp server access.wire isp-server.wire; do ip netns del "$n"; done
set -e

# Nodes: a network namespace each, loopback up
ip netns add laptop
ip -n laptop link set lo up
ip netns add modem
ip -n modem link set lo up
ip netns add isp
ip -n isp link set lo up
ip netns add server
ip -n server link set lo up
ip netns add access.wire
ip -n access.wire link set lo up
ip netns add isp-server.wire
ip -n isp-server.wire link set lo up

# Kernel settings
ip netns exec laptop sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec laptop sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec laptop sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec laptop sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec laptop sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec modem sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec modem sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec modem sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec modem sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec modem sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec modem sysctl -qw net.ipv4.ip_forward=1
ip netns exec modem sysctl -qw net.ipv6.conf.all.forwarding=1
ip netns exec isp sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec isp sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec isp sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec isp sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec isp sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec isp sysctl -qw net.ipv4.ip_forward=1
ip netns exec isp sysctl -qw net.ipv6.conf.all.forwarding=1
ip netns exec server sysctl -qw net.ipv6.conf.all.accept_dad=0
ip netns exec server sysctl -qw net.ipv6.conf.default.accept_dad=0
ip netns exec server sysctl -qw net.ipv6.conf.default.dad_transmits=0
ip netns exec server sysctl -qw net.ipv6.conf.default.accept_ra=0
ip netns exec server sysctl -qw net.ipv6.conf.default.router_solicitations=0
ip netns exec access.wire sysctl -qw net.ipv6.conf.all.disable_ipv6=1
ip netns exec access.wire sysctl -qw net.ipv6.conf.default.disable_ipv6=1
ip netns exec isp-server.wire sysctl -qw net.ipv6.conf.all.disable_ipv6=1
ip netns exec isp-server.wire sysctl -qw net.ipv6.conf.default.disable_ipv6=1

# Links: veth pairs, both ends born in their nodes
ip link add name eth0 address 02:8c:9a:96:8c:16 mtu 1500 netns laptop type veth peer name eth0 address 02:5e:66:92:86:8e mtu 1500 netns modem
ip link add name eth1 address 02:98:a5:a0:92:ca mtu 1492 netns modem type veth peer name p0 address 02:55:a9:38:18:0e mtu 1492 netns access.wire
ip link add name eth0 address 02:94:7e:1f:5c:92 mtu 1492 netns isp type veth peer name p1 address 02:8f:c0:02:50:6e mtu 1492 netns access.wire
ip link add name eth1 address 02:80:2c:d6:1a:11 mtu 1500 netns isp type veth peer name p0 address 02:fe:d9:e9:67:e3 mtu 1500 netns isp-server.wire
ip link add name eth0 address 02:fd:09:48:70:20 mtu 1500 netns server type veth peer name p1 address 02:d2:7a:03:94:75 mtu 1500 netns isp-server.wire

# Bridges: inside switches, and in the middle of impaired links
ip -n access.wire link add name br0 type bridge stp_state 0 mcast_snooping 0
ip -n access.wire link set p0 master br0
ip -n access.wire link set p1 master br0
ip -n isp-server.wire link add name br0 type bridge stp_state 0 mcast_snooping 0
ip -n isp-server.wire link set p0 master br0
ip -n isp-server.wire link set p1 master br0

# Offloads off: a captured packet is a packet on the wire
ip netns exec laptop ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec modem ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec modem ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec isp ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec access.wire ethtool -K p0 tso off gso off gro off tx off rx off
ip netns exec access.wire ethtool -K p1 tso off gso off gro off tx off rx off
ip netns exec isp ethtool -K eth1 tso off gso off gro off tx off rx off
ip netns exec server ethtool -K eth0 tso off gso off gro off tx off rx off
ip netns exec isp-server.wire ethtool -K p0 tso off gso off gro off tx off rx off
ip netns exec isp-server.wire ethtool -K p1 tso off gso off gro off tx off rx off

# Addresses
ip -n laptop address add 10.95.161.1/24 dev eth0
ip -n laptop address add fd6e:6574:6c61:5fa1::1/64 dev eth0 nodad
ip -n modem address add 10.95.161.2/24 dev eth0
ip -n modem address add fd6e:6574:6c61:5fa1::2/64 dev eth0 nodad
ip -n modem address add 10.115.205.1/24 dev eth1
ip -n modem address add fd6e:6574:6c61:73cd::1/64 dev eth1 nodad
ip -n isp address add 10.115.205.2/24 dev eth0
ip -n isp address add fd6e:6574:6c61:73cd::2/64 dev eth0 nodad
ip -n isp address add 10.221.144.1/24 dev eth1
ip -n isp address add fd6e:6574:6c61:dd90::1/64 dev eth1 nodad
ip -n server address add 10.221.144.2/24 dev eth0
ip -n server address add fd6e:6574:6c61:dd90::2/64 dev eth0 nodad

# Interfaces up
ip -n laptop link set eth0 up
ip -n modem link set eth0 up
ip -n modem link set eth1 up
ip -n isp link set eth0 up
ip -n isp link set eth1 up
ip -n server link set eth0 up
ip -n access.wire link set p0 up
ip -n access.wire link set p1 up
ip -n access.wire link set br0 up
ip -n isp-server.wire link set p0 up
ip -n isp-server.wire link set p1 up
ip -n isp-server.wire link set br0 up

# Routes
ip -n laptop route add default via 10.95.161.2 dev eth0
ip -6 -n laptop route add default via fd6e:6574:6c61:5fa1::2 dev eth0
ip -n modem route add default via 10.115.205.2 dev eth1
ip -6 -n modem route add default via fd6e:6574:6c61:73cd::2 dev eth1
ip -n isp route add 10.95.161.0/24 via 10.115.205.1 dev eth0
ip -6 -n isp route add fd6e:6574:6c61:5fa1::/64 via fd6e:6574:6c61:73cd::1 dev eth0
ip -n server route add default via 10.221.144.1 dev eth0
ip -6 -n server route add default via fd6e:6574:6c61:dd90::1 dev eth0

# Impairments: queue disciplines where packets leave the middle of a link
tc -n access.wire qdisc replace dev p0 root handle 1: netem limit 293969 delay 15ms loss 0.1%
tc -n access.wire qdisc replace dev p0 parent 1:1 handle 2: netem limit 1000 rate 50000000bit
tc -n access.wire qdisc replace dev p1 root handle 1: netem limit 450219 delay 15ms 2ms loss 0.1% rate 100000000000bit
tc -n access.wire qdisc replace dev p1 parent 1:1 handle 2: netem limit 1000 rate 10000000bit
tc -n isp-server.wire qdisc replace dev p0 root handle 1: netem limit 98657 delay 5ms
tc -n isp-server.wire qdisc replace dev p1 root handle 1: netem limit 98657 delay 5ms
