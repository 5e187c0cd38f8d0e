"""The region of the limits, in which a supernet's random members are drawn, and its training there."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import nas
from nas.architecture.space import Space
from nas.driver.cluster import Workers, ray_started
from nas.driver.objectives import parse_limit
from nas.driver.opened_supernet import doubt_about, open_supernet
from nas.driver.options import Resources
from nas.driver.prepare import Prepared, cost_function
from nas.driver.region import Region, allowed_networks, members_within
from nas.driver.settings import Settings
from nas.driver.supernet_training import Task, train, train_on_workers
from nas.errors import UserError
from nas.training.checkpoint import load_checkpoint, write_checkpoint
from nas.training.data import load_dataset
from nas.training.members import draw_members
from nas.training.recipe import Recipe

ONE_CPU = Workers(count=1, cpus=1, gpus=0)


def every_network(space: Space) -> list[nas.Architecture]:
    return list({each.id: each for each in map(space.sample, range(2_000))}.values())


def test_drawn_are_networks_within_the_limits_and_all_of_them(small_space: Space) -> None:
    networks = every_network(small_space)
    assert len(networks) == 36
    sizes = {each.id: nas.cost(each, 10).size_bytes for each in networks}
    for largest in (sorted(sizes.values())[2], sorted(sizes.values())[20]):
        limits = [parse_limit(f"size<={largest}b")]
        rng = np.random.default_rng(0)
        random = [small_space.sample_parameters(rng) for _ in range(400)]
        drawn = allowed_networks(small_space, limits, cost_function(10), random, rng)
        assert {each.id for each in drawn} == {id for id, size in sizes.items() if size <= largest}


def test_members_are_drawn_from_the_region(small_space: Space) -> None:
    region = Region(limits={"macs": sorted(nas.cost(each, 10).macs for each in every_network(small_space))[12]})
    within = members_within(region, small_space, cost_function(10), seed=0)
    macs = {each.id: nas.cost(each, 10).macs for each in within}
    members = draw_members(small_space, 100, np.random.default_rng(0), among=within)
    drawn = [macs[member.id] for member in members]
    assert min(drawn) == min(macs.values()) and max(drawn) == max(macs.values()) == region.limits["macs"]
    assert members_within(Region(), small_space, cost_function(10), seed=0) == []  # all of the space


def test_a_region_holds_what_stricter_searches_allow() -> None:
    trained = Region(limits={"size": 1e6, "latency": 5.0}, target="litert", device="Pi 4")
    assert trained.holds(trained)
    assert trained.holds(trained.model_copy(update={"limits": {"size": 5e5, "latency": 5.0, "macs": 1e6}}))
    assert not trained.holds(trained.model_copy(update={"limits": {"size": 5e5}}))
    assert not trained.holds(trained.model_copy(update={"limits": {"size": 2e6, "latency": 5.0}}))
    assert not trained.holds(trained.model_copy(update={"target": "torch"}))
    assert not trained.holds(trained.model_copy(update={"device": "Pi 5"}))
    assert Region().holds(trained)
    assert Region.read(None, "an older supernet") == Region()
    with pytest.raises(UserError, match=r"file: damaged: limits\.size"):
        Region.read({"limits": {"size": "small"}}, "file")


def test_a_search_with_looser_limits_is_told_so(
    small_space: Space, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = load_dataset("digits", train_size=100)
    recipe = Recipe(epochs=1, batch_size=32)
    region = Region(limits={"size": 10_000.0})
    task = Task(small_space, data, recipe, seed=0, region=region)
    ((epoch, epochs, content),) = train(task)
    assert (epoch.epoch, epochs) == (1, 1)
    file = tmp_path / "supernet.pt"
    write_checkpoint(file, content)
    settings = Settings(space=dict(small_space.document), evaluator="supernet", supernet=str(file))
    prepared = Prepared(settings, data, small_space, cost_function(10), [], None)
    caplog.set_level(logging.WARNING)
    for limits, said in ((("size<=9kB",), 0), (("size<=9kB", "size<=20kB"), 0), (("size<=20kB",), 1), ((), 1)):
        caplog.clear()
        open_supernet(replace(settings, limits=limits), prepared, tmp_path, ONE_CPU)
        assert caplog.text.count("trained within size<=0.01MB") == said == len(caplog.records)


def test_a_network_over_the_limits_does_not_tell_how_a_training_goes(
    small_space: Space, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = load_dataset("digits", train_size=100)
    recipe = Recipe(epochs=1, batch_size=32).to_dict()
    caplog.set_level(logging.INFO)
    for limits, said in ((("size<=9kB",), "its members have"), ((), "its largest network has")):
        settings = Settings(space=dict(small_space.document), evaluator="supernet", recipe=recipe, limits=limits)
        prepared = Prepared(settings, data, small_space, cost_function(10), [], None)
        (out := tmp_path / str(len(limits))).mkdir()
        open_supernet(settings, prepared, out, ONE_CPU)
        assert f"supernet: epoch 1 of 1, {said} " in caplog.text


def test_a_supernet_too_large_for_a_cpu_is_doubted() -> None:
    for name, doubted in (("inverted_residual", True), ("micro", False), ("efficientnet_lite", False)):
        assert bool(doubt_about(nas.load_space(name), "cpu")) == doubted
    doubt = doubt_about(nas.load_space("inverted_residual"), "cpu")
    assert "73 million" in doubt and "\n" not in doubt  # as docs/benchmarks.md has measured it
    assert doubt_about(nas.load_space("inverted_residual"), "cuda") == ""


NORMLESS = {
    "name": "normless",
    "input": {"channels": 1, "resolution": 8},
    "norm": "none",
    "stem": {"channels": {"choice": [4, 8]}},
    "stages": [{"block": "inverted_residual", "channels": 16, "stride": 2, "expansion": {"choice": [1, 2, 3]}}],
    "head": {"channels": {"choice": [0, 24]}},
}
"""Without batch normalisation, whose statistics are those of a process's own share."""


@pytest.mark.slow
@pytest.mark.usefixtures("own_ray")
def test_two_workers_train_as_one_process_with_the_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.driver.cluster.available_cores", lambda: [0, 1])
    recipe = Recipe(epochs=1, batch_size=64, lr=0.05, precision="fp32", flip="random", pad=1)
    task = Task(Space(NORMLESS), load_dataset("digits", train_size=128), recipe, seed=3)
    weights = []
    with ray_started(Resources(gpus_per_trial=0)):
        for steps in (train(task), train_on_workers(task, 2, device="cpu", cpus=1)):
            ((epoch, _, content),) = steps
            write_checkpoint(tmp_path / "supernet.pt", content)
            weights.append(load_checkpoint(tmp_path / "supernet.pt").weights)
            assert epoch.loss > 1
        too_few = replace(task, dataset=load_dataset("digits", train_size=60), recipe=replace(recipe, batch_size=2))
        with pytest.raises(UserError, match="2 processes"):
            list(train_on_workers(too_few, 2, device="cpu", cpus=1))
    alone, together = weights
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=0, atol=1e-5)
