"""The block kinds. Each is a file of this package that defines one stage class; a new one is found by being there."""

import functools
import importlib
import operator
import pkgutil
from typing import Annotated, Any, get_args

from pydantic import Field

from nas.blocks.stage import Block, ResidualBlock, Stage

__all__ = ["KINDS", "AnyStage", "Block", "ResidualBlock", "Stage"]


def _kinds() -> dict[str, type[Stage]]:
    """Import the files of this package and return the stage classes in them that name their block kind."""
    modules = [importlib.import_module(f"{__name__}.{item.name}") for item in pkgutil.iter_modules(__path__)]
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    stages = [value for value in classes if issubclass(value, Stage)]
    return {kind: stage for stage in stages for kind in get_args(stage.model_fields["block"].annotation)}


KINDS = _kinds()
"""Block kind -> its stage class."""

AnyStage: Any = Annotated[functools.reduce(operator.or_, KINDS.values()), Field(discriminator="block")]
"""What pydantic reads a stage as: the class of its block kind."""
