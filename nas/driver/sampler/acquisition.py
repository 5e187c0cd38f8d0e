"""Score of a candidate: expected hypervolume improvement times the probability that the trial counts at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState
from scipy.special import ndtr

from nas import pareto
from nas.driver.sampler import ehvi
from nas.driver.sampler.candidates import KnownFunctions, Pool
from nas.driver.sampler.encoding import Array, Encoding
from nas.driver.sampler.gp import Features, Featurizer, square_distance
from nas.driver.sampler.guesses import Guesses
from nas.driver.sampler.history import EncodedTrial
from nas.driver.sampler.surrogate import Observations, Posterior, Surrogate, SurrogateFitter

_MARGIN = 0.1  # the reference point lies so far beyond the nadir, as a share of ideal to nadir
_DECADE = 10.0  # costs that span more than this factor are compared on the log scale
_LABEL_STD = 0.1  # of a label beside its prediction
_PLATEAU, _GAP = 0.01, 0.05  # width of a plateau and distance to the next value, as shares of the range of values
_LEAST_OTHERS = 4  # values that are not on it
_LEAST_SUCCESS = 0.001  # a model that is sure of a failure may still be wrong


@dataclass(frozen=True)
class Problem:
    """One search space of one study, and how it is searched.

    Attributes:
        signs: 1 for a minimised objective, -1 for a maximised one.
        known: Indices of the known objectives, ascending.
        allowed: Rows that keep the limits.
    """

    encoding: Encoding
    signs: Array
    known: tuple[int, ...]
    functions: KnownFunctions
    featurizer: Featurizer
    fit: SurrogateFitter
    guesses: Guesses
    allowed: tuple[Array, ...]

    @property
    def unknown(self) -> list[int]:
        """Indices of the objectives to be modelled."""
        return [d for d in range(len(self.signs)) if d not in self.known]


class View:
    """The trials of one proposal on the scales of the model."""

    def __init__(self, problem: Problem, placed: Sequence[EncodedTrial], pool: Pool) -> None:
        """
        Args:
            placed: Trials that have a row.
            pool: Some candidates, so that scales are known before there are trials.
        """
        self._problem = problem
        self._placed = placed
        rows = problem.encoding.stack([trial.row for trial in placed if trial.row is not None])
        costs = problem.functions.costs(rows)
        everything = np.concatenate([costs, pool.costs])
        self._is_log = _evener_as_logs(everything)
        self._floor = np.where(self._is_log, 1e-6 * everything.min(axis=0), -np.inf)
        std = self._scaled(everything).std(axis=0)
        self._width = np.where(std > 0.0, std, 1.0)
        self._features = self._features_at(rows, costs)
        self._index = {trial.number: i for i, trial in enumerate(placed)}
        self._collapsed = self._find_collapsed()

    def distance(self, pool: Pool) -> Array:
        """Compute distances to the nearest trial of any state, shape (points,).

        All costs together weigh as much as all parameters.
        """
        own, other = self.features(pool), self._features
        if len(other) == 0:
            return np.ones(len(pool))
        square = square_distance(own.embedding, other.embedding) / max(2 * self._problem.featurizer.kernels, 1)
        if known := len(self._problem.known):
            ours, theirs = (each.costs[:, :known] / self._width for each in (own, other))
            square += square_distance(ours, theirs) / known
        return np.asarray(np.sqrt(square.min(axis=1)))

    def success(self, pool: Pool) -> Array:
        """Compute the probability that a trial neither fails nor collapses, shape (points,); 1 while none has."""
        if self._failure is None:
            return np.ones(len(pool))
        label = self._failure.at(self.features(pool))
        probability = ndtr((0.5 - label.mean) / np.hypot(label.std, _LABEL_STD))
        return np.asarray(np.maximum(probability, _LEAST_SUCCESS))

    def is_collapsed(self, trial: EncodedTrial) -> bool:
        """Tell whether a trial ended on the worst plateau of an objective."""
        return trial.number in self._collapsed

    def _find_collapsed(self) -> frozenset[int]:
        # Values of stopped trials are not final: after one epoch many stand at chance.
        ended = [trial for trial in self._placed if trial.state == TrialState.COMPLETE and trial.values is not None]
        if not ended:
            return frozenset()
        values = np.array([trial.values for trial in ended])
        marks = [collapsed(values[:, d]) for d in self._problem.unknown]
        return frozenset(trial.number for trial, *own in zip(ended, *marks, strict=True) if any(own))

    @cached_property
    def _failure(self) -> Surrogate | None:
        """Regression on labels, 1 for a failed or collapsed trial: it learns which parameters or costs these follow."""
        finished = [trial for trial in self._placed if trial.state.is_finished()]
        labels = np.array([float(trial.state == TrialState.FAIL or self.is_collapsed(trial)) for trial in finished])
        if not labels.any():
            return None
        return self._problem.fit(self.observations(finished, labels), self.features_of([]), warps=(np.inf,))

    def features(self, pool: Pool) -> Features:
        """Return the features of candidates: of the costs' columns the first are the known objectives."""
        return self._features_at(pool.rows, pool.costs)

    def _features_at(self, rows: Array, costs: Array) -> Features:
        known = np.concatenate([self._scaled(costs), self._problem.guesses(rows)], axis=1)
        return Features(self._problem.featurizer(rows), known)

    def features_of(self, trials: Sequence[EncodedTrial]) -> Features:
        """Return the features of trials."""
        return self._features.take(np.array([self._index[trial.number] for trial in trials], dtype=np.int64))

    def observations(self, trials: Sequence[EncodedTrial], values: Array, *, final: bool = True) -> Observations:
        """Return trials with one value each, either final or as good as the trial's lag says."""
        lags = np.zeros(len(values)) if final else np.array([trial.lag for trial in trials])
        return Observations(self.features_of(trials), values, lags)

    def points(self, values: Array) -> Array:
        """Return objective values on the scale of the acquisition: wide positive costs as logarithms."""
        known = list(self._problem.known)
        points = values.copy()
        points[:, known] = self._scaled(values[:, known])
        return points

    def _scaled(self, costs: Array) -> Array:
        scaled = costs.copy()
        scaled[:, self._is_log] = np.log(np.maximum(costs, self._floor)[:, self._is_log])
        return scaled


