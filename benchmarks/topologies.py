"""Two invented spaces of topologies, small enough to be listed, for searches to be compared on.

They hold what a model of main effects and pairs does not assume: strong interactions of many parameters, dead networks,
plateaus of different documents that are one function, and the noise of seeds, which is larger for poor networks. What
is said here of accuracy is invented; the numbers were chosen once, before any sampler was run on them.

cell
    Four nodes, an operation on each of six edges (none, skip, 1x1, 3x3, pool), as in cell spaces: 15,625 networks. A
    node is as good as the best path to it, and a little better for others; what an operation adds depends on the one
    before it. Without a path to the last node a network is dead; operations on edges that lead nowhere change nothing
    but the costs.
chain
    Eight layers (identity, narrow, wide, pool): 65,536 networks. The narrowest layer bounds what passes, the receptive
    field has to cover the image, a third pooling leaves nothing; a layer costs by widths, worth and the resolution
    that is left.
"""

import itertools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.int64]
Values: TypeAlias = Callable[[Rows], Array]
"""Levels, shape (networks, parameters) -> error, log params and log MACs, shape (networks, 3)."""

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NONE, POOL = 0, 4
DEAD = 0.9


def cell(seed: int) -> Values:
    """Make a space of cells: levels 0 to 4 on each edge."""
    rng = np.random.default_rng([seed, 1])
    gain = np.array([0.0, 0.0, 0.6, 1.0, 0.1]) + 0.35 * rng.normal(size=(5, 5))  # [operation before, operation]

    def values(rows: Rows) -> Array:
        count = len(rows)
        quality = [np.zeros(count)]
        last = [np.zeros(count, dtype=np.int64)]
        for node in range(1, 4):
            into = [(place, source) for place, (source, target) in enumerate(EDGES) if target == node]
            ops = rows[:, [place for place, _ in into]]
            paths = np.stack([quality[s] + gain[last[s], rows[:, p]] for p, s in into], axis=1)
            paths = np.where(ops == NONE, -np.inf, paths)
            best = paths.max(axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                quality.append(best + np.log(np.exp(4 * (paths - best[:, None])).sum(axis=1)) / 4)
            quality[node] = np.where(np.isneginf(best), -np.inf, quality[node])
            last.append(ops[np.arange(count), paths.argmax(axis=1)])
        error = np.where(np.isneginf(quality[3]), DEAD, np.minimum(DEAD, 0.06 + 0.5 * np.exp(-0.9 * quality[3])))
        weights = np.array([0.0, 0.0, 1.0, 9.0, 0.0])[rows]
        at = np.array([1.0, 1.0, 0.5, 1.0, 0.5, 0.25])  # the resolution at an edge, as a share
        pooled = 0.2 * (rows == POOL)
        costs = (2 + weights.sum(axis=1), 4 + ((weights + pooled) * at).sum(axis=1))
        return np.stack([error, *map(np.log, costs)], axis=1)

    return values


WIDTHS = np.array([0.0, 1.0, 3.0, 0.0])
IDENTITY = 0


def chain(seed: int) -> Values:
    """Make a space of chains: levels 0 to 3 in each of eight layers."""
    rng = np.random.default_rng([seed, 2])
    worth = rng.gamma(4.0, 0.25, 8)

    def values(rows: Rows) -> Array:
        pooled = np.cumsum(rows == 3, axis=1)
        is_layer = WIDTHS[rows] > 0
        resolution = 0.25**pooled
        reach = 1 + (2.0 * is_layer * 2.0**pooled).sum(axis=1)  # the receptive field in pixels
        narrowest = np.where(is_layer, WIDTHS[rows], np.inf).min(axis=1)
        depth = (worth * is_layer * np.sqrt(np.maximum(WIDTHS[rows], 0))).sum(axis=1)
        quality = np.minimum(depth, 3 + 2 * np.where(np.isinf(narrowest), 0, narrowest)) * np.minimum(1, reach / 40)
        error = 0.07 + 0.6 * np.exp(-0.55 * quality)
        error = np.where((pooled[:, -1] > 2) | ~is_layer.any(axis=1), DEAD, error)
        into = np.maximum.accumulate(np.where(is_layer, WIDTHS[rows], 1.0), axis=1)
        layers = worth * WIDTHS[rows] * np.concatenate([np.ones((len(rows), 1)), into[:, :-1]], axis=1)
        costs = (1 + layers.sum(axis=1), 1 + (layers * resolution).sum(axis=1))
        return np.stack([error, *map(np.log, costs)], axis=1)

    return values


def all_rows(levels: int, parameters: int) -> Rows:
    """List a space, shape (networks, parameters)."""
    return np.array(list(itertools.product(range(levels), repeat=parameters)), dtype=np.int64)


def noise(errors: Array, rng: np.random.Generator) -> Array:
    """Draw what seeds add: 0.3 points (standard deviation) at the best, more for poor networks, none for the dead."""
    return np.asarray(np.where(errors < DEAD, 0.003 + 0.03 * (errors - 0.06), 0.0) * rng.standard_normal(errors.shape))
