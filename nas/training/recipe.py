"""Training recipes: a small typed object, and the protocols of the papers by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from nas.errors import UserError
from nas.files import read_yaml
from nas.options import check_fields
from nas.training.augment import Augmentation, FlipMode, PadMode
from nas.training.photo import FEWEST, photo_strength
from nas.units import counted

Optimizer = Literal["sgd", "nag", "adamw"]
Schedule = Literal["one_cycle", "cosine", "step", "constant"]
Precision = Literal["auto", "fp32", "bf16"]
Init = Literal["default", "xavier"]
ClassWeights = Literal["none", "balanced"]
Augment = Literal["small", "photo"]

EPOCH_STEPS, SMALLEST_BATCH = 30, 16
"""Fewest steps of an epoch, where batches of the smallest size leave as many."""
FULL_RATE_BATCH = 64
"""The batch down to which a recipe's learning rate is kept. `train` (0.1 at batch 128) on 1,000 images of CIFAR-10, 5
classes, 16x16, 40 epochs, 2 seeds, test accuracy in %: batch 128 55.6; batch 32 at 0.05 57.9, at 0.025 56.2. `search`
on digits at batch 32 at 0.1: E 67 and MobileNetV2-CIFAR 65, where batch 64 reaches 98 (validation)."""
PHOTO_SIDE = 96
"""Smallest input, in pixels, that is augmented as a photograph where a recipe leaves that open."""
QAT_PART = 0.05
"""Part of the epochs that `with_qat` takes."""
_FEW_STEPS = 8
FLIPS = ("none", "horizontal")
_WARMUP_START = 1 / 25  # OneCycleLR's default start


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training: everything that changes the result but the data, the device and the seed.

    Raises `UserError` naming the field for a value out of range.
    """

    optimizer: Optimizer = "nag"  # SGD with momentum, with Nesterov's momentum, or AdamW
    lr: Annotated[float, Field(ge=1e-8, le=100)] = 0.1  # the highest learning rate
    final_lr: Annotated[float, Field(ge=0, le=1)] = 0.0  # the last one, as a part of `lr` (one_cycle and cosine)
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of sgd and nag; the first beta of adamw
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 5e-4  # decoupled for adamw, in the gradient for sgd and nag
    decay_norm_and_bias: bool = False  # decay normalisation weights and biases too
    # straight up and down; warm-up, then down; warm-up, then times `gamma` at every milestone; flat after the warm-up
    schedule: Schedule = "one_cycle"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0  # straight up from `lr` / 25; may be a fraction
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = ()  # epochs after which the step schedule falls
    gamma: Annotated[float, Field(ge=1e-6, le=1)] = 0.1
    # at every milestone and at the end, the weights with the best validation accuracy so far, momentum cleared
    restart_from_best: bool = False
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 12  # the length; with `steps`, the least one
    # least optimizer steps: `for_images` then works out `epochs`, and a batch that follows the data
    steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 128  # 2: batch normalisation; with `steps`, the largest
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Precision = "auto"  # of training: bf16 is autocast, auto whichever is faster on the device
    # small: `pad` and `flip`; photo: random resized crop, `flip`, TrivialAugment, random erasing (nas.training.photo);
    # None: photo for inputs of 96 pixels and more of networks of 100,000 parameters and more, else small. `cutout` and
    # `mixup` go with either
    augment: Augment | None = None
    pad: Annotated[int, Field(ge=0, le=1024)] | None = None  # pixels; None: an eighth of the side, 0 below 16x16
    pad_mode: PadMode = "zero"
    flip: FlipMode | None = None  # None: alternating where a mirrored image keeps its class, else none
    cutout: Annotated[float, Field(ge=0, le=1)] = 0.0  # side of the square as a part of the resolution; 0: off
    mixup: Annotated[float, Field(ge=0, le=100)] = 0.0  # alpha of the Beta distribution; 0: off
    # decay per step of an average of the weights, which is then what is evaluated; 0: off
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    init: Init = "default"  # the network's own, or xavier (uniform, biases 0)
    class_weights: ClassWeights = "none"  # balanced: in the loss a class's images make up for being few
    # of a training with a teacher: the share of its judgement in the loss, and what softens it
    distill_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    distill_temperature: Annotated[float, Field(ge=0.1, le=100)] = 4.0
    # part of the epochs, the last ones, that train as int8 computes (quantisation-aware); 1: all, of trained weights
    qat: Annotated[float, Field(ge=0, le=1)] = 0.0
    qat_per_tensor: bool = False  # one scale for all of a layer's weights, in place of one per output channel

    def __post_init__(self) -> None:
        check_fields(self, "recipe")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise UserError(f"recipe: milestones {list(self.milestones)}: must rise")
        if self.milestones and self.milestones[-1] >= self.epochs:
            raise UserError(f"recipe: milestones {list(self.milestones)}: all must lie before epoch {self.epochs}")
        if self.warmup_epochs >= self.epochs:
            hint = "" if self.steps is None else "; with steps alone, state it as a part of the training"
            raise UserError(
                f"recipe: warmup_epochs {self.warmup_epochs:g}: must be less than the {self.epochs} epochs{hint}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and checkpoints take them; `from_dict` gives an equal recipe."""
        return {**asdict(self), "milestones": list(self.milestones)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Recipe:
        """Make a recipe from plain values; what is not given stays at its default.

        One that gives `steps` and no `epochs` has that budget alone (`epochs` 1: at least one).

        Raises `UserError` for a field that does not exist, naming those that do, and for a value out of range.
        """
        if not isinstance(document, Mapping):
            raise UserError(f"recipe: fields and values are needed, not {type(document).__name__}")
        allowed = [field.name for field in fields(cls)]
        for name in document:
            if name not in allowed:
                raise UserError(f"recipe: unknown field {name!r}: allowed are {', '.join(allowed)}")
        values = dict(document)
        if isinstance(values.get("milestones"), list):
            values["milestones"] = tuple(values["milestones"])
        if values.get("steps") is not None:
            values.setdefault("epochs", 1)
        return cls(**values)

    def with_epochs(self, epochs: int) -> Recipe:
        """Scale the recipe to `epochs` epochs, whatever its `steps`; warm-up and milestones move in proportion.

        Milestones that fall together, on epoch 0 or on the end are dropped: a schedule of 2 epochs cannot have 3 steps.
        """
        if epochs == self.epochs:
            return replace(self, steps=None)
        if not isinstance(epochs, int) or epochs < 1:
            raise UserError(f"epochs {epochs!r}: a whole number of at least 1 is needed")
        scale = epochs / self.epochs
        moved = sorted({round(milestone * scale) for milestone in self.milestones})
        return replace(
            self,
            epochs=epochs,
            steps=None,
            warmup_epochs=self.warmup_epochs * scale,
            milestones=tuple(milestone for milestone in moved if 0 < milestone < epochs),
        )

    def with_options(
        self, *, flip: str | None = None, augment: str | None = None, class_weights: str | None = None
    ) -> Recipe:
        """Change what options ask for; what is None stays as the recipe says.

        Args:
            flip: ``horizontal`` mirrors training images left to right, though the data set may not say so; ``none``
                never does, where a mirrored image may belong to another class.
            augment: as ``small`` images or as a ``photo``.
            class_weights: of the loss: ``balanced`` or ``none``.

        Raises `UserError` for another word.
        """
        given = {"flip": flip, "augment": augment, "class_weights": class_weights}
        asked: dict[str, Any] = {name: word for name, word in given.items() if word is not None}
        for name, word in asked.items():
            allowed = {"flip": FLIPS, "augment": get_args(Augment), "class_weights": get_args(ClassWeights)}[name]
            if word not in allowed:
                raise UserError(f"{name.replace('_', ' ')} {word!r}: allowed are {', '.join(allowed)}")
        if flip == "horizontal":
            asked["flip"] = "random" if self.flip == "random" else "alternating"
        return replace(self, **asked)

    def with_qat(self, asked: bool, *, per_tensor: bool = False) -> Recipe:
        """Train the last epochs as int8 computes, where that is asked for: the recipe's own part of them, else 5%."""
        per_tensor = per_tensor or self.qat_per_tensor
        return replace(self, qat=self.qat or QAT_PART, qat_per_tensor=per_tensor) if asked else self

    def for_int8(self, *, per_tensor: bool = False) -> Recipe:
        """Return what fine-tunes weights that this recipe trained: 5% of its epochs, all as int8 computes, at 5% of
        its learning rate, falling to 0.
        """
        return replace(
            self,
            qat=1.0,
            qat_per_tensor=per_tensor,
            epochs=math.ceil(QAT_PART * self.epochs),
            steps=None,
            lr=QAT_PART * self.lr,
            final_lr=0.0,
            schedule="one_cycle",
            warmup_epochs=0.0,
            milestones=(),
            restart_from_best=False,
            ema=0.0,
            init="default",
        )

    @property
    def qat_from(self) -> int:
        """The first epoch, from 0, that trains as int8 computes; `epochs` where none does."""
        if self.qat == 1:
            return 0
        return max(1, self.epochs - math.ceil(self.qat * self.epochs))  # fresh weights have no ranges worth keeping

    def for_images(self, images: int, *, epochs: int | None = None) -> Recipe:
        """Fit the recipe to a number of training images: one with `steps` gets its batch and epochs from it.

        An epoch of few images is few steps, and a network learns by steps: so the batch is made smaller until an epoch
        has `EPOCH_STEPS` of them (a power of two, at least `SMALLEST_BATCH`). Below `FULL_RATE_BATCH` images the
        learning rate is smaller in proportion (P. Goyal et al., "Accurate, Large Minibatch SGD", 2017). There are as
        many epochs as `steps` take, but no fewer than the recipe's: more images have more to teach.

        A recipe without `steps`, as those of the papers, keeps its batch.

        Args:
            images: of the training part.
            epochs: instead of those worked out.
        """
        if self.steps is None:
            return self if epochs is None else self.with_epochs(epochs)
        batch = self.batch_size
        if images < EPOCH_STEPS * batch:
            power = 1 << max(images // EPOCH_STEPS, 1).bit_length() - 1
            batch = min(batch, max(power, SMALLEST_BATCH))
        per_epoch, _ = steps_per_epoch(images, batch)
        if epochs is None:
            epochs = max(self.epochs, math.ceil(self.steps / per_epoch))
        lr = self.lr * min(1, batch / min(FULL_RATE_BATCH, self.batch_size))
        return replace(self.with_epochs(epochs), batch_size=batch, lr=lr)

    def all_steps(self, images: int) -> int:
        """Return the optimizer steps of a training on `images` images."""
        return self.epochs * steps_per_epoch(images, self.batch_size)[0]

    def budget(self, images: int) -> str:
        """Describe the training's length on `images` images in one line."""
        per_epoch, batch = steps_per_epoch(images, self.batch_size)
        steps = f"{self.epochs * per_epoch:,} ({per_epoch} an epoch)"
        return f"{images:,} training images: batch {batch}, epochs {self.epochs}, steps {steps}"

    def learning_rate(self, epoch: float) -> float:
        """Return the learning rate at a time in epochs from the start (a step's beginning: step / steps per epoch).

        Equal to torch's MultiStepLR, CosineAnnealingLR and OneCycleLR (linear annealing) at their steps.
        """
        if epoch < self.warmup_epochs:
            return self.lr * (_WARMUP_START + (1 - _WARMUP_START) * epoch / self.warmup_epochs)
        past = min(1.0, (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs))
        if self.schedule == "one_cycle":
            return self.lr * (1 + (self.final_lr - 1) * past)
        if self.schedule == "cosine":
            return self.lr * (self.final_lr + (1 - self.final_lr) * (1 + math.cos(math.pi * past)) / 2)
        if self.schedule == "step":
            return self.lr * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        return self.lr

    def augmentation(self, *, resolution: int, flip_safe: bool, params: int | None = None) -> Augmentation:
        """Return the augmentation of images of this size, the data set's own defaults filled in.

        `params`: of the network, which the strength of `photo` follows; None: full strength.
        """
        default_flip: FlipMode = "alternating" if flip_safe else "none"
        # One pixel of eight is too much to shift: on digits at 8x8 (structure E, 8 epochs) it costs 4 points of
        # accuracy.
        default_pad = resolution // 8 if resolution >= 16 else 0
        pad = default_pad if self.pad is None else self.pad
        photographs = resolution >= PHOTO_SIDE and (params is None or params >= FEWEST)
        augment = self.augment or ("photo" if photographs else "small")
        return Augmentation(
            # a reflection cannot be deeper than the image, and a wider zero border would show empty images
            pad=min(pad, resolution - 1),
            pad_mode=self.pad_mode,
            flip=default_flip if self.flip is None else self.flip,
            cutout=round(self.cutout * resolution),
            mixup=self.mixup,
            photo=photo_strength(params) if augment == "photo" else 0.0,
        )


_SHORT = Recipe(optimizer="nag", lr=0.1, schedule="one_cycle", weight_decay=5e-4, batch_size=64, pad_mode="reflect")
_PAPER = Recipe(batch_size=128, decay_norm_and_bias=True, augment="small", flip="random", precision="fp32")
_HAN = replace(_PAPER, optimizer="sgd", lr=0.1, weight_decay=5e-4, epochs=300, restart_from_best=True)
_HOANG = replace(_PAPER, optimizer="nag", lr=0.1, weight_decay=1e-4, epochs=320, init="xavier")
_KUO = replace(_PAPER, optimizer="nag", lr=0.02, final_lr=0.1, weight_decay=5e-5, epochs=55)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "search": replace(_SHORT, epochs=9, steps=340, warmup_epochs=2),
        "train": replace(_SHORT, epochs=200, steps=6_000, warmup_epochs=44, label_smoothing=0.1),
        "han": replace(_HAN, schedule="step", milestones=(100, 200)),
        "hoang": replace(_HOANG, schedule="step", milestones=(150, 225)),
        "kuo": replace(_KUO, schedule="cosine", warmup_epochs=5),
    }
)
"""Recipes by name.

search  Short; for comparing networks in a search. Its least steps are those of its 9 epochs on digits. Learning rate
        0.1 against 0.05 on digits at batch 64, validation accuracy in %, mean of 2 seeds (E: 3): E 97.2 and 96.9,
        MobileNetV2-CIFAR 97.5 and 97.9, G 97.5 and 96.5, a sampled network of width 0.25 97.9 and 96.1. AdamW at 0.002
        and 0.005 reached 69 and 85 where NAG reached 94 (E, one seed).
train   A long run for the network that one keeps. Its least steps are about those of its 200 epochs on 500 images.

        What made both worse than a plain loop on few images was the border, not the steps. Reflected against zero,
        20 epochs of CIFAR-10 (5 classes, 16x16), a network of 0.13 million MACs, test accuracy in %, mean of 4:
        `search` 51.7 and 49.3 (500 images), 57.2 and 54.7 (1,000); with the cosine that `train` had, 50.4 and 50.1,
        56.2 and 54.3. One cycle with a long warm-up, without smoothing, instead of that cosine gave 1.3 and 1.1 points
        after 20 epochs; with smoothing it gave nothing after 100 (500 images, 2 seeds). Smoothing alone made no
        difference (0.5 points, within the spread). On 5,000 images, 12 epochs, 3 seeds, batch 128 is 1.3 points
        (standard error 0.6) below the plain loop, which has batch 64; at batch 64 it is 0.7 (0.2).
han     S.-K. Han, S.-C. Kwon, "A Study on Channel Expansion Structure for Reducing Model Size and Speeding Up of
        Classifier Using Inverted Residual Block", "Experimental environment": 3 steps of 100 epochs at 0.1, 0.01,
        0.001, each starting from the best weights of the step before, batch 128. Momentum and weight decay are not
        stated there: 0.9 and 5e-4, usual for CIFAR, are ours. "Best" is by validation accuracy here, where the paper
        reads test accuracy.
hoang   V.-T. Hoang, K.-H. Jo, "PydMobileNet", experiments: NAG, 0.1, divided by 10 at epochs 150 and 225 of 320, weight
        decay 1e-4, momentum 0.9, batch 128, Xavier initialisation, zero-padded crop and mirroring.
kuo     H. C. Kuo, Table 2: 55 epochs, the first 5 warming up, learning rate 0.02 falling to 0.002. Curve, batch,
        momentum and weight decay are not stated there; "a generic ImageNet training routine such as RegNet's" is:
        cosine, 128, 0.9, 5e-5.
"""


def load_recipe(name: str | Recipe) -> Recipe:
    """A recipe by its name in `RECIPES`, by its YAML file, or as it is. Raises `UserError` naming what is allowed."""
    if isinstance(name, Recipe):
        return name
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"unknown recipe {name!r}: allowed are {', '.join(RECIPES)}, and a YAML file")
    try:
        return Recipe.from_dict(read_yaml(path, hand_written=True))
    except UserError as error:
        raise error.at(str(path)) from error


