"""Threads of a process that trains on the CPU.

Two trainings of two threads each on two cores fall to a tenth of their speed if they are left alone: OpenMP threads
spin while they wait, and spin on the core that the other training needs. (E at 32x32, two threads on two busy cores:
11 s a step, and 1.7 s asleep; median of 6, 4 to 15 and 0.9 to 2.7.) So threads sleep while they wait, a worker of
a search has as many as it has cores of its own, and a training has no more than make its steps faster.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from nas.training.cores import claim_cores

_ASLEEP = {
    "OMP_WAIT_POLICY": "PASSIVE",  # GNU's OpenMP, of torch's own wheels
    "KMP_BLOCKTIME": "0",  # Intel's and LLVM's
}
WORTH = 0.9
"""More threads must take at most this part of the time of fewer: less is noise, and not worth the cores."""
_ROUNDS = 3
_SHARE = 0.05
"""Largest part of a training that choosing its threads may take."""


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
    chosen = next(count for count in counts if seconds[count] * WORTH <= min(seconds.values()))
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
    """Sets torch's threads of this process and, where the system can, the cores it may run on.

    `cores`: core numbers, as in `available_cores()`; None leaves the affinity alone.
    """
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    import torch  # not above: what is set before it is imported is here as well

    torch.set_num_threads(threads)


def available_cores() -> list[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
