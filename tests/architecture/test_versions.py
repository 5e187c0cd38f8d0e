"""Files of every version of the document, and of none that there is yet."""

import re
from pathlib import Path
from typing import Any

import pytest
from documents import base

import nas

FRONT_FILE = """\
# trial 7 of a search on digits: accuracy 98.51 %, size 435 kB
name: inverted_residual-3ebe3f3b7b4b
stem: {channels: 16}
stages:
  - {block: inverted_residual, channels: 24, kernels: [3, 5]}
head: {channels: 64}
"""
"""As the first nas wrote it, before files had a version."""


@pytest.mark.parametrize("heading", ["", "schema: 1\n"])
def test_files_of_every_version_load(heading: str, tmp_path: Path) -> None:
    file = tmp_path / "front.yaml"
    file.write_text(heading + FRONT_FILE)
    assert nas.load(file).id == "3ebe3f3b7b4b"
    assert nas.load_space(file).sample(0).id == "3ebe3f3b7b4b"
    assert nas.load(file).to_yaml().splitlines()[0] == "schema: 1"
    assert nas.load_space(file).to_yaml().splitlines()[0] == "schema: 1"


def test_the_version_is_no_part_of_the_network() -> None:
    plain, numbered = (nas.Architecture.from_dict({**fields, **base()}) for fields in ({}, {"schema": 1}))
    assert plain == numbered
    assert "schema" not in numbered.to_dict() and "schema" not in numbered.canonical()


@pytest.mark.parametrize("reader", [nas.Architecture.from_dict, nas.Space])
@pytest.mark.parametrize(
    ("version", "message"),
    [
        (2, "here: schema 2, this nas reads up to 1; use a newer nas"),
        (0, "here: schema: a version is a whole number from 1 on, not 0"),
        (True, "not True"),
        ("1", "not '1'"),
        ({"choice": [1]}, "not {'choice': [1]}"),
    ],
)
def test_other_versions_are_refused(reader: Any, version: Any, message: str) -> None:
    # The version speaks first: a newer document may well have fields that this one does not know.
    with pytest.raises(nas.UserError, match=re.escape(message)):
        reader({"schema": version, "unheard_of": 1, **base()}, "here")
