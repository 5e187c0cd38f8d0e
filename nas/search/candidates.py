"""Where new points come from when a space is too large to list: random draws, mutation and crossover of good points."""

from __future__ import annotations

import numpy as np

from nas.search.encoding import Array, Axis, Encoding

_STEP = 0.15  # of a continuous coordinate's mutation, in units of its range


def random_rows(encoding: Encoding, count: int, rng: np.random.Generator) -> Array:
    """Uniform draws, shape (count, parameters)."""
    columns = [
        rng.random(count) if axis.levels is None else rng.integers(0, len(axis.levels), count).astype(np.float64)
        for axis in encoding.axes
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def mutate(encoding: Encoding, parents: Array, rng: np.random.Generator) -> Array:
    """Each parent with one parameter changed, and further ones with falling probability: 1, 2, 3, ... with 1/2, 1/4, ..."""
    children = parents.copy()
    movable = np.array([i for i, axis in enumerate(encoding.axes) if axis.is_continuous or len(axis.levels or ()) > 1])
    if len(movable) == 0:
        return children
    changes = np.minimum(rng.geometric(0.5, len(parents)), len(movable))
    for child, count in zip(children, changes.tolist(), strict=True):
        for i in rng.permutation(movable)[:count].tolist():
            child[i] = _moved(encoding.axes[i], float(child[i]), rng)
    return children


def cross(encoding: Encoding, mothers: Array, fathers: Array, rng: np.random.Generator) -> Array:
    """Uniform crossover; where both parents agree in everything the child is mutated."""
    children = np.where(rng.random(mothers.shape) < 0.5, mothers, fathers)
    copies = np.all(children == mothers, axis=1) | np.all(children == fathers, axis=1)
    if copies.any():
        children[copies] = mutate(encoding, children[copies], rng)
    return np.asarray(children)


def propose(encoding: Encoding, parents: Array, count: int, rng: np.random.Generator) -> Array:
    """About half mutants, a quarter crossovers, a quarter random draws; random draws only without parents."""
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


def _moved(axis: Axis, number: float, rng: np.random.Generator) -> float:
    """Another value of one parameter: of an ordered one mostly a neighbour, else any other."""
    if axis.levels is None:
        if rng.random() < 0.2:
            return float(rng.random())
        return float(np.clip(number + _STEP * rng.standard_normal(), 0.0, 1.0))
    count = len(axis.levels)
    if axis.positions is not None and count > 3 and rng.random() < 0.5:
        places = np.argsort(axis.positions, kind="stable")
        at = int(np.flatnonzero(places == int(number))[0])
        at += 1 if at == 0 else -1 if at == count - 1 else int(rng.choice((-1, 1)))
        return float(places[at])
    return float((int(number) + rng.integers(1, count)) % count)
