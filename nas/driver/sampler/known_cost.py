"""The sampler of a search, some of whose objectives cost nothing to evaluate.

Of accuracy, parameters, MACs and latency of a network only the accuracy has to be trained for; the others are functions
of the parameters. A general sampler models all of them; this one models what is unknown and takes the rest as it is.

Method
------
1. The first trials are spread over the space and over the known costs (farthest point among random ones).
2. Each unknown objective gets a Gaussian process on all trials (:mod:`nas.driver.sampler.gp`), on the scale that the
   marginal likelihood chooses (:mod:`nas.driver.sampler.surrogate`). Stopped trials (PRUNED) are observations with a
   lag, from ``user_attrs["partial"] = {"epoch": int, "budget": int, "values": [...]}``; running ones count as if they
   had come out as predicted, so that parallel workers get different points; failed ones, and those that share the worst
   value far from all others (chance), are a region to keep away from. Guesses (``learn_from``) are a known quantity
   beside the costs (:mod:`nas.driver.sampler.guesses`).
3. Candidates are mutants and crossovers of the front and random draws, then mutants of the best of these. Known costs
   are exact, limits on them (``feasible``) are kept, and what the study has seen is never proposed again.
4. The candidate with the largest expected hypervolume improvement (closed form, :mod:`nas.driver.sampler.ehvi`) times
   the probability that it neither fails nor ends at chance is taken.

Assumptions
-----------
- The known functions are exact, deterministic, and cheap (called for some 500 new points per proposal).
- Unknown objectives are independent given the parameters: mostly main effects and low-order interactions. On a table
  without such structure it is random search that does not repeat itself.
- The noise of an objective is about the same everywhere; the front is that of the observed values, as in Optuna.
- Costs that are positive, span more than a factor of ten and are less skewed as logarithms are compared so.
- One process and one thread ask. Beyond some thousand trials evolutionary methods are cheaper: the model conditions on
  300 of them.

Sources: Emmerich et al. (2011) and Yang et al. (2019), expected hypervolume improvement; Duvenaud et al. (2011),
additive Gaussian processes; Snelson et al. (2004), warped Gaussian processes; Ginsbourger et al. (2010), kriging
believer; White et al. (2021), BANANAS, candidates by mutation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial
from threadpoolctl import ThreadpoolController

from nas import pareto
from nas.driver.sampler.acquisition import Acquisition, Problem, View, expected
from nas.driver.sampler.candidates import KnownFunctions, Source, SpaceExhaustedError
from nas.driver.sampler.encoding import Array, Encoding
from nas.driver.sampler.gp import Featurizer
from nas.driver.sampler.guesses import Guess, Guesses
from nas.driver.sampler.history import EncodedTrial, Identity, Params, encode_trial, signs_of
from nas.driver.sampler.surrogate import SurrogateFitter
from nas.driver.sampler.whole_space import WholeSpaceSampler

STARTUP_TRIALS = 8
"""They are spread over the space before the model decides."""
POOL_SIZE = 512
"""Candidates that are drawn and priced for one proposal."""
_ROUNDS = 2  # of local search around the best candidates
_LEADERS = 6
_PARENTS = 10  # a smaller front takes in the next ranks
_LEAST_EXPECTED = 4  # trials, to predict others


@functools.cache
def blas() -> ThreadpoolController:
    """Find the process's linear algebra libraries; that takes milliseconds, limiting them microseconds."""
    return ThreadpoolController()


