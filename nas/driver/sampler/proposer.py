"""One proposal: from the trials of a study to the next point. A function of its arguments, apart from caches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas import pareto
from nas.driver.sampler.acquisition import Acquisition, Problem, View
from nas.driver.sampler.candidates import Source
from nas.driver.sampler.encoding import Array
from nas.driver.sampler.history import EncodedTrial

STARTUP_TRIALS = 8
"""They are spread over the space before the model decides."""
POOL_SIZE = 512
"""Candidates that are drawn and priced for one proposal."""
_ROUNDS = 2  # of local search around the best candidates
_LEADERS = 6
_PARENTS = 10  # a smaller front takes in the next ranks


def propose(problem: Problem, trials: Sequence[EncodedTrial], rng: np.random.Generator) -> Array:
    """Return the row of the next point.

    Args:
        trials: All other trials, by number.

    Raises:
        SpaceExhaustedError: All points have been seen.
        NothingAllowedError: No allowed point can be found.
    """
    placed = [trial for trial in trials if trial.row is not None]
    observed = [trial for trial in placed if trial.values is not None]
    running = [trial for trial in placed if not trial.state.is_finished()]  # these may have values as well
    source = source_of(problem, trials, rng)
    pool = source.fresh(_parents(problem, placed), POOL_SIZE // 2)
    view = View(problem, placed, pool)
    started = {trial.number for trial in [*observed, *running]}
    if len(observed) < 2 or len(started) < STARTUP_TRIALS:
        return np.asarray(pool.rows[np.argmax(view.distance(pool) * view.success(pool))])
    score = Acquisition(problem, view, trials, observed, running, pool)
    scores = score.first
    for _ in range(_ROUNDS):
        leaders = pool.rows[np.argsort(-scores, kind="stable")[:_LEADERS]]
        more = source.near(leaders, POOL_SIZE // (2 * _ROUNDS))
        if len(more):
            pool, scores = pool.joined(more), np.concatenate([scores, score(more)])
    if np.isneginf(scores).all():  # every candidate is known to be dominated: look where nothing has been seen
        scores = view.distance(pool)
    return np.asarray(pool.rows[np.argmax(scores)])


def source_of(problem: Problem, trials: Sequence[EncodedTrial], rng: np.random.Generator) -> Source:
    """Make the source of candidates that none of the trials has."""
    seen = {trial.key for trial in trials if trial.key is not None}
    rows = [trial.row for trial in trials if trial.row is not None]
    return Source(problem.functions, seen, [*problem.allowed, *rows], rng)


def _parents(problem: Problem, placed: Sequence[EncodedTrial]) -> Array:
    """Return the rows of the best trials, shape (parents, parameters)."""
    good = [trial for trial in placed if trial.competes]
    rank = pareto.ranks(np.reshape([trial.values for trial in good], (len(good), len(problem.signs))))
    # The whole ranks that hold the first parents, or all.
    last = np.sort(rank)[:_PARENTS].max(initial=0)
    rows = [trial.row for trial, own in zip(good, rank, strict=True) if own <= last and trial.row is not None]
    return problem.encoding.stack(rows)
