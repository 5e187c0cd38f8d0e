"""Networks asked for by name: which they are, that they are trained whatever the limits, and never on the front."""

import itertools
import math
from pathlib import Path
from typing import get_args

import checks
import optuna
import pytest
import runs

import nas
from nas.architecture.document import Architecture
from nas.driver.asked import fit_space
from nas.driver.objectives import parse_limit, parse_objectives
from nas.driver.prepare import cost_function, queued
from nas.driver.references import in_time
from nas.driver.run import Run
from nas.driver.sampler.registry import make_sampler
from nas.driver.settings import Sampler, Settings
from nas.driver.stopping import DominanceStopping, rungs
from nas.driver.study import SearchStudy
from nas.driver.trial_scheduler import TrialScheduler
from nas.errors import UserError
from nas.report.summary import summary
from nas.training.data import load_dataset

EPOCHS = 6


def names_queued(space_name="inverted_residual", resolution=None, **options):
    digits = load_dataset("digits")
    space = fit_space(nas.load_space(space_name), digits, resolution)
    found = queued(Settings(space=dict(space.document), **options), space, digits)
    assert all(item.origin == "published" for item in found)
    return [item.architecture.name for item in found]


def test_the_references_of_the_first_command_hold_the_three_promised_networks():
    names = names_queued(trials=32)
    assert names[:2] == ["han-e", "mobilenetv2-cifar"]
    # The space's networks have 28 k to 73 M parameters at this input, their middle is above the largest PydMobileNets.
    assert names[2:4] == ["pydmobilenet-add-29-1", "pydmobilenet-concat-29-0.75"]
    # A fifth of the budget: two thinner ones, which fill the widest gaps of the line below them.
    assert names[4:] == ["pydmobilenet-add-29-0.25", "pydmobilenet-add-29-0.5"]


def test_what_the_space_contains_comes_after_the_references_up_to_a_fifth_of_the_budget():
    contained = set(names_queued(published="contained"))
    assert len(contained) == 8
    assert len(names_queued(trials=8)) == 4
    assert names_queued(trials=3) == ["han-e"]
    names = names_queued(trials=200)
    assert len(names) == 16 and set(names[10:]) == contained - {"han-e", "mobilenetv2-cifar"}


def test_the_line_is_as_long_as_asked_for_and_lies_where_networks_may_be():
    assert len(names_queued(trials=200, references=2)) == 12
    assert names_queued(trials=32, references=0)[4:] == ["han-d", "han-g"]
    assert len(names_queued(trials=20, references=30)) == 10  # half of the budget is the search's
    everything = names_queued(published="none", references=40, trials=100)
    thin = {f"{name}-{width}" for name in ("han-e", "mobilenetv2-cifar") for width in (0.25, 0.5, 0.75)}
    assert thin <= set(everything) and all(name.startswith("pydmobilenet-") for name in set(everything) - thin)
    # All are over this limit: the smallest are taken, though no proposal may be as large.
    line = names_queued(published="none", references=3, trials=100, limits=("params<=50k",))
    params = {name: nas.cost(network).params for name, network in all_thin().items()}
    assert line == sorted(params, key=params.__getitem__)[:3]


def test_the_resolution_of_references_follows_from_their_time():
    """Against all subsets at all resolutions: all networks at the largest side that allows it, else the most there are
    at the smallest side."""
    networks = [nas.load(f"mobilenetv1-{width}-224") for width in (0.25, 0.5, 0.75)]
    sides = (96, 128, 224)

    def macs(network):
        return float(nas.cost(network).macs)

    every = sorted(macs(each.with_input(resolution=side)) for each in networks for side in sides)
    for most in [0.0, *every, *(sum(pair) for pair in itertools.combinations(every, 3)), math.inf]:
        placed = {side: [macs(each.with_input(resolution=side)) for each in networks] for side in sides}
        whole = [side for side in sides if sum(placed[side]) <= most]
        subsets = [some for size in range(4) for some in itertools.combinations(placed[96], size) if sum(some) <= most]
        kept, side = in_time(networks, sides, macs, most)
        assert side == max(whole, default=96)
        assert len(kept) == (3 if whole else max(map(len, subsets)))
        assert sum(map(macs, kept)) <= most and all(each.input.resolution == side for each in kept)


