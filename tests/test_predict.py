"""Predictions from every form of a trained network, on image files as people have them."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shipping import TINY, train_tiny

import nas
from nas.errors import UserError
from nas.export.command import export
from nas.export.predict import load_model, predict
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.data import load_dataset
from nas.training.recipe import load_recipe
from nas.training.session import Trained, train

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return train_tiny(tmp_path_factory.mktemp("trained") / "tiny")


@pytest.fixture(scope="module")
def onnx_model(trained) -> Path:
    return export(trained.checkpoint).model.files[0]


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> list[Path]:
    """The first 40 test images as files, more than one batch."""
    folder = tmp_path_factory.mktemp("digits")
    files = []
    for index, image in enumerate(load_dataset("digits").test.images[:40]):
        files.append(folder / f"{index}.png")
        Image.fromarray(image[0].numpy()).save(files[-1])
    return files


def shares(model: Path, images: list[Path]) -> torch.Tensor:
    """Probabilities (N, 10) in the order of the classes."""
    predictions = predict(model, images, top=10)
    return torch.tensor(
        [[guess.probability for guess in sorted(p.guesses, key=lambda g: g.label)] for p in predictions]
    )


def test_top_five_of_a_checkpoint_are_what_the_network_says(trained, digits):
    predictions = predict(trained.checkpoint, digits)
    assert predict(trained.checkpoint, str(digits[0])) == predict(trained.checkpoint, digits[:1])
    saved = load_checkpoint(trained.checkpoint)
    network = nas.build(nas.Architecture.from_dict(saved.architecture), 10).eval()
    network.load_state_dict(saved.weights)
    images = (load_dataset("digits").test.images[:40] / 255 - saved.mean[0]) / saved.std[0]
    with torch.inference_mode():
        best = network(images).softmax(1).topk(5)
    assert [prediction.image for prediction in predictions] == digits
    for prediction, values, indices in zip(predictions, *(part.tolist() for part in best), strict=True):
        assert [guess.label for guess in prediction.guesses] == [str(index) for index in indices]
        assert [guess.probability for guess in prediction.guesses] == pytest.approx(values, abs=1e-4)


def test_all_forms_agree(trained, onnx_model, digits):
    expected = shares(trained.checkpoint, digits)
    torch.testing.assert_close(shares(trained.model, digits), expected)
    torch.testing.assert_close(shares(onnx_model, digits), expected, rtol=1e-4, atol=1e-5)
    labels = load_dataset("digits").test.labels[:40]
    assert (expected.argmax(1) == labels).float().mean() > 0.85
    torch.testing.assert_close(expected.sum(1), torch.ones(40))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """A folder of class folders; photographs of many sizes."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for label in ("blue", "red"):
        (folder / label).mkdir()
        for index in range(12):
            height, width = generator.integers(40, 300, 2)
            pixels = generator.integers(0, 120, (height, width, 3))
            pixels[..., 2 if label == "blue" else 0] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{index}.{'jpg' if index % 2 else 'png'}")
    return folder


@pytest.mark.parametrize("resolution", [24, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_files_are_read_as_in_training(photographs, resolution, channels, tmp_path):
    """Pixel for pixel, also where a training has read a folder at 64 and resized that."""
    dataset = load_dataset(f"imagefolder:{photographs}")
    document = {**TINY, "input": {"channels": channels, "resolution": resolution}}
    recipe = load_recipe("search").with_epochs(1)
    done = train(nas.Architecture.from_dict(document), dataset, recipe, out=tmp_path / "out")
    _, card = load_model(done.checkpoint)
    files = sorted(photographs.glob("*/*"))
    read = torch.cat([card.preprocessing.read(path) for path in files])
    seen = dataset.for_network(channels, resolution)
    known = {image.numpy().tobytes() for part in (seen.train, seen.validation, seen.test) for image in part.images}
    assert {image.numpy().tobytes() for image in read} == known
    assert len(known) == 24


def test_an_exported_model_reads_files_as_its_checkpoint_does(photographs, tmp_path):
    document = {**TINY, "input": {"channels": 3, "resolution": 24}}
    recipe = load_recipe("search").with_epochs(2)
    done = train(nas.Architecture.from_dict(document), load_dataset(f"imagefolder:{photographs}"), recipe, out=tmp_path)
    model = export(done.model).model.files[0]
    files = sorted(photographs.glob("*/*"))
    for ours, shipped in zip(predict(done.model, files), predict(model, files), strict=True):
        assert [guess.label for guess in ours.guesses] == [guess.label for guess in shipped.guesses]
        assert len(ours.guesses) == 2  # there are no five classes
        for one, other in zip(ours.guesses, shipped.guesses, strict=True):
            assert one.probability == pytest.approx(other.probability, abs=1e-4)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "LA", "CMYK", "1", "I;16", "I", "F", "YCbCr"])
