"""Search small convolutional networks for the best trade of accuracy, size and latency.

>>> import nas
>>> architecture = nas.load("han-e")
>>> nas.cost(architecture).params
889946
>>> network = architecture.build(num_classes=10)
"""

from nas.architecture import Architecture
from nas.catalog import load, load_space
from nas.cost.analytic import Cost, cost
from nas.errors import UserError
from nas.space import Space

__version__ = "0.1.0"

__all__ = ["Architecture", "Cost", "Space", "UserError", "cost", "load", "load_space"]
