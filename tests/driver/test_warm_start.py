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
