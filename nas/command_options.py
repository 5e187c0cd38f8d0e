"""A command's options, generated from a model of :mod:`nas.options`."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from nas.options import OnCommandLine, is_option


def options(model: type, parameter: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command: typer sees the model's options in the place of one parameter.

    Args:
        model: a dataclass; its fields with a help text become options.
        parameter: of the command; receives what was given, by the model's fields.
    """
    hints = get_type_hints(model, include_extras=True)
    made = {item.name: _option(item, hints[item.name]) for item in fields(model) if is_option(hints[item.name])}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command)

        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = {name: given.pop(option.name) for name, option in made.items()}
            for name, value in values.items():
                if isinstance(value, list) or (isinstance(value, str) and _is_sequence(hints[name])):
                    values[name] = tuple(value.split(",") if isinstance(value, str) else value)
            command(**given, **{parameter: {name: value for name, value in values.items() if value is not None}})

        everything: list[inspect.Parameter] = []
        for item in own.parameters.values():
            everything += made.values() if item.name == parameter else [item]
        everything = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in everything]
        run.__signature__ = own.replace(parameters=everything)  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in everything}
        return run

    return decorate


def _option(item: Field[Any], hint: Any) -> inspect.Parameter:
    """Make typer's parameter of a field."""
    kind, text, *rest = get_args(hint)
    own: OnCommandLine = rest[0] if rest else OnCommandLine()
    name = own.name or item.name
    default: Any = item.default if own.default is ... else own.default
    if default is None and item.default:
        text = f"{text.removesuffix('.')} (default: {item.default})."
    first: Any = get_args(kind)[0] if get_origin(kind) in (Union, UnionType) else kind
    if _is_sequence(hint) and item.default:
        first, default, text = str, ",".join(default), f"Comma-separated: {text}"
    elif _is_sequence(hint) or own.repeats:
        each: Any = first if own.repeats else str
        first, default, text = list[each], None, f"{text.removesuffix('.')}; may be repeated."
    if default is None:
        first = first | None
    # A flag that is off by default needs no --no-FLAG; of a choice left open, both sides are options.
    flag = [f"--{name.replace('_', '-')}"] if first is bool and default is False else []
    annotation = Annotated[first, typer.Option(*flag, help=text)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _is_sequence(hint: Any) -> bool:
    return get_origin(get_args(hint)[0]) is Sequence
