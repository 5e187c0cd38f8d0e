"""Train a supernet, and let its members judge images.

Each step is a sandwich (Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques", 2019): the
largest network, the smallest and two random ones see one batch, and one optimizer step follows for all of them. All
learn from the labels. At the budgets of a search the largest network knows too little to teach the others (in-place
distillation): after 5 epochs on digits the smallest had 88 % so, 72 % by distillation, 80 and 82 % by two mixtures, the
largest 99.5 and 97 % (one seed).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
from nas.training.members import Members, every_option, largest
from nas.training.recipe import Recipe
from nas.training.split import calibration_part

RANDOM_MEMBERS = 2
"""Random members of a step, beside the largest and the smallest one."""
LARGEST_GRADIENT = 5.0
"""Norm to which a step's gradient is clipped: it is the sum of four networks'."""
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
        recipe: its epochs are the budget.
        seed: of weights, order of images, augmentation and members.
        among: networks of the space to draw the random members from; none: all.
        ranks: processes that share every batch.

    Attributes:
        random_members: of a step.
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
        # The gradients of a step's networks are added up before they are averaged over the processes.
        ranks = replace(ranks, in_backward=False)
        super().__init__(supernet.network, dataset, recipe, seed=seed, graph=False, ranks=ranks)
        self.supernet, self._drawn = supernet, Members(space, among)
        self.random_members = RANDOM_MEMBERS

    def _step(self, draws: Draws) -> None:
        images = prepare(self.dataset.train.images[draws.order], self._augmentation, draws, self._normalise)
        self.supernet.train()
        members = [functools.partial(self.supernet, member=each) for each in self._members()]
        networks: list[Callable[[Tensor], Tensor]] = [self._forward, *members]
        for forward in networks:  # loss and accuracy are means over the networks
            self._sums += self._add_gradients(forward, images, draws) / len(networks)
        for weight in self.network.parameters():
            if weight.grad is None:  # no network of this step has it, and the fused optimizer takes all or none
                weight.grad = torch.zeros_like(weight)
        self._ranks.average_gradients(self.network)
        nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _members(self) -> list[Architecture]:
        """Draw a step's members; from the generator that a resumed training goes on with, alike in all processes."""
        seed = int(torch.randint(2**31, (), generator=self._generator))
        rng = np.random.default_rng(seed)
        return [self._drawn.smallest, *(self._drawn.draw(rng) for _ in range(self.random_members))]


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
        images = self.dataset.for_network(member.input.channels, member.input.resolution, "cpu")
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
