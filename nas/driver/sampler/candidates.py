"""Candidates that are worth scoring: allowed, not seen in the study, each drawn once, their exact costs known.

They are random draws, mutants and crossovers of good points; where limits refuse most, ends of walks within them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from nas.driver.sampler.encoding import Array, Encoding, IntArray
from nas.driver.sampler.history import Identity, Params

_REMEMBERED = 20_000  # points of about 1 kB each
#: Spaces of up to this many points are listed when nothing unseen is met otherwise.
MAX_LISTED = 10_000
_ATTEMPTS = 100
_WALK_STEPS = 32  # of a walk that looks for something unseen
_ROUNDS = 4  # of walks that fill a pool


def random_rows(encoding: Encoding, count: int, rng: np.random.Generator) -> Array:
    """Draw uniformly, shape (count, parameters)."""
    columns = [rng.integers(0, len(axis.levels), count).astype(np.float64) for axis in encoding.axes]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def mutate(encoding: Encoding, parents: Array, rng: np.random.Generator) -> Array:
    """Change one parameter of each parent, and further ones with falling probability: k with 2^-k.

    A level moves to any other one or, where there is an order, half of the time to a neighbour.
    """
    children = parents.copy()
    moves = encoding.moves
    if len(moves.axes) == 0:
        return children
    changes = rng.geometric(0.5, len(parents))
    places = rng.random((len(parents), len(moves.axes))).argsort(axis=1).argsort(axis=1)
    child, column = np.nonzero(places < changes[:, None])
    axis, count = moves.axes[column], moves.counts[column]
    level = children[child, axis].astype(np.int64)
    uniform, side = rng.random(len(child)), rng.random(len(child))
    rng.standard_normal(len(child))  # unused: so a run that an older version began goes on as it would have
    is_far = rng.random(len(child)) < moves.far[column]
    anywhere = (level + 1 + (uniform * (count - 1)).astype(np.int64)) % count
    neighbour = np.where(side < 0.5, moves.below[column, level], moves.above[column, level])
    children[child, axis] = np.where(is_far, anywhere, neighbour)
    return children


def cross(encoding: Encoding, mothers: Array, fathers: Array, rng: np.random.Generator) -> Array:
    """Cross uniformly; where both parents agree in everything the child is mutated."""
    children = np.where(rng.random(mothers.shape) < 0.5, mothers, fathers)
    copies = np.all(children == mothers, axis=1) | np.all(children == fathers, axis=1)
    if copies.any():
        children[copies] = mutate(encoding, children[copies], rng)
    return np.asarray(children)


def draw(encoding: Encoding, parents: Array, count: int, rng: np.random.Generator) -> Array:
    """Draw about half mutants, a quarter crossovers, a quarter random rows; random rows only without parents."""
    if len(parents) == 0:
        return random_rows(encoding, count, rng)
    quarter = count // 4
    mothers, fathers = (parents[rng.integers(0, len(parents), quarter)] for _ in range(2))
    mutants = parents[rng.integers(0, len(parents), count - 2 * quarter)]
    return np.concatenate(
        [
            mutate(encoding, mutants, rng),
            cross(encoding, mothers, fathers, rng),
            random_rows(encoding, quarter, rng),
        ]
    )


def neighbours(encoding: Encoding, row: Array, rng: np.random.Generator) -> Array:
    """Return all rows that differ in one level, in random order."""
    changed = []
    for position, axis in enumerate(encoding.axes):
        for number in np.setdiff1d(np.arange(len(axis.levels)), [row[position]]):
            changed.append(row.copy())
            changed[-1][position] = number
    return encoding.stack(changed)[rng.permutation(len(changed))]


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


class KnownFunctions:
    """The user's functions of the parameters, each called once per row. A cache: forgetting costs nothing but time.

    Args:
        known: Objective index -> exact value, in the study's direction.
        signs: 1 for a minimised objective, -1 for a maximised one.
    """

    def __init__(
        self,
        encoding: Encoding,
        known: Mapping[int, Callable[[Params], float]],
        signs: Array,
        feasible: Callable[[Params], bool] | None,
        identity: Identity | None,
    ) -> None:
        self.encoding = encoding
        self.is_limited = feasible is not None
        self._known = dict(sorted(known.items()))
        self._signs = signs
        self._feasible = feasible
        self._identity = identity
        self._point = lru_cache(_REMEMBERED)(self._point_of)
        self._cost = lru_cache(_REMEMBERED)(self._cost_of)

    def point(self, row: Array) -> tuple[Hashable, bool]:
        """Return the key that points of one meaning share, and whether the point is allowed."""
        return self._point(row.tobytes())

    def is_allowed(self, row: Array) -> bool:
        return self.point(row)[1]

    def costs(self, rows: Array) -> Array:
        """Return the known objectives, minimised, shape (rows, known objectives)."""
        costs = [self._cost(row.tobytes()) for row in rows] if self._known else []
        return np.reshape(costs, (len(rows), len(self._known)))

    def _point_of(self, row: bytes) -> tuple[Hashable, bool]:
        numbers = np.frombuffer(row)
        params = self.encoding.decode(numbers)
        key = self._identity(params) if self._identity is not None else row
        return key, self._feasible is None or bool(self._feasible(params))

    def _cost_of(self, row: bytes) -> list[float]:
        params = self.encoding.decode(np.frombuffer(row))
        costs = {objective: float(function(params)) for objective, function in self._known.items()}
        for objective, cost in costs.items():
            if not np.isfinite(cost):
                raise ValueError(f"known[{objective}] must be finite, got {cost} for {params}")
        return [self._signs[objective] * cost for objective, cost in costs.items()]


class Source:
    """Draws the candidates of one proposal.

    Where limits refuse most of a space, it does not draw until they are met: it walks, from points that keep them, one
    parameter at a time, and never steps outside.

    Args:
        seen: Keys of all trials, of any state.
        known: Rows from which the walks begin, those of them that are allowed.
    """

    def __init__(
        self, functions: KnownFunctions, seen: set[Hashable], known: Sequence[Array], rng: np.random.Generator
    ) -> None:
        self._encoding = functions.encoding
        self._functions = functions
        self._taken = set(seen)
        self._known = known
        self._rng = rng

    def fresh(self, parents: Array, count: int) -> Pool:
        """Draw at least one candidate.

        Raises:
            SpaceExhaustedError: There is no unseen one: surely in a listed space; elsewhere none that is reached from
                the known ones by changing one parameter after the other without leaving what is allowed.
            NothingAllowedError: There is no allowed one, as far as chance can tell.
        """
        nobody = parents[:0]
        for rows_from in (parents, nobody, nobody):
            pool = self._admit(draw(self._encoding, rows_from, count, self._rng))
            if len(pool):
                break
        if self._functions.is_limited and len(pool) < count // 2:
            pool = pool.joined(self._walked(count - len(pool)))
        return pool if len(pool) else self._anywhere(count)

    def near(self, leaders: Array, count: int) -> Pool:
        """Draw mutants of the leaders; possibly none."""
        return self._admit(self._mutants(leaders, count))

    def closest(self, wanted: Array) -> Array:
        """Return the wanted row where it is allowed and unseen, else one near to it that is.

        Raises:
            SpaceExhaustedError, NothingAllowedError: As :meth:`fresh`.
        """
        return wanted if self._is_new(wanted) else self._wandered(self.nearest_allowed(wanted))

    def nearest_allowed(self, row: Array) -> Array:
        """Return the row where it is allowed, else one that is, seen or not, and has much in common with it.

        Raises:
            NothingAllowedError: As :meth:`fresh`.
        """
        if self._functions.is_allowed(row):
            return row
        if not len(self._allowed):
            return self._anything_allowed()[0]
        differences = (self._allowed != row).sum(axis=1)
        nearest = self._allowed[self._rng.choice(np.flatnonzero(differences == differences.min()))]
        return self._towards(nearest, row, is_thorough=True)

    def is_spent(self) -> bool:
        """Tell whether nothing allowed and unseen is left."""
        try:
            self._wandered(self._rng.choice(self._starts()))
        except (SpaceExhaustedError, NothingAllowedError):
            return True
        return False

    @cached_property
    def _allowed(self) -> Array:
        """The known rows that are allowed."""
        return self._encoding.stack([row for row in self._known if self._functions.is_allowed(row)])

    def _starts(self) -> Array:
        """Return the known rows that are allowed or, where there are none, one from anywhere."""
        return self._allowed if len(self._allowed) else self._anything_allowed()

    def _mutants(self, parents: Array, count: int) -> Array:
        return mutate(self._encoding, parents[self._rng.integers(0, len(parents), count)], self._rng)

    def _towards(self, start: Array, target: Array, *, is_thorough: bool = False) -> Array:
        """Return the allowed row that is reached from an allowed one by taking over the target's parameters.

        Args:
            is_thorough: Also take over what comes, in the random order, after the first one that leads outside.
        """
        order = self._rng.permutation(np.flatnonzero(start != target))

        def with_target(row: Array, positions: IntArray) -> Array:
            row = row.copy()
            row[positions] = target[positions]
            return row

        inside, outside = 0, len(order) + 1
        while outside - inside > 1:
            middle = (inside + outside) // 2
            if self._functions.is_allowed(with_target(start, order[:middle])):
                inside = middle
            else:
                outside = middle
        row = with_target(start, order[:inside])
        for position in order[inside + 1 :] if is_thorough else ():
            step = with_target(row, position)
            row = step if self._functions.is_allowed(step) else row
        return row

    def _wandered(self, row: Array) -> Array:
        """Return the first unseen row of a walk through what is allowed; one from elsewhere where it meets none."""
        for _ in range(_WALK_STEPS):
            if self._is_new(row):
                return row
            step = mutate(self._encoding, row[None], self._rng)[0]
            row = step if self._functions.is_allowed(step) else row
        return self._anywhere(1).rows[0]

    def _walked(self, count: int) -> Pool:
        """Draw about ``count`` allowed candidates: ends of ways from known rows to random ones, and mutants of both."""
        pool = self._pool([])
        reached = self._allowed
        for _ in range(_ROUNDS if len(reached) else 0):
            targets = random_rows(self._encoding, max(count // 8, 1), self._rng)
            starts = reached[self._rng.integers(0, len(reached), len(targets))]
            ways = np.stack([self._towards(a, b) for a, b in zip(starts, targets, strict=True)])
            reached = np.concatenate([reached, ways])
            mutants = self.near(reached, count)
            pool = pool.joined(self._admit(ways)).joined(mutants)
            reached = np.concatenate([reached, mutants.rows])
            if len(pool) >= count:
                break
        return pool

    def _anywhere(self, count: int) -> Pool:
        """Find candidates by system and not by chance."""
        starts = self._starts()
        rows = self._listed(count) if self._encoding.size <= MAX_LISTED else self._flooded(starts, count)
        if not rows:
            raise SpaceExhaustedError
        return self._pool(rows)

    def _anything_allowed(self) -> Array:
        """Return an allowed row from all of the space, seen or not, where none is known, shape (1, parameters)."""
        if self._encoding.size <= MAX_LISTED:
            drawn = (self._encoding.point(index) for index in range(self._encoding.size))
        else:
            drawn = (row for _ in range(_ATTEMPTS) for row in random_rows(self._encoding, 64, self._rng))
        row = next((row for row in drawn if self._functions.is_allowed(row)), None)
        if row is None:
            raise NothingAllowedError("feasible refused every point that was tried: the limits leave nothing, it seems")
        return row[None]

    def _flooded(self, known: Array, count: int) -> list[Array]:
        """Return unseen rows that are reached from known ones through allowed ones, by one changed parameter a step."""
        frontier = list(known)
        reached = {self._functions.point(row)[0] for row in frontier}
        admitted = [row for row in frontier if self._is_new(row)]
        while frontier and len(admitted) < count:
            row = frontier.pop(int(self._rng.integers(len(frontier))))
            for neighbour in neighbours(self._encoding, row, self._rng):
                key, is_allowed = self._functions.point(neighbour)
                if is_allowed and key not in reached:
                    reached.add(key)
                    frontier.append(neighbour)
                    if self._is_new(neighbour):
                        admitted.append(neighbour)
        return admitted[:count]

    def _listed(self, count: int) -> list[Array]:
        order = self._rng.permutation(self._encoding.size).tolist()
        unseen = (row for index in order if self._is_new(row := self._encoding.point(index)))
        return list(itertools.islice(unseen, count))

    def _admit(self, rows: Array) -> Pool:
        return self._pool([row for row in rows if self._is_new(row)])

    def _is_new(self, row: Array) -> bool:
        """Tell whether a row is allowed and not taken, and take it."""
        key, is_allowed = self._functions.point(row)
        if not is_allowed or key in self._taken:
            return False
        self._taken.add(key)
        return True

    def _pool(self, admitted: Sequence[Array]) -> Pool:
        rows = self._encoding.stack(admitted)
        return Pool(rows, self._functions.costs(rows))
