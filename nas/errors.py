"""The one error that is the user's to mend."""

_LONGEST = 2_000


class UserError(ValueError):
    """A mistake in what the user gave: one line that says what, where, and what is allowed or what to do.

    The line stays one, printable and readable, whatever a file of somebody else's put into it. The command line prints
    it alone and ends with exit code 2.
    """

    def __init__(self, line: str) -> None:
        shown = printable(line)
        super().__init__(shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}...")


def printable(text: str) -> str:
    """The text with line breaks, control characters and lone surrogates written as escapes such as ``\\n``."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
