"""Everything that a GPU has to show for this project, part by part, within a time limit.

    benchmarks/gpu.sh --data-dir DIR              # CIFAR-10's unpacked folder in it; 10 minutes on one data-centre GPU
    benchmarks/gpu.sh --device cpu --minutes 3    # a dry run: all parts, tiny, without graphs and events

Each part runs in a process of its own and writes PART.json after every row, so that an early end loses nothing; its
table is printed as soon as it ends. What one part leaves of its share of the minutes, the others have. A part whose
packages are missing says so. Nothing is installed, nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from gpu_parts import PARTS, ROOT, Row, sizes_for
from machine import Output, describe, parser


def read(given: Namespace, part: str) -> dict[str, Any]:
    """A part's figures, as far as it got."""
    path = given.out / f"{part}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def run_part(name: str, given: Namespace) -> None:
    """Run a part in this process until it ends or its time is over; its file is whole at any moment."""
    torch.set_num_threads(1)  # as a search's workers
    rows: dict[Any, Row] = {}
    path = given.out / f"{name}.json"

    def write(state: str) -> None:
        about = {"part": name, "state": state, "about": (PARTS[name].rows.__doc__ or "").strip(), "machine": machine}
        path.with_suffix(".new").write_text(json.dumps({**about, "rows": list(rows.values())}, indent=1))
        path.with_suffix(".new").replace(path)

    machine = describe()
    write("begun, and ended from outside")
    try:
        for row in PARTS[name].rows(given, sizes_for(given.device)):
            rows[next(iter(row.values()))] = row
            write("begun, and ended from outside")
            if time.time() > given.until:
                return write("its time was over")
    except ImportError as error:
        return write(f"left out: the package {error.name} is missing here")
    except Exception as error:
        traceback.print_exc()
        return write(f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0][:200]}")
    return write("whole")


def show(found: dict[str, Any]) -> Iterator[str]:
    """A part's table."""
    yield f"\n== {found['part']}: {found['state']}"
    yield found["about"].partition("\n")[0]
    columns = list(dict.fromkeys(column for row in found["rows"] for column in row))
    cells = [columns, *([_cell(row.get(column, "")) for column in columns] for row in found["rows"])]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    for line in cells if columns else ():
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "-" if value is None else str(value)[:60]


def main() -> None:
    arguments = parser(__doc__)
    arguments.set_defaults(out=ROOT / "results" / "gpu")
    arguments.add_argument("--data-dir", type=Path, help="the folder that holds cifar-10-batches-py")
    arguments.add_argument("--minutes", type=float, default=10)
    arguments.add_argument("--only", action="append", choices=PARTS, help="this part; may be repeated")
    arguments.add_argument("--part", choices=PARTS, help="this part, in this process")
    arguments.add_argument("--until", type=float, help="with --part: when its time is over, in seconds since 1970")
    given = arguments.parse_args()
    given.out = given.out.resolve()
    given.data_dir = given.data_dir and given.data_dir.resolve()
    if given.part:
        return run_part(given.part, given)
    if given.device.startswith("cuda") and given.data_dir is None:
        arguments.error("--data-dir is needed on a GPU: the folder that holds cifar-10-batches-py")
    if given.data_dir is not None and not (given.data_dir / "cifar-10-batches-py").is_dir():
        arguments.error(f"{given.data_dir} holds no cifar-10-batches-py; nothing is downloaded here")
    given.out.mkdir(parents=True, exist_ok=True)
    output = Output(given.out / "gpu.txt")
    waiting = given.only or list(PARTS)
    end = time.time() + 60 * given.minutes
    while waiting:
        share = PARTS[waiting[0]].seconds / sum(PARTS[name].seconds for name in waiting)
        name, allowed = waiting.pop(0), share * (end - time.time())
        (given.out / f"{name}.json").unlink(missing_ok=True)
        _in_a_process(name, given, allowed)
        for line in show(read(given, name) or {"part": name, "state": "did not begin", "about": "", "rows": []}):
            output(line)
    return None


def _in_a_process(name: str, given: Namespace, seconds: float) -> None:
    """Run a part, and end it with all its processes where it does not end by itself."""
    command = [sys.executable, __file__, "--part", name, "--device", given.device, "--out", str(given.out)]
    command += ["--until", str(time.time() + 0.9 * seconds)]
    command += [] if given.data_dir is None else ["--data-dir", str(given.data_dir)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    main()
