"""What a search can believe of its accuracies: each network's own, and which networks belong on the front.

An observed accuracy is one training on one draw of images. The front is chosen among many by such figures, so its best
are in part lucky. The sampler's model (:mod:`nas.driver.sampler.surrogate`) sees all trials at once: its posterior says
what a network's accuracy is without the noise of counting images, which is known, and of seeds, which it fits. Costs
are exact. So the front is drawn again and again, with accuracies from that posterior, and a network belongs on it in so
many per cent of the draws. That holds as far as the model does: ``benchmarks/calibration.py`` and
``tests/driver/test_belief.py`` compare it with a known truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from nas.architecture.space import Space
from nas.driver.objectives import Objective, trained_for
from nas.driver.record import Record
from nas.driver.sampler.encoding import Encoding
from nas.driver.sampler.gp import Features, Featurizer
from nas.driver.sampler.known_cost import blas
from nas.driver.sampler.surrogate import Observations, Surrogate, SurrogateFitter
from nas.driver.study import distributions
from nas.significance import wilson

Numbers = NDArray[np.float64]

DRAWS = 2_000
"""The probabilities' standard error is at most 1.1 points."""
OWN = 0.5
"""Share of the variance fitted as noise that is taken to be networks' own: what their parameters do not explain. With
none, fronts of few images were drawn too far towards the model; with all, they were too sure of many images."""
LEAST_OBSERVATIONS = 6
"""With fewer trials in the space there is no model; every accuracy then stands for itself."""


@dataclass(frozen=True)
class Belief:
    """Draws of the accuracies, without noise, of the networks trained to the end.

    Attributes:
        places: column of `draws` by trial number.
        draws: shape (draws, networks), in [0, 1] but for the tails of a normal distribution.
        belongs: by trial number, the probability that a network belongs on the front; of those that stand there.
    """

    places: dict[int, int]
    draws: Numbers
    belongs: dict[int, float]

    def of(self, record: Record) -> Numbers | None:
        """Return the draws of a network; None where it was not trained to the end."""
        place = self.places.get(record.number)
        return None if place is None else self.draws[:, place]

    def expected(self, record: Record) -> float | None:
        """Return the posterior mean of a network's accuracy."""
        own = self.of(record)
        return None if own is None else float(own.mean())

    def cells(self, record: Record, images: int | None) -> list[float | None]:
        """Return the interval of a network's accuracy, its posterior mean and its probability to belong on the front.

        The first two columns are about the accuracy of ``trials.csv``, as it was counted.
        """
        low, high = (None, None) if record.accuracy is None or not images else wilson(record.accuracy, images)
        known = (low, high, self.expected(record), self.belongs.get(record.number))
        return [None if value is None else round(value, 4) for value in known]

    def levels(self, records: Sequence[Record]) -> list[int]:
        """Group networks, the most accurate first, by what the search can tell apart; levels count from 1.

        One begins with the first network that is less accurate than the first of the level before with 97.5 %
        probability.
        """
        levels: list[int] = []
        first: Numbers | None = None
        for record in records:
            own = self.of(record)
            is_lower = first is not None and own is not None and float((first > own).mean()) >= 0.975
            levels.append(levels[-1] + is_lower if levels else 1)
            if first is None or is_lower:
                first = own
        return levels


def believe(
    records: Sequence[Record], space: Space, objectives: Sequence[Objective], images: int | None, seed: int = 0
) -> Belief:
    """Draw the accuracies of a run's networks.

    Args:
        records: all trials.
        space: what was searched.
        objectives: of the search.
        images: of the validation part, where that is known.
        seed: of the draws.
    """
    judged, rng = trained_for(objectives), np.random.default_rng(seed)
    ended = [record for record in records if record.ended]
    ended = [record for record in ended if record.value(judged) is not None]
    draws = np.empty((DRAWS, len(ended)))
    with blas().limit(limits=1, user_api="blas"):  # as for the sampler, whose matrices are as small
        model = _Model.of(records, space, objectives, images)
        for place, record in enumerate(ended):
            draws[:, place] = _alone(record, judged, images, model, rng)
        if model is not None:
            inside = [place for place, record in enumerate(ended) if record.params]
            features = model.features([ended[place] for place in inside])
            draws[:, inside] = -model.surrogate.sample(features, DRAWS, rng, OWN)
    places = {record.number: place for place, record in enumerate(ended)}
    return Belief(places, draws, _belonging(ended, draws, objectives))


