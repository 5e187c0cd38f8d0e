from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from training_networks import small_network

from nas.errors import UserError
from nas.training.checkpoint import Checkpoint, load_checkpoint, load_trained, save_checkpoint
from nas.training.data import Dataset
from nas.training.loop import Trainer
from nas.training.recipe import Recipe


@pytest.fixture(scope="module")
def checkpoint(digits: Dataset) -> Checkpoint:
    trainer = Trainer(small_network(), digits, Recipe(epochs=2, ema=0.9))
    trainer.run_epoch()
    return Checkpoint(
        architecture={"name": "größe", "stages": [{"kernels": [3, 5], "expansion": 1.5}]},
        classes=digits.classes,
        mean=digits.mean,
        std=digits.std,
        dataset=digits.name,
        split={"seed": 0, "validation_fraction": 0.15, "train_size": None},
        recipe=trainer.recipe.to_dict(),
        epoch=trainer.epoch,
        accuracy=trainer.accuracy,
        weights=trainer.evaluated_network.state_dict(),
        trainer=trainer.state_dict(),
    )


def test_what_is_saved_is_read(checkpoint: Checkpoint, digits: Dataset, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    read = load_checkpoint(tmp_path / "a.pt")
    for name in ("architecture", "classes", "mean", "std", "dataset", "split", "recipe", "epoch", "accuracy"):
        assert getattr(read, name) == getattr(checkpoint, name)
    assert all(torch.equal(value, checkpoint.weights[name]) for name, value in read.weights.items())
    trainer = Trainer(small_network(seed=4), digits, Recipe.from_dict(read.recipe))
    assert read.trainer is not None
    trainer.load_state_dict(read.trainer)
    assert trainer.epoch == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_a_failed_write_keeps_the_old_file(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, checkpoint)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"a\.pt: cannot be written: No space left on device"):
        save_checkpoint(path, checkpoint)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_no_folder(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        save_checkpoint(tmp_path / "nowhere" / "a.pt", checkpoint)
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(tmp_path / "nowhere.pt")
    with pytest.raises(UserError, match=r"cannot be read: a folder; give the weights in it"):
        load_trained(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_half_a_file_is_refused(checkpoint: Checkpoint, tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, checkpoint)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"a\.pt: damaged, or not a checkpoint of nas") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_found(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, checkpoint)
    content = bytearray(path.read_bytes())
    marker = content.index(checkpoint.weights["0.weight"].contiguous().numpy().tobytes()[:16])
    content[marker] ^= 0x40
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(path)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch hacked",)


@pytest.mark.parametrize("content", [{"a": 1}, [1, 2], {"format": "nas-checkpoint", "version": 1}, torch.zeros(3)])
def test_another_programs_file_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"not a checkpoint of nas|damaged"):
        load_checkpoint(tmp_path / "a.pt")


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, write in {"a": torch.save, "b": lambda value, path: path.write_bytes(pickle.dumps(value))}.items():
        write({"format": "nas-checkpoint", "evil": Evil()}, tmp_path / name)
        with pytest.raises(UserError, match="damaged"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "hacked").exists()


def test_a_newer_version_is_told(tmp_path: Path) -> None:
    torch.save({"format": "nas-checkpoint", "version": 7}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="version 7, this nas reads version 1"):
        load_checkpoint(tmp_path / "a.pt")
