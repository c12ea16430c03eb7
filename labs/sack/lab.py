"""Selective acknowledgement: the receiver says what it has, the sender repeats what it has not.

The exercise is in guide.md; the rules are RFC 2018, RFC 2883 (D-SACK) and RFC 6582 (what is done
without). The router loses five segments of one flight, every second one from the twentieth on.
The client sends that flight at once: its first window is set to 60 segments, more than the server
has room for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from contextlib import ExitStack
from math import sqrt
from signal import SIGUSR1
from statistics import median

from netlab.analysis.headers import Header
from netlab.analysis.segments import Segment
from netlab.errors import CapabilityError, CommandError
from netlab.labs import (
    Evidence,
    Lab,
    Variation,
    Verdict,
    delay,
    expect,
    impair,
    option,
    packets,
    sysctl,
    vary,
)
from netlab.labs.claims import Finding, holds
from netlab.labs.scene import Ready, Running, Stage, address, agent, count, proceed
from netlab.model.impairment import Impairment
from netlab.units import ms

PORT = 5000
OCTETS = 100_000
LOST = (20, 22, 24, 26, 28)
FLIGHT = 60
RTT = 50 * ms
LOSS = 0.01
SIGMAS = 5
"""A binomial count is further from its mean than that once in more than a million runs."""
DEFER = "/proc/sys/net/ipv4/tcp_backlog_ack_defer"
"""Since Linux 6.7: what came while the program was reading is acknowledged by one ACK."""
COUNTED = ("Tcp.InSegs", "Tcp.OutSegs", "Tcp.RetransSegs")


def without_sack() -> Variation:
    """Switch SACK off; without SACK there is no D-SACK either."""
    return sysctl("*", "net.ipv4.tcp_sack", 0)


def lossy() -> Variation:
    """A path of 50 ms that loses one packet in a hundred on the way there.

    The server's buffer and the client's first window have room for a whole transfer, some 620
    segments, so that one flight has several holes.
    """
    there = Impairment(delay=RTT / 2, loss=LOSS)
    return vary(
        impair("far", forward=there, backward=Impairment(delay=RTT / 2)),
        sysctl("server", "net.ipv4.tcp_rmem", "4096 4194304 6291456"),
        lose="",
        transfers=9,
        octets=900_000,
        flight=700,
    )


lab = Lab(
    "Selective acknowledgement",
    variations={
        "sack": vary(),
        "no-sack": without_sack(),
        "recovery-0": sysctl("*", "net.ipv4.tcp_recovery", 0),
        "duplicate": option(lose="", duplicate=True),
        "no-dsack": vary(sysctl("*", "net.ipv4.tcp_dsack", 0), option(lose="", duplicate=True)),
        "rtt-50ms": delay("far", RTT / 2),
        "rtt-50ms-no-sack": vary(delay("far", RTT / 2), without_sack()),
        "lossy": lossy(),
        "lossy-no-sack": vary(lossy(), without_sack()),
    },
)
HOLES = ("sack", "recovery-0", "rtt-50ms")
WITHOUT = ("no-sack", "rtt-50ms-no-sack")
EXACT = (*HOLES, *WITHOUT)


@lab.scenario
def lose_some_of_many(
    stage: Stage,
    *,
    lose: str = ",".join(map(str, LOST)),
    duplicate: bool = False,
    transfers: int = 1,
    octets: int = OCTETS,
    flight: int = FLIGHT,
    read: int = 0,
) -> None:
    """Send some octets through a router that loses segments of them."""
    client, server = stage.node("client"), stage.node("server")
    to = address(stage.topology, "server")
    client.run(["sh", "-c", f"ip route change $(ip route show default) initcwnd {flight}"])
    server.run(["sh", "-c", f"test ! -e {DEFER} || echo 0 >{DEFER}"])  # each segment its SACK
    if transfers == 1:  # many would only fill the disk; their counters tell enough
        stage.capture("client:eth0", filter=f"tcp port {PORT}", snaplen=96)
    # With two processors the ACKs of a program that reads may overtake those that the kernel has
    # sent elsewhere, and the client repeats what it learns too late has arrived.
    common = ("--port", PORT, "--reply", 1, "--congestion", "cubic", "--one-cpu")
    with ExitStack() as stack:
        if transfers > 1:
            count(stage, "before", "client", "server", names=COUNTED)
        if lose:
            stack.enter_context(losing(stage, [int(text) for text in lose.split(",")]))
        words = (*common, "--count", transfers, "--bytes", read or octets)
        words = (*words, "--step") if duplicate else words
        serving = stack.enter_context(
            server.spawn("serve", agent("bulk", "serve", *words), ready=Ready.port(PORT))
        )
        old = stack.enter_context(watch(stage)) if duplicate else None
        words = (*common, "--count", transfers, "--bytes", octets)
        words = (*words, "--step") if transfers == 1 else words
        sending = stack.enter_context(client.spawn("send", agent("bulk", "send", to, *words)))
        if transfers == 1:
            proceed(stage, sending, "send")
            if old:
                proceed(stage, serving, "read")
            proceed(stage, sending, "close", go=False)
            if old:
                stage.until(lambda: "kept" in old.stdout, timeout=10, what="a copy")
                old.signal(SIGUSR1)
                old.wait(30)
            stage.snapshot("done", "client")
            proceed(stage, sending, "close")
            if old:
                proceed(stage, serving, "close")
        sending.wait(90)
        serving.wait(30)
        if transfers > 1:
            stage.settle(RTT, because="copies of what has arrived may still be on the way")
            count(stage, "after", "client", "server", names=COUNTED)


@contextlib.contextmanager
def losing(stage: Stage, ordinals: list[int]) -> Generator[None]:
    """Lose full segments to the server by their ordinals, from 0, at the router; each once.

    By nftables, or by iptables-legacy where the kernel has no nftables of family inet. There each
    rule counts what the rules before it have let pass.
    """
    router = stage.node("router")
    verdicts = ", ".join(f"{ordinal} : drop" for ordinal in ordinals)
    rule = f"tcp dport {PORT} meta length > 1000 numgen inc mod 1000000 vmap {{ {verdicts} }}"
    chain = f"chain pass {{\ntype filter hook forward priority 0\n{rule}\n}}"
    try:
        router.run(["nft", "-f", "-"], input=f"table inet lose {{\n{chain}\n}}\n")
    except CommandError:
        full = f"-p tcp --dport {PORT} -m length --length 1000: -m statistic --mode nth"
        for before, ordinal in enumerate(ordinals):
            nth = f"--every 1000000 --packet {ordinal - before} -j DROP"
            words = ["iptables-legacy", "-w", "-A", "FORWARD", *full.split(), *nth.split()]
            try:
                router.run(words)
            except CommandError as error:
                raise CapabilityError(
                    f"chosen packets cannot be lost here: {error}", hint="install nftables"
                ) from None
    yield


def watch(stage: Stage) -> Running:
    """Start the program that keeps a copy of the first segment of data, to send it again."""
    mac = stage.topology.interface("router", "eth0").mac
    words = ("--interface", "eth0", "--dport", PORT, "--mac", mac, "--same")
    return stage.node("client").spawn(
        "replay", agent("injector", "replay", *words), ready=Ready.line("watching")
    )


def segments(seen: Evidence) -> tuple[Segment, ...]:
    """Return what the client's interface saw of the first connection."""
    found = seen.capture("client:eth0").on_port(PORT)
    return tuple(s for s in found if s.stream == found[0].stream)


