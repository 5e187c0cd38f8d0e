"""Tables that the commands print: plain data in, text on a terminal out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import JustifyMethod
from rich.table import Table

from nas import api
from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.driver.reproduce import Reproduction
from nas.driver.run import Run
from nas.errors import printable
from nas.export.command import Exported
from nas.export.predict import Prediction
from nas.latency import Measurement
from nas.latency import Table as LatencyTable
from nas.report import gain
from nas.report.comparison import write_comparison
from nas.report.points import record_values, shown_name, train_command
from nas.report.reliability import over_limits
from nas.report.summary import (
    found_here,
    measured_or_predicted,
    origin_mark,
    probability,
    references,
    with_interval,
)
from nas.targets import TORCH
from nas.terminal import Terminal
from nas.training.facts import fact_rows
from nas.training.loop import Epoch
from nas.training.per_class import Judgement, worst_confusions
from nas.training.session import Trained
from nas.units import QUANTITIES, counted, from_to, percent, show, three_digits

_MOST_CONFUSIONS = 8


def print_runs(console: Terminal, runs: Sequence[Run], folder: Path) -> None:
    """Write reports, and print the last screen of a search, or of one per device, whose fronts also share a page."""
    for run in runs:
        print_run(console, run, api.report(run.path))
    if len(runs) > 1:
        console.print(f"A front per device:  {write_comparison(runs, folder / 'devices.html')}")


def print_run(console: Terminal, run: Run, report: Path) -> None:
    """Print the last screen of a search: the front, the report, what to do next."""
    front = run.front_records
    if not front:
        console.print(f"no network was trained to the end; see {run.path / 'trials.csv'}")
        return
    latencies = {record.number: record_values(record) for record in front}
    measured = [figures for figures in latencies.values() if "measured_latency" in figures]
    columns = {"ms, measured": "measured_latency"} if measured else {}
    if len(measured) < len(front) and any("latency" in figures for figures in latencies.values()):
        columns["ms, predicted"] = "latency"
    # The front is in its order where it is what was searched for.
    balanced = ["Balanced"] if any(objective.name == "balanced_accuracy" for objective in run.objectives) else []
    int8 = ["fp32"] if run.settings.parsed_target.int8 else []
    memory = ["Memory"] if any("memory" in record.costs for record in front) else []
    macs = [] if columns or memory else ["MACs"]
    titles = (*balanced, "Validation", *int8, "Test", *int8, "Size", *memory, *macs, *columns)
    table = _table("", "Network", *titles, "Belongs", "Source")
    # Accuracy, size and latency with their intervals fit into 80 columns, names whole.
    table.padding, table.columns[1].no_wrap = (0, 1, 0, 0), True
    validation, tests = run.data.get("validation"), run.data.get("test")
    for rank, record in enumerate(front, 1):
        test = record.confirmed.get("test_accuracy")
        table.add_row(
            str(rank),
            shown_name(run, record),
            *(percent(record.balanced_accuracy, validation) for _ in balanced),
            with_interval(record.accuracy, validation),
            *(percent(record.fp32_accuracy, validation) for _ in int8),
            with_interval(test, tests),
            *(percent(record.confirmed.get("fp32_test_accuracy"), tests) for _ in int8),
            show("size", measured_or_predicted(record, "size")),
            *(show("memory", measured_or_predicted(record, "memory")) for _ in memory),
            *(show("macs", record.costs["macs"]) for _ in macs),
            *(
                three_digits(value) if (value := latencies[record.number].get(key)) is not None else "-"
                for key in columns.values()
            ),
            probability(run.belief.belongs.get(record.number)),
            origin_mark(record) or "found",
        )
    networks = f"{counted(len(front), 'network')} {'is' if len(front) == 1 else 'are'}"
    console.print(f"\n{networks} on the front, {found_here(front)}:")
    console.print(table)
    if int8:
        console.print("Accuracies are those of the int8 network, beside them the fp32 one's.")
    console.print("In brackets 95 % intervals, as counts of images; Belongs: how likely a network is to belong there.")
    for sentence in (*over_limits(run), *references(run), *gain.sentences(run)):
        console.print(sentence)
    console.print(f"Report:  {report}")
    console.print(f"Trials:  {run.path / 'trials.csv'}")
    console.print(f"Train the most accurate again:\n  {train_command(run, front[0], 1, ())}")


def print_epoch(console: Terminal, epoch: Epoch, epochs: int) -> None:
    """Print one line per epoch of a training."""
    console.print(
        f"epoch {epoch.epoch:>{len(str(epochs))}}/{epochs}  loss {epoch.loss:.4f}  "
        f"train {percent(epoch.train_accuracy):>7}  validation {percent(epoch.validation_accuracy):>7}  "
        f"lr {epoch.lr:.2g}  {epoch.seconds_train + epoch.seconds_eval:.1f} s  {epoch.images_per_second:,.0f} images/s"
    )


def print_trained(console: Terminal, result: Trained) -> None:
    """Print what a training gave, and the commands that go on with it."""
    shipped, there = result.shipped, ""
    console.print(
        f"validation accuracy {percent(result.validation_accuracy, result.validation_images)} · "
        f"test accuracy {percent(result.test_accuracy, result.test_images)}"
    )
    if shipped:
        console.print(shipped_line(shipped))
        there = "" if shipped["name"] == TORCH.name else f" --target {shipped['name']}"
    console.print(f"Weights:  {result.model}")
    console.print(f"Judge it, or ship it:\n  nas evaluate {result.model}\n  nas export {result.model}{there}")


def print_catalogue(console: Terminal, spaces: Sequence[Space], networks: Sequence[tuple[Architecture, int]]) -> None:
    """Print spaces with their sizes, networks by source with their parameters."""
    sizes = [(space, space.size, str(len(space.parameters_by_name))) for space in spaces]
    rows = [(space.name, f"{size:,}" if size < 10**7 else f"{size:.1e}", choices) for space, size, choices in sizes]
    _print_rows(console, ("Space", "Networks", "Parameters to choose"), rows)
    images = [(network, params, network.input) for network, params in networks]
    published = [
        (n.name, f"{size:,}", f"{i.channels}x{i.resolution}x{i.resolution}", n.source) for n, size, i in images
    ]
    _print_rows(console, ("Published network", "Parameters", "Input", "Source"), published)


def print_profile(console: Terminal, document: Mapping[str, Any]) -> None:
    """Print a network's costs, one figure a line."""
    plain = {key: value for key, value in document.items() if not isinstance(value, list | dict)}
    rows = [
        (key.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value)) for key, value in plain.items()
    ]
    if (there := document.get("target")) is not None:
        sizes = ("file_bytes", "memory_bytes")
        rows.append(("target", there["name"]))
        rows += [(f"  {key.replace('_', ' ')}", "-" if there[key] is None else f"{there[key]:,}") for key in sizes]
        rows += [(f"  {key.replace('_', ' ')}", there[key] or "none") for key in ("latency_engine", "objection")]
    _print_rows(console, ("", ""), rows)


