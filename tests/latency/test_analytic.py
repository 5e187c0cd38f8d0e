"""Closed-form costs against built networks, torch's and thop's counters, and a traced graph's lifetimes."""

import statistics
import time

import numpy as np
import pytest
from checks import EVERYTHING, check_counts, layers, reference_seconds
from shipping import KINDS, small
from torch import nn

import nas
from nas.architecture.catalogue import network_names, space_names
from nas.blocks.layers import CondConv2d
from nas.costs.analytic import cost, folded, parts
from nas.network.fold import fold

SAMPLES = [(space, seed) for space in space_names() for seed in range(3)]


@pytest.mark.parametrize(("space", "seed"), SAMPLES)
def test_samples_of_the_shipped_spaces(space: str, seed: int) -> None:
    check_counts(nas.load_space(space).sample(seed), 10)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_every_block_and_option(norm: str) -> None:
    check_counts(nas.Architecture.from_dict({**EVERYTHING, "norm": norm}), 7)


def test_a_cost_takes_at_most_a_millisecond() -> None:
    """On a Xeon's core; elsewhere as much as that takes for the reference's work."""
    rng = np.random.default_rng(0)
    spaces = [nas.load_space(name) for name in space_names()]
    networks = [space.sample(rng) for space in spaces for _ in range(25)] + [nas.load(n) for n in network_names()]
    seconds, reference = [], []
    for network in networks:
        reference.append(reference_seconds())
        start = time.process_time()
        cost(network)
        seconds.append(time.process_time() - start)
    assert statistics.median(seconds) <= 4 / 3 * statistics.median(reference)


def test_layers_are_in_order_and_placed() -> None:
    placed = layers(nas.load("kuo-standard"), 100)
    parts = list(dict.fromkeys(item.part for item in placed))
    assert parts == ["stem", *(f"stages[{index}]" for index in range(6)), "head"]
    assert placed[0].layer.macs == 56 * 56 * 3 * 16 * 9 == 1_354_752
    assert placed[-1].layer.params == 1280 * 100 + 100


@pytest.mark.parametrize("kind", [*KINDS, "everything"])
def test_folded_operators_are_the_layers_of_the_folded_network(kind: str) -> None:
    architecture = nas.Architecture.from_dict(EVERYTHING) if kind == "everything" else small(KINDS[kind])
    network = fold(nas.build(architecture, 7))
    plain = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    mixed = [layer for layer in network.modules() if isinstance(layer, CondConv2d)]
    routings = [layer.routing for layer in mixed]
    built = [(w.weight.numel(), 0 if w.bias is None else w.bias.numel()) for w in plain if w not in routings]
    built += [(layer.weight[0].numel(), layer.out_channels) for layer in mixed]  # `Shifted` by the norm
    recorded = []
    for part in parts(architecture, 7):
        for operator in folded(part):
            if operator.kind == "squeeze-excitation":
                channels, inner = operator.writes.channels, operator.width
                recorded += [(channels * inner, inner), (channels * inner, channels)]
            elif operator.weights:
                recorded.append((operator.weights, operator.biases))
    assert sorted(recorded) == sorted(built)
    norms = sum(operator.kind == "norm" for part in parts(architecture, 7) for operator in folded(part))
    assert norms == sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
