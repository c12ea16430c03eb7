"""A zoo of resets: who sends a RST, when, with which numbers, and what programs are told.

The exercise is in guide.md; the rules are RFC 9293 §3.5.2 (three groups of resets), §3.10.7.1 (an
answer for what belongs to no connection) and §3.10.5 (abort), socket(7) (SO_LINGER), and
tcp_close in net/ipv4/tcp.c (a socket with unread data is reset, RFC 2525 §2.17).
"""

from __future__ import annotations

from contextlib import ExitStack
from signal import SIGKILL, SIGUSR1

from netlab.analysis import ss
from netlab.analysis.segments import Segment
from netlab.labs import Evidence, Lab, Verdict, expect, option, packets, sysctl, vary
from netlab.labs.claims import Finding, holds, untested
from netlab.labs.scene import (
    Match,
    Ready,
    Running,
    Stage,
    address,
    agent,
    counter,
    disguise,
    until_said,
)

OPEN, CLOSED, WALL = 8080, 8081, 8082
PLACES = 2  # of a queue with backlog 1
LATE = 2  # who come when one place is left
NONE = ss.Socket("CLOSED", 0, 0, ss.Endpoint("", None), ss.Endpoint("", None))

# As document 002 has them, and what finds refusals: a RST with ACK whose own number is 0.
BOTH_FLAGS = "tcp[tcpflags] & (tcp-syn|tcp-rst) == (tcp-syn|tcp-rst)"
SYNS = "tcp[tcpflags] & tcp-syn != 0"
REFUSALS = "tcp[tcpflags] & (tcp-rst|tcp-ack) == (tcp-rst|tcp-ack) and tcp[4:4] = 0"

lab = Lab(
    "A zoo of resets",
    variations={
        "closed-port": option(case="refused", port=CLOSED),
        "firewall": option(case="refused", port=WALL),
        "linger-0": option(case="close", server="recv=5 reset", client="send=5 recv=5"),
        "kill-unread": option(
            case="kill", server="wait", client="send=5 wait send=5 send=5", news="CLOSED"
        ),
        "kill-read": option(case="kill", server="recv=5 wait", client="send=5 recv-eof"),
        "write-after-close": option(
            case="close",
            server="recv=5 close",
            client="send=5 wait send=5 wait send=5",
            news="CLOSE-WAIT CLOSED",
        ),
        "reboot": option(
            case="reboot", server="recv=5 wait", client="send=5 wait send=5 recv=5", news="ESTAB"
        ),
        "overflow": vary(sysctl("server", "net.ipv4.tcp_abort_on_overflow", 1), case="overflow"),
        "filters": option(case="filters", port=CLOSED),
    },
    ladder="client:eth0",
)
TOLD = {
    "closed-port": ["ECONNREFUSED"],
    "firewall": ["ECONNREFUSED"],
    "linger-0": ["sent", "ECONNRESET"],
    "kill-unread": ["sent", "ECONNRESET", "EPIPE"],
    "kill-read": ["sent", "end"],
    "write-after-close": ["sent", "sent", "EPIPE"],
    "reboot": ["sent", "sent", "ECONNRESET"],
}
ASKED = ("closed-port", "firewall")  # answers to a segment that acknowledges nothing
ANSWERED = ("write-after-close", "reboot", "overflow")  # to one that does
ABORTED = ("linger-0", "kill-unread")  # not asked for by any segment


@lab.scenario
def meet(
    stage: Stage,
    *,
    case: str = "refused",
    port: int = OPEN,
    server: str = "",
    client: str = "",
    news: str = "",
    disguised: bool = False,
    forged: bool = False,
    lost: str = "psh",
) -> None:
    """Bring about one kind of reset."""
    if disguised:
        packets = f"tcp sport {port} tcp flags & rst == rst"
        disguise(stage, "server", "client", packets, "tcp ackseq")
    capture = stage.capture("client:eth0", filter="tcp")
    if case == "refused":
        knock(stage, port)
    elif case == "overflow":
        overflow(stage)
    elif case == "filters":
        watch(stage, port, forged, lost)
    else:
        converse(stage, case, server.split(), client.split(), news)
    capture.stop()


