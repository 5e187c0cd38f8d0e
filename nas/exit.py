"""End a command: one line on stderr, and an exit code.

0 done, 1 the search or training failed, 2 wrong input, 130 interrupted (Ctrl-C), 143 terminated. `--debug` shows the
traceback instead.
"""

import atexit
import errno
import gc
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TypeGuard

import typer

from nas.driver.processes import descendants
from nas.errors import UserError
from nas.terminal import Terminal

errors = Terminal(stderr=True)

_FIRST = ("--init", "--teacher", "--run")
"""Options of a training's beginning, which it keeps."""
PATIENCE = 20.0
"""Seconds for an orderly end after a signal; then this process and those that it started are ended as they are."""


@contextmanager
def interruptible(line: Callable[[], str]) -> Iterator[None]:
    """End with a line and exit code 128 + number on SIGINT or SIGTERM, however many of them come.

    The first one raises KeyboardInterrupt in the main thread, and those after it do nothing: they would break off the
    end of Ray's processes. Where that does not end this process (a library that swallows exceptions, a call that does
    not return), a watching thread does.

    Args:
        line: asked for when it is printed.
    """
    caught: list[int] = []
    process = os.getpid()

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != process:
            os._exit(128 + number)  # a fork: who started it has been told as well
        if not caught:
            caught.append(number)
            watch = threading.Timer(PATIENCE, give_up)
            watch.daemon = True
            watch.start()
            raise KeyboardInterrupt

    def give_up() -> None:
        for child in descendants(process):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        errors.print(line())
        os._exit(128 + caught[0])

    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # typer makes the one into the other
        if not caught:
            raise
        for number in numbers:  # Python's own end would give them back to the system, which kills
            signal.signal(number, signal.SIG_IGN)
        # An interrupt that passed through an exec() of text (an import that makes a dataclass) leaves a mark by which
        # Python ends itself with the signal, whoever caught it; the next exec() takes it away.
        exec("")
        errors.print(line())
        sys.exit(128 + caught[0])
    finally:
        for number, handler in before.items():
            if not caught and signal.getsignal(number) is interrupt:  # else one within ends the process
                signal.signal(number, handler)


@contextmanager
def resumable(again: Callable[[], str]) -> Iterator[None]:
    """Signals and failures end with the command that goes on.

    Args:
        again: that command; asked for at the end, when it is known what there is to go on with.
    """

    def end(thread: threading.ExceptHookArgs) -> None:
        from nas.driver.processes import RayLostError

        if not isinstance(thread.exc_value, RayLostError):
            threading.__excepthook__(thread)
            return
        # The main thread hangs in a call of Ray's, and Ray would end this process without a word.
        errors.print(f"nas: {thread.exc_value}; go on with\n  {again()}")
        os._exit(1)

    threading.excepthook = end
    with interruptible(lambda: f"nas: interrupted; go on with\n  {again()}"):
        try:
            yield
        except Exception as error:
            if not isinstance(error, UserError) or _is_full(error.__cause__):
                error.add_note(f"nas: go on with\n  {again()}")
            raise


def _is_full(error: BaseException | None) -> TypeGuard[OSError]:
    """Return whether a disk is full: what was begun goes on when there is room."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def same_command(folder: Path, given: Path | None, *, resumes: bool = False) -> str:
    """The command that this process was started with, to be given again.

    Args:
        folder: where it works.
        given: the folder that its options name, if they do.
        resumes: whether ``--resume`` goes on with what is in the folder; it does so without the options of a beginning.
    """
    arguments = sys.argv[1:]
    if resumes:
        arguments = [
            argument
            for before, argument in zip(["", *arguments], arguments, strict=False)
            if argument not in ("--resume", *_FIRST)
            and before not in _FIRST
            and argument.partition("=")[0] not in _FIRST
        ] + ["--resume"]
    return shlex.join(["nas", *arguments, *([] if given else ["--out", str(folder)])])


def run_command(app: typer.Typer) -> None:
    """Run the command that the process was started with, and end the process."""
    # Python's own end looks through all objects for cycles to free, for one or two seconds after the last line.
    atexit.register(gc.freeze)
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        with interruptible(lambda: "nas: interrupted"):
            app(args=arguments, standalone_mode=True)
    except Exception as error:
        if debug:
            raise
        errors.print(f"nas: {_line_of(error)}")
        for note in getattr(error, "__notes__", ()):
            errors.print(note)
        sys.exit(2 if isinstance(error, UserError) else 1)


def _line_of(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if _is_full(error) and error.filename:
        return f"{error.filename}: cannot be written: {error.strerror}"
    # Ray wraps the error of another process in all of its traceback; the last line says what happened.
    line = (str(error).strip().splitlines() or [""])[-1]
    return f"{type(error).__name__}: {line} (--debug shows where)"
