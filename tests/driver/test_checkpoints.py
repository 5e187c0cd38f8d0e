"""Which files of the trials stay."""

import pytest

from nas.driver.checkpoints import Checkpoints

ALL = ["0.pt", "12-int8.tflite", "12.pt", "7.onnx", "7.pt", "notes.pt"]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of three trials, what ships of two, one that was being written, and a file that is none of ours."""
    for name in ("0.pt", "7.pt", "7.onnx", "12.pt", "12-int8.tflite", ".7.pt.x1y2.tmp", "notes.pt"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("keep", "swept", "finished"),
    [
        ("all", ALL, ALL),
        ("front", ["7.onnx", "7.pt", "notes.pt"], ["7.onnx", "7.pt", "notes.pt"]),
        ("none", ["7.onnx", "7.pt", "notes.pt"], ["notes.pt"]),
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
    assert files(folder) == [name for name in sorted([*ALL, ".7.pt.x1y2.tmp"]) if not name.startswith("7")]
