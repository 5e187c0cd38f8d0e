"""Targets: predicted bytes against recorded files and arenas, and what they refuse.

`recorded.json` holds what `benchmarks/targets.py` measured of networks of every block kind and shipped space.
"""

import json
from pathlib import Path

import pytest

import nas
from nas.errors import UserError
from nas.latency.table import space_id
from nas.latency_cli import _fitted
from nas.targets import TARGETS, restricted, target
from nas.targets.tflite import Buffer, arena_head, plan

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())
LOOSE = {"shuffle": 0.05, "separable": 0.03, "fire": 0.025}
"""Tolerance of a file's size where it is not 2 %: no shipped space has these blocks."""


def cases():
    return [
        pytest.param(
            nas.Architecture.from_dict(row["document"]), row["measured"], id=f"{index}-{row['document']['name']}"
        )
        for index, row in enumerate(RECORDED)
    ]


@pytest.mark.parametrize(("architecture", "measured"), cases())
def test_bytes_of_recorded_files(architecture, measured) -> None:
    kinds = {stage.block for stage in architecture.stages}
    tolerance = max([0.02, *(LOOSE[kind] for kind in kinds & set(LOOSE))])
    for name, bytes_there in measured.items():
        if name in TARGETS:
            assert target(name).size(architecture, 10) == pytest.approx(bytes_there, rel=tolerance), name
    if "arena" in measured:
        assert target("tflite-micro").memory(architecture, 10) == pytest.approx(measured["arena"], rel=0.05)
        assert arena_head(architecture, 10) == measured["arena_head"]  # the interpreter's own plan


def test_a_record_of_every_target() -> None:
    assert {name for row in RECORDED for name in row["measured"]} >= TARGETS.keys() - {"torch"}


def test_torch_is_what_papers_count() -> None:
    network = nas.load("han-e")
    counted = nas.cost(network, 10)
    assert target("torch").size(network, 10) == counted.size_bytes
    assert target("torch").memory(network, 10) == counted.peak_activation_bytes
    assert target("litert-int8").memory(network, 10) == counted.peak_activation_bytes // 4


def test_plan_places_the_largest_first_and_of_equals_the_later() -> None:
    # Three of one size in a chain: two are alive at once, and they alternate.
    assert plan([Buffer(16, 0, 0), Buffer(16, 0, 1), Buffer(16, 1, 1)], 2) == 32
    # The last of the equals lies beside the large one, so that the first finds no gap.
    large = [Buffer(12, 0, 2), Buffer(12, 1, 2), Buffer(12, 2, 3), Buffer(19, 3, 4)]
    assert plan(large, 5) == 43


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(UserError, match=r"unknown target 'tpu'; allowed: torch, onnxruntime, .*tflite-micro"):
        target("tpu")


def test_what_has_experts_does_not_run_on_litert() -> None:
    network = nas.load("kuo-se-condconv")
    assert "experts above 1" in (target("litert").objection(network) or "")
    assert target("onnxruntime-int8").objection(network) is None
    assert target("tflite-micro").objection(nas.load("han-e")) is None


def test_a_space_loses_its_experts() -> None:
    space = nas.load_space("inverted_residual")
    smaller, said = restricted(space, target("tflite-micro"))
    assert said.startswith("tflite-micro runs no experts above 1: the space loses them (stages[1].experts, ")
    assert "\n" not in said
    assert [p.name for p in smaller.parameters_by_name.values()] == [
        p.name for p in space.parameters_by_name.values() if not p.name.endswith("experts")
    ]
    assert all(target("litert").objection(smaller.sample(seed)) is None for seed in range(20))
    assert smaller.contains(nas.load("han-e"))
    calibrated = _fitted("inverted_residual", None, None, "litert-int8")  # or no search would take the table
    assert space_id(calibrated) == space_id(smaller.with_input(channels=3, resolution=32))
    for same, name in ((space, "torch"), (nas.load_space("micro"), "tflite-micro")):
        assert restricted(same, target(name)) == (same, "")


def test_a_space_of_experts_alone_is_refused() -> None:
    document = nas.load_space("inverted_residual").document
    stages = [{**document["stages"][0], "experts": {"choice": [2, 4]}}, *document["stages"][1:]]
    with pytest.raises(UserError, match=r"space inverted_residual: conditional convolutions .* do not run on litert"):
        restricted(nas.Space({**document, "stages": stages}), target("litert"))
