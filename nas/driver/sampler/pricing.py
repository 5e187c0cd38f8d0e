"""What is known about a point before it is trained: its meaning, whether it is allowed, and its exact costs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from nas.driver.sampler.encoding import Array, Encoding
from nas.driver.sampler.history import Identity, Params

_REMEMBERED = 20_000
"""Points of about 0.6 kB each."""


@dataclass(frozen=True)
class Priced:
    """Attributes: costs: One per known objective, minimised; NaN when the point is not allowed."""

    key: Hashable
    is_allowed: bool
    costs: Array


class Pricing:
    """Calls the user's functions once per point. A cache: forgetting an entry changes nothing but time."""

    def __init__(
        self,
        encoding: Encoding,
        known: Mapping[int, Callable[[Params], float]],
        signs: Array,
        feasible: Callable[[Params], bool] | None,
        identity: Identity | None,
    ) -> None:
        self._encoding = encoding
        self._known = dict(sorted(known.items()))
        self._signs = signs
        self._feasible = feasible
        self._identity = identity
        self.count = len(self._known)
        self.is_limited = feasible is not None
        self._priced: OrderedDict[bytes, Priced] = OrderedDict()

    def __call__(self, row: Array, *, even_if_forbidden: bool = False) -> Priced:
        """Price one row; costs of a forbidden point are only computed on demand."""
        tag = row.tobytes()
        priced = self._priced.get(tag)
        if priced is None or (even_if_forbidden and not priced.is_allowed and np.isnan(priced.costs).any()):
            priced = self._price(row, even_if_forbidden)
            self._priced[tag] = priced
            if len(self._priced) > _REMEMBERED:
                self._priced.popitem(last=False)
        return priced

    def _price(self, row: Array, even_if_forbidden: bool) -> Priced:
        params = self._encoding.decode(row)
        key = self._identity(params) if self._identity is not None else self._encoding.key(row)
        is_allowed = self._feasible is None or bool(self._feasible(params))
        if not is_allowed and not even_if_forbidden:
            return Priced(key, is_allowed, np.full(len(self._known), np.nan))
        costs = np.array([self._signs[d] * self._cost(d, params) for d in self._known])
        return Priced(key, is_allowed, costs)

    def _cost(self, objective: int, params: Params) -> float:
        cost = float(self._known[objective](params))
        if not np.isfinite(cost):
            raise ValueError(f"known[{objective}] must be finite, got {cost} for {params}")
        return cost