def test_an_image_of_any_mode_is_read(trained, mode, tmp_path):
    plain = gray = Image.fromarray(np.repeat(np.repeat(load_dataset("digits").test.images[0, 0].numpy(), 20, 0), 20, 1))
    path = tmp_path / "image.tif"
    if mode == "I;16":
        gray = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    elif mode == "I":
        gray = Image.fromarray(np.asarray(gray).astype(np.int32) * 257)
    elif mode == "P":
        path = tmp_path / "image.gif"
        gray = gray.convert("P")
    else:
        gray = gray.convert(mode)
    gray.save(path)
    _, card = load_model(trained.checkpoint)
    pixels = card.preprocessing.read(path)
    assert pixels.shape == (1, 1, 8, 8)
    assert pixels.dtype == torch.uint8
    plain.save(tmp_path / "plain.png")
    if mode != "1":
        difference = pixels.int() - card.preprocessing.read(tmp_path / "plain.png").int()
        assert difference.abs().max() <= 2  # of 255: rounding of the colour spaces


def test_the_cameras_orientation_is_followed(trained, tmp_path):
    pixels = np.zeros((80, 80), np.uint8)
    pixels[:40] = 255
    upright = Image.fromarray(pixels)
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    upright.rotate(90).save(tmp_path / "b.png", exif=exif)
    _, card = load_model(trained.checkpoint)
    assert torch.equal(card.preprocessing.read(tmp_path / "a.png"), card.preprocessing.read(tmp_path / "b.png"))


def test_what_cannot_be_read_is_named(trained, onnx_model, digits, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "half.png").write_bytes(digits[0].read_bytes()[:60])
    (tmp_path / "folder.png").mkdir()
    for name in ("text.png", "half.png", "folder.png", "nowhere.png"):
        for model in (trained.checkpoint, onnx_model):
            with pytest.raises(UserError, match=rf"{name}: cannot be read") as caught:
                predict(model, [digits[0], tmp_path / name])
            assert "\n" not in str(caught.value)
            # Nothing is to be repaired, let alone removed, where there is no image.
            assert str(caught.value).endswith("repair or remove it") == (name in ("text.png", "half.png"))


def test_one_broken_image_does_not_hide_the_others(trained, digits, tmp_path):
    (tmp_path / "broken:b:.png").write_text("no image")
    odd = tmp_path / os.fsdecode(b"caf\xe9:smile:.png")
    shutil.copy(digits[1], odd)
    done = subprocess.run(
        [sys.executable, "-m", "nas", "predict", trained.checkpoint, digits[0], tmp_path / "broken:b:.png", odd],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    names = [line for line in done.stdout.replace("\n", " ").split(" ") if line.endswith(".png")]
    assert [name.rpartition("/")[2] for name in names] == ["0.png", "caf\\udce9:smile:.png"]
    assert done.stdout.count("%") == 10
    assert done.stderr.count("\n") == 1
    assert "broken:b:.png: cannot be read" in done.stderr


def test_models_that_are_none_of_ours_are_refused(trained, onnx_model, digits, tmp_path):
    onnx = pytest.importorskip("onnx")
    foreign = onnx.load(onnx_model)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "text.pt").write_text("no checkpoint")
    for name, message in {
        "foreign.onnx": "not exported by nas",
        "text.onnx": "not a model",
        "nowhere.onnx": "cannot be read",
        "text.safetensors": "damaged",
        "nowhere.safetensors": "no such file",
        "text.pt": "damaged",
    }.items():
        with pytest.raises(UserError, match=message):
            predict(tmp_path / name, digits)
    checkpoint = load_checkpoint(trained.checkpoint)
    save_checkpoint(tmp_path / "mixed.pt", replace(checkpoint, classes=("a", "b")))
    with pytest.raises(UserError, match="the weights do not fit tiny"):
        predict(tmp_path / "mixed.pt", digits)


def test_options_are_checked(trained, digits):
    with pytest.raises(UserError, match="no image"):
        predict(trained.checkpoint, [])
    with pytest.raises(UserError, match="top 0"):
        predict(trained.checkpoint, digits, top=0)
    assert [len(p.guesses) for p in predict(trained.checkpoint, digits[:2], top=99)] == [10, 10]
