"""Tables that samplers are compared on (``search_quality.py`` says what they are)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import topologies
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution

from nas import pareto

Array: TypeAlias = NDArray[np.float64]
Params: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Something to search.

    Attributes:
        values: Parameters -> the three noise-free objectives.
        observed: Parameters and number of the evaluation -> what the study is told.
        front: The true front, shape (points, 3).
    """

    space: dict[str, BaseDistribution]
    values: Callable[[Params], Array]
    observed: Callable[[Params, int], Array]
    front: Array

    @property
    def known(self) -> dict[int, Callable[[Params], float]]:
        return {1: lambda params: float(self.values(params)[1]), 2: lambda params: float(self.values(params)[2])}


def nasbench_macro(path: Path) -> Table:
    frame = pd.read_parquet(path)
    points = np.stack([1.0 - frame["mean_acc"] / 100.0, np.log(frame["params"]), np.log(frame["flops"])], axis=1)
    rows = dict(zip(frame["arch"], points, strict=True))
    space: dict[str, BaseDistribution] = {f"layer{i}": CategoricalDistribution(["0", "1", "2"]) for i in range(8)}

    def values(params: Params) -> Array:
        return np.asarray(rows["".join(params[f"layer{i}"] for i in range(8))])

    return Table(space, values, lambda params, _: values(params), points[pareto.front_mask(points)])


def topology(values_of: Callable[[int], topologies.Values], levels: int, parameters: int) -> Callable[[int], Table]:
    """Make tables of an invented space of topologies, by seed."""
    rows = topologies.all_rows(levels, parameters)
    names = [f"op{i}" for i in range(parameters)]
    space: dict[str, BaseDistribution] = {name: CategoricalDistribution([*map(str, range(levels))]) for name in names}
    place = levels ** np.arange(parameters)[::-1]

    def make(seed: int) -> Table:
        points = values_of(seed)(rows)

        def values(params: Params) -> Array:
            return np.asarray(points[int(place @ [int(params[name]) for name in names])])

        def observed(params: Params, evaluation: int) -> Array:
            own = values(params)
            noise = topologies.noise(own[:1], np.random.default_rng([seed, evaluation]))
            return own + np.array([noise[0], 0.0, 0.0])

        return Table(space, values, observed, np.unique(points[pareto.front_mask(points)], axis=0))

    return make


TOPOLOGIES: Mapping[str, Callable[[int], Table]] = {
    "cell": topology(topologies.cell, 5, 6),
    "chain": topology(topologies.chain, 4, 8),
}

EXPANSIONS = (1, 2, 3, 4, 6)


def synthetic(seed: int, parameters: int = 20, noise: float = 0.002) -> Table:
    """A space like that of expansions: more of each parameter costs more and helps, unevenly and with saturation."""
    rng = np.random.default_rng(seed)
    levels = len(EXPANSIONS)
    index = np.arange(parameters)
    help_of_levels = np.log1p(np.arange(levels)) + 0.4 * rng.normal(size=(parameters, levels))
    gain = rng.gamma(1.0, 1.0, parameters)[:, None] * np.sort(help_of_levels, axis=1)
    gain /= np.sqrt(gain.var(axis=1).sum())
    pairs = np.stack([rng.choice(parameters, 2, replace=False) for _ in range(2 * parameters)])
    interaction = 0.3 * rng.normal(size=(len(pairs), levels, levels)) / math.sqrt(len(pairs))
    weights = rng.gamma(1.0, 1.0, (2, parameters))
    cost = weights[:, :, None] * np.array(EXPANSIONS)
    base = weights.sum(axis=1) * np.array([0.05, 0.02])

    def quality(rows: NDArray[np.int64]) -> Array:
        both = interaction[np.arange(len(pairs)), rows[:, pairs[:, 0]], rows[:, pairs[:, 1]]]
        return np.asarray(gain[index, rows].sum(axis=1) + both.sum(axis=1))

    sample = quality(rng.integers(0, levels, (4000, parameters)))
    mean, std = float(sample.mean()), float(sample.std())

    def of_rows(rows: NDArray[np.int64]) -> Array:
        error = 0.05 + 0.1 * np.exp(-0.6 * (quality(rows) - mean) / std)
        return np.stack([error, *(np.log(base[k] + cost[k][index, rows].sum(axis=1)) for k in range(2))], axis=1)

    names = [f"expansion{i:02d}" for i in range(parameters)]
    place = {value: i for i, value in enumerate(EXPANSIONS)}
    remembered: dict[tuple[int, ...], Array] = {}

    def values(params: Params) -> Array:
        row = tuple(place[params[name]] for name in names)
        if row not in remembered:
            remembered[row] = of_rows(np.array([row]))[0]
        return remembered[row]

    def observed(params: Params, evaluation: int) -> Array:
        deviation = noise * np.random.default_rng([seed, evaluation]).standard_normal()
        return np.asarray(values(params) + np.array([deviation, 0.0, 0.0]))

    space: dict[str, BaseDistribution] = {name: CategoricalDistribution(EXPANSIONS) for name in names}
    return Table(space, values, observed, evolved_front(of_rows, parameters, levels))


def evolved_front(
    of_rows: Callable[[NDArray[np.int64]], Array], parameters: int, levels: int, generations: int = 400
) -> Array:
    """Non-dominated sorting, uniform crossover, one mutation on average; every front point that was ever met counts."""
    rng = np.random.default_rng(0)
    kept, children_per_generation = 400, 400
    rows = rng.integers(0, levels, (kept, parameters))
    values = of_rows(rows)
    archive = values
    for _ in range(generations):
        shape = (children_per_generation, parameters)
        mothers, fathers = (rows[rng.integers(0, len(rows), children_per_generation)] for _ in range(2))
        children = np.where(rng.random(shape) < 0.5, mothers, fathers)
        children = np.where(rng.random(shape) < 1.0 / parameters, rng.integers(0, levels, shape), children)
        rows = np.unique(np.concatenate([rows, children]), axis=0)
        values = of_rows(rows)
        archive = np.concatenate([archive, values])
        archive = archive[pareto.front_mask(archive)]
        rank = pareto.ranks(values)
        order: list[int] = []
        for level in range(int(rank.max()) + 1):
            members = np.flatnonzero(rank == level)
            order.extend(members[pareto.spread_order(values[members])].tolist())
            if len(order) >= kept:
                break
        rows = rows[order[:kept]]
    return np.asarray(np.unique(archive, axis=0))