def all_thin():
    """E and MobileNetV2 made thinner, and PydMobileNets but the narrowest, which are references of such a limit."""
    made = {}
    for name in ("han-e", "mobilenetv2-cifar"):
        document = nas.load(name).with_input(channels=1, resolution=8).to_dict()
        for width in (0.25, 0.5, 0.75):
            made[f"{name}-{width}"] = Architecture.from_dict({**document, "width": width})
    for name in ("add-29-0.5", "add-29-0.75", "add-29-1", "concat-29-0.5", "concat-29-0.75"):
        made[f"pydmobilenet-{name}"] = nas.load(f"pydmobilenet-{name}").with_input(channels=1, resolution=8)
    return made


@pytest.mark.parametrize(("limit", "most"), [("size<=180kB", 180e3), ("params<=100k", 4 * 100e3)])
def test_the_pydmobilenets_width_is_nearest_to_the_middle_below_the_limit(limit, most):
    digits = load_dataset("digits")
    space = fit_space(nas.load_space("inverted_residual"), digits)
    least = min(nas.cost(space.sample(seed)).size_bytes for seed in range(30))
    cheapest = {name: parameter.values[0] for name, parameter in space.parameters_by_name.items()}
    least = min(least, nas.cost(space.architecture(cheapest)).size_bytes)
    middle = math.sqrt(least * most)

    def nearest(kind):
        widths = [nas.load(f"pydmobilenet-{kind}-29-{width}") for width in ("0.25", "0.5", "0.75")]
        fitted = [network.with_input(channels=1, resolution=8) for network in widths]
        return min(fitted, key=lambda network: abs(math.log(nas.cost(network).size_bytes / middle))).name

    assert names_queued(limits=(limit,))[2:4] == [nearest("add"), nearest("concat")]


def test_large_images_have_the_mobilenetv2_of_large_images_and_no_network_of_small_ones():
    names = names_queued("mobilenet_v1", trials=5)
    assert names == ["mobilenetv2"]
    assert names_queued(resolution=96, trials=5)[:2] == ["han-e", "mobilenetv2"]


def test_published_networks_by_name():
    assert names_queued(published="han-b,pydmobilenet-add-56-1") == ["han-b", "pydmobilenet-add-56-1"]
    with pytest.raises(UserError, match="unknown published 'han-z'; allowed: references, contained, all, none, or"):
        Settings(space={}, published="han-b,han-z")
    with pytest.raises(UserError, match="--published mobilenetv1-shallow: its strides do not fit images of 8 pixels"):
        names_queued(published="mobilenetv1-shallow")


def epoch_of(epoch, accuracy):
    known = {"train_accuracy": accuracy, "loss": 1.0, "seconds": 1.0, "seconds_train": 0.9, "seconds_eval": 0.1}
    return {"epoch": {"epoch": epoch, "validation_accuracy": accuracy, **known}}


def search(study, trials, accuracy):
    """One worker, no Ray; returns how far each network came, by trial number."""
    scheduler = TrialScheduler(
        study, stopping=DominanceStopping(rungs(EPOCHS), 3), epochs=EPOCHS, trials=trials, max_failures=trials
    )
    reached = {}
    while candidate := scheduler.next_candidate():
        for epoch in range(1, EPOCHS + 1):
            reached[candidate.number] = epoch
            if scheduler.report(candidate.number, epoch_of(epoch, accuracy(candidate.architecture) * epoch / EPOCHS)):
                break
    return scheduler, reached


