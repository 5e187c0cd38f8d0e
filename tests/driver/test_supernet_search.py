"""Searches whose networks a supernet judges before they are trained."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from runs import begin
from scipy.stats import spearmanr

import nas
from nas.architecture.space import Space
from nas.driver.earlier_supernet import AS_INT8, TRUSTED, Known, known_members, supernet_file
from nas.driver.sampler.registry import make_sampler
from nas.driver.settings import Settings
from nas.driver.supernet import (
    Judged,
    best_of,
    corrected,
    correlation,
    enqueue_best,
    judge_members,
    spread_out,
    teach_sampler,
)
from nas.errors import UserError
from nas.latency import calibrate
from nas.report.comparison import render_comparison
from nas.training.checkpoint import load_checkpoint
from nas.training.data import load_dataset
from nas.training.supernet import TrainedSupernet, supernet_of

SPACE = """
name: tiny
input: {channels: 1, resolution: 8}
stem: {channels: 8}
stages:
  - {block: inverted_residual, channels: 8, expansion: {choice: [1, 2, 4]}, kernels: {choice: [[3], [5]]}}
  - {block: inverted_residual, channels: 16, stride: 2, expansion: {choice: [1, 2]}}
head: {channels: {choice: [0, 16]}}
"""
OPTIONS = {"objectives": ("accuracy", "size"), "epochs": 2, "train_size": 300, "published": "none", "references": 0}


@pytest.fixture
def space(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(SPACE)
    return file


def judged(accuracies: list[float], sizes: list[float]) -> list[Judged]:
    network = nas.load("han-e")
    return [Judged(network, a, [-a, size]) for a, size in zip(accuracies, sizes, strict=True)]


def test_the_probe_spans_the_accuracies_and_the_best_are_the_front() -> None:
    members = judged([0.1, 0.9, 0.5, 0.3, 0.7], [5, 4, 1, 2, 3])
    assert [each.accuracy for each in spread_out(members, 3)] == [0.1, 0.5, 0.9]
    assert {each.accuracy for each in best_of(members, 9)} == {0.5, 0.7, 0.9}
    assert len(best_of(members, 2)) == 2 and best_of(members, 0) == []
    assert best_of(members, 9, {members[0].architecture.id}) == []  # all are one network, which is trained


def test_trainings_correct_what_a_supernet_says_of_an_option_and_untrusted_it_is_forgotten(tmp_path: Path) -> None:
    settings = Settings(space=dict(Space(yaml.safe_load(SPACE)).document), objectives=("accuracy", "size"))
    study = begin(tmp_path / "run", settings)
    study.study.sampler = make_sampler(
        "known-cost", space=study.space, objectives=study.objectives, limits=(), costs=study.costs, seed=0
    )
    names = list(study.distributions)
    options = itertools.product(*(study.space.parameters_by_name[name].values for name in names))
    members = [study.space.architecture(dict(zip(names, each, strict=True))) for each in options]
    heads = np.array([bool(member.head_channels) for member in members])
    steps = np.array([member.stages[0].expansion + 2 * member.stages[1].expansion for member in members])
    truth, told = 0.5 + 0.05 * steps - 0.12 * heads, 0.5 + 0.05 * steps + 0.12 * heads
    judged = [Judged(m, a, [-a, study.costs(m)["size"]]) for m, a in zip(members, told.tolist(), strict=True)]
    assert corrected(study, judged) == judged  # nothing is trained yet
    for place in np.random.default_rng(0).permutation(len(members))[:8]:
        values = study.values(study.costs(members[place]), {"accuracy": truth[place]})
        params = study.space.parameters(members[place])
        study.study.add_trial(
            optuna.trial.create_trial(values=values, params=params, distributions=study.distributions)
        )
    by_trials = [each.losses for each in corrected(study, judged)]
    teach_sampler(study, judged)
    both = corrected(study, judged)
    assert spearmanr(told, truth).statistic < 0.5
    assert spearmanr([-each.losses[0] for each in both], truth).statistic > 0.95
    assert [(each.accuracy, each.losses[1]) for each in both] == [(each.accuracy, each.losses[1]) for each in judged]
    study.study.set_user_attr(TRUSTED, True)
    enqueue_best(study, judged, 20)
    queued = [trial for trial in study.study.get_trials() if trial.state == TrialState.WAITING]
    heads_queued = [trial.system_attrs["fixed_params"]["head.channels"] for trial in queued]
    assert 3 <= len(queued) <= 12 and not any(heads_queued)  # the supernet favours those with a head
    study.study.set_user_attr(TRUSTED, False)
    enqueue_best(study, judged, 20)
    assert [each.losses for each in corrected(study, judged)] == by_trials != [each.losses for each in both]
    assert len([trial for trial in study.study.get_trials() if trial.state == TrialState.WAITING]) == len(queued)


def members_of(run: nas.Run) -> dict[str, float]:
    """The accuracies of a run's members in the supernet, by id."""
    study = optuna.load_study(study_name=f"{run.study.study_name}-supernet", storage=run.study._storage)
    documents = [(trial.user_attrs["document"], trial.user_attrs["accuracy"]) for trial in study.trials]
    found = {nas.Architecture.from_dict(document).id: accuracy for document, accuracy in documents}
    assert len(found) == len(documents)  # none is judged twice
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("shared_ray")
def test_a_search_trains_what_the_supernet_judged_and_another_takes_its_supernet(space: Path, tmp_path: Path) -> None:
    run = nas.search(space, evaluator="supernet", trials=8, out=tmp_path / "run", **OPTIONS)
    told = [record for record in run.records if record.supernet_accuracy is not None]
    assert len(told) >= 4 and run.front_records and run.is_tested
    assert all(record.origin == "" for record in told)
    # Judged again, by hand.
    file = tmp_path / "run" / "supernet.pt"
    supernet, _ = supernet_of(load_checkpoint(file), "file")
    trained = TrainedSupernet(supernet, load_dataset("digits", train_size=300))
    assert trained.judge(told[0].architecture).accuracy == pytest.approx(told[0].supernet_accuracy, abs=0.03)
    pairs = [(r.supernet_accuracy, r.curve[-1]["accuracy"]) for r in told if r.state == "complete"]
    assert correlation(run.study) == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic, nan_ok=True)
    assert "A supernet judged" in nas.api.report(tmp_path / "run").read_text()

    before = file.stat().st_mtime_ns
    options = {**OPTIONS, "objectives": ("size", "accuracy")}
    other = nas.search(space, supernet=run.path, trials=2, out=tmp_path / "other", limits=["size<=8kB"], **options)
    assert file.stat().st_mtime_ns == before and not (tmp_path / "other" / "supernet.pt").exists()
    assert all(record.costs["size"] <= 8000 for record in other.front_records)
    assert sum(record.was_trained for record in other.records) == 2
    taken_over = {record.architecture.id: record.accuracy for record in other.records if record.was_imported}
    assert taken_over == {r.architecture.id: r.accuracy for r in run.records if r.state == "complete"}
    assert other.study.user_attrs["supernet_trusted"] == run.study.user_attrs["supernet_trusted"]
    first, second = (members_of(each) for each in (run, other))
    assert all(second[id] == accuracy for id, accuracy in first.items()) and len(second) <= len(first) + 20
    begun = nas.train(told[0].architecture, init=file, dataset="digits", epochs=1, train_size=300)
    assert begun.validation_accuracy > 0.1 and begun.initialised is not None

    (tmp_path / "wide.yaml").write_text(SPACE.replace("[1, 2, 4]", "[1, 2, 6]"))
    with pytest.raises(UserError, match=r"supernet of space tiny, where stages\[0\]\.expansion is never 6"):
        nas.search(tmp_path / "wide.yaml", supernet=file, trials=4, out=tmp_path / "no", **OPTIONS)
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_a_supernet_that_cannot_be_is_refused_before_anything_is_written(space: Path, tmp_path: Path) -> None:
    trained = nas.train("han-e", dataset="digits", epochs=1, train_size=100, resolution=8, out=tmp_path / "alone")
    assert trained is not None
    checkpoint = next((tmp_path / "alone").glob("*.pt"))
    with pytest.raises(UserError, match="an ordinary network, not a supernet"):
        nas.search(space, supernet=checkpoint, trials=4, out=tmp_path / "no", **OPTIONS)
    with pytest.raises(UserError, match=r"--supernet .*gone: no such file"):
        nas.search(space, supernet=tmp_path / "gone", trials=4, out=tmp_path / "no", **OPTIONS)
    with pytest.raises(UserError, match=r"evaluator"):
        nas.search(space, evaluator="guess", trials=4, out=tmp_path / "no", **OPTIONS)
    assert not (tmp_path / "no").exists()