def steps_per_epoch(images: int, batch_size: int, shares: int = 1) -> tuple[int, int]:
    """(steps, images per step). All steps are equal: a last batch of 1 would break batch normalisation, odd sizes
    static shapes.

    From 8 full batches on, what is left over is dropped (other images each epoch). With less data that could be half of
    it: there the batches are made smaller instead, and at most one image per step is dropped.

    `shares`: a batch is a multiple of it, rounded down, with at least 2 images for each; `UserError` where it is not,
    and for fewer than 2 images.
    """
    if images < 2:
        raise UserError(f"{counted(images, 'training image')}: at least 2 are needed")
    if images >= _FEW_STEPS * batch_size:
        steps, batch = images // batch_size, batch_size
    else:
        # never fewer than 2 images in a step
        steps = min(math.ceil(images / batch_size), images // 2)
        batch = images // steps
    batch -= batch % shares
    if batch < 2 * shares:
        raise UserError(f"batches of {batch_size} among {shares} processes: at least 2 images for each are needed")
    return steps, batch


def full_recipe(recipe: Recipe, images: int | None) -> Recipe:
    """The recipe that trains in full what a search compared by `recipe`: that itself, but in the place of the short
    preset `search` the preset `train`, with the flip, the class weights and the augmentation that were asked for.

    Args:
        recipe: of a search, fitted to its images.
        images: of the training part; None where it is not known, and neither whether the recipe was `search`.
    """
    if images is None:
        return RECIPES["train"]
    short, full = (
        replace(RECIPES[name], flip=recipe.flip, class_weights=recipe.class_weights, augment=recipe.augment)
        for name in ("search", "train")
    )
    return full if recipe == short.for_images(images, epochs=recipe.epochs) else recipe
