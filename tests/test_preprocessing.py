"""The shipped text against what reads images: an implementation of its own that follows the text alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from shipping import TINY, small

import nas
from nas.errors import UserError
from nas.export import Card
from nas.preprocessing import Preprocessing, decode_file
from nas.training.checkpoint import load_trained
from nas.training.data import load_dataset
from nas.training.recipe import load_recipe
from nas.training.session import train
from nas.training.weights import card

TURNS = {1: 0, 8: 1, 3: 2, 6: 3}  # EXIF orientation -> quarter turns counterclockwise that show it upright


def triangle(pixels: NDArray[np.float64], left: float, extent: int, side: int) -> NDArray[np.float64]:
    """Step 5 along axis 0, one output row at a time."""
    if pixels.shape[0] == side and left == 0 and extent == side:
        return pixels
    scale = extent / side
    f = max(1.0, scale)
    rows = []
    for i in range(side):
        weights = np.array([max(0.0, 1 - abs(k + 0.5 - left - (i + 0.5) * scale) / f) for k in range(pixels.shape[0])])
        w = np.rint(weights / weights.sum() * 2**22)
        rows.append((np.tensordot(w, pixels, 1) + 2**21) // 2**22)
    return np.array(rows)


def by_the_text(
    file: Path, channels: int, sides: tuple[int, ...], fit: str, columns_first: bool = False
) -> NDArray[np.float64]:
    """Steps 1 to 6 of the text, (C, R, R); Pillow decodes, numpy does the rest."""
    with Image.open(file) as image:
        if image.format == "JPEG":
            factor = next((k for k in (8, 4, 2) if min(image.size) >= 2 * sides[0] * k), 1)
            image.draft("RGB", (image.width // factor, image.height // factor))
        orientation = image.getexif().get(0x0112, 1)
        if image.mode == "P":  # looked up
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        pixels = np.asarray(image).astype(np.int64)
        deep = image.mode.startswith("I")
    pixels = np.rot90(pixels, TURNS[orientation])
    if deep:
        pixels = pixels // 257
    if pixels.ndim == 2:
        pixels = np.stack([pixels] * 3, 2)
    if pixels.shape[2] in (2, 4):
        value, opacity = pixels[..., :-1], pixels[..., -1:]
        pixels = np.floor((value * opacity + 255 * (255 - opacity)) / 255 + 0.5).astype(np.int64)
        pixels = np.concatenate([pixels] * 3, 2) if pixels.shape[2] == 1 else pixels
    height, width = pixels.shape[:2]
    short, long, first = min(width, height), max(width, height), sides[0]
    left = top = 0.0
    inner = (first, first)  # w, h
    if fit == "crop":
        column, row = (width - short) // 2, (height - short) // 2
        pixels = pixels[row : row + short, column : column + short]
        width = height = short
    elif fit == "box":
        left, top = (width - short) / 2, (height - short) / 2
        width = height = short
    elif fit == "pad":
        inner = tuple(max(1, (2 * first * size + long) // (2 * long)) for size in (width, height))
    square = pixels.astype(np.float64)
    for number, side in enumerate(sides):
        passes = [(1, left, width, inner[0]), (0, top, height, inner[1])]
        for axis, start, extent, out in reversed(passes) if columns_first and number == 0 else passes:
            square = triangle(square.swapaxes(0, axis), start, extent, out).swapaxes(0, axis)
        if number == 0:
            canvas = np.full((side, side, 3), 128.0)
            row, column = (side - inner[1]) // 2, (side - inner[0]) // 2
            canvas[row : row + inner[1], column : column + inner[0]] = square
            square = canvas
        left, top, width, height, inner = 0, 0, side, side, (sides[-1],) * 2
        if number == 0 and channels == 1:
            weighted = np.tensordot(square, np.array([19595, 38470, 7471]), 1)
            square = ((weighted + 32768) // 65536)[..., None]
    return square.transpose(2, 0, 1) / 255


def pictures() -> dict[str, Image.Image]:
    """Odd sizes, both orientations, every mode of the text; noise on a gradient, so that every pixel counts."""
    rng = np.random.default_rng(0)

    def pixels(height: int, width: int, planes: int) -> NDArray[np.uint8]:
        ramp = np.linspace(0, 200, height * width * planes).reshape(height, width, planes)
        return (ramp + rng.integers(0, 56, ramp.shape)).astype(np.uint8)

    return {
        "wide.png": Image.fromarray(pixels(33, 58, 3)),
        "tall.png": Image.fromarray(pixels(101, 40, 3)),
        "tiny.bmp": Image.fromarray(pixels(7, 5, 3)),
        "exact.png": Image.fromarray(pixels(24, 24, 3)),
        "gray.png": Image.fromarray(pixels(45, 37, 1)[..., 0]),
        "deep.png": Image.fromarray(pixels(31, 44, 1)[..., 0].astype(np.uint16) * 256 + 77),
        "palette.png": Image.fromarray(pixels(50, 41, 3)).quantize(16),
        "clear.png": Image.fromarray(pixels(29, 64, 4)),
        "gray and clear.png": Image.fromarray(pixels(36, 51, 2)),
        "small.jpg": Image.fromarray(pixels(61, 90, 3)),
        "large.jpg": Image.fromarray(pixels(403, 611, 3)),
    }


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch", "box"])
@pytest.mark.parametrize(("channels", "sides"), [(3, (24,)), (1, (24,)), (3, (32, 24)), (1, (32, 24))])
def test_the_text_is_what_is_computed(channels, sides, fit, tmp_path):
    preprocessing = Preprocessing(channels, sides, fit)
    for turn, orientation in enumerate([1, 8, 3, 6]):
        for index, (name, picture) in enumerate(pictures().items()):
            if orientation != 1 and index % 3 != turn - 1:  # every orientation, on some of them
                continue
            exif = Image.Exif()
            exif[0x0112] = orientation
            picture.save(tmp_path / name, **({} if name.endswith("bmp") or orientation == 1 else {"exif": exif}))
            if name.endswith("bmp") and orientation != 1:
                continue
            got = preprocessing.read(tmp_path / name)[0].double().numpy() / 255
            assert got.shape == (channels, 24, 24)
            either = [False, True] if fit == "box" else [False]  # as its text says
            expected = [by_the_text(tmp_path / name, channels, sides, fit, order) for order in either]
            assert min(np.abs(got - each).max() for each in expected) < 1e-3, name


def test_a_card_holds_the_text_and_older_ones_are_understood():
    architecture = small([{"block": "conv", "channels": 8}])
    shipped = Card(architecture, ("a", "b"), (0.5,) * 3, (0.5,) * 3, decoded_at=64, fit="box")
    metadata = shipped.to_metadata()
    assert metadata["preprocessing"] == shipped.preprocessing.text()
    assert "w = h = 64" in metadata["preprocessing"]
    assert "Resize the result to 16 x 16" in metadata["preprocessing"]
    # A file of an earlier version says nothing of the crop: it was a box in real coordinates.
    del metadata["fit"], metadata["white"], metadata["data"], metadata["preprocessing"]
    assert Card.from_metadata(metadata, "old.onnx").preprocessing == Preprocessing(3, (64, 16), "box")
    assert Card.from_metadata({**metadata, "crop": "pixels"}, "old.onnx").preprocessing == Preprocessing(3, (64, 16))
    with pytest.raises(UserError, match="fit 'round'"):
        Card.from_metadata({**metadata, "crop": "round"}, "odd.onnx")


def test_both_crops_are_told_apart(tmp_path):
    """The edge of a box takes in what lies beside it; the edge of a crop does not."""
    pixels = np.zeros((40, 121, 3), np.uint8)
    pixels[:, :40] = 255  # just outside the square, which spans columns 40 to 79 (or 40.5 to 80.5)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert decode_file(tmp_path / "a.png", 8, "crop").max() == 0
    assert decode_file(tmp_path / "a.png", 8, "box").max() > 10


def photographs(folder: Path, height: int, width: int) -> Path:
    rng = np.random.default_rng(1)
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for index in range(10):
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return folder


@pytest.mark.parametrize(("size", "sides"), [((32, 32), (32,)), ((90, 120), (32,)), ((20, 24), (20,))])
def test_a_training_reads_images_at_its_networks_resolution(size, sides, tmp_path):
    """They used to be enlarged or shrunk to 64 first."""
    folder = photographs(tmp_path / "images", *size)
    document = {**TINY, "input": {"channels": 3, "resolution": 32}}
    recipe = load_recipe("search").with_epochs(1)
    done = nas.train(
        nas.Architecture.from_dict(document),
        dataset=f"imagefolder:{folder}",
        recipe=recipe,
        device="cpu",
        out=tmp_path / "out",
    )
    described = card(load_trained(done.checkpoint), "it").preprocessing
    assert described == Preprocessing(3, sides)
    if size[0] == size[1]:  # what lies in the files is what the network sees
        file = folder / "a" / "0.png"
        assert torch.equal(described.read(file)[0].permute(1, 2, 0), torch.tensor(np.asarray(Image.open(file))))
    again = nas.evaluate(done.checkpoint)
    assert again["test_accuracy"] == pytest.approx(done.test_accuracy, abs=1e-6)


def test_an_older_training_reads_as_it_did(tmp_path):
    """Decoded at 64, cut as a box, whatever its checkpoint's resolution: its weights have seen nothing else."""
    folder = photographs(tmp_path / "images", 41, 66)
    data = load_dataset(f"imagefolder:{folder}", fit="box")
    assert data.resolution == 64
    document = {**TINY, "input": {"channels": 3, "resolution": 24}}
    done = train(nas.Architecture.from_dict(document), data, load_recipe("search").with_epochs(1), out=tmp_path / "out")
    saved = load_trained(done.model)
    del saved.extra["fit"]
    assert card(saved, "it").preprocessing == Preprocessing(3, (64, 24), "box")
