"""The files of the trials' states and weights, and of what ships of them, in a folder that all workers reach."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from nas.files import remove_unfinished

Keep = Literal["all", "front", "none"]


class Checkpoints:
    """``<trial number>.pt`` for each trial, for as long as it is of use, and ``<trial number>-int8.tflite`` or such.

    Args:
        folder: of the files; an absolute path, since workers run elsewhere.
        keep: whose files stay. ``all``: every trial's; ``front``: those of the front and of queued networks, as the
            search knows; ``none``: like ``front`` until :meth:`finish`.
    """

    def __init__(self, folder: Path, keep: str) -> None:
        self.folder = folder
        self.keep = keep

    def path(self, number: int) -> Path:
        """Return where a trial's state is written after every epoch."""
        return self.folder / f"{number}.pt"

    def discard(self, number: int) -> None:
        """A trial is closed, or fell off the front: its files go, unless all are kept."""
        if self.keep != "all":
            for file in self.folder.glob(f"{number}[.-]*"):
                file.unlink(missing_ok=True)

    def sweep(self, needed: Callable[[int], bool]) -> None:
        """Discard what a search that was interrupted had no time to; before any worker writes."""
        remove_unfinished(self.folder)
        for number in self._numbers():
            if not needed(number):
                self.discard(number)

    def finish(self) -> None:
        """The search is over, and its networks are judged."""
        if self.keep == "none":
            for number in self._numbers():
                self.discard(number)

    def _numbers(self) -> list[int]:
        return [int(file.stem) for file in self.folder.glob("*.pt") if file.stem.isdecimal()]
