"""Options of `nas train` and of :func:`nas.train`, stated once; importing this does not load torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nas.errors import UserError
from nas.options import (
    ABOVE_0,
    FROM_1,
    SEEDS,
    TARGETS,
    THREADS,
    Augment,
    ClassWeights,
    DataDir,
    Epochs,
    Fit,
    Flip,
    Seed,
    Strict,
    TrainSize,
    check_options,
)

if TYPE_CHECKING:
    from nas.architecture.document import Architecture
    from nas.training.loop import Epoch
    from nas.training.recipe import Recipe
else:  # they load torch; the command line gives names
    Architecture = Epoch = Recipe = Any


DATASETS = "digits, cifar10, cifar100, svhn, stl10, fashion_mnist or imagefolder:PATH"
DEFAULT_FIT = "crop"


@dataclass(frozen=True)
class DataOptions:
    """A data set to be described, and how a training would read it."""

    dataset: str
    _: KW_ONLY
    data_dir: DataDir = None
    train_size: TrainSize = None
    resolution: Annotated[int | None, "Input side in pixels (default: the images', at most 32).", FROM_1] = None
    fit: Fit = DEFAULT_FIT
    strict: Strict = False
    recipe: Annotated[
        str | Recipe, "Whose augmentation the page shows: search, train, han, hoang, kuo, or a YAML file."
    ] = "search"
    flip: Flip = None
    augment: Augment = None
    seed: Seed = 0
    out: Annotated[Path | str | None, "Write a page with images of each class, as a network sees them."] = None

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("flip", "augment"):
            if getattr(self, name) is not None and self.out is None:
                raise UserError(f"--{name} {getattr(self, name)} is for the page's images; give --out PAGE.html too")


@dataclass(frozen=True)
class TrainOptions:
    """A training of one network as asked for. What is not given of data, resolution, recipe and seed is that of the
    search that found the network, or of the training that is resumed.
    """

    architecture: str | Path | Architecture
    _: KW_ONLY
    dataset: Annotated[str | None, f"{DATASETS} (default: the search's, else digits)."] = None
    data_dir: DataDir = None
    train_size: Annotated[int | None, "Number of training images to use (default: the search's, else all).", FROM_1] = (
        None
    )
    resolution: Annotated[
        int | None, "Input side in pixels (default: the search's, else the network's, at most the images').", FROM_1
    ] = None
    fit: Annotated[
        str | None,
        f"How images of a folder become squares: crop, pad or stretch (default: the search's, else {DEFAULT_FIT}).",
    ] = None
    strict: Strict = False
    recipe: Annotated[
        str | Recipe | None,
        "train, search, han, hoang, kuo, or a YAML file (default: the search's; train in the place of search).",
    ] = None
    epochs: Epochs = None
    flip: Flip = None
    augment: Augment = None
    class_weights: ClassWeights = None
    qat: Annotated[bool, "Train the last 5% of the epochs as int8 computes (quantisation-aware training)."] = False
    device: Annotated[str | None, "cpu or cuda (default: cuda where there is one)."] = None
    compile: Annotated[bool | None, "Compile the network first (default: where a long training pays it back)."] = None
    threads: Annotated[int | None, "CPU threads (default: as many as make it faster).", THREADS] = None
    seed: Annotated[int | None, "Random seed (default: the search's, else 0).", SEEDS] = None
    out: Annotated[Path | str | None, "The folder (default: fresh, under results/)."] = None
    init: Annotated[
        Path | str | None,
        "Initial weights: efficientnet-lite0, mobilenetv2, a checkpoint or .safetensors, auto or none.",
    ] = None
    teacher: Annotated[
        Path | str | None,
        "Trained network to learn from beside the labels: a checkpoint or .safetensors, auto (the parent of --init, "
        "fine-tuned first) or none (default: auto for a network of a search that began with a parent's weights).",
    ] = None
    hours: Annotated[float | None, "End within this time: fewer epochs where the recipe's do not fit.", ABOVE_0] = None
    target: Annotated[
        str | None, f"Where it will run: its file is made and judged at the end: {TARGETS} (default: the search's)."
    ] = None
    run: Annotated[Path | str | None, "The search's folder (default: the one whose front NETWORK is of)."] = None
    resume: Annotated[bool, "Resume the training in --out."] = False
    on_epoch: Callable[[Epoch, int], None] = lambda epoch, epochs: None
    began: float | None = None

    def __post_init__(self) -> None:
        check_options(self)
        if self.resume and self.out is None:
            raise UserError("--resume needs --out: the folder of the training to go on with")
        if self.resume and self.run is not None:
            raise UserError("--run is for the beginning of a training; with --resume it keeps what it had")
