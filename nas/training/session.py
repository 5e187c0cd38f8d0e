"""One network trained in full, with its files in a folder.

::

    architecture.yaml   the network, in the data set's input format
    train.yaml          data set, recipe, seed
    metrics.csv         one row per epoch
    checkpoint.pt       weights and all that going on needs
"""

import csv
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from nas.architecture import Architecture
from nas.errors import UserError
from nas.files import write_atomic
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.data import Dataset
from nas.training.evaluator import TrainingEvaluator
from nas.training.loop import Epoch
from nas.training.recipe import Recipe


@dataclass(frozen=True)
class Trained:
    """What a training gave; accuracies in [0, 1]."""

    checkpoint: Path
    validation_accuracy: float
    test_accuracy: float
    epochs: int


def train(
    architecture: Architecture,
    dataset: Dataset,
    recipe: Recipe,
    *,
    out: Path,
    seed: int = 0,
    device: str = "cpu",
    compile: bool = False,
    resume: bool = False,
    on_epoch: Callable[[Epoch, int], None] = lambda epoch, epochs: None,
) -> Trained:
    """Train a network from fresh weights, or go on where a training in `out` ended.

    Args:
        architecture: in the data set's channels.
        dataset: as loaded.
        recipe: its epochs are the length.
        out: the folder; created.
        device: ``cpu`` or ``cuda``.
        compile: compile the network first.
        resume: go on with the training in `out`.
        on_epoch: called after every epoch with it and the number of all.

    Raises:
        UserError: `out` holds a training and `resume` is not given, or cannot be written.
        nas.training.loop.TrainingError: the training cannot go on.
    """
    path = out / "checkpoint.pt"
    if path.exists() and not resume:
        raise UserError(f"{out}: holds a training already; give another --out, or --resume to go on with it")
    evaluator = TrainingEvaluator(dataset, recipe, device=device)
    trainer = evaluator.trainer(architecture, seed, compile=compile)
    rows: list[dict[str, Any]] = []
    if resume:
        state = load_checkpoint(path).trainer
        if state is None:
            raise UserError(f"{path}: this training is done; begin another one with another --out")
        trainer.load_state_dict(state)
        rows = _read_metrics(out / "metrics.csv", trainer.epoch)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / "architecture.yaml", architecture.to_yaml())
        write_atomic(out / "train.yaml", _describe(architecture, dataset, recipe, seed))
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}") from error
    for epoch in trainer.epochs():
        rows.append(asdict(epoch))
        save_checkpoint(path, evaluator.checkpoint(architecture, trainer))
        write_atomic(out / "metrics.csv", _to_csv(rows))
        on_epoch(epoch, recipe.epochs)
    return Trained(
        checkpoint=path,
        validation_accuracy=trainer.accuracy,
        test_accuracy=trainer.evaluate("test").accuracy,
        epochs=trainer.epoch,
    )


def _describe(architecture: Architecture, dataset: Dataset, recipe: Recipe, seed: int) -> str:
    document = {
        "architecture": architecture.name,
        "id": architecture.id,
        "dataset": dataset.name,
        "split": asdict(dataset.split),
        "seed": seed,
        "recipe": recipe.to_dict(),
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _to_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [item.name for item in fields(Epoch)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read_metrics(path: Path, epochs: int) -> list[dict[str, Any]]:
    """The rows of the epochs that the checkpoint has behind it."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))[:epochs]
