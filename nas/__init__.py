"""Search small convolutional networks for the best trade of accuracy, size and latency.

>>> import nas
>>> architecture = nas.load("han-e")
>>> nas.cost(architecture).params
889946
>>> network = nas.build(architecture, num_classes=10)
"""

import gc
import importlib
import logging
import os
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.api import data, evaluate, open_run, search, train
    from nas.architecture.catalogue import load, load_space
    from nas.architecture.document import Architecture
    from nas.architecture.space import Space
    from nas.costs.analytic import cost
    from nas.driver.run import Run
    from nas.errors import UserError
    from nas.network.build import build
    from nas.report.figures import figure

__version__ = "0.1.0"

logging.getLogger("nas").addHandler(logging.NullHandler())  # quiet, unless the program that imports it listens

# ONNX Runtime from 1.29 on sends what it runs to its makers; it asks this once, when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Architecture": "nas.architecture.document",
    "Run": "nas.driver.run",
    "Space": "nas.architecture.space",
    "UserError": "nas.errors",
    "build": "nas.network.build",
    "cost": "nas.costs.analytic",
    "data": "nas.api",
    "evaluate": "nas.api",
    "figure": "nas.report.figures",
    "load": "nas.architecture.catalogue",
    "load_space": "nas.architecture.catalogue",
    "open_run": "nas.api",
    "search": "nas.api",
    "train": "nas.api",
}

# Spelt out for type checkers and star imports.
__all__ = [
    "Architecture",
    "Run",
    "Space",
    "UserError",
    "build",
    "cost",
    "data",
    "evaluate",
    "figure",
    "load",
    "load_space",
    "open_run",
    "search",
    "train",
]


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__])


def __getattr__(name: str) -> Any:
    # Imported when first used: torch, Ray and Optuna take seconds, and `nas --help` needs none of them.
    if name in _HOMES:
        return getattr(_import(_HOMES[name]), name)
    if name == "api":  # all functions, also those with a command of their own; torch comes with it
        return _import("nas.api")
    raise AttributeError(f"module 'nas' has no attribute {name!r}")


def _import(module: str) -> ModuleType:
    """Import a module without the garbage collector, which would take a fifth of the time to find next to nothing."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        if collecting:
            gc.enable()
