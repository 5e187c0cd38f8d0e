"""The machine that runs a measurement: what it is, which core is free, and whether somebody else is using it."""

import contextlib
import multiprocessing
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import FiniteFloat

from nas.hardware import cpu_info, device_name, read_system
from nas.latency.engines import ENGINES, Runtime
from nas.latency.timing import QUANTILE

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True)
class Provenance:
    """Origin of a figure; without it, a latency means nothing."""

    device: str
    """The processor's or the graphics card's name."""
    engine: str
    layout: str
    """``contiguous`` or ``channels_last``, whichever ran faster."""
    threads: int
    batch: int
    cores: int
    """Cores of the machine."""
    clock_mhz: int
    """Clock at the time of measuring, 0 where the system does not tell."""
    governor: str
    versions: str
    quantile: FiniteFloat
    foreign_load: FiniteFloat
    """Processor time that others used while we measured, as a share of the whole machine."""
    when: str
    """UTC, ISO 8601."""


def describe(runtime: Runtime, *, layout: str, foreign_load: float) -> Provenance:
    """Describe a measurement that was just made."""
    versions = [f"python {platform.python_version()}", f"torch {torch.__version__}"]
    versions += ENGINES[runtime.engine].versions()
    return Provenance(
        device=device_name(runtime.device),
        engine=runtime.engine,
        layout=layout,
        threads=runtime.threads,
        batch=runtime.batch,
        cores=os.cpu_count() or 1,
        clock_mhz=round(float(cpu_info("cpu MHz") or 0)),
        governor=read_system(GOVERNOR) or "unknown",
        versions=", ".join(versions),
        quantile=QUANTILE,
        foreign_load=round(foreign_load, 3),
        when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


class LoadMeter:
    """Measure how busy others keep the machine, by the kernel's own accounts (0 where /proc does not exist)."""

    def __init__(self) -> None:
        self._foreign, self._since = _foreign_seconds(), time.monotonic()

    def foreign(self) -> float:
        """Share of all cores' time since the start that was not ours, in [0, 1]."""
        elapsed = (time.monotonic() - self._since) * (os.cpu_count() or 1)
        return min(1.0, max(0.0, (_foreign_seconds() - self._foreign) / elapsed)) if elapsed > 0 else 0.0


@contextlib.contextmanager
def quiet_process(threads: int) -> Iterator[None]:
    """This thread on the `threads` cores that are least used now, torch on as many threads; then as before."""
    before_threads = torch.get_num_threads()
    before_cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        torch.set_num_threads(threads)
        if before_cores is not None:
            os.sched_setaffinity(0, free_cores(threads, before_cores))
        yield
    finally:
        torch.set_num_threads(before_threads)
        if before_cores is not None:
            os.sched_setaffinity(0, before_cores)


def free_cores(count: int, allowed: set[int]) -> set[int]:
    """The `count` allowed cores that were idle longest over a short look; the highest numbers on a draw.

    Low numbers serve most interrupts.
    """
    before = _core_ticks()
    time.sleep(0.1)
    after = _core_ticks()

    def idle(core: int) -> int:
        return after[core][1] - before[core][1] if core in after and core in before else 0

    return set(sorted(allowed, key=lambda core: (idle(core), core), reverse=True)[:count])


def _core_ticks() -> dict[int, tuple[int, int]]:
    """Clock ticks of each core since the machine started: busy, idle."""
    ticks = {}
    for line in read_system(Path("/proc/stat")).splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit():
            numbers = list(map(int, fields[:8]))  # user nice system idle iowait irq softirq steal
            idle = sum(numbers[3:5])
            ticks[int(name[3:])] = sum(numbers) - idle, idle
    return ticks


def _foreign_seconds() -> float:
    """Processor time since the machine started that was neither idle nor ours."""
    return sum(busy for busy, _ in _core_ticks().values()) / os.sysconf("SC_CLK_TCK") - _own_seconds()


def _own_seconds() -> float:
    """Processor time of this process and of its children, those that still live included."""
    times = os.times()
    living = sum(_seconds_of(child.pid) for child in multiprocessing.active_children())
    return times.user + times.system + times.children_user + times.children_system + living


def _seconds_of(pid: int | None) -> float:
    """Processor time of a process, 0 where the system does not tell."""
    fields = read_system(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") if len(fields) > 12 else 0.0  # utime, stime