def lost(seen: Evidence) -> list[int]:
    """Return the numbers of the segments that the router lost, by their ordinals."""
    full = [s.seq_raw for s in segments(seen) if s.forward and s.length > 1000 - 52]
    ordinals = [int(text) for text in seen.option("lose").split(",") if text]
    return [full[ordinal] for ordinal in ordinals if ordinal < len(full)]


def repeated(seen: Evidence) -> list[Segment]:
    """Return the segments of data that the client sent a second time, in their order."""
    known: set[int] = set()
    again: list[Segment] = []
    for segment in segments(seen):
        if segment.forward and segment.length:
            if segment.seq_raw in known:
                again.append(segment)
            known.add(segment.seq_raw)
    return again


def blocks(option: Header) -> list[tuple[int, int]]:
    """Return the edges of the blocks in a SACK option."""
    edges = [field.value for field in option.fields if "edge" in field.name]
    return list(zip(edges[::2], edges[1::2], strict=True))


def sacks(seen: Evidence) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """Return (frame, acknowledgment number, blocks) of the server's ACKs with SACK blocks."""
    first = {s.frame for s in segments(seen)}
    found: list[tuple[int, int, list[tuple[int, int]]]] = []
    for frame in seen.capture("client:eth0").frames:
        tcp = frame.packet.header("TCP")
        if tcp is None or frame.number not in first or tcp["source port"].value != PORT:
            continue
        number = tcp["acknowledgment number"].value
        said = [blocks(part) for part in frame.packet.options("TCP") if part.name == "SACK"]
        found += [(frame.number, number, edges) for edges in said]
    return found


def after(number: int, other: int) -> bool:
    """Tell whether a sequence number lies behind another or is the same, modulo 2^32."""
    return (number - other) % 2**32 < 2**31


def repair(seen: Evidence) -> float:
    """Return the seconds from the first retransmission of a hole to that of the last one."""
    holes = set(lost(seen))
    times = [s.time_ns for s in repeated(seen) if s.seq_raw in holes]
    return (max(times) - seen.first(times, "a retransmission")) / 1e9


