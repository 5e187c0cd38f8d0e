"""The training loop of one network."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.blocks.layers import channels_last_, use_training_variants
from nas.errors import UserError, first_line
from nas.network.fake_quantise import FakeQuantised
from nas.training.augment import Draws, Normaliser, draw_epoch, prepare
from nas.training.batch_norm import recalibrate_batch_norm, share_batch_norm
from nas.training.data import Dataset, PartName
from nas.training.distillation import Teacher, distillation_loss
from nas.training.distributed import ALONE, Ranks
from nas.training.evaluate import Scores, evaluate
from nas.training.failures import DivergedError, EpochTimeoutError, OutOfTimeError
from nas.training.graphs import StepGraph, kernels_chosen_by_time
from nas.training.optimizer import WeightAverage, build_optimizer, load_optimizer_state, xavier_
from nas.training.per_class import balanced_weights
from nas.training.precision import Compiled, autocast_dtype, disable_inplace_relu, mixed_precision
from nas.training.recipe import Recipe, steps_per_epoch
from nas.training.split import calibration_part

_FEWEST_RECALIBRATING, _STEPS_PER_RECALIBRATING = 4, 32
"""BatchNorm is recalibrated on at least 4 batches, and on one of 32 (1% of the time)."""


@dataclass(frozen=True)
class Epoch:
    """Results of one epoch.

    `epoch` counts from 1. `loss` (label-smoothed, mixed as trained) and `train_accuracy` are means over the epoch, on
    augmented images, while the weights moved. Accuracies in [0, 1]. `validation_accuracy` is that of the weights that
    the epoch ends with, which with `restart_from_best` may be an earlier epoch's. `lr` is that of the last step.
    `images_per_second` is of training alone.
    """

    epoch: int
    loss: float
    train_accuracy: float
    validation_accuracy: float
    lr: float
    seconds_train: float
    seconds_eval: float
    images_per_second: float
    validation_balanced_accuracy: float = math.nan
    """Mean of the validation accuracies of the classes; NaN in files of earlier versions."""


class Trainer:
    """Trains a network on a data set, on the device where the data set lies.

    `network`: any module that maps float (B, C, H, W) to logits (B, classes). It is moved to that device and to
    channels_last, in place. With a seed, a recipe and the CPU the run is repeatable bit for bit, also over `state_dict`
    and `load_state_dict`; the global random state is neither read nor changed.

    `compile`: torch.compile; minutes of start for long runs only. `graph`: on CUDA devices, steps become a CUDA graph
    where that pays. `ranks`: processes that share every batch; all of them call the same methods.
    `epoch_timeout`: seconds, checked after each step. `teacher`: its judgement is a target beside the labels.

    `deadline`, on the clock of :func:`time.monotonic`: what is not trained until then is given up, within an epoch too.

    Raises `UserError` for fewer than 2 images, in all or per process and batch, and for `qat` with a single epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        dataset: Dataset,
        recipe: Recipe,
        *,
        seed: int = 0,
        compile: bool = False,
        graph: bool = True,
        ranks: Ranks = ALONE,
        epoch_timeout: float | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        if recipe.qat and recipe.qat_from == recipe.epochs:
            raise UserError("--qat takes the last of at least 2 epochs; give --epochs 2 or more")
        self.recipe = recipe
        self.dataset = dataset
        self.device = dataset.device
        self._seed = seed
        self._generator = torch.Generator().manual_seed(_mix(seed, -1))
        if recipe.init == "xavier":
            xavier_(network, torch.Generator().manual_seed(_mix(seed, -2)))
        # On one core, MobileNetV2 of width 0.5 trains 1.4 times as fast as in NCHW at 32x32, 1.1 to 1.2 at 8x8 (fp32).
        self.network = channels_last_(network.to(self.device))
        use_training_variants(self.network)
        self._ranks = ranks
        self._shared = ranks.share_gradients(self.network, self.device)
        self._forward: Callable[[Tensor], Tensor] = Compiled(self._shared) if compile else self._shared
        self._average = WeightAverage(self.network, recipe.ema) if recipe.ema else None
        params = sum(parameter.numel() for parameter in network.parameters())
        self._augmentation = recipe.augmentation(
            resolution=dataset.resolution, flip_safe=dataset.flip_safe, params=params
        )
        self._normalise = Normaliser(dataset.mean, dataset.std, self.device)
        self._dtype = autocast_dtype(recipe.precision, self.device, dataset.resolution)
        if self._dtype is not None and self.device.type == "cpu":
            disable_inplace_relu(self.network)
        self._steps, self._batch = steps_per_epoch(len(dataset.train), recipe.batch_size, shares=ranks.count)
        self._sums = torch.zeros(2, device=self.device)
        self._class_weights = None
        if recipe.class_weights == "balanced":
            self._class_weights = balanced_weights(dataset.train.labels, len(dataset.classes)).to(self.device)
        first_flips = torch.Generator().manual_seed(_mix(seed, -3))
        self._first_flips = torch.rand(len(dataset.train), generator=first_flips) < 0.5
        self._epoch_timeout = epoch_timeout
        self.deadline = math.inf
        self._validating = 0.0  # seconds, the last time
        self.teacher = teacher
        self._parts = 1  # a batch goes through the network in so many parts; 2 after running out of memory
        # Graphs with several processes would need their collectives captured too.
        self._graphs = graph and self.device.type == "cuda" and ranks.count == 1
        self.epoch = 0
        self.accuracy, self.best_accuracy = 0.0, -1.0
        self._best: dict[str, Any] | None = None
        self._begin_steps()

    @property
    def done(self) -> bool:
        return self.epoch >= self.recipe.epochs

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return self._steps

    def shorten(self, recipe: Recipe, steps: int) -> None:
        """Go on by a recipe of other epochs, and with so many steps an epoch, at most those of all images."""
        self.recipe, self._steps = recipe, steps

    @property
    def graphed(self) -> bool:
        """True once steps run as a CUDA graph."""
        return self._graph is not None and self._graph.captured

    @property
    def evaluated_network(self) -> nn.Module:
        """The network whose accuracy is reported, to be kept: the averaged one if the recipe averages."""
        return self.network if self._average is None else self._average.network

    def epochs(self) -> Iterator[Epoch]:
        """Train to the end, one epoch per item."""
        while not self.done:
            yield self.run_epoch()

    def run_epoch(self) -> Epoch:
        """Train one epoch and validate.

        Raises `DivergedError` when the loss is not finite, `EpochTimeoutError`, `OutOfTimeError`, and torch's
        `OutOfMemoryError` when half a batch does not fit either. After any of them this trainer is of no more use.
        """
        started = time.perf_counter()
        loss, train_accuracy, lr = self._train_epoch()  # reads the loss, so the device is done when it returns
        trained = time.perf_counter()
        if not math.isfinite(loss):
            raise DivergedError(f"the loss of epoch {self.epoch + 1} is {loss}")
        validation = self.evaluate("validation")
        validation_accuracy = self._ranks.broadcast_from_rank0(validation.accuracy, self.device)
        evaluated = time.perf_counter()
        self._validating = evaluated - trained
        self.epoch += 1
        if self._keep_best(validation_accuracy):
            validation = self.evaluate("validation")
        return Epoch(
            epoch=self.epoch,
            loss=loss,
            train_accuracy=train_accuracy,
            validation_accuracy=self.accuracy,
            lr=lr,
            seconds_train=trained - started,
            seconds_eval=evaluated - trained,
            images_per_second=self._steps * self._batch / (trained - started),
            validation_balanced_accuracy=validation.balanced_accuracy,
        )

    def time_step(self) -> float:
        """Time forward and backward of one batch in seconds, on a copy of the network."""
        network = copy.deepcopy(self.network).train()
        batch = self._normalise(self.dataset.train.images[: self._batch])
        started = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            with mixed_precision(self.device, self._dtype):
                logits = network(batch)
                if self.teacher is not None:
                    self.teacher(batch)
            logits.float().sum().backward()
        return time.perf_counter() - started

    def evaluate(self, part: PartName) -> Scores:
        """Evaluate `evaluated_network` as it stands."""
        return evaluate(self.evaluated_network, self.dataset, part)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that resuming needs, as copies, in types that `torch.load(weights_only=True)` takes."""
        return {
            "recipe": self.recipe.to_dict(),
            "seed": self._seed,
            "epoch": self.epoch,
            "accuracy": self.accuracy,
            "best_accuracy": self.best_accuracy,
            "best": copy.deepcopy(self._best),
            "parts": self._parts,
            "network": copy.deepcopy(self.network.state_dict()),
            "average": None if self._average is None else copy.deepcopy(self._average.network.state_dict()),
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned. The trainer must have the same network, data, recipe and seed.

        Raises `UserError` for a state of another recipe, seed or network.
        """
        try:
            if Recipe.from_dict(state["recipe"]) != self.recipe or state["seed"] != self._seed:
                raise UserError("it has another recipe or seed; resume it with those that it was started with")
            self.epoch, self._parts = state["epoch"], state["parts"]
            if not (isinstance(self.epoch, int) and self.epoch >= 0 and self._parts in (1, 2)):
                raise ValueError(f"epoch {self.epoch!r}, {self._parts!r} parts")
            self.accuracy, self.best_accuracy = float(state["accuracy"]), float(state["best_accuracy"])
            self._best = copy.deepcopy(state["best"])
            self.network.load_state_dict(state["network"])
            if self._average is not None:
                self._average.network.load_state_dict(state["average"])
            self._generator.set_state(state["generator"].cpu())
            self._begin_steps()
            load_optimizer_state(self._optimizer, state["optimizer"])
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:  # UserError is a ValueError
            raise UserError(f"the saved training does not fit this one: {first_line(error)}") from error

    def _keep_best(self, accuracy: float) -> bool:
        """Record the best epoch; with `restart_from_best`, go back to it at milestones and at the end: returns True."""
        self.accuracy = accuracy
        better = accuracy > self.best_accuracy
        self.best_accuracy = max(accuracy, self.best_accuracy)
        if not self.recipe.restart_from_best or self.epoch > self.recipe.qat_from:
            return False
        if better:
            self._best = copy.deepcopy(self.evaluated_network.state_dict())
        if self.epoch in (*self.recipe.milestones, self.recipe.qat_from) and self._best is not None:
            self.network.load_state_dict(self._best)
            if self._average is not None:
                self._average.network.load_state_dict(self._best)
            self._begin_steps()
            self.accuracy = self.best_accuracy
            return True
        return False

    def _begin_steps(self) -> None:
        """Build a new optimizer, and with it a new graph, since the old one holds the old optimizer's tensors."""
        self._optimizer = build_optimizer(self.network, self.recipe)
        self._graph: StepGraph | None = None
        if self._graphs and self._parts == 1:
            steps = self._steps * (self.recipe.epochs - self.epoch)
            self._graph = StepGraph(self._optimizer, device=self.device, steps=steps)

    def _train_epoch(self) -> tuple[float, float, float]:
        """Train one epoch; return (mean loss, accuracy, last learning rate)."""
        draws = draw_epoch(
            self._augmentation,
            count=len(self.dataset.train),
            steps=self._steps,
            batch=self._batch,
            resolution=self.dataset.resolution,
            epoch=self.epoch,
            first_flips=self._first_flips,
            generator=self._generator,
        )
        draws = draws.share(self._ranks.index, self._ranks.count).to(self.device)
        lr = self.recipe.lr
        limit = math.inf if self._epoch_timeout is None else time.monotonic() + self._epoch_timeout
        self._sums.zero_()
        self.network.train()
        if self.epoch >= self.recipe.qat_from:
            self._simulate_int8()
        # Dropout and the like draw from the global state: give them a state of their own, and the caller's back.
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), kernels_chosen_by_time():
            torch.manual_seed(_mix(self._seed + self._ranks.index, self.epoch))
            for step in range(self._steps):
                lr = self.recipe.learning_rate(self.epoch + step / self._steps)
                for group in self._optimizer.param_groups:
                    group["lr"] = lr
                drawn = draws.step(step)
                if self._graph is None or not self._graph.run(drawn, lr, self._step, warm_up=self._step_or_halve):
                    self._step_or_halve(drawn)
                if self._average is not None:
                    self._average.update(self.epoch * self._steps + step)
                if time.monotonic() > limit:
                    reached = f"step {step + 1} of {self._steps}"
                    raise EpochTimeoutError(f"epoch {self.epoch + 1} took over {self._epoch_timeout:g} s: {reached}")
                if time.monotonic() > self.deadline - self._validating and step + 1 < self._steps:
                    done = self.epoch * self._steps + step + 1
                    raise OutOfTimeError(f"step {done} of {self.recipe.epochs * self._steps}")
            if self.epoch + 1 < self.recipe.epochs:
                self._recalibrate(draws)
        self._ranks.all_reduce_sum(self._sums)
        share_batch_norm(self.network, self._ranks)
        if self._average is not None:
            share_batch_norm(self._average.network, self._ranks)
        loss, hits = self._sums.tolist()  # the epoch's only synchronisation
        images = self._steps * self._batch
        return loss / images, hits / images, lr

    def _step(self, draws: Draws) -> None:
        """Take one optimizer step, and add the batch's summed loss and its hits to the epoch's.

        Nothing here reads a value from the device, so that a CUDA graph can capture it.
        """
        images = prepare(self.dataset.train.images[draws.order], self._augmentation, draws, self._normalise)
        self._sums += self._add_gradients(self._forward, images, draws)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _add_gradients(self, forward: Callable[[Tensor], Tensor], images: Tensor, draws: Draws) -> Tensor:
        """Let a network judge a prepared batch, add the gradients of its loss, and return summed loss and hits."""
        labels = self.dataset.train.labels[draws.order]
        sums = torch.zeros_like(self._sums)
        for part, own, other in zip(*(t.chunk(self._parts) for t in (images, labels, labels.flip(0))), strict=True):
            with mixed_precision(self.device, self._dtype):
                logits = forward(part)
                taught = None if self.teacher is None else self.teacher(part)
            logits = logits.float()
            loss = self._loss(logits, own)
            if draws.shares is not None:  # mixup: the mixture of both labels' losses
                loss = self._loss(logits, other).lerp(loss, draws.shares)
            if taught is not None:  # distillation: the teacher's judgement of the same augmented images
                soft = distillation_loss(logits, taught, self.recipe.distill_temperature)
                loss = loss.lerp(soft, self.recipe.distill_weight)
            (loss / len(labels)).backward()  # type: ignore[no-untyped-call]
            sums += torch.stack((loss.detach(), (logits.detach().argmax(1) == own).sum()))
        return sums

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        return F.cross_entropy(logits, labels, self._class_weights, reduction="sum", label_smoothing=smoothing)

    def _step_or_halve(self, draws: Draws) -> None:
        """Take a step; out of memory for the first time, take it and all that follow in two halves."""
        try:
            return self._step(draws)
        except torch.OutOfMemoryError:
            if self._parts > 1 or self._batch < 4 or self._ranks.count > 1:  # the others would wait for ever
                raise
        # Outside of the except block, whose traceback keeps the failed batch's tensors alive. Some running statistics
        # of batch normalisation have seen this batch once already; that is one update among thousands.
        self._parts, self._graph = 2, None
        self._optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return self._step(draws)

    def _simulate_int8(self) -> None:
        """Let an epoch compute as int8 will: kernel by kernel, in float32, in ranges that are observed beforehand."""
        if self._average is not None and self.epoch == self.recipe.qat_from:
            self.network.load_state_dict(self._average.network.state_dict())  # what is to be shipped
        simulated = FakeQuantised(self.network, self._shared, per_tensor=self.recipe.qat_per_tensor)
        chosen = self.dataset.train.images[calibration_part(self.dataset.train.labels)]
        simulated.observe(self._normalise(some) for some in torch.split(chosen, self._batch))
        self._forward, self._dtype, self._graph = simulated, None, None

    def _recalibrate(self, draws: Draws) -> None:
        """Recalibrate BatchNorm on the epoch's last batches, with the weights as they are now.

        Its running statistics lag behind by some ten steps. While weights change fast, that hides what a network has
        learned: with 19 steps an epoch, four networks had 10 to 29% validation accuracy after three epochs, and 36 to
        82% when recalibrated (digits). In the last epoch the running ones are better, over more batches: weights hardly
        change any more.
        """
        count = min(self._steps, max(_FEWEST_RECALIBRATING, self._steps // _STEPS_PER_RECALIBRATING))
        last = (draws.step(step) for step in range(self._steps - count, self._steps))
        images = self.dataset.train.images
        batches = (prepare(images[drawn.order], self._augmentation, drawn, self._normalise) for drawn in last)
        with mixed_precision(self.device, self._dtype):
            parts = (part for batch in batches for part in batch.chunk(self._parts))
            recalibrate_batch_norm(self.evaluated_network, parts)


def _mix(seed: int, stream: int) -> int:
    """Derive a seed per purpose (negative streams) and per epoch from the user's seed."""
    return (seed * 1_000_003 + stream * 7_919 + 104_729) % (1 << 63)