def knock(stage: Stage, port: int) -> None:
    """Connect to a port where there is nobody."""
    to = address(stage.topology, "server")
    argv = agent("actor", "--address", to, "--port", port, "--keep-going", "connect")
    with stage.node("client").spawn("connect", argv) as connecting:
        connecting.wait(20)


def converse(stage: Stage, case: str, server: list[str], client: list[str], news: str) -> None:
    """Let the client talk to a server that closes, is killed, or whose machine reboots.

    `news` are the states in which the client's end must be before each of its waits is over.
    """
    to = address(stage.topology, "server")
    serve = agent("actor", "--address", to, "listen", "accept", *server)
    talk = agent("actor", "--address", to, "--keep-going", "connect", *client)
    with (
        stage.node("server").spawn("serve", serve, ready=Ready.port(OPEN)) as serving,
        stage.node("client").spawn("connect", talk) as talking,
    ):
        until_said(stage, talking, "sent")
        if case != "close":
            until_said(stage, serving, "waiting")
            stage.until(
                lambda: end(stage, "server").recv_q == 5 or "received" in serving.stdout,
                timeout=10,
                what="the octets to arrive",
            )
            stage.snapshot("before", "client", "server")
        if case == "kill":
            serving.signal(SIGKILL)
        if case == "reboot":
            stage.node("server").reboot()
        serving.wait(10)
        stage.snapshot("half", "client", "server")
        for number, state in enumerate(news.split(), 1):
            stage.until(
                lambda number=number, state=state: (
                    talking.stdout.count("waiting ") == number
                    and end(stage, "client").state == state
                ),
                timeout=10,
                what=f"the client to wait, its end {state}",
            )
            stage.recording.event("speak", at_ns=stage.now_ns())
            talking.signal(SIGUSR1)
        talking.wait(20)


def end(stage: Stage, node: str) -> ss.Socket:
    """Return the connection of a node; one in CLOSED where there is none."""
    shown = ss.parse(stage.node(node).run(["ss", "-tan"]).stdout)
    return next((x for x in shown if x.state != "LISTEN"), NONE)


def overflow(stage: Stage) -> None:
    """Let the queue of a server fill up between its SYN-ACKs and the last ACKs."""
    to = address(stage.topology, "server")
    serve = agent("crowd", "serve", "--address", to, "--backlog", PLACES - 1, "--behave", "never")
    client = stage.node("client")
    ack = Match(tcp_flags="ack", mask="syn,ack,fin,rst", dport=OPEN)
    with ExitStack() as running:
        running.enter_context(stage.node("server").spawn("serve", serve, ready=Ready.port(OPEN)))
        running.enter_context(crowd(stage, "early", to, PLACES - 1))
        with client.hold(ack):
            late = running.enter_context(crowd(stage, "late", to, LATE))
        # The server repeats its SYN-ACKs a second after the first, and they are answered.
        stage.until(
            lambda: counter(stage, "server", "TcpExt.ListenOverflows") > 0,
            timeout=30,
            what="the queue to overflow",
        )
        late.signal(SIGUSR1)
        late.wait(20)


def crowd(stage: Stage, name: str, to: str, count: int) -> Running:
    """Let clients connect at once and stay; return when each has a connection."""
    options = ("--count", count, "--at-once", "--timeout", 1, "--stay")
    come = agent("crowd", "connect", to, *options)
    running = stage.node("client").spawn(name, come)
    until_said(stage, running, "waiting")
    return running


def watch(stage: Stage, port: int, forged: bool, lost: str) -> None:
    """Look through four filters at a refusal, and at a connection that loses one segment."""
    client, server = stage.node("client"), stage.node("server")
    here, there = address(stage.topology, "client"), address(stage.topology, "server")
    seen = [
        stage.capture("client:eth0", name=name, filter=expression)
        for name, expression in (("both", BOTH_FLAGS), ("refusals", REFUSALS), ("syns", SYNS))
    ]
    knock(stage, port)
    if forged:
        ends = ("--source", here, "--destination", there)
        segment = ("--sport", 12345, "--dport", CLOSED, "--flags", "syn,rst")
        client.run(agent("injector", "send", *ends, "tcp", *segment))
    serve = agent("actor", "--address", there, "listen", "accept", "recv=5", "send=5", "recv-eof")
    talk = agent("actor", "--address", there, "connect", "send=5", "recv=5", "close")
    loss = Match(tcp_flags=lost, mask=lost, dport=OPEN, first=True)
    with (
        server.spawn("serve", serve, ready=Ready.port(OPEN)) as serving,
        server.hold(loss, hook="input"),
    ):
        client.spawn("talk", talk).wait(20)
        serving.wait(20)
    for capture in seen:
        capture.stop()


