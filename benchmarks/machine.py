"""What every benchmark prints beside its figures, and how it sums them up."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch


def describe() -> str:
    """Processor or GPU, cores, load, versions, date."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    load = f"load at start {os.getloadavg()[0]:.1f}, " if hasattr(os, "getloadavg") else ""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"{processor}, {cores} cores, {gpu}, {load}{versions}, {datetime.date.today().isoformat()}"


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """Median and quartiles: `median [lower, upper]`; with fewer than 4 values the extremes."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    if len(ordered) >= 4:
        low, _, high = statistics.quantiles(ordered, n=4, method="inclusive")
    return f"{statistics.median(ordered):{form}} [{low:{form}}, {high:{form}}]"


class Output:
    """Prints lines, and writes them to `--out` as well."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
        self(f"$ python {Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".rstrip())
        self(describe())

    def __call__(self, line: str = "") -> None:
        print(line, flush=True)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(line + "\n")


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with what all benchmarks take."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--out", type=Path, help="also write what is printed to this file")
    result.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    result.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch's threads, of both sides")
    return result
