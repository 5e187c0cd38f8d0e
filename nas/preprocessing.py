"""From an image file to a network's input: one description that is computed from, printed and shipped."""

from __future__ import annotations

import functools
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from nas.errors import UserError, first_line

MOST_PIXELS = 4096
"""Of an image's side; no input of ours is larger than half of it."""

Fit = Literal["crop", "pad", "stretch", "box"]
"""How an image that is no square becomes one: its ends are cut, borders are added, or its shape is changed. ``box``
cuts in real coordinates while resizing, as trainings did before this was written down."""
FITS: tuple[Fit, ...] = ("crop", "pad", "stretch")
"""What a user may ask for."""

WHITES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
"""Largest values of images that hold more than 8 bits: fractions, and 8, 10, 12, 14 and 16 bits."""

_CHUNK = 4096  # images converted at once: bounds the memory for intermediate results
_WHITE = (255, 255, 255, 255)

_GRAY = (128, 128, 128)

_CUT = "Cut a square of side S = min(W, H): columns (W - S) div 2 to (W - S) div 2 + S - 1, rows likewise from "
_FITTED = {
    "crop": _CUT + "(H - S) div 2. Resize it alone, so that nothing outside it counts. In what follows it is the image "
    "(W = H = S), w = h = {side} and left = top = 0",
    "box": "Take the square box of side S = min(W, H) from left = (W - S) / 2, top = (H - S) / 2, which may end in "
    "half pixels. Do not cut it out: where the filter below reaches past the box, the image's pixels there count. "
    "(Of a tall image Pillow may resize the columns before the rows: one level's difference.) In what follows W = H = "
    "S and w = h = {side}",
    "pad": "Keep all of it and its shape: with L = max(W, H), w = max(1, (2 {side} W + L) div 2 L) and h likewise from "
    "H, left = top = 0",
    "stretch": "Keep all of it and change its shape: w = h = {side}, left = top = 0",
}


