import errno
import json
import resource
import subprocess
import sys

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from nas.driver.storage import RunJournal
from nas.errors import UserError


def study_on(journal):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(study_name="s", storage=JournalStorage(journal), load_if_exists=True)


def add_trial(study, value):
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    study.tell(trial, value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.journal"


def test_optunas_own_backend_reads_the_file(path):
    journal = RunJournal(path, writer=True)
    study = study_on(journal)
    add_trial(study, 1.0)
    with journal.batch():
        add_trial(study, 2.0)
    theirs = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    assert [trial.value for trial in theirs.trials] == [1.0, 2.0]
    assert [trial.params for trial in theirs.trials] == [trial.params for trial in study.trials]


def test_a_batch_reads_its_own_writes_and_reaches_the_disk_as_one(path):
    journal = RunJournal(path, writer=True)
    study = study_on(journal)
    before = path.read_bytes()
    with journal.batch():
        add_trial(study, 1.0)
        assert study.trials[0].value == 1.0
        assert path.read_bytes() == before
    assert len(path.read_bytes()) > len(before)
    reader = optuna.load_study(study_name="s", storage=JournalStorage(RunJournal(path, writer=False)))
    assert reader.trials[0].value == 1.0


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_an_exception_breaks_off_is_not_written(path, error):
    journal = RunJournal(path, writer=True)
    study = study_on(journal)
    add_trial(study, 1.0)
    before = path.read_bytes()
    with pytest.raises(error), journal.batch():
        add_trial(study, 2.0)
        with journal.batch():
            add_trial(study, 3.0)
            raise error
    assert path.read_bytes() == before
    with pytest.raises(RuntimeError, match="open the journal again"):
        add_trial(study, 4.0)
    assert path.read_bytes() == before
    again = study_on(RunJournal(path, writer=True))
    assert [trial.value for trial in again.trials] == [1.0]
    add_trial(again, 5.0)
    assert [trial.value for trial in again.trials] == [1.0, 5.0]


def test_a_reader_follows_the_writer(path):
    study = study_on(RunJournal(path, writer=True))
    reader = optuna.load_study(study_name="s", storage=JournalStorage(RunJournal(path, writer=False)))
    for count in range(1, 5):
        add_trial(study, float(count))
        assert len(reader.trials) == count


def test_half_a_line_is_cut_off(path):
    journal = RunJournal(path, writer=True)
    add_trial(study_on(journal), 1.0)
    with path.open("ab") as file:
        file.write(b'{"op_code":5,"work')  # what a killed process leaves
    journal = RunJournal(path, writer=True)
    study = study_on(journal)
    add_trial(study, 2.0)
    assert all(json.loads(line) for line in path.read_text().splitlines())
    assert [t.value for t in study_on(RunJournal(path, writer=True)).trials] == [1.0, 2.0]


def test_a_reader_stops_before_half_a_line(path):
    add_trial(study_on(RunJournal(path, writer=True)), 1.0)
    with path.open("ab") as file:
        file.write(b'{"op_code":5,"work')
    reader = optuna.load_study(study_name="s", storage=JournalStorage(RunJournal(path, writer=False)))
    assert len(reader.trials) == 1


FILL = """
import resource, signal, sys
from pathlib import Path
from nas.driver.storage import RunJournal
journal = RunJournal(Path(sys.argv[1]), writer=True)
journal.append_logs([{"n": 1}])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    journal.append_logs([{"n": 2, "text": "x" * 200}])
except OSError as error:
    print(error.errno)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
def test_a_write_that_does_not_fit_leaves_the_file_whole(path):
    """A limit on the file's size stands for a full disk: the write breaks off in its middle."""
    done = subprocess.run([sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(errno.EFBIG)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"n": 1}]


def test_a_damaged_line_is_the_users_to_know(path):
    path.write_text("not json\n")
    with pytest.raises(UserError, match="damaged"):
        list(RunJournal(path, writer=False).read_logs(0))


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="cannot be opened"):
        RunJournal(tmp_path / "missing" / "study.journal", writer=True)
