"""The process's memory while it trains on the CPU: kept for the next step, given back between networks.

By default glibc returns every freed block of 32 MB and more to the system, and requests it again page by page
for the next layer: a tensor of 52 MB took 14.3 ms to be made and filled with ones, and 2.7 ms where the memory stays
(one core of a Xeon with AMX, n = 20). Networks whose activations are that large trained 1.25 to 1.4 times as fast.
"""

import ctypes
from typing import Any

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """From now on this process keeps what it frees, until :func:`give_back`. Without glibc, nothing happens."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)
        libc.mallopt(_ARENA_MAX, 1)  # threads' own arenas are too small for large blocks


def give_back() -> None:
    """Returns what is free to the system: 50 ms for 2 GB."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> Any:
    """The C library where it is glibc, else None."""
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "gnu_get_libc_version") else None
    except (OSError, TypeError):  # TypeError: Windows has no such handle
        return None
