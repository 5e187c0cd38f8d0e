"""Candidates that are worth scoring: allowed, not seen in the study, each drawn once, their exact costs known."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from nas.search.sampler import candidates
from nas.search.sampler.encoding import Array, Encoding
from nas.search.sampler.pricing import Priced, Pricing

#: Spaces of up to so many points are listed when drawing at random finds nothing unseen.
MAX_LISTED = 10_000
_ATTEMPTS = 100


class SpaceExhaustedError(Exception):
    """Every allowed point that could be found has been seen."""


class NothingAllowedError(ValueError):
    """No allowed point could be found, seen or not."""


@dataclass(frozen=True)
class Pool:
    """Attributes: rows: Shape (points, parameters). costs: Shape (points, known objectives), minimised."""

    rows: Array
    costs: Array

    def __len__(self) -> int:
        return len(self.rows)

    def joined(self, other: Pool) -> Pool:
        return Pool(np.concatenate([self.rows, other.rows]), np.concatenate([self.costs, other.costs]))


class Source:
    """Draws the candidates of one proposal.

    Args:
        seen: Keys of all trials, of any state.
        pins: Numbers that every row must hold, by position (those of a partly enqueued trial).
    """

    def __init__(
        self,
        encoding: Encoding,
        pricing: Pricing,
        seen: set[Hashable],
        pins: Mapping[int, float],
        rng: np.random.Generator,
    ) -> None:
        self._encoding = encoding
        self._pricing = pricing
        self._taken = set(seen)
        self._pins = pins
        self._rng = rng
        self._is_any_allowed = False

    def fresh(self, parents: Array, count: int) -> Pool:
        """At least one candidate.

        Raises:
            SpaceExhaustedError: There is no unseen one: surely in a listed space, as far as chance can tell elsewhere.
            NothingAllowedError: There is no allowed one.
        """
        nobody = parents[:0]
        for rows_from in (parents, nobody, nobody):
            pool = self._admit(candidates.propose(self._encoding, rows_from, count, self._rng))
            if len(pool):
                return pool
        if self._encoding.size <= MAX_LISTED:
            pool = self._listed(count)
            if len(pool):
                return pool
            raise self._nothing()
        for attempt in range(_ATTEMPTS):
            rows_from = parents if attempt % 2 else nobody
            pool = self._admit(candidates.propose(self._encoding, rows_from, count, self._rng))
            if len(pool):
                return pool
        raise self._nothing()

    def near(self, leaders: Array, count: int) -> Pool:
        """Mutants of the leaders; possibly none."""
        parents = leaders[self._rng.integers(0, len(leaders), count)]
        return self._admit(candidates.mutate(self._encoding, parents, self._rng))

    def _nothing(self) -> Exception:
        if self._is_any_allowed:
            return SpaceExhaustedError()
        return NothingAllowedError("feasible refused every point that was tried: the limits leave nothing, it seems")

    def _listed(self, count: int) -> Pool:
        admitted: list[tuple[Array, Priced]] = []
        for index in self._rng.permutation(int(self._encoding.size)).tolist():
            row = self._pinned(self._encoding.point(index))
            priced = self._pricing(row)
            if self._is_new(priced):
                admitted.append((row, priced))
                if len(admitted) == count:
                    break
        return self._pool(admitted)

    def _admit(self, rows: Array) -> Pool:
        admitted = []
        for row in rows:
            priced = self._pricing(self._pinned(row))
            if self._is_new(priced):
                admitted.append((row, priced))
        return self._pool(admitted)

    def _is_new(self, priced: Priced) -> bool:
        self._is_any_allowed = self._is_any_allowed or priced.is_allowed
        if not priced.is_allowed or priced.key in self._taken:
            return False
        self._taken.add(priced.key)
        return True

    def _pinned(self, row: Array) -> Array:
        for position, number in self._pins.items():
            row[position] = number
        return row

    def _pool(self, admitted: list[tuple[Array, Priced]]) -> Pool:
        if not admitted:
            return Pool(np.zeros((0, len(self._encoding.axes))), np.zeros((0, self._pricing.count)))
        return Pool(np.stack([row for row, _ in admitted]), np.stack([priced.costs for _, priced in admitted]))
