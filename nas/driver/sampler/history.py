"""A study's trials as the sampler sees them: parameters as rows of numbers, every objective minimised."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.driver.sampler.encoding import Array, Encoding

Params: TypeAlias = dict[str, Any]
Identity: TypeAlias = Callable[[Params], Hashable]


_UNFINISHED = (TrialState.PRUNED, TrialState.RUNNING)  # their last values are information, but no result


@dataclass(frozen=True)
class Partial:
    """Last values of a stopped or running trial.

    Attributes:
        values: Every objective, minimised.
        lag: log2(budget / epoch): how many halvings before its end it was stopped.
    """

    values: Array
    lag: float


@dataclass(frozen=True)
class EncodedTrial:
    """One trial.

    Attributes:
        params: Its parameters, external representation; of a waiting trial the enqueued ones.
        row: Its parameters as numbers; None when they are not (yet) a point of the space.
        key: Value that trials of the same meaning share; None when ``row`` is.
        values: Minimised, finite; None unless it ran to its end.
        constraints: Optuna's, feasible at or below zero.
        beside: True where it takes no part in the competition for the front: outside the space, or over a limit.
    """

    number: int
    state: TrialState
    params: Params
    row: Array | None
    key: Hashable | None
    values: Array | None
    partial: Partial | None
    constraints: Mapping[str, float]
    beside: bool = False

    @property
    def reached(self) -> Partial | None:
        """Values that the model learns from, final or not."""
        return self.partial if self.values is None else Partial(self.values, 0.0)

    @property
    def is_feasible(self) -> bool:
        return not self.beside and all(value <= 0.0 for value in self.constraints.values())


def encode_trial(
    trial: FrozenTrial,
    encoding: Encoding,
    signs: Array,
    identity: Identity | None,
    last_step: int,
    proposed: Params | None = None,
) -> EncodedTrial:
    """Read one trial.

    Args:
        signs: 1 for a minimised objective, -1 for a maximised one.
        last_step: The largest step that any trial of the study has reported.
        proposed: Proposal for a trial whose parameters have not reached the storage yet.
    """
    params = {**(proposed or {}), **trial.system_attrs.get("fixed_params", {}), **trial.params}
    row = encoding.encode(params)
    key = None if row is None else identity(params) if identity is not None else encoding.key(row)
    return EncodedTrial(
        number=trial.number,
        state=trial.state,
        params=params,
        row=row,
        key=key,
        values=_minimised(trial.values, signs) if trial.state == TrialState.COMPLETE else None,
        partial=_partial(trial, signs, last_step) if trial.state in _UNFINISHED else None,
        constraints=trial.constraints,
        beside="beside" in trial.user_attrs,
    )


def signs_of(directions: Sequence[StudyDirection]) -> Array:
    return np.array([-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions])


def _minimised(values: Sequence[float] | None, signs: Array) -> Array | None:
    if values is None or len(values) != len(signs):
        return None
    array = np.asarray(values, dtype=np.float64) * signs
    return array if np.all(np.isfinite(array)) else None


def _partial(trial: FrozenTrial, signs: Array, last_step: int) -> Partial | None:
    """From ``user_attrs["partial"]`` ({"epoch", "budget", "values"}), or from what the trial reported to a pruner."""
    note = trial.user_attrs.get("partial")
    if isinstance(note, Mapping):
        try:
            epoch, budget = float(note["epoch"]), float(note["budget"])
            values = _minimised([float(v) for v in note["values"]], signs)
        except (KeyError, TypeError, ValueError):
            return None
        if values is None or epoch <= 0.0:
            return None
        return Partial(values, math.log2(max(budget / epoch, 1.0)))
    if trial.intermediate_values and len(signs) == 1:
        step = max(trial.intermediate_values)
        values = _minimised([trial.intermediate_values[step]], signs)
        # Steps count from 0 by habit; an unknown budget is taken as the longest run so far.
        return None if values is None else Partial(values, math.log2(max((last_step + 1) / (max(step, 0) + 1), 1.0)))
    return None
