"""Options stated once: a dataclass holds name, type, default and help; the command line and Python take what it says.

A field ``name: Annotated[TYPE, "help", ...] = default`` is an option of the command and a keyword of the function; one
without a help text is a keyword alone. Of several types the first is the command line's. A sequence without entries is
an option to be repeated, one with entries a comma-separated option. A number has a :class:`Range`. A command's own
parameters are annotated likewise.
"""

import functools
import inspect
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from nas.errors import UserError, first_mistake


@dataclass(frozen=True)
class Range:
    """Finite numbers from `least` on, or above it, to `most`: those that an option may have, in its ``Annotated``."""

    least: float
    most: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.least < value if self.above else self.least <= value) and value <= self.most and value < math.inf

    def __str__(self) -> str:
        least = f"more than {self.least:g} are" if self.above else f"at least {self.least:g} is"
        return f"{least} needed" + (f", at most {self.most:,}" if self.most < math.inf else "")


FROM_0, FROM_1, ABOVE_0 = Range(0), Range(1), Range(0, above=True)
SEEDS, THREADS = Range(0, 2**63 - 1), Range(1, 1024)

TARGETS = "torch, onnxruntime, onnxruntime-int8, litert, litert-int8 or tflite-micro; of int8 also NAME:per-tensor"

# Options that several commands have.
DataDir = Annotated[Path | str | None, "Folder of data sets; missing ones are downloaded to it."]
Epochs = Annotated[int | None, "Epochs of a training (default: the recipe's).", FROM_1]
Fit = Annotated[str, "How images of a folder become squares: crop, pad or stretch."]
Strict = Annotated[bool, "Refuse a folder of images where anything in it is not read."]
Flip = Annotated[str | None, "Mirroring of training images: none or horizontal (default: the recipe's)."]
ClassWeights = Annotated[
    str | None,
    "Weights of the classes in the loss: none, or balanced: rare ones weigh more (default: the recipe's).",
]
Augment = Annotated[
    str | None,
    "Augmentation of training images: small, or photo: crops, colours, erasing (default: photo from 96 pixels on,"
    " for networks of 100,000 parameters and more).",
]
Seed = Annotated[int, "Random seed.", SEEDS]
TrainSize = Annotated[int | None, "Number of training images to use (default: all).", FROM_1]

P = ParamSpec("P")
M = TypeVar("M")
R = TypeVar("R")


@dataclass(frozen=True)
class OnCommandLine:
    """Differences of a command's option from its field, as an item of its ``Annotated``.

    name     of the option; of an argument the word that stands for it in the help
    default  of the option; None where the command has to know whether it was given
    resumes  a resumed run may change it
    repeats  it may be given several times; the command gets a tuple of its values
    """

    name: str | None = None
    default: Any = ...
    resumes: bool = False
    repeats: bool = False


def keywords(model: Callable[P, M], *types: type) -> Callable[[Callable[[M], R]], Callable[P, R]]:
    """Decorate a function of a model: it takes the model's fields as keywords, and documents them.

    Args:
        model: a dataclass.
        types: that the model's annotations name and its module does not load.
    """
    loaded = {item.__name__: item for item in types}

    def decorate(function: Callable[[M], R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(model(*args, **kwargs))

        plain = get_type_hints(model, localns=loaded)
        parameters = inspect.signature(model).parameters.values()
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [item.replace(annotation=plain[item.name]) for item in parameters],
            return_annotation=inspect.signature(function).return_annotation,
        )
        lines = [f"        {name}: {get_args(hint)[1]}\n" for name, hint in hints_of(model).items()]
        run.__doc__ = (function.__doc__ or "").replace("    Args:\n", f"    Args:\n{''.join(lines)}", 1)
        return run

    return decorate


def check_fields(values: Any, where: str = "") -> None:
    """Check a dataclass's values against its annotations, with pydantic's constraints, strictly: True is no number.

    Args:
        values: an instance.
        where: what an error begins with.

    Raises:
        UserError: a value is of another type or out of range; it names the field, the value and what is allowed.
    """
    from pydantic import ValidationError  # not above: `nas --help` does without

    model: Any = type(values)
    for name, adapter in _adapters(model).items():
        value = getattr(values, name)
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            inner, mistake = first_mistake(error)
            place = f"{name}.{inner}" if inner else f"{name} {value!r}"
            said = f"{place}: {mistake.replace('Input should be', 'should be', 1)}"
            raise UserError(f"{where}: {said}" if where else said) from error


@functools.cache
def _adapters(model: type) -> dict[str, Any]:
    from pydantic import ConfigDict, TypeAdapter

    strict = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    hints = get_type_hints(model, include_extras=True)
    return {name: TypeAdapter(hint, config=strict) for name, hint in hints.items()}


def check_numbers(hints: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Check that the numbers among options' values lie in the ranges that their annotations state.

    Raises:
        UserError: one does not; it names the option, the value and what is needed.
    """
    for name, value in values.items():
        for allowed in (item for item in get_args(hints.get(name))[2:] if isinstance(item, Range)):
            if isinstance(value, int | float) and value not in allowed:
                shown = f"{value:g}" if isinstance(value, float) else value
                raise UserError(f"{name.replace('_', '-')} {shown}: {allowed}")


@functools.cache
def hints_of(model: Any) -> dict[str, Any]:
    """Return the annotations of a model's fields that are options."""
    return {name: hint for name, hint in get_type_hints(model, include_extras=True).items() if is_option(hint)}


def check_options(options: Any) -> None:
    """Check the numbers of a model; see :func:`check_numbers`."""
    model: Any = type(options)
    check_numbers(hints_of(model), vars(options))


def deadline_of(hours: float | None, began: float | None) -> float | None:
    """Return when a time ends that began then, or begins now, on the clock of :func:`time.monotonic`."""
    return None if hours is None else (time.monotonic() if began is None else began) + 3600 * hours


def is_option(hint: Any) -> bool:
    """Tell whether a field's annotation has a help text."""
    return get_origin(hint) is Annotated


def resumable_options(model: Any) -> tuple[str, ...]:
    """Return the fields that a resumed run may change."""
    marks = {name: on_command_line(hint) for name, hint in hints_of(model).items()}
    return tuple(name for name, mark in marks.items() if mark.resumes)


def on_command_line(hint: Any) -> OnCommandLine:
    """Return the differences of an option from its field, from the field's annotation."""
    return next((item for item in get_args(hint)[2:] if isinstance(item, OnCommandLine)), OnCommandLine())
