"""The timestamps option: a clock in every segment, an RTT from every ACK, old segments told apart.

The exercise is in guide.md; the rules are RFC 7323 §3 to §5. A client sends three parts. After the
second an old segment, a copy of the first one with its sequence number moved to the start of the
third, is put on the wire: so it looks when 2^32 numbers have gone by and a straggler arrives.
"""

from __future__ import annotations

from contextlib import ExitStack
from signal import SIGUSR1

from netlab.analysis.segments import SYN, Segment
from netlab.labs import Evidence, Lab, Verdict, expect, option, sysctl, vary
from netlab.labs.claims import Finding, holds
from netlab.labs.scene import Ready, Running, Stage, address, agent, count, counter, proceed, wired
from netlab.units import ms

PORT = 5000
PART = 10_000
PARTS = 3
WRONG = 7
"""What a disturbed path writes into TSecr."""
COUNTED = ("TcpExt.PAWSEstab",)

lab = Lab(
    "The timestamps option",
    variations={
        "on": vary(),
        "no-offset": sysctl("*", "net.ipv4.tcp_timestamps", 2),
        "off": sysctl("*", "net.ipv4.tcp_timestamps", 0),
    },
)
WITH = ("on", "no-offset")


@lab.scenario
def send_three_parts(
    stage: Stage,
    *,
    replay: bool = True,
    fresh: bool = False,
    stray: bool = False,
    disturb: bool = False,
) -> None:
    """Send three parts; between the second and the third an old segment turns up again."""
    client, server = stage.node("client"), stage.node("server")
    to = address(stage.topology, "server")
    mac = stage.topology.interface("server", "eth0").mac
    capture = stage.capture("client:eth0", filter=f"tcp port {PORT}", snaplen=100)
    with ExitStack() as stack:
        if disturb:
            rule = f"tcp sport {PORT} tcp flags & syn == 0 tcp option timestamp tsecr set {WRONG}"
            chain = f"chain out {{\ntype filter hook output priority 0\n{rule}\n}}"
            stack.enter_context(
                wired(stage, "disturb", f"table inet disturb {{\n{chain}\n}}\n", "server")
            )
        pinned = ("--port", PORT, "--congestion", "cubic")
        serving = stack.enter_context(
            server.spawn("serve", agent("bulk", "serve", *pinned), ready=Ready.port(PORT))
        )
        watch = ("--interface", "eth0", "--dport", PORT, "--mac", mac)
        words = agent("injector", "replay", *watch, *(("--fresh",) if fresh else ()))
        old = stack.enter_context(client.spawn("replay", words, ready=Ready.line("watching")))
        count(stage, "before", "server", names=COUNTED)
        parts = ("--bytes", PART, "--parts", PARTS, "--step", "--drain")
        send = agent("bulk", "send", to, *pinned, *parts)
        sending = stack.enter_context(client.spawn("send", send))
        proceed(stage, sending, "send")
        proceed(stage, sending, "part 2", go=False)
        stage.settle(20 * ms, because="the clock of timestamps must go on: it ticks once a ms")
        proceed(stage, sending, "part 2")
        proceed(stage, sending, "part 3", go=False)
        if replay:
            proceed_replay(stage, old)
        if stray:
            ends = ("--source", address(stage.topology, "client"), "--destination", to)
            plain = ("tcp", "--flags", "ack", "--sport", 4000, "--dport", PORT)
            client.spawn("stray", agent("injector", "send", *ends, *plain)).wait(10)
        proceed(stage, sending, "part 3")
        proceed(stage, sending, "close")
        sending.wait(30)
        serving.wait(30)
        count(stage, "after", "server", names=COUNTED)
        if not replay:
            old.stop()
    capture.stop()


def proceed_replay(stage: Stage, old: Running) -> None:
    """Let the old segment out, and wait until the server has received it."""
    stage.until(lambda: "kept" in old.stdout, timeout=10, what="a copy of the first segment")
    before = counter(stage, "server", "Ip.InReceives")
    old.signal(SIGUSR1)
    old.wait(30)
    stage.until(
        lambda: counter(stage, "server", "Ip.InReceives") > before,
        timeout=10,
        what="the old segment to reach the server",
    )


def segments(seen: Evidence) -> tuple[Segment, ...]:
    """Return what the client's interface saw."""
    return seen.capture("client:eth0").on_port(PORT)


def samples(seen: Evidence) -> list[float | None]:
    """Return an RTT in seconds for each ACK of new data at the client; None where TSecr gives none.

    An echo is that of the segment which begins where the ACK before has ended (RFC 7323 §4.3), so
    the first one that an ACK answers, not the last.
    """
    born: dict[tuple[int, int], int] = {}
    found: list[float | None] = []
    highest = 1
    for segment in segments(seen):
        if segment.forward and segment.tsval is not None:
            born.setdefault((segment.seq, segment.tsval), segment.time_ns)
        elif not segment.forward and segment.ack > highest and not segment.flags & SYN:
            sent = None if segment.tsecr is None else born.get((highest, segment.tsecr))
            found.append(None if sent is None else (segment.time_ns - sent) / 1e9)
            highest = segment.ack
    return found


