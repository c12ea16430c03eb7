"""`netlab doctor`: what this machine can do, found by doing it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import click

_MARKS = {"ok": "✓", "missing": "–", "broken": "✗"}
NOTHING_CAN_RUN = 4


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-a", "--all", "everything", is_flag=True, help="Show also what is fine.")
def doctor(as_json: bool, everything: bool) -> int:
    """Try out what this machine can do, in a throw-away network, and tell the remedies.

    Nothing on the machine is changed. Status 0 when labs can be built here, 4 when they cannot.
    """
    from netlab.engine.diagnosis import diagnose

    findings = list(diagnose())
    broken = any(finding.level == "broken" for finding in findings)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
        return NOTHING_CAN_RUN if broken else 0
    group = ""
    for finding in findings:
        if finding.level == "ok" and not everything:
            continue
        if finding.group != group:
            group = finding.group
            click.echo(group)
        line = f"  {_MARKS[finding.level]} {finding.what}: {finding.found}"
        click.echo(line + (f"; {finding.remedy}" if finding.remedy else ""))
    counted = Counter(str(finding.level) for finding in findings)
    summary = ", ".join(f"{counted[level]} {level}" for level in _MARKS if counted[level])
    verdict = "labs cannot be built here" if broken else "labs can be built here"
    click.echo(f"{verdict} ({summary}{'' if everything else '; --all shows everything'})")
    return NOTHING_CAN_RUN if broken else 0
