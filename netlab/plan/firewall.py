"""A node's firewall in the languages of nftables and of iptables: text in, nothing done.

Both say the same, rule by rule, so that a kernel without the one gets the other. What a node has is
replaced as a whole: `nft -f` and `iptables-restore` do that in one step.
"""

from __future__ import annotations

from collections.abc import Iterator

from netlab.model.firewall import DIRECTIONS, ICMP, Firewall, Nat, Rule

TABLE = "netlab"
_HOOKS = {"in": "input", "out": "output", "forward": "forward"}
_IP = {4: "ip", 6: "ip6"}


def nft(firewall: Firewall) -> str:
    """Return a script for `nft -f` that makes this the firewall of a node."""
    lines = [f"table inet {TABLE}", f"delete table inet {TABLE}"]
    if not firewall:
        return "\n".join(lines) + "\n"
    lines.append(f"table inet {TABLE} {{")
    for direction in DIRECTIONS:
        rules = [r for rule in firewall.rules if rule.direction == direction for r in _nft(rule)]
        if firewall.nat is not None:
            rules += _nft_unsolicited(firewall.nat, direction)
        if rules:
            hook = f"type filter hook {_HOOKS[direction]} priority 0; policy accept;"
            lines += _nft_chain(direction, hook, rules)
    if firewall.nat is not None:
        hook = "type nat hook postrouting priority 100; policy accept;"
        outside = _nft_names(firewall.nat.outside)
        rule = f"meta nfproto ipv4 oifname {outside} counter masquerade"
        lines += _nft_chain("translate", hook, [rule])
    return "\n".join([*lines, "}"]) + "\n"


def _nft_chain(name: str, hook: str, rules: list[str]) -> list[str]:
    # `in` and the like are words of the language, so the names of chains have a prefix.
    return [f"  chain netlab-{name} {{", f"    {hook}", *(f"    {rule}" for rule in rules), "  }"]


def _nft_names(interfaces: tuple[str, ...]) -> str:
    return "{ " + ", ".join(f'"{name}"' for name in interfaces) + " }"


def _nft_unsolicited(nat: Nat, direction: str) -> list[str]:
    if direction == "out" or nat.unsolicited == "accept":
        return []
    outside = f"iifname {_nft_names(nat.outside)}"
    matches = [f"{outside} ct state {{ new, invalid }}"]
    if direction == "forward":
        matches.append("ct state invalid")
    found: list[str] = []
    for match in matches:
        if nat.unsolicited == "reset":
            found.append(f"{match} meta l4proto tcp counter reject with tcp reset")
        rest = "drop" if nat.unsolicited == "drop" else "reject"
        found.append(f"{match} counter {rest}")
    return found


def _nft(rule: Rule) -> Iterator[str]:
    """Return the rules of nftables that one rule needs: one for each kind of ICMP it names."""
    if rule.nft:
        yield rule.nft
        return
    if rule.kind != "icmp":
        yield from _nft_decide(_nft_match(rule), rule)
        return
    for version in rule.versions:
        match = _nft_match(rule)
        match.append("icmp" if version == 4 else "icmpv6")
        if rule.icmp:
            (kind, code), kind_ipv6 = ICMP[rule.icmp]
            match += ["type", str(kind if version == 4 else kind_ipv6)]
            if code is not None and version == 4:
                match += ["icmp", "code", str(code)]
        else:
            match[-1:] = ["meta l4proto", "icmp" if version == 4 else "ipv6-icmp"]
        yield from _nft_decide(match, rule)


def _nft_match(rule: Rule) -> list[str]:
    match: list[str] = []
    if rule.interface:
        match += ["oifname" if rule.direction == "out" else "iifname", f'"{rule.interface}"']
    if len(rule.versions) == 1 and rule.kind != "icmp":
        match += ["meta nfproto", f"ipv{rule.versions[0]}"]
    if rule.source is not None:
        match += [_IP[rule.source.version], "saddr", str(rule.source)]
    if rule.destination is not None:
        match += [_IP[rule.destination.version], "daddr", str(rule.destination)]
    if rule.kind in ("tcp", "udp"):
        match += ["meta l4proto", rule.kind]
        for word, ranges in (("sport", rule.source_port), ("dport", rule.port)):
            if ranges:
                ports = ", ".join(_range(pair, "-") for pair in ranges)
                match += [rule.kind, word, f"{{ {ports} }}"]
    if rule.flags:
        mask, wanted = _flags(rule)
        match.append(f"tcp flags & ({' | '.join(mask)}) == {' | '.join(wanted) or '0x0'}")
    return match


