"""Train a supernet, and let its members judge images.

Each step trains one random member on a batch of its own (Guo et al., "Single Path One-Shot Neural Architecture Search
with Uniform Sampling", 2020). The sandwich that it replaced (Yu and Huang, "Universally Slimmable Networks", 2019: the
largest network, the smallest and two random ones see one batch) spent most of its time on the largest one, and ranked
networks worse (docs/benchmarks.md). All members learn from the labels. At the budgets of a search the largest network
knows too little to teach the others (in-place distillation, within a sandwich): after 5 epochs on digits the smallest
had 88 % without and 72 % with it, 80 and 82 % by two mixtures (one seed).
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.blocks.layers import channels_last_
from nas.errors import UserError
from nas.network.fake_quantise import FakeQuantised
from nas.network.supernet import Supernet, build_largest, unexpanding_blocks, unexpanding_of
from nas.targets import TARGETS, Target
from nas.training.augment import Draws, Normaliser, prepare
from nas.training.batch_norm import recalibrate_on_images
from nas.training.checkpoint import Checkpoint
from nas.training.data import Dataset
from nas.training.distributed import ALONE, Ranks
from nas.training.evaluate import Scores, evaluate, evaluate_forward
from nas.training.loop import Trainer
from nas.training.members import draw_members, every_option, largest
from nas.training.recipe import Recipe
from nas.training.split import calibration_part

TRAININGS = 4
"""An epoch has so many times the steps that one of a single network has: each of them trains one member."""
LARGEST_GRADIENT = 5.0
"""Norm to which a step's gradient is clipped."""
RECALIBRATING_IMAGES = 2_000
"""Training images on which a member's BatchNorm is recalibrated before it is judged."""
JUDGING_BATCH = 256


def new_supernet(space: Space, num_classes: int) -> Supernet:
    """Make a space's supernet, with fresh weights drawn from torch's global generator.

    Raises:
        UserError: a choice of the space cannot be a slice of its largest network.
    """
    architecture = largest(space)
    members = every_option(space)
    network = build_largest(architecture, num_classes, unexpanding_blocks(architecture, members))
    supernet = Supernet(architecture, network, num_classes)
    for member in members:
        try:
            supernet.check(member)
        except UserError as error:
            raise UserError(f"space {space.name} has no supernet: {error}") from error
    return supernet


class SupernetTrainer(Trainer):
    """Trains all networks of a space at once.

    `network` is the space's largest network; epochs, checkpoints and resuming are a training's.

    Args:
        space: its members; one channel count, resolutions up to the data set's.
        dataset: in the largest network's input format.
        recipe: its epochs are the training's.
        seed: of weights, order of images, augmentation and members.
        among: networks of the space to draw the members from; none: all.
        ranks: processes that share every batch.
    """

    def __init__(
        self,
        space: Space,
        dataset: Dataset,
        recipe: Recipe,
        *,
        seed: int = 0,
        among: Sequence[Architecture] = (),
        ranks: Ranks = ALONE,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            supernet = new_supernet(space, len(dataset.classes))
        # Members lack layers; their gradients are averaged over the processes where these are filled in.
        ranks = replace(ranks, in_backward=False)
        super().__init__(supernet.network, dataset, recipe, seed=seed, graph=False, ranks=ranks)
        self._steps *= TRAININGS
        self.supernet, self._space, self._among = supernet, space, among
        self._members: Iterator[Architecture] = iter(())

    def _train_epoch(self) -> tuple[float, float, float]:
        """Train an epoch's members, and recalibrate the largest network, which sees no image meanwhile.

        Members come from the generator that a resumed training goes on with, alike in all processes.
        """
        self.supernet.train()
        seed = int(torch.randint(2**31, (), generator=self._generator))
        drawn = draw_members(self._space, self._steps, np.random.default_rng(seed), among=self._among)
        self._members = itertools.cycle(drawn)  # a step that runs out of memory takes another one
        figures = super()._train_epoch()
        images = self.dataset.train.images[: 2 * JUDGING_BATCH]
        recalibrate_on_images(self.evaluated_network, images, self._normalise, batch=JUDGING_BATCH)
        return figures

    def _recalibrate(self, draws: Draws) -> None:
        """Leave that to the end of the epoch, the last one too."""

    def _step(self, draws: Draws) -> None:
        images = prepare(self.dataset.train.images[draws.order], self._augmentation, draws, self._normalise)
        member = functools.partial(self.supernet, member=next(self._members))
        self._sums += self._add_gradients(member, images, draws)
        for weight in self.network.parameters():
            if weight.grad is None:  # the member lacks it, and the fused optimizer takes all or none
                weight.grad = torch.zeros_like(weight)
        self._ranks.average_gradients(self.network)
        nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


@dataclass
class TrainedSupernet:
    """A supernet that is trained, with the data that its members are judged by.

    Attributes:
        supernet: on the CPU.
        dataset: in the search's own format.
        target: where members will run.
    """

    supernet: Supernet
    dataset: Dataset
    target: Target = TARGETS["torch"]

    @functools.cached_property
    def _for_network(self) -> Callable[..., Dataset]:
        """The images in a network's format, kept: resizing all takes longer than judging them."""
        return functools.cache(self.dataset.for_network)

    def judge(self, member: Architecture) -> Scores:
        """Let a member judge the validation images, its BatchNorm recalibrated on training images.

        On an int8 target it computes as its int8 model does, whose ranges are those of the images that an export takes
        them from: making and running that file takes several times as long.

        Raises:
            UserError: it is no member of the space.
        """
        network, images = self.recalibrated(member)
        if not self.target.int8:
            return evaluate(network, images)
        rounded = FakeQuantised(network.eval(), per_tensor=self.target.per_tensor)
        chosen = images.train.images[calibration_part(images.train.labels)]
        normalise = Normaliser(images.mean, images.std, images.device)
        rounded.observe(normalise(some) for some in torch.split(chosen, JUDGING_BATCH))
        return evaluate_forward(rounded, images, batch=JUDGING_BATCH)

    def recalibrated(self, member: Architecture) -> tuple[nn.Module, Dataset]:
        """Build a member with its slices and BatchNorm recalibrated, and the data set in its format.

        Raises:
            UserError: it is no member of the space.
        """
        images = self._for_network(member.input.channels, member.input.resolution, "cpu")
        network = channels_last_(self.supernet.built(member))
        normalise = Normaliser(images.mean, images.std, images.device)
        recalibrate_on_images(network, images.train.images[:RECALIBRATING_IMAGES], normalise, batch=JUDGING_BATCH)
        return network, images


def supernet_of(checkpoint: Checkpoint, where: str) -> tuple[Supernet, Space]:
    """Open the supernet of a checkpoint, and its space, which :func:`supernet_extra` described.

    Raises:
        UserError: it is none.
    """
    described = checkpoint.extra.get("supernet")
    if not isinstance(described, dict):
        raise UserError(f"{where}: an ordinary network, not a supernet; nas search --evaluator supernet trains one")
    space = Space(described["space"], f"{where}: its space")
    classes = len(checkpoint.classes)
    scores = {name: torch.tensor(values) for name, values in described["scores"].items()}
    architecture = largest(space)
    network = build_largest(architecture, classes, unexpanding_of(checkpoint.weights))
    network.load_state_dict(checkpoint.weights)
    return Supernet(architecture, network, classes, scores=scores), space


def supernet_extra(supernet: Supernet, space: Space) -> dict[str, Any]:
    """Describe a supernet in plain values, for a checkpoint's ``extra``."""
    return {
        "space": space.document,
        "scores": {name: scores.tolist() for name, scores in supernet.scores.items()},
    }
