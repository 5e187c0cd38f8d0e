"""A Gaussian process over mixed parameters whose structure is chosen by its marginal likelihood.

The kernel is built on one similarity, a weighted mean over the parameters,

    k(x, x') = sum_p w_p s_p(x, x') / sum_p w_p,

where ``s_p`` compares one parameter: equal or not; for ordered ones also how near. Parameters that share their levels,
as those of a network's layers do, have one more ``s_p`` in common: how alike the counts of their levels are, wherever
these stand. On ``k`` stand, each with its own variance: main effects ``k``, pairwise interactions ``k^2`` (Duvenaud et
al., 2011, additive Gaussian processes), and the rest ``exp(g (k - 1))``, which is an exponential kernel of the weighted
Hamming distance. A linear and a smooth function of known quantities (log costs) are added where there are any.

Because every ``s_p`` has a small feature table, a kernel matrix is one matrix product, and the gradient of the marginal
likelihood towards all weights is another one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

from nas.driver.sampler.encoding import Array, Axis, Encoding, IntArray

_JITTER = 1e-8
_ALIKE = 3  # parameters with the same levels: so many may be one decision in several places


@dataclass(frozen=True)
class Features:
    """A set of points as the model takes them.

    Attributes:
        embedding: Shape (points, width); the inner products of one group of columns are one sub-kernel.
        costs: Standardised known quantities, shape (points, costs); zero columns when there are none.
    """

    embedding: Array
    costs: Array

    def __len__(self) -> int:
        return len(self.embedding)

    def take(self, index: IntArray) -> Features:
        return Features(self.embedding[index], self.costs[index])

    def joined(self, other: Features) -> Features:
        return Features(np.concatenate([self.embedding, other.embedding]), np.concatenate([self.costs, other.costs]))


class Featurizer:
    """Rows of an encoding -> features; the tables are built once per space.

    Attributes:
        group: The sub-kernel that each embedding column belongs to.
        prior: Expected logarithm of each sub-kernel's weight. Counts of n parameters weigh as much as the root of n of
            these: n times as much was better where only counts matter, and worse where every parameter differs.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._tables = [(i, table) for i, axis in enumerate(encoding.axes) for table in _tables(axis)]
        self._alike = _alike(encoding)
        widths = [table.shape[1] for _, table in self._tables] + [levels for _, levels in self._alike]
        self.group = np.repeat(np.arange(len(widths)), widths)
        self.prior = np.log([1.0] * len(self._tables) + [len(axes) ** 0.5 for axes, _ in self._alike])

    @property
    def kernels(self) -> int:
        return len(self.prior)

    def __call__(self, rows: Array) -> Array:
        """Shape (points, width)."""
        columns = [table[rows[:, i].astype(np.int64)] for i, table in self._tables]
        for axes, levels in self._alike:
            counts = (rows[:, axes, None] == np.arange(levels)).sum(axis=1).astype(np.float64)
            columns.append(counts / np.linalg.norm(counts, axis=1, keepdims=True))
        return np.concatenate(columns, axis=1) if columns else np.empty((len(rows), 0))


def _alike(encoding: Encoding) -> list[tuple[IntArray, int]]:
    """Find the parameters that share their levels: their positions, and the number of levels."""
    groups: dict[str, list[int]] = {}  # by what tells 1, 1.0 and True apart
    for i, axis in enumerate(encoding.axes):
        if len(axis.levels) > 1:
            groups.setdefault(repr(axis.levels), []).append(i)
    alike = [axes for axes in groups.values() if len(axes) >= _ALIKE]
    return [(np.array(axes), len(encoding.axes[axes[0]].levels)) for axes in alike]


def _tables(axis: Axis) -> list[Array]:
    """Make the feature tables of one parameter's sub-kernels; ``table @ table.T`` is the similarity of its levels."""
    if len(axis.levels) < 2:
        return []
    same = np.eye(len(axis.levels))
    if axis.positions is None or len(axis.levels) == 2:
        return [same]
    positions = np.array(axis.positions)
    return [same, _root(_matern(np.abs(positions[:, None] - positions)))]


