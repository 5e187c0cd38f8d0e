"""Pieces of Python source, laid out as ruff formats them."""

import re
import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 120


def function(name: str, parameters: Sequence[str], returns: str, body: Iterable[str]) -> str:
    """A function; a parameter list that does not fit one line gets a line per parameter."""
    head = f"def {name}({', '.join(parameters)}) -> {returns}:"
    if len(head) > WIDTH - 4:  # as a method it stands 4 further in
        listed = "".join(f"    {parameter},\n" if parameter != "*" else "    *,\n" for parameter in parameters)
        head = f"def {name}(\n{listed}) -> {returns}:"
    return head + "\n" + textwrap.indent("\n".join(body), "    ", lambda line: line.strip() != "")


def module_class(name: str, doc: str, parameters: Sequence[str], init: Iterable[str], forward: Iterable[str]) -> str:
    """An ``nn.Module``: what its ``__init__`` does after super's, and its ``forward`` of x."""
    methods = (
        function("__init__", ["self", *parameters], "None", ["super().__init__()", *init]),
        function("forward", ["self", "x: Tensor"], "Tensor", forward),
    )
    inside = "\n\n".join([f'"""{doc}"""', *methods])
    return f"class {name}(nn.Module):\n" + textwrap.indent(inside, "    ", lambda line: line.strip() != "")


def string(text: str) -> str:
    """A string literal, in double quotes where that needs no escape."""
    literal = repr(text)
    return f'"{literal[1:-1]}"' if "'" not in text and '"' not in text else literal


def sequence(items: Sequence[str], indent: int = 0, prefix: int = 0) -> str:
    """A tuple literal on one line, or with a line per item where `prefix` characters before it leave no room."""
    line = f"({', '.join(items)}{',' if len(items) == 1 else ''})"
    if indent + prefix + len(line) <= WIDTH:
        return line
    listed = "".join(f"{' ' * (indent + 4)}{item},\n" for item in items)
    return f"(\n{listed}{' ' * indent})"


def call(head: str, arguments: Sequence[str], indent: int) -> list[str]:
    """``head(arguments)`` on one line, or with a line per argument where that is too long at this indent."""
    line = f"{head}({', '.join(arguments)})"
    if indent + len(line) <= WIDTH:
        return [line]
    return [f"{head}(", *(f"    {argument}," for argument in arguments), ")"]


def prose(text: str, *, escape: bool = False) -> str:
    """Text for a docstring, wrapped. `escape`: text of a stranger, which must not end the docstring."""
    if escape:
        text = " ".join(text.split())
        text = "".join(letter for letter in text if letter.isprintable())
        text = text.replace("\\", "\\\\").replace('"', "'")
    return "\n".join(textwrap.wrap(text, WIDTH - 4, break_long_words=False, break_on_hyphens=False))


def mentions(text: str, name: str) -> bool:
    """Whether a name stands in the source."""
    return re.search(rf"\b{name}\b", text) is not None
