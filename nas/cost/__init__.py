"""What a network costs before it is trained: counts in closed form, and latency.

The package can be called: ``nas.cost(architecture)`` is :func:`nas.cost.analytic.cost`.
"""

from nas.callable_package import make_callable
from nas.cost.analytic import Cost, cost

__all__ = ["Cost", "cost"]

make_callable(__name__, "nas.cost.analytic", "cost")
