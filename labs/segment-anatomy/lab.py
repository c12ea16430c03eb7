"""Anatomy of a segment: every field of an IP packet with TCP in it, printed and live.

The exercise is in guide.md. The packet taken apart is a SYN of 60 octets, given as hexadecimal
digits with both of its checksums printed wrong. It is decoded, sent as it stands, and sent with its
checksums put right, one after the other; then a real conversation is taken apart the same way.
"""

from __future__ import annotations

from dataclasses import replace

from netlab.analysis.frames import Frame
from netlab.analysis.headers import Header, Packet, decode
from netlab.labs import Evidence, Lab, Variation, Verdict, expect, option, sysctl
from netlab.labs.claims import Finding, depends, holds
from netlab.labs.scene import Family, Match, Ready, Stage, address, agent, count, counter
from netlab.model.topology import Topology

PORT = 80
DUMP = (
    "4500003c1c4640004006b1e6c0a80164c0a80165"  # IPv4
    "04d2005000000001" "00000000a0027210fe300000"  # TCP
    "020405b40402080a000000000000000001030307"  # options of TCP
)  # fmt: skip
FIELDS = [
    *("version 4", "header length 5 (20 octets)", "total length 60", "identification 0x1c46"),
    *("DF set", "TTL 64", "protocol 6 (TCP)", "source 192.168.1.100", "destination 192.168.1.101"),
    *("source port 1234", "destination port 80", "sequence number 1", "data offset 10 (40 octets)"),
    *("SYN set", "window 29200", "MSS 1460", "shift 7 (times 128)"),
]
RIGHT = "0x9a5c, 0x4cb3"
OPTIONS_OF_A_SYN = [
    "maximum segment size",
    "SACK permitted",
    "timestamps",
    "no operation",
    "window scale",
]
COUNTED = ("Ip.InHdrErrors", "Tcp.InCsumErrors")

lab = Lab(
    "Anatomy of a segment",
    variations={
        "as-printed": option(inject=True),
        "ip-corrected": option(inject=True, fix="ip"),
        "corrected": option(inject=True, fix="ip,tcp"),
        "live": option(family="ipv4"),
        "live-ipv6": option(family="ipv6"),
        "live-ecn": sysctl("*", "net.ipv4.tcp_ecn", 1),
    },
)
PRINTED = ("as-printed", "ip-corrected", "corrected")
LIVE = ("live", "live-ipv6", "live-ecn")


@lab.scenario
def look_inside(
    stage: Stage,
    *,
    family: Family = "ipv4",
    inject: bool = False,
    dump: str = DUMP,
    fix: str = "",
    reset: bool = False,
    snaplen: int = 65535,
) -> None:
    """A server waits on port 80; it is sent the packet of the guide, or talked to by a client."""
    client, server = stage.node("client"), stage.node("server")
    capture = stage.capture("client:eth0", filter="tcp or ip proto 6", snaplen=snaplen)
    serve = agent(
        "hello", "serve", "--port", PORT, "--address", address(stage.topology, "server", family)
    )
    more = ("--reset",) if reset else ()
    with server.spawn("serve", [*serve, *more], ready=Ready.port(PORT)) as serving:
        count(stage, "before", "server", names=COUNTED)
        if inject:
            # The client's own kernel knows nothing of this SYN and would reset the answer.
            quiet = Match(tcp_flags="rst", mask="rst", dport=PORT)
            mac = stage.topology.interface("server", "eth0").mac
            words = ("--hex", dump, "--interface", "eth0", "--mac", mac)
            fixed = ("--fix", fix) if fix else ()
            with client.hold(quiet):
                seen = counter(stage, "server", "Ip.InReceives")
                client.spawn("inject", agent("injector", "send", *words, *fixed)).wait(10)
                stage.until(
                    lambda: counter(stage, "server", "Ip.InReceives") > seen,
                    timeout=10,
                    what="the packet to reach the server",
                )
        else:
            talking = client.spawn(
                "connect",
                agent(
                    "hello", "connect", address(stage.topology, "server", family), "--port", PORT
                ),
            )
            talking.wait(30)
            serving.wait(30)
        count(stage, "after", "server", names=COUNTED)
    capture.stop()


def printed(seen: Evidence) -> Packet:
    """Return the packet of the guide, decoded."""
    return decode(bytes.fromhex(seen.option("dump")))


def captured(seen: Evidence) -> tuple[Frame, ...]:
    """Return the frames of the conversation."""
    return tuple(f for f in seen.capture("client:eth0").frames if f.packet.header("TCP"))


def tcp(packet: Packet) -> Header:
    """Return the TCP header of a packet that has one."""
    found = packet.header("TCP")
    assert found is not None
    return found


def flags(packet: Packet) -> str:
    """Return the names of the flags that are set, such as "ACK PSH"."""
    return " ".join(f.name for f in tcp(packet).fields if f.bits == 1 and f.value)


def option_names(packet: Packet) -> list[str]:
    """Return the names of the options of TCP in their order."""
    return [header.name for header in packet.options("TCP")]


