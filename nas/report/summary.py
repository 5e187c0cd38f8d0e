"""Summary of a run: its front, how that compares with what was known, and both as text for scripts and notes."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from nas.architecture import catalogue
from nas.driver.objectives import trained_for
from nas.driver.record import Record
from nas.driver.run import Run
from nas.errors import UserError
from nas.report import gain
from nas.report.distance import WORDS, distance
from nas.report.images import read_judged
from nas.report.points import shown_name, train_command
from nas.significance import wilson
from nas.units import accuracy_decimals, counted, decimals, from_to, int8_percent, listed, percent, show, three_digits

ENDED = {"complete": "to the end", "stopped": "stopped early", "failed": "failed"}
FORMATS = ("csv", "json", "md")
"""In which a run is printed."""
NAME, NEAREST = "Network", "Nearest published, by validation accuracy"
"""Columns of texts."""


def front_rows(run: Run) -> list[dict[str, Any]]:
    """Describe the front for tables, most accurate first: texts, but for the numbers `rank`, `number` and `level`.

    `mark` says where a network comes from that was not found here. Size and memory are those measured at the end, else
    the predicted ones; memory is empty where it is not known. Networks of one level cannot be told from its first one
    in accuracy.
    """
    names = catalogue.network_names()
    validation, test = run.data.get("validation"), run.data.get("test")
    judged = "balanced: expected" if trained_for(run.objectives).name == "balanced_accuracy" else "expected"
    levels = run.belief.levels(run.front_records)
    rows = []
    for rank, (record, level) in enumerate(zip(run.front_records, levels, strict=True), 1):
        tested = record.confirmed.get("test_accuracy")
        latency_text, latency_note = latency(record)
        notes = (
            fp32_note(record.fp32_accuracy, validation),
            interval(record.accuracy, validation),
            f"{judged} {percent(run.belief.expected(record), validation)}",
            repeated_accuracy(record, validation),
        )
        test_notes = (fp32_note(record.confirmed.get("fp32_test_accuracy"), test), interval(tested, test))
        rows.append(
            {
                "rank": rank,
                "number": record.number,
                "name": shown_name(run, record),
                "mark": origin_mark(record),
                "accuracy": percent(record.accuracy, validation),
                "accuracy_note": ", ".join(filter(None, notes)),
                "test": percent(tested, test),
                "test_note": ", ".join(filter(None, test_notes)),
                "size": show("size", measured_or_predicted(record, "size")),
                "memory": show("memory", memory) if (memory := measured_or_predicted(record, "memory")) else "",
                "latency": latency_text,
                "latency_note": latency_note,
                "macs": show("macs", record.costs.get("macs")),
                "level": level,
                "belongs": probability(run.belief.belongs.get(record.number)),
                "distance": str(distance(run, record) or ""),
                "command": train_command(run, record, rank, names),
            }
        )
    return rows


def filled_columns(rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> list[str]:
    """Return those columns of a table in which something stands."""
    return [column for column in columns if any(row[column] not in ("", "–") for row in rows)]


def summary(run: Run) -> str:
    """Summarise the run in one paragraph, to stand below what it gained (:mod:`nas.report.gain`)."""
    trained = [record for record in run.records if record.was_trained]
    if not trained:
        return "No network has been trained yet."
    ended = {state: sum(record.state == state for record in trained) for state in ENDED}
    parts = [f"{count} {ENDED[state]}" for state, count in ended.items() if count]
    origins = Counter(record.origin for record in trained)
    queued = [
        f"{origins[key]} {words}" for key, words in (("published", "published"), ("own", "your own")) if origins[key]
    ]
    sentences = [
        f"{counted(len(trained), 'network')} of the space {run.settings.space.get('name', '')} "
        f"{'was' if len(trained) == 1 else 'were'} trained on {run.settings.dataset}"
        f"{f' ({listed(queued)})' if queued else ''}: {', '.join(parts)}.",
    ]
    front = run.front_records
    if not front:
        return f"{sentences[0]} None reached the end, so there is no front."
    if len(run.objectives) > 1:
        better = listed([WORDS[objective.name].good for objective in run.objectives])
        origin = f", {found_here(front)}" if queued or any(map(origin_mark, front)) else ""
        make = f"{counted(len(front), 'network')} {'makes' if len(front) == 1 else 'make'}"
        sentences.append(f"{make} the front{origin}: no other is at once as {better}.")
    return " ".join([*sentences, _extremes(run, front), *references(run)])


def found_here(front: Sequence[Record]) -> str:
    """Say how many networks of a front its search found, such as ``6 of them found by this search``."""
    found = sum(not origin_mark(record) for record in front)
    if len(front) == 1:
        return f"{'' if found else 'not '}found by this search"
    return f"{'all' if found == len(front) else found or 'none'} of them found by this search"


def _extremes(run: Run, front: Sequence[Record]) -> str:
    best = front[0]
    lightest = min(front, key=lambda record: record.costs.get("size", 0))
    test = best.confirmed.get("test_accuracy")
    fp32_test = best.confirmed.get("fp32_test_accuracy")
    tested = int8_percent(test, fp32_test, run.data.get("test"))
    on_test = f" ({tested} of the test images)" if test is not None else ""
    images = run.data.get("validation")
    accuracy = int8_percent(best.accuracy, best.fp32_accuracy, images)
    sentence = (
        f"The most accurate gets {accuracy} of the validation images right{on_test} "
        f"at {show('size', measured_or_predicted(best, 'size'))}"
    )
    if lightest is not best:
        smallest = show("size", measured_or_predicted(lightest, "size"))
        sentence += f", the smallest {percent(lightest.accuracy, images)} at {smallest}"
    return f"{sentence}."


def references(run: Run) -> list[str]:
    """Say in one sentence how the networks that were asked for by name stand to the front; none where there is none.

    By the objectives, with accuracy on validation images, as the front itself.
    """
    asked = [record for record in run.records if record.origin and record.ended]
    front = run.front_records
    if not (asked and front):
        return []
    on = [record for record in asked if record.on_front]
    dominated = [record for record in asked if not record.on_front and any(_dominates(run, o, record) for o in front)]
    outside = [record for record in asked if record not in on and record not in dominated]
    known = [o for o in run.objectives if not o.known or all(o.name in record.costs for record in asked)]
    why = f"nothing on the front is at once as {listed([WORDS[objective.name].good for objective in known])}"
    standings = (
        (on, "on the front"),
        (dominated, "dominated by the front"),
        (outside, f"not dominated ({why}), but outside the space or the limits"),
    )
    parts = [
        f"{listed([record.architecture.name for record in records])} {'is' if len(records) == 1 else 'are'} {standing}"
        for records, standing in standings
        if records
    ]
    return [f"Of the networks asked for by name, {'; '.join(parts)}."]


def _dominates(run: Run, record: Record, other: Record) -> bool:
    """Return whether a network is at least as good in every objective that is known of the other one."""
    for objective in run.objectives:
        own, others = record.value(objective), other.value(objective)
        if own is None or (others is not None and (own < others if objective.maximise else own > others)):
            return False
    return True


def origin_mark(record: Record) -> str:
    """Return where a network comes from that the search did not find; empty for one that it found."""
    return "earlier run" if record.was_imported else {"own": "your own"}.get(record.origin, record.origin)


def repeated_accuracy(record: Record, images: int | None = None) -> str:
    """Return the validation accuracy over other seeds, as mean and spread; empty where there are none.

    Args:
        record: a trial.
        images: for validation; they give the digits where one seed says nothing of the spread.
    """
    accuracies: Sequence[float] = record.confirmed.get("accuracies") or ()
    if not accuracies:
        return ""
    spread = 100 * stdev(accuracies) if len(accuracies) > 1 else 0.0
    digits = min(2, decimals(spread / math.sqrt(len(accuracies)))) if spread else accuracy_decimals(images)
    shown = f"{100 * fmean(accuracies):.{digits}f}" + (f" ± {spread:.{digits}f}" if len(accuracies) > 1 else "")
    epochs = record.confirmed.get("epochs")
    longer = f" of {counted(epochs, 'epoch')}" if epochs not in (None, len(record.curve)) else ""
    return f"again: {shown} ({counted(len(accuracies), 'seed')}{longer})"


def measured_or_predicted(record: Record, name: str) -> float | None:
    """Return a cost as it was measured at the end, else as it was predicted; None where it is not known."""
    return record.measured.get(name, record.costs.get(name))


def fp32_note(accuracy: float | None, images: int | None) -> str:
    """Return what stands under an int8 network's accuracy; empty where the accuracy is that of fp32 itself."""
    return "" if accuracy is None else f"fp32 {percent(accuracy, images)}"


