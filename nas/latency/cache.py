"""The user's latency tables, one per device, space and way of running: calibrated once, used by every search."""

import contextlib
import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nas.architecture.space import Space
from nas.errors import UserError
from nas.files import cache_folder
from nas.hardware import device_name
from nas.latency.calibration import calibrate
from nas.latency.engines import Runtime
from nas.latency.table import Table, load_table, space_id
from nas.latency.worker import Progress

BUDGET_SECONDS = 40.0


def table_for(
    space: Space,
    runtime: Runtime = Runtime(),  # noqa: B008  (immutable)
    *,
    num_classes: int = 10,
    budget_seconds: float | None = BUDGET_SECONDS,
    on_progress: Progress | None = None,
) -> Table:
    """The cached table for this device and space, or a new one, which is then cached.

    A table that was made on a busy machine is made again. Call it while nothing else runs here.

    Args:
        budget_seconds: about how long a calibration may take; see :func:`nas.latency.calibrate`.

    Raises:
        UserError: the engine or device is missing.
    """
    runtime.check()
    path = table_path(space, runtime, num_classes)
    if path.exists():
        try:
            table = load_table(path)
            table.check(space=space, num_classes=num_classes, engine=runtime.engine)
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
        runtime,
        num_classes=num_classes,
        budget_seconds=budget_seconds,
        partial=partial if partial and os.access(path.parent, os.W_OK) else None,
        on_progress=on_progress,
    )
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the result
        table.save(path)
    return table


def table_path(space: Space, runtime: Runtime, num_classes: int) -> Path:
    """Return where the table for these options is cached."""
    key: dict[str, Any] = {"space": space_id(space), "name": device_name(runtime.device), "torch": torch.__version__}
    key |= {"num_classes": num_classes, **asdict(runtime)}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder("latency") / f"{space.name}-{digest}.json"