def test_a_supernet_is_found_through_the_runs_that_took_it_over(tmp_path: Path) -> None:
    settings = Settings(space=dict(Space(yaml.safe_load(SPACE)).document), objectives=("accuracy", "size"))
    for name, supernet in {"a": None, "b": tmp_path / "a", "c": tmp_path / "b"}.items():
        begin(tmp_path / name, replace(settings, supernet=None if supernet is None else str(supernet)))
    with pytest.raises(UserError, match="c: a search without a supernet"):
        supernet_file(tmp_path / "c")
    (tmp_path / "a" / "supernet.pt").touch()
    assert supernet_file(tmp_path / "c") == supernet_file(tmp_path / "a" / "supernet.pt")
    begin(tmp_path / "round", replace(settings, supernet=str(tmp_path / "round")))
    with pytest.raises(UserError, match="round: a search without a supernet"):
        supernet_file(tmp_path / "round")


def test_members_judged_by_other_images_are_not_taken_over(tmp_path: Path) -> None:
    settings = Settings(space=dict(Space(yaml.safe_load(SPACE)).document), objectives=("accuracy", "size"))
    study = begin(tmp_path / "run", settings)
    members = optuna.create_study(study_name=f"{study.study.study_name}-supernet", storage=study.study._storage)
    document = study.space.sample(0).to_dict()
    members.add_trial(optuna.trial.create_trial(value=1, user_attrs={"document": document, "accuracy": 0.5}))
    run = nas.Run.open(tmp_path / "run")
    ((architecture, figures),) = known_members(run, replace(settings, limits=("size<=8kB",)))
    assert architecture == study.space.sample(0) and figures == {"accuracy": 0.5}
    assert known_members(run, replace(settings, seed=1)) == []
    int8 = replace(settings, target="onnxruntime-int8")
    assert known_members(run, int8) == []
    in_int8 = begin(tmp_path / "int8", int8).study  # an older version's, which judged in fp32
    storage = in_int8._storage
    others = optuna.create_study(study_name=f"{in_int8.study_name}-supernet", storage=storage)
    others.add_trial(optuna.trial.create_trial(value=1, user_attrs={"document": document, "accuracy": 0.5}))
    assert known_members(nas.Run.open(tmp_path / "int8"), int8) == []
    others.set_user_attr(AS_INT8, True)
    assert len(known_members(nas.Run.open(tmp_path / "int8"), int8)) == 1
    members.add_trial(optuna.trial.create_trial(value=1, user_attrs={"document": document, "accuracy": 5}))
    with pytest.raises(UserError, match="member 1: damaged"):
        known_members(nas.Run.open(tmp_path / "run"), settings)


