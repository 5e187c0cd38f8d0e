"""Threads of a worker process that trains on the CPU.

Two trainings of two threads each on two cores fall to a tenth of their speed if they are left alone: OpenMP threads
spin while they wait, and spin on the core that the other training needs. So every worker gets its own cores, as many
threads as cores, and threads that sleep while they wait.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch


def worker_environment(threads: int) -> dict[str, str]:
    """Environment for a worker process; OpenMP reads it once, so it must be set before torch is imported."""
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",  # GNU's OpenMP, of torch's own wheels
        "KMP_BLOCKTIME": "0",  # Intel's and LLVM's
    }


def set_threads(threads: int, cores: Sequence[int] | None = None) -> None:
    """Sets torch's threads of this process and, where the system can, the cores it may run on.

    `cores`: core numbers, as in `available_cores()`; None leaves the affinity alone.
    """
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


def available_cores() -> list[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
