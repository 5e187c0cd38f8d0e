"""Threads, cores and memory of a process that trains on the CPU. Importing this does not import torch.

Two trainings of two threads each on two cores fall to a tenth of their speed if they are left alone: OpenMP threads
spin while they wait, and spin on the core that the other training needs. (E at 32x32, two threads on two busy cores:
11 s a step, and 1.7 s asleep; median of 6, 4 to 15 and 0.9 to 2.7.) So threads sleep while they wait, a worker of
a search has as many as it has cores of its own, and a training has no more than make its steps faster.

A core is claimed by a lock on a file that stands for it, in a temporary folder of this user. So the workers of several
searches on one machine, and of several Ray nodes, do not claim the same core, and the system frees a core with its
process, however that ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ASLEEP = {
    "OMP_WAIT_POLICY": "PASSIVE",  # GNU's OpenMP, of torch's own wheels
    "KMP_BLOCKTIME": "0",  # Intel's and LLVM's
}
_WORTH = 0.9
"""More threads must take at most this part of the time of fewer: less is noise, and not worth the cores."""
_ROUNDS = 3
_SHARE = 0.05
"""Largest part of a training that choosing its threads may take."""
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of malloc.h
_NEVER = 2**31 - 1


def worker_environment(threads: int) -> dict[str, str]:
    """Environment for a worker process; OpenMP reads it once, so it must be set before torch is imported."""
    count = str(threads)
    return {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, **_ASLEEP}


def wait_asleep() -> None:
    """Let this process's threads sleep while they wait, unless the user says otherwise; before torch is imported."""
    for name, value in _ASLEEP.items():
        os.environ.setdefault(name, value)


def fewest_fast(time_step: Callable[[int], float], most: int, steps: int) -> tuple[int, float | None]:
    """Choose the number of threads: the fewest that train about as fast as any.

    Args:
        time_step: seconds of a step with that many threads.
        most: threads that may be used.
        steps: of the whole training.

    Returns:
        Threads, and the seconds of a step; 1 and None where the training is too short to measure.
    """
    counts = [*(2**power for power in range(most.bit_length()) if 2**power < most), most]
    if most == 1 or len(counts) * (_ROUNDS + 1) > _SHARE * steps:
        return 1, None
    for count in counts:
        time_step(count)  # memory is got, threads are started
    # In turns, so that a change of the machine's speed meets all of them.
    times = [[time_step(count) for count in counts] for _ in range(_ROUNDS)]
    seconds = dict(zip(counts, map(statistics.median, zip(*times, strict=True)), strict=True))
    chosen = next(count for count in counts if seconds[count] * _WORTH <= min(seconds.values()))
    return chosen, seconds[chosen]


@contextmanager
def own_threads(threads: int) -> Iterator[None]:
    """Give this process `threads` threads, on cores that no other training of ours uses where enough are free."""
    import torch

    before = torch.get_num_threads(), available_cores()
    claimed = claim_cores(threads, before[1])
    set_threads(threads, claimed.numbers if claimed else None)
    try:
        yield
    finally:
        set_threads(*before)
        if claimed:
            claimed.release()


def set_threads(threads: int, cores: Sequence[int] | None = None) -> None:
    """Set torch's threads of this process and, where the system can, the cores that it may run on.

    `cores`: as in :func:`available_cores`; None leaves the affinity alone.
    """
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    import torch

    torch.set_num_threads(threads)


def available_cores() -> list[int]:
    """Return the numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@dataclass(frozen=True)
class ClaimedCores:
    """Cores that this process has for itself until :meth:`release`, or its end."""

    numbers: tuple[int, ...]
    _locks: ExitStack

    def release(self) -> None:
        """Let others have them. The affinity of this process stays as it is."""
        self._locks.close()


def claim_cores(count: int, cores: Sequence[int], folder: Path | None = None) -> ClaimedCores | None:
    """Claim `count` of `cores` that no other process has claimed; None where too few are free.

    `folder`: of the locks; the same for all who are to keep out of each other's way.
    """
    numbers: list[int] = []
    with ExitStack() as locks:
        try:
            folder = folder or Path(tempfile.gettempdir()) / f"nas-cores-{os.getuid()}"
            folder.mkdir(mode=0o700, exist_ok=True)
            for core in cores:
                if len(numbers) == count:
                    break
                handle = os.open(folder / str(core), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(handle)
                else:
                    locks.callback(os.close, handle)
                    numbers.append(core)
        except OSError:  # a temporary folder that is read-only, full or somebody else's: do without
            return None
        return ClaimedCores(tuple(numbers), locks.pop_all()) if len(numbers) == count else None


def keep_freed_memory() -> None:
    """Let this process keep what it frees, until :func:`give_back`. Without glibc, nothing happens.

    By default glibc returns every freed block of 32 MB and more to the system, and requests it again page by page for
    the next layer: a tensor of 52 MB took 14.3 ms to be made and filled with ones, and 2.7 ms where the memory stays
    (one core of a Xeon with AMX, n = 20). Networks whose activations are that large trained 1.25 to 1.4 times as fast.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)
        libc.mallopt(_ARENA_MAX, 1)  # threads' own arenas are too small for large blocks


def give_back() -> None:
    """Return what is free to the system: 50 ms for 2 GB."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> Any:
    """Return the C library where it is glibc, else None."""
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "gnu_get_libc_version") else None
    except (OSError, TypeError):  # TypeError: Windows has no such handle
        return None
