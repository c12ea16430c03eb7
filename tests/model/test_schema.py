from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from netlab.model.reader import Places, read
from netlab.model.yaml import json_schema

ROOT = Path(__file__).parents[2]
TOPOLOGIES = sorted((ROOT / "topologies").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    from jsonschema import Draft202012Validator  # makes grammars for seconds when imported

    return Draft202012Validator(json_schema())


def data(text: str) -> Any:
    found, problems = read(text, Places())
    assert not problems
    return found


def test_the_schema_is_one(validator: Any) -> None:
    validator.check_schema(json_schema())
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_schema_beside_the_examples_is_the_current_one(golden) -> None:
    path = ROOT / "topologies" / "topology.schema.json"
    golden(path, json.dumps(json_schema(), indent=2) + "\n")


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
def test_every_example_fits_the_schema(path: Path, validator: Any) -> None:
    validator.validate(data(path.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        "nodes: 5",
        "links: [a-b]",
        "nodes: [a]\nnodse: 1",
        "nodes: {a: hots}",
        "nodes: {a: {rol: host}}",
        "nodes: [a, b]\nlinks: [{ends: a-b, delay: 10}]",
        "nodes: [a, b]\nlinks: [{ends: a-b, delay: 10mbit}]",
        "nodes: [a, b]\nlinks: [{ends: a-b, dealy: 10ms}]",
        "nodes: [a, b]\nlinks: [{ends: a-b, mtu: 0}]",
        "nodes: [a, b]\nlinks: [{ends: a-b, a->b: {dealy: 10ms}}]",
        "nodes: [a, b]\nlinks: [{ends: [a, {nod: b}]}]",
        "nodes: [a, b]\nlinks: [[a]]",
        "nodes: [a]\nsysctls: {kernel.hostname: x}",
        "nodes: [a]\nversion: 2",
        "nodes: [a]\nprocesses: {p: {node: a}}",
        "nodes: [a]\nvalidate: [{ping: a}]",
    ],
)
def test_what_is_wrong_does_not_fit_the_schema(text: str, validator: Any) -> None:
    assert list(validator.iter_errors(data(text)))


def keys(schema: Any) -> set[str]:
    """Return the names of all properties of a schema."""
    if isinstance(schema, list):
        return set[str]().union(*(keys(part) for part in schema))
    if not isinstance(schema, dict):
        return set()
    own = set(schema.get("properties", {}))
    return own.union(*(keys(part) for part in schema.values()))


def test_every_key_is_described_in_the_schema_and_in_the_manual() -> None:
    schema = json_schema()
    for definition in [schema, *schema["$defs"].values()]:
        for name, field in definition.get("properties", {}).items():
            assert field.get("description"), f"{name} of {definition.get('title')}"
    manual = (ROOT / "docs" / "topology.md").read_text()
    missing = {key for key in keys(schema) if f"`{key}`" not in manual}
    assert not missing


def test_every_example_in_the_manual_is_a_topology(validator: Any) -> None:
    from netlab.model.yaml import loads

    manual = (ROOT / "docs" / "topology.md").read_text()
    blocks = [part.partition("\n```")[0] for part in manual.split("```yaml\n")[1:]]
    assert len(blocks) > 5
    for block in blocks:
        whole = block if f"\n{block}".count("\nnodes:") else f"nodes: [h1, h2, h3, r1, r2]\n{block}"
        loads(whole)
        validator.validate(data(whole))


def test_the_reader_agrees_with_pyyaml_on_the_examples() -> None:
    for path in TOPOLOGIES:
        assert data(path.read_text()) == yaml.safe_load(path.read_text())
