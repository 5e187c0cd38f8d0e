"""An Optuna sampler for studies some of whose objectives cost nothing to evaluate.

Of accuracy, parameters, MACs and latency of a network only the accuracy has to be trained for; the others are functions
of the parameters. A general sampler models all of them; this one models what is unknown and takes the rest as it is.

Method
------
1. The first ``startup_trials`` are spread over the space and over the known costs (farthest point among random ones).
2. Each unknown objective gets a Gaussian process on all trials (:mod:`nas.driver.sampler.gp`), on the scale that the
   marginal likelihood chooses (:mod:`nas.driver.sampler.surrogate`). Stopped trials (PRUNED) are observations with a
   lag, from ``user_attrs["partial"] = {"epoch": int, "budget": int, "values": [...]}`` or from what they reported;
   running ones count as if they had come out as predicted, so that parallel workers get different points; failed ones,
   and those that share the worst value far from all others (chance), are a region to keep away from. Guesses
   (``learn_from``) are a known quantity beside the costs (:mod:`nas.driver.sampler.guesses`).
3. Candidates are mutants and crossovers of the front and random draws, then mutants of the best of these. Known costs
   are exact, limits on them (``feasible``) are kept, and what the study has seen is never proposed again.
4. The candidate with the largest expected hypervolume improvement (closed form, :mod:`nas.driver.sampler.ehvi`) times
   the probability that its constraints hold and that it neither fails nor ends at chance is taken.

Assumptions
-----------
- The known functions are exact, deterministic, and cheap (called for about ``pool_size`` new points per proposal).
- Unknown objectives are independent given the parameters: mostly main effects and low-order interactions. On a table
  without such structure it is random search that does not repeat itself.
- The noise of an objective is about the same everywhere; the front is that of the observed values, as in Optuna.
- Costs that are positive, span more than a factor of ten and are less skewed as logarithms are compared so.
- One process and one thread ask; parameters that not all trials have are drawn at random, and the model does not see
  them. Beyond some thousand trials evolutionary methods are cheaper: the model conditions on 300 of them.

Sources: Emmerich et al. (2011) and Yang et al. (2019), expected hypervolume improvement; Duvenaud et al. (2011),
additive Gaussian processes; Snelson et al. (2004), warped Gaussian processes; Ginsbourger et al. (2010), kriging
believer; Gardner et al. (2014), constraints; White et al. (2021), BANANAS, candidates by mutation.
"""

from __future__ import annotations

import functools
import warnings
import zlib
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.samplers._base import _process_constraints_after_trial
from optuna.search_space import IntersectionSearchSpace
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import ThreadpoolController

from nas.driver.sampler.acquisition import Problem, expected
from nas.driver.sampler.candidates import KnownFunctions, SpaceExhaustedError, random_rows
from nas.driver.sampler.encoding import Array, Encoding, make_axis
from nas.driver.sampler.gp import Featurizer
from nas.driver.sampler.guesses import Guess, Guesses
from nas.driver.sampler.history import EncodedTrial, Params, encode_trial, signs_of
from nas.driver.sampler.proposer import propose, source_of
from nas.driver.sampler.surrogate import SurrogateFitter

MAX_OBJECTIVES = 4
_LEAST_POOL = 16
_LEAST_EXPECTED = 4  # trials, to predict others


@functools.cache
def blas() -> ThreadpoolController:
    """Find the process's linear algebra libraries; that takes milliseconds, limiting them microseconds."""
    return ThreadpoolController()


