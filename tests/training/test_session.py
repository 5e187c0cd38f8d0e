"""Trainings in a folder: what they leave, how they begin, how they go on."""

from __future__ import annotations

import csv
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

import nas
from nas.errors import UserError
from nas.export.command import export
from nas.training import session
from nas.training.checkpoint import load_checkpoint, load_trained
from nas.training.data import Dataset, Images, PartName
from nas.training.evaluate import evaluate
from nas.training.evaluator import TrainingEvaluator
from nas.training.loop import Epoch
from nas.training.recipe import Recipe
from nas.training.session import Trained, train

DOCUMENT: dict[str, Any] = {
    "name": "tiny",
    "input": {"channels": 1, "resolution": 8},
    "stem": {"channels": 8},
    "stages": [{"block": "inverted_residual", "channels": 16, "stride": 2, "expansion": 2, "kernels": [3, 5]}],
    "head": {"dropout": 0.2},
}
TINY = nas.Architecture.from_dict(DOCUMENT)
RECIPE = Recipe(lr=0.05, epochs=4, batch_size=32, warmup_epochs=1, ema=0.5)
TIMES = ("seconds_train", "seconds_eval", "images_per_second")


def metrics(out: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without what the clock says."""
    with (out / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def assert_same_training(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(TINY, digits, RECIPE, out=tmp_path_factory.mktemp("whole") / "out")


def test_what_a_training_leaves(whole: Trained) -> None:
    out = whole.checkpoint.parent
    expected = {"architecture.yaml", "train.yaml", "metrics.csv", "checkpoint.pt", "model.safetensors"}
    assert {path.name for path in out.iterdir()} - {"tensorboard"} == expected
    assert [row["epoch"] for row in metrics(out)] == ["1", "2", "3", "4"]
    model, checkpoint = load_trained(whole.model), load_checkpoint(whole.checkpoint)
    assert load_file(whole.model).keys() == nas.build(TINY, 10).state_dict().keys()  # by another reader
    assert all(torch.equal(tensor, model.weights[name]) for name, tensor in checkpoint.weights.items())
    for name in ("architecture", "classes", "mean", "std", "dataset", "split", "recipe", "epoch", "accuracy", "extra"):
        assert getattr(model, name) == getattr(checkpoint, name)


def hits(logits: Tensor, images: Images) -> float:
    return (logits.argmax(1) == images.labels).sum().item() / len(images)


@pytest.mark.parametrize("name", ["bf16", "restart"])
def test_every_accuracy_is_that_of_the_result_in_float32(name: str, digits: Dataset, tmp_path: Path) -> None:
    """Told, written down and kept are those of the suggested file, by a plain loop and by ONNX Runtime.

    With a learning rate that throws the network off its best epoch, and a recipe that goes back to it.
    """
    onnxruntime = pytest.importorskip("onnxruntime")
    recipe = Recipe(lr=0.05, epochs=5, batch_size=32, schedule="step", milestones=(4,), gamma=1.0, precision="bf16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recipe, "learning_rate", lambda self, epoch: 0.05 if epoch < 4 else 1.0)
        restart = name == "restart"
        done = train(TINY, digits, replace(recipe, restart_from_best=restart), out=tmp_path / "out")
    accuracies = [float(row["validation_accuracy"]) for row in metrics(tmp_path / "out")]
    assert accuracies[-1] == done.validation_accuracy == load_trained(done.model).accuracy
    assert (done.validation_accuracy > 0.5) == restart
    network = nas.build(TINY, 10).eval()
    network.load_state_dict(load_file(done.model))
    session = onnxruntime.InferenceSession(export(done.model).model.files[0], providers=["CPUExecutionProvider"])
    again = nas.evaluate(done.model, device="cpu")
    parts: tuple[tuple[PartName, float], ...] = (
        ("validation", done.validation_accuracy),
        ("test", done.test_accuracy),
    )
    for part, told in parts:
        images = digits.part(part)
        pixels = images.images.float() / 255
        with torch.inference_mode():
            logits = network((pixels - digits.mean[0]) / digits.std[0])
        assert told == again[f"{part}_accuracy"] == hits(logits, images)
        assert told == hits(torch.from_numpy(session.run(["logits"], {"images": pixels.numpy()})[0]), images)
        assert torch.equal(evaluate(network, digits, part).hits, logits.argmax(1) == images.labels)


class Killed(BaseException):
    """What a process sees of `kill -9`: nothing more runs."""


@pytest.mark.parametrize("write", ["write_atomic", "save_weights", "save_checkpoint"])
def test_a_training_killed_between_its_writes_goes_on(
    write: str, whole: Trained, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    real = getattr(session, write)
    done = 0

    def dying(*arguments: Any) -> None:
        nonlocal done
        if (out / "metrics.csv").exists() and metrics(out)[-1]["epoch"] == "3":
            raise Killed
        done += 1
        real(*arguments)

    monkeypatch.setattr(session, write, dying)
    with pytest.raises(Killed):
        train(TINY, digits, RECIPE, out=out)
    monkeypatch.undo()
    assert done
    train(TINY, digits, RECIPE, out=out, resume=True)
    assert_same_training(whole.checkpoint.parent, out)


def test_a_training_goes_on_with_the_recipe_it_began_with(
    whole: Trained, digits: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one of an older version, which counted no steps and had other recipes of these names."""
    out = tmp_path / "out"

    def kill(epoch: Epoch, epochs: int) -> None:
        if 2 * epoch.epoch == epochs:
            raise Killed

    with pytest.raises(Killed):
        train(TINY, digits, RECIPE, out=out, on_epoch=kill)
    begun = yaml.safe_load((out / "train.yaml").read_text())
    assert begun.pop("steps") == 4 * (len(digits.train) // 32)
    del begun["recipe"]["steps"]
    (out / "train.yaml").write_text(yaml.safe_dump(begun))
    with pytest.raises(UserError, match="its training has epochs 4, not 5; resume it without --epochs"):
        nas.train(TINY, dataset="digits", epochs=5, out=out, resume=True, device="cpu")
    with caplog.at_level(logging.INFO, "nas"):
        nas.train(TINY, dataset="digits", out=out, resume=True, device="cpu")
    assert caplog.messages[0] == "1,222 training images: batch 32, epochs 4, steps 152 (38 an epoch)"
    assert_same_training(whole.checkpoint.parent, out)


@pytest.mark.slow
def test_kill_9_and_resume_equal_an_uninterrupted_training(digits: Dataset, tmp_path: Path) -> None:
    """A real process, killed wherever it happens to be."""
    recipe = RECIPE.with_epochs(40)
    whole = train(TINY, digits, recipe, out=tmp_path / "whole")
    out = tmp_path / "killed"
    code = f"""
import torch
torch.set_num_threads(1)
import nas
from pathlib import Path
from nas.training.data import load_dataset
from nas.training.loop import Epoch
from nas.training.recipe import Recipe
from nas.training.session import train
recipe = Recipe.from_dict({recipe.to_dict()!r})
train(nas.Architecture.from_dict({DOCUMENT!r}), load_dataset("digits"), recipe, out=Path({str(out)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            if (out / "checkpoint.pt").exists() and len(metrics(out)) >= 5:
                break
            time.sleep(0.002)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert len(metrics(out)) < 40
    resumed = train(TINY, digits, recipe, out=out, resume=True)
    assert resumed.test_accuracy == whole.test_accuracy
    assert_same_training(tmp_path / "whole", out)


def test_a_training_killed_before_its_first_epoch_begins_again(
    whole: Trained, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_: Any) -> None:
        raise Killed

    for name, init in (("fresh", None), ("begun", whole.model)):
        with monkeypatch.context() as patch:
            patch.setattr(session, "save_checkpoint", dying)
            with pytest.raises(Killed):
                train(TINY, digits, RECIPE, out=tmp_path / name, init=init)
        train(TINY, digits, RECIPE, out=tmp_path / name, resume=True)
    assert_same_training(whole.checkpoint.parent, tmp_path / "fresh")
    straight = train(TINY, digits, RECIPE, out=tmp_path / "straight", init=whole.model)
    assert_same_training(straight.checkpoint.parent, tmp_path / "begun")


def test_resume_where_it_makes_no_sense(whole: Trained, digits: Dataset, tmp_path: Path) -> None:
    out = whole.checkpoint.parent
    with pytest.raises(UserError, match="holds a training already"):
        train(TINY, digits, RECIPE, out=out)
    with pytest.raises(UserError, match="this training is done"):
        train(TINY, digits, RECIPE, out=out, resume=True)
    with pytest.raises(UserError, match="holds no training to go on with"):
        train(TINY, digits, RECIPE, out=tmp_path, resume=True)
    with pytest.raises(UserError, match="--init is for the beginning"):
        train(TINY, digits, RECIPE, out=out, resume=True, init=whole.model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", ["checkpoint", "model"])
def test_init_begins_where_the_other_ended(
    source: str, whole: Trained, digits: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = getattr(whole, source)
    frozen = Recipe(lr=1e-8, epochs=1, schedule="constant", weight_decay=0.0, ema=0.5)
    with caplog.at_level(logging.INFO, "nas"):
        done = train(TINY, digits, frozen, out=tmp_path / "out", init=path)
    # Not exactly: a step of batch statistics moves the norms.
    assert done.validation_accuracy == pytest.approx(whole.validation_accuracy, abs=0.05)
    assert done.initialised is not None
    count = len(load_trained(path).weights)
    assert (len(done.initialised.loaded), done.initialised.fresh, done.initialised.unused) == (count, (), ())
    assert f"{path}: {count} of {count} tensors taken over" in caplog.messages
    assert f"init: {path}" in (tmp_path / "out" / "train.yaml").read_text()


def test_init_of_a_variant_takes_what_fits(
    whole: Trained, digits: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    variant = nas.Architecture.from_dict(
        {
            **DOCUMENT,
            "stages": [*DOCUMENT["stages"], {"block": "conv", "channels": 24}],
        }
    )
    one_step = Recipe(lr=1e-8, epochs=1, schedule="constant")
    with caplog.at_level(logging.INFO, "nas"):
        done = train(variant, digits, one_step, out=tmp_path / "out", init=whole.model)
    assert done.initialised is not None
    assert "classifier.weight" in done.initialised.fresh  # another shape
    assert done.initialised.unused == ("classifier.weight",)
    assert "blocks.1.body.0.weight" in done.initialised.fresh
    reason = f"no slices: --init {whole.model}: tiny: stages: 2 are more than the parent's 1 (tiny); tensors of equal "
    assert caplog.messages[1].startswith(reason)  # the field in which it is larger than its parent
    assert "new: blocks.1.body.0.weight, " in caplog.messages[2]
    ours, theirs = load_file(done.model), load_file(whole.model)
    assert torch.allclose(ours["stem.0.weight"], theirs["stem.0.weight"], atol=1e-5)
    assert ours["classifier.weight"].shape == (10, 24)


def test_init_with_foreign_weights(digits: Dataset, tmp_path: Path) -> None:
    stem = torch.randn_like(nas.build(TINY, 10).state_dict()["stem.0.weight"])
    save_file({"stem.0.weight": stem}, tmp_path / "foreign.safetensors")
    once = Recipe(lr=1e-8, epochs=1, schedule="constant")
    done = train(TINY, digits, once, out=tmp_path / "out", init=tmp_path / "foreign.safetensors")
    assert done.initialised is not None
    assert done.initialised.loaded == ("stem.0.weight",)
    assert torch.allclose(load_file(done.model)["stem.0.weight"], stem, atol=1e-5)


def test_init_that_does_not_fit_leaves_nothing(digits: Dataset, tmp_path: Path) -> None:
    save_file({"other": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("x")
    for name, message in {
        "other.safetensors": "none of its 1 tensors has a name and shape",
        "text.safetensors": "damaged, or not safetensors",
        "nowhere.safetensors": "no such file",
        "nowhere.pt": "cannot be read",
        "mobilenetv3": "neither a file nor a network with public weights: efficientnet-lite0, mobilenetv2",
    }.items():
        with pytest.raises(UserError, match=message):
            train(TINY, digits, RECIPE, out=tmp_path / "out", init=tmp_path / name)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="not written by nas"):
        load_trained(tmp_path / "other.safetensors")
    for metadata, message in (('{"version": 9}', "version 9, this nas reads version 1"), ("{", "damaged metadata")):
        save_file({"other": torch.zeros(3)}, tmp_path / "other.safetensors", {"nas": metadata})
        with pytest.raises(UserError, match=message):
            load_trained(tmp_path / "other.safetensors")


def test_curves_for_tensorboard(digits: Dataset, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(TINY, digits, RECIPE, out=tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    drawn = [event.value for event in events.Scalars("accuracy/validation")]
    assert drawn == pytest.approx([float(row["validation_accuracy"]) for row in metrics(tmp_path)])


def test_without_tensorboard_nothing_is_missed(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.training.session.find_spec", lambda name: None)
    train(TINY, digits, RECIPE.with_epochs(2), out=tmp_path)
    assert not (tmp_path / "tensorboard").exists()


def test_threads_are_those_asked_for_and_on_resume_those_it_had(digits: Dataset, tmp_path: Path) -> None:
    seen: list[int] = []

    def note(*_: Any) -> None:
        seen.append(torch.get_num_threads())
        if len(seen) == 1:
            raise Killed

    with pytest.raises(Killed):
        train(TINY, digits, RECIPE.with_epochs(2), out=tmp_path, threads=2, on_epoch=note)
    assert torch.get_num_threads() == 1
    train(TINY, digits, RECIPE.with_epochs(2), out=tmp_path, resume=True, on_epoch=note)
    assert seen == [2, 2]
    assert torch.get_num_threads() == 1


def test_timing_a_step_leaves_the_training_as_it_is(digits: Dataset) -> None:
    trainers = [TrainingEvaluator(digits, RECIPE).trainer(TINY, seed=1) for _ in range(2)]
    assert trainers[0].time_step() > 0
    one, other = (trainer.run_epoch() for trainer in trainers)
    assert (one.loss, one.validation_accuracy) == (other.loss, other.validation_accuracy)
    states = [trainer.network.state_dict() for trainer in trainers]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_a_resumed_training_refuses_what_it_would_ignore(tmp_path: Path) -> None:
    """And takes what it began with, as the command that goes on with it names it."""

    def kill(*_: Any) -> None:
        raise Killed

    out = tmp_path / "out"
    given = {"recipe": "search", "epochs": 2, "seed": 3, "train_size": 100, "resolution": 8, "flip": "none"}
    with pytest.raises(Killed):
        nas.train(TINY, out=out, device="cpu", **given, on_epoch=kill)
    before = {file.name: file.read_bytes() for file in out.glob("*.*")}
    others = {
        "recipe": "han",
        "seed": 4,
        "train_size": 90,
        "resolution": 12,
        "class_weights": "balanced",
        "augment": "photo",
    }
    for name, value in others.items():
        option = name.replace("_", "-")
        with pytest.raises(UserError, match=f"{out}: its training has .*; resume it without --{option}$"):
            nas.train(TINY, out=out, device="cpu", **{name: value}, resume=True)
    with pytest.raises(UserError, match="--run is for the beginning of a training"):
        nas.train(TINY, out=out, device="cpu", run=tmp_path, resume=True)
    other = nas.Architecture.from_dict({**DOCUMENT, "activation": "hard_swish"})  # its weights have the same names
    with pytest.raises(UserError, match=f"its training is of .*; resume it with {out / 'architecture.yaml'}"):
        nas.train(other, out=out, device="cpu", resume=True)
    assert before == {file.name: file.read_bytes() for file in out.glob("*.*")}
    nas.train(TINY, out=out, device="cpu", **given, resume=True)
    assert [row["epoch"] for row in metrics(out)] == ["1", "2"]


def test_flip_is_kept_with_the_training(tmp_path: Path) -> None:
    def kill(*_: Any) -> None:
        raise Killed

    settings: dict[str, Any] = {"train_size": 100, "epochs": 2, "device": "cpu", "out": tmp_path / "out"}
    with pytest.raises(Killed):
        nas.train(TINY, **settings, flip="horizontal", on_epoch=kill)
    assert yaml.safe_load((tmp_path / "out" / "train.yaml").read_text())["recipe"]["flip"] == "alternating"
    with pytest.raises(UserError, match="its training has flip alternating, not none; resume it without --flip"):
        nas.train(TINY, **settings, flip="none", resume=True)
    nas.train(TINY, **settings, resume=True)
    assert load_trained(tmp_path / "out" / "model.safetensors").recipe["flip"] == "alternating"