def probability(share: float | None) -> str:
    """Format a probability, such as ``80 %``; next to none or all of it is not said to be none or all."""
    if share is None:
        return "–"
    return "> 99 %" if share > 0.99 else "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def with_interval(accuracy: float | None, images: int | None) -> str:
    """Format an accuracy with Wilson's 95 % interval, such as ``85 % (81-88)``."""
    shown = interval(accuracy, images).removesuffix(" %").replace(" to ", "-")
    return f"{percent(accuracy, images)} ({shown})" if shown else percent(accuracy, images)


def interval(accuracy: float | None, images: int | None) -> str:
    """Format Wilson's 95 % interval of an accuracy, such as ``81 to 88 %``.

    Empty where images are not counted, or where its ends are printed alike.
    """
    if accuracy is None or images is None:
        return ""
    low, high = wilson(accuracy, images)
    return from_to(percent(low, images).removesuffix(" %"), percent(high, images).removesuffix(" %"), " %")


def latency(record: Record) -> tuple[str, str]:
    """Return the latency as text, and its spread or where it comes from."""
    measured = record.confirmed.get("latency_ms")
    if measured is None:
        predicted = record.costs.get("latency")
        return show("latency", predicted), "" if predicted is None else "predicted"
    low, high = record.confirmed.get("latency_low_ms"), record.confirmed.get("latency_high_ms")
    ends = "" if low is None or high is None else from_to(three_digits(low), three_digits(high), " ms")
    spread = ends or "measured"
    return show("latency", measured), f"{spread}, noisy" if record.confirmed.get("latency_noisy") else spread