def _evener_as_logs(costs: Array) -> NDArray[np.bool_]:
    """Tell which costs to compare as logarithms: wide positive ones that are less skewed so, shape (objectives,).

    Width alone would not do. A cost that is a logarithm already, and is near 0 for the smallest network, spans any
    factor: its logarithm would make nearly all of the hypervolume lie below that network.

    Args:
        costs: Shape (points, objectives).
    """
    lowest, highest = costs.min(axis=0), costs.max(axis=0)
    is_log = (lowest > 0.0) & (highest > _DECADE * lowest)
    wide = costs[:, is_log]
    is_log[is_log] = _skewness(np.log(wide)) < _skewness(wide)
    return is_log


def _skewness(values: Array) -> Array:
    """Compute the third standardised moment of each column, without its sign."""
    deviations = (values - values.mean(axis=0)) / values.std(axis=0)
    return np.asarray(np.abs((deviations**3).mean(axis=0)))


def collapsed(values: Array) -> NDArray[np.bool_]:
    """Tell which trials collapsed, shape (trials,): they share the worst value of an objective, far from all others.

    A network that no signal passes, or whose training diverged, ends at chance whatever its other parameters are. Its
    error is a step and no point of the smooth function that holds elsewhere, so it is learned as a failure is, by its
    probability. Modelled as a value it widens the predictions around it, and where the smallest networks collapse,
    known costs make those the candidates of the largest expected gain.

    Args:
        values: Of one unknown objective, minimised, shape (trials,).
    """
    below = values.max() - values
    span = below.max()
    worst = below <= _PLATEAU * span
    others = below[~worst]
    is_plateau = worst.sum() > 1 and len(others) >= _LEAST_OTHERS and others.min() > _GAP * span
    return worst & is_plateau


