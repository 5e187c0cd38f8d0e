"""Studies of an invented problem, whose size is known and whose error is not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution

from nas import pareto

optuna.logging.set_verbosity(optuna.logging.ERROR)

Params = dict[str, Any]
Space = dict[str, BaseDistribution]

LEVELS = (1, 2, 3, 4, 6)
SMALL: Space = {f"t{i}": CategoricalDistribution(LEVELS) for i in range(4)}  # 625 points
LARGE: Space = {f"t{i:02d}": CategoricalDistribution(LEVELS) for i in range(20)}  # 9.5e13


def size(params: Params) -> float:
    return float(sum((i + 1) * value for i, (_, value) in enumerate(sorted(params.items()))))


def error(params: Params) -> float:
    values = [value for _, value in sorted(params.items())]
    main = sum(math.sqrt(value) * (1.0 + (i * 7 % 5)) for i, value in enumerate(values))
    return 10.0 * math.exp(-0.02 * main) + 0.05 * float(abs(values[0] - values[1]))


def run(
    sampler: optuna.samplers.BaseSampler,
    count: int,
    objective: Callable[[Params], Sequence[float]],
    space: Space,
    directions: Sequence[str] = ("minimize", "minimize"),
) -> optuna.Study:
    study = optuna.create_study(directions=list(directions), sampler=sampler)  # type: ignore[arg-type]
    extend(study, count, objective, space)
    return study


def extend(study: optuna.Study, count: int, objective: Callable[[Params], Sequence[float]], space: Space) -> None:
    for _ in range(count):
        trial = study.ask(space)
        study.tell(trial, [float(value) for value in objective(trial.params)])


def two(params: Params) -> tuple[float, float]:
    return error(params), size(params)


def all_params(study: optuna.Study) -> list[Params]:
    return [trial.params for trial in study.get_trials(deepcopy=False)]


def distinct(params: Sequence[Params]) -> int:
    return len({tuple(sorted(p.items())) for p in params})


def relative_hypervolume(study: optuna.Study) -> float:
    """That of the trials of `SMALL`, over that of its true front."""
    names = sorted(SMALL)
    table = np.array([two(dict(zip(names, v, strict=True))) for v in itertools.product(LEVELS, repeat=4)])
    front = table[pareto.front_mask(table)]
    low, high = front.min(axis=0), front.max(axis=0)
    found = np.array([two(p) for p in all_params(study)])
    return pareto.hypervolume((found - low) / (high - low), [1.1, 1.1]) / pareto.hypervolume(
        (front - low) / (high - low), [1.1, 1.1]
    )
