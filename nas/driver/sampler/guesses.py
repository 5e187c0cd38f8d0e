"""Guesses of an objective that cost next to nothing, such as a supernet's accuracies, beside observations of it.

A guess is biased: it has its own level and scale. Both are fitted, by least squares, to trials that ended and had been
guessed; the variance of what is left is the guesses' own. Then a guess is an observation of known variance.

Source: Kennedy and O'Hagan, "Predicting the output from a complex computer code when fast approximations are
available", Biometrika 2000, whose second Gaussian process is a constant and noise here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import TrialState

from nas.driver.sampler.acquisition import Problem
from nas.driver.sampler.encoding import Array
from nas.driver.sampler.history import EncodedTrial, Params

Guess = tuple[Params, float]
"""Parameters, and the guess of the unknown objective in its own direction."""

_FEWEST = 4  # guessed trials, to fit two numbers and a variance to
_MOST = 100  # guesses: their errors are not as independent as the model takes them to be


@dataclass(frozen=True)
class Line:
    """Observations from guesses: ``level + scale * guess``, with the variance of a single one around that."""

    level: float
    scale: float
    variance: float

    @staticmethod
    def through(guesses: Array, observed: Array) -> Line | None:
        """Fit the line; None where there are too few pairs, or larger guesses do not go with larger observations."""
        if len(guesses) < _FEWEST or not np.ptp(guesses) > 0.0:
            return None
        scale, level = np.polyfit(guesses, observed, 1)
        left = observed - level - scale * guesses
        variance = float(left @ left) / (len(guesses) - 2)
        return Line(float(level), float(scale), variance) if scale > 0.0 else None


def as_trials(guesses: Sequence[Guess], trials: Sequence[EncodedTrial], problem: Problem) -> list[EncodedTrial]:
    """Return guesses as trials that the model learns from, of points where no trial has ended.

    They were never begun: their points may be proposed, and they stand on no front. None where the study has not one
    unknown objective, or the guesses are not to be fitted.
    """
    unknown = [d for d in range(len(problem.signs)) if d not in problem.known]
    if len(unknown) != 1:
        return []
    (wanted,) = unknown
    encoded = [(problem.encoding.encode(params), problem.signs[wanted] * value) for params, value in guesses]
    guessed = {problem.functions.point(row)[0]: (row, value) for row, value in encoded if row is not None}
    ended = {t.key: t.values[wanted] for t in trials if t.state == TrialState.COMPLETE and t.values is not None}
    both = [key for key in guessed if key in ended]
    line = Line.through(np.array([guessed[key][1] for key in both]), np.array([ended[key] for key in both]))
    if line is None:
        return []
    others = [guessed[key] for key in guessed if key not in ended]
    chosen = [others[i] for i in np.unique(np.linspace(0, len(others) - 1, min(_MOST, len(others))).astype(int))]
    values = np.empty((len(chosen), len(problem.signs)))
    values[:, list(problem.known)] = problem.functions.costs(problem.encoding.stack([row for row, _ in chosen]))
    values[:, wanted] = line.level + line.scale * np.array([value for _, value in chosen])
    return [
        EncodedTrial(
            number=-1 - place,
            state=TrialState.PRUNED,
            row=row,
            key=None,
            values=values[place],
            lag=0.0,
            constraints={},
            beside=True,
            variance=line.variance,
        )
        for place, (row, _) in enumerate(chosen)
    ]