@lab.check
def the_data_arrive_whole(each: Evidence) -> Verdict:
    """Whatever is lost, the server receives every octet once, in order and unchanged."""
    received = [s for s in each.steps("server", "serve") if s.word == "received"]
    found = {(s["bytes"], s["as_sent"]) for s in received}
    many = expect(len(received), what="transfers").equals(each.option("transfers"))
    return many & expect(found, what="octets, as sent").equals({(each.option("octets"), True)})


@lab.check(on=HOLES)
def blocks_name_what_arrived(each: Evidence) -> Verdict:
    """SACK blocks, at most three beside a timestamp, never cover a segment that is missing."""
    missing = lost(each)
    mended = {s.seq_raw: s.frame for s in repeated(each)}
    wrong: list[str] = []
    most = 0
    for frame, _, found in sacks(each):
        most = max(most, len(found))
        for hole in missing:
            covers = any(after(hole, left) and not after(hole, right) for left, right in found)
            if covers and frame < mended.get(hole, 1 << 62):
                wrong.append(f"frame {frame}")
    return (
        expect(len(sacks(each)), what="ACKs with blocks").at_least(len(LOST))
        & expect(most, what="most blocks").equals(3)
        & expect(wrong, what="blocks over a hole").equals([])
    )


@lab.check(on=HOLES, timing=True)
def only_what_was_lost_is_sent_again(each: Evidence) -> Verdict:
    """With SACK the client repeats the five lost segments, each once, and nothing else."""
    again = [s.seq_raw for s in repeated(each)]
    places = [lost(each).index(number) if number in lost(each) else -1 for number in again]
    seen = packets("client:eth0", repeated(each))
    wanted = list(range(len(LOST)))
    return expect(places, what="repeated, of the lost ones", seen_in=seen).equals(wanted)


@lab.check(on=WITHOUT)
def without_sack_nobody_says_more(each: Evidence) -> Verdict:
    """Switched off, no SYN permits it and no ACK has a block."""
    permitted = [s.sack_permitted for s in segments(each) if s.flags & 0x02]
    return expect(permitted, what="permitted").equals([False, False]) & expect(
        len(sacks(each)), what="ACKs with blocks"
    ).equals(0)


@lab.check(on=EXACT)
def kernel_and_capture_count_alike(each: Evidence) -> Verdict:
    """`ss -ti` counts as many retransmitted octets (bytes_retrans) as the capture shows."""
    sockets = each.snapshot("done", "client")
    shown = each.first((s for s in sockets if s.peer.port == PORT), "the connection")
    return expect(shown.number("bytes_retrans"), "B", what="bytes_retrans").equals(
        sum(s.length for s in repeated(each))
    )


@lab.check(timing=True)
def five_holes_take_one_rtt_or_four(rtt_50ms: Evidence, rtt_50ms_no_sack: Evidence) -> Verdict:
    """With SACK all holes are mended within one RTT of 50 ms; without, one hole per RTT: four."""
    return expect(repair(rtt_50ms), "s", what="with").below(RTT) & expect(
        repair(rtt_50ms_no_sack), "s", what="without"
    ).between(0.98 * (len(LOST) - 1) * RTT, 2 * len(LOST) * RTT)


@lab.check
def a_duplicate_is_reported(duplicate: Evidence, no_dsack: Evidence) -> Verdict:
    """An old segment that comes again is named in a first block below the acknowledgment number."""
    told = [
        sum(
            found[0][0] == copied(seen) and after(number, found[0][1])
            for _, number, found in sacks(seen)
            if found
        )
        for seen in (duplicate, no_dsack)
    ]
    return expect(told, what="D-SACKs with tcp_dsack 1 and 0").equals([1, 0])


def copied(seen: Evidence) -> int:
    """Return the number of the segment that was sent again: the first one with data."""
    data = (s.seq_raw for s in segments(seen) if s.forward and s.length)
    return seen.first(data, "a segment with data")


def sent_again(seen: Evidence) -> int:
    """Return how many segments the client's kernel sent again."""
    return seen.counted("client", "Tcp.RetransSegs") or 0


def sent_and_lost(seen: Evidence) -> tuple[int, int]:
    """Return how many segments the client sent, copies included, and how many never arrived."""
    sent = (seen.counted("client", "Tcp.OutSegs") or 0) + sent_again(seen)  # OutSegs has no copies
    return sent, sent - (seen.counted("server", "Tcp.InSegs") or 0)


@lab.check(on=("lossy", "lossy-no-sack"))
def one_packet_in_a_hundred_is_lost(each: Evidence) -> Verdict:
    """Of what the client's kernel sent, the server's lacks 1 %, by five standard deviations."""
    sent, lost = sent_and_lost(each)
    mean = LOSS * sent
    spread = SIGMAS * sqrt(mean * (1 - LOSS))
    return expect(lost, what=f"lost of {sent:,}").between(mean - spread, mean + spread)


