"""The evaluator: what a search knows of training."""

import gc
import itertools
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import nas
from nas.preprocessing import Preprocessing
from nas.training.checkpoint import load_checkpoint
from nas.training.data import load_again, load_dataset
from nas.training.evaluate import evaluate
from nas.training.evaluator import TrainingEvaluator
from nas.training.failures import DivergedError
from nas.training.recipe import load_recipe
from nas.training.weights import restored

TINY = nas.Architecture.from_dict(
    {
        "name": "tiny",
        "input": {"channels": 1, "resolution": 8},
        "stem": {"channels": 8, "stride": 2},
        "stages": [{"block": "inverted_residual", "channels": 8, "expansion": 2}],
    }
)


@pytest.fixture(scope="module")
def evaluator() -> TrainingEvaluator:
    return TrainingEvaluator(load_dataset("digits", train_size=200), load_recipe("search").with_epochs(4))


def curve(epochs):
    """What does not depend on the clock."""
    return [replace(epoch, seconds_train=0, seconds_eval=0, images_per_second=0) for epoch in epochs]


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_stream_that_was_cut_off_gives_every_epoch_again(evaluator, tmp_path: Path, cut: int):
    whole = curve(evaluator.run(TINY, seed=5))
    file = tmp_path / "0.pt"
    list(itertools.islice(evaluator.run(TINY, seed=5, checkpoint=file), cut))  # who asked dies here
    assert curve(evaluator.run(TINY, seed=5, checkpoint=file)) == whole


@pytest.mark.parametrize("kept", [True, False])
def test_a_trained_network_is_handed_over_before_its_last_epoch_is_told(evaluator, tmp_path: Path, kept: bool):
    """Also to one who asks again since the first died then; and what that one does may fail."""
    file = tmp_path / "0.pt" if kept else None
    got = []

    def judge(trained, dataset):
        network = restored(trained, "it")
        images = dataset.for_network(1, 8)
        got.append((evaluate(network, replace(images, mean=trained.mean, std=trained.std)).accuracy, len(told)))
        if len(got) == 1:
            raise RuntimeError("cannot be converted")

    for _ in range(2):
        told = []
        try:
            for epoch in evaluator.run(TINY, seed=5, checkpoint=file, on_end=judge):
                told.append(epoch.validation_accuracy)
        except RuntimeError:
            assert len(told) == 3
    assert got == [(told[-1], 3)] * 2


def test_a_file_of_another_training_is_not_gone_on_with(evaluator, tmp_path: Path):
    file = tmp_path / "0.pt"
    list(itertools.islice(evaluator.run(TINY, seed=6, checkpoint=file), 2))
    assert curve(evaluator.run(TINY, seed=5, checkpoint=file)) == curve(evaluator.run(TINY, seed=5))


def test_a_damaged_file_means_from_the_start(evaluator, tmp_path: Path):
    file = tmp_path / "0.pt"
    list(itertools.islice(evaluator.run(TINY, seed=5, checkpoint=file), 2))
    file.write_bytes(file.read_bytes()[:-200])
    assert curve(evaluator.run(TINY, seed=5, checkpoint=file)) == curve(evaluator.run(TINY, seed=5))


def test_validation_images_drawn_for_each_network_are_found_again_from_its_checkpoint(tmp_path: Path):
    """No image that a network was trained on judges it, then or later."""
    drawn = TrainingEvaluator(load_dataset("digits"), load_recipe("search").with_epochs(2))
    images = []
    for seed in (5, 6):
        file = tmp_path / f"{seed}.pt"
        drawn.split = seed
        told = list(drawn.run(TINY, seed=seed, checkpoint=file))[-1]
        saved = load_checkpoint(file)
        data = load_again("digits", split=saved.split, preprocessing=Preprocessing(1, (8,)))
        assert (saved.mean, saved.std) == (data.mean, data.std)
        assert evaluate(restored(saved, str(file)), data).accuracy == told.validation_accuracy
        assert drawn.test(file)[0].accuracy == evaluate(restored(saved, str(file)), data, "test").accuracy
        images.append({image.numpy().tobytes() for image in data.validation.images})
    assert len(images[0] & images[1]) < len(images[0]) / 2


def test_the_global_generator_is_left_as_it_was(evaluator):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    list(evaluator.run(TINY, seed=5))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("end", ["trained", "stopped", "failed"])
def test_no_trainer_outlives_its_stream(evaluator, monkeypatch: pytest.MonkeyPatch, end: str):
    """However a trial ends, its memory is free for the next one, without waiting for the garbage collector."""
    trainers = []

    def watched(*arguments, **options):
        trainer = type(evaluator).trainer(evaluator, *arguments, **options)
        trainers.append(weakref.ref(trainer))
        if end == "failed":
            with torch.no_grad():
                next(trainer.network.parameters()).fill_(float("nan"))
        return trainer

    monkeypatch.setattr(evaluator, "trainer", watched)
    gc.disable()
    try:
        epochs = evaluator.run(TINY, seed=5)
        if end == "trained":
            list(epochs)
        elif end == "stopped":
            next(epochs)
            assert trainers[0]() is not None
            del epochs
        else:
            try:
                next(epochs)
            except DivergedError as error:
                assert "nan" in str(error)
            else:
                pytest.fail("it did not diverge")
        assert trainers[0]() is None
    finally:
        gc.enable()