def answers(seen: Evidence) -> int:
    """Return how many SYN-ACKs the server sent."""
    return sum(segment.is_syn_ack for segment in seen.capture("client:eth0").segments)


@lab.check(on=PRINTED)
def the_dump_is_a_syn_to_port_80(each: Evidence) -> Verdict:
    """Each field says so: from 192.168.1.100 port 1234, number 1, window 29200, MSS 1460, shift 7.

    Fields of checksums aside, of which the next check tells, those that are not named are 0.
    """
    packet = printed(each)
    headers = [packet.header("IPv4"), tcp(packet), *packet.options("TCP")]
    read = [
        f"{field.name} {field.text}"
        for header in headers
        if header is not None
        for field in header.fields
        if field.value and field.name not in ("checksum", "kind", "length")
    ]
    return expect(read, seen_in="the option `dump`").equals(FIELDS)


@lab.check(on=PRINTED)
def both_printed_checksums_are_wrong(each: Evidence) -> Verdict:
    """The dump says 0xb1e6 and 0xfe30; computed anew they are 0x9a5c (IPv4) and 0x4cb3 (TCP)."""
    sums = [s for name in ("IPv4", "TCP") if (s := printed(each).checksum(name)) is not None]
    wrong = expect([s.ok for s in sums], what="right as printed").equals([False, False])
    right = ", ".join("unknown" if s.right is None else f"{s.right:#06x}" for s in sums)
    return wrong & expect(right, what="computed").equals(RIGHT)


@lab.check(on=("as-printed",))
def as_printed_it_ends_in_the_ip_layer(each: Evidence) -> Verdict:
    """The server drops the packet for its IPv4 checksum, counts it, and TCP never hears of it."""
    dropped = expect(each.counted("server", "Ip.InHdrErrors"), what="bad IP headers").equals(1)
    return dropped & expect(answers(each), what="SYN-ACKs").equals(0)


@lab.check(on=("ip-corrected",))
def with_ip_right_it_ends_in_tcp(each: Evidence) -> Verdict:
    """With the IPv4 checksum right, TCP drops the segment for its own, and counts that."""
    passed = expect(each.counted("server", "Ip.InHdrErrors"), what="bad IP headers").equals(0)
    dropped = expect(each.counted("server", "Tcp.InCsumErrors"), what="bad segments").equals(1)
    return passed & dropped & expect(answers(each), what="SYN-ACKs").equals(0)


@lab.check(on=("corrected",))
def with_both_right_the_server_answers(each: Evidence) -> Verdict:
    """With both checksums right the server answers with a SYN-ACK that acknowledges number 2."""
    segments = each.capture("client:eth0").segments
    acknowledged = sorted({s.ack_raw for s in segments if s.is_syn_ack})
    return expect(acknowledged, what="acknowledged by SYN-ACKs").equals([2])


@lab.check(on=LIVE)
def live_checksums_are_right(each: Evidence) -> Verdict:
    """Every checksum of every captured packet is what the decoder computes."""
    sums = [(f.number, s) for f in captured(each) for s in f.packet.checksums]
    wrong = [f"frame {number}: {s.text}" for number, s in sums if s.ok is not True]
    some = expect(len(sums), what="checksums looked at").at_least(8)
    return expect(wrong, what="wrong", seen_in="captures/client.eth0.pcap").equals([]) & some


@lab.check(on=LIVE)
def every_octet_belongs_to_a_field(each: Evidence) -> Verdict:
    """Headers, options and data follow each other without a gap, from first octet to last."""
    gaps: list[str] = []
    for frame in captured(each):
        packet = frame.packet
        explained = sum(header.length for header in packet.headers) + len(packet.payload)
        if packet.cut or packet.odd or explained != frame.length:
            gaps.append(f"frame {frame.number}: {explained} of {frame.length} octets")
    some = expect(len(captured(each)), what="frames looked at").at_least(7)
    return expect(gaps, what="unexplained").equals([]) & some


@lab.check(on=LIVE)
def a_syn_proposes_and_data_use(each: Evidence) -> Verdict:
    """A live SYN has the five options of the dump in its order; data have timestamps alone."""
    packets = [frame.packet for frame in captured(each)]
    syn = each.first((p for p in packets if "SYN" in flags(p)), "a SYN")
    data = each.first((p for p in packets if p.payload), "data")
    padded = ["no operation", "no operation", "timestamps"]
    return expect(option_names(syn), what="SYN").equals(OPTIONS_OF_A_SYN) & expect(
        option_names(data), what="data"
    ).equals(padded)


@lab.check(on=LIVE)
def flags_tell_syn_data_and_fin_apart(each: Evidence) -> Verdict:
    """Data carry ACK and PSH, and both sides end with ACK and FIN."""
    packets = [frame.packet for frame in captured(each)]
    data = [flags(p) for p in packets if p.payload]
    ends = [tcp(p)["source port"].value == PORT for p in packets if flags(p) == "ACK FIN"]
    return expect(data, what="data").equals(["ACK PSH"]) & expect(
        sorted(ends), what="FIN of the server"
    ).equals([False, True])


