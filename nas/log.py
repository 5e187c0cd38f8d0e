"""Print the log of the logger ``nas`` on a console; a program that configures logging needs nothing of this."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nas.errors import printable

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def log_to(console: Console) -> Iterator[None]:
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
    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(printable(record.getMessage()))