def render(run: Run, format: str) -> str:
    """Write the run in a text format.

    ``csv``: one row per trial, as ``trials.csv``. ``json``: settings, environment, trials and the front, of
    each network the command that trains it and its test images class by class. ``md``: the summary and the front as
    Markdown.

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
            by_number[row["number"]]
            | {key: row[key] for key in ("rank", "distance", "command")}
            | {"test_classes": judgement["classes"] if (judgement := read_judged(run, row["number"])) else None}
            for row in rows
        ],
        "trials": trials,
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _markdown(run: Run, rows: list[dict[str, Any]]) -> str:
    title = f"# {run.settings.space.get('name', 'space')} on {run.settings.dataset}"
    lines = [title, "", " ".join([*gain.sentences(run), summary(run)])]
    if rows:
        cells = [_cells(row) for row in rows]
        titles = filled_columns(cells, cells[0])
        rules = ["---" if title in (NAME, NEAREST) else "--:" for title in titles]
        lines += ["", _line(*titles), _line(*rules), *(_line(*map(each.__getitem__, titles)) for each in cells)]
        lines += ["", "Train them:", "", "```", *(row["command"] for row in rows), "```"]
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    noted = ((row[key], row[f"{key}_note"]) for key in ("accuracy", "test", "latency"))
    validation, test, latency = (f"{text} ({note})" if note else text for text, note in noted)
    return {
        "": str(row["rank"]),
        NAME: row["name"],
        "Validation accuracy": validation,
        "Test accuracy": test,
        "Size": row["size"],
        "Memory": row["memory"],
        "Latency": latency,
        "MACs": row["macs"],
        "Belongs there": row["belongs"],
        NEAREST: row["distance"],
    }


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _plain(value: Any) -> Any:
    """Make a cell plain for JSON: None for what pandas calls NaN or NA."""
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
