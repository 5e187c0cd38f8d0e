"""A search of CIFAR-10 in a folder with others, and the seconds that it took."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import nas


def timed_search(options: argparse.Namespace, name: str, **asked: Any) -> tuple[nas.Run, float]:
    """Search, or open what is there; the run and its seconds.

    Args:
        options: folder, data_dir, space, images and epochs.
        name: of the run's folder in that folder.
        asked: what else the search is asked for.
    """
    folder, times = options.folder / name, options.folder / "seconds.json"
    seconds = json.loads(times.read_text()) if times.exists() else {}
    if name not in seconds:
        started = time.monotonic()
        nas.search(
            options.space,
            dataset="cifar10",
            data_dir=options.data_dir,
            train_size=options.images,
            epochs=options.epochs,
            published="none",
            references=0,
            out=folder,
            **asked,
        )
        seconds[name] = time.monotonic() - started
        times.write_text(json.dumps(seconds))
    return nas.open_run(folder), seconds[name]
