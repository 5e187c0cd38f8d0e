"""The papers' tables again: their networks trained, or timed, here, and our figures beside the printed ones.

A table is trained as a search that has nothing to find: its queue is the table's networks, its space holds the first of
them alone, and nothing is stopped. So it has a search's workers, is resumed as one, and leaves a run's folder with a
report. Beside that stand ``table.csv`` and ``table.md``: every printed row, with ours where there is one.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from nas.architecture import catalogue
from nas.architecture.reported import CLASSES, Printed, read_table
from nas.costs.analytic import cost
from nas.driver.confirmation import Confirmed
from nas.driver.options import ReproduceOptions
from nas.driver.record import Record
from nas.driver.run import Run
from nas.driver.search import finished_run, search
from nas.driver.settings import Settings
from nas.errors import UserError
from nas.files import fresh_folder, write_file
from nas.latency import Runtime, measure
from nas.significance import spearman
from nas.training.data import FOLDER_PREFIX, NAMES, load_dataset
from nas.training.recipe import Recipe, load_recipe
from nas.units import counted, percent

log = logging.getLogger(__name__)

TRAINED: Mapping[str, str] = {"han-table3": "han", "han-table5": "han", "hoang-table3": "hoang", "kuo-table3": "kuo"}
TIMED = ("hoang-table5",)
"""The tables whose networks are trained, with the paper's recipe, and those whose networks are only timed."""

WHERE = ["dataset", "printed_hardware"]
"""Only rows that are printed for the same are ranked against each other."""
ORDERS: Mapping[str, bool] = {"accuracy": False, "latency_ms": True}
"""Columns whose printed order is compared with ours, and whether the least is the best."""

COLUMNS: Mapping[str, str] = {
    **dict.fromkeys(("row", "printed_name", "name", "id", "dataset", "protocol", "printed_hardware"), "object"),
    **dict.fromkeys(
        (f"printed_{key}" for key in ("accuracy", "params", "macs", "size_bytes", "latency_ms")), "float64"
    ),
    **dict.fromkeys(("printed_batch",), "Int64"),
    **dict.fromkeys(("trained_on", "state"), "object"),
    **dict.fromkeys(("epochs", "seeds"), "Int64"),
    **dict.fromkeys(("accuracy", "accuracy_spread", "test_accuracy"), "float64"),
    **dict.fromkeys(("params", "macs", "size_bytes"), "Int64"),
    **dict.fromkeys(("latency_ms", "latency_low_ms", "latency_high_ms"), "float64"),
    **dict.fromkeys(("batch",), "Int64"),
    **dict.fromkeys(("hardware", "latency_noisy"), "object"),
    **dict.fromkeys((f"{side}{column}_rank" for column in ORDERS for side in ("printed_", "")), "Int64"),
    "note": "object",
}
"""Columns of ``table.csv`` with their types. What has no ``printed_`` before it is ours, where the table has both.

accuracy, accuracy_spread  validation: mean and sample standard deviation over `seeds` trainings, last epoch
test_accuracy              of the first of them, read once
*_rank                     among the rows of the data set and hardware that have both figures; 1 is the best
"""


@dataclass(frozen=True)
class Reproduction:
    """A table, reproduced.

    path    the folder of ``table.csv`` and ``table.md``
    frame   the rows of ``table.csv``
    orders  Spearman's correlation of the printed order with ours, by column, data set and hardware that the rows are
            printed for; None for fewer than three rows with both figures, and where all are equal
    runs    folders of the runs; none where networks are only timed
    images  number of images per part, such as ``validation``, by the data set that was trained on
    """

    table: str
    path: Path
    frame: pd.DataFrame
    orders: Mapping[tuple[str, ...], float | None]
    runs: Sequence[Path]
    images: Mapping[str, Mapping[str, Any]]

    def percent(self, row: Mapping[Any, Any], column: str) -> str:
        """An accuracy of ours with the digits that its images support."""
        if pd.isna(row[column]):
            return "-"
        return percent(row[column], self.images[row["trained_on"]].get("test" if "test" in column else "validation"))