def segments(seen: Evidence) -> tuple[Segment, ...]:
    """Return what the client's interface saw."""
    return seen.capture("client:eth0").segments


def reset(seen: Evidence) -> Segment:
    """Return the first segment with a RST."""
    return seen.first((x for x in segments(seen) if x.rst), "a RST")


def before(seen: Evidence, rst: Segment) -> Segment:
    """Return the last segment that the other side had sent before a reset."""
    other = [x for x in segments(seen) if x.frame < rst.frame and same_but_reversed(x, rst)]
    return seen.first(reversed(other), "what was reset")


def same_but_reversed(a: Segment, b: Segment) -> bool:
    """Tell whether two segments are of one connection, and of different sides."""
    return a.stream == b.stream and a.forward != b.forward


def next_of(seen: Evidence, rst: Segment) -> int:
    """Return the number that the sender of a reset would have used next."""
    numbers = [
        (x.seq_raw + x.length + x.is_syn + x.is_syn_ack + x.fin) % 2**32
        for x in segments(seen)
        if x.stream == rst.stream and x.forward == rst.forward and x.frame < rst.frame
    ]
    return seen.first(reversed(numbers), "what its sender sent before")


def told(seen: Evidence) -> list[str]:
    """Return what the client's program was told: "sent", "end", or the name of an error."""
    found: list[str] = []
    for step in seen.steps("client", "connect"):
        if step.word == "sent":
            found.append("sent")
        elif step.word == "received":
            found.append("end" if step["eof"] else "received")
        elif step.word == "failed":
            found.append(str(step["errno"]))
    return found


@lab.check(on=ASKED)
def a_syn_for_nobody_is_answered_with_number_zero(each: Evidence) -> Verdict:
    """A SYN acknowledges nothing: the RST has number 0 and acknowledges the SYN, RST-ACK."""
    rst = reset(each)
    syn = before(each, rst)
    found = [rst.kind, rst.seq_raw, (rst.ack_raw - syn.seq_raw) % 2**32]
    seen = packets("client:eth0", (syn, rst))
    return expect(found, what="flags, number, acknowledged", seen_in=seen).equals(["RST-ACK", 0, 1])


@lab.check(on=ANSWERED)
def an_ack_for_nobody_is_answered_with_its_own_number(each: Evidence) -> Verdict:
    """The RST takes its number from the acknowledgement it answers, and acknowledges nothing."""
    rst = reset(each)
    asked = before(each, rst)
    found = [rst.kind, (rst.seq_raw - asked.ack_raw) % 2**32]
    verdict = expect(found, what="flags, number less what was acknowledged").equals(["RST", 0])
    return verdict.seen_in(packets("client:eth0", (asked, rst)))


@lab.check(on=ABORTED)
def who_aborts_uses_the_next_number(each: Evidence) -> Verdict:
    """A RST that nobody asked for has the number its sender would have used next, RST-ACK."""
    rst = reset(each)
    found = [rst.kind, (rst.seq_raw - next_of(each, rst)) % 2**32]
    seen = packets("client:eth0", [rst])
    return expect(found, what="flags, number less the next", seen_in=seen).equals(["RST-ACK", 0])


@lab.check(on=tuple(TOLD))
def the_program_is_told_in_time_or_too_late(each: Evidence) -> Verdict:
    """What the client's calls say: refused by connect(), reset by the next call, EPIPE after that.

    A write after the other side has closed succeeds. It is the next one that fails.
    """
    return expect(told(each), what="told").equals(TOLD[each.variation])


@lab.check
def what_was_not_read_decides(kill_unread: Evidence, kill_read: Evidence) -> Verdict:
    """Killed with 5 octets unread the server's kernel sends a RST; with nothing unread, a FIN."""
    found = [(unread(seen), endings(seen)) for seen in (kill_unread, kill_read)]
    return expect(found, what="unread, then sent").equals([(5, ["RST-ACK"]), (0, ["FIN-ACK"])])


