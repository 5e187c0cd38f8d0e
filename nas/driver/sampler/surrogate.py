"""From observations to predictions: the scale on which an objective is modelled, and when its model is refitted.

An error rate is skewed: a few broken networks, many good ones that differ little. Modelled as it is, the broken ones
decide the fit. So ``log(y - shift)`` is tried beside ``y`` itself; the marginal likelihood of ``y`` chooses (Snelson
et al., 2004, warped Gaussian processes).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import block_diag

from nas.driver.sampler import ehvi
from nas.driver.sampler.encoding import Array, IntArray
from nas.driver.sampler.gp import Features, Featurizer, GaussianProcess, fit_hyperparameters

#: Strengths of the log scale: shift = min(y) - strength * interquartile range; infinity is y as it is.
_WARPS = (np.inf, 1.0, 0.3)
_FIT_POINTS = 200  # hyperparameters are fitted to at most this many observations: they need no more, and it is n^3
_MODEL_POINTS = 300  # the posterior is conditioned on at most this many
_SCALE_POINTS = 80
_REFINEMENTS = 15
_FIRST_FITS = 40  # up to here hyperparameters are fitted with every observation, then with every 20% more
_GROWTH = 1.2
_REMEMBERED = 32  # fits; a study of four objectives needs some ten at a time
_FEW = 4  # with fewer observations there is no scale to choose

# A trial stopped h halvings before its end (see history.Partial) is off by an unknown multiple of h that all share,
# plus its own deviation; both as variances in units of the standardised objective, per halving.
_SHARED_LAG, _OWN_LAG = 0.5, 0.15


@dataclass(frozen=True)
class Observations:
    """Finished and stopped trials, oldest first.

    Attributes:
        features: Of n points.
        values: One objective, minimised, shape (n,).
        lags: Halvings before the end, shape (n,); 0 for trials that ran to their end.
        variances: Of the values, as far as they are known beforehand, shape (n,); what is not is fitted.
    """

    features: Features
    values: Array
    lags: Array
    variances: Array | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: IntArray) -> Observations:
        variances = None if self.variances is None else self.variances[index]
        return Observations(self.features.take(index), self.values[index], self.lags[index], variances)

    def covariance(self, scale: Scale) -> Array:
        """Compute what is known of the errors' covariance: that of lags and of measuring, in units of the scale."""
        lags = _SHARED_LAG * np.outer(self.lags, self.lags) + np.diag(_OWN_LAG * self.lags)
        return lags if self.variances is None else lags + np.diag(self.variances / scale.slope(self.values) ** 2)


@dataclass(frozen=True)
class Scale:
    """A monotone map of one objective to zero mean and unit variance."""

    shift: float | None
    mean: float
    std: float

    @staticmethod
    def of(values: Array, strength: float) -> Scale:
        shift = None
        if np.isfinite(strength):
            low, high = np.percentile(values, [25, 75])
            width = float(high - low) or float(np.ptp(values)) or 1.0
            shift = float(values.min()) - strength * width
        raw = values if shift is None else np.log(values - shift)
        return Scale(shift, float(raw.mean()), float(raw.std()) or 1.0)

    def forward(self, values: Array) -> Array:
        raw = values if self.shift is None else np.log(values - self.shift)
        return np.asarray((raw - self.mean) / self.std)

    def backward(self, scaled: Array) -> Array:
        raw = self.mean + self.std * scaled
        return np.asarray(raw if self.shift is None else self.shift + np.exp(np.minimum(raw, 700.0)))

    def slope(self, values: Array) -> Array:
        """Return how much the objective changes per unit of this scale."""
        return self.std * (np.ones(len(values)) if self.shift is None else values - self.shift)

    def log_slope(self, values: Array) -> float:
        """Sum the logarithms of the map's derivative: makes likelihoods on different scales comparable."""
        own = 0.0 if self.shift is None else -float(np.log(values - self.shift).sum())
        return own - len(values) * float(np.log(self.std))


@dataclass(frozen=True)
class Hyperparameters:
    """Scale and kernel as chosen by the marginal likelihood, with the standardisation of the costs."""

    strength: float
    theta: Array
    center: Array
    width: Array

    def standardised(self, features: Features) -> Features:
        return Features(features.embedding, (features.costs - self.center) / self.width)


@dataclass(frozen=True)
class Posterior:
    """Predictions at some points: normal, or ``shift + exp(normal)``; mean and std of the normal, shape (points,)."""

    mean: Array
    std: Array
    shift: float | None

    @property
    def shortfall(self) -> ehvi.Shortfall:
        if self.shift is None:
            return ehvi.normal(self.mean, self.std)
        return ehvi.shifted_lognormal(self.mean, self.std, self.shift)

    @property
    def median(self) -> Array:
        return self.mean if self.shift is None else np.asarray(self.shift + np.exp(np.minimum(self.mean, 700.0)))


