"""What a network costs before it is trained: counts in closed form, and latency.

The package can be called: ``nas.cost(architecture)`` is :func:`nas.cost.analytic.cost`.
"""

import sys
from types import ModuleType
from typing import Any

from nas.cost.analytic import Cost, cost

__all__ = ["Cost", "cost"]


class _Callable(ModuleType):
    """Gives the package the call that users expect beside its contents."""

    def __call__(self, *arguments: Any, **options: Any) -> Cost:
        return cost(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
