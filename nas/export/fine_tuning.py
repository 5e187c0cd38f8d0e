"""Fine-tuning of a trained network where its int8 model loses accuracy; `nas train --target` of an int8 target."""

import logging
from dataclasses import replace

from nas.architecture.document import Architecture
from nas.errors import UserError
from nas.export.check import ExportError
from nas.export.judging import figures_of
from nas.export.shipping import ship
from nas.targets import Target
from nas.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, save_weights
from nas.training.data import Dataset
from nas.training.evaluator import TrainingEvaluator
from nas.training.failures import TrainingError
from nas.training.recipe import Recipe
from nas.training.session import Trained

log = logging.getLogger(__name__)

MOST_LOST = 0.005
"""Validation accuracy that int8 may lose; above it, a training is fine-tuned."""


def with_shipped(trained: Trained, target: Target, data: Dataset, *, device: str = "cpu") -> Trained:
    """Add the figures of what ships on a target, after :func:`keep_int8_accuracy`."""
    kept = keep_int8_accuracy(trained, target, data, device=device)
    return replace(kept, shipped=figures_of(target, kept.model, data))


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
