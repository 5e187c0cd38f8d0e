"""The one error that is the user's to mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_LONGEST = 2_000


class UserError(ValueError):
    """A mistake in what the user gave: one line that says what, where, and what is allowed or what to do.

    The line stays one, printable and readable, whatever a file of somebody else's put into it. The command line prints
    it alone and ends with exit code 2.
    """

    def __init__(self, line: str) -> None:
        shown = printable(line)
        super().__init__(shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}...")

    def at(self, where: str) -> UserError:
        """The same mistake with the place where it is, unless the line names that already."""
        return self if where in str(self) else UserError(f"{where}: {self}")


def printable(text: str) -> str:
    """The text with line breaks, control characters and lone surrogates written as escapes such as ``\\n``."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def first_line(error: BaseException) -> str:
    """The first line of what a library's error says, or its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def first_mistake(error: ValidationError) -> tuple[str, str]:
    """The first thing that pydantic found wrong: the path to the value, dotted, and what is wrong with it."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"]


def damaged(where: str, error: ValidationError) -> UserError:
    """The error of a file that pydantic refused, which names the first thing that is wrong in it."""
    return UserError("{}: damaged: {}: {}".format(where, *first_mistake(error)))
