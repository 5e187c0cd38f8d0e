"""What a search believes of its accuracies, against a truth that it does not see."""

import itertools
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest

from nas.driver.belief import believe, counting_variance
from nas.driver.objectives import parse_objectives
from nas.driver.record import Record
from nas.driver.sampler.gp import Features, GaussianProcess, fit_hyperparameters

LEVELS = (1, 2, 3, 4, 6)
PARAMETERS = 8
IMAGES = 300
SPACE = SimpleNamespace(parameters_by_name={f"t{i}": SimpleNamespace(values=LEVELS) for i in range(PARAMETERS)})
OBJECTIVES = parse_objectives("accuracy,params")


def record(number, params, accuracy, cost, on_front, **changed):
    known = dict.fromkeys(item.name for item in fields(Record) if item.name != "number")
    known |= {"state": "complete", "reason": "", "curve": [{}], "untrained": False, "confirmed": {}, "origin": ""}
    known |= {"beside": "", "params": params, "costs": {"params": cost}, "accuracy": accuracy, "on_front": on_front}
    return Record(number=number, **known | changed)


def on_front(accuracies, costs):
    """By definition: none is at least as good in both and better in one."""
    pairs = list(zip(accuracies, costs, strict=True))
    return [
        not any(a >= accuracy and c <= cost and (a, c) != (accuracy, cost) for a, c in pairs)
        for accuracy, cost in pairs
    ]


def searched(seed, networks=40):
    """Networks drawn at random, judged on few images after trainings that differ by 0.5 points; and the truth."""
    rng = np.random.default_rng(seed)
    gain = np.cumsum(rng.gamma(0.6, 1.0, (PARAMETERS, len(LEVELS))), axis=1)
    pairs = 0.5 * rng.normal(size=(PARAMETERS, PARAMETERS, len(LEVELS), len(LEVELS))) / PARAMETERS
    weights = rng.gamma(1.0, 1.0, PARAMETERS)
    rows = rng.integers(0, len(LEVELS), (networks, PARAMETERS))
    quality = np.array(
        [
            gain[range(PARAMETERS), row].sum()
            + sum(pairs[i, j, row[i], row[j]] for i, j in itertools.combinations(range(PARAMETERS), 2))
            for row in rows
        ]
    )
    truth = 0.95 - 0.1 * np.exp(-0.6 * (quality - quality.mean()) / quality.std())
    costs = np.array(LEVELS)[rows] @ weights + 1
    observed = rng.binomial(IMAGES, np.clip(truth + 0.005 * rng.normal(size=networks), 0, 1)) / IMAGES
    places = on_front(observed, costs)
    names = list(SPACE.parameters_by_name)
    records = [
        record(i, dict(zip(names, [LEVELS[k] for k in row], strict=True)), observed[i], costs[i], places[i])
        for i, row in enumerate(rows)
    ]
    return records, truth, on_front(truth, costs)


def test_of_the_members_that_belong_with_80_per_cent_80_per_cent_do():
    """Calibration by brute force, over 25 searches."""
    judged, errors = [], []
    for seed in range(25):
        records, truth, belongs = searched(seed)
        belief = believe(records, SPACE, OBJECTIVES, IMAGES)
        assert belief.belongs.keys() == {item.number for item in records if item.on_front}
        judged += [(share, belongs[number]) for number, share in belief.belongs.items()]
        errors += [
            (belief.expected(item) - truth[item.number], item.accuracy - truth[item.number])
            for item in records
            if item.on_front
        ]
    shares, belong = np.array(judged, dtype=float).T
    for low, high in ((0.0, 0.4), (0.4, 0.7), (0.7, 0.9), (0.9, 1.01)):
        some = (low <= shares) & (shares < high)
        error = 3 * np.sqrt(0.25 / some.sum())
        assert some.sum() > 10 and belong[some].mean() == pytest.approx(shares[some].mean(), abs=error)
    # A front chosen by noisy figures looks better than it is, and the posterior mean less so.
    (expected, observed), spread = np.mean(errors, axis=0), np.sqrt(np.mean(np.square(errors), axis=0))
    assert abs(expected) < observed and spread[0] < 0.9 * spread[1]


def test_networks_on_one_level_are_those_that_cannot_be_told_from_its_first():
    records = [record(i, {}, accuracy, 9 - i, True) for i, accuracy in enumerate((0.95, 0.94, 0.90, 0.89, 0.5))]
    belief = believe(records, SPACE, OBJECTIVES, 1000)  # outside the space: each stands for itself
    errors = [np.sqrt(counting_variance(item.accuracy, 1000)) for item in records]
    assert [belief.of(item).std() for item in records] == pytest.approx(errors, rel=0.1)
    assert belief.levels(records) == [1, 1, 2, 2, 3]
    again = {"repeats": {"1": {"0": 0.96, "1": 0.94, "2": 0.94, "3": 0.94}}}  # five trainings tell more than one
    belief = believe([record(0, {}, 0.95, 1, True, confirmed=again)], SPACE, OBJECTIVES, 1000)
    assert belief.expected(records[0]) == pytest.approx(0.946, abs=0.001)
    assert belief.of(records[0]).std() == pytest.approx(errors[0] / np.sqrt(5), rel=0.1)


def test_a_network_belongs_unless_one_that_costs_no_more_is_as_accurate():
    outside = record(2, {}, 0.99, 1.0, False, beside="outside the space")  # it competes with nobody
    records = [record(0, {}, 0.90, 2.0, True), record(1, {}, 0.90, 3.0, True), outside]
    belongs = believe(records, SPACE, OBJECTIVES, 100).belongs
    assert belongs[0] == 1.0
    assert belongs[1] == pytest.approx(0.5, abs=0.05)


def test_draws_have_the_posterior_s_moments_and_the_correlation_of_equal_points():
    rng = np.random.default_rng(0)
    group = np.arange(4)
    seen, points = (Features(rng.choice([-1.0, 1.0], (n, 4)), rng.normal(size=(n, 1))) for n in (20, 5))
    targets = seen.embedding @ [1, -1, 0.5, 0] / 2
    theta, _ = fit_hyperparameters(seen, targets, np.zeros((20, 20)), group, np.zeros(4))
    process = GaussianProcess(theta, group, seen, targets, np.zeros((20, 20)))
    twice = points.take(np.array([0, 1, 2, 3, 4, 0]))
    draws = process.sample(twice, 20_000, rng)
    mean, std = process.predict(twice)
    assert draws.std(axis=0) == pytest.approx(std, rel=0.03)
    assert draws.mean(axis=0) == pytest.approx(mean, abs=0.03 * std.max())
    assert draws[:, 0] == pytest.approx(draws[:, 5], abs=1e-4)
    # A deviation of its own is a point's alone: one that was seen is nearer to what was seen, another less certain.
    both = points.joined(seen.take(np.array([0])))
    own = process.sample(both, 20_000, rng, own=1.0)
    known = process.predict(both)[1]
    assert own[:, 5].mean() == pytest.approx(targets[0], abs=1e-3)
    assert own[:, 5].std() < known[5] and own[:, 0].var() == pytest.approx(known[0] ** 2 + process.noise**2, rel=0.05)
