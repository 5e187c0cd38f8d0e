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
class EncodedTrial:
    """One trial.

    Attributes:
        row: Its parameters as numbers; None when they are not (yet) a point of the space.
        key: Value that trials of the same meaning share; None when ``row`` is.
        values: Every objective, minimised and finite, as it ended or as a stopped trial had it last; None
            where there are none.
        lag: log2(budget / epoch): how many halvings before the trial's end its values were reached.
        constraints: Optuna's, feasible at or below zero.
        beside: True where it takes no part in the competition for the front: outside the space, or over a limit.
    """

    number: int
    state: TrialState
    row: Array | None
    key: Hashable | None
    values: Array | None
    lag: float
    constraints: Mapping[str, float]
    beside: bool

    @property
    def competes(self) -> bool:
        """True where its values are final, and may stand on the front."""
        is_feasible = not self.beside and all(value <= 0.0 for value in self.constraints.values())
        return self.state == TrialState.COMPLETE and self.values is not None and is_feasible


def encode_trial(trial: FrozenTrial, encoding: Encoding, signs: Array, identity: Identity | None) -> EncodedTrial:
    """Read one trial; `signs` are 1 for a minimised objective, -1 for a maximised one."""
    params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    row = encoding.encode(params)
    key = None if row is None else identity(params) if identity is not None else row.tobytes()
    values, lag = _reached(trial, signs)
    return EncodedTrial(
        trial.number, trial.state, row, key, values, lag, trial.constraints, "beside" in trial.user_attrs
    )


def signs_of(directions: Sequence[StudyDirection]) -> Array:
    """Return 1 for each minimised objective, -1 for each maximised one."""
    return np.array([-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions])


def _reached(trial: FrozenTrial, signs: Array) -> tuple[Array | None, float]:
    """Return a trial's values and lag; those of a stopped one are in ``user_attrs["partial"]``."""
    if trial.state == TrialState.COMPLETE:
        return _minimised(trial.values, signs), 0.0
    note = trial.user_attrs.get("partial")
    if trial.state not in _UNFINISHED or not isinstance(note, Mapping):
        return None, 0.0
    try:
        epoch, budget = float(note["epoch"]), float(note["budget"])
        values = _minimised([float(v) for v in note["values"]], signs)
    except (KeyError, TypeError, ValueError):
        return None, 0.0
    return (values, math.log2(max(budget / epoch, 1.0))) if epoch > 0.0 else (None, 0.0)


def _minimised(values: Sequence[float], signs: Array) -> Array | None:
    array = np.asarray(values, dtype=np.float64)
    return array * signs if len(array) == len(signs) and np.all(np.isfinite(array)) else None
