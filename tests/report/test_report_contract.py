"""The data that a report's page holds, recorded: what a refactoring of the report has to leave as it is.

`PYTHONPATH=tests python tests/report/test_report_contract.py` writes the file again, where a change is meant. Times of
writing, versions and the machine are left out.
"""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from studies import invented_run

from nas.architecture.reported import Printed
from nas.report.page import render_page

FILE = Path(__file__).with_name("page.json")

PRINTED = [
    Printed("Han and Kwon", "3", "column E", "han-e", "E", "digits", accuracy=0.91, size_bytes=3_700_000),
    Printed("Nobody", "1", "row 1", "", "<i>mine</i> [red]", "digits", accuracy=0.9, size_bytes=900_000, note="a & b"),
]


def page() -> dict[str, Any]:
    """The text that a reader sees, and what the page's script is given, by part."""
    run = invented_run(
        Path("results/example"),
        trials=36,
        epochs=4,
        limits=("size<=12MB",),
        fails=lambda number: "out of memory" if number % 17 == 16 else None,
    )
    run.environment = {"started": "2026-05-01T09:30:00", "device": "cpu", "cpu": "A & B", "versions": {"nas": "1"}}
    text = render_page(run, PRINTED)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    body = re.search(r"<body>(.*?)<script", text, re.DOTALL)[1]
    lines = (" ".join(html.unescape(line).split()) for line in re.split(r"(?:<[^>]+>\s*)+", body))
    rows = data.pop("points")
    shown = ("size accuracy", "macs test_accuracy")
    return {
        "text": [line for line in lines if line],
        "points": [_decoded(row, rows) for row in rows["rows"]],
        "regions": [{pair: region[pair] for pair in shown} for region in data.pop("regions")],
        "figures": [{name: trace} for name, figure in data.pop("figures").items() for trace in _traces(figure)],
        "rest": [data],
    }


def _decoded(row: dict[str, Any], rows: dict[str, Any]) -> dict[str, Any]:
    """A point as the page's script puts it together from what points share."""
    texts, stages = rows["texts"], rows["stages"]
    return row | {
        "values": dict(zip(rows["keys"], row["values"], strict=True)),
        "notes": [texts[index] for index in row.get("notes", ())],
        "lines": [texts[index] for index in row.get("lines", ())],
        "stages": [[texts[stages[index][0]], *stages[index][1:]] for index in row.get("stages", ())],
    }


def _traces(figure: dict[str, Any]) -> list[Any]:
    return [figure["layout"], *figure["data"]]


RECORDED = json.loads(FILE.read_text()) if FILE.exists() else {}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return json.loads(json.dumps(page()))


@pytest.mark.parametrize("part", RECORDED)
def test_the_page_holds_what_was_recorded(found: dict[str, Any], part: str) -> None:
    assert len(found[part]) == len(RECORDED[part])
    for here, recorded in zip(found[part], RECORDED[part], strict=True):
        assert rounded(here) == rounded(recorded)


def rounded(value: Any) -> Any:
    """The document with four significant digits: another processor's sums differ in the last ones."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    parts = [
        f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in items) + "\n]"
        for name, items in page().items()
    ]
    FILE.write_text("{" + ",\n".join(parts) + "}\n")
