"""A search with another device's table, which does not know every layer of a network that was asked for by name."""

from pathlib import Path

import runs
from timings import SPACE, groups, table_of

from nas.architecture.document import Architecture
from nas.driver.prepare import cost_function, latency_model
from nas.driver.run import Run
from nas.driver.settings import Settings
from nas.driver.stopping import DominanceStopping
from nas.driver.study import SearchStudy
from nas.driver.trial_scheduler import TrialScheduler
from nas.latency.layers import segments
from nas.latency.model import kinds_of


def test_a_network_of_unknown_latency_is_trained_beside_the_search(tmp_path: Path) -> None:
    document = {**SPACE.sample(0).to_dict(), "name": "strange"}
    strange = Architecture.from_dict({**document, "stages": [{"block": "conv", "channels": 8, "kernel": 7}]})
    costs = cost_function(10, latency_model(table_of(groups()), [strange], 10, here=False))
    assert "latency" not in costs(strange)
    assert costs(SPACE.sample(0))["latency"] > 0
    settings = Settings(
        space=dict(SPACE.document), objectives=("accuracy", "latency"), limits=("latency<=100ms",), trials=4
    )
    begun = runs.begin(tmp_path, settings)
    study = SearchStudy(begun.study, space=SPACE, objectives=begun.objectives, limits=begun.limits, costs=costs)
    study.enqueue(strange)
    scheduler = TrialScheduler(study, stopping=DominanceStopping((), 1), epochs=1, trials=4)
    while candidate := scheduler.next_candidate():
        epoch = {**runs.epoch(1, 0.9), "validation_accuracy": 0.9}
        scheduler.report(candidate.number, {"epoch": epoch})
    record, *others = Run.open(tmp_path).records
    assert (record.state, record.on_front, record.costs.get("latency")) == ("complete", False, None)
    assert record.beside == "outside the space, its latency is not known, not known to keep latency<=100ms"
    assert any(other.on_front for other in others)


def test_a_pooling_of_a_side_that_was_not_timed_has_the_nearest_ones_price() -> None:
    table = table_of(groups())
    timed, larger = SPACE.sample(0), SPACE.sample(0).with_input(resolution=12)  # pools 6x6 pixels instead of 4x4
    tail = segments(larger, 10)[-1]
    assert not kinds_of([tail]) <= table.prices.keys()
    assert table.knows(tail)
    assert 0 < table.predict(timed).value_ms < table.predict(larger).value_ms
