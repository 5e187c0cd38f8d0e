"""Proposals of seeded studies, equal to those recorded in `recorded_decisions.json`.

Print the file again with `python tests/driver/sampler/test_recorded_decisions.py`, if decisions are to change.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from invented_problem import LARGE, LEVELS, Params, Space, error, size
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from nas.driver.sampler.known_cost import KnownCostSampler
from nas.driver.sampler.registry import PerTrialSampler

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

RECORD = Path(__file__).with_name("recorded_decisions.json")
LIMIT = 420.0  # of sizes from 210 to 1260: about one random point in 10^4 keeps it
MIXED: Space = {
    "lr": CategoricalDistribution([1e-4, 1e-3, 1e-2, 1e-1]),
    "width": CategoricalDistribution([2**n for n in range(3, 13)]),
    "depth": CategoricalDistribution(range(2, 21, 3)),
    "bias": CategoricalDistribution([False, True]),
    "t": CategoricalDistribution(LEVELS),
    "kind": CategoricalDistribution(["plain", "deep", "wide"]),
}


def mixed(params: Params) -> float:
    return abs(params["lr"] - 0.01) + 1.0 / params["width"] + 0.1 / params["depth"] + 0.1 * (params["kind"] == "wide")


def within_limit(params: Params) -> bool:
    return size(params) <= LIMIT


def proposals(
    sampler: optuna.samplers.BaseSampler, space: Space, values: Callable[[Params], list[float]], count: int
) -> list[list[Any]]:
    """Ask with three trials running; of eight trials one fails, one is pruned with values and one without."""
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    study.enqueue_trial(cheapest(space))
    running: list[optuna.Trial] = []

    def tell(trial: optuna.Trial) -> None:
        reached = values(trial.params)
        match trial.number % 8:
            case 3:
                study.tell(trial, state=TrialState.FAIL)
            case 5 | 6 as stopped:
                if stopped == 5:
                    worse = [reached[0] * 1.5, reached[1]]
                    trial.set_user_attr("partial", {"epoch": 2, "budget": 8, "values": worse})
                study.tell(trial, state=TrialState.PRUNED)
            case other:
                trial.set_constraint("limit", reached[0] - (12.0 if other else 1.0))
                study.tell(trial, reached)

    for _ in range(count):
        running.append(study.ask(space))
        if len(running) > 3:
            tell(running.pop(1))
    asked = [[trial.params[name] for name in sorted(space)] for trial in study.get_trials(deepcopy=False)]
    return [[float(f"{v:.6g}") if isinstance(v, float) else v for v in params] for params in asked]


def cheapest(space: Space) -> Params:
    return {name: d.choices[0] for name, d in space.items()}  # type: ignore[attr-defined]


def two(params: Params) -> list[float]:
    return [error(params), size(params)]


def known_cost_within_a_limit() -> list[list[Any]]:
    sampler = KnownCostSampler(
        known={1: size}, search_space=LARGE, seed=5, feasible=within_limit, allowed=[dict.fromkeys(LARGE, 1)]
    )
    return proposals(sampler, LARGE, two, 40)


def known_cost_of_mixed_parameters() -> list[list[Any]]:
    sampler = KnownCostSampler(known={1: lambda p: float(p["width"])}, search_space=MIXED, seed=6)
    return proposals(sampler, MIXED, lambda p: [mixed(p), float(p["width"])], 40)


def nothing_known() -> list[list[Any]]:
    space = {name: LARGE[name] for name in ("t00", "t01", "t02")}
    sampler = KnownCostSampler(search_space=space, seed=7, identity=lambda p: p["t00"] * p["t01"] + 100 * p["t02"])
    return proposals(sampler, space, two, 40)


def random_within_a_limit() -> list[list[Any]]:
    sampler = PerTrialSampler(
        lambda seed: optuna.samplers.RandomSampler(seed=seed),
        seed=8,
        search_space=LARGE,
        feasible=within_limit,
        allowed=[dict.fromkeys(LARGE, 1)],
    )
    return proposals(sampler, LARGE, two, 40)


STUDIES = (known_cost_within_a_limit, known_cost_of_mixed_parameters, nothing_known, random_within_a_limit)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.__name__)
def test_proposals_are_those_recorded(study: Callable[[], list[list[Any]]]) -> None:
    recorded = json.loads(RECORD.read_text())[study.__name__]
    assert len(recorded) == 40
    for number, (found, expected) in enumerate(zip(study(), recorded, strict=True)):
        assert found == expected, f"trial {number}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    lines = (f'"{study.__name__}": [\n' + ",\n".join(map(json.dumps, study())) + "\n]" for study in STUDIES)
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")
