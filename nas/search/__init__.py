"""Searching: objectives, the study, the sampler, early stopping, trials on Ray Tune, runs on disk.

The package can be called: ``nas.search(...)`` is :func:`nas.api.search`.
"""

import importlib
from typing import Any

from nas.callable_package import make_callable

make_callable(__name__, "nas.api", "search")


def __getattr__(name: str) -> Any:
    # Optuna takes a second to import, which a worker process need not pay.
    if name == "KnownCostSampler":
        return importlib.import_module("nas.search.sampler").KnownCostSampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