def test_no_correlation_is_told_of_few_networks() -> None:
    assert math.isnan(correlation(optuna.create_study()))


@pytest.mark.slow
@pytest.mark.usefixtures("shared_ray")
def test_several_devices_are_a_run_each_and_train_no_network_twice(space: Path, tmp_path: Path) -> None:
    tables = [tmp_path / "pi.json", tmp_path / "phone.json"]
    made = calibrate(nas.load_space(space), num_classes=10, networks=8, isolate=False)
    for table in tables:
        made.save(table)
    options = {**OPTIONS, "objectives": ("accuracy", "latency"), "trials": 2, "out": tmp_path / "runs"}
    with pytest.raises(UserError, match="several latency tables make a run each"):
        nas.search(space, latency_table=tables, **options)
    with pytest.raises(UserError, match="two tables are called pi"):
        nas.api.search_devices(space, latency_table=[tables[0], tables[0]], **options)
    with pytest.raises(UserError, match=r"gone\.json"):
        nas.api.search_devices(space, latency_table=[tables[0], tmp_path / "gone.json"], **options)
    assert not (tmp_path / "runs").exists()

    pi, phone = nas.api.search_devices(space, latency_table=tables, **options)
    assert [run.path for run in (pi, phone)] == [tmp_path / "runs" / "pi", tmp_path / "runs" / "phone"]
    trained = {record.architecture.id for record in pi.records if record.state == "complete"}
    assert {record.architecture.id for record in phone.records if record.was_imported} == trained
    assert not trained & {record.architecture.id for record in phone.records if record.was_trained}
    for record in phone.front_records:
        assert record.costs["latency"] == pytest.approx(made.predict(record.architecture).value_ms)
    assert "its own device" in render_comparison([pi, phone])

    before = (phone.path / "study.journal").stat().st_mtime_ns
    again = nas.api.search_devices(space, latency_table=tables, **options)
    assert [len(run.records) for run in again] == [len(pi.records), len(phone.records)]
    assert (phone.path / "study.journal").stat().st_mtime_ns == before


def test_after_the_deadline_members_judged_before_are_all_there_are(tmp_path: Path) -> None:
    settings = Settings(space=dict(Space(yaml.safe_load(SPACE)).document), objectives=("accuracy", "size"))
    networks = list({each.id: each for each in map(settings.open_space().sample, range(6))}.values())
    sizes = {network.id: nas.cost(network, 10).size_bytes for network in networks}
    largest = max(sizes.values())
    study = begin(tmp_path / "run", replace(settings, limits=(f"size<={largest - 1}b",)))
    known = [Known(network, {"accuracy": 0.1 * place}) for place, network in enumerate(networks)]
    known += known[:1]
    nothing: Any = None
    supernet = TrainedSupernet(nothing, nothing)  # not asked
    for _ in range(2):  # the second time they are there already
        found = judge_members(study, supernet, RandomSampler(), 5, 10, known, deadline=0.0)
        assert {each.architecture.id for each in found} == {id for id, size in sizes.items() if size < largest}
        assert len(found) == len(sizes) - list(sizes.values()).count(largest) > 1
        for each in found:
            place = next(i for i, network in enumerate(networks) if network.id == each.architecture.id)
            assert each.losses == [-0.1 * place, sizes[each.architecture.id]]