def reproduce(options: ReproduceOptions) -> Reproduction:
    """Train a table's networks by the paper's protocol, or a shorter one, and write the table again with our figures.

    Where `out` holds the same reproduction, unfinished, it goes on; more `seeds` are trained on top. A table of several
    data sets is one run per data set, in a folder of that name. Networks are trained at their own resolution, but no
    larger than the images. ``hoang-table5`` times its networks: the rows of a GPU on the GPU here, where there is one.

    Raises:
        UserError: something given does not fit, or `out` holds another run; nothing was trained.
        nas.driver.search.SearchFailedError: training after training failed.
    """
    table, dataset, seeds = options.table, options.dataset, options.seeds
    if table not in (*TRAINED, *TIMED):
        raise UserError(f"table {table!r} cannot be reproduced; one of: {', '.join((*TRAINED, *TIMED))}")
    out = Path(options.out) if options.out is not None else fresh_folder("reproduce", table)
    printed = read_table(table)
    if table in TIMED:
        given = [name for name in ("dataset", "train_size", "recipe", "epochs") if getattr(options, name) is not None]
        for option in given + ["seeds"] * (seeds > 1):
            leave = option.replace("_", "-")
            raise UserError(f"{table}: its networks are timed, not trained; leave --{leave} out")
        return _write(table, out, _timed(printed), ())
    known = list(dict.fromkeys(row.dataset for row in printed))
    data_dir = None if options.data_dir is None else str(options.data_dir)
    data = {"data_dir": data_dir, "train_size": options.train_size, "seed": options.seed}
    parts: dict[Path, tuple[Settings, list[Printed]]] = {}
    for name in known if dataset is None else [dataset]:  # all are read before the first is trained for hours
        rows = [row for row in printed if row.dataset == (name if name in known else known[0])]
        settings = _settings(table, rows, name, options.recipe, options.epochs, **data)
        folder = out / name if len(known) > 1 and name in known else out
        parts[folder] = replace(settings, confirm=seeds - 1), rows
    for folder, (settings, rows) in parts.items():
        if finished_run(folder, settings) is None:
            log.info("%s: %d networks on %s, in %s", table, settings.trials, settings.dataset, folder)
            tell = options.on_change or (lambda progress: None)
            search(settings, out=folder, resources=options.resources, on_change=tell, measure_latency=True)
        run = Run.open(folder)
        done = _write(table, folder, [_trained(row, run) for row in rows], [run])
    if out in parts:
        return done
    # Every data set that was ever run here, so that they may be run one at a time.
    runs = {name: Run.open(out / name) for name in known if (out / name / "run.yaml").exists()}
    return _write(table, out, [_trained(row, runs.get(row.dataset)) for row in printed], list(runs.values()))


def _settings(
    table: str, rows: Sequence[Printed], dataset: str, recipe: str | Recipe | None, epochs: int | None, **data: Any
) -> Settings:
    """The search whose queue is the rows' networks; they have one resolution in each of the papers' tables."""
    if dataset in CLASSES and dataset not in NAMES:
        raise UserError(f"{table}: {dataset} cannot be downloaded; give --dataset {FOLDER_PREFIX}PATH")
    plan = load_recipe(recipe or TRAINED[table])
    if recipe is None and (table, dataset) == ("han-table5", "stl10"):
        plan = replace(plan, batch_size=50)  # "training batch 50"
    networks = [catalogue.load(row.name) for row in rows if row.name]
    side = networks[0].input.resolution
    folder_side = side if dataset.startswith(FOLDER_PREFIX) else None
    images = load_dataset(dataset, resolution=folder_side, **data)
    side = min(side, images.resolution)
    fitted = [network.with_input(channels=images.channels, resolution=side) for network in networks]
    documents = tuple({network.id: network.to_dict() for network in fitted}.values())
    return Settings(
        space={**documents[0], "name": table},
        dataset=images.name,
        fit=images.fit,
        split_by=images.split.by,
        image_resolution=folder_side,
        # Latency takes no part: it is measured once all are trained, without a table for a space of one network.
        objectives=("accuracy", "size"),
        recipe=plan.for_images(len(images.train), epochs=epochs).to_dict(),
        trials=len(documents),
        sampler="random",
        reduction=1,
        published="none",
        enqueue=documents,
        **data,
    )


def _trained(row: Printed, run: Run | None) -> dict[str, Any]:
    """A printed row, with what the run found out of its network."""
    if run is None or not row.name:
        return _printed(row)
    network = catalogue.load(row.name).with_input(**run.settings.space["input"])
    records = [item for item in run.records if item.architecture.id == network.id and item.twin is None]
    return _printed(row) | (_ours(records[0], run) if records else {})


def _printed(row: Printed) -> dict[str, Any]:
    own = {key: getattr(row, key) for key in ("row", "printed_name", "name", "dataset", "protocol", "note")}
    figures = ("accuracy", "params", "macs", "size_bytes", "latency_ms", "batch", "hardware")
    return own | {f"printed_{key}": getattr(row, key) for key in figures}


def _ours(record: Record, run: Run) -> dict[str, Any]:
    figures = ("test_accuracy", "latency_ms", "latency_low_ms", "latency_high_ms", "latency_noisy")
    cells = {key: record.confirmed.get(key) for key in figures} | {
        "id": record.architecture.id,
        "trained_on": run.settings.dataset,
        "state": f"{record.state}: {record.reason}".removesuffix(": "),
        "epochs": len(record.curve),
        "params": record.costs.get("params"),
        "macs": record.costs.get("macs"),
        "size_bytes": record.costs.get("size"),
    }
    if "latency_ms" in record.confirmed:  # as nas.driver.final_evaluation measures
        cells |= {"batch": 1, "hardware": f"{run.environment.get('cpu', 'cpu')}, eager, 1 thread"}
    if record.state == "complete" and record.accuracy is not None:
        repeats = record.confirmed.get("repeats", {}).get(str(len(record.curve)), {})
        found = Confirmed(record, len(record.curve), (record.accuracy, *repeats.values()))
        cells |= {"seeds": len(found.accuracies), "accuracy": round(found.mean, 6)}
        cells |= {"accuracy_spread": round(found.spread, 6)} if repeats else {}
    return cells


