"""The ledger of claims: seventy, each with a lab, ruled on by recordings and by nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from netlab.errors import LabDefinitionError
from netlab.labs import claims, discovery
from netlab.labs.claims import Claim, Entry, Finding, Ruling, depends, holds, untested

NOWHERE = Path("/nonexistent")


def test_there_are_seventy_claims_numbered_in_order() -> None:
    known = claims.load()
    assert [claim.id for claim in known] == [f"C{n:02}" for n in range(1, 71)]
    for claim in known:
        assert set(claim.sources) <= {"000", "001", "002", "003", "004"}
        assert claim.sources
        assert not claim.claim[0].islower() or claim.claim.startswith(("tcp_", "somaxconn"))
        assert not claim.claim.endswith(".")
        assert re.fullmatch(r"[a-z0-9-]+", claim.lab)


def test_every_ruling_of_a_lab_is_about_a_claim_of_that_lab() -> None:
    by_id = {claim.id: claim.lab for claim in claims.load()}
    for name in discovery.names():
        for number in discovery.find(name).claims:
            assert by_id.get(number) == name


RULED = {
    Ruling.HOLDS: """C01 C04 C06 C08 C10 C19 C22 C23 C28 C30 C33 C34 C35 C36 C37 C42 C47 C48 C49
        C57 C60 C61 C66 C68 C69 C70""",
    Ruling.FAILS: "C02 C03 C05 C07 C29 C38 C39 C41 C44",
    Ruling.DEPENDS: "C09 C40 C43 C45 C46 C67",
}
"""What the recordings that come with the labs say; every other claim waits for its lab."""


@pytest.fixture(scope="module")
def committed() -> dict[str, Entry]:
    return {e.claim.id: e for e in claims.ledger(claims.load(), results=NOWHERE)}


def test_committed_recordings_rule(committed: dict[str, Entry]) -> None:
    assert {number: e.finding.ruling for number, e in committed.items()} == {
        **dict.fromkeys(committed, Ruling.UNTESTED),
        **{number: ruling for ruling, text in RULED.items() for number in text.split()},
    }
    assert "0x9a5c" in committed["C41"].finding.measured
    assert "0x4cb3" in committed["C41"].finding.measured


def test_what_is_untested_has_no_lab_yet_and_the_rest_has_evidence(
    committed: dict[str, Entry],
) -> None:
    known = set(discovery.names())
    for entry in committed.values():
        tested = entry.finding.ruling is not Ruling.UNTESTED
        assert tested == (entry.claim.lab in known), entry.claim.id
        if tested:
            assert entry.kernel
            assert entry.finding.measured
            assert all((Path(entry.recording) / name).is_dir() for name in entry.variations)
            assert entry.evidence.endswith(", ".join(entry.variations))


def test_a_claim_without_a_lab_is_untested() -> None:
    claim = Claim("C99", ("000",), "Something is so", "no-such-lab")
    (entry,) = claims.ledger([claim], results=NOWHERE)
    assert entry.finding.ruling is Ruling.UNTESTED
    assert entry.finding.reason == "there is no lab no-such-lab yet"


def test_a_claim_nobody_rules_on_is_untested() -> None:
    claim = Claim("C99", ("000",), "Something is so", "handshake")
    (entry,) = claims.ledger([claim], results=NOWHERE)
    assert entry.finding.reason == "lab handshake does not measure it yet"


def test_three_ways_to_print() -> None:
    claim = Claim("C01", ("000", "001"), "A | B", "x")
    entries = [
        Entry(claim, holds(True, "1 s"), "6.1", "r"),
        Entry(claim, holds(0, "2 s")),
        Entry(claim, depends("the kernel", "3 s")),
        Entry(claim, untested("no lab")),
    ]
    text = claims.as_text(entries)
    assert text.endswith("1 holds, 1 does not hold, 1 depends, 1 untested\n")
    assert "depends on: the kernel" in text
    rows = json.loads(claims.as_json(entries))
    assert [row["ruling"] for row in rows] == ["holds", "does not hold", "depends", "untested"]
    assert rows[0]["sources"] == ["000", "001"]
    table = claims.as_markdown(entries).splitlines()
    assert len(table) == 6
    assert "A \\| B" in table[2]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: b", "not a list"),
        ("- id: C1\n", "has the keys"),
        ("- {id: C1, sources: [a], claim: b, lab: c}", "not a number"),
        ("- {id: C01, sources: [a], claim: b, lab: c}\n" * 2, "two claims"),
        ("[", "cannot be read"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(LabDefinitionError, match=complaint):
        claims.load(path)


def test_a_finding_is_a_value() -> None:
    assert holds(1, "x") == Finding(Ruling.HOLDS, "x")
    assert holds([], "x") == Finding(Ruling.FAILS, "x")
