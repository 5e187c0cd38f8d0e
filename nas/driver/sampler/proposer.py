"""One proposal: from the records of a study to the next point. A function of its arguments, apart from caches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from nas import pareto
from nas.driver.sampler.acquisition import Acquisition, Setting, View
from nas.driver.sampler.encoding import Array, Encoding
from nas.driver.sampler.gp import Featurizer
from nas.driver.sampler.history import EncodedTrial, Identity, Params
from nas.driver.sampler.pool import KnownFunctions, Source
from nas.driver.sampler.surrogate import SurrogateFitter

_ROUNDS = 2  # of local search around the best candidates
_LEADERS = 6
_PARENTS = 10  # a smaller front takes in the next ranks


class Proposer:
    """For one search space of one study.

    Args:
        known: Objective index -> function of the parameters, in the study's direction.
        signs: 1 for a minimised objective, -1 for a maximised one.
        allowed: Points that keep ``feasible``.
        startup_trials: So many trials are spread over the space before the model decides.
        pool_size: How many candidates are drawn and priced for one proposal.
    """

    def __init__(
        self,
        *,
        encoding: Encoding,
        known: Mapping[int, Callable[[Params], float]],
        signs: Array,
        feasible: Callable[[Params], bool] | None,
        identity: Identity | None,
        allowed: Sequence[Params],
        decided: Collection[str],
        startup_trials: int,
        pool_size: int,
    ) -> None:
        featurizer = Featurizer(encoding)
        self._setting = Setting(
            encoding=encoding,
            signs=signs,
            known=tuple(sorted(known)),
            functions=KnownFunctions(encoding, known, signs, feasible, identity),
            featurizer=featurizer,
            predictor=SurrogateFitter(featurizer.group),
            decided=frozenset(decided),
        )
        self._allowed = [row for params in allowed if (row := encoding.encode(params)) is not None]
        self._startup_trials = startup_trials
        self._pool_size = pool_size

    def propose(self, records: Sequence[EncodedTrial], rng: np.random.Generator) -> Array:
        """The row of the next point.

        Args:
            records: Of all other trials, by number.

        Raises:
            SpaceExhaustedError: All points have been seen.
            NothingAllowedError: No allowed point can be found.
        """
        setting = self._setting
        placed = [record for record in records if record.row is not None]
        observed = [record for record in placed if record.reached is not None]
        running = [record for record in placed if not record.state.is_finished()]  # these may have values as well
        source = self._source(records, rng)
        pool = source.fresh(self._parents(placed), self._pool_size // 2)
        view = View(setting, placed, pool)
        started = {record.number for record in [*observed, *running]}
        if len(observed) < 2 or len(started) < self._startup_trials:
            return np.asarray(pool.rows[int(np.argmax(view.distance(pool) * view.success(pool)))])
        score = Acquisition(setting, view, records, observed, running, pool)
        scores = score.first
        for _ in range(_ROUNDS):
            leaders = pool.rows[np.argsort(-scores, kind="stable")[:_LEADERS]]
            more = source.near(leaders, self._pool_size // (2 * _ROUNDS))
            if len(more):
                pool, scores = pool.joined(more), np.concatenate([scores, score(more)])
        if np.isneginf(scores).all():  # every candidate is known to be dominated: look where nothing has been seen
            scores = view.distance(pool)
        return np.asarray(pool.rows[int(np.argmax(scores))])

    def _source(self, records: Sequence[EncodedTrial], rng: np.random.Generator) -> Source:
        seen = {record.key for record in records if record.key is not None}
        known = [*self._allowed, *(record.row for record in records if record.row is not None)]
        return Source(self._setting.encoding, self._setting.functions, seen, rng, known)

    def is_spent(self, records: Sequence[EncodedTrial]) -> bool:
        """Whether no allowed point is left that has not been seen."""
        return self._source(records, np.random.default_rng(0)).is_spent()

    def _parents(self, placed: Sequence[EncodedTrial]) -> Array:
        """Rows of the best trials, shape (parents, parameters)."""
        good = [(r.row, r.values) for r in placed if r.row is not None and r.values is not None and r.is_feasible]
        if not good:
            return np.zeros((0, len(self._setting.encoding.axes)))
        rank = pareto.ranks(np.stack([values for _, values in good]))
        last = next((level for level in range(int(rank.max())) if (rank <= level).sum() >= _PARENTS), rank.max())
        return np.stack([row for (row, _), level in zip(good, rank, strict=True) if level <= last])
