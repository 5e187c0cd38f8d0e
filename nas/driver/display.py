"""The search's progress on the screen: a live line on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.driver.scheduler import Progress
from nas.terminal import Terminal, log_to
from nas.units import percent, show_seconds

PLAIN_EVERY_SECONDS = 10.0


class Display:
    """Shows a :class:`~nas.driver.scheduler.Progress`. Use as a context manager and call with every change.

    Within, what is logged is printed above it.
    """

    def __init__(self, console: Terminal | None = None) -> None:
        self.console = console or Terminal()
        self._progress: Progress | None = None
        self._last_line = 0.0
        self._shown = ExitStack()

    def __enter__(self) -> Self:
        self._shown.enter_context(log_to(self.console))
        if self.console.is_terminal:
            live = Live(get_renderable=self._render, console=self.console, refresh_per_second=2, transient=True)
            self._shown.enter_context(live)
        return self

    def __exit__(self, *error: Any) -> None:
        self._shown.close()
        if self._progress is not None:
            self.console.print(describe(self._progress))

    def __call__(self, progress: Progress) -> None:
        self._progress = progress
        if not self.console.is_terminal and time.monotonic() - self._last_line > PLAIN_EVERY_SECONDS:
            self._last_line = time.monotonic()
            self.console.print(describe(progress))

    def _render(self) -> Table | Text:
        progress = self._progress
        if progress is None:
            return Text("starting the workers ...")
        grid = Table.grid(padding=(0, 1))
        grid.add_row(ProgressBar(total=progress.budget, completed=progress.closed, width=20), describe(progress))
        return grid


@contextmanager
def progress_to(
    progress: bool | None, on_change: Callable[[Progress], None] | None
) -> Iterator[Callable[[Progress], None]]:
    """Yield whom the progress is told to: the caller, else the screen where it is wanted, with the log above it."""
    if progress is None:  # somebody types at a prompt or in a notebook
        progress = on_change is None and (hasattr(sys, "ps1") or "ipykernel" in sys.modules)
    if not progress:
        yield on_change or (lambda progress: None)
        return
    with Display() as display:

        def tell(state: Progress) -> None:
            display(state)
            if on_change is not None:
                on_change(state)

        yield tell


def describe(progress: Progress) -> str:
    """The progress as one line."""
    parts = [
        f"{progress.closed}/{progress.budget} trials",
        f"{progress.done} done",
        f"{progress.stopped} stopped",
        f"{progress.failed} failed",
        f"{progress.running} running",
        f"best {percent(progress.best_accuracy, progress.images)}",
        f"front {progress.front}",
        f"{show_seconds(time.monotonic() - progress.started)} elapsed",
    ]
    if progress.closed < progress.budget:
        left = progress.seconds_left
        parts.append("time left unknown yet" if left is None else f"about {show_seconds(left)} left")
    if progress.note:
        parts.append(progress.note)
    return " · ".join(parts)