@lab.check
def an_ecn_syn_sets_two_flags_more(live: Evidence, live_ecn: Evidence) -> Verdict:
    """With tcp_ecn=1 the SYN carries CWR and ECE beside SYN; without, SYN alone."""
    first = [flags(captured(seen)[0].packet) for seen in (live, live_ecn)]
    return expect(first, what="the first SYN, without and with").equals(["SYN", "CWR ECE SYN"])


@lab.figure
def figures(as_printed: Evidence, live: Evidence) -> dict[str, str]:
    """Return the figures of the guide."""
    sums = {s.header: s for s in printed(as_printed).checksums}
    syn = captured(live)[0].packet
    window = next(o["shift"].value for o in syn.options("TCP") if o.name == "window scale")
    return {
        "ip_printed": f"{sums['IPv4'].found:#06x}",
        "ip_right": f"{sums['IPv4'].right or 0:#06x}",
        "tcp_printed": f"{sums['TCP'].found:#06x}",
        "tcp_right": f"{sums['TCP'].right or 0:#06x}",
        "live_isn": str(tcp(syn)["sequence number"].value),
        "live_window": str(tcp(syn)["window"].value),
        "live_shift": str(window),
    }


@lab.claim("C41")
def the_printed_checksums(as_printed: Evidence) -> Finding:
    """Hold both printed checksums against computed ones."""
    sums = printed(as_printed).checksums
    return holds(all(s.ok for s in sums), "; ".join(s.text for s in sums))


@lab.claim("C42")
def sequence_number_one(corrected: Evidence, live: Evidence) -> Finding:
    """See whether a SYN with number 1 is answered."""
    isn = tcp(captured(live)[0].packet)["sequence number"].value
    measured = f"{answers(corrected)} SYN-ACK to a SYN with number 1; a live SYN had {isn}"
    return holds(answers(corrected) > 0, measured)


@lab.claim("C43")
def how_many_flags(live_ecn: Evidence) -> Finding:
    """Count the flags that a live header has room for and those that were seen."""
    packets = [frame.packet for frame in captured(live_ecn)]
    places = [f.name for f in tcp(packets[0]).fields if f.bits == 1]
    seen = {name for p in packets for name in flags(p).split()}
    known = [name for name in places if name in seen]
    return depends(
        "how one counts: 6 control bits of RFC 793, 8 with ECN, 9 with AE",
        f"{len(places)} bits have a name, seen here: {', '.join(known)}",
    )


def offloaded() -> Variation:
    """Leave checksums to a card that does not exist."""

    def change(topology: Topology) -> Topology:
        return replace(topology, links=tuple(replace(k, offloads=True) for k in topology.links))

    return Variation(change, summary="offloads on")


CHANGED = DUMP.replace("7210", "7211")
CORRECTED = DUMP.replace("b1e6", "9a5c").replace("fe30", "4cb3")

lab.fault(
    option(dump=CHANGED),
    on="as-printed",
    breaks=the_dump_is_a_syn_to_port_80,
    also=(both_printed_checksums_are_wrong,),
    name="one bit of the window is another",
)
lab.fault(
    option(dump=CORRECTED),
    on="corrected",
    breaks=both_printed_checksums_are_wrong,
    name="the dump is printed with the right checksums",
)
lab.fault(
    option(fix="ip,tcp"),
    on="as-printed",
    breaks=as_printed_it_ends_in_the_ip_layer,
    name="somebody corrects the packet on its way",
)
lab.fault(
    option(fix="ip,tcp"),
    on="ip-corrected",
    breaks=with_ip_right_it_ends_in_tcp,
    name="the TCP checksum is corrected too",
)
lab.fault(
    option(fix="ip"),
    on="corrected",
    breaks=with_both_right_the_server_answers,
    name="the TCP checksum stays wrong",
)
lab.fault(
    offloaded(), on="live", breaks=live_checksums_are_right, name="checksums are left to the card"
)
lab.fault(
    option(snaplen=60),
    on="live",
    breaks=every_octet_belongs_to_a_field,
    also=(live_checksums_are_right, a_syn_proposes_and_data_use, flags_tell_syn_data_and_fin_apart),
    name="the capture keeps 60 octets of each packet",
)
lab.fault(
    sysctl("*", "net.ipv4.tcp_sack", 0),
    on="live",
    breaks=a_syn_proposes_and_data_use,
    name="SACK is switched off",
)
lab.fault(
    option(reset=True),
    on="live-ipv6",
    breaks=flags_tell_syn_data_and_fin_apart,
    also=(every_octet_belongs_to_a_field, live_checksums_are_right),
    name="the server ends with a reset",
)
lab.fault(
    sysctl("client", "net.ipv4.tcp_ecn", 0),
    on="live-ecn",
    breaks=an_ecn_syn_sets_two_flags_more,
    name="the client does not ask for ECN",
)
