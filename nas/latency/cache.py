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

BUDGET_SECONDS = 40.0


def table_for(
    space: Space,
    runtime: Runtime = Runtime(),  # noqa: B008  (immutable)
    *,
    num_classes: int = 10,
    timeout: float | None = None,
) -> Table:
    """The cached table for this device and space, or a new one, which is then cached.

    A table that was made on a busy machine is made again. Call it while nothing else runs here.

    Args:
        space: the space, with the input that will be searched.
        runtime: how networks are run.
        num_classes: outputs of the last layer.
        timeout: seconds after which a new one is given up.

    Raises:
        UserError: the engine or device is missing.
        TimeoutError: the time was over, and none is cached.
    """
    runtime.check()
    path = _path(space, runtime, num_classes)
    busy: Table | None = None
    with contextlib.suppress(UserError):  # damaged, or of an older version of ours: it is only a cache
        table = load_table(path)
        table.check(space=space, num_classes=num_classes, engine=runtime.engine)
        if not table.complaint:
            return table
        busy = table
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the result
        path.parent.mkdir(parents=True, exist_ok=True)
    writable = os.access(path.parent, os.W_OK)
    partial = path.with_suffix(".partial") if writable else None
    # The second of two groups is begun in the first half of the time, so that both end in it.
    budget = BUDGET_SECONDS if timeout is None else min(BUDGET_SECONDS, timeout / 2)
    try:
        table = calibrate(
            space, runtime, num_classes=num_classes, budget_seconds=budget, timeout=timeout, partial=partial
        )
    except TimeoutError:
        if busy is not None:
            return busy
        raise
    with contextlib.suppress(OSError):
        table.save(path)
    return table


def _path(space: Space, runtime: Runtime, num_classes: int) -> Path:
    key: dict[str, Any] = {"space": space_id(space), "name": device_name(runtime.device), "torch": torch.__version__}
    key |= {"num_classes": num_classes, **asdict(runtime)}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder("latency") / f"{space.name}-{digest}.json"
