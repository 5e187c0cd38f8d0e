"""Which files of the trials stay."""

import pytest

from nas.driver.checkpoints import Checkpoints


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of three trials, one that was being written, and a file that is none of ours."""
    for name in ("0.pt", "7.pt", "12.pt", ".7.pt.x1y2.tmp", "notes.pt"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("keep", "swept", "finished"),
    [
        ("all", ["0.pt", "12.pt", "7.pt", "notes.pt"], ["0.pt", "12.pt", "7.pt", "notes.pt"]),
        ("front", ["7.pt", "notes.pt"], ["7.pt", "notes.pt"]),
        ("none", ["7.pt", "notes.pt"], ["notes.pt"]),
    ],
)
def test_what_stays(folder, keep, swept, finished):
    checkpoints = Checkpoints(folder, keep)
    checkpoints.sweep(lambda number: number == 7)
    assert files(folder) == swept
    checkpoints.discard(3)  # never written
    checkpoints.finish()
    assert files(folder) == finished


def test_a_trial_is_discarded_alone(folder):
    checkpoints = Checkpoints(folder, "front")
    checkpoints.discard(7)
    assert not checkpoints.path(7).exists()
    assert checkpoints.path(12).exists()
