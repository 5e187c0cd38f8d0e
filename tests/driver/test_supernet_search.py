"""Searches whose networks a supernet judges before they are trained."""

import math
from pathlib import Path

import optuna
import pytest
from scipy.stats import spearmanr

import nas
from nas.driver.supernet import Judged, best_of, correlation, spread_out
from nas.errors import UserError
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


@pytest.mark.slow
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
    other = nas.search(space, supernet=file, trials=2, out=tmp_path / "other", limits=["size<=8kB"], **OPTIONS)
    assert file.stat().st_mtime_ns == before and not (tmp_path / "other" / "supernet.pt").exists()
    assert all(record.costs["size"] <= 8000 for record in other.front_records)
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
    with pytest.raises(UserError, match=r"evaluator"):
        nas.search(space, evaluator="guess", trials=4, out=tmp_path / "no", **OPTIONS)
    assert not (tmp_path / "no").exists()


def test_no_correlation_is_told_of_few_networks() -> None:
    assert math.isnan(correlation(optuna.create_study()))