@lab.check(timing=True)
def by_chance_too_sack_repeats_only_what_was_lost(lossy: Evidence) -> Verdict:
    """With SACK no more segments are sent again than were lost."""
    _, lost = sent_and_lost(lossy)
    return expect(sent_again(lossy), what="sent again").at_most(lost)


def seconds(seen: Evidence) -> float:
    """Return the median of the seconds that the transfers of a run took."""
    took = [s["seconds"] for s in seen.steps("server", "serve") if s.word == "received"]
    return median(took)


@lab.check(timing=True)
def by_chance_too_sack_is_faster(lossy: Evidence, lossy_no_sack: Evidence) -> Verdict:
    """Of nine transfers with six losses each the median is shorter with SACK, by an RTT at least.

    Without, each hole takes a round trip. For the medians to be closer, five of nine transfers
    must lose two segments or fewer (Poisson: once in 18,000 runs), and as many with SACK must lose
    one that was sent again (once in 10,000).
    """
    saved = seconds(lossy_no_sack) - seconds(lossy)
    return expect(saved, "s", what="saved").at_least(RTT)


@lab.figure
def figures(
    sack: Evidence,
    no_sack: Evidence,
    rtt_50ms: Evidence,
    rtt_50ms_no_sack: Evidence,
    lossy: Evidence,
    lossy_no_sack: Evidence,
) -> dict[str, str]:
    """Return the figures of the guide."""
    return {
        "acks_with_blocks": str(len(sacks(sack))),
        "repeated": str(len(repeated(sack))),
        "repeated_octets": f"{sum(s.length for s in repeated(sack)):,}",
        "repeated_without": str(len(repeated(no_sack))),
        "repair": f"{repair(rtt_50ms) * 1e3:.1f} ms",
        "repair_without": f"{repair(rtt_50ms_no_sack) * 1e3:.1f} ms",
        "median": f"{seconds(lossy):.3f} s",
        "median_without": f"{seconds(lossy_no_sack):.3f} s",
        "lost": str(sent_and_lost(lossy)[1]),
        "lost_without": str(sent_and_lost(lossy_no_sack)[1]),
        "again": str(sent_again(lossy)),
        "again_without": str(sent_again(lossy_no_sack)),
    }


@lab.claim("C49")
def only_the_lost(sack: Evidence, no_sack: Evidence) -> Finding:
    """Compare what was lost with what was sent again."""
    again = [s.seq_raw for s in repeated(sack)]
    return holds(
        again == lost(sack),
        f"{len(lost(sack))} segments lost, {len(again)} sent again with SACK, "
        f"{len(repeated(no_sack))} without",
    )


lab.fault(
    option(read=OCTETS // 2),
    on="duplicate",
    breaks=the_data_arrive_whole,
    also=(a_duplicate_is_reported,),
    name="the server reads half of it",
)
lab.fault(
    option(lose="20,21,22,23,24"),
    on="sack",
    breaks=blocks_name_what_arrived,
    name="the five lost segments are neighbours",
)
lab.fault(
    option(lose="20,22,24,26,28,30"),
    on="sack",
    breaks=only_what_was_lost_is_sent_again,
    name="a sixth segment is lost",
)
lab.fault(
    sysctl("*", "net.ipv4.tcp_sack", 1),
    on="no-sack",
    breaks=without_sack_nobody_says_more,
    name="SACK is on after all",
)
lab.fault(
    option(duplicate=True),
    on="no-sack",
    breaks=kernel_and_capture_count_alike,
    name="somebody else repeats a segment",
)
lab.fault(
    sysctl("*", "net.ipv4.tcp_sack", 1),
    on="rtt-50ms-no-sack",
    breaks=five_holes_take_one_rtt_or_four,
    also=(without_sack_nobody_says_more,),
    name="SACK is on after all, on the long path",
)
lab.fault(
    sysctl("*", "net.ipv4.tcp_dsack", 0),
    on="duplicate",
    breaks=a_duplicate_is_reported,
    name="duplicates are not reported",
)
lab.fault(
    impair("far", forward=Impairment(delay=RTT / 2)),
    on="lossy",
    breaks=one_packet_in_a_hundred_is_lost,
    name="nothing is lost",
)
lab.fault(
    impair(
        "far",
        forward=Impairment(delay=RTT / 2, jitter=RTT / 3, jitter_reorders=True, loss=LOSS),
        backward=Impairment(delay=RTT / 2),
    ),
    on="lossy",
    breaks=by_chance_too_sack_repeats_only_what_was_lost,
    name="packets overtake each other",
)
lab.fault(
    delay("far", 4 * RTT),
    on="lossy",
    breaks=by_chance_too_sack_is_faster,
    name="the path with SACK is eight times as long",
)