@dataclass(frozen=True)
class Preprocessing:
    """Steps that turn an image file into a network's input.

    Args:
        channels: 3 (RGB) or 1 (luminance); another number can be described, and read from no file.
        sides: of the squares that an image is resized to, in pixels, one after another. One where images are decoded at
            the network's resolution; two where a data set has a resolution of its own.
        fit: how an image becomes a square.
        white: the value that becomes 255 in images of more than 8 bits, where it is not their format's: of
            :data:`WHITES`, found when the training images were read.

    Raises:
        UserError: a side that is too small or too large, an unknown fit, or a white that is not one of them.
    """

    channels: int
    sides: tuple[int, ...]
    fit: Fit = "crop"
    white: float | None = None

    def __post_init__(self) -> None:
        for side in self.sides:
            if not 1 <= side <= MOST_PIXELS:
                raise UserError(f"decoded at {side} pixels, of 1 to {MOST_PIXELS}")
        if self.fit not in get_args(Fit):
            raise UserError(f"fit {self.fit!r}; allowed: {', '.join(FITS)}")
        if self.white not in (None, *WHITES):
            raise UserError(f"white {self.white!r}; allowed: {', '.join(f'{white:g}' for white in WHITES)}")

    def read(self, file: Path) -> Tensor:
        """An image as the network reads it: uint8 (1, C, R, R).

        Raises:
            UserError: it cannot be read, or the network reads other channels than gray or RGB.
        """
        if self.channels not in (1, 3):
            raise UserError(f"{self.channels} channels are read; image files have 1 or 3")
        pixels = torch.tensor(decode_file(file, self.sides[0], self.fit, self.white)).permute(2, 0, 1)
        return convert(pixels[None].contiguous(), self.channels, self.sides[-1])

    def steps(self) -> tuple[str, ...]:
        """The computation in words and formulas, exact enough to be written again in another language."""
        first = self.sides[0]
        onto = f" Lay it on a square of gray 128, from column ({first} - w) div 2 and row ({first} - h) div 2 on."
        again = "".join(f" Resize the result to {side} x {side} in the same way." for side in self.sides[1:])
        gray = " Make the first square gray: L = (19595 R + 38470 G + 7471 B + 32768) div 65536."
        deep = "16-bit gray v becomes v div 257"
        if self.white is not None:
            deep = (
                f"Gray values v of more than 8 bits, whole or fractions, become 255 min(max(v, 0), {self.white:g}) / "
                f"{self.white:g}, rounded"
            )
        return (
            "Decode the file to its pixels, without colour profiles; of an animation, the first image. A JPEG is "
            "decoded at 1/k of its size by libjpeg's scaling, k the first of 8, 4, 2 for which width and height are at "
            f"least {2 * first} k, in full where there is none. (Decoding it in full moves most values by less than a "
            "level.)",
            "Mirror and turn it as the EXIF orientation says, so that the picture stands upright: W x H pixels.",
            f"Bring it to 8-bit RGB. Gray levels are repeated three times, palettes looked up. {deep}; of 16-bit "
            "colours the high byte is taken. A pixel with opacity a of 255 and value v is laid on "
            "white: (v a + 255 (255 - a)) / 255, rounded.",
            f"{_FITTED[self.fit].format(side=first)}.",
            "Resize to w x h by a triangle filter that widens when it shrinks (antialiasing; Pillow's "
            "BILINEAR): every row, then every column of the result; where that changes no size, leave it out. With "
            "scale = W / w and f = max(1, scale), output i weighs each input pixel k that there is with "
            "max(0, 1 - |k + 0.5 - left - (i + 0.5) scale| / f); for columns, H, h and top in place of W, w and left. "
            "The weights of one output are divided by their sum and rounded to whole multiples u of 2^-22; the output "
            f"is (sum of u v + 2^21) div 2^22.{onto if self.fit == 'pad' else ''}"
            f"{again}{gray if self.channels == 1 else ''}",
            f"Divide by 255. float32, (batch, {self.channels}, "
            f"{self.sides[-1]}, {self.sides[-1]}), {'one plane' if self.channels == 1 else 'planes R, G, B'}, rows "
            "from the top.",
        )

    def text(self) -> str:
        """:meth:`steps`, numbered, one a line."""
        return "\n".join(f"{number}. {step}" for number, step in enumerate(self.steps(), 1))


def decode_file(file: Path, side: int, fit: Fit = "crop", white: float | None = None) -> NDArray[np.uint8]:
    """An image file as a square: uint8 (side, side, 3), RGB.

    Raises:
        UserError: it cannot be read (naming it).
    """
    try:
        with Image.open(file, formats=formats()) as image:
            # JPEG only: a large photograph at a fraction of its size, in a fraction of the time.
            image.draft("RGB", (2 * side, 2 * side))
            upright = _to_rgb(ImageOps.exif_transpose(image), white)
            return np.asarray(_square(upright, side, fit), dtype=np.uint8)
    except Exception as error:  # what a damaged image breaks in Pillow's readers can be anything
        missing = getattr(error, "strerror", None)  # or a folder, or not ours to read: nothing is wrong with it
        reason = f"({missing})" if missing else f"({first_line(error)}); repair or remove it"
        raise UserError(f"image {file}: cannot be read {reason}") from error


def checked_fit(name: str) -> Fit:
    """Return what a user asked for, checked."""
    for fit in FITS:
        if name == fit:
            return fit
    raise UserError(f"fit {name!r}; allowed: {', '.join(FITS)}")


@functools.cache
def formats() -> tuple[str, ...]:
    """Names of the formats that Pillow decodes itself, with pillow-heif's where that is installed.

    For EPS it starts another program on a file that may be a stranger's; the others it knows by name alone.
    """
    Image.init()
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in Image.OPEN if name not in ("EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"))


@functools.cache
def endings() -> frozenset[str]:
    """File endings of :func:`formats`, in lower case."""
    known = frozenset(formats())
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in known)


