"""A search whose trials draw their own validation images."""

import pytest
from commands import SPACE

import nas
from nas.errors import UserError
from nas.training.checkpoint import load_checkpoint


@pytest.mark.slow
@pytest.mark.usefixtures("shared_ray")
def test_each_network_is_judged_by_images_that_it_was_not_trained_on(tmp_path):
    options = {"objectives": ("accuracy", "size"), "published": "none", "epochs": 2, "keep": "all", "resplit": True}
    run = nas.search(nas.Space(SPACE), trials=3, **options, out=tmp_path / "run")
    seeds = set()
    for record in run.records:
        file = run.checkpoint(record)
        seeds.add(load_checkpoint(file).split["seed"])
        # loads the data set afresh, and divides it as the checkpoint says
        found = nas.evaluate(file)
        assert found["validation_accuracy"] == pytest.approx(record.accuracy, abs=1e-6)
        if record.on_front:
            assert found["test_accuracy"] == record.confirmed["test_accuracy"]
    assert len(seeds) == len(run.records) == 3
    assert nas.open_run(run.path).settings.resplit
    with pytest.raises(UserError, match="its resplit is another one"):
        nas.search(nas.Space(SPACE), **options | {"resplit": False}, warm_start=run.path, out=tmp_path / "other")


def test_a_validation_part_that_cannot_be_drawn_again_is_refused_at_the_start(tmp_path):
    with pytest.raises(UserError, match="--resplit: not with --train-size"):
        nas.search(nas.Space(SPACE), train_size=100, resplit=True, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