COMPARED = {
    "id": ("Id", ""),
    "params": ("Parameters", "params"),
    "macs": ("MACs", "macs"),
    "size_bytes": ("Size", "size"),
    "peak_activation_bytes": ("Peak memory", "peak_memory"),
    "accuracy": ("Validation here", "accuracy"),
    "dataset": ("Printed for", ""),
    "printed_accuracy": ("Printed: accuracy", "accuracy"),
    "printed_params": ("  parameters", "params"),
    "printed_macs": ("  MACs", "macs"),
    "printed_size_bytes": ("  size", "size"),
    "printed_latency_ms": ("  latency", "latency"),
    "accuracy_per_size": ("  accuracy/size (% per 100 kB)", ""),
    "time_per_size": ("  time/size (µs per kB)", ""),
}
"""Lines of a comparison: what stands at the left, and the quantity whose unit is chosen for the values."""


def print_comparison(console: Terminal, frame: pd.DataFrame) -> None:
    """Print networks side by side, as many as the screen is wide for, a line per figure with its unit."""
    names = [str(name) for name in frame["name"]]
    lines: list[tuple[str, list[str]]] = []
    for column, (title, key) in COMPARED.items():
        known = [None if pd.isna(value) or value == "" else value for value in frame[column]]
        if any(value is not None for value in known):
            factor, unit = QUANTITIES[key].axis_unit(v for v in known if v is not None) if key else (1.0, "")
            texts = ["-" if v is None else v if isinstance(v, str) else three_digits(v * factor) for v in known]
            if column == "accuracy":
                counts = [None if pd.isna(images) else int(images) for images in frame["validation_images"]]
                texts = [
                    "-" if v is None else percent(v, n).removesuffix(" %") for v, n in zip(known, counts, strict=True)
                ]
            lines.append((f"{title} ({unit})" if unit else title, texts))
    widths = [max(map(len, (name, *(texts[at] for _, texts in lines)))) for at, name in enumerate(names)]
    left = max(len(title) for title, _ in lines)
    shown = 0
    while shown < len(names):
        end, room = shown + 1, console.width - left - 2 - widths[shown]
        while end < len(names) and room >= widths[end] + 2:
            room -= widths[end] + 2
            end += 1
        table = _table("", *names[shown:end])
        for title, texts in lines:
            table.add_row(title, *texts[shown:end])
        for place in table.columns:
            place.justify = "left" if place is table.columns[0] else "right"
            place.no_wrap = end - shown > 1
        console.print(table)
        console.print()
        shown = end
    rows = frame.to_dict("records")
    notes = {
        f"{row['name']}: {'; '.join(filter(None, (row[key] for key in ('source', 'hardware', 'note'))))}"
        for row in rows
    }
    for note in sorted(note for note in notes if not note.endswith(": ")):
        console.print(note)


