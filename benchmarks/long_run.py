"""A long search of tiny trials: what it costs beside the trainings, and whether anything grows.

A real search (`nas.search`: Ray Tune, the default sampler, the journal, checkpoints of the front) whose networks are
trained for one epoch on a few digits, so that nearly all of its time is the program's own. The driver is this process.

- memory and open files of the driver, after every 100 trials (goal: at most 50 MB more at the end than after 100)
- files in the run's folder but for the front's, per trial (goal: at most 3), and those that Ray keeps meanwhile
- seconds from the start of `nas search --resume` until it hands out its first new trial (goal: 10)
- wall time per trial and worker that is not training

    python benchmarks/long_run.py --trials 1000 --out results/benchmarks/long_run.txt
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from machine import Output, parser

import nas
from nas.driver.options import Resources
from nas.driver.run import Run
from nas.driver.scheduler import Progress
from nas.driver.storage import STUDY_FILE
from nas.training.recipe import Recipe

SPACE = {
    "name": "tiny",
    "input": {"channels": 1, "resolution": 8},
    "stem": {"channels": {"choice": [8, 16, 24, 32]}, "stride": 2},
    "stages": [
        {
            "block": "inverted_residual",
            "channels": {"choice": [8, 16, 24, 32]},
            "expansion": {"choice": [1, 2, 3, 4, 6]},
            "kernels": {"choice": [[3], [5], [3, 5]]},
        },
        {
            "block": "inverted_residual",
            "channels": {"choice": [8, 16, 24, 32]},
            "stride": 2,
            "expansion": {"choice": [1, 2, 3, 4, 6]},
            "se_ratio": {"choice": [0, 0.25]},
        },
    ],
}
FIRST = 100
EVERY = 100
CREATE_TRIAL = b'{"op_code":4,'
"""How the line of a new trial begins in Optuna's journal."""


class Watch:
    """Reads this process's memory and open files whenever another hundred trials are closed."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._process = psutil.Process()
        self.started = time.monotonic()
        self.memory: dict[int, float] = {}
        self.handles: dict[int, int] = {}

    def __call__(self, progress: Progress) -> None:
        closed = progress.closed
        if closed not in self.memory and closed and (closed % EVERY == 0 or closed == progress.budget):
            self.memory[closed] = self._process.memory_info().rss / 1e6
            self.handles[closed] = self._process.num_fds()
            ray_files = sum(len(files) for folder in _ray_folders() for _, _, files in os.walk(folder))
            self._output(
                f"{closed:>7}{time.monotonic() - self.started:>10.1f}{self.memory[closed]:>10.1f}"
                f"{self.handles[closed]:>9}{ray_files:>11}"
            )


def _ray_folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("nas-ray-*"))


def resume_seconds(folder: Path, trials: int) -> float:
    """From the start of the command until the journal has the first new trial; the search then goes on to its end."""
    journal = folder / STUDY_FILE
    size = journal.stat().st_size
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "nas", "search", "--resume", str(folder), "--trials", str(trials)],
        stdout=subprocess.DEVNULL,
    )
    with journal.open("rb") as file:
        file.seek(size)
        written = b""
        while CREATE_TRIAL not in written:
            if process.poll() is not None:
                raise RuntimeError(f"the resumed search ended with {process.returncode}")
            time.sleep(0.02)
            written += file.read()
    seconds = time.monotonic() - started
    if process.wait():
        raise RuntimeError(f"the resumed search ended with {process.returncode}")
    return seconds


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=1000)
    arguments.add_argument("--train-size", type=int, default=128)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--sampler", default="known-cost")
    arguments.add_argument("--resumes", type=int, default=3)
    given = arguments.parse_args()
    output = Output(given.out)
    with tempfile.TemporaryDirectory(prefix="nas-long-run-") as scratch:
        folder = Path(scratch) / "run"
        output(
            f"{given.trials} trials of 1 epoch on {given.train_size} digits of 8x8, {given.workers} workers, "
            f"sampler {given.sampler}; n = 1 run"
        )
        output(f"{'trials':>7}{'seconds':>10}{'RSS, MB':>10}{'handles':>9}{'Ray files':>11}")
        watch = Watch(output)
        run = nas.search(
            nas.Space(SPACE),
            objectives=("accuracy", "size"),
            recipe=Recipe(epochs=1, batch_size=64),
            train_size=given.train_size,
            trials=given.trials,
            sampler=given.sampler,
            published="none",
            out=folder,
            resources=Resources(max_concurrent=given.workers),
            on_change=watch,
        )
        report(output, run, watch, given.workers)
        resumes = [resume_seconds(folder, given.trials + 2 * (index + 1)) for index in range(given.resumes)]
        shown = ", ".join(f"{seconds:.1f}" for seconds in resumes)
        output(f"resume, until the first new trial: {shown} s (n = {len(resumes)})")


def report(output: Output, run: Run, watch: Watch, workers: int) -> None:
    trained = [record for record in run.records if record.was_trained]
    states = {state: sum(record.state == state for record in trained) for state in ("complete", "stopped", "failed")}
    output(f"{len(trained)} trained: " + ", ".join(f"{count} {state}" for state, count in states.items()))
    last = max(watch.memory)
    output(
        f"driver, from trial {FIRST} to {last}: {watch.memory[last] - watch.memory[FIRST]:+.1f} MB, "
        f"{watch.handles[last] - watch.handles[FIRST]:+d} open files"
    )
    front = {run.checkpoint(record).name for record in run.front_records}
    files = [file for file in run.path.rglob("*") if file.is_file()]
    outside = [file for file in files if file.parent.name != "front" and file.name not in front]
    output(
        f"files: {len(files)}, {len(outside)} of them not the front's ({len(outside) / len(trained):.3f} per trial); "
        f"front {len(front)}; journal {(run.path / STUDY_FILE).stat().st_size / 1e6:.1f} MB"
    )
    wall = max(record.finished for record in trained) - min(record.started for record in trained)
    training = sum(record.seconds for record in trained)
    spare = wall.total_seconds() * workers - training
    output(
        f"per trial: {wall.total_seconds() / len(trained):.3f} s of wall time; {training / len(trained):.3f} s of a "
        f"worker's training and {spare / len(trained):.3f} s of a worker's waiting"
    )


if __name__ == "__main__":
    main()