def _nft_decide(match: list[str], rule: Rule) -> Iterator[str]:
    said = " ".join(match)
    start = f"{said} " if said else ""
    match rule.action:
        case "reset":
            yield f"{start}counter reject with tcp reset"
        case "limit":
            rate = f"limit rate {rule.rate}/second burst {rule.burst} packets"
            yield f"{start}{rate} counter accept"
            yield f"{start}counter drop"
        case "clamp-mss":
            size = str(rule.mss) if rule.mss else "rt mtu"
            yield f"{start}tcp flags & (syn | rst) == syn counter tcp option maxseg size set {size}"
        case action:
            yield f"{start}counter {action}"


def _range(pair: tuple[int, int], dash: str) -> str:
    first, last = pair
    return str(first) if first == last else f"{first}{dash}{last}"


def _flags(rule: Rule) -> tuple[list[str], list[str]]:
    return [f.lstrip("!") for f in rule.flags], [f for f in rule.flags if not f.startswith("!")]


def iptables(firewall: Firewall, version: int) -> str | None:
    """Return the input of `iptables-restore` for IPv4 or IPv6, None for what it cannot say."""
    if any(rule.nft for rule in firewall.rules):
        return None
    tables: dict[str, list[str]] = {"filter": [], "mangle": [], "nat": []}
    for rule in firewall.rules:
        if version in rule.versions:
            table = "mangle" if rule.action == "clamp-mss" else "filter"
            tables[table] += _iptables(rule, version)
    if firewall.nat is not None:
        tables["filter"] += _unsolicited(firewall.nat)
        if version == 4:
            tables["nat"] = [
                f"-A POSTROUTING -o {name} -j MASQUERADE" for name in firewall.nat.outside
            ]
    lines: list[str] = []
    for table, rules in tables.items():
        # The table of rules is always written, so that it is emptied; others only with rules.
        if rules or table == "filter":
            lines += [f"*{table}", *rules, "COMMIT"]
    return "\n".join(lines) + "\n"


def _iptables(rule: Rule, version: int) -> Iterator[str]:
    words = ["-A", _HOOKS[rule.direction].upper()]
    if rule.interface:
        words += ["-o" if rule.direction == "out" else "-i", rule.interface]
    if rule.source is not None:
        words += ["-s", str(rule.source)]
    if rule.destination is not None:
        words += ["-d", str(rule.destination)]
    if rule.kind:
        words += ["-p", "ipv6-icmp" if rule.kind == "icmp" and version == 6 else rule.kind]
    for option, ranges in (("--sports", rule.source_port), ("--dports", rule.port)):
        if ranges:
            words += ["-m", "multiport", option, ",".join(_range(pair, ":") for pair in ranges)]
    if rule.flags:
        mask, wanted = _flags(rule)
        words += ["--tcp-flags", ",".join(mask).upper(), ",".join(wanted).upper() or "NONE"]
    if rule.icmp:
        (kind, code), kind_ipv6 = ICMP[rule.icmp]
        if version == 6:
            words += ["--icmpv6-type", str(kind_ipv6)]
        else:
            words += ["--icmp-type", str(kind) if code is None else f"{kind}/{code}"]
    start = " ".join(words)
    match rule.action:
        case "reset":
            yield f"{start} -j REJECT --reject-with tcp-reset"
        case "limit":
            yield f"{start} -m limit --limit {rule.rate}/sec --limit-burst {rule.burst} -j ACCEPT"
            yield f"{start} -j DROP"
        case "clamp-mss":
            size = f"--set-mss {rule.mss}" if rule.mss else "--clamp-mss-to-pmtu"
            syn = "" if rule.flags else " --tcp-flags SYN,RST SYN"
            yield f"{start}{syn} -j TCPMSS {size}"
        case action:
            yield f"{start} -j {action.upper()}"


def _unsolicited(nat: Nat) -> Iterator[str]:
    if nat.unsolicited == "accept":
        return
    state = "-m conntrack --ctstate"
    matches = [f"-A {c} -i {n} {state} NEW,INVALID" for n in nat.outside for c in _IN]
    for match in [*matches, f"-A FORWARD {state} INVALID"]:
        if nat.unsolicited == "reset":
            yield match.replace(f" {state}", f" -p tcp {state}") + (
                " -j REJECT --reject-with tcp-reset"
            )
        yield f"{match} -j {'DROP' if nat.unsolicited == 'drop' else 'REJECT'}"


_IN = ("INPUT", "FORWARD")
