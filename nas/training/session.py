"""The training of one network in full, with its files in a folder.

::

    architecture.yaml   the network, in the data set's input format
    train.yaml          data set, recipe, seed, and the checkpoint that it began with
    metrics.csv         one row per epoch
    model.safetensors   the result: the weights that the training ends with
    checkpoint.pt       the same weights, and until the end all that going on needs
    tensorboard/        the curves, where TensorBoard is installed

The result of a training, here as in a search, is the network as the recipe ends it. No epoch is picked by its
validation accuracy: the best of many is in part the luckiest. On digits it had no better test accuracy than the last
(+0.5 points, standard error 1.0, with the search's recipe; -0.2, 0.2 with a constant learning rate; n = 8 seeds, E of
width 0.5), and with the constant rate its validation accuracy was 1.8 points (0.4) above its test accuracy. A recipe
whose last epochs are not its best asks for those with `restart_from_best`, or averages weights (`ema`). Every accuracy
that is told, drawn or decided by is that of these weights in float32.

An epoch counts once `checkpoint.pt` knows it: it is written last. What a killed training wrote beyond that is written
again, with the same values, when it goes on.
"""

import csv
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from nas.architecture.document import Architecture
from nas.errors import UserError
from nas.files import read_text, write_atomic, write_file
from nas.training.checkpoint import load_checkpoint, save_checkpoint, save_weights
from nas.training.cpu import available_cores, fewest_fast, own_threads
from nas.training.data import Dataset
from nas.training.distributed import ALONE, Ranks
from nas.training.evaluator import TrainingEvaluator
from nas.training.loop import Epoch, Trainer
from nas.training.origin import read_begun
from nas.training.pace import epochs_within
from nas.training.parents import inherited
from nas.training.precision import COMPILING, worth_compiling
from nas.training.recipe import Recipe, steps_per_epoch
from nas.training.weights import Initialised, initialise

log = logging.getLogger(__name__)

MAX_METRICS = 100_000_000
"""Bytes; a row has about 150."""
CHECKPOINT, MODEL = "checkpoint.pt", "model.safetensors"


@dataclass(frozen=True)
class Trained:
    """Results of a training; accuracies in [0, 1], and the images that they were counted on.

    `model` and `checkpoint` hold the same weights, which `validation_accuracy` and `test_accuracy` are those of.
    """

    checkpoint: Path
    model: Path
    validation_accuracy: float
    test_accuracy: float
    validation_images: int
    test_images: int
    epochs: int
    initialised: Initialised | None = None
    shipped: Mapping[str, Any] | None = None
    """Figures of what ships on a target, of :func:`nas.export.judging.judge_shipped`; `nas train` adds them."""


