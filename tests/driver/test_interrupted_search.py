"""Searches that are interrupted or killed, and go on."""

import csv
import json
import os
import signal
import sqlite3
import time
from contextlib import closing

import checks
import commands
import numpy as np
import psutil
import pytest
import torch
import yaml
from commands import SPACE
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import nas
from nas.driver.record import COLUMNS
from nas.driver.run import Run

OPTIONS = ("--objectives", "accuracy,size", "--published", "none", "--epochs", 3)


def interrupted_three_times(process):
    """What it prints until it ends, as it should, after three Ctrl-C."""
    for _ in range(3):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.2)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    return output


@pytest.mark.slow
def test_ctrl_c_while_ray_starts_leaves_nothing(tmp_path):
    """Once the raylet was gone before its agents knew of it."""
    process = commands.start(tmp_path, SPACE, *OPTIONS)
    while len(began := commands.descendants(process)) < 5:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    output = interrupted_three_times(process)
    assert "Traceback" not in output
    assert not psutil.wait_procs(began, timeout=5)[1]


def epochs_in(database):
    """How many epochs a SQLite study holds."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            query = "SELECT COUNT(*) FROM trial_user_attributes WHERE key LIKE 'epoch:%'"
            return connection.execute(query).fetchone()[0]
    except sqlite3.OperationalError:  # not there yet
        return 0


@pytest.mark.slow
def test_a_search_in_a_database_goes_on_after_a_kill(tmp_path):
    database = tmp_path / "study.db"
    process = commands.start(tmp_path, SPACE, *OPTIONS, "--trials", 4, "--storage", f"sqlite:///{database}")
    while epochs_in(database) < 2:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = epochs_in(database)
    process = commands.resume(tmp_path)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    records = Run.open(tmp_path / "run").records
    assert epochs_in(database) > before
    assert len([record for record in records if record.was_trained]) == 4
    assert {record.state for record in records} <= {"complete", "stopped", "failed"}
    # In a database what is asked and what is described are two writes: a kill between them costs a number.
    assert all(record.untrained for record in records if record.state == "failed")
    assert not (tmp_path / "run" / "study.journal").exists()


ENDS = (("start", "kill"), ("epoch", "ctrl-c"), ("tables", "kill"), ("epoch", "terminate"))
"""When each life of a search ends, and how. Tables are written at the end of all trials."""
MANY = {**SPACE, "name": "many", "width": {"choice": [0.5, 1, 1.4, 2]}}
"""80 networks, so that every life of the search has some to train."""


def entries(run):
    """What a run's journal holds, from its text, without the half a line that a killed process may leave."""
    journal = run / "study.journal"
    return journal.read_text().split("\n")[:-1] if journal.exists() else []


def recorded_epochs(run):
    """Every epoch in the record, as (trial, epoch); none stands there twice."""
    epochs = [
        (log["trial_id"], int(key.removeprefix("epoch:")))
        for log in map(json.loads, entries(run))
        for key in (log.get("user_attr", ()) if "trial_id" in log else ())
        if key.startswith("epoch:")
    ]
    assert len(epochs) == len(set(epochs))
    return set(epochs)


def optunas_trials(run, scratch):
    """The trials as Optuna itself reads them."""
    scratch.write_text("".join(f"{line}\n" for line in entries(run)))
    storage = JournalStorage(JournalFileBackend(str(scratch)))
    studies = storage.get_all_studies()
    return storage.get_all_trials(studies[0]._study_id) if studies else []


