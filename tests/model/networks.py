"""Networks for property tests: random topologies, and packets that walk through them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st

from netlab.model.topology import Interface, Role, Route, Topology

Address = IPv4Address | IPv6Address


@st.composite
def texts(draw: st.DrawFn, *, connected: bool = True) -> str:
    """Return the text of a random topology file: routers in a mesh, hosts and LANs on them."""
    routers = draw(st.integers(1, 7))
    roles = {f"r{i}": "router" for i in range(routers)}
    links = [
        f"[r{draw(st.integers(0, i - 1))}, r{i}]"
        for i in range(1, routers)
        if connected or draw(st.booleans())
    ]
    pairs = st.tuples(st.integers(0, routers - 1), st.integers(0, routers - 1))
    for number, (a, b) in enumerate(draw(st.lists(pairs, max_size=4))):
        if a != b:
            links.append(f"{{name: extra{number}, ends: [r{a}, r{b}]}}")
    for number in range(draw(st.integers(0, 5))):
        ends = draw(st.lists(st.integers(0, routers - 1), min_size=1, max_size=3, unique=True))
        roles[f"h{number}"] = "host"
        kind = draw(st.sampled_from(["links", "lan", "switch"]))
        names = [f"r{i}" for i in ends]
        if kind == "lan":
            links.append(f"{{name: lan{number}, ends: [h{number}, {', '.join(names)}]}}")
        elif kind == "switch":
            roles[f"s{number}"] = "switch"
            links += [f"[s{number}, {name}]" for name in [f"h{number}", *names]]
        else:
            links += [f"[h{number}, {name}]" for name in names]
    for name in draw(st.lists(st.sampled_from(sorted(roles)), max_size=3, unique=True)):
        if roles[name] != "switch":
            octet = len(links) + sorted(roles).index(name)
            roles[name] = (
                f"{{role: {roles[name]}, loopback: [192.0.2.{octet}/32, 2001:db8::{octet}/128]}}"
            )
    allocate = draw(st.sampled_from(["name", "order", "auto"]))
    draw(st.randoms(use_true_random=False)).shuffle(links)
    lines = [f"defaults: {{addressing: {{allocate: {allocate}}}}}", "nodes:"]
    lines += [f"  {name}: {role}" for name, role in roles.items()]
    lines += ["links:", *(f"  - {link}" for link in links)] if links else []
    return "\n".join(lines) + "\n"


class Walk:
    """Follows packets hop by hop, as the kernels of the nodes would forward them."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.owner: dict[Address, str] = {}
        for node in topology.nodes:
            for address in topology.addresses(node.name):
                self.owner[address] = node.name

    def path(self, source: str, target: Address) -> list[str] | None:
        """Return the nodes a packet visits, or None where it gets lost."""
        node, path = source, [source]
        while self.owner.get(target) != node:
            if node != source and not self.topology.node(node).role.forwards:
                return None
            following = self._next(node, target)
            if following is None or following in path:
                return None
            node = following
            path.append(node)
        return path

    def _next(self, node: str, target: Address) -> str | None:
        best: tuple[int, str | None] = (-1, None)
        for interface in self.topology.interfaces(node):
            for address in interface.addresses:
                if target in address.network and address.network.prefixlen > best[0]:
                    best = (address.network.prefixlen, self._neighbour(interface, target))
        for route in self.topology.node(node).routes:
            if target in route.to and route.to.prefixlen > best[0]:
                best = (route.to.prefixlen, self._via(node, route))
        return best[1]

    def _via(self, node: str, route: Route) -> str | None:
        interface = self.topology.interface(node, route.dev)
        assert any(route.via in address.network for address in interface.addresses), "off link"
        return self._neighbour(interface, route.via)

    def _neighbour(self, interface: Interface, address: Address) -> str | None:
        """Return who has an address in the broadcast domain of an interface."""
        seen: set[tuple[str, str]] = set()
        todo = [interface]
        while todo:
            end = todo.pop()
            for link in self.topology.links:
                for near, far in ((link.a, link.b), (link.b, link.a)):
                    if (near.node, near.name) != (end.node, end.name) or link.name in seen:
                        continue
                    seen.add(link.name)  # type: ignore[arg-type]
                    if any(address == own.ip for own in far.addresses):
                        return far.node
                    if self.topology.node(far.node).role is Role.SWITCH:
                        todo += self.topology.interfaces(far.node)
        return None