@dataclass(frozen=True)
class Surrogate:
    """The posterior of one objective."""

    scale: Scale
    fit: Hyperparameters
    process: GaussianProcess

    def at(self, features: Features) -> Posterior:
        """Predict the objective at some points."""
        mean, std = self.process.predict(self.fit.standardised(features))
        return Posterior(self.scale.mean + self.scale.std * mean, self.scale.std * std, self.scale.shift)

    def sample(self, features: Features, draws: int, rng: np.random.Generator, own: float = 0.0) -> Array:
        """Draw the noise-free objective at some points together, shape (draws, points); `own` as of the process."""
        return self.scale.backward(self.process.sample(self.fit.standardised(features), draws, rng, own))

    def noise_at(self, values: Array) -> Array:
        """Return the fitted standard deviation of one observation where the objective has these values."""
        return self.process.noise * np.abs(self.scale.slope(values))


class SurrogateFitter:
    """Fits surrogates.

    It remembers hyperparameters by the data that they were fitted to, so that a remembered fit and a new one are the
    same: what it holds is a cache and not a state.
    """

    def __init__(self, featurizer: Featurizer) -> None:
        self._featurizer = featurizer
        self._fits: dict[tuple[bytes, ...], Hyperparameters] = {}

    def __call__(self, seen: Observations, pending: Features, warps: tuple[float, ...] = _WARPS) -> Surrogate:
        """Fit the posterior given ``seen``.

        At ``pending`` points (running trials) the uncertainty is lowered, the mean is not changed (kriging believer,
        Ginsbourger et al., 2010).

        Raises:
            ValueError: Nothing has been seen.
        """
        if len(seen) == 0:
            raise ValueError("a prediction needs at least one observation")
        fit = self._fitted(seen.take(thin(fit_size(len(seen)), _FIT_POINTS)), warps)
        used = seen.take(thin(len(seen), _MODEL_POINTS))
        scale = Scale.of(used.values, fit.strength)
        features, targets, extra = fit.standardised(used.features), scale.forward(used.values), used.covariance(scale)
        process = GaussianProcess(fit.theta, self._featurizer.group, features, targets, extra)
        if len(pending):
            pending = fit.standardised(pending)
            believed, _ = process.predict(pending)
            features, targets = features.joined(pending), np.concatenate([targets, believed])
            extra = block_diag(extra, np.zeros((len(pending), len(pending))))
            process = GaussianProcess(fit.theta, self._featurizer.group, features, targets, extra)
        return Surrogate(scale, fit, process)

    def _fitted(self, seen: Observations, warps: tuple[float, ...]) -> Hyperparameters:
        known = np.zeros(0) if seen.variances is None else seen.variances
        parts = (seen.features.embedding, seen.features.costs, seen.values, seen.lags, known, np.array(warps))
        key = tuple(part.tobytes() for part in parts)
        if key not in self._fits:
            if len(self._fits) >= _REMEMBERED:
                del self._fits[next(iter(self._fits))]
            self._fits[key] = _fit(seen, warps, self._featurizer)
        return self._fits[key]


def _fit(seen: Observations, warps: tuple[float, ...], featurizer: Featurizer) -> Hyperparameters:
    width = seen.features.costs.std(axis=0)
    width[width == 0.0] = 1.0
    plain = Hyperparameters(np.inf, np.zeros(0), seen.features.costs.mean(axis=0), width)
    seen = replace(seen, features=plain.standardised(seen.features))
    # The scale shows in fewer observations than the weights of many parameters, and n^3 is dear three times over.
    some = seen.take(thin(len(seen), _SCALE_POINTS))
    fits = [_fit_on_scale(some, strength, featurizer) for strength in (warps if len(seen) >= _FEW else warps[:1])]
    _, best = max(fits, key=lambda fit: fit[0])
    if len(some) < len(seen):
        _, best = _fit_on_scale(seen, best[0], featurizer, start=best[1], iterations=_REFINEMENTS)
    return replace(plain, strength=best[0], theta=best[1])


def _fit_on_scale(
    seen: Observations, strength: float, featurizer: Featurizer, start: Array | None = None, iterations: int = 30
) -> tuple[float, tuple[float, Array]]:
    """Fit on one scale; return the evidence on the scale of the objective itself, and what reaches it."""
    scale = Scale.of(seen.values, strength)
    targets = scale.forward(seen.values)
    group, prior, extra = featurizer.group, featurizer.prior, seen.covariance(scale)
    theta, evidence = fit_hyperparameters(seen.features, targets, extra, group, prior, start, iterations)
    return evidence + scale.log_slope(seen.values), (strength, theta)


def fit_size(count: int) -> int:
    """Return how many of the first observations to fit hyperparameters to; a function of the count alone."""
    if count <= _FIRST_FITS:
        return count
    exponent = int(np.floor(np.log(count / _FIRST_FITS) / np.log(_GROWTH) + 1e-9))
    return min(int(_FIRST_FITS * _GROWTH**exponent), count)


def thin(count: int, limit: int) -> IntArray:
    """Choose at most ``limit`` of ``count`` observations.

    The newest half, which lies near the front, and an even choice of the older ones.
    """
    if count <= limit:
        return np.arange(count)
    recent = limit // 2
    older = np.linspace(0, count - recent - 1, limit - recent).round().astype(np.int64)
    return np.concatenate([older, np.arange(count - recent, count)])
