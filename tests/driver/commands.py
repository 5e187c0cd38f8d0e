"""Searches as commands: real processes that tests may kill."""

import functools
import os
import signal
import subprocess
import sys
import time

import psutil
import yaml

SPACE = {
    "name": "tiny",
    "input": {"channels": 1, "resolution": 8},
    "stem": {"channels": 8, "stride": 2},
    "stages": [
        {"block": "inverted_residual", "channels": 8, "expansion": {"choice": [1, 2, 3, 4, 6]}},
        {"block": "inverted_residual", "channels": {"choice": [8, 16, 24, 32]}, "stride": 2, "expansion": 2},
    ],
}


def start(folder, space, *arguments, **environment):
    """`nas search --space` in a folder, its run in the folder ``run``; what it says is the process's `stdout`."""
    (folder / "space.yaml").write_text(yaml.safe_dump(space))
    return begin(folder, "--space", "space.yaml", "--out", "run", *arguments, **environment)


def resume(folder, *arguments):
    return begin(folder, "--resume", "run", *arguments)


def begin(folder, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "nas", "search", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Ignored in whatever a shell script started in the background, such as these tests.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )


def epochs_in(folder):
    """How many epochs the record of the run in a folder holds."""
    journal = folder / "run" / "study.journal"
    return journal.read_text().count('"epoch:') if journal.exists() else 0


def wait_for_epochs(folder, count, process, seconds=120):
    """Until the record holds so many epochs."""
    end = time.monotonic() + seconds
    while epochs_in(folder) < count:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end, f"{epochs_in(folder)} epochs in {seconds} s"
        time.sleep(0.1)


def trainers(process):
    """The worker processes that train."""
    return [child for child in descendants(process) if "Trainable" in command_line(child)]


def descendants(process):
    return psutil.Process(process.pid).children(recursive=True)


def command_line(process):
    """Empty where it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
