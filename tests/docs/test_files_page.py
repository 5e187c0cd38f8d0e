"""docs/files.md describes the files that are written."""

import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml
from pages import FILES, ROOT, named, plain_default, section, table, written_default

import nas
from nas.architecture.document import SCHEMA as DOCUMENT_SCHEMA
from nas.driver.record import COLUMNS, STATES
from nas.driver.run import Run
from nas.driver.run_file import read_run_file
from nas.driver.settings import SCHEMA, Settings
from nas.export import Card
from nas.export.command import FORMS
from nas.latency import Provenance
from nas.latency.table import SCHEMA as TABLE_SCHEMA
from nas.latency.table import HeldOut
from nas.training.checkpoint import Checkpoint
from nas.training.loop import Epoch
from nas.training.recipe import RECIPES, Recipe


def check_defaults(rows: list[dict[str, str]], first: str, model: Any) -> None:
    assert named(rows, first) == [item.name for item in fields(model)]
    for row, item in zip(rows, fields(model), strict=True):
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if row["default"] == "required":
            assert default is MISSING, item.name
        else:
            assert written_default(row["default"]) == plain_default(default), item.name


def test_settings_are_documented() -> None:
    check_defaults(table(FILES, "setting"), "setting", Settings)


def test_recipes_are_documented() -> None:
    check_defaults(table(FILES, "recipe field"), "recipe field", Recipe)
    assert all(f"`{name}`" in FILES for name in RECIPES)


def test_tables_are_documented() -> None:
    assert tuple(named(table(FILES, "column"), "column")) == COLUMNS
    metrics = named(table(FILES, "column of `metrics.csv`"), "column of `metrics.csv`")
    assert metrics == [item.name for item in fields(Epoch)]
    assert all(f"`{state}`" in FILES for state in STATES.values())
    states = [row["state"] for row in table(FILES, "state")]
    assert set(states) == {state.name for state in STATES}


def test_run_file_is_documented(workplace: Path) -> None:
    document = read_run_file(workplace / "results" / "first")
    section_text = section(FILES, "`run.yaml`")
    assert [row["field"].strip("`") for row in table(section_text, "field")] == list(document)
    assert all(f"`{key}`" in section_text for key in document["environment"])


def test_study_attributes_are_documented(workplace: Path) -> None:
    run = Run.open(workplace / "results" / "first")
    text = section(FILES, "Study")
    for trial in run.study.trials:
        for name, value in trial.user_attrs.items():
            assert f"`{name}`" in text
            if name.startswith("epoch:"):
                assert all(f"`{key}`" in text for key in value)
    source = (ROOT / "nas" / "driver" / "study.py").read_text()
    for name in re.findall(r"set_user_attr\(\s*\"(\w+)\"", source):
        assert f"`{name}`" in text


def test_checkpoints_are_documented() -> None:
    rows = table(section(FILES, "Checkpoints"), "key")
    assert [row["key"].strip("`") for row in rows] == [item.name for item in fields(Checkpoint)]


def test_latency_table_is_documented() -> None:
    text = section(FILES, "`latency.json`")
    for item in (*fields(Provenance), *fields(HeldOut)):
        assert f"`{item.name}`" in text


def test_training_folder_is_documented(workplace: Path) -> None:
    folder = workplace / "results" / "best"
    rows = table(section(FILES, "A training"), "file")
    listed = {row["file"].strip("`").rstrip("/") for row in rows}
    assert {path.name for path in folder.iterdir()} <= listed
    description = next(row["what it is"] for row in rows if row["file"] == "`train.yaml`")
    assert all(f"`{key}`" in description for key in yaml.safe_load((folder / "train.yaml").read_text()))


def test_exported_metadata_are_documented() -> None:
    text = section(FILES, "Exported models")
    card = Card(nas.load("han-e"), classes=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3)
    assert all(f"`{key}`" in text for key in card.to_metadata())
    assert tuple(named(table(text, "format"), "format")) == tuple(FORMS)


def test_versions_are_documented() -> None:
    numbers = {row["file"].strip("`"): row["number"] for row in table(section(FILES, "Versions"), "file")}
    assert numbers["run.yaml"] == f"`schema` {SCHEMA}"
    assert numbers["latency.json"] == f"`schema` {TABLE_SCHEMA}"
    assert numbers["architecture and space documents"] == f"`schema` {DOCUMENT_SCHEMA}"


def test_limits_in_the_study() -> None:
    from nas.driver.objectives import parse_limit

    limit = parse_limit("size<=1MB")
    assert str(limit) == "size<=1MB" and limit.excess({"size": 2e6}) == 1.0  # as the page says
