"""Targets against files that are written here; each conversion takes seconds, and LiteRT's need their own extra."""

import importlib.util
import sys
from pathlib import Path

import pytest

import nas
from nas.targets import TARGETS, restricted

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import targets as benchmark  # noqa: E402

pytestmark = pytest.mark.slow
LITERT = importlib.util.find_spec("litert_torch") is not None


@pytest.mark.parametrize("seed", range(2))
def test_files_and_arena_of_random_networks(seed) -> None:
    pytest.importorskip("onnxruntime")
    space, _ = restricted(nas.load_space("micro"), TARGETS["litert"])
    architecture = space.sample(seed)
    measured = benchmark.measure(architecture, {}, tflite=True)
    assert len(measured) == (10 if LITERT else 3)
    for figure, value in measured.items():
        error = benchmark.predict(architecture, figure) / value - 1
        assert abs(error) < (0.05 if "arena" in figure else 0.02), figure