@pytest.fixture
def limited(tmp_path: Path, small_space):
    """A run with a limit, a network that the space contains over it, and a better one than all outside the space."""
    sizes = {seed: nas.cost(small_space.sample(seed)).size_bytes for seed in range(40)}
    largest = max(sizes, key=sizes.__getitem__)
    limit = sorted(sizes.values())[20]
    settings = Settings(
        space=dict(small_space.document), objectives=("accuracy", "size"), limits=(f"size<={limit}B",), trials=12
    )
    study = runs.begin(tmp_path, settings)
    large = Architecture.from_dict({**small_space.sample(largest).to_dict(), "name": "large"})
    document = {**small_space.sample(0).to_dict(), "name": "outside", "stages": small_space.document["stages"][:1]}
    document["stages"] = [{**document["stages"][0], "channels": 1, "expansion": 1}]
    for network in (large, Architecture.from_dict(document)):
        study.enqueue(network)
    # What is larger is better: no proposal dominates another, only the network outside dominates all.
    scheduler, reached = search(
        study, 12, lambda a: 0.99 if a.name in ("large", "outside") else nas.cost(a).size_bytes / 1e5
    )
    return scheduler, reached, Run.open(tmp_path), limit


def test_references_are_trained_whatever_the_limits_and_never_on_the_front(limited):
    _, reached, run, limit = limited
    large, outside = run.records[:2]
    assert [record.state for record in (large, outside)] == ["complete", "complete"]
    assert large.beside == f"over the limit {parse_limit(f'size<={limit}B').text}"
    assert outside.beside == "outside the space"
    kept = [r for r in run.records if r.state == "complete" and r.twin is None and r.number > 1]
    assert kept and all(record.costs["size"] <= limit for record in kept)
    places = {record.number: (record.accuracy, record.costs["size"]) for record in kept}
    front = {number for number, one in places.items() if not any(checks.dominates(o, one) for o in places.values())}
    assert {record.number for record in run.front_records} == front
    assert run.best().number in front
    # Nothing was stopped for the network outside, which is better than all of them at every epoch.
    assert set(reached.values()) == {EPOCHS}


def test_a_resumed_search_keeps_references_off_the_front(limited):
    scheduler, _, run, _ = limited
    again = TrialScheduler(scheduler.study, stopping=DominanceStopping(rungs(EPOCHS), 3), epochs=EPOCHS, trials=12)
    assert again.progress.front == scheduler.progress.front == len(run.front_records)
    assert again.progress.best_accuracy == max(record.accuracy for record in run.front_records)


def test_the_answer_says_of_references_whether_they_are_dominated(limited):
    _, _, run, _ = limited
    said = "large and outside are not dominated (nothing on the front is at once as accurate and small), but"
    assert said in summary(run)


@pytest.mark.parametrize("name", sorted(set(get_args(Sampler)) - {"known-cost", "random"}))
def test_optunas_samplers_still_search_all_parameters_beside_a_network_outside(small_space, name):
    """Theirs is the space that all trials share, and a network outside has no parameters."""
    objectives, costs = parse_objectives("accuracy,size"), cost_function(10)
    sampler = make_sampler(name, space=small_space, objectives=objectives, limits=(), costs=costs, seed=1)
    study = SearchStudy(
        optuna.create_study(sampler=sampler, directions=["maximize", "minimize"]),
        space=small_space,
        objectives=objectives,
        limits=(),
        costs=costs,
    )
    document = {**small_space.sample(0).to_dict(), "name": "outside", "stem": {"channels": 48}}
    assert [study.enqueue(Architecture.from_dict(document)) for _ in range(2)] == [True, False]
    search(study, 4, lambda a: nas.cost(a).size_bytes / 1e5)
    trial = study.study.ask({})
    found = sampler.infer_relative_search_space(study.study, study.study.get_trials(deepcopy=False)[trial.number])
    assert set(found) == set(small_space.parameters_by_name)