def train(
    architecture: Architecture,
    dataset: Dataset,
    recipe: Recipe,
    *,
    out: Path,
    seed: int = 0,
    device: str = "cpu",
    ranks: Ranks = ALONE,
    compile: bool | None = None,
    threads: int | None = None,
    init: Path | str | None = None,
    teacher: Path | None = None,
    resume: bool = False,
    deadline: float | None = None,
    on_epoch: Callable[[Epoch, int], None] = lambda epoch, epochs: None,
) -> Trained:
    """Train a network from fresh weights or another network's, or go on where a training in `out` ended.

    Args:
        architecture: in the data set's channels.
        dataset: as loaded.
        recipe: its epochs are the length.
        out: the folder; created.
        device: ``cpu`` or ``cuda``.
        ranks: processes that train it together, each of them here; the first one writes.
        compile: compile the network first; None: where the training is long enough to pay that back.
        threads: of the CPU; None: as many as make steps faster, at most torch's; a resumed training has those it had.
        init: a published network with public weights, or a checkpoint or safetensors: a larger network of the family,
            whose slices ours start from; else tensors of its that have the name and shape of ours.
        teacher: a checkpoint or safetensors of a trained network whose judgement is a target beside the labels; a
            resumed training has the one that it had.
        resume: go on with the training in `out`; where it was killed before its first epoch's end, begin it again.
        deadline: on the clock of :func:`time.monotonic`: the training is cut to what fits, its schedule scaled.
        on_epoch: called after every epoch with it and the number of all.

    Raises:
        UserError: `out` holds a training and `resume` is not given, or it holds none and is to be resumed, or cannot be
            written; `init` or `teacher` does not fit, or is given with `resume`.
        nas.training.failures.TrainingError: the training cannot go on.
    """
    start = _start(out, recipe, init=init, teacher=teacher, resume=resume)
    if start.state is not None and deadline is not None and start.recorded and ranks.leads:  # limited from now on
        _record(out, architecture, {**start.recorded, "limited": True})
    evaluator, trainer = _trainer(architecture, dataset, start, seed, device, ranks, compile)
    taught = {} if trainer.teacher is None else {"teacher": trainer.teacher.name}
    steps = start.recipe.all_steps(len(dataset.train))
    if device != "cpu" or ranks.count > 1:
        threads = torch.get_num_threads()
    elif threads is None and resume:  # another number than it began with would round differently
        threads = start.recorded.get("threads") or torch.get_num_threads()
    elif threads is None:
        threads = _fast_threads(trainer, steps)
    rows: list[dict[str, Any]] = []
    initialised = None
    if start.state is not None:
        trainer.load_state_dict(start.state)
        rows = _read_metrics(out / "metrics.csv", trainer.epoch)
    else:
        if start.init is not None:
            initialised = _initialise(trainer, start.init, architecture, seed)
        if ranks.leads:
            description = {
                "architecture": architecture.name,
                "id": architecture.id,
                "dataset": dataset.name,
                "split": asdict(dataset.split),
                **_read_as(dataset),
                "seed": seed,
                "init": str(start.init) if start.init is not None else None,
                "teacher": str(start.teacher) if start.teacher is not None else None,
                "steps": steps,
                "limited": deadline is not None,
                "threads": threads,
                "recipe": start.recipe.to_dict(),
            }
            _record(out, architecture, description)
    with (
        own_threads(threads) if device == "cpu" and ranks.count == 1 else nullcontext(),
        scalars(out / "tensorboard", first_epoch=trainer.epoch + 1) if ranks.leads else nullcontext() as draw,
    ):
        epochs = epochs_within(deadline, trainer, evaluator, start.recipe, ranks)
        if not trainer.done:  # the first epoch may take minutes, and its line comes at its end
            _, batch = steps_per_epoch(len(dataset.train), trainer.recipe.batch_size, shares=ranks.count)
            step = f"{trainer.steps} steps of {batch * ranks.count} images"
            log.info("training epoch %d of %d: %s", trainer.epoch + 1, trainer.recipe.epochs, step)
        for epoch in epochs:
            if draw is None:  # another process writes
                continue
            rows.append(asdict(epoch))
            checkpoint = evaluator.checkpoint(architecture, trainer, **taught)
            write_atomic(out / "metrics.csv", _to_csv(rows))
            save_weights(out / MODEL, checkpoint)
            save_checkpoint(out / CHECKPOINT, checkpoint)
            draw(epoch)
            on_epoch(epoch, trainer.recipe.epochs)
        test_accuracy = trainer.evaluate("test").accuracy
    return Trained(
        checkpoint=out / CHECKPOINT,
        model=out / MODEL,
        validation_accuracy=trainer.accuracy,
        test_accuracy=test_accuracy,
        validation_images=len(dataset.validation),
        test_images=len(dataset.test),
        epochs=trainer.epoch,
        initialised=initialised,
    )


class _Start(NamedTuple):
    """What a training begins with, or goes on with.

    recipe    as asked for; where the training was cut to its time, as it was cut
    init      whose weights it begins with
    teacher   checkpoint of the network that it learns from
    recorded  what its folder says that it was begun with; empty for a new one
    state     of its trainer; None where no epoch has ended
    """

    recipe: Recipe
    init: Path | str | None
    teacher: Path | None
    recorded: Mapping[str, Any] = {}
    state: Mapping[str, Any] | None = None


def _start(out: Path, recipe: Recipe, *, init: Path | str | None, teacher: Path | None, resume: bool) -> _Start:
    """Begin a training in a folder, or find where the one in it ended; raises as :func:`train`."""
    path = out / CHECKPOINT
    if not resume:
        if path.exists():
            raise UserError(f"{out}: holds a training already; give another --out, or --resume to go on with it")
        return _Start(recipe, init, teacher)
    if init is not None:
        raise UserError("--init is for the beginning of a training; with --resume it goes on with its own weights")
    if teacher is not None:
        raise UserError("--teacher is for the beginning of a training; with --resume it keeps the one that it had")
    recorded = read_begun(out)
    teacher = Path(recorded["teacher"]) if isinstance(recorded.get("teacher"), str) else None
    if not path.exists():
        if not recorded:
            raise UserError(f"{out}: holds no training to go on with")
        init = recorded["init"] if isinstance(recorded.get("init"), str) else None
        return _Start(recipe, init, teacher, recorded)
    state = load_checkpoint(path).trainer
    if state is None:
        raise UserError(f"{path}: this training is done; begin another one with another --out")
    if recorded.get("limited") is True:
        recipe = Recipe.from_dict(state["recipe"])
    return _Start(recipe, None, teacher, recorded, state)


