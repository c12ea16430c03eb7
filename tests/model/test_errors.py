"""Every bad topology gives exactly the text beside it; adding a test is adding a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from netlab.errors import TopologyError, UsageError
from netlab.model.reader import MAX_BYTES, MAX_VALUES
from netlab.model.yaml import load, loads

ERRORS = Path(__file__).parent / "errors"


@pytest.mark.parametrize("path", sorted(ERRORS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_bad_file_is_explained(path: Path, golden: Callable[[Path, str], None]) -> None:
    with pytest.raises(TopologyError) as caught:
        load(path)
    text = str(caught.value).replace(str(path), path.name)
    golden(path.with_suffix(".txt"), text + "\n")


def message(content: bytes, tmp_path: Path) -> str:
    path = tmp_path / "t.yaml"
    path.write_bytes(content)
    with pytest.raises(TopologyError) as caught:
        load(path)
    assert len(caught.value.problems) == 1
    return str(caught.value).replace(f"{path}:", "")


def test_a_binary_file_is_said_to_be_one(tmp_path: Path) -> None:
    assert message(b"\x7fELF\x00\x01", tmp_path) == "1:1: this is a binary file, not a topology"


def test_a_byte_that_is_not_utf8_has_its_place(tmp_path: Path) -> None:
    content = "nodes: [h1]\nname: é".encode("latin-1")
    assert message(content, tmp_path) == "2:7: byte 0xe9 is not UTF-8 text"


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    assert "larger than 4 MiB" in message(b"#" * (MAX_BYTES + 1), tmp_path)


def test_too_many_values_are_refused() -> None:
    with pytest.raises(TopologyError, match="holds more than 400000 values"):
        loads("nodes: [" + "1," * (MAX_VALUES + 1) + "]")


def test_a_missing_file_a_directory_and_a_strange_name_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.yaml: there is no such file$"):
        load(tmp_path / "no.yaml")
    with pytest.raises(UsageError, match=r"is a directory, not a topology file$"):
        load(tmp_path)
    with pytest.raises(UsageError, match=r"is no file name$"):
        load("a\0b")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(b"\xef\xbb\xbfnodes: [h1]\n")
    assert load(path).nodes[0].name == "h1"


def test_only_so_many_problems_are_listed() -> None:
    lines = "".join(f"  - h{i}-x{i}\n" for i in range(1000))
    with pytest.raises(TopologyError) as caught:
        loads(f"nodes: [a]\nlinks:\n{lines}")
    assert len(caught.value.problems) == 201
    assert "more problems" in caught.value.problems[-1].message
