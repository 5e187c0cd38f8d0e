"""docs/space.md describes the fields that there are."""

import re
from typing import Any

import pytest
from pages import SPACE, named, plain_default, section, table, written_default

from nas.architecture.document import Architecture, Head, Input, Stem
from nas.architecture.space import MAX_COMBINATIONS
from nas.blocks import KINDS
from nas.files import MAX_BYTES, MAX_DEPTH, MAX_NODES

PARTS = {"The whole": Architecture, "`input`": Input, "`stem`": Stem, "`head`": Head}


def bounds(schema: Any) -> set[str]:
    """All numbers and names that a field's JSON schema allows or ends at."""
    keys = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "gt", "ge", "lt", "le"}
    keys |= {"minItems", "maxItems", "minLength", "maxLength"}
    found: set[str] = set()
    if isinstance(schema, dict):
        found |= {f"{value:g}" for key, value in schema.items() if key in keys and key != "minLength"}
        found |= {str(value) for value in schema.get("enum", [])}
        found |= {"true", "false"} if schema.get("type") == "boolean" else set()
        for key in ("anyOf", "items"):
            found |= bounds(schema.get(key))
    elif isinstance(schema, list):
        found = set().union(*map(bounds, schema))
    return found


def check_row(row: dict[str, str], field: str, model: Any) -> None:
    info = model.model_fields[field]
    if row["default"] == "required":
        assert info.is_required(), field
    else:
        assert written_default(row["default"]) == plain_default(info.default), field
    said = set(re.findall(r"[\w.]+", row["values"]))
    assert bounds(model.model_json_schema()["properties"][field]) <= said, field


@pytest.mark.parametrize(("heading", "model"), PARTS.items())
def test_parts_are_documented(heading: str, model: Any) -> None:
    rows = table(section(SPACE, heading), "field")
    assert named(rows, "field") == list(model.model_fields)
    for row in rows:
        check_row(row, row["field"].strip("`"), model)


@pytest.mark.parametrize("kind", KINDS)
def test_stages_are_documented(kind: str) -> None:
    def applies(row: dict[str, str]) -> bool:
        of = row["of"]
        return of == "all" or (of.startswith("all but") and kind not in of) or kind in of.split(", ")

    model = KINDS[kind]
    rows = {row["field"].strip("`"): row for row in table(section(SPACE, "Stages"), "field") if applies(row)}
    assert rows.keys() == model.model_fields.keys()
    for field, row in rows.items():
        if field != "block":
            check_row(row, field, model)


def test_every_kind_is_described() -> None:
    assert sorted(named(table(section(SPACE, "Stages"), "kind"), "kind")) == sorted(KINDS)


def test_shortcuts_are_those_of_the_code() -> None:
    words = {"none": "none", "identity": "identity", "1x1 convolution with norm": "conv"}
    words["strided 1x1 convolution with norm"] = "conv"
    rows = table(section(SPACE, "Shortcuts"), "rule")
    assert named(rows, "rule") == ["none", "identity", "conv", "conv_strided"]
    for row in rows:
        rule = re.findall(r"`(\w+)`", row["rule"])[0]
        stage = KINDS["inverted_residual"](block="inverted_residual", channels=8, shortcut=rule)
        assert words[row["nothing"]] == stage.block_shortcut(8, 8, 1)
        assert words[row["channels alone"]] == stage.block_shortcut(8, 16, 1)
        for channels in (8, 16):
            assert words[row["the size (stride above 1)"]] == stage.block_shortcut(8, channels, 2)


def test_limits_on_documents() -> None:
    text = section(SPACE, "Limits on documents")
    for number in (f"{MAX_BYTES:,}", f"{MAX_DEPTH} levels", f"{MAX_NODES:,}"):
        assert number in text
    assert f"{MAX_COMBINATIONS:,}" in SPACE