def clocks_apart(seen: Evidence) -> int:
    """Return by how many ticks the clocks in SYN and SYN-ACK differ, either way round."""
    syn = seen.first((s for s in segments(seen) if s.is_syn), "a SYN")
    syn_ack = seen.first((s for s in segments(seen) if s.is_syn_ack), "a SYN-ACK")
    apart = ((syn_ack.tsval or 0) - (syn.tsval or 0)) % 2**32
    return min(apart, 2**32 - apart)


@lab.check(on=WITH)
def every_segment_carries_the_clock(each: Evidence) -> Verdict:
    """Once both SYNs had it, every segment carries the option, and data at most 1448 octets."""
    bare = [f"frame {s.frame}" for s in segments(each) if s.tsval is None]
    largest = max(s.length for s in segments(each))
    lengths = {
        option.length
        for frame in each.capture("client:eth0").frames
        for option in frame.packet.options("TCP")
        if option.name == "timestamps"
    }
    return (
        expect(bare, what="without").equals([])
        & expect(sorted(lengths), what="octets of the option").equals([10])
        & expect(largest, "B", what="largest segment").equals(1448)
    )


@lab.check
def switched_off_there_is_none(off: Evidence) -> Verdict:
    """With tcp_timestamps=0 no segment carries the option, and a full one holds 1460 octets."""
    stamped = [f"frame {s.frame}" for s in segments(off) if s.tsval is not None]
    largest = max(s.length for s in segments(off))
    return expect(stamped, what="with a timestamp").equals([]) & expect(
        largest, "B", what="largest segment"
    ).equals(1460)


@lab.check(on=WITH)
def every_ack_gives_an_rtt(each: Evidence) -> Verdict:
    """Each ACK of new data echoes the TSval of the first segment that it answers."""
    found = samples(each)
    useless = sum(sample is None for sample in found)
    return expect(useless, what="ACKs without an RTT").equals(0) & expect(
        len(found), what="RTTs"
    ).at_least(PARTS)


@lab.check(on=WITH)
def an_old_segment_is_dropped(each: Evidence) -> Verdict:
    """The server drops the old copy for its timestamp (PAWSEstab), and receives what was sent."""
    dropped = each.counted("server", "TcpExt.PAWSEstab")
    received = each.step("server", "serve", "received")
    return expect(dropped, what="PAWSEstab").equals(1) & expect(
        [received["bytes"], received["as_sent"]], what="received, as sent"
    ).equals([PART * PARTS, True])


@lab.check
def without_timestamps_it_is_taken_for_new(off: Evidence) -> Verdict:
    """Without timestamps the old octets are delivered in the place of new ones; nobody notices."""
    received = off.step("server", "serve", "received")
    return expect([received["bytes"], received["as_sent"]], what="received, as sent").equals(
        [PART * PARTS, False]
    )


@lab.check
def the_clock_can_be_hidden(on: Evidence, no_offset: Evidence) -> Verdict:
    """With 1 both ends' clocks differ by an amount of chance, with 2 both show the kernel's own."""
    return expect(clocks_apart(on), what="apart with 1").above(1000) & expect(
        clocks_apart(no_offset), what="apart with 2"
    ).at_most(100)


@lab.figure
def figures(on: Evidence, no_offset: Evidence) -> dict[str, str]:
    """Return the figures of the guide."""
    found = [sample for sample in samples(on) if sample is not None]
    return {
        "samples": str(len(found)),
        "acks": str(len(samples(on))),
        "longest_ms": f"{max(found, default=0) * 1e3:.2f} ms",
        "paws": str(on.counted("server", "TcpExt.PAWSEstab")),
        "apart_on": f"{clocks_apart(on):,}",
        "apart_no_offset": f"{clocks_apart(no_offset):,}",
    }


@lab.claim("C48")
def an_rtt_per_ack(on: Evidence, off: Evidence) -> Finding:
    """Count the ACKs whose TSecr gives an RTT."""
    useful = [sample for sample in samples(on) if sample is not None]
    without = [sample for sample in samples(off) if sample is not None]
    return holds(
        useful and len(useful) == len(samples(on)) and not without,
        f"{len(useful)} of {len(samples(on))} ACKs of new data gave an RTT; without the option "
        f"{len(without)} of {len(samples(off))}",
    )


lab.fault(
    option(stray=True),
    on="on",
    breaks=every_segment_carries_the_clock,
    name="somebody sends a segment without the option",
)
lab.fault(
    sysctl("*", "net.ipv4.tcp_timestamps", 1),
    on="off",
    breaks=switched_off_there_is_none,
    also=(without_timestamps_it_is_taken_for_new,),
    name="timestamps are on after all",
)
lab.fault(
    option(disturb=True),
    on="on",
    breaks=every_ack_gives_an_rtt,
    name="something on the path changes the echo",
)
lab.fault(
    option(fresh=True),
    on="on",
    breaks=an_old_segment_is_dropped,
    name="the copy has a new timestamp",
)
lab.fault(
    option(replay=False),
    on="off",
    breaks=without_timestamps_it_is_taken_for_new,
    name="no straggler turns up",
)
lab.fault(
    sysctl("*", "net.ipv4.tcp_timestamps", 1),
    on="no-offset",
    breaks=the_clock_can_be_hidden,
    name="the clock is hidden after all",
)