def _timed(printed: Sequence[Printed]) -> list[dict[str, Any]]:
    """The printed rows, with what their networks take on the same kind of device here."""
    classes, batch = CLASSES[printed[0].dataset], printed[0].batch or 1
    cells = [_printed(row) for row in printed]
    for device in ("cpu", "cuda")[: 1 + torch.cuda.is_available()]:
        rows = [cell for cell in cells if cell["name"] and (device == "cuda") == ("NVIDIA" in cell["printed_hardware"])]
        log.info("timing %s at batch %d on %s", counted(len(rows), "network"), batch, device)
        networks = [catalogue.load(row["name"]) for row in rows]
        figures = measure(networks, Runtime(device=device, batch=batch), num_classes=classes)
        for cell, network, figure in zip(rows, networks, figures, strict=True):
            counts, where = cost(network, classes), figure.provenance
            cell |= {"id": network.id, "params": counts.params, "macs": counts.macs, "size_bytes": counts.size_bytes}
            cell |= {"latency_ms": figure.value_ms, "latency_low_ms": figure.low_ms, "latency_high_ms": figure.high_ms}
            cell |= {"hardware": f"{where.device}, {where.engine}, {where.threads} thread", "batch": where.batch}
            cell["latency_noisy"] = figure.reason if figure.noisy else ""
    return cells


def _write(table: str, folder: Path, cells: Sequence[Mapping[str, Any]], runs: Sequence[Run]) -> Reproduction:
    frame = pd.DataFrame([dict(cell) for cell in cells], columns=list(COLUMNS)).astype(dict(COLUMNS))
    orders: dict[tuple[str, ...], float | None] = {}
    for where, group in frame.groupby(WHERE, sort=False):
        for column, ascending in ORDERS.items():
            both = group[[f"printed_{column}", column]].dropna()
            ranks = both.rank(method="min", ascending=ascending).astype("Int64")
            frame.loc[both.index, [f"printed_{column}_rank", f"{column}_rank"]] = ranks.to_numpy()
            if not both.empty:
                orders[column, *map(str, where)] = spearman(*both.to_numpy(float).T)
    done = Reproduction(
        table, folder, frame, orders, [run.path for run in runs], {run.settings.dataset: run.data for run in runs}
    )
    write_file(folder / "table.csv", frame.to_csv(index=False), new_folder=True)
    write_file(folder / "table.md", _markdown(done, runs))
    return done


_SHOWN = {
    "Accuracy": ("accuracy", "{:.2%}"),
    "Spread": ("accuracy_spread", "{:.2%}"),
    "Test accuracy": ("test_accuracy", "{:.2%}"),
    "Params": ("params", "{:,.0f}"),
    "MACs": ("macs", "{:,.0f}"),
    "Bytes": ("size_bytes", "{:,.0f}"),
    "ms": ("latency_ms", "{:.3g}"),
    "Rank by accuracy": ("accuracy_rank", "{}"),
    "Rank by latency": ("latency_ms_rank", "{}"),
}


def _markdown(done: Reproduction, runs: Sequence[Run]) -> str:
    frame = done.frame
    columns: dict[str, list[str]] = {"Network": list(frame["printed_name"])}
    columns["Printed for"] = [", ".join(filter(None, pair)) for pair in frame[WHERE].itertuples(index=False)]
    for title, (column, form) in _SHOWN.items():
        for side, key in (("printed", f"printed_{column}"), ("here", column)):
            if key in frame and frame[key].notna().any():
                ours = side == "here" and "accuracy" in key and "rank" not in key
                columns[f"{title}, {side}"] = (
                    [done.percent(row, key) for row in frame.to_dict("records")]
                    if ours
                    else ["-" if pd.isna(item) else form.format(item) for item in frame[key]]
                )
    lines = [f"Printed: {protocol}." for protocol in frame["protocol"].unique() if protocol]
    for settings in (run.settings for run in runs):
        seeds = counted(settings.confirm + 1, "seed")
        how = f"{settings.train_size or 'all'} images, epochs: {settings.parsed_recipe.epochs}"
        lines.append(f"Here: {settings.dataset}, {how}; accuracy: validation, mean of {seeds}.")
    timed = frame[frame["latency_ms"].notna()]
    for (hardware, batch), group in timed.groupby(["hardware", "batch"]):
        noisy = f"too noisy: {(group['latency_noisy'] != '').sum()} of {len(group)}"
        lines.append(f"Latency here: {hardware}, batch {batch}; {noisy}.")
    for (column, *where), value in done.orders.items():
        if value is not None:
            lines.append(f"Spearman's correlation, {column}, {', '.join(filter(None, where))}: {value:.2f}.")
    for note, group in frame[frame["note"] != ""].groupby("note", sort=False):
        lines.append(f"Note on {', '.join(group['printed_name'].unique())}: {note}")
    rows = [list(columns), ["---"] * len(columns), *map(list, zip(*columns.values(), strict=True))]
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in rows]
    return "\n".join([f"# {done.table}", "", *body, "", *(f"- {line}" for line in lines)]) + "\n"