def print_latencies(console: Terminal, found: Sequence[Measurement]) -> None:
    """Print measured latencies with their spread, what cannot be told apart, and where they were measured."""
    table = _table("Network", "Latency", "95 % interval", "Median", "p90", "Runs")
    notes = []
    for item in found:
        tied = [other.name for other in found if other is not item and item.tied(other)]
        if item.noisy:
            notes.append(f"{item.name}: {item.reason}")
        elif tied:
            notes.append(f"{item.name}: tied with {', '.join(tied)}")
        table.add_row(
            item.name,
            show("measured_latency", item.value_ms),
            from_to(three_digits(item.low_ms), three_digits(item.high_ms)),
            three_digits(item.median_ms),
            three_digits(item.p90_ms),
            str(item.repeats),
        )
    console.print(table)
    for note in notes:
        console.print(note)
    if found:
        where = asdict(found[0].provenance)
        _print_rows(console, ("", ""), ((key.replace("_", " "), str(value)) for key, value in where.items()))


def print_table_quality(console: Terminal, table: LatencyTable, path: Path) -> None:
    """Print how well a latency table predicts networks that it was not fitted to."""
    held = table.held_out
    console.print(
        f"{path}: {table.space.name} on {table.provenance.device}; on {held.networks} held-out networks "
        f"{held.within_10:.0%} are within 10 %, rank correlation {held.spearman:.3f}",
    )


def print_reproduction(console: Terminal, done: Reproduction) -> None:
    """Print a paper's table again: printed figures and ours, and the ranks under both."""
    table = _table("Network", "For", "Accuracy", "Here", "Test", "ms", "Here", "Rank by accuracy", "by latency")
    for row in done.frame.to_dict("records"):
        spread = "" if pd.isna(row["accuracy_spread"]) else f" ± {done.percent(row, 'accuracy_spread')}"
        table.add_row(
            row["printed_name"],
            row["dataset"],
            _known(row["printed_accuracy"], "{:.2%}".format),
            done.percent(row, "accuracy") + spread,
            done.percent(row, "test_accuracy"),
            _known(row["printed_latency_ms"], three_digits),
            _known(row["latency_ms"], three_digits),
            *(
                f"{_known(row[f'printed_{name}_rank'])} / {_known(row[f'{name}_rank'])}"
                for name in ("accuracy", "latency_ms")
            ),
        )
    console.print(table)
    for line in (f"Table:  {done.path / 'table.md'}", *(f"Report: {run / 'report.html'}" for run in done.runs)):
        console.print(line)


