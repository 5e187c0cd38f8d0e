"""Guesses of an objective that cost next to nothing, such as a supernet's accuracies, beside observations of it.

A guess is biased, and not alike for all: in a supernet the members with one option of a choice may share weights that
suit them, those with another not. So guesses are no observations of the objective but one more known quantity of a
point, beside its costs: the objective's model finds out what they weigh together with costs and parameters, and what
these tell better it does not take from guesses.

The quantity is what a model of the guesses, over the parameters alone, predicts: points that were not guessed have it
as well, and the noise of single guesses is out.

Source: Perdikaris et al., "Nonlinear information fusion algorithms for data-efficient multi-fidelity modelling", Proc.
R. Soc. A 2017: the posterior mean of the cheap fidelity is an input of the dear one's model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from nas.driver.sampler.encoding import Array, Encoding
from nas.driver.sampler.gp import Features, Featurizer
from nas.driver.sampler.history import Params
from nas.driver.sampler.surrogate import Observations, Surrogate, SurrogateFitter

Guess = tuple[Params, float]
"""Parameters, and the guess of the unknown objective."""

_FEWEST = 4  # guesses to fit a model to


class Guesses:
    """Predicts the guess of any point.

    Args:
        guesses: those of other spaces are left out.
        encoding: of the space.
        featurizer: of the space.
    """

    def __init__(self, guesses: Sequence[Guess], encoding: Encoding, featurizer: Featurizer) -> None:
        encoded = [(row, value) for params, value in guesses if (row := encoding.encode(params)) is not None]
        self._rows, self._featurizer = encoding.stack([row for row, _ in encoded]), featurizer
        self._values = np.array([value for _, value in encoded])
        self._told = len(encoded) >= _FEWEST and np.ptp(self._values) > 0.0

    def __call__(self, rows: Array) -> Array:
        """Return the guesses at some points, shape (points, 1); (points, 0) where there are too few, or all alike."""
        return self._model.at(self._features(rows)).median[:, None] if self._told else np.empty((len(rows), 0))

    @cached_property
    def _model(self) -> Surrogate:
        count = len(self._rows)
        seen = Observations(self._features(self._rows), self._values, np.zeros(count))
        return SurrogateFitter(self._featurizer)(seen, seen.features.take(np.arange(0)))

    def _features(self, rows: Array) -> Features:
        return Features(self._featurizer(rows), np.empty((len(rows), 0)))
