"""Score of a candidate: expected hypervolume improvement times the probability that the trial counts at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from optuna.trial import TrialState
from scipy.special import ndtr

from nas import pareto
from nas.driver.sampler import ehvi
from nas.driver.sampler.candidates import KnownFunctions, Pool
from nas.driver.sampler.encoding import Array, Encoding, IntArray
from nas.driver.sampler.gp import Features, Featurizer, square_distance
from nas.driver.sampler.history import EncodedTrial
from nas.driver.sampler.surrogate import Observations, Posterior, Surrogate, SurrogateFitter

_MARGIN = 0.1  # the reference point lies so far beyond the nadir, as a share of ideal to nadir
_DECADE = 10.0  # costs that span more than this factor are compared on the log scale
_LABEL_STD = 0.1  # of a label beside its prediction
_LEAST_SUCCESS = 0.001  # a model that is sure of a failure may still be wrong


@dataclass(frozen=True)
class Problem:
    """One search space of one study, and how it is searched.

    Attributes:
        signs: 1 for a minimised objective, -1 for a maximised one.
        known: Indices of the known objectives, ascending.
        allowed: Rows that keep the limits.
        decided: Names of the constraints that are known beforehand.
        startup_trials: Trials that are spread over the space before the model decides.
        pool_size: Candidates that are drawn and priced for one proposal.
    """

    encoding: Encoding
    signs: Array
    known: tuple[int, ...]
    functions: KnownFunctions
    featurizer: Featurizer
    fit: SurrogateFitter
    allowed: tuple[Array, ...]
    decided: frozenset[str]
    startup_trials: int
    pool_size: int


class View:
    """The trials of one proposal on the scales of the model."""

    def __init__(self, problem: Problem, placed: Sequence[EncodedTrial], pool: Pool) -> None:
        """
        Args:
            placed: Records that have a row.
            pool: Some candidates, so that scales are known before there are trials.
        """
        self._problem = problem
        self._placed = placed
        rows = [r.row for r in placed if r.row is not None]
        self._rows = np.stack(rows) if rows else np.zeros((0, len(problem.encoding.axes)))
        costs = problem.functions.costs(self._rows)
        everything = np.concatenate([costs, pool.costs])
        lowest, highest = everything.min(axis=0), everything.max(axis=0)
        self._is_log = (lowest > 0.0) & (highest > _DECADE * lowest)
        self._floor = np.where(self._is_log, 1e-6 * lowest, -np.inf)
        std = self._scaled(everything).std(axis=0)
        self._width = np.where(std > 0.0, std, 1.0)
        self._features = Features(problem.featurizer(self._rows), self._scaled(costs))
        self._index = {record.number: i for i, record in enumerate(placed)}

    def distance(self, pool: Pool) -> Array:
        """To the nearest trial of any state, shape (points,); all costs together weigh as much as all parameters."""
        if len(self._rows) == 0:
            return np.ones(len(pool))
        own, other = self.features(pool), self._features
        square = square_distance(own.embedding, other.embedding) / max(2 * self._problem.featurizer.kernels, 1)
        if len(self._problem.known):
            square += square_distance(own.costs / self._width, other.costs / self._width) / len(self._problem.known)
        return np.asarray(np.sqrt(square.min(axis=1)))

    def success(self, pool: Pool) -> Array:
        """Probability that a trial does not fail, shape (points,); 1 while none has failed."""
        if self._failure is None:
            return np.ones(len(pool))
        label = self._failure.at(self.features(pool))
        probability = ndtr((0.5 - label.mean) / np.hypot(label.std, _LABEL_STD))
        return np.asarray(np.maximum(probability, _LEAST_SUCCESS))

    @cached_property
    def _failure(self) -> Surrogate | None:
        """Regression on labels, 1 for a failed trial: it learns which parameters or costs failures follow."""
        finished = [r for r in self._placed if r.state.is_finished()]
        labels = np.array([float(r.state == TrialState.FAIL) for r in finished])
        if not labels.any():
            return None
        seen = Observations(self.features_of(finished), labels, np.zeros(len(labels)))
        return self._problem.fit(seen, self.features_of([]), warps=(np.inf,))

    def features(self, pool: Pool) -> Features:
        return Features(self._problem.featurizer(pool.rows), self._scaled(pool.costs))

    def observations(self, observed: Sequence[EncodedTrial], objective: int) -> Observations:
        reached = [record.reached for record in observed if record.reached is not None]
        values = np.array([partial.values[objective] for partial in reached])
        return Observations(self.features_of(observed), values, np.array([partial.lag for partial in reached]))

    def constraint(self, observed: Sequence[EncodedTrial], name: str) -> Observations:
        having = [r for r in observed if np.isfinite(r.constraints.get(name, np.nan))]
        values = np.array([r.constraints[name] for r in having])
        return Observations(self.features_of(having), values, np.zeros(len(having)))

    def points(self, values: Array) -> Array:
        """Objective values on the scale of the acquisition: wide positive costs as logarithms."""
        points = values.copy()
        points[:, list(self._problem.known)] = self._scaled(values[:, list(self._problem.known)])
        return np.asarray(points)

    def _scaled(self, costs: Array) -> Array:
        scaled = costs.copy()
        scaled[:, self._is_log] = np.log(np.maximum(costs, self._floor)[:, self._is_log])
        return scaled

    def features_of(self, records: Sequence[EncodedTrial]) -> Features:
        """Features of trials."""
        index: IntArray = np.array([self._index[r.number] for r in records], dtype=np.int64)
        return self._features.take(index)


class Acquisition:
    """Called with a pool, returns the logarithm of each candidate's score, shape (points,); -inf for no gain at all.

    Attributes:
        first: The scores of the pool that it was made with.
    """

    def __init__(
        self,
        problem: Problem,
        view: View,
        records: Sequence[EncodedTrial],
        observed: Sequence[EncodedTrial],
        running: Sequence[EncodedTrial],
        pool: Pool,
    ) -> None:
        """
        Args:
            records: All of them, those without a row as well: they may stand on the front.
            observed: Those with values that the model learns from.
            running: Their values are taken to be the predicted ones.
            pool: Candidates that show how far the front may reach.
        """
        self._problem = problem
        self._view = view
        pending = view.features_of(running)
        data = {d: view.observations(observed, d) for d in range(len(problem.signs)) if d not in problem.known}
        self._models = {d: problem.fit(seen, pending) for d, seen in data.items()}
        self._limits = {d: _reach(seen) for d, seen in data.items()}
        complete = [r.values for r in records if r.values is not None and r.is_feasible]
        points = view.points(np.stack(complete)) if complete else np.zeros((0, len(problem.signs)))
        if len(pending):
            points = np.concatenate([points, self._predicted(pending, self._at(pending))])
        front = points[pareto.front_mask(points)]
        features = view.features(pool)
        distributions = self._at(features)
        self._boxes = ehvi.open_boxes(front, _reference(front, self._predicted(features, distributions)))
        self._constraints = self._constraint_models(observed, pending)
        self.first = self._scores(pool, features, distributions)

    def __call__(self, pool: Pool) -> Array:
        features = self._view.features(pool)
        return self._scores(pool, features, self._at(features))

    def _at(self, features: Features) -> dict[int, Posterior]:
        return {d: model.at(features) for d, model in self._models.items()}

    def _scores(self, pool: Pool, features: Features, distributions: Mapping[int, Posterior]) -> Array:
        objectives = [
            distributions[d].shortfall
            if d in distributions
            else ehvi.known(features.costs[:, self._problem.known.index(d)])
            for d in range(len(self._problem.signs))
        ]
        score = ehvi.log_expected_improvement(self._boxes, objectives) + np.log(self._view.success(pool))
        for model in self._constraints:
            score += model.at(features).log_probability_of_holding
        return np.asarray(score)

    def _predicted(self, features: Features, distributions: Mapping[int, Posterior]) -> Array:
        """Medians of the unknown objectives beside the known ones, shape (points, objectives)."""
        points = np.empty((len(features), len(self._problem.signs)))
        for column, d in enumerate(self._problem.known):
            points[:, d] = features.costs[:, column]
        for d, distribution in distributions.items():
            # Far from all data a log scale may predict the absurd, which must not move the reference point.
            points[:, d] = np.clip(distribution.median, *self._limits[d])
        return points

    def _constraint_models(self, observed: Sequence[EncodedTrial], pending: Features) -> list[Surrogate]:
        names = sorted({name for record in observed for name in record.constraints} - self._problem.decided)
        data = [self._view.constraint(observed, name) for name in names]
        return [self._problem.fit(seen, pending, warps=(np.inf,)) for seen in data if len(seen)]


def _reach(seen: Observations) -> tuple[float, float]:
    low, high = float(seen.values.min()), float(seen.values.max())
    return low - (high - low), high + (high - low)


def _reference(front: Array, predicted: Array) -> Array:
    """Beyond the nadir of the front, seen and predicted: an end of the front still to be found has a gain too."""
    both = np.concatenate([front, predicted])
    both = both[pareto.front_mask(both)]
    ideal, nadir = both.min(axis=0), both.max(axis=0)
    span = np.where(nadir > ideal, nadir - ideal, np.maximum(np.abs(nadir), 1e-12))
    return np.asarray(nadir + _MARGIN * span)
