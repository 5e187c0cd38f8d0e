"""A run as text: for spreadsheets, scripts and notes."""

import json
from typing import Any

import pandas as pd

from nas.driver.run import Run
from nas.errors import UserError
from nas.report import gain
from nas.report.summary import front_rows, summary

FORMATS = ("csv", "json", "md")


def render(run: Run, format: str) -> str:
    """Write the run in a text format.

    ``csv``: one row per trial, as ``trials.csv``. ``json``: settings, environment, trials and the front with the
    command that trains each. ``md``: the summary and the front as Markdown.

    Raises:
        UserError: an unknown format.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}; allowed: html, {', '.join(FORMATS)}")
    if format == "csv":
        return run.trials.to_csv(index=False)
    rows = front_rows(run)
    return _json(run, rows) if format == "json" else _markdown(run, rows)


def _json(run: Run, rows: list[dict[str, Any]]) -> str:
    trials = [{key: _plain(value) for key, value in row.items()} for row in run.trials.to_dict("records")]
    by_number = {trial["trial"]: trial for trial in trials}
    document = {
        "settings": run.settings.to_dict(),
        "environment": dict(run.environment),
        "front": [
            by_number[row["number"]] | {key: row[key] for key in ("rank", "distance", "command")} for row in rows
        ],
        "trials": trials,
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _markdown(run: Run, rows: list[dict[str, Any]]) -> str:
    title = f"# {run.settings.space.get('name', 'space')} on {run.settings.dataset}"
    lines = [title, "", " ".join([*gain.sentences(run), summary(run)])]
    if rows:
        nearest = "Nearest published, by validation accuracy"
        titles = (
            "",
            "Network",
            "Validation accuracy",
            "Test accuracy",
            "Size",
            "Latency",
            "MACs",
            "Belongs there",
            nearest,
        )
        lines += ["", _line(*titles), _line("--:", "---", *["--:"] * 6, "---")]
        for row in rows:
            noted = ((row[key], row[f"{key}_note"]) for key in ("accuracy", "test", "latency"))
            validation, test, latency = (f"{text} ({note})" if note else text for text, note in noted)
            ends = (row["size"], latency, row["macs"], row["belongs"], row["distance"])
            lines.append(_line(str(row["rank"]), row["name"], validation, test, *ends))
        lines += ["", "Train them:", "", "```", *(row["command"] for row in rows), "```"]
    return "\n".join(lines) + "\n"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _plain(value: Any) -> Any:
    """Make a cell plain for JSON: None for what pandas calls NaN or NA."""
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
