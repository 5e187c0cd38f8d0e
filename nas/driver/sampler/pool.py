"""Candidates that are worth scoring: allowed, not seen in the study, each drawn once, their exact costs known."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas.driver.sampler import candidates
from nas.driver.sampler.encoding import Array, Encoding
from nas.driver.sampler.pricing import Priced, Pricing

#: Spaces of up to so many points are listed when nothing unseen is met otherwise.
MAX_LISTED = 10_000
_ATTEMPTS = 100
_STEPS = 32  # of a walk that looks for something unseen
_ROUNDS = 4  # of walks that fill a pool


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

    Where limits refuse most of a space, it does not draw until they are met: it walks, from points that keep them, one
    parameter at a time, and never steps outside.

    Args:
        seen: Keys of all trials, of any state.
        known: Rows from which the walks begin, those of them that are allowed.
    """

    def __init__(
        self,
        encoding: Encoding,
        pricing: Pricing,
        seen: set[Hashable],
        rng: np.random.Generator,
        known: Sequence[Array],
    ) -> None:
        self._encoding = encoding
        self._pricing = pricing
        self._taken = set(seen)
        self._rng = rng
        self._known = known

    def fresh(self, parents: Array, count: int) -> Pool:
        """At least one candidate.

        Raises:
            SpaceExhaustedError: There is no unseen one: surely in a listed space; elsewhere none that is reached from
                the known ones by changing one parameter after the other without leaving what is allowed.
            NothingAllowedError: There is no allowed one, as far as chance can tell.
        """
        nobody = parents[:0]
        for rows_from in (parents, nobody, nobody):
            pool = self._admit(candidates.propose(self._encoding, rows_from, count, self._rng))
            if len(pool):
                break
        if self._pricing.is_limited and len(pool) < count // 2:
            pool = pool.joined(self._walked(count - len(pool)))
        return pool if len(pool) else self._anywhere(count)

    def near(self, leaders: Array, count: int) -> Pool:
        """Mutants of the leaders; possibly none."""
        parents = leaders[self._rng.integers(0, len(leaders), count)]
        return self._admit(candidates.mutate(self._encoding, parents, self._rng))

    def closest(self, wanted: Array) -> Array:
        """The wanted row where it is allowed and unseen, else one near to it that is.

        Raises:
            SpaceExhaustedError, NothingAllowedError: As :meth:`fresh`.
        """
        if self._is_new(self._pricing(wanted)):
            return wanted
        return self._wandered(self.nearest_allowed(wanted))

    def nearest_allowed(self, row: Array) -> Array:
        """The row where it is allowed, else one that is, seen or not, and has much in common with it.

        Raises:
            NothingAllowedError: As :meth:`fresh`.
        """
        if self._pricing(row).is_allowed:
            return row
        if not len(self._allowed):
            return self._anything_allowed()[0]
        differences = (self._allowed != row).sum(axis=1)
        nearest = self._allowed[self._rng.choice(np.flatnonzero(differences == differences.min()))]
        return self._towards(nearest, row, is_thorough=True)

    def is_spent(self) -> bool:
        """Whether nothing allowed and unseen is left."""
        try:
            self._wandered(self._rng.choice(self._allowed if len(self._allowed) else self._anything_allowed()))
        except (SpaceExhaustedError, NothingAllowedError):
            return True
        return False

    @cached_property
    def _allowed(self) -> Array:
        """The known rows that are allowed."""
        return self._stacked([row for row in self._known if self._pricing(row).is_allowed])

    def _towards(self, start: Array, target: Array, *, is_thorough: bool = False) -> Array:
        """The allowed row that is reached from an allowed one by taking over the target's parameters in random order.

        Args:
            is_thorough: Also take over what comes after the first parameter that leads outside.
        """
        order = self._rng.permutation(np.flatnonzero(start != target))

        def after(steps: int) -> Array:
            row = start.copy()
            row[order[:steps]] = target[order[:steps]]
            return row

        inside, outside = 0, len(order) + 1
        while outside - inside > 1:
            middle = (inside + outside) // 2
            inside, outside = (middle, outside) if self._pricing(after(middle)).is_allowed else (inside, middle)
        row = after(inside)
        for position in order[inside + 1 :] if is_thorough else ():
            step = row.copy()
            step[position] = target[position]
            row = step if self._pricing(step).is_allowed else row
        return row

    def _wandered(self, row: Array) -> Array:
        """The first unseen row of a walk through what is allowed; one from elsewhere where the walk meets none."""
        for _ in range(_STEPS):
            if self._is_new(self._pricing(row)):
                return row
            step = candidates.mutate(self._encoding, row[None], self._rng)[0]
            row = step if self._pricing(step).is_allowed else row
        return self._anywhere(1).rows[0]

    def _walked(self, count: int) -> Pool:
        """About so many allowed candidates: ends of ways from known rows to random ones, and mutants of both."""
        pool = self._pool([])
        reached = self._allowed
        for _ in range(_ROUNDS if len(reached) else 0):
            targets = candidates.random_rows(self._encoding, max(count // 8, 1), self._rng)
            starts = reached[self._rng.integers(0, len(reached), len(targets))]
            ways = [self._towards(a, b) for a, b in zip(starts, targets, strict=True)]
            reached = np.concatenate([reached, ways])
            mutants = self._admit(
                candidates.mutate(self._encoding, reached[self._rng.integers(0, len(reached), count)], self._rng)
            )
            pool = pool.joined(self._admit(np.stack(ways))).joined(mutants)
            reached = np.concatenate([reached, mutants.rows])
            if len(pool) >= count:
                break
        return pool

    def _anywhere(self, count: int) -> Pool:
        """Candidates found by system and not by chance."""
        known = self._allowed if len(self._allowed) else self._anything_allowed()
        pool = self._listed(count) if self._encoding.size <= MAX_LISTED else self._flooded(known, count)
        if len(pool):
            return pool
        raise SpaceExhaustedError

    def _anything_allowed(self) -> Array:
        """Allowed rows from all of the space, seen or not, where none is known."""
        if self._encoding.size <= MAX_LISTED:
            drawn = (self._encoding.point(index) for index in range(int(self._encoding.size)))
        else:
            drawn = (row for _ in range(_ATTEMPTS) for row in candidates.random_rows(self._encoding, 64, self._rng))
        row = next((row for row in drawn if self._pricing(row).is_allowed), None)
        if row is None:
            raise NothingAllowedError("feasible refused every point that was tried: the limits leave nothing, it seems")
        return row[None]

    def _flooded(self, known: Array, count: int) -> Pool:
        """What can be reached from known rows through what is allowed, one changed parameter at a time."""
        admitted: list[tuple[Array, Priced]] = []
        frontier = list(known)
        reached = {self._pricing(row).key for row in frontier}
        admitted += [(row, priced) for row in frontier if self._is_new(priced := self._pricing(row))]
        while frontier and len(admitted) < count:
            row = frontier.pop(int(self._rng.integers(len(frontier))))
            for neighbour in candidates.neighbours(self._encoding, row, self._rng):
                priced = self._pricing(neighbour)
                if priced.is_allowed and priced.key not in reached:
                    reached.add(priced.key)
                    frontier.append(neighbour)
                    if self._is_new(priced):
                        admitted.append((neighbour, priced))
        return self._pool(admitted[:count])

    def _listed(self, count: int) -> Pool:
        admitted: list[tuple[Array, Priced]] = []
        for index in self._rng.permutation(int(self._encoding.size)).tolist():
            row = self._encoding.point(index)
            priced = self._pricing(row)
            if self._is_new(priced):
                admitted.append((row, priced))
                if len(admitted) == count:
                    break
        return self._pool(admitted)

    def _admit(self, rows: Array) -> Pool:
        admitted = []
        for row in rows:
            priced = self._pricing(row)
            if self._is_new(priced):
                admitted.append((row, priced))
        return self._pool(admitted)

    def _is_new(self, priced: Priced) -> bool:
        if not priced.is_allowed or priced.key in self._taken:
            return False
        self._taken.add(priced.key)
        return True

    def _pool(self, admitted: list[tuple[Array, Priced]]) -> Pool:
        costs = [priced.costs for _, priced in admitted]
        return Pool(
            self._stacked([row for row, _ in admitted]),
            np.stack(costs) if costs else np.zeros((0, self._pricing.count)),
        )

    def _stacked(self, rows: list[Array]) -> Array:
        return np.stack(rows) if rows else np.zeros((0, len(self._encoding.axes)))
