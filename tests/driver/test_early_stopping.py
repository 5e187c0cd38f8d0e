"""Early stopping on learning curves that our own training made (``benchmarks/early_stopping.py record``)."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from nas.driver.stopping import rungs

ROOT = Path(__file__).resolve().parents[2]
FIRST = 1
CURVES = Path(__file__).parent / "fixtures" / "curves.json"
SPEC = importlib.util.spec_from_file_location("early_stopping", ROOT / "benchmarks" / "early_stopping.py")
early_stopping = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(early_stopping)


@pytest.fixture(scope="module")
def curves():
    return early_stopping.read(CURVES)[0]


def replays(curves, reduction, count=20):
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(len(curves)).tolist()
        yield early_stopping.replay(curves, levels=rungs(12, FIRST), reduction=reduction, workers=2, order=order)


def test_the_recording_is_of_a_search_worth_the_name(curves):
    assert len(curves) >= 60
    assert {len(curve.accuracies) for curve in curves} == {12}
    assert early_stopping.read(CURVES)[1] == FIRST  # the replays' rungs are those of such a search


@pytest.mark.parametrize(("reduction", "saving"), [(2, 2.5), (3, 3)])
def test_it_saves_epochs_and_keeps_the_front(curves, reduction, saving):
    found = list(replays(curves, reduction))
    assert all(replayed.all_epochs == 12 * len(curves) for replayed in found)
    assert np.median([replayed.saving for replayed in found]) >= saving
    assert np.median([replayed.hypervolume for replayed in found]) >= 0.98


@pytest.mark.parametrize(("reduction", "kept"), [(2, 0.98), (3, 0.92)])
def test_it_keeps_the_front_in_any_order(curves, reduction, kept):
    assert min(replayed.hypervolume for replayed in replays(curves, reduction, count=50)) >= kept


def test_rungs_are_as_far_apart_as_what_goes_on_is_few(curves):
    """Li et al. space rungs by 1 / the part that goes on, so that each costs the same. Here that part is a half."""
    found = [part for replayed in replays(curves, 3) for part in replayed.went_on]
    assert 0.45 < np.mean(found) < 0.65


def test_nothing_is_stopped_without_rungs(curves):
    replayed = early_stopping.replay(curves, levels=(), reduction=1, workers=2, order=range(len(curves)))
    assert (replayed.saving, replayed.hypervolume, replayed.stopped_front) == (1, pytest.approx(1), ())
