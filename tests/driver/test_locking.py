"""One writer to a run: real processes that lock, are killed, and stand still."""

import functools
import os
import signal
import socket
import subprocess
import sys
import time

import optuna
import pytest
import runs
from commands import SPACE
from optuna.storages import RDBStorage

from nas import api
from nas.driver.locking import StudyLease, locked_folder
from nas.driver.run_file import describe_environment, read_run_file, write_run_file
from nas.driver.settings import Settings
from nas.errors import UserError

SETTINGS = Settings(space=SPACE, objectives=("accuracy", "size"), trials=4)
SECONDS = 2.0

LOCK = """
import sys, time
from pathlib import Path
from nas.driver.locking import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

LEASE = f"""
import sys, time
from optuna.storages import RDBStorage
from nas.errors import UserError
from nas.driver.locking import StudyLease, LeaseLostError
storage = RDBStorage(sys.argv[1], skip_table_creation=True)
time.sleep(max(0, float(sys.argv[2]) - time.time()))
try:
    with StudyLease(storage, "s", seconds={SECONDS}) as lease:
        print("held", flush=True)
        try:
            while True:
                time.sleep(0.05)
        except KeyboardInterrupt:  # as the watching thread interrupts
            with lease.batch():
                print("wrote", flush=True)
except UserError:
    print("refused", flush=True)
except LeaseLostError as error:
    print(error, flush=True)
"""


def begin(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        # Shells start background jobs with SIGINT ignored, and a lost lease interrupts by it.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )


@pytest.fixture
def started():
    """Processes that end with the test."""
    processes = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def database(tmp_path):
    """A URL, with an empty study ``s``."""
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(study_name="s", storage=url, directions=["maximize", "minimize"])
    return url


def test_a_second_writer_is_told_who_writes_and_changes_nothing(tmp_path, started):
    runs.begin(tmp_path / "run", SETTINGS)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    started.append(begin(LOCK, tmp_path / "run"))
    assert started[0].stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"run: process {started[0].pid} on \S+, since .*; wait for it, or stop it"):
        api.resume(tmp_path / "run", trials=400, keep="none")
    assert all(path.read_bytes() == content for path, content in before.items())
    started[0].send_signal(signal.SIGKILL)
    started[0].wait()
    with locked_folder(tmp_path / "run"):
        pass
    assert {path for path in (tmp_path / "run").rglob("*") if path.is_file()} == before.keys()


def test_a_folder_that_a_refused_search_created_is_gone(tmp_path):
    with pytest.raises(UserError), locked_folder(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / "checkpoints").is_dir()
        raise UserError("something does not fit")
    assert not list(tmp_path.iterdir())


def test_a_copy_of_a_running_search_is_refused_by_their_database(tmp_path, database, started):
    for name in ("run", "copy"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    write_run_file(tmp_path / "run", SETTINGS, describe_environment("cpu"), database)
    text = (tmp_path / "run" / "run.yaml").read_text().replace(read_run_file(tmp_path / "run")["study"], "s")
    (tmp_path / "copy" / "run.yaml").write_text(text)
    started.append(begin(LEASE, database, 0))
    assert started[0].stdout.readline() == "held\n"
    time.sleep(1.5 * SECONDS)  # it renews the lease
    with pytest.raises(UserError, match=rf"study s: process {started[0].pid} on \S+, since .*; wait for it, or stop"):
        api.resume(tmp_path / "copy", trials=400, keep="none")
    assert (tmp_path / "copy" / "run.yaml").read_text() == text


def take(database):
    """The lease, as soon as it is free; returns how late the last attempt that was refused began, in seconds."""
    storage = RDBStorage(database)
    began, refused = time.monotonic(), None
    while True:
        attempt = time.monotonic() - began
        try:
            return refused, StudyLease(storage, "s", seconds=SECONDS).__enter__()
        except UserError:
            refused = attempt
            time.sleep(0.05)


@pytest.mark.parametrize("machine", ["this", "another"])
def test_a_killed_driver_loses_its_lease_and_one_that_ends_gives_it_back(database, started, machine, monkeypatch):
    started.append(begin(LEASE, database, 0))
    assert started[0].stdout.readline() == "held\n"
    started[0].send_signal(signal.SIGKILL)
    started[0].wait()
    if machine == "another":  # where it cannot be seen that the process is gone
        monkeypatch.setattr(socket, "gethostname", lambda: "another")
    refused, lease = take(database)
    # The lease was renewed within the last third of its time, before the kill.
    assert SECONDS / 3 < refused < SECONDS if machine == "another" else refused is None
    lease.__exit__(None, None, None)
    with StudyLease(RDBStorage(database), "s", seconds=SECONDS):
        pass
    storage = RDBStorage(database)
    assert not storage.get_study_system_attrs(storage.get_study_id_from_name("s")).keys() & {"nas:lease"}


@pytest.mark.slow
def test_of_drivers_that_begin_at_once_one_gets_the_lease(database, started):
    moment = time.time() + 6
    started += [begin(LEASE, database, moment) for _ in range(4)]
    said = sorted(process.stdout.readline().strip() for process in started)
    assert said == ["held", "refused", "refused", "refused"]


@pytest.mark.slow
def test_a_driver_that_stood_still_past_its_lease_writes_nothing_more(database, started):
    started.append(begin(LEASE, database, 0))
    assert started[0].stdout.readline() == "held\n"
    os.kill(started[0].pid, signal.SIGSTOP)
    _, lease = take(database)
    os.kill(started[0].pid, signal.SIGCONT)
    assert "another driver has taken over the study s" in started[0].stdout.readline()
    with lease.batch():  # ours still
        pass
    lease.__exit__(None, None, None)
