"""What the clock's figures become: values, intervals, drift, and when they are too noisy."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from timings import PROVENANCE, visit

from nas.latency.summary import Measurement, estimates, slowness, summarize


class TestEstimate:
    def test_is_the_median_over_visits_of_the_low_quantile_of_runs(self) -> None:
        runs = np.random.default_rng(0).normal(1000, 30, (20, 6, 1)).astype(int)
        (found,) = estimates([[visit(each) for each in runs.tolist()]])
        assert found.value == np.median(np.quantile(runs[:, :, 0], 0.2, axis=1, method="lower"))
        assert found.low < found.value < found.high
        assert found.clean == 20 and found.method == "runs"
        assert found.why_noisy() == ""

    def test_leaves_out_preempted_runs(self) -> None:
        runs = [visit([[500], [1000], [1000], [1000]])._replace(preempted=[True, False, False, False])] * 8
        assert estimates([runs])[0].value == 1000

    def test_leaves_out_disturbed_visits(self) -> None:
        visits = [visit([[1000]] * 4)] * 8
        visits += [visit([[500]] * 4, probe=200)] * 20 + [visit([[500]] * 4, stolen=0.5)] * 20
        (found,) = estimates([visits])
        assert found.value == 1000 and found.clean == 8

    def test_adds_up_parts_where_whole_runs_were_disturbed(self) -> None:
        generator = np.random.default_rng(0)
        runs = np.full((10, 6, 10), 100)
        for index in np.ndindex(10, 6):
            runs[(*index, generator.integers(10))] += 3000  # every run meets one disturbance
        (found,) = estimates([[visit(each, preempted=True) for each in runs.tolist()]])
        assert found.method == "parts"
        assert found.value == 1000
        assert found.parts == (100,) * 10
        assert not found.why_noisy()

    def test_a_shared_core_is_noisy_whatever_the_times(self) -> None:
        (found,) = estimates([[visit([[500, 500]] * 4, preempted=True, stolen=0.5)] * 10])
        assert found.value == 1000  # the best guess
        assert "too noisy: 0 undisturbed visits" in found.why_noisy()

    def test_a_wide_interval_is_noisy_and_says_how_wide(self) -> None:
        (found,) = estimates([[visit([[1000 + 100 * index]] * 4) for index in range(10)]])
        assert "interval of" in found.why_noisy()

    def test_equal_times_give_equal_estimates(self) -> None:
        visits = [visit([[int(value)]] * 4) for value in np.random.default_rng(1).normal(1000, 30, 40)]
        assert estimates([visits]) == estimates([visits])


class TestDrift:
    """On invented machines whose speed is known."""

    def times(self, drift: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of 40 networks in 10 rounds, in turn: each visit's time and place, and each network's own time."""
        generator = np.random.default_rng(0)
        own = np.exp(generator.uniform(0, 3, 40))
        at = np.array([40 * number + generator.permutation(40) for number in range(10)]).T
        return own[:, None] * drift[at] * np.exp(generator.normal(0, noise, (40, 10))), at, own

    def test_a_speed_that_changes_is_found(self) -> None:
        speed = np.where(np.arange(400) // 60 % 2, 1.3, 1.0)  # slower for 60 visits, now and then
        times, at, own = self.times(speed, noise=0.02)
        found = slowness(times, at)
        assert np.corrcoef(found.ravel(), speed[at].ravel())[0, 1] > 0.95
        after, before = (np.log(np.median(item, axis=1) / own).std() for item in (times / found, times))
        assert after < 0.2 * before

    def test_a_steady_machine_is_left_alone(self) -> None:
        times, at, own = self.times(np.ones(400), noise=0.02)
        after, before = (np.log(np.median(item, axis=1) / own).std() for item in (times / slowness(times, at), times))
        assert after < 1.2 * before

    def test_one_network_cannot_tell(self) -> None:
        assert (slowness(np.array([[1.0, 2.0, 3.0]]), np.arange(3)[None]) == 1).all()

    def test_visits_that_do_not_count_say_nothing(self) -> None:
        times, at, _ = self.times(np.ones(400), noise=0.0)
        times[(at > 100) & (at < 150)] = np.nan
        np.testing.assert_allclose(slowness(times, at), 1)


def test_summary_gives_all_figures() -> None:
    visits = [visit([[1_000_000 + 1000 * (6 * at + run)] for run in range(6)]) for at in range(10)]
    found = summarize("a", "1", visits, estimates([visits])[0], PROVENANCE, "")
    assert found.value_ms < found.median_ms < found.p90_ms
    assert found.iqr_ms == pytest.approx(0.0295, rel=0.1)
    assert (found.repeats, found.visits, found.clean) == (60, 10, 10)
    assert json.loads(json.dumps(asdict(found)))["provenance"]["engine"] == "eager"


def test_overlapping_intervals_are_ties() -> None:
    def one(low: float, high: float) -> Measurement:
        visits = [visit([[1_000_000]] * 4)] * 10
        found = summarize("a", "1", visits, estimates([visits])[0], PROVENANCE, "")
        return replace(found, low_ms=low, high_ms=high)

    assert one(1.0, 1.2).tied(one(1.1, 1.3))
    assert not one(1.0, 1.1).tied(one(1.2, 1.3))
