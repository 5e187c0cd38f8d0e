"""The Gaussian process: its gradient, its honesty, what it finds out about parameters."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution
from scipy.stats import spearmanr

from nas.driver.sampler import candidates, gp, surrogate
from nas.driver.sampler.encoding import Encoding
from nas.driver.sampler.gp import Features

SPACE: dict[str, BaseDistribution] = {
    "a": CategoricalDistribution(["x", "y", "z"]),
    "b": CategoricalDistribution([1, 2, 3, 4, 6]),
    "c": CategoricalDistribution(["only"]),
    "d": CategoricalDistribution([i / 20 for i in range(21)]),
    "e": CategoricalDistribution([True, False]),
}


def data(count: int, seed: int = 0) -> tuple[Encoding, gp.Featurizer, Features, np.ndarray]:
    encoding = Encoding.of(SPACE)
    rng = np.random.default_rng(seed)
    rows = candidates.random_rows(encoding, count, rng)
    featurizer = gp.Featurizer(encoding)
    values = rows[:, 0] + np.sqrt(rows[:, 1]) + np.sin(0.15 * rows[:, 3]) + rows[:, 0] * rows[:, 4]
    values = values + 0.1 * rng.standard_normal(count)
    return encoding, featurizer, Features(featurizer(rows), rng.normal(size=(count, 2))), values


def test_the_gradient_is_the_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    _, featurizer, features, values = data(20)
    targets = (values - values.mean()) / values.std()
    caught = {}

    def catch(function: object, start: np.ndarray, **_: object) -> object:
        caught["function"], caught["start"] = function, start
        raise InterruptedError

    monkeypatch.setattr(gp, "minimize", catch)
    with pytest.raises(InterruptedError):
        gp.fit_hyperparameters(features, targets, 0.1 * np.eye(20), featurizer.group, featurizer.prior)
    function = caught["function"]
    theta = np.asarray(caught["start"]) + 0.3 * np.random.default_rng(1).standard_normal(len(caught["start"]))  # type: ignore[arg-type]
    _, gradient = function(theta)  # type: ignore[operator]
    for i in range(len(theta)):
        step = np.zeros(len(theta))
        step[i] = 1e-5
        slope = (function(theta + step)[0] - function(theta - step)[0]) / 2e-5  # type: ignore[operator]
        assert gradient[i] == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_predictions_are_close_and_their_intervals_hold() -> None:
    _, featurizer, features, values = data(160)
    train, test = np.arange(100), np.arange(100, 160)
    seen = surrogate.Observations(features, values, np.zeros(160))
    predictor = surrogate.SurrogateFitter(featurizer)
    nothing = Features(features.embedding[:0], features.costs[:0])
    model = predictor(seen.take(train), nothing, warps=(np.inf,))
    found = model.at(seen.take(test).features)
    deviation = np.abs(found.mean - values[test])
    assert deviation.mean() < 0.35 * values.std()
    assert np.mean(deviation < 2.0 * np.hypot(found.std, 0.1)) > 0.85


def test_pending_points_lower_the_uncertainty_and_keep_the_mean() -> None:
    _, featurizer, features, values = data(40)
    seen = surrogate.Observations(features, values, np.zeros(40)).take(np.arange(30))
    later = Features(features.embedding[30:], features.costs[30:])
    nothing = Features(features.embedding[:0], features.costs[:0])
    predictor = surrogate.SurrogateFitter(featurizer)
    without, believed = predictor(seen, nothing).at(later), predictor(seen, later).at(later)
    np.testing.assert_allclose(believed.mean, without.mean, atol=1e-3)
    assert np.all(believed.std < without.std)


def test_a_skewed_objective_is_modelled_on_a_log_scale() -> None:
    _, featurizer, features, values = data(60)
    nothing = Features(features.embedding[:0], features.costs[:0])
    skewed = surrogate.Observations(features, np.exp(2.0 * values), np.zeros(60))
    plain = surrogate.Observations(features, values, np.zeros(60))
    predictor = surrogate.SurrogateFitter(featurizer)
    assert predictor(skewed, nothing).at(features).shift is not None
    assert predictor(plain, nothing, warps=(np.inf,)).at(features).shift is None


def test_the_lag_of_stopped_trials_is_estimated() -> None:
    """Half of the trials stopped early, all of them one unit too high: predictions are of the full budget."""
    _, featurizer, features, values = data(120)
    lags = np.where(np.arange(120) % 2 == 0, 1.0, 0.0)
    seen = surrogate.Observations(features, values + lags * values.std(), lags)
    nothing = Features(features.embedding[:0], features.costs[:0])
    found = surrogate.SurrogateFitter(featurizer)(seen, nothing, warps=(np.inf,)).at(features)
    assert abs(np.mean(found.mean - values)) < 0.25 * values.std()


def test_what_is_counted_over_alike_parameters_is_learned_from_few_observations() -> None:
    """A third of one level anywhere spoils it, as a third pooling does an image: 40 of 65,536 points are enough."""
    encoding = Encoding.of({f"layer{i}": CategoricalDistribution(["skip", "3x3", "5x5", "pool"]) for i in range(8)})
    featurizer = gp.Featurizer(encoding)
    correlations = []
    for seed in range(4):
        rows = candidates.random_rows(encoding, 240, np.random.default_rng(seed))
        counts = (rows[:, :, None] == np.arange(4)).sum(axis=1)
        values = 0.3 * counts[:, 0] + np.where(counts[:, 3] > 2, 2.0, 0.0)
        features = Features(featurizer(rows), np.zeros((240, 0)))
        seen, unseen = surrogate.Observations(features, values, np.zeros(240)), np.arange(40, 240)
        fitted = surrogate.SurrogateFitter(featurizer)(seen.take(np.arange(40)), features.take(np.arange(0)))
        correlations.append(spearmanr(fitted.at(features.take(unseen)).median, values[unseen]).statistic)
    assert np.mean(correlations) > 0.75  # parameter by parameter 0.58


def test_hyperparameters_are_fitted_at_counts_that_depend_on_the_count_alone() -> None:
    sizes = [surrogate.fit_size(count) for count in range(1, 1001)]
    assert all(size <= count for count, size in enumerate(sizes, start=1))
    assert sizes == sorted(sizes)
    assert len(set(sizes[40:])) < 25


@pytest.mark.parametrize("name", sorted(SPACE))
def test_values_survive_the_encoding(name: str) -> None:
    encoding = Encoding.of({name: SPACE[name]})
    for row in candidates.random_rows(encoding, 50, np.random.default_rng(0)):
        params = encoding.decode(row)
        again = encoding.encode(params)
        assert again is not None
        assert encoding.decode(again) == params
    assert encoding.encode({name: "not a value"}) is None
    assert encoding.encode({}) is None
