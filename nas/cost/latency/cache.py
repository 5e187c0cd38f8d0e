"""The user's latency tables, one per device, space and way of running: calibrated once, used by every search."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from nas.cost.latency import engines
from nas.cost.latency.calibration import Progress, calibrate
from nas.cost.latency.engines import Engine
from nas.cost.latency.table import Table, load_table, space_id
from nas.errors import UserError
from nas.files import cache_folder
from nas.hardware import device_name
from nas.space import Space

BUDGET_SECONDS = 40.0


def table_for(
    space: Space,
    *,
    num_classes: int = 10,
    device: str = "cpu",
    engine: Engine = "eager",
    threads: int = 1,
    batch: int = 1,
    budget_seconds: float | None = BUDGET_SECONDS,
    on_progress: Progress | None = None,
) -> Table:
    """The cached table for this device and space, or a new one, which is then cached.

    A table that was made on a busy machine is made again. Call it while nothing else runs here.

    Args:
        budget_seconds: about how long a calibration may take; see :func:`nas.cost.latency.calibrate`.

    Raises:
        UserError: the engine or device is missing.
    """
    engines.check(engine, device)
    path = table_path(space, num_classes=num_classes, device=device, engine=engine, threads=threads, batch=batch)
    if path.exists():
        try:
            table = load_table(path)
            table.check(space=space, num_classes=num_classes, engine=engine)
        except UserError:
            pass  # damaged, or of an older version of ours: it is only a cache
        else:
            if not table.complaint:
                return table
    partial: Path | None = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        partial = None
    table = calibrate(
        space,
        num_classes=num_classes,
        device=device,
        engine=engine,
        threads=threads,
        batch=batch,
        budget_seconds=budget_seconds,
        partial=partial if partial and os.access(path.parent, os.W_OK) else None,
        on_progress=on_progress,
    )
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the result
        table.save(path)
    return table


def table_path(space: Space, **options: Any) -> Path:
    """Where the table for these options is cached."""
    key = {"space": space_id(space), "name": device_name(options["device"]), "torch": torch.__version__, **options}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder("latency") / f"{space.name}-{digest}.json"