def _trainer(
    architecture: Architecture,
    dataset: Dataset,
    start: _Start,
    seed: int,
    device: str,
    ranks: Ranks,
    compile: bool | None,
) -> tuple[TrainingEvaluator, Trainer]:
    """Make the trainer, with fresh weights, and say what it will do."""
    log.info(start.recipe.budget(len(dataset.train)))
    if compile is None:
        compile = worth_compiling(device, start.recipe.all_steps(len(dataset.train)))
    if compile:
        log.info(COMPILING)
    evaluator = TrainingEvaluator(dataset, start.recipe, device=device)
    trainer = evaluator.trainer(architecture, seed, compile=compile, ranks=ranks, teacher=start.teacher)
    if trainer.teacher is not None:
        log.info("learning from %s beside the labels", trainer.teacher.name)
    return evaluator, trainer


def _initialise(trainer: Trainer, init: Path | str, architecture: Architecture, seed: int) -> Initialised:
    initialised = inherited(trainer, init, architecture, seed) or initialise(trainer.network, Path(init))
    if trainer.evaluated_network is not trainer.network:  # the average of its weights begins there too
        trainer.evaluated_network.load_state_dict(trainer.network.state_dict())
    log.info(str(initialised))
    return initialised


def _fast_threads(trainer: Trainer, steps: int) -> int:
    def time_step(count: int) -> float:
        torch.set_num_threads(count)
        return trainer.time_step()

    most = torch.get_num_threads()
    try:
        threads, seconds = fewest_fast(time_step, min(most, len(available_cores())), steps)
    finally:
        torch.set_num_threads(most)
    if seconds is not None:
        epoch = seconds * steps / trainer.recipe.epochs
        log.info("%d of %d threads (--threads N: others), about %d s an epoch", threads, most, max(1, round(epoch)))
    return threads


def _record(out: Path, architecture: Architecture, training: Mapping[str, Any]) -> None:
    write_file(out / "architecture.yaml", architecture.to_yaml(), new_folder=True)
    write_file(out / "train.yaml", yaml.safe_dump(dict(training), sort_keys=False, allow_unicode=True))


def _read_as(dataset: Dataset) -> dict[str, Any]:
    """Describe how a folder's images were read, and which they are; empty for other data sets."""
    if dataset.facts is None or dataset.fingerprint is None:
        return {}
    decoded = {"side": dataset.resolution, "fit": dataset.fit, "white": dataset.facts.white}
    return {"decoded": decoded, "images": dataset.fingerprint.to_dict()}


def _to_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [item.name for item in fields(Epoch)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read_metrics(path: Path, epochs: int) -> list[dict[str, Any]]:
    """Read the rows of the epochs that the checkpoint has completed."""
    if not path.exists():
        return []
    try:
        rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(read_text(path, most=MAX_METRICS))))[:epochs]
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file: {error}") from error
    if not all(row.keys() <= {item.name for item in fields(Epoch)} for row in rows):
        raise UserError(f"{path}: damaged: its columns are not those of the epochs of a training")
    return rows


@contextmanager
def scalars(folder: Path, *, first_epoch: int) -> Iterator[Callable[[Epoch], None]]:
    """Yield what takes the epochs of a training: event files in `folder`, or nothing without TensorBoard.

    Args:
        folder: created when the first epoch comes.
        first_epoch: what a killed training wrote from this epoch on is hidden.
    """
    if find_spec("tensorboard") is None:
        yield lambda epoch: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=first_epoch) as writer:

        def write(epoch: Epoch) -> None:
            figures = {
                "loss": epoch.loss,
                "accuracy/train": epoch.train_accuracy,
                "accuracy/validation": epoch.validation_accuracy,
                "learning_rate": epoch.lr,
                "images_per_second": epoch.images_per_second,
            }
            for name, figure in figures.items():
                writer.add_scalar(name, figure, epoch.epoch)
            writer.flush()

        yield write