def check_whole(run, trials, epochs):
    """What a killed search left can be read, and a trial can go on after its last epoch in the record."""
    if (run / "run.yaml").exists():
        assert yaml.safe_load((run / "run.yaml").read_text())["settings"]["space"]["name"] == "many"
    if (run / "trials.csv").exists():
        text = (run / "trials.csv").read_text()
        rows = list(csv.reader(text.splitlines()))
        assert text.endswith("\n")
        assert {len(row) for row in rows} == {len(COLUMNS)}
    for file in (run / "front").glob("*.yaml"):
        assert nas.load(file).id in file.name
    for trial in trials:
        done = max((epoch for number, epoch in epochs if number == trial.number), default=0)
        if trial.state.name == "RUNNING" and done:
            weights = run / "checkpoints" / f"{trial.number}.pt"
            assert torch.load(weights, weights_only=True)["epoch"] >= done


def wait_for_moment(moment, run, process, epochs, rng):
    """One of: any moment of the start; soon after an epoch; while the tables are written, the test set is read, ..."""

    def wait_until(happened):
        while process.poll() is None and not happened():
            time.sleep(0.005)

    table = run / "trials.csv"
    before = table.stat().st_mtime_ns if table.exists() else 0
    if moment == "start":
        time.sleep(rng.uniform(0, 6))
    elif moment == "epoch":
        wait_until(lambda: len(recorded_epochs(run)) > epochs)
        time.sleep(rng.uniform(0, 0.5))
    else:
        wait_until(lambda: table.exists() and table.stat().st_mtime_ns > before)
        time.sleep(rng.choice([0, rng.uniform(0, 0.05), rng.uniform(0, 0.5)]))


def end(process, how):
    """End a search in its midst; returns what it started that may outlive it for a while.

    One that is interrupted, or terminated, says how to go on, and leaves no process behind.
    """
    began = commands.descendants(process)
    if how == "kill":  # the driver alone: Ray's processes find out by themselves
        os.kill(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
        return began
    if how == "ctrl-c":
        output = interrupted_three_times(process)
    else:
        os.kill(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 143, output
        assert "SIGTERM" not in output  # Ray's dump of its stack begins with it
    assert output.splitlines()[-2:] == ["nas: interrupted; go on with", "  nas search --resume run"]
    assert "Traceback" not in output
    assert not psutil.wait_procs(began, timeout=5)[1]
    return []


@pytest.mark.slow
def test_a_search_that_is_killed_and_interrupted_again_and_again_loses_nothing(tmp_path):
    rng = np.random.default_rng(0)
    run = tmp_path / "run"
    orphans, epochs, done, interrupted = [], set(), 0, False

    def live(trials):
        """The same command again, or the one that an interrupted search has told."""
        if interrupted:
            return commands.resume(tmp_path, "--trials", trials)
        return commands.start(tmp_path, MANY, *OPTIONS, "--trials", trials, "--seed", 3)

    for moment, how in ENDS:
        process = live(done + (2 if moment == "tables" else 30))
        wait_for_moment(moment, run, process, len(epochs), rng)
        assert process.poll() is None, process.stdout.read()
        orphans += end(process, how)
        interrupted = how != "kill"
        known, epochs = epochs, recorded_epochs(run)
        assert known <= epochs
        trials = optunas_trials(run, tmp_path / "scratch")
        check_whole(run, trials, epochs)
        done = sum(trial.state.is_finished() and "untrained" not in trial.user_attrs for trial in trials)
    process = live(done + 2)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    _, alive = psutil.wait_procs(orphans, timeout=60)
    assert not alive

    records = Run.open(run).records
    trained = [record for record in records if record.was_trained]
    assert len(trained) == done + 2
    assert len({record.architecture.id for record in trained}) == done + 2
    assert {record.state for record in records} <= {"complete", "stopped"}
    for record in trained:
        assert [epoch["epoch"] for epoch in record.curve] == list(range(1, len(record.curve) + 1))
    with (run / "trials.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["state"] == "complete"]
    front = {row["id"] for row in rows if not checks.dominated(row, rows)}
    assert {row["id"] for row in rows if row["on_front"] == "True"} == front
    assert {file.stem.split("-")[1] for file in (run / "front").iterdir()} == front
    assert not list(run.rglob(".*.tmp"))  # what killed writers left is gone
