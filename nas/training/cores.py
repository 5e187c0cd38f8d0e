"""Cores for worker processes: each has its own for as long as it lives, whatever started it.

A core is claimed by a lock on a file that stands for it, in a temporary folder of this user. So the workers of several
searches on one machine, and of several Ray nodes, do not claim the same core, and the system frees a core with its
process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path


class ClaimedCores:
    """Cores that this process has for itself until :meth:`release`, or its end.

    `numbers`: of the cores, as in :func:`nas.training.threads.available_cores`.
    """

    def __init__(self, numbers: Sequence[int], locks: ExitStack) -> None:
        self.numbers = tuple(numbers)
        self._locks = locks

    def release(self) -> None:
        """Let others have them. The affinity of this process stays as it is."""
        self._locks.close()


def claim_cores(count: int, cores: Sequence[int], folder: Path | None = None) -> ClaimedCores | None:
    """Claim `count` of `cores` that no other process has claimed; None where too few are free.

    `folder`: of the locks; the same for all who are to keep out of each other's way.
    """
    with ExitStack() as stack:
        numbers: list[int] = []
        try:
            folder = folder or Path(tempfile.gettempdir()) / f"nas-cores-{os.getuid()}"
            folder.mkdir(mode=0o700, exist_ok=True)
            for core in cores:
                if len(numbers) < count and _lock(folder / str(core), stack):
                    numbers.append(core)
        except OSError:  # a temporary folder that is read-only, full or somebody else's: do without
            return None
        return ClaimedCores(numbers, stack.pop_all()) if len(numbers) == count else None


def _lock(path: Path, stack: ExitStack) -> bool:
    """Try to lock a file; `stack` holds the lock where that succeeds."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    stack.callback(os.close, handle)
    return True