def _known(value: Any, form: Callable[[Any], str] = str) -> str:
    return "-" if pd.isna(value) else form(value)


def print_data(console: Terminal, document: Mapping[str, Any]) -> None:
    """Print the facts of a data set: its classes, everything else a line each, and what is odd about it."""
    table = _table("Class", "Training", "Validation", "Test")
    for item in document["classes"]:
        table.add_row(item["name"], *(f"{item[part]:,}" for part in ("train", "validation", "test")))
    table.columns[1].justify = "right"
    console.print(table)
    console.print()
    _print_rows(console, ("", ""), fact_rows(document))
    for note in document["notes"]:
        console.print(f"Note: {note}")


def print_judgement(console: Terminal, judgement: Judgement, part: str) -> None:
    """Print recall and precision per class, the commonest confusions, and the surest mistakes."""
    table = _table("Class", "Images", "Recall", "Precision")
    table.columns[1].justify = "right"
    for item in judgement["classes"]:
        shares = (percent(item[key], item["images"]) for key in ("recall", "precision"))
        table.add_row(item["name"], f"{item['images']:,}", *shares)
    console.print(f"balanced {part} accuracy {percent(judgement['balanced_accuracy'], judgement['images'])}")
    console.print(table)
    if pairs := worst_confusions(judgement, _MOST_CONFUSIONS):
        console.print()
        confusions = (
            (actual, predicted, f"{count:,}", percent(share, count)) for actual, predicted, count, share in pairs
        )
        _print_rows(console, ("Class", "taken for", "Images", "of the class"), confusions)
        console.print()
        mistakes = [
            (m["image"], m["actual"], m["predicted"], f"{100 * m['probability']:.0f} %") for m in judgement["mistakes"]
        ]
        _print_rows(console, ("Surest mistakes", "Class", "taken for", "Probability"), mistakes)


def print_exported(console: Terminal, exported: Exported) -> None:
    """Print the files that an export wrote, and how well they agree."""
    for file in exported.model.files:
        console.print(f"{file}  {show('size', file.stat().st_size)}")
    console.print(f"largest difference from torch: {exported.model.difference:.1g} of the largest logit")
    small = exported.quantised
    if small is not None:
        before, after = exported.accuracies
        console.print(
            f"{small.path}\nint8: size {show('size', small.size_before)} -> {show('size', small.size)}, "
            f"validation accuracy {percent(before.validation, before.validation_images)} -> "
            f"{percent(after.validation, after.validation_images)}, test accuracy "
            f"{percent(before.test, before.test_images)} -> {percent(after.test, after.test_images)}, "
            f"calibrated on {small.calibration_images} training images"
        )
        console.print(
            f"the same class as before: {percent(exported.agreement or 0, before.validation_images)} of the validation "
            "images"
        )


def shipped_line(figures: Mapping[str, Any]) -> str:
    """Say in one line what ships on a target, from the figures of :func:`nas.export.judging.judge_shipped`."""
    said = [show("size", figures["file_bytes"]), f"memory {show('memory', figures['memory_bytes'])}"]
    if figures["int8"]:
        for part in ("validation", "test"):
            said.append(f"int8 {part} accuracy {percent(figures[f'{part}_accuracy'], figures[f'{part}_images'])}")
    return f"On {figures['name']}: {', '.join(said)}"


def print_predictions(console: Terminal, predictions: Sequence[Prediction]) -> None:
    """Print each image with its likeliest classes."""
    for prediction in predictions:
        # Names of files are any bytes, and may look like an emoji's code.
        console.print(printable(str(prediction.image)))
        for guess in prediction.guesses:
            console.print(f"  {guess.probability:7.2%}  {printable(guess.label)}")


def _print_rows(console: Terminal, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = _table(*columns)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for index, column in enumerate(columns):
        justify: JustifyMethod = "left" if index < 2 or column in ("Source", "") else "right"
        table.add_column(column, justify=justify, overflow="fold")
    return table