class KnownCostSampler(WholeSpaceSampler):
    """Spends trials only where they can change the front, given that some objectives are known beforehand.

    A proposal is a function of the seed, the number of the trial and the study so far; nothing else is remembered. A
    study that was stopped between two trials and resumed goes on as it would have.

    Args:
        search_space: The parameters, all of them categorical.
        known: Objective index -> function of the parameter dict that returns exactly what the trial will report for
            that objective, in its own direction.
        seed: Of all random choices.
        feasible: Predicate of parameter dicts to try at all (limits on known costs); refused points are not modelled.
        allowed: Parameter dicts that ``feasible`` accepts. Where it refuses most of the space, the sampler walks from
            these and from trials instead of drawing until it meets one.
        identity: Value that parameter dicts of the same meaning share (the id of an architecture); by default the
            parameters themselves. Nothing of the same identity is proposed twice while anything unseen is left.
    """

    def __init__(
        self,
        *,
        search_space: Mapping[str, BaseDistribution],
        known: Mapping[int, Callable[[Params], float]] | None = None,
        seed: int = 0,
        feasible: Callable[[Params], bool] | None = None,
        allowed: Sequence[Params] = (),
        identity: Identity | None = None,
    ) -> None:
        super().__init__(search_space)
        self._known = dict(known or {})
        self._seed = seed
        self._feasible = feasible
        self._allowed = tuple(allowed)
        self._identity = identity
        self._guesses: tuple[Guess, ...] = ()
        self._problem: Problem | None = None
        self._encoded: dict[int, tuple[FrozenTrial, EncodedTrial]] = {}

    def learn_from(self, guesses: Sequence[Guess]) -> None:
        """Take guesses of an unknown objective, in the place of earlier ones, for the proposals to come.

        The trials that end show what they are worth; see :mod:`nas.driver.sampler.guesses`.
        """
        self._guesses, self._problem = tuple(guesses), None

    def expected(self, study: Study, points: Sequence[Params]) -> Array | None:
        """Predict the objectives at some points of the space from the study's trials and the guesses.

        Returns:
            In the study's directions, shape (points, objectives); None with fewer than four trials that have values.
        """
        problem = self._problem_of(study)
        trials = [trial for trial in self._read(study, problem) if trial.values is not None]
        if sum(trial.row is not None for trial in trials) < _LEAST_EXPECTED:
            return None
        rows = [row for params in points if (row := problem.encoding.encode(params)) is not None]
        with blas().limit(limits=1, user_api="blas"):
            return problem.signs * expected(problem, trials, problem.encoding.stack(rows))

    def is_spent(self, study: Study) -> bool:
        problem = self._problem_of(study)
        return _source(problem, self._read(study, problem), np.random.default_rng(0)).is_spent()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose the next point.

        Raises:
            ValueError: A known function returns what is not finite, or ``feasible`` leaves nothing.
        """
        if not search_space:
            return {}
        problem = self._problem_of(study)
        trials = self._read(study, problem, left_out=trial.number)
        rng = np.random.default_rng([self._seed, trial.number])
        # The matrices are small: with a second thread a proposal takes four times as long (83 against 19 ms per trial
        # over 1,000 trials of 29 parameters on two cores), and the cores belong to the trainings.
        with blas().limit(limits=1, user_api="blas"):
            try:
                row = _propose(problem, trials, rng)
            except SpaceExhaustedError:
                row = rng.choice([other.row for other in trials if other.row is not None])
        return problem.encoding.decode(row)

    def _problem_of(self, study: Study) -> Problem:
        signs = signs_of(study.directions)
        if self._problem is None or not np.array_equal(self._problem.signs, signs):
            encoding = Encoding.of(self.space)
            featurizer = Featurizer(encoding)
            self._encoded = {}
            self._problem = Problem(
                encoding=encoding,
                signs=signs,
                known=tuple(sorted(self._known)),
                functions=KnownFunctions(encoding, self._known, signs, self._feasible, self._identity),
                featurizer=featurizer,
                fit=SurrogateFitter(featurizer),
                guesses=Guesses(self._guesses, encoding, featurizer),
                allowed=tuple(row for params in self._allowed if (row := encoding.encode(params)) is not None),
            )
        return self._problem

    def _read(self, study: Study, problem: Problem, left_out: int | None = None) -> list[EncodedTrial]:
        found = []
        for trial in study.get_trials(deepcopy=False):
            if trial.number == left_out:
                continue
            cached, encoded = self._encoded.get(trial.number, (None, None))
            if encoded is None or cached is not trial:
                encoded = encode_trial(trial, problem.encoding, problem.signs, self._identity)
                if trial.state.is_finished():
                    self._encoded[trial.number] = trial, encoded
            found.append(encoded)
        return found


def _propose(problem: Problem, trials: Sequence[EncodedTrial], rng: np.random.Generator) -> Array:
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
    source = _source(problem, trials, rng)
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


def _source(problem: Problem, trials: Sequence[EncodedTrial], rng: np.random.Generator) -> Source:
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
