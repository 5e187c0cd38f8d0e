"""Where new points come from when a space is too large to list: random draws, mutation and crossover of good points."""

from __future__ import annotations

import numpy as np

from nas.driver.sampler.encoding import Array, Encoding

_STEP = 0.15  # of a continuous coordinate's mutation, in units of its range


def random_rows(encoding: Encoding, count: int, rng: np.random.Generator) -> Array:
    """Uniform draws, shape (count, parameters)."""
    columns = [
        rng.random(count) if axis.levels is None else rng.integers(0, len(axis.levels), count).astype(np.float64)
        for axis in encoding.axes
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def mutate(encoding: Encoding, parents: Array, rng: np.random.Generator) -> Array:
    """Each parent with one parameter changed, and further ones with falling probability: k with 2^-k.

    A level moves to any other one or, where there is an order, half of the time to a neighbour; a coordinate mostly a
    little, now and then anywhere.
    """
    children = parents.copy()
    moves = encoding.moves
    if len(moves.axes) == 0:
        return children
    changes = rng.geometric(0.5, len(parents))
    places = rng.random((len(parents), len(moves.axes))).argsort(axis=1).argsort(axis=1)
    child, column = np.nonzero(places < changes[:, None])
    axis, count = moves.axes[column], moves.counts[column]
    numbers = children[child, axis]
    uniform, side, normal = rng.random(len(child)), rng.random(len(child)), rng.standard_normal(len(child))
    is_far = rng.random(len(child)) < moves.far[column]
    coordinate = np.where(is_far, uniform, np.clip(numbers + _STEP * normal, 0.0, 1.0))
    level = np.where(moves.is_continuous[column], 0, numbers).astype(np.int64)
    anywhere = (level + 1 + (uniform * (count - 1)).astype(np.int64)) % count
    neighbour = np.where(side < 0.5, moves.below[column, level], moves.above[column, level])
    discrete = np.where(is_far, anywhere, neighbour)
    children[child, axis] = np.where(moves.is_continuous[column], coordinate, discrete)
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


def neighbours(encoding: Encoding, row: Array, rng: np.random.Generator) -> Array:
    """All rows that differ in one level, and two draws for each coordinate, in random order."""
    changed = []
    for position, axis in enumerate(encoding.axes):
        others = rng.random(2) if axis.levels is None else np.setdiff1d(np.arange(len(axis.levels)), [row[position]])
        for number in others:
            changed.append(row.copy())
            changed[-1][position] = number
    return np.asarray(rng.permutation(changed)) if changed else np.zeros((0, len(row)))