def _matern(distance: Array) -> Array:
    scaled = np.sqrt(5.0) * distance
    return np.asarray((1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled))


def _root(matrix: Array) -> Array:
    """Factorise into few columns: eigenvectors whose share is beyond rounding."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > 1e-6 * values[-1]
    root = vectors[:, kept] * np.sqrt(values[kept])
    return np.asarray(root / np.linalg.norm(root, axis=1, keepdims=True))


# Hyperparameters, all as logarithms, in this order, followed by one weight per sub-kernel. The priors are wide normal
# ones for standardised targets.
_MAIN, _PAIRS, _REST, _DECAY, _LINEAR, _SMOOTH, _LENGTH, _NOISE = range(8)
_PRIOR_MEAN = np.log([0.5, 0.2, 0.1, 4.0, 0.5, 0.2, 1.0, 0.02])
_PRIOR_STD = np.array([1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 0.5, 1.5])
_WEIGHT_STD = 1.0


def square_distance(a: Array, b: Array) -> Array:
    """Compute squared Euclidean distances, shape (len(a), len(b))."""
    return np.asarray(np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * a @ b.T, 0.0))


def _same(a: Features, b: Features) -> Array:
    """Return 1 where two points are one, shape (len(a), len(b)); else 0."""
    distance = square_distance(a.embedding, b.embedding) + square_distance(a.costs, b.costs)
    return (distance < 1e-9).astype(np.float64)


def fit_hyperparameters(
    features: Features,
    targets: Array,
    extra: Array,
    group: IntArray,
    prior: Array,
    start: Array | None = None,
    iterations: int = 30,
) -> tuple[Array, float]:
    """Find the maximum a posteriori hyperparameters, and return their log posterior too.

    Args:
        features: Of the observations.
        targets: Standardised, shape (n,).
        extra: Covariance that is added as it is, shape (n, n): that of stopped trials.
        group, prior: As of the :class:`Featurizer`.
    """
    kernels = len(prior)
    prior_mean = np.concatenate([_PRIOR_MEAN, prior])
    prior_std = np.concatenate([_PRIOR_STD, np.full(kernels, _WEIGHT_STD)])
    embedding, costs = features.embedding, features.costs
    n = len(targets)
    square = square_distance(costs, costs)
    linear = costs @ costs.T
    has_costs = costs.shape[1] > 0
    one_hot = np.zeros((len(group), kernels))
    one_hot[np.arange(len(group)), group] = 1.0

    def negative_log_posterior(theta: Array) -> tuple[float, Array]:
        t = np.exp(theta[:8])
        weights = np.exp(theta[8:])
        total = weights.sum()
        k = (embedding * (weights / total)[group]) @ embedding.T if kernels else np.zeros((n, n))
        rest = t[_REST] * np.exp(t[_DECAY] * (k - 1.0))
        main, pairs = t[_MAIN] * k, t[_PAIRS] * k * k
        matrix = rest + main + pairs + extra
        if has_costs:
            smooth = t[_SMOOTH] * np.exp(-0.5 * square / t[_LENGTH] ** 2)
            matrix = matrix + smooth + t[_LINEAR] * linear
        matrix.flat[:: n + 1] += t[_NOISE] + _JITTER
        try:
            lower = np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        inverse = cho_solve((lower, True), np.eye(n), check_finite=False)
        alpha = inverse @ targets
        deviation = (theta - prior_mean) / prior_std
        value = 0.5 * targets @ alpha + np.log(np.diag(lower)).sum() + 0.5 * deviation @ deviation
        slope = 0.5 * (inverse - np.outer(alpha, alpha))  # of the value towards each entry of the matrix
        gradient = deviation / prior_std
        gradient[_MAIN] += np.vdot(slope, main)
        gradient[_PAIRS] += np.vdot(slope, pairs)
        gradient[_REST] += np.vdot(slope, rest)
        gradient[_DECAY] += np.vdot(slope, rest * (k - 1.0)) * t[_DECAY]
        gradient[_NOISE] += np.trace(slope) * t[_NOISE]
        if has_costs:
            gradient[_LINEAR] += np.vdot(slope, linear) * t[_LINEAR]
            gradient[_SMOOTH] += np.vdot(slope, smooth)
            gradient[_LENGTH] += np.vdot(slope, smooth * square) / t[_LENGTH] ** 2
        if kernels:
            towards_k = slope * (t[_MAIN] + 2.0 * t[_PAIRS] * k + t[_DECAY] * rest)
            per_column = ((towards_k @ embedding) * embedding).sum(axis=0)
            share = weights / total
            gradient[8:] += share * (per_column @ one_hot - np.vdot(towards_k, k))
        return float(value), gradient

    result = minimize(
        negative_log_posterior,
        prior_mean if start is None else start,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(prior_mean - 4.0 * prior_std, prior_mean + 4.0 * prior_std, strict=True)),
        options={"maxiter": iterations, "maxcor": 12},
    )
    return np.asarray(result.x), -float(result.fun)


class GaussianProcess:
    """Posterior given hyperparameters (logarithms). Targets are standardised by the caller."""

    def __init__(self, theta: Array, group: IntArray, features: Features, targets: Array, extra: Array) -> None:
        weights = np.exp(theta[8:])
        self._scale = np.sqrt(weights / weights.sum())[group]
        self._strengths = np.exp(theta[:8])
        self._features = self._projected(features)
        matrix = self._kernel(self._features, self._features) + extra
        matrix.flat[:: len(targets) + 1] += self._strengths[_NOISE] + _JITTER
        self._lower = np.linalg.cholesky(matrix)
        self._alpha = cho_solve((self._lower, True), targets, check_finite=False)

    def predict(self, features: Features) -> tuple[Array, Array]:
        """Compute mean and standard deviation of the noise-free function, each of shape (points,)."""
        projected = self._projected(features)
        cross = self._kernel(self._features, projected)
        mean = self._alpha @ cross
        solved = solve_triangular(self._lower, cross, lower=True, check_finite=False, overwrite_b=True)
        t = self._strengths
        variance = np.full(len(features), t[_MAIN] + t[_PAIRS] + t[_REST])
        if features.costs.shape[1]:
            variance += t[_SMOOTH] + t[_LINEAR] * (features.costs**2).sum(axis=1)
        variance -= np.einsum("ij,ij->j", solved, solved)
        return mean, np.sqrt(np.maximum(variance, 1e-10))

    @property
    def noise(self) -> float:
        """Standard deviation of one observation, in units of the targets."""
        return float(np.sqrt(self._strengths[_NOISE]))

    def sample(self, features: Features, draws: int, rng: np.random.Generator, own: float = 0.0) -> Array:
        """Draw the noise-free function at some points together, shape (draws, points).

        Args:
            own: Share of the noise's variance that is no noise, but a point's own deviation from the model.
        """
        projected, own_variance = self._projected(features), own * self._strengths[_NOISE]
        cross = self._kernel(self._features, projected) + own_variance * _same(self._features, projected)
        solved = solve_triangular(self._lower, cross, lower=True, check_finite=False)
        prior = self._kernel(projected, projected) + own_variance * _same(projected, projected)
        covariance = prior - solved.T @ solved
        values, vectors = np.linalg.eigh(covariance)  # it is singular where points are equal
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return np.asarray(self._alpha @ cross + rng.standard_normal((draws, len(features))) @ root.T)

    def _projected(self, features: Features) -> Features:
        return Features(features.embedding * self._scale, features.costs)

    def _kernel(self, a: Features, b: Features) -> Array:
        """Compute the kernel matrix of projected features, shape (len(a), len(b))."""
        t = self._strengths
        k = a.embedding @ b.embedding.T
        matrix = np.exp(t[_DECAY] * (k - 1.0))
        matrix *= t[_REST]
        matrix += k * (t[_MAIN] + t[_PAIRS] * k)
        if a.costs.shape[1]:
            matrix += t[_LINEAR] * (a.costs @ b.costs.T)
            matrix += t[_SMOOTH] * np.exp(-0.5 / t[_LENGTH] ** 2 * square_distance(a.costs, b.costs))
        return np.asarray(matrix)
