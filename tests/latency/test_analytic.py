"""Closed-form costs against built networks, torch's and thop's counters, and a traced graph's lifetimes."""

import statistics
import time

import numpy as np
import pytest
from checks import EVERYTHING, check_counts

import nas
from nas.architecture.catalogue import network_names, space_names
from nas.costs.analytic import cost, layers

SAMPLES = [(space, seed) for space in space_names() for seed in range(3)]


@pytest.mark.parametrize(("space", "seed"), SAMPLES)
def test_samples_of_the_shipped_spaces(space: str, seed: int) -> None:
    check_counts(nas.load_space(space).sample(seed), 10)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_every_block_and_option(norm: str) -> None:
    check_counts(nas.Architecture.from_dict({**EVERYTHING, "norm": norm}), 7)


def test_a_cost_takes_at_most_a_millisecond() -> None:
    rng = np.random.default_rng(0)
    spaces = [nas.load_space(name) for name in space_names()]
    networks = [space.sample(rng) for space in spaces for _ in range(25)] + [nas.load(n) for n in network_names()]
    seconds = []
    for network in networks:
        start = time.process_time()
        cost(network)
        seconds.append(time.process_time() - start)
    assert statistics.median(seconds) <= 0.001


def test_layers_are_in_order_and_placed() -> None:
    placed = layers(nas.load("kuo-standard"), 100)
    parts = list(dict.fromkeys(item.part for item in placed))
    assert parts == ["stem", *(f"stages[{index}]" for index in range(6)), "head"]
    assert placed[0].layer.macs == 56 * 56 * 3 * 16 * 9 == 1_354_752
    assert placed[-1].layer.params == 1280 * 100 + 100