class KnownCostSampler(BaseSampler):
    """Spends trials only where they can change the front, given that some objectives are known beforehand.

    A proposal is a function of the seed, the number of the trial and the study so far; nothing else is remembered. A
    study that was stopped between two trials and resumed goes on as it would have.

    Example::

        sampler = KnownCostSampler(known={1: count_params, 2: count_macs})
        study = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=sampler)

    Args:
        known: Objective index -> function of the parameter dict (external representation) that returns exactly what
            the trial will report for that objective, in its own direction. Any number of them, none included.
        search_space: The parameters and their distributions. By default those that all trials so far have in common
            (:class:`optuna.search_space.IntersectionSearchSpace`), so that the first trial is drawn at random.
        seed: Of all random choices; None draws one.
        constraints_func: As for Optuna's samplers: a function of the finished trial that returns values which are at
            or below zero when the trial is feasible. Constraints set by ``trial.set_constraint`` are used as well.
        feasible: Predicate of parameter dicts to try at all (limits on known costs); refused points are not modelled.
        allowed: Parameter dicts that ``feasible`` accepts. Where it refuses most of the space, the sampler walks from
            these and from trials instead of drawing until it meets one.
        decided: Names of the trials' constraints that ``feasible`` decides: facts, which need no model.
        identity: Value that parameter dicts of the same meaning share (the id of an architecture); by default the
            parameters themselves. Nothing of the same identity is proposed twice while anything unseen is left.
        startup_trials: Number of trials that are spread over the space before the model decides.
        pool_size: Number of candidates drawn for one proposal; the functions above are called for each new one.

    Raises:
        TypeError, ValueError: An argument is not of its kind; the message names it.
    """

    def __init__(
        self,
        *,
        known: Mapping[int, Callable[[Params], float]] | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
        seed: int | None = 0,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        feasible: Callable[[Params], bool] | None = None,
        allowed: Sequence[Params] = (),
        decided: Collection[str] = (),
        identity: Callable[[Params], Hashable] | None = None,
        startup_trials: int = 8,
        pool_size: int = 512,
    ) -> None:
        _check(known or {}, search_space or {}, seed)
        functions = {"constraints_func": constraints_func, "feasible": feasible, "identity": identity}
        for name, function in functions.items():
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be a function or None, got {function!r}")
        if startup_trials < 2:
            raise ValueError(f"startup_trials must be at least 2, got {startup_trials}")
        if pool_size < _LEAST_POOL:
            raise ValueError(f"pool_size must be at least {_LEAST_POOL}, got {pool_size}")
        self._known = dict(known or {})
        self._given_space = None if search_space is None else dict(search_space)
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
        self._constraints_func = constraints_func
        self._feasible = feasible
        self._allowed = tuple(allowed)
        self._decided = frozenset(decided)
        self._identity = identity
        self._startup_trials = startup_trials
        self._pool_size = pool_size
        self._guesses: tuple[Guess, ...] = ()
        self._has_warned = False
        self._is_exhausted = False
        self._study: tuple[BaseStorage, int] | None = None
        self._forget()

    def _forget(self) -> None:
        """Drop the caches. Proposals do not depend on them."""
        self._intersection = IntersectionSearchSpace(include_pruned=True)
        self._space: dict[str, Any] = {}
        self._problem: Problem | None = None
        self._encoded: dict[int, tuple[FrozenTrial, EncodedTrial]] = {}
        # ``study.ask()`` without distributions proposes; the storage gets a parameter when it is suggested.
        self._proposed: dict[int, Params] = {}

    def _attend(self, study: Study) -> None:
        """Drop the caches where the study is another one than before."""
        if self._study != (study._storage, study._study_id):
            self._study = study._storage, study._study_id
            self._forget()

    @property
    def is_exhausted(self) -> bool:
        """True where the last proposal was a repeat, because every allowed point has been seen."""
        return self._is_exhausted

    def learn_from(self, guesses: Sequence[Guess]) -> None:
        """Take guesses of an unknown objective, in the place of earlier ones, for the proposals to come.

        The trials that end show what they are worth; see :mod:`nas.driver.sampler.guesses`.
        """
        self._guesses, self._problem = tuple(guesses), None

    def expected(self, study: Study, points: Sequence[Params]) -> Array | None:
        """Predict the objectives at some points from the study's trials and the guesses.

        Returns:
            In the study's directions, shape (points, objectives); None with fewer than four trials that have values,
            or without a ``search_space``, of which all points must be.
        """
        if self._given_space is None:
            return None
        self._attend(study)
        problem = self._problem_of(study, self._given_space)
        trials = [trial for trial in self._read(study, None, problem) if trial.values is not None]
        if sum(trial.row is not None for trial in trials) < _LEAST_EXPECTED:
            return None
        rows = [row for params in points if (row := problem.encoding.encode(params)) is not None]
        with blas().limit(limits=1, user_api="blas"):
            return problem.signs * expected(problem, trials, problem.encoding.stack(rows))

    def is_spent(self, study: Study) -> bool:
        """Tell whether every allowed point has been seen: the next proposal would be a repeat.

        Needs a ``search_space``; without one that is not known, and False.
        """
        if self._given_space is None:
            return False
        self._attend(study)
        problem = self._problem_of(study, self._given_space)
        return source_of(problem, self._read(study, None, problem), np.random.default_rng(0)).is_spent()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self._attend(study)
        space = self._intersection.calculate(study) if self._given_space is None else dict(self._given_space)
        # An enqueued trial that is complete needs no proposal; Optuna takes its values whatever is proposed.
        return {} if space.keys() <= trial.system_attrs.get("fixed_params", {}).keys() else space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose the next point.

        Raises:
            ValueError: The study has more than four objectives, ``known`` names one that it does not have or returns
                what is not finite, or ``feasible`` leaves nothing.
        """
        count = len(study.directions)
        if count > MAX_OBJECTIVES:
            raise ValueError(f"KnownCostSampler handles 1 to {MAX_OBJECTIVES} objectives, the study has {count}")
        for objective in self._known:
            if objective >= count:
                raise ValueError(f"known[{objective}] names an objective that the study does not have: it has {count}")
        if not search_space:
            return {}
        self._attend(study)
        problem = self._problem_of(study, search_space)
        trials = self._read(study, trial.number, problem)
        rng = np.random.default_rng([self._seed, trial.number])
        # The matrices are small: with a second thread a proposal takes four times as long (83 against 19 ms per trial
        # over 1,000 trials of 29 parameters on two cores), and the cores belong to the trainings.
        with blas().limit(limits=1, user_api="blas"):
            try:
                row = propose(problem, trials, rng)
                self._is_exhausted = False
            except SpaceExhaustedError:
                self._warn_exhausted(problem.encoding)
                row = rng.choice([other.row for other in trials if other.row is not None])
        self._proposed[trial.number] = problem.encoding.decode(row)
        return self._proposed[trial.number]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw uniformly, for what is not in the common search space."""
        rng = np.random.default_rng([self._seed, trial.number, zlib.crc32(param_name.encode())])
        encoding = Encoding((make_axis(param_name, param_distribution),))
        return encoding.decode(random_rows(encoding, 1, rng)[0])[param_name]

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._proposed.pop(trial.number, None)
        if self._constraints_func is not None:
            _process_constraints_after_trial(self._constraints_func, study, trial, state)

    def _warn_exhausted(self, encoding: Encoding) -> None:
        self._is_exhausted = True
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"KnownCostSampler: every allowed point of the space (of {encoding.size:.0f} in all) has been seen; "
                "further trials repeat one at random",
                stacklevel=2,
            )

    def _problem_of(self, study: Study, space: Mapping[str, BaseDistribution]) -> Problem:
        # ``==`` of some dozen categorical distributions takes milliseconds.
        own = {name: (type(distribution), vars(distribution)) for name, distribution in space.items()}
        if self._problem is None or self._space != own:
            encoding, signs = Encoding.of(space), signs_of(study.directions)
            featurizer = Featurizer(encoding)
            self._space, self._encoded = own, {}
            self._problem = Problem(
                encoding=encoding,
                signs=signs,
                known=tuple(sorted(self._known)),
                functions=KnownFunctions(encoding, self._known, signs, self._feasible, self._identity),
                featurizer=featurizer,
                fit=SurrogateFitter(featurizer),
                guesses=Guesses(self._guesses, encoding, featurizer),
                allowed=tuple(row for params in self._allowed if (row := encoding.encode(params)) is not None),
                decided=self._decided,
                startup_trials=self._startup_trials,
                pool_size=self._pool_size,
            )
        return self._problem

    def _read(self, study: Study, left_out: int | None, problem: Problem) -> list[EncodedTrial]:
        trials = study.get_trials(deepcopy=False)
        last_step = max((max(t.intermediate_values) for t in trials if t.intermediate_values), default=0)
        found = []
        for trial in trials:
            if trial.number == left_out:
                continue
            cached, encoded = self._encoded.get(trial.number, (None, None))
            if encoded is None or cached is not trial:
                proposed = self._proposed.get(trial.number)
                encoded = encode_trial(trial, problem.encoding, problem.signs, self._identity, last_step, proposed)
                if trial.state in (TrialState.COMPLETE, TrialState.FAIL):  # a stopped one depends on ``last_step``
                    self._encoded[trial.number] = trial, encoded
            found.append(encoded)
        return found


def _check(
    known: Mapping[int, Callable[[Params], float]], search_space: Mapping[str, BaseDistribution], seed: int | None
) -> None:
    for objective, function in known.items():
        if isinstance(objective, bool) or not isinstance(objective, int) or objective < 0:
            raise ValueError(f"known must map objective indices (0, 1, ...) to functions, got the key {objective!r}")
        if not callable(function):
            raise TypeError(f"known[{objective}] must be a function of the parameter dict, got {function!r}")
    for name, distribution in search_space.items():
        if not isinstance(distribution, BaseDistribution):
            raise TypeError(f"search_space[{name!r}] must be an optuna distribution, got {distribution!r}")
    if seed is not None and seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
