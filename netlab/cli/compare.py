"""`netlab compare RUN RUN`: what changed between two runs of a lab."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from netlab.analysis.comparison import Divergence, Point
    from netlab.labs.chance import Repeated
    from netlab.labs.compare import Checked, Compared, Pair


@click.command()
@click.argument("left", type=click.Path(path_type=Path))
@click.argument("right", type=click.Path(path_type=Path))
@click.option("--exit-code", is_flag=True, help="Exit with 1 if anything but times differs.")
@click.option("--labs", "folder", type=click.Path(path_type=Path), help="Folder of labs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def compare(
    ctx: click.Context,
    left: Path,
    right: Path,
    exit_code: bool,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Compare two runs of a lab, or two recordings: settings, packets, figures, verdicts.

    LEFT and RIGHT are folders such as results/NAME/latest, one variation of a run, or a series of
    repetitions. Needs no privileges.
    """
    from netlab.labs import compare as comparing
    from netlab.labs import discovery

    lab = discovery.find(comparing.lab_of(left), folder)
    found = comparing.compare(lab, left, right)
    if as_json:
        record = {**asdict(found), "differs": found.differs}
        click.echo(json.dumps(record, indent=1, ensure_ascii=False))
    else:
        click.echo(render(found), nl=False)
    ctx.exit(1 if exit_code and found.differs else 0)


def render(found: Compared) -> str:
    """Return a comparison as text."""
    lines = [f"{found.lab}: left {found.left}", f"{'':{len(found.lab)}}  right {found.right}"]
    for pair in found.pairs:
        lines += ["", *_pair(pair)]
    if found.missing:
        lines += ["", f"only one of them has: {', '.join(found.missing)}"]
    if found.figures:
        lines += ["", "figures"]
        width = max(len(figure.name) for figure in found.figures)
        for figure in found.figures:
            left, right = figure.left or "-", figure.right or "-"
            told = left if left == right else f"{left} -> {right}"
            lines.append(f"  {figure.name:<{width}}  {told}")
    if found.checks:
        lines += ["", "checks"]
        for check in found.checks:
            lines += _check(check)
    return "\n".join(lines) + "\n"


def _pair(pair: Pair) -> list[str]:
    same = pair.left == pair.right
    lines = [pair.left if same else f"{pair.left} against {pair.right}"]
    if not pair.settings:
        lines.append("  no setting differs")
    width = max((len(difference.what) for difference in pair.settings), default=0)
    for item in pair.settings:
        lines.append(f"  {item.what:<{width}}  {item.left or '-'} -> {item.right or '-'}")
    for found in pair.packets:
        lines += _packets(found)
    if pair.fate is not None:
        where = [
            f"lost after {side}" if side else "arrived"
            for side in (pair.fate.left, pair.fate.right)
        ]
        lines.append(
            f"  segment {pair.fate.number} (seq={pair.fate.segment.seq}): {' -> '.join(where)}"
        )
    return lines


def _packets(found: Divergence) -> list[str]:
    head = f"  {found.where}, connection {found.connection}: "
    if not found.diverges:
        told = f"all {found.same} segments are alike"
        if found.drift:
            told += f"; their times differ by {found.drift * 1e3:.3f} ms at most "
            told += f"(segment {found.drift_at})"
        return [head + told]
    lines = [f"{head}{found.same} segments are alike, then"]
    for name, point in (("left", found.left), ("right", found.right)):
        lines.append(f"    {name:<5}  {_point(point)}")
    return lines


def _point(point: Point | None) -> str:
    from netlab.report.ladder import label

    if point is None:
        return "no more segments"
    arrow = "->" if point.segment.forward else "<-"
    it = point.segment
    told = f"frame {point.frame} at {point.seconds:.6f} s  {arrow} {label(it)}"
    if it.is_syn or it.is_syn_ack:
        scale = "" if it.wscale is None else f" wscale={it.wscale}"
        told += f" mss={it.mss}{' sack' if it.sack_permitted else ''}{scale}"
    return told


def _check(check: Checked) -> list[str]:
    head = f"{check.sentence} [{' against '.join(check.variations)}]"
    told = (
        f"{_outcome(check.left)} -> {_outcome(check.right)}"
        if check.changed
        else _outcome(check.left or check.right)
    )
    lines = [f"  {told:<16} {head}"]
    values = [_value(side) for side in (check.left, check.right)]
    if any(values):
        apart = {True: "; the intervals lie apart", False: "; the intervals overlap", None: ""}
        lines.append(
            f"  {'':16} {' -> '.join(value or '-' for value in values)}{apart[check.apart]}"
        )
    return lines


def _outcome(found: Repeated | None) -> str:
    if found is None:
        return "-"
    if len(found.outcomes) == 1:
        return found.outcomes[0]
    return f"{found.outcomes.count('pass')} of {len(found.outcomes)} pass"


def _value(found: Repeated | None) -> str:
    from netlab.labs.expect import show

    if found is None or found.value is None:
        return ""
    if found.spread is None:
        return show(found.value, found.unit)
    low, high = show(found.spread.low, found.unit), show(found.spread.high, found.unit)
    return f"{show(found.value, found.unit)} ({low} … {high})"
