"""How a command ends: in one line on stderr, and an exit code.

0 done, 1 the search or training failed, 2 wrong input, 130 interrupted. `--debug` shows the traceback instead.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from nas.errors import UserError

errors = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def resumable(again: str) -> Iterator[None]:
    """Ctrl-C, a polite kill and a failure end with the command that goes on.

    Args:
        again: that command.
    """

    def end(thread: threading.ExceptHookArgs) -> None:
        from nas.search.head import RayLostError

        if not isinstance(thread.exc_value, RayLostError):
            threading.__excepthook__(thread)
            return
        # The main thread hangs in a call of Ray's, and Ray would end this process without a word.
        errors.print(f"nas: {thread.exc_value}; go on with\n  {again}", markup=False)
        os._exit(1)

    threading.excepthook = end
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        errors.print(f"nas: interrupted; go on with\n  {again}", markup=False)
        raise typer.Exit(130) from None
    except UserError:
        raise
    except Exception as error:
        error.add_note(f"nas: go on with\n  {again}")
        raise


def run_command(app: typer.Typer) -> None:
    """Run the command that the process was started with, and end the process."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(args=arguments, standalone_mode=True)
    except UserError as error:
        if debug:
            raise
        errors.print(f"nas: {error}", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("nas: interrupted", markup=False)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        # Ray wraps the error of another process in all of its traceback; the last line says what happened.
        line = (str(error).strip().splitlines() or [""])[-1]
        errors.print(f"nas: {type(error).__name__}: {line} (--debug shows where)", markup=False)
        for note in getattr(error, "__notes__", ()):
            errors.print(note, markup=False)
        sys.exit(1)