def unread(seen: Evidence) -> int:
    """Return how many octets waited at the server for its program."""
    ends = [x for x in seen.snapshot("before", "server") if x.state == "ESTAB"]
    return seen.first(ends, "the server's end").recv_q


def endings(seen: Evidence) -> list[str]:
    """Return the kinds of the server's segments with FIN or RST, up to the client's."""
    found: list[str] = []
    for segment in segments(seen):
        if segment.fin or segment.rst:
            if segment.dport == OPEN:
                break
            found.append(segment.kind)
    return found


@lab.check
def after_a_reboot_one_end_is_left(reboot: Evidence) -> Verdict:
    """A machine that reboots sends no FIN and no RST: the client's end stays in ESTAB, alone."""
    left = [
        [x.state for x in reboot.snapshot("half", node) if x.state != "LISTEN"]
        for node in ("client", "server")
    ]
    since = reboot.event("speak").at_ns
    early = [x.kind for x in segments(reboot) if (x.rst or x.fin) and x.time_ns < since]
    return expect(left, what="client, server").equals([["ESTAB"], []]) & expect(
        early, what="sent by the reboot"
    ).equals([])


@lab.check
def one_too_many_is_reset(overflow: Evidence) -> Verdict:
    """With tcp_abort_on_overflow=1 one of two for whom there is one place finds itself reset."""
    found = overflow.step("client", "late", "found").values
    return expect([found.get("open", 0), found.get("econnreset", 0)], what="open, reset").equals(
        [LATE - 1, 1]
    )


@lab.check
def no_segment_has_both_flags(filters: Evidence) -> Verdict:
    """The filter for SYN and RST in one segment matches nothing, though a SYN was refused."""
    reset(filters)
    matched = filters.capture("both").segments
    return expect([x.kind for x in matched], what="matched").equals([])


@lab.check
def the_right_filter_finds_the_refusal(filters: Evidence) -> Verdict:
    """A filter for RST with ACK and number 0 matches the refusal, and it alone."""
    matched = [(x.kind, x.sport) for x in filters.capture("refusals").segments]
    return expect(matched, what="matched").equals([("RST-ACK", CLOSED)])


@lab.check
def a_filter_for_syns_shows_no_lost_data(filters: Evidence) -> Verdict:
    """One segment with data was sent twice; the filter for SYNs shows neither copy."""
    copies = repeated(filters)
    shown = [x for x in filters.capture("syns").segments if x.length or x.retransmission]
    seen = packets("client:eth0", copies)
    once = expect(len(copies), what="repeated on the wire", seen_in=seen).equals(1)
    return once & expect(len(shown), what="shown").equals(0)


def repeated(seen: Evidence) -> list[Segment]:
    """Return the segments with data that had been sent before."""
    sent: set[tuple[int, int]] = set()
    found: list[Segment] = []
    for segment in segments(seen):
        if segment.length:
            key = (segment.stream, segment.seq_raw)
            found += [segment] if key in sent else []
            sent.add(key)
    return found


@lab.figure
def figures(
    closed_port: Evidence, linger_0: Evidence, kill_unread: Evidence, kill_read: Evidence,
    write_after_close: Evidence, reboot: Evidence, overflow: Evidence, filters: Evidence,
) -> dict[str, str]:  # fmt: skip
    """What the guide tells of the runs."""
    talks = {
        "closed_port": closed_port,
        "linger_0": linger_0,
        "kill_unread": kill_unread,
        "kill_read": kill_read,
        "write_after_close": write_after_close,
        "reboot": reboot,
    }
    refusal, answer, abort = (reset(x) for x in (closed_port, write_after_close, linger_0))
    crowd = overflow.step("client", "late", "found").values
    return {
        **{f"{name}_told": ", ".join(told(seen)) for name, seen in talks.items()},
        "unread": str(unread(kill_unread)),
        "unread_sent": ", ".join(endings(kill_unread)),
        "read_sent": ", ".join(endings(kill_read)),
        "refusal": f"{refusal.kind} seq {refusal.seq_raw} ack {refusal.ack_raw}",
        "refused": str(before(closed_port, refusal).seq_raw),
        "answer": f"{answer.kind} seq {answer.seq_raw}",
        "answered": str(before(write_after_close, answer).ack_raw),
        "abort": f"{abort.kind} seq {abort.seq_raw}",
        "overflow_reset": str(crowd.get("econnreset", 0)),
        "rsts": str(sum(x.rst for x in segments(filters))),
        "both": str(len(filters.capture("both").segments)),
        "refusals": str(len(filters.capture("refusals").segments)),
        "syns": str(len(filters.capture("syns").segments)),
        "repeated": str(len(repeated(filters))),
    }