def _belonging(ended: Sequence[Record], draws: Numbers, objectives: Sequence[Objective]) -> dict[int, float]:
    """The probability of each network of the front that none which costs no more is as accurate."""
    names = [objective.name for objective in objectives if objective.known]
    rivals = [place for place, record in enumerate(ended) if not record.beside]
    costs = np.array([[ended[place].costs[name] for name in names] for place in rivals])
    found = {}
    for row, place in enumerate(rivals):
        if ended[place].on_front:
            no_dearer = np.all(costs <= costs[row], axis=1)
            no_dearer[row] = False
            best = draws[:, np.array(rivals)[no_dearer]].max(axis=1, initial=-np.inf)
            found[ended[place].number] = float((draws[:, place] > best).mean())
    return found


def _alone(
    record: Record, judged: Objective, images: int | None, model: _Model | None, rng: np.random.Generator
) -> Numbers:
    """Draw the accuracy of a network outside the model: its trainings' mean, with the noise of the others."""
    values = accuracies(record, judged)
    mean = fmean(values)
    fitted = float(model.surrogate.noise_at(np.array([-mean]))[0]) if model is not None else 0.0
    deviation = math.sqrt(counting_variance(mean, images) + (1 - OWN) * fitted**2)
    return np.asarray(rng.normal(mean, deviation / math.sqrt(len(values)), DRAWS))


def counting_variance(accuracy: float, images: int | None) -> float:
    """Return the variance of an accuracy that was counted on so many images, by Agresti and Coull's estimate."""
    if not images:
        return 0.0
    share = (accuracy * images + 2) / (images + 4)
    return share * (1 - share) / (images + 4)


def accuracies(record: Record, judged: Objective) -> list[float]:
    """Return a network's accuracies in the search and, after as many epochs, in its confirmation."""
    again = record.confirmed.get("repeats", {}).get(str(len(record.curve)), {}) if judged.name == "accuracy" else {}
    return [value for value in (record.value(judged), *again.values()) if value is not None]


@dataclass(frozen=True)
class _Model:
    """The sampler's model of accuracy, which is minimised there, fitted to all trials of the space."""

    surrogate: Surrogate
    encoding: Encoding
    featurizer: Featurizer
    costs: tuple[str, ...]

    @classmethod
    def of(
        cls, records: Sequence[Record], space: Space, objectives: Sequence[Objective], images: int | None
    ) -> _Model | None:
        """Fit; None where too few networks of the space were trained."""
        judged = trained_for(objectives)
        budget = max((len(record.curve) for record in records), default=0)
        seen, values, lags = [], [], []
        for record in records:
            if record.params and record.twin is None and record.state in ("complete", "stopped"):
                lag = math.log2(budget / len(record.curve)) if record.state == "stopped" and record.curve else 0.0
                own = accuracies(record, judged)
                seen += [record] * len(own)
                values += own
                lags += [lag] * len(own)
        if len({record.number for record in seen}) < LEAST_OBSERVATIONS:
            return None
        encoding = Encoding.of(distributions(space))
        featurizer = Featurizer(encoding)
        costs = tuple(o.name for o in objectives if o.known and all(r.costs.get(o.name, 0) > 0 for r in seen))
        features = _features(seen, encoding, featurizer, costs)
        variances = np.array([counting_variance(value, images) for value in values])
        observed = Observations(features, -np.array(values), np.array(lags), variances)
        none = features.take(np.zeros(0, dtype=np.int64))
        return cls(SurrogateFitter(featurizer)(observed, none), encoding, featurizer, costs)

    def features(self, records: Sequence[Record]) -> Features:
        return _features(records, self.encoding, self.featurizer, self.costs)


def _features(records: Sequence[Record], encoding: Encoding, featurizer: Featurizer, costs: Sequence[str]) -> Features:
    rows = [row for record in records if (row := encoding.encode(dict(record.params))) is not None]
    logs = [[math.log(record.costs[name]) for name in costs] for record in records]
    return Features(featurizer(encoding.stack(rows)), np.reshape(logs, (len(records), len(costs))))
