"""What can go wrong in a search, done to it: real worker processes on a real Ray, in small searches of the digits."""

import os
import shutil
import subprocess
import time

import commands
import faults
import pytest
from commands import SPACE

from nas.architecture.document import Architecture
from nas.driver.run import Run

pytestmark = pytest.mark.slow

FAULTY = (faults.LIKE_NAN, faults.RAISES, faults.HUGE_TENSOR, faults.HUGE_LIST, faults.KILLED, faults.HANGS)
SMALL = ("--objectives", "accuracy,size", "--published", "none", "--train-size", 400, "--report-every", 0)


def network(channels, expansion=1):
    """A network of the space, or beside it, that ends in so many channels."""
    first, last = SPACE["stages"]
    stages = [{**first, "expansion": expansion}, {**last, "channels": channels}]
    return Architecture.from_dict({**SPACE, "name": f"ends-in-{channels}", "stages": stages})


def faulty(folder):
    """The environment in which networks break as `faults` says; each worker process leaves its id in ``pids``."""
    (folder / "site").mkdir()
    (folder / "pids").mkdir()
    shutil.copy(faults.__file__, folder / "site" / "sitecustomize.py")
    return {"PYTHONPATH": str(folder / "site"), "PIDS": str(folder / "pids")}


def end(process, timeout=200):
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def test_every_fault_of_a_trial_ends_that_trial_alone(tmp_path):
    """NaN, an exception, no memory (two kinds), a killed worker and a hung step, each between two sound networks."""
    queue = []
    for expansion, channels in enumerate(FAULTY, 1):
        for item in (network(channels), network(8, expansion)):
            path = tmp_path / f"{len(queue):02d}.yaml"
            path.write_text(item.to_yaml())
            queue += ["--enqueue", path.name]
    process = commands.start(
        tmp_path,
        SPACE,
        *(*SMALL, *queue, "--trials", 2 * len(FAULTY), "--epochs", 2, "--reduction", 1, "--max-concurrent", 1),
        *("--epoch-timeout", 3),
        **faulty(tmp_path),
    )
    code, output = end(process)
    assert code == 0, output
    records = Run.open(tmp_path / "run").records
    reasons = {r.architecture.name: r.reason for r in records if r.state == "failed"}
    assert reasons == {
        f"ends-in-{faults.LIKE_NAN}": "DivergedError: the loss of epoch 1 is nan",
        f"ends-in-{faults.RAISES}": "ZeroDivisionError: a network that divides by zero",
        f"ends-in-{faults.HUGE_TENSOR}": reasons[f"ends-in-{faults.HUGE_TENSOR}"],
        f"ends-in-{faults.HUGE_LIST}": "MemoryError",
        f"ends-in-{faults.KILLED}": "the worker process died: killed by the system, or crashed",
        f"ends-in-{faults.HANGS}": "epoch 1 hung for over 3 s",
    }
    assert "can't allocate memory" in reasons[f"ends-in-{faults.HUGE_TENSOR}"]
    sound = [record for record in records if record.architecture.name == "ends-in-8"]
    assert [record.state for record in sound] == ["complete"] * len(FAULTY)
    # The first four leave the worker as it was; a killed one is followed by another.
    assert len(list((tmp_path / "pids").iterdir())) == 3


def test_failures_in_a_row_end_the_search_with_a_summary(tmp_path):
    space = {**SPACE, "stages": [SPACE["stages"][0], {**SPACE["stages"][1], "channels": faults.LIKE_NAN}]}
    process = commands.start(
        tmp_path, space, *SMALL, "--trials", 20, "--epochs", 2, "--max-failures", 3, **faulty(tmp_path)
    )
    code, output = end(process)
    assert code == 1, output
    *_, summary, go_on, command = output.strip().splitlines()
    assert "3 trials in a row failed, the last with: DivergedError: the loss of epoch 1 is nan" in summary
    assert "0 done, 0 stopped early, 3 failed" in summary
    assert (go_on, command.strip()) == ("nas: go on with", "nas search --resume run")
    assert "Traceback" not in output
    assert [record.state for record in Run.open(tmp_path / "run").records].count("failed") == 3


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("mount"), reason="only root may mount a small disk")
def test_a_full_disk_fails_trials_and_the_search_goes_on_when_there_is_room(tmp_path):
    disk = tmp_path / "run" / "checkpoints"
    disk.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "nas", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts nothing")
    try:
        process = commands.start(tmp_path, SPACE, *SMALL, "--trials", 5, "--epochs", 2, "--max-failures", 2)
        code, output = end(process)
        assert code == 1, output
        assert "No space left on device" in output
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        code, output = end(commands.resume(tmp_path))
        assert code == 0, output
        states = [record.state for record in Run.open(tmp_path / "run").records if record.was_trained]
        assert len(states) == 5
        assert states.count("failed") == 2
        assert not list(disk.glob(".*"))
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("victim", ["gcs_server", "raylet"])
def test_when_ray_dies_the_driver_says_so_and_a_resume_finishes(tmp_path, victim):
    process = commands.start(tmp_path, SPACE, *SMALL, "--trials", 4, "--epochs", 30, "--reduction", 1)
    commands.wait_for_epochs(tmp_path, 20, process)
    ray = [child for child in commands.descendants(process) if child.name() == victim]
    assert len(ray) == 1
    began = time.monotonic()
    ray[0].kill()
    code, output = end(process, timeout=50)
    seconds = time.monotonic() - began
    if code != 0 or victim != "raylet":  # a raylet's workers outlive it for a while, and may finish meanwhile
        assert code == 1, output
        assert "Ray does not answer any more" in output
        assert "nas search --resume run" in output.splitlines()[-1]
        assert "Traceback" not in output
        assert seconds < 40
        before = commands.epochs_in(tmp_path)
        code, output = end(commands.resume(tmp_path))
        finished = victim == "raylet" and "this run is finished (4 trials)" in output  # by the workers that outlived it
        assert code == 0 or finished, output
        assert before <= commands.epochs_in(tmp_path)
    records = Run.open(tmp_path / "run").records
    assert [record.state for record in records if record.was_trained] == ["complete"] * 4
    assert commands.epochs_in(tmp_path) == 4 * 30
