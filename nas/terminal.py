"""The one place where text goes to a screen."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from nas.errors import printable


class Terminal(Console):
    """A console that prints text as it is, in tables too.

    Names of folders, classes and networks are the user's: ``[red]`` is no markup in them, ``:b:`` no emoji, and an
    escape sequence is shown, not obeyed.

    Args:
        file: default standard output, or standard error with `stderr`.
    """

    def __init__(self, file: TextIO | None = None, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(
            file=file, stderr=stderr, width=width, highlight=False, soft_wrap=True, markup=False, emoji=False
        )

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a string, or a table's cell, into text; control characters but line breaks become escapes."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


@contextmanager
def log_to(console: Terminal) -> Iterator[None]:
    """Print what is logged within, from ``INFO`` on, a line each. A console with a live display shows it above that."""
    logger, handler = logging.getLogger("nas"), _ConsoleHandler(console)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Terminal) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(printable(record.getMessage()))