@lab.claim("C38")
def syn_and_rst_find_refusals(filters: Evidence) -> Finding:
    """A filter for segments with both flags finds refused connections."""
    refused = len([x for x in segments(filters) if x.rst and x.sport == CLOSED])
    found = len(filters.capture("both").segments)
    if not refused:
        return untested("nothing was refused")
    right = len(filters.capture("refusals").segments)
    return holds(found >= refused, f"{found} of {refused} found; `{REFUSALS}` finds {right}")


@lab.claim("C39")
def syns_show_retransmissions(filters: Evidence) -> Finding:
    """A filter for SYNs shows retransmissions."""
    copies = len(repeated(filters))
    if not copies:
        return untested("nothing was repeated")
    shown = filters.capture("syns").segments
    again = sum(bool(x.length or x.retransmission) for x in shown)
    return holds(again >= copies, f"{again} of {copies} shown, and {len(shown)} that are none")


@lab.claim("C66")
def sending_to_who_has_closed(write_after_close: Evidence) -> Finding:
    """Sending to a peer that has closed is answered with a reset."""
    rst = reset(write_after_close)
    sent = before(write_after_close, rst)
    return holds(
        sent.length > 0,
        f"{sent.length} octets answered by {rst.kind}; told: {', '.join(told(write_after_close))}",
    )


lab.fault(
    option(disguised=True),
    on="closed-port",
    breaks=a_syn_for_nobody_is_answered_with_number_zero,
    name="something on the path changes acknowledgements",
)
lab.fault(
    option(case="close", server="recv=5 reset", news="CLOSED", client="send=5 wait send=5"),
    on="write-after-close",
    breaks=an_ack_for_nobody_is_answered_with_its_own_number,
    also=(the_program_is_told_in_time_or_too_late,),
    name="the server aborts",
)
lab.fault(
    option(server="recv=5 close", client="send=5 wait send=5 recv=5", news="CLOSE-WAIT"),
    on="linger-0",
    breaks=who_aborts_uses_the_next_number,
    also=(the_program_is_told_in_time_or_too_late,),
    name="the server closes without SO_LINGER",
)
lab.fault(
    option(client="send=5 recv=5 send=5"),
    on="linger-0",
    breaks=the_program_is_told_in_time_or_too_late,
    name="the client writes once more",
)
lab.fault(
    option(server="recv=5 wait", news="CLOSE-WAIT"),
    on="kill-unread",
    breaks=what_was_not_read_decides,
    also=(who_aborts_uses_the_next_number, the_program_is_told_in_time_or_too_late),
    name="the server has read everything",
)
lab.fault(
    option(case="kill", news="CLOSE-WAIT"),
    on="reboot",
    breaks=after_a_reboot_one_end_is_left,
    also=(the_program_is_told_in_time_or_too_late,),
    name="the program dies, not the machine",
)
lab.fault(
    sysctl("server", "net.ipv4.tcp_abort_on_overflow", 0),
    on="overflow",
    breaks=one_too_many_is_reset,
    also=(an_ack_for_nobody_is_answered_with_its_own_number,),
)
lab.fault(
    option(forged=True),
    on="filters",
    breaks=no_segment_has_both_flags,
    name="somebody forges a segment with both flags",
)
lab.fault(
    option(port=WALL),
    on="filters",
    breaks=the_right_filter_finds_the_refusal,
    name="it is another port that is refused",
)
lab.fault(
    option(lost="syn"),
    on="filters",
    breaks=a_filter_for_syns_shows_no_lost_data,
    name="it is the SYN that is lost",
)
