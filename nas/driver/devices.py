"""A search for several devices: a run for each, which takes over what the runs before it found out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.driver.prepare import prepare
from nas.driver.run import Run
from nas.driver.scheduler import Progress
from nas.driver.search import finished_run, search
from nas.driver.settings import Settings
from nas.errors import UserError
from nas.training.data import Dataset


def device_folders(out: Path, tables: Sequence[str]) -> list[Path]:
    """Return where each device's run goes: `out` itself for one device, else a folder in it with the table's name.

    Raises:
        UserError: two tables have one name.
    """
    if len(tables) < 2:
        return [out]
    names = [Path(table).stem for table in tables]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--latency-table: two tables are called {name}; a device's run is named after its file")
    return [out / name for name in names]


def search_devices(
    settings: Settings,
    tables: Sequence[str],
    *,
    out: Path,
    dataset: Dataset,
    telling: Callable[[Path], Callable[[Progress], None]],
    deadline: float | None = None,
    **how: Any,
) -> list[Run]:
    """Search for one device after the other; what is finished in `out` is not begun again.

    What training a network gives is the same on every device: each run imports the networks that were trained for
    those before it, and takes over their supernet with all members that it judged. Limits hold for each device's own
    latency.

    Args:
        settings: of the first device's search, but for its table.
        tables: latency tables of the devices; none where there is one device, or no latency is asked for.
        out: the run's folder, or that of the runs; see :func:`device_folders`.
        dataset: the settings' data set.
        telling: makes the function that is told a run's progress, given its folder.
        deadline: of all searches together, on the clock of :func:`time.monotonic`.
        how: other keywords of :func:`nas.driver.search.search`.

    Raises:
        UserError: something given does not fit; nothing was written.
    """
    folders = device_folders(out, tables)
    asked = [_for_device(settings, tables, folders, place) for place in range(len(folders))]
    if len(asked) > 1:  # a mistake in the last table should not wait for the first device's search
        for each, folder in zip(asked, folders, strict=True):
            prepare(each, run=folder, dataset=dataset)
    runs: list[Run] = []
    for each, folder in zip(asked, folders, strict=True):
        if len(asked) > 1 and (run := finished_run(folder, each)) is not None:
            runs.append(run)
            continue
        until = deadline
        if deadline is not None:
            until = time.monotonic() + (deadline - time.monotonic()) / (len(asked) - len(runs))
        how |= {"deadline": until, "several_devices": len(asked) > 1}
        runs.append(search(each, out=folder, dataset=dataset, on_change=telling(folder), **how))
    return runs


def _for_device(settings: Settings, tables: Sequence[str], folders: Sequence[Path], place: int) -> Settings:
    if tables:
        settings = replace(settings, latency_table=tables[place])
    if place == 0:
        return settings
    before = str(folders[place - 1])
    if settings.evaluator == "supernet":
        return replace(settings, supernet=before)
    return replace(settings, warm_start=before)
