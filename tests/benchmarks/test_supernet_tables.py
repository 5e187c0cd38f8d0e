"""Tables of a supernet's benchmark: invented rows whose figures are known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nas

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import supernet  # noqa: E402
from supernet_tables import concordance, judge  # noqa: E402

MEMBERS = 12


def test_only_pairs_of_like_cost_count() -> None:
    macs = [1e6, 1.5e6, 4e6, 5e6]  # two pairs within a factor of 2
    assert concordance([1, 2, 4, 3], [1, 2, 3, 4], macs) == (0.0, 2)
    assert concordance([4, 5, 1, 2], [1, 2, 3, 4], macs) == (1.0, 2)


@pytest.fixture(scope="module")
def printed() -> list[str]:
    """What is said of a first supernet that is right of every member, and of one that is wrong of every pair."""
    space = nas.load_space(str(BENCHMARKS / "supernet_space.yaml")).with_input(channels=3, resolution=16)
    members = supernet.draw_members(space, MEMBERS)
    truth = np.linspace(0.4, 0.6, MEMBERS)[np.random.default_rng(0).permutation(MEMBERS)].tolist()
    known: dict[str, Any] = {}
    for number, (member, accuracy) in enumerate(zip(members, truth, strict=True)):
        counts = nas.cost(member, 10)
        costs = {"params": counts.params, "macs": counts.macs}
        known[f"alone 0 {number}"] = {"accuracy": accuracy, "seconds": 10.0, **costs}
        known[f"short {number}"] = {"accuracy": accuracy, "seconds": 2.0, "gradient": -accuracy}
    int8 = {"file": truth[:6], "simulated": [a - 0.01 for a in truth[:6]]}
    int8 |= {"seconds_simulated": [1.0] * 6, "seconds_file": [2.0] * 6}
    begun = [[accuracy + 0.02, 2.0] for accuracy in truth]
    judged = {"seconds": 40.0, "judged": truth, "seconds_judging": 6.0, "int8": int8, "begun": begun}
    known |= {"supernet": judged, "another seed": {"seconds": 50.0, "judged": [-a for a in truth]}}
    known["steps"] = [[0.02, 0.01, 0.01], [0.04, 0.01, 0.01]]
    lines: list[str] = []
    judge(known, space, members, [arm.name for arm in supernet.arms(10)], 1, lambda line="": lines.append(line))
    return lines


@pytest.mark.parametrize(
    "line",
    [
        "supernet                   4.0     1.00      1.00       1.00",
        "another seed               5.0    -1.00     -1.00      -1.00",
        "short                      2.4     1.00      1.00       1.00",
        "gradient norm                     -1.00     -1.00      -1.00",
        "all            n = 12: mean +2.0 points, [+2.0, +2.0]",
        "from the supernet's weights in 20% of the epochs (20% of the seconds), against fresh ones in all epochs:",
        "simulated int8   1.00 points off, at most 1.00; Kendall 1.00",
        "a member in int8: 1.00 s simulated, 2.00 s by its file",
        "share of the ideal: 37.5 [25, 50] %",
        "of these the supernet tells: correlation 1.00",
    ],
)
def test_a_table_says(printed: list[str], line: str) -> None:
    assert line in printed


def test_every_way_to_guess_is_ranked_by_the_model_too(printed: list[str]) -> None:
    begins = printed.index(next(line for line in printed if line.startswith("4 members ranked, 8 others trained")))
    rows = [line[:22].strip() for line in printed[begins + 2 : begins + 10]]
    arms = ["supernet", "another seed", "short"]
    assert rows == ["MACs", *arms, *(f"model, {name}" for name in arms), "model alone"]
