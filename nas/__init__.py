"""Search small convolutional networks for the best trade of accuracy, size and latency.

>>> import nas
>>> architecture = nas.load("han-e")
>>> nas.cost(architecture).params
889946
>>> network = architecture.build(num_classes=10)

`nas.search` and `nas.cost` are packages that can be called.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.api import evaluate, open_run, train
    from nas.architecture import Architecture
    from nas.catalog import load, load_space
    from nas.errors import UserError
    from nas.search.run import Run
    from nas.space import Space

__version__ = "0.1.0"

_HOMES = {
    "Architecture": "nas.architecture",
    "Run": "nas.search.run",
    "Space": "nas.space",
    "UserError": "nas.errors",
    "evaluate": "nas.api",
    "load": "nas.catalog",
    "load_space": "nas.catalog",
    "open_run": "nas.api",
    "train": "nas.api",
}

_PACKAGES = ("cost", "search")

# Spelt out for type checkers and star imports.
__all__ = [
    "Architecture",
    "Run",
    "Space",
    "UserError",
    "cost",
    "evaluate",
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
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"nas.{name}")
    raise AttributeError(f"module 'nas' has no attribute {name!r}")
