"""The processes that a process started."""

from contextlib import suppress
from pathlib import Path


def descendants(process: int) -> list[int]:
    """The processes that a process started, and those that they started; empty where there is no ``/proc``."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    found, open_ = [], [process]
    while open_:
        mine = children.get(open_.pop(), [])
        found += mine
        open_ += mine
    return found