class Models:
    """The models of the unknown objectives, and what they predict."""

    def __init__(self, problem: Problem, view: View, observed: Sequence[EncodedTrial], pending: Features) -> None:
        """
        Args:
            observed: Trials that have a row and values; collapsed ones are not learned from.
            pending: Of running trials, which end as predicted.
        """
        self._problem = problem
        trials = [trial for trial in observed if not view.is_collapsed(trial)]
        self._reached = np.array([trial.values for trial in trials])
        self._surrogates = {
            d: problem.fit(view.observations(trials, self._reached[:, d], final=False), pending)
            for d in problem.unknown
        }

    def at(self, features: Features) -> dict[int, Posterior]:
        """Predict the unknown objectives at some points."""
        return {d: surrogate.at(features) for d, surrogate in self._surrogates.items()}

    def medians(self, posteriors: Mapping[int, Posterior], known: Array) -> Array:
        """Return the medians of the unknown objectives beside the known ones, shape (points, objectives).

        They are clipped to the range of what was reached and as much again: far from all data a log scale may predict
        the absurd, which must not move a reference point.
        """
        points = np.empty((len(known), len(self._problem.signs)))
        points[:, list(self._problem.known)] = known
        low, high = self._reached.min(axis=0), self._reached.max(axis=0)
        for d, posterior in posteriors.items():
            points[:, d] = np.clip(posterior.median, low[d] - (high[d] - low[d]), high[d] + (high[d] - low[d]))
        return points


def expected(problem: Problem, trials: Sequence[EncodedTrial], rows: Array) -> Array:
    """Predict the objectives at some points from the trials: medians where they are unknown, minimised.

    Args:
        trials: All of them; of those with a row and values at least two.

    Returns:
        Shape (points, objectives).
    """
    placed = [trial for trial in trials if trial.row is not None]
    pool = Pool(rows, problem.functions.costs(rows))
    view = View(problem, placed, pool)
    models = Models(problem, view, [trial for trial in placed if trial.values is not None], view.features_of([]))
    return models.medians(models.at(view.features(pool)), pool.costs)


class Acquisition:
    """Called with a pool, returns the logarithm of each candidate's score, shape (points,); -inf for no gain at all.

    Attributes:
        first: The scores of the pool that it was made with.
    """

    def __init__(
        self,
        problem: Problem,
        view: View,
        trials: Sequence[EncodedTrial],
        observed: Sequence[EncodedTrial],
        running: Sequence[EncodedTrial],
        pool: Pool,
    ) -> None:
        """
        Args:
            trials: All of them, those without a row as well: they may stand on the front.
            observed: Those with values that the model learns from.
            running: Their values are taken to be the predicted ones.
            pool: Candidates that show how far the front may reach.
        """
        self._problem = problem
        self._view = view
        pending = view.features_of(running)
        self._models = Models(problem, view, observed, pending)
        competing = (trial for trial in trials if trial.competes and not view.is_collapsed(trial))
        results = [trial.values for trial in competing if trial.values is not None]
        points = view.points(np.reshape(results, (len(results), len(problem.signs))))
        if len(pending):
            points = np.concatenate([points, self._predicted(pending, self._models.at(pending))])
        front = points[pareto.front_mask(points)]
        features = view.features(pool)
        posteriors = self._models.at(features)
        self._boxes = ehvi.open_boxes(front, _reference(front, self._predicted(features, posteriors)))
        self.first = self._scores(pool, features, posteriors)

    def __call__(self, pool: Pool) -> Array:
        features = self._view.features(pool)
        return self._scores(pool, features, self._models.at(features))

    def _scores(self, pool: Pool, features: Features, posteriors: Mapping[int, Posterior]) -> Array:
        shortfalls = {d: posterior.shortfall for d, posterior in posteriors.items()}
        for column, d in enumerate(self._problem.known):
            shortfalls[d] = ehvi.known(features.costs[:, column])
        in_order = [shortfalls[d] for d in range(len(shortfalls))]
        return ehvi.log_expected_improvement(self._boxes, in_order) + np.log(self._view.success(pool))

    def _predicted(self, features: Features, posteriors: Mapping[int, Posterior]) -> Array:
        return self._models.medians(posteriors, features.costs[:, : len(self._problem.known)])


def _reference(front: Array, predicted: Array) -> Array:
    """Return a point beyond the nadir of the front, seen and predicted: an end still to be found has a gain too."""
    both = np.concatenate([front, predicted])
    both = both[pareto.front_mask(both)]
    ideal, nadir = both.min(axis=0), both.max(axis=0)
    span = np.where(nadir > ideal, nadir - ideal, np.maximum(np.abs(nadir), 1e-12))
    return np.asarray(nadir + _MARGIN * span)
