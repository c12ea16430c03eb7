"""`netlab tc show|set|reset`: the impairments of a lab that runs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from netlab.errors import UsageError

if TYPE_CHECKING:
    from netlab.engine.live import Direction
    from netlab.engine.state import Lab

Json = dict[str, Any]


_WORDS = (
    ("delay", "One way, such as 20ms."),
    ("jitter", "How much the delay varies."),
    ("distribution", "How it varies: uniform, normal, pareto, paretonormal."),
    ("loss", "Share of packets lost, such as 1%."),
    ("duplicate", "Share of packets doubled."),
    ("corrupt", "Share of packets with a flipped bit."),
    ("reorder", "Share of packets that overtake others."),
    ("rate", "Bits per second, such as 10mbit."),
    ("limit", "Packets that may wait for the rate."),
    ("queue", "Discipline of the queue: fq_codel, or '{kind: bfifo, limit: 64KiB}'."),
)


def _selection(command: Any) -> Any:
    """Add the options that select a lab and directions of its links."""
    for decorate in (
        click.option("--to", "receiver", metavar="NODE", help="Only what goes to this node."),
        click.option("--from", "sender", metavar="NODE", help="Only what comes from this node."),
        click.option("--lab", "lab_name", metavar="NAME", help="The lab; needed if several run."),
        click.argument("link", required=False),
    ):
        command = decorate(command)
    return command


def _words(command: Any) -> Any:
    for word, text in reversed(_WORDS):
        command = click.option(f"--{word}", metavar=word.upper(), help=text)(command)
    return command


@click.group()
def tc() -> None:
    """Show and change the delay, loss, rate and queues of a lab that runs."""


@tc.command()
@_selection
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(
    link: str | None, lab_name: str | None, sender: str | None, receiver: str | None, as_json: bool
) -> None:
    """Show what each direction of LINK, or of every link, does to packets."""
    from netlab.engine import live

    lab = _find(lab_name)
    chosen = _choose(lab, link, sender, receiver)
    counters = live.counters(lab, {direction.link for direction in chosen})
    told = [_told(direction, counters) for direction in chosen]
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    widths = [max(len(row[key]) for row in told) for key in ("link", "from", "to")]
    for row in told:
        places = (f"{row[key]:{w}}" for key, w in zip(("link", "from", "to"), widths, strict=True))
        words = _text(row["now"]) or "-"
        changed = f"  (file: {_text(row['asked']) or '-'})" if row["now"] != row["asked"] else ""
        if row["seconds_left"] is not None:
            then = _text(row["then"]) or "-"
            changed += f"  (for another {row['seconds_left']:.1f} s, then {then})"
        click.echo("  ".join(places) + f"  {words}{changed}")
        if row["counters"]:
            counted = ", ".join(f"{count} {name}" for name, count in _counted(row["counters"]))
            click.echo(f"{' ' * (sum(widths) + 6)}{counted}")


@tc.command(name="set")
@_selection
@_words
@click.option("--set", "others", metavar="WORD=VALUE", multiple=True, help="Any other word.")
@click.option("--only", is_flag=True, help="Forget what was in force before, do not add to it.")
@click.option("--for", "duration", metavar="TIME", help="Go back to what was after this time.")
def set_(
    link: str | None,
    lab_name: str | None,
    sender: str | None,
    receiver: str | None,
    others: tuple[str, ...],
    only: bool,
    duration: str | None,
    **given: str | None,
) -> None:
    """Change what LINK does to packets, in both directions or in those --from and --to select.

    What is not named stays; 0 takes a word away. The words are those of a topology file. With --for
    the command returns at once, and the lab itself goes back when the time is over.
    """
    from netlab.engine import live
    from netlab.units import parse_time

    settings = {word: _value(word, text) for word, text in given.items() if text is not None}
    for other in others:
        word, found, text = other.partition("=")
        if not found:
            raise UsageError(f"--set takes WORD=VALUE, not {other!r}")
        settings[word] = _value(word, text)
    if not settings and not only:
        raise UsageError("nothing to set", hint="for example: netlab tc set LINK --delay 20ms")
    if link is None and sender is None and receiver is None:
        raise UsageError("which link?", hint="name it, or say --from and --to")
    try:
        seconds = parse_time(duration) if duration is not None else None
    except ValueError as error:
        raise UsageError(f"--for: {error}") from error
    lab = _find(lab_name)
    chosen = _choose(lab, link, sender, receiver)
    _warn(chosen)
    _change(lab, [live.wish(d, settings, only=only, seconds=seconds) for d in chosen])


@tc.command()
@_selection
def reset(link: str | None, lab_name: str | None, sender: str | None, receiver: str | None) -> None:
    """Go back to what the topology file says, for LINK or every link."""
    from netlab.engine.live import Wish

    lab = _find(lab_name)
    chosen = _choose(lab, link, sender, receiver)
    _change(lab, [Wish(d, d.asked) for d in chosen if d.now != d.asked or d.then is not None])


def _find(name: str | None) -> Lab:
    from netlab.engine import state

    return state.find(name)


def _choose(
    lab: Lab, link: str | None, sender: str | None, receiver: str | None
) -> list[Direction]:
    from difflib import get_close_matches

    from netlab.engine.live import directions

    every = directions(lab)
    names = list(dict.fromkeys(direction.link for direction in every))
    if link is not None and link not in names:
        close = get_close_matches(link, names, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(names[:10])}"
        raise UsageError(f"lab '{lab.id}' has no link '{link}'", hint=hint)
    chosen = [
        direction
        for direction in every
        if link in (None, direction.link)
        and (sender is None or sender in _names(direction.sender))
        and (receiver is None or receiver in _names(direction.receiver))
    ]
    if not chosen:
        raise UsageError("no link goes that way", hint="see `netlab tc show`")
    return chosen


def _names(end: str) -> tuple[str, str]:
    return end, end.partition(":")[0]


def _value(word: str, text: str) -> Any:
    """Return text of the command line as a topology file would have it."""
    if text.startswith("{"):
        import yaml

        try:
            return yaml.load(text, yaml.CSafeLoader)
        except yaml.YAMLError as error:
            raise UsageError(f"{word}: {text!r} is no YAML mapping") from error
    if word == "queue":
        return text
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isdecimal() else text


def _warn(chosen: list[Direction]) -> None:
    own = sorted({direction.sender for direction in chosen if direction.own_stack})
    if own:
        click.echo(
            f"warning: {', '.join(own)} will impair what its own node sends, because the link has "
            "no impairment in the topology file: TCP there is told of packets dropped",
            err=True,
        )


def _change(lab: Lab, wanted: list[Any]) -> None:
    from netlab.engine import live

    if wanted and not live.change(lab, wanted):
        click.echo("warning: packets waiting in a queue that was replaced were lost", err=True)


_COUNTED = (
    "delivered_packets", "dropped_loss", "dropped_exact", "dropped_queue", "dropped_codel",
    "dropped_overflow", "dropped_down", "duplicated", "corrupted", "reordered", "ecn_marked",
    "late_packets",
)  # fmt: skip


def _counted(counters: Json) -> list[tuple[str, int]]:
    """Return the counters worth a line: what arrived, and whatever else is not 0."""
    return [
        (name.replace("dropped_", "dropped by ").removesuffix("_packets"), counters[name])
        for name in _COUNTED
        if counters[name] or name == "delivered_packets"
    ]


def _told(direction: Direction, counters: Json) -> Json:
    from netlab.model.dump import shaping

    left = None if direction.then is None else max(0.0, direction.until - time.monotonic())
    return {
        "link": direction.link,
        "from": direction.sender,
        "to": direction.receiver,
        "asked": shaping(direction.asked),
        "now": shaping(direction.now),
        "then": None if direction.then is None else shaping(direction.then),
        "seconds_left": left,
        "backend": direction.backend,
        "qdiscs": list(direction.shapes),
        "counters": counters.get(direction.link, {}).get(direction.way, {}),
        "node": direction.node,
        "interface": direction.dev,
    }


def _text(settings: Json) -> str:
    return " ".join(
        f"{word}={json.dumps(value) if isinstance(value, (dict, list)) else value}"
        for word, value in settings.items()
    )
