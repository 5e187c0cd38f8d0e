"""The search's progress on the screen: a live line on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.driver.scheduler import Progress
from nas.terminal import Terminal, log_to
from nas.units import percent, show_seconds

PLAIN_EVERY_SECONDS = 10.0


@contextmanager
def shown(console: Terminal) -> Iterator[Callable[[Progress], None]]:
    """Yield who shows a :class:`~nas.driver.scheduler.Progress`; call it with every change.

    Within, what is logged is printed above it.
    """
    last: Progress | None = None
    last_line = 0.0

    def tell(progress: Progress) -> None:
        nonlocal last, last_line
        last = progress
        if not console.is_terminal and time.monotonic() - last_line > PLAIN_EVERY_SECONDS:
            last_line = time.monotonic()
            console.print(describe(progress))

    def render() -> Table | Text:
        if last is None:
            return Text("starting the workers ...")
        grid = Table.grid(padding=(0, 1))
        grid.add_row(ProgressBar(total=last.budget, completed=last.closed, width=20), describe(last))
        return grid

    live = Live(get_renderable=render, console=console, refresh_per_second=2, transient=True)
    try:
        with log_to(console), live if console.is_terminal else nullcontext():
            yield tell
    finally:
        if last is not None:
            console.print(describe(last))


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
    with shown(Terminal()) as show:

        def tell(state: Progress) -> None:
            show(state)
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
