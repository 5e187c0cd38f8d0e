"""A teacher made for a training: the parent that its weights come from, fine-tuned on the same images."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.errors import UserError
from nas.training.checkpoint import load_checkpoint
from nas.training.data import Dataset
from nas.training.loop import Epoch
from nas.training.parents import PRETRAINED, load_parent
from nas.training.recipe import Recipe
from nas.training.session import CHECKPOINT, MODEL, train

log = logging.getLogger(__name__)

FINE_TUNING = Recipe(
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.01,
    batch_size=32,
    epochs=5,
    steps=480,
    warmup_epochs=1.5,
)
"""How a parent is fine-tuned: AdamW in one cycle, at least 480 steps."""
MOST_TIME = 0.4
"""Share of the time of a training with a deadline that its teacher may take."""


def first_teacher(asked: Path | str | None, init: Path | str | None, *, searched: bool) -> Path | str | None:
    """Choose what a training learns from beside the labels: a trained network's path, or the name of its parent, which
    :func:`fine_tuned` makes one of.

    Args:
        asked: a trained network, ``auto`` (the parent) or ``none``; None: ``auto`` for a network that was searched so.
        init: the parent whose weights it begins with.
        searched: the networks of the search that found it began with them too.

    Raises:
        UserError: ``auto`` was asked for, and there is no parent.
    """
    choice = ("auto" if searched else "none") if asked is None else str(asked)
    if choice == "auto" and init is None:
        raise UserError("--teacher auto: it is the network that the first weights come from; give --init")
    return str(init) if choice == "auto" else None if choice == "none" else Path(choice)


def fine_tuned(
    init: Path | str,
    dataset: Dataset,
    recipe: Recipe,
    *,
    resolution: int,
    out: Path,
    deadline: float | None = None,
    on_epoch: Callable[[Epoch, int], None] = lambda epoch, epochs: None,
    **how: Any,
) -> tuple[Path, Path | str]:
    """Fine-tune a parent on the images that a network of its family will be trained on.

    A checkpoint of `nas` that was trained on the same classes is taken as it is. What an interrupted training left in
    `out` is used again.

    Args:
        init: the parent, as :func:`nas.training.parents.load_parent` takes it.
        dataset: as loaded.
        recipe: of the network; its flip, augmentation and class weights are the teacher's too.
        resolution: of the network's input.
        out: the folder of this training, within that of the network's.
        deadline: of both trainings, on the clock of :func:`time.monotonic`.
        on_epoch: called after every epoch with it and the number of all.
        how: seed, device, ranks, compile and threads, as :func:`nas.training.session.train` takes them.

    Returns:
        The teacher's weights, and what the network begins with: slices of these, which know the classes already
        (`benchmarks/few_images.py`), or those of a supernet, whose members were trained.

    Raises:
        UserError: `init` is no trained network, or cannot be had; the network was trained already.
    """
    try:
        parent = load_parent(init)
    except UserError as error:
        raise UserError(f"--teacher auto: {error}") from None
    if parent.name not in PRETRAINED and parent.classes == dataset.classes and parent.scores is None:
        return Path(init), init
    model = out / MODEL
    begins = model if parent.scores is None else init
    if (out.parent / CHECKPOINT).exists():
        raise UserError(f"{out.parent}: holds a training already; give another --out, or --resume to go on with it")
    begun = (out / CHECKPOINT).exists()
    if begun and load_checkpoint(out / CHECKPOINT).trainer is None:
        return model, begins
    teaching = replace(
        FINE_TUNING, flip=recipe.flip, augment=recipe.augment, class_weights=recipe.class_weights
    ).for_images(len(dataset.train))
    log.info("fine-tuning %s first: its judgement is learned beside the labels (--teacher none: labels alone)", init)
    train(
        parent.architecture.with_input(resolution=resolution),
        dataset,
        teaching,
        out=out,
        init=None if begun else init,
        resume=begun,
        deadline=None if deadline is None else deadline - (1 - MOST_TIME) * (deadline - time.monotonic()),
        on_epoch=on_epoch,
        **how,
    )
    return model, begins
