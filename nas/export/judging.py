"""Judgement of a data set's images by a trained network in any of its forms, and fine-tuning where int8 judges worse.

`nas evaluate`, and the end of `nas train --target`.
"""

import logging
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.architecture.document import Architecture
from nas.errors import UserError
from nas.export.check import ExportError
from nas.export.shipping import ENDINGS, judge_images, open_exported, ship
from nas.targets import Target
from nas.training.card import Card
from nas.training.checkpoint import Checkpoint, load_checkpoint, load_trained, save_checkpoint, save_weights
from nas.training.data import Dataset, PartName, load_again
from nas.training.evaluate import Scores, evaluate
from nas.training.evaluator import TrainingEvaluator
from nas.training.failures import TrainingError
from nas.training.fingerprint import compare
from nas.training.recipe import Recipe
from nas.training.session import Trained
from nas.training.weights import card, restored

log = logging.getLogger(__name__)

JUDGED: tuple[PartName, ...] = ("validation", "test")
MOST_LOST = 0.005
"""Validation accuracy that int8 may lose; above it, a training is fine-tuned."""


def judge_file(
    path: Path, *, dataset: str | None = None, data_dir: str | Path | None = None, device: str = "cpu"
) -> tuple[Architecture, Dataset, dict[PartName, Scores]]:
    """Let a trained network judge the validation and the test images.

    Args:
        path: a checkpoint, a training's ``.safetensors``, or a model that `nas export` wrote, fp32 or int8, which its
            own runtime runs on the CPU.
        dataset: default the one that it was trained on, split as it was then; a folder's path is not in a model.
        data_dir: where data sets lie.
        device: where a checkpoint's network runs.

    Returns:
        The network, the data set in its format, and the scores by part.

    Raises:
        UserError: the file is none of ours, or the data set does not fit.
    """
    if path.suffix in ENDINGS:
        run, description = open_exported(path)
        if description.split is None:
            raise UserError(f"{path}: exported before models said how their images were divided; export it again")
        if not (dataset or description.dataset):
            raise UserError(f"{path}: does not say where its images lie; give --dataset imagefolder:PATH")
        data = load_for(description, dataset or description.dataset, data_dir, str(path))
        return description.architecture, data, judge_exported(run, data)
    saved = load_trained(path)
    architecture = Architecture.from_dict(saved.architecture, str(path))
    data = load_for(card(saved, str(path)), dataset or saved.dataset, data_dir, str(path))
    # The images are normalised as they were in training, whatever data set they come from.
    data = replace(data.for_network(data.channels, data.resolution, device), mean=saved.mean, std=saved.std)
    network = restored(saved, str(path)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return architecture, data, {part: evaluate(network, data, part) for part in JUDGED}


def judge_shipped(target: Target, path: Path, data: Dataset) -> tuple[dict[str, Any], dict[PartName, Scores]]:
    """Make the file of a trained network for a target, measure it, and let it judge validation and test images.

    Args:
        target: where it will run.
        path: a checkpoint or a training's ``.safetensors``.
        data: what it was trained on, in its format.

    Returns:
        Plain values: ``name`` of the target, ``int8``, ``file_bytes``, ``memory_bytes`` (where it cannot be measured,
        as predicted) and, of int8, ``validation_accuracy`` and ``test_accuracy``, with the images that these were
        counted on; and the scores by part, none on ``torch``, where the network itself ships.

    Raises:
        UserError: the target does not run the network, an extra is missing, or the file is damaged.
        nas.export.ExportError: a library cannot convert or quantise it.
    """
    saved = load_trained(path)
    architecture = Architecture.from_dict(saved.architecture, str(path))
    classes = len(saved.classes)
    figures = {"name": target.name, "int8": target.int8, "memory_bytes": target.memory(architecture, classes)}
    if target.form is None:
        return figures | {"file_bytes": target.size(architecture, classes)}, {}
    shipment = ship(target, saved, data, str(path))
    figures |= {"file_bytes": shipment.file_bytes}
    if (measured := shipment.memory_bytes()) is not None:
        figures |= {"memory_bytes": measured}
    found = {part: shipment.judge(data, part) for part in JUDGED}
    if target.int8:
        figures |= {f"{part}_accuracy": scores.accuracy for part, scores in found.items()}
        figures |= {f"{part}_images": len(scores.hits) for part, scores in found.items()}
    return figures, found


def load_for(description: Card, dataset: str, data_dir: str | Path | None, where: str) -> Dataset:
    """Load a data set read and divided as for a network's training, in the network's format; log what changed of it.

    Args:
        description: the network's.
        dataset: a name or ``imagefolder:PATH``.
        data_dir: where data sets lie.
        where: what an error calls the network.

    Raises:
        UserError: it cannot be read, or has other classes.
    """
    assert description.split is not None
    data = load_again(
        dataset,
        split=description.split,
        preprocessing=description.preprocessing,
        classes=description.classes,
        data_dir=data_dir,
    )
    check_classes(data, description.classes, where)
    if line := compare(description.data, data.fingerprint):
        log.warning("%s: %s", where, line)
    channels, resolution, _ = description.shape
    return data.for_network(channels, resolution)


def check_classes(data: Dataset, classes: Sequence[str], where: str) -> None:
    """Raise `UserError` where a data set's classes are others than those that a network was trained on."""
    ours, theirs = ([unicodedata.normalize("NFC", name) for name in names] for names in (classes, data.classes))
    if len(ours) != len(theirs):
        raise UserError(f"{where}: trained on {len(ours)} classes, {data.name} has {len(theirs)}")
    if ours != theirs:
        one, other = next((one, other) for one, other in zip(ours, theirs, strict=True) if one != other)
        raise UserError(f"{where}: trained on class {one!r} where {data.name} has {other!r}")


def judge_exported(run: Callable[[Tensor], Tensor], data: Dataset) -> dict[PartName, Scores]:
    """Let an exported model, images (N, C, R, R) in [0, 1] -> logits, judge the validation and the test images."""
    return {part: judge_images(run, data, part) for part in JUDGED}


def with_shipped(trained: Trained, target: Target, data: Dataset, *, device: str = "cpu") -> Trained:
    """Add the figures of what ships on a target, after :func:`keep_int8_accuracy`; a line says where there are none."""
    kept = keep_int8_accuracy(trained, target, data, device=device)
    try:
        return replace(kept, shipped=judge_shipped(target, kept.model, data)[0])
    except (UserError, ExportError) as error:
        log.warning("what ships on %s is not known: %s", target.name, error)
        return kept


def keep_int8_accuracy(trained: Trained, target: Target, data: Dataset, *, device: str = "cpu") -> Trained:
    """Fine-tune a training as int8 computes where its int8 model loses over 0.5 points of validation accuracy.

    Its files are then replaced, if the int8 model of the new weights judges the validation images better.

    Where nothing can be converted or the fine-tuning fails, a training stays what it is.

    Args:
        trained: with its files.
        target: where it will run.
        data: what the network was trained on, in its format.
        device: where to train.

    Returns:
        The training with the accuracies of the weights that its files hold now.
    """
    if not target.int8:
        return trained
    saved = load_checkpoint(trained.checkpoint)
    try:
        return _kept(trained, saved, target, data, device)
    except (UserError, ExportError, TrainingError) as error:
        log.warning("not fine-tuned as int8 computes: %s", error)
        return trained


def _kept(trained: Trained, saved: Checkpoint, target: Target, data: Dataset, device: str) -> Trained:
    before = ship(target, saved, data).judge(data, "validation").accuracy
    if saved.accuracy - before <= MOST_LOST:
        return trained
    lost = f"{100 * (saved.accuracy - before):.1f} points ({100 * saved.accuracy:.1f} to {100 * before:.1f} %)"
    log.info("int8 loses %s on the validation images: fine-tuning as int8 computes", lost)
    tuned, test_accuracy = fine_tuned(saved, data, per_tensor=target.per_tensor, device=device)
    after = ship(target, tuned, data).judge(data, "validation").accuracy
    log.info("fine-tuned: fp32 %.1f %%, int8 %.1f %%", 100 * tuned.accuracy, 100 * after)
    if after <= before:
        log.info("no better: the weights stay as they were")
        return trained
    save_weights(trained.model, tuned)
    save_checkpoint(trained.checkpoint, tuned)
    return replace(trained, validation_accuracy=tuned.accuracy, test_accuracy=test_accuracy)


def fine_tuned(
    checkpoint: Checkpoint, data: Dataset, *, per_tensor: bool = False, device: str = "cpu"
) -> tuple[Checkpoint, float]:
    """Fine-tune a finished training as int8 computes, see :meth:`nas.training.recipe.Recipe.for_int8`.

    Args:
        checkpoint: of the training.
        data: what it was trained on.
        per_tensor: round weights by one scale per layer, as the target does.
        device: where to train.

    Returns:
        The checkpoint with other weights, and their test accuracy in fp32.
    """
    architecture = Architecture.from_dict(checkpoint.architecture)
    recipe = Recipe.from_dict(checkpoint.recipe).for_int8(per_tensor=per_tensor)
    evaluator = TrainingEvaluator(data, recipe, device=device)
    trainer = evaluator.trainer(architecture, seed=0)
    trainer.network.load_state_dict(checkpoint.weights)
    for _ in trainer.epochs():
        pass
    weights = {name: tensor.cpu() for name, tensor in trainer.evaluated_network.state_dict().items()}
    return replace(checkpoint, weights=weights, accuracy=trainer.accuracy), trainer.evaluate("test").accuracy