def is_image(file: Path) -> bool:
    """Return whether a file begins as an image of a common format does, whatever its name.

    TIFF is left out: raw photographs begin so, and Pillow would read their thumbnails.
    """
    try:
        with Image.open(file, formats=("JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF", "JPEG2000")):
            return True
    except Exception:  # what strange bytes break in Pillow's readers can be anything
        return False


def convert(images: Tensor, channels: int, resolution: int) -> Tensor:
    """Square uint8 images (N, C, S, S) with another channel count (1 or 3) and size, as :class:`Preprocessing` says.

    Runs on the CPU, so that the result does not depend on the training device.
    """
    if images.shape[0] == 0:
        return images.new_empty((0, channels, resolution, resolution))
    return torch.cat([_convert(chunk.cpu(), channels, resolution) for chunk in torch.split(images, _CHUNK)])


def _square(image: Image.Image, side: int, fit: Fit) -> Image.Image:
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if fit == "stretch":
        return _resized(image, side, side)
    if fit == "pad":
        # Resized first: a square around an image of one long row would take all memory.
        inner_width, inner_height = (max(1, (2 * side * extent + long) // (2 * long)) for extent in (width, height))
        canvas = Image.new("RGB", (side, side), _GRAY)
        inner = _resized(image, inner_width, inner_height)
        canvas.paste(inner, ((side - inner_width) // 2, (side - inner_height) // 2))
        return canvas
    if fit == "box":
        left, top = (width - short) / 2, (height - short) / 2
        return image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short))
    column, row = (width - short) // 2, (height - short) // 2
    cut = image.crop((column, row, column + short, row + short))
    return cut.resize((side, side), Image.Resampling.BILINEAR)


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize the rows, then the columns; Pillow alone takes tall images the other way round."""
    rows = image.resize((width, image.height), Image.Resampling.BILINEAR)
    return rows.resize((width, height), Image.Resampling.BILINEAR)


def is_deep(mode: str) -> bool:
    """Return whether images of one of Pillow's modes hold gray values of more than 8 bits."""
    return mode == "F" or mode.startswith("I")


def _to_rgb(image: Image.Image, white: float | None) -> Image.Image:
    if is_deep(image.mode):  # Pillow's own conversion would clip
        values = np.asarray(image)
        if white is None and image.mode != "F":
            levels = values.clip(0, 65535) // 257
        else:
            highest = float(values.max())
            if white is None and not 1 < highest <= 255:
                raise ValueError(f"fractions up to {highest:g}, and the network was trained on none")
            levels = np.floor(np.nan_to_num(values).clip(0, white or 255) * (255 / (white or 255)) + 0.5)
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, _WHITE), coloured).convert("RGB")
    return image.convert("RGB")


def _convert(images: Tensor, channels: int, resolution: int) -> Tensor:
    if images.shape[1] == 3 and channels == 1:
        # Pillow's integer form of BT.601: L = (19595 R + 38470 G + 7471 B + 2^15) >> 16
        weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32).view(1, 3, 1, 1)
        images = (((images.int() * weights).sum(1, keepdim=True) + (1 << 15)) >> 16).to(torch.uint8)
    if images.shape[-1] != resolution:
        images = _resize(images, resolution)
    if images.shape[1] == 1 and channels == 3:
        images = images.repeat(1, 3, 1, 1)
    return images.contiguous()


def _resize(images: Tensor, side: int) -> Tensor:
    """uint8 (N, C, S, S) -> (N, C, side, side), C 1 or 3. By Pillow, as files are: torch's own kernels round
    otherwise.
    """
    pictures = images.permute(0, 2, 3, 1).squeeze(3).contiguous().numpy()
    resized = np.empty((len(pictures), side, side, *pictures.shape[3:]), dtype=np.uint8)
    for picture, out in zip(pictures, resized, strict=True):
        out[:] = Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(resized).view(len(images), side, side, -1).permute(0, 3, 1, 2)
