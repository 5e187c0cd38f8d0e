"""Libraries of an extra: asked for in one line where they are missing, and kept silent while they work."""

import contextlib
import importlib.util
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import IO, Any

from nas.errors import UserError


def require(what: str, *modules: str, extra: str = "export") -> None:
    """Raise UserError naming the extra unless these modules are installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UserError(f"{what} needs {module}, which is not installed: pip install 'nas[{extra}]'")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence the progress, the advice and the warnings of exporters and quantisers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def muted() -> Iterator[IO[Any]]:
    """Keep what libraries print off the terminal: from C++ it lands in the file that is given, from Python nowhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    with quietly(), contextlib.redirect_stderr(io.StringIO()), tempfile.TemporaryFile() as sink:
        kept = [(number, os.dup(number)) for number in (1, 2)]
        try:
            for number, _ in kept:
                os.dup2(sink.fileno(), number)
            yield sink
        finally:
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)
