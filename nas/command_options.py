"""A command's arguments and options, from annotations and models as :mod:`nas.options` describes them."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from nas.options import check_numbers, hints_of, on_command_line


def command(
    app: typer.Typer, example: str, *, name: str | None = None, **models: type
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a function: it is a command, its parameters before the ``*`` are arguments, those after it options.

    Args:
        app: of the command.
        example: a command line, with which the help ends.
        name: of the command; default the function's.
        models: by parameter: a dataclass. Its fields with a help text are options in the place of the parameter, which
            receives what was given, by field.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own, made = get_type_hints(function, include_extras=True), []
        hints = {name: hints_of(model) for name, model in models.items()}
        for item in inspect.signature(function).parameters.values():
            if item.name in models:
                defaults = {field.name: field.default for field in fields(models[item.name])}
                made += [_option(field, hint, defaults[field]) for field, hint in hints[item.name].items()]
            elif item.kind is inspect.Parameter.KEYWORD_ONLY:
                made.append(_option(item.name, own[item.name], item.default))
            else:
                kind, text, on_command_line = get_args(own[item.name])
                argument = typer.Argument(help=text, metavar=on_command_line.name)
                made.append(_parameter(item.name, Annotated[kind, argument], item.default))

        @functools.wraps(function)
        def run(**given: Any) -> None:
            for of_one in (own, *hints.values()):
                check_numbers(of_one, {name: given[name] for name in of_one if name in given})
            for name, of_model in hints.items():
                values = {field: given.pop(field) for field in of_model}
                for field, value in values.items():
                    if isinstance(value, list) or (isinstance(value, str) and _is_sequence(of_model[field])):
                        values[field] = tuple(value.split(",") if isinstance(value, str) else value)
                given[name] = {field: value for field, value in values.items() if value is not None}
            function(**given)

        run.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in made}
        return app.command(name=name, epilog=f"Example: {example}")(run)

    return decorate


def _option(field: str, hint: Any, default: Any) -> inspect.Parameter:
    """Make typer's parameter of an option."""
    kind, text, *_ = get_args(hint)
    own = on_command_line(hint)
    default, otherwise = default if own.default is ... else own.default, default
    if default is None and otherwise:
        text = f"{text.removesuffix('.')} (default: {otherwise})."
    first: Any = get_args(kind)[0] if get_origin(kind) in (Union, UnionType) else kind
    if _is_sequence(hint) and otherwise:
        first, default, text = str, ",".join(default), f"Comma-separated: {text}"
    elif _is_sequence(hint) or own.repeats:
        each: Any = first if own.repeats else str
        first, default, text = list[each], None, f"{text.removesuffix('.')}; may be repeated."
    if default is None:
        first = first | None
    words = (own.name or field).replace("_", "-")
    # A flag that is off by default needs no --no-FLAG; of a choice left open, both sides are options.
    both = f"/--no-{words}" if get_args(kind)[:1] == (bool,) else ""
    return _parameter(field, Annotated[first, typer.Option(f"--{words}{both}", help=text)], default)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _is_sequence(hint: Any) -> bool:
    return get_origin(get_args(hint)[0]) is Sequence
