"""A package that can be called as the function of its name, with that function's signature and documentation."""

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """Make a package one with :func:`make_callable`; it keeps what stands in it."""

    _called: tuple[str, str]

    def _function(self) -> Any:
        # By name, and when first used: the rooms below the top do not import it, and it imports torch, Ray and Optuna.
        module, name = self._called
        return getattr(importlib.import_module(module), name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._function()(*arguments, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function())

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return inspect.getdoc(self._function())


def make_callable(package: str, module: str, function: str) -> None:
    """Let `package`, which is being imported, be called as `function` of `module`."""
    made = sys.modules[package]
    made.__class__ = CallablePackage
    vars(made)["_called"] = (module, function)
