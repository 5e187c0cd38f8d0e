"""Networks of an earlier run: they teach, and keep to this search's limits."""

from dataclasses import replace

import pytest
from runs import begin, epoch

from nas.driver.prepare import cost_function
from nas.driver.run import Run
from nas.driver.sampler.registry import make_sampler
from nas.driver.settings import Settings
from nas.driver.warm_start import import_networks


def a_run(folder, settings, trials):
    study = begin(folder, settings)
    for _ in range(trials):
        candidate = study.propose()
        size = study.costs(candidate.architecture)["size"]
        study.record_epoch(candidate.number, epoch(1, size / (size + 5000)))
        study.complete(candidate.number)
    return study


@pytest.mark.parametrize("sampler", ["known-cost", "tpe"])
def test_a_network_over_the_limit_teaches_and_never_stands_on_the_front(tmp_path, small_space, sampler):
    settings = Settings(space=dict(small_space.document), objectives=("accuracy", "size"))
    a_run(tmp_path / "earlier", settings, 12)
    earlier = Run.open(tmp_path / "earlier")
    sizes = sorted({record.costs["size"] for record in earlier.records})
    limited = replace(settings, limits=(f"size<={sizes[len(sizes) // 2]:.0f}b",))
    (limit,) = limited.parsed_limits
    study = begin(tmp_path / "run", limited)
    study.study.sampler = make_sampler(
        sampler,
        space=small_space,
        objectives=limited.parsed_objectives,
        limits=limited.parsed_limits,
        costs=cost_function(10),
        seed=0,
    )
    trained = [record for record in earlier.records if not record.untrained]
    over = sum(record.costs["size"] > limit.value for record in trained)
    assert import_networks(earlier, study, tmp_path / "run") == (len(trained), over)
    assert 0 < over < len(trained)

    run = Run.open(tmp_path / "run")
    within = [record for record in run.records if record.costs["size"] <= limit.value]
    front = {record.number for record in within}  # here the larger is always the more accurate: none is dominated
    assert {record.number for record in run.front_records} == front
    assert len(run.records) == len(trained)  # those over the limit are there, with what they reached
    best = max(run.records, key=lambda record: record.accuracy)
    assert best.costs["size"] > limit.value and best.state == "complete"
    assert all(record.costs["size"] <= limit.value for record in [run.best()])

    candidate = study.propose()
    assert study.costs(candidate.architecture)["size"] <= limit.value
    assert candidate.architecture.id not in {record.architecture.id for record in trained}


@pytest.mark.parametrize("sampler", ["known-cost", "tpe"])
def test_balanced_accuracy_decides_where_it_is_the_objective(tmp_path, small_space, sampler):
    settings = Settings(space=dict(small_space.document), objectives=("balanced_accuracy", "size"), sampler=sampler)
    study = begin(tmp_path / "earlier", settings)
    for _ in range(8):
        candidate = study.propose()
        size = study.costs(candidate.architecture)["size"]
        balanced = {"balanced_accuracy": size / (size + 5000)}
        study.record_epoch(candidate.number, {**epoch(1, 1 - size / 1e6), **balanced})  # accuracy: the other way
        study.complete(candidate.number)
    earlier = Run.open(tmp_path / "earlier")
    by_size = sorted(earlier.records, key=lambda record: -record.costs["size"])
    assert earlier.front_records == [record for record in by_size if not record.untrained]
    assert earlier.best() == by_size[0]
    front = earlier.trials[earlier.trials["on_front"]]
    assert (front["balanced_accuracy"] == front["size_bytes"] / (front["size_bytes"] + 5000)).all()

    study = begin(tmp_path / "run", settings)
    assert import_networks(earlier, study, tmp_path / "run")[0] == len(earlier.front_records)
    ids = [record.architecture.id for record in Run.open(tmp_path / "run").front_records]
    assert ids == [record.architecture.id for record in earlier.front_records]


def test_a_run_that_knows_no_balanced_accuracy_teaches_none(tmp_path, small_space):
    settings = Settings(space=dict(small_space.document), objectives=("accuracy", "size"))
    a_run(tmp_path / "earlier", settings, 3)  # its epochs are those of an earlier version
    study = begin(tmp_path / "run", replace(settings, objectives=("balanced_accuracy", "size")))
    assert import_networks(Run.open(tmp_path / "earlier"), study, tmp_path / "run") == (0, 0)
