"""Whole searches on Ray, tiny ones, on the embedded digits."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import yaml

import nas
from nas.errors import UserError
from nas.search.run import COLUMNS, Run

TINY = {
    "name": "tiny",
    "input": {"channels": 1, "resolution": 8},
    "stem": {"channels": 8, "stride": 2},
    "stages": [
        {"block": "inverted_residual", "channels": 8, "expansion": {"choice": [1, 2, 3, 4, 6]}},
        {"block": "inverted_residual", "channels": {"choice": [8, 16, 24, 32]}, "stride": 2, "expansion": 2},
    ],
}


def dominated(row, rows):
    """By definition: another row is at least as good in both and better in one."""
    own = (-float(row["accuracy"]), float(row["size_bytes"]))
    others = [(-float(r["accuracy"]), float(r["size_bytes"])) for r in rows if r is not row]
    return any(all(o <= s for o, s in zip(other, own, strict=True)) and other != own for other in others)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished search of eight trials."""
    folder = tmp_path_factory.mktemp("search") / "run"
    progress = []
    run = nas.search(
        nas.Space(TINY),
        objectives=("accuracy", "size"),
        trials=8,
        epochs=3,
        train_size=600,
        out=folder,
        on_change=lambda state: progress.append((state.closed, state.running)),
    )
    return run, progress


def test_the_table_has_its_columns_and_the_front_follows_from_it(finished):
    run, _ = finished
    with (run.path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    trained = [row for row in rows if not row["reason"].startswith("same network")]
    assert len(trained) == 8
    complete = [row for row in trained if row["state"] == "complete"]
    assert complete
    for row in trained:
        assert (row["on_front"] == "True") == (row["state"] == "complete" and not dominated(row, complete))
        assert int(row["epochs"]) == 3 or row["state"] == "stopped"


def test_costs_in_the_table_are_those_of_the_built_networks(finished):
    run, _ = finished
    for record in run.records:
        network = record.architecture.build(10)
        assert record.costs["params"] == sum(parameter.numel() for parameter in network.parameters())


def test_the_front_can_be_loaded_and_its_weights_judge_the_same(finished):
    run, _ = finished
    for rank, record in enumerate(run.front_records, 1):
        assert nas.load(run.front_file(rank, record)).id == record.architecture.id
        figures = nas.evaluate(run.checkpoint(record))
        assert figures["validation_accuracy"] == pytest.approx(record.accuracy, abs=1e-6)
        assert figures["test_accuracy"] == pytest.approx(record.confirmed["test_accuracy"], abs=1e-6)


def test_only_weights_of_the_front_are_kept(finished):
    run, _ = finished
    kept = {path.name for path in (run.path / "checkpoints").iterdir()}
    assert kept == {f"{record.number}.pt" for record in run.front_records}


def test_progress_ends_with_all_trials(finished):
    _, progress = finished
    assert progress[-1] == (8, 0)
    assert max(running for _, running in progress) >= 1


def test_run_yaml_says_how_to_do_it_again(finished):
    run, _ = finished
    document = yaml.safe_load((run.path / "run.yaml").read_text())
    assert document["schema"] == 1
    assert document["settings"]["space"]["name"] == "tiny"
    assert {"torch", "ray", "optuna"} <= document["environment"]["versions"].keys()


def test_a_finished_run_is_not_overwritten(finished):
    run, _ = finished
    before = (run.path / "trials.csv").read_bytes()
    with pytest.raises(UserError, match="holds another run"):
        nas.search(nas.Space(TINY), objectives=("accuracy", "macs"), trials=8, epochs=3, out=run.path)
    with pytest.raises(UserError, match="is finished"):
        nas.api.resume(run.path)
    assert (run.path / "trials.csv").read_bytes() == before


COMMAND = ["search", "--space", "tiny.yaml", "--objectives", "accuracy,size", "--epochs", "3", "--out", "run"]


def start(folder, *arguments):
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return subprocess.Popen(
        [sys.executable, "-m", "nas", *COMMAND, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_epochs(folder, count, process):
    """Until the record holds so many epochs."""
    journal = folder / "run" / "study.journal"
    for _ in range(1200):
        if journal.exists() and journal.read_text().count('"epoch:') >= count:
            return
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    raise AssertionError("the search trained nothing in two minutes")


@pytest.mark.slow
def test_ctrl_c_ends_with_the_command_that_goes_on(tmp_path):
    process = start(tmp_path, "--trials", "30")
    wait_for_epochs(tmp_path, 4, process)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "nas search --resume run" in output
    assert "Traceback" not in output
    done = subprocess.run(
        [sys.executable, "-m", "nas", "search", "--resume", "run", "--trials", "6"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    records = Run.open(tmp_path / "run").records
    assert not [record for record in records if record.state == "running"]
    assert sum(record.was_trained for record in records) >= 6


@pytest.mark.slow
def test_a_driver_that_is_killed_again_and_again_loses_nothing(tmp_path):
    rng = np.random.default_rng(0)
    orphans = []
    for _ in range(4):
        process = start(tmp_path, "--trials", "14", "--seed", "3")
        journal = tmp_path / "run" / "study.journal"
        seen = journal.read_text().count('"epoch:') if journal.exists() else 0
        wait_for_epochs(tmp_path, seen + int(rng.integers(1, 4)), process)
        orphans += psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)  # the driver alone: Ray's processes find out by themselves
        process.wait()
    process = start(tmp_path, "--trials", "14", "--seed", "3")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    _, alive = psutil.wait_procs(orphans, timeout=60)
    assert not alive
    run = Run.open(tmp_path / "run")
    trained = [record for record in run.records if record.was_trained]
    assert len(trained) == 14
    assert len({record.architecture.id for record in trained}) == 14
    assert {record.state for record in run.records} <= {"complete", "stopped"}
    for record in trained:
        assert [epoch["epoch"] for epoch in record.curve] == list(range(1, len(record.curve) + 1))
