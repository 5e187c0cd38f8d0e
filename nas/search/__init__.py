"""Searching: objectives, the study, the sampler, early stopping, trials on Ray Tune, runs on disk.

The package can be called: ``nas.search(...)`` is :func:`nas.api.search`.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """Gives the package the call that users expect beside its contents."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        # By name, since the rooms below the top do not import it.
        return importlib.import_module("nas.api").search(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        # Optuna takes a second to import, which a worker process need not pay.
        if name == "KnownCostSampler":
            return importlib.import_module("nas.search.sampler").KnownCostSampler
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.modules[__name__].__class__ = _Callable
