"""Fine-tuning where int8 loses accuracy: on a network whose function in float is the same as one that loses nothing."""

from dataclasses import replace

import pytest
import torch
from shipping import TINY, train_tiny

import nas
from nas.errors import UserError
from nas.export.judging import MOST_LOST, keep_int8_accuracy
from nas.export.shipping import ship
from nas.targets import target
from nas.training.checkpoint import load_checkpoint, load_trained, save_checkpoint
from nas.training.data import load_dataset
from nas.training.recipe import Recipe

TARGET = target("onnxruntime-int8")


def test_a_resumed_training_ends_as_it_was_begun(tmp_path):
    begun = {"train_size": 60, "epochs": 1, "recipe": "search", "resolution": 8, "out": tmp_path / "out"}
    nas.train(nas.Architecture.from_dict(TINY), **begun)
    with pytest.raises(UserError, match="does not end as int8 computes; resume it without --qat"):
        nas.train(nas.Architecture.from_dict(TINY), qat=True, resume=True, **begun)
    with pytest.raises(UserError, match=r"qat 1\.5"):
        Recipe(qat=1.5)
    with pytest.raises(UserError, match="at least 2 epochs"):
        nas.train(nas.Architecture.from_dict(TINY), **begun | {"qat": True, "out": tmp_path / "other"})
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_training_that_int8_spoils_is_fine_tuned(tmp_path, caplog):
    pytest.importorskip("onnxruntime")
    caplog.set_level("INFO")
    trained, data = train_tiny(tmp_path / "tiny"), load_dataset("digits")
    content = trained.model.read_bytes()
    assert keep_int8_accuracy(trained, TARGET, data) is trained
    assert trained.model.read_bytes() == content
    # One channel takes the range that all share: ReLU passes a factor on, which the depthwise kernel takes back.
    saved = load_checkpoint(trained.checkpoint)
    weights = {name: tensor.clone() for name, tensor in saved.weights.items()}
    names = [name for name, tensor in weights.items() if name.startswith("blocks.1.") and tensor.ndim in (1, 4)]
    norm = next(name for name in names if name.endswith(".weight") and weights[name].ndim == 1).removesuffix(".weight")
    for name in (f"{norm}.weight", f"{norm}.bias"):
        weights[name][0] *= 200
    for name in (name for name in names if "branches" in name and weights[name].ndim == 4):
        weights[name][0] /= 200
    save_checkpoint(trained.checkpoint, replace(saved, weights=weights))
    spoilt = load_checkpoint(trained.checkpoint)
    before = ship(TARGET, spoilt, data)
    assert before.judge(data, "validation").accuracy < trained.validation_accuracy - MOST_LOST
    mended = keep_int8_accuracy(trained, TARGET, data)
    after = ship(TARGET, load_trained(mended.model), data)
    assert after.judge(data, "test").accuracy > before.judge(data, "test").accuracy + 0.02
    assert load_checkpoint(mended.checkpoint).accuracy == mended.validation_accuracy
    torch.testing.assert_close(load_checkpoint(mended.checkpoint).weights, load_trained(mended.model).weights)
    assert "int8 loses" in caplog.text
    assert "fine-tuned: fp32" in caplog.text
