"""Training as a search knows it: architecture in, a stream of epochs out."""

import functools
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from nas.architecture.document import Architecture
from nas.errors import UserError
from nas.network.build import build
from nas.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nas.training.cpu import give_back, keep_freed_memory
from nas.training.data import Dataset, resplit
from nas.training.distillation import Teacher
from nas.training.distributed import ALONE, Ranks
from nas.training.evaluate import Scores, evaluate
from nas.training.loop import Epoch, Trainer
from nas.training.parents import Parent, begin
from nas.training.recipe import Recipe
from nas.training.weights import restored

log = logging.getLogger(__name__)


class TrainingEvaluator:
    """Trains every network, from fresh weights or from those of a parent.

    On the CPU, the process that makes one keeps the memory that it frees, until a network is done.

    Args:
        dataset: on any device; copies in the networks' input format are kept on `device`.
        recipe: its epochs are the budget.
        device: where the networks train.
        epoch_timeout: seconds after which an epoch is given up, or None.
        parent: whose weights networks of its family begin with.

    Attributes:
        split: seed by which the validation images of the trainings to come are drawn
            (:func:`nas.training.data.resplit`); None: they are the data set's.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        *,
        device: str = "cpu",
        epoch_timeout: float | None = None,
        parent: Parent | None = None,
    ) -> None:
        self.dataset = dataset
        self.recipe = recipe
        self.device = device
        self.epoch_timeout = epoch_timeout
        self.parent = parent
        self.split: int | None = None
        if device == "cpu":
            keep_freed_memory()
        self._for_network = functools.cache(dataset.for_network)
        self._parents: dict[int, Parent] = {}

    def run(
        self,
        architecture: Architecture,
        *,
        seed: int,
        checkpoint: Path | None = None,
        on_end: Callable[[Checkpoint, Dataset], None] | None = None,
        deadline: float = math.inf,
    ) -> Iterator[Epoch]:
        """Train a network to the full budget; yield every epoch, those behind a checkpoint included.

        Args:
            architecture: the network.
            seed: of weights, order of images and augmentation.
            checkpoint: a file that holds the state after every epoch; where it exists already, go on from it.
            on_end: given the trained network, and the data in its format, before the last epoch is yielded.
            deadline: when it is given up, on the clock of :func:`time.monotonic`.

        Raises what :meth:`nas.training.loop.Trainer.run_epoch` raises.
        """
        # An error of the last network may have kept its tensors alive until it was dealt with: begin clean as well.
        self._give_back_memory()
        trainer, history, saved = self._begun(architecture, seed, checkpoint)
        trainer.deadline = deadline
        try:
            # Whoever asked before may have died before it heard of the last ones.
            for epoch in history:
                if on_end is not None and saved is not None and epoch.epoch == self.recipe.epochs:
                    on_end(saved, trainer.dataset)
                yield epoch
            while len(history) < self.recipe.epochs:
                epoch = trainer.run_epoch()
                history.append(epoch)
                judge = on_end if trainer.done else None
                if checkpoint is not None or judge is not None:
                    epochs = [asdict(item) for item in history]
                    saved = self.checkpoint(architecture, trainer, seed=seed, epochs=epochs)
                    if checkpoint is not None:
                        save_checkpoint(checkpoint, saved)
                    if judge is not None:
                        judge(saved, trainer.dataset)
                yield epoch
        finally:  # also when the network fails, or whoever asks wants no more
            del trainer
            self._give_back_memory()

    def trainer(
        self,
        architecture: Architecture,
        seed: int,
        *,
        compile: bool = False,
        ranks: Ranks = ALONE,
        teacher: Path | None = None,
    ) -> Trainer:
        """Build a trainer at its start. The weights depend on the seed alone; the global generator stays as it was.

        `teacher`: the checkpoint of a network whose judgement is a target beside the labels.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build(architecture, len(self.dataset.classes))
        data = self._input(architecture, None if self.split is None else resplit(self.dataset, self.split))
        trainer = Trainer(
            network,
            data,
            self.recipe,
            seed=seed,
            compile=compile,
            ranks=ranks,
            epoch_timeout=self.epoch_timeout,
            teacher=None if teacher is None else Teacher(teacher, data),
        )
        if self.parent is not None:
            try:
                begin(trainer, self._parent(self.parent, data), architecture, seed)
            except UserError as error:  # a published network beside the search, of another family
                log.info("fresh weights: %s", error)
        return trainer

    def test(self, checkpoint: Path) -> tuple[Scores, Checkpoint, Dataset]:
        """Let the weights of a checkpoint judge the test images; return them, and the data set in their format, too.

        Raises:
            UserError: the checkpoint cannot be read.
        """
        saved = load_checkpoint(checkpoint)
        network = restored(saved, str(checkpoint))
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # as it was trained
        seed = saved.split["seed"]
        divided = resplit(self.dataset, seed) if seed != self.dataset.split.seed else None
        images = self._input(Architecture.from_dict(saved.architecture, str(checkpoint)), divided)
        images = replace(images, mean=saved.mean, std=saved.std)  # of the images that it was trained on
        return evaluate(network, images, "test"), saved, images

    def _begun(
        self, architecture: Architecture, seed: int, file: Path | None
    ) -> tuple[Trainer, list[Epoch], Checkpoint | None]:
        """The trainer where a checkpoint left off, the epochs behind it, and the checkpoint.

        At the start without one, and where it is another training's or was left damaged by a crash.
        """
        trainer = self.trainer(architecture, seed)
        if file is None or not file.exists():
            return trainer, [], None
        try:
            saved = load_checkpoint(file)
            if saved.architecture != architecture.to_dict() or saved.extra["seed"] != seed:
                return trainer, [], None
            history = [Epoch(**item) for item in saved.extra["epochs"]]
            if saved.trainer is not None:
                trainer.load_state_dict(saved.trainer)
            if len(history) == (self.recipe.epochs if saved.trainer is None else trainer.epoch):
                return trainer, history, saved
        except (UserError, KeyError, TypeError):
            pass
        return self.trainer(architecture, seed), [], None

    def checkpoint(self, architecture: Architecture, trainer: Trainer, **extra: Any) -> Checkpoint:
        """Build the checkpoint of a training; at its end it holds the weights alone, a third of the size.

        Args:
            extra: what else to keep, in plain values.
        """
        began = {} if self.parent is None else {"parent": self.parent.name}
        return Checkpoint(
            architecture=architecture.to_dict(),
            classes=trainer.dataset.classes,
            mean=trainer.dataset.mean,
            std=trainer.dataset.std,
            dataset=trainer.dataset.name,
            split=asdict(trainer.dataset.split),
            recipe=self.recipe.to_dict(),
            epoch=trainer.epoch,
            accuracy=trainer.accuracy,
            weights=trainer.evaluated_network.state_dict(),
            extra={"source_resolution": self.dataset.resolution, **_described(trainer.dataset), **began, **extra},
            trainer=None if trainer.done else trainer.state_dict(),
        )

    def _give_back_memory(self) -> None:
        """Release cached device memory for other processes and for networks of other sizes."""
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        else:
            give_back()

    def _parent(self, parent: Parent, data: Dataset) -> Parent:
        """Return the parent as it sees the training images, which is worked out once where they are the same."""
        if self.split is not None:
            return parent.seeing(data.train.images)
        if data.resolution not in self._parents:
            self._parents[data.resolution] = parent.seeing(data.train.images)
        return self._parents[data.resolution]

    def _input(self, architecture: Architecture, divided: Dataset | None = None) -> Dataset:
        for_network = self._for_network if divided is None else divided.for_network
        return for_network(architecture.input.channels, architecture.input.resolution, self.device)


def _described(dataset: Dataset) -> dict[str, Any]:
    """Plain values of how a data set's images were read, and of which they are."""
    facts, known = dataset.facts, dataset.fingerprint
    white = {"white": facts.white} if facts is not None and facts.white is not None else {}
    return {"fit": dataset.fit, **white, **({"data": known.to_dict()} if known is not None else {})}
