"""Train a supernet, and let its members judge images.

Each step is a sandwich (Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques", 2019): the
largest network, the smallest and two random ones see one batch, and one optimizer step follows for all of them. All
learn from the labels. At the budgets of a search the largest network knows too little to teach the others (in-place
distillation): after 5 epochs on digits the smallest had 88 % so, 72 % by distillation, 80 and 82 % by two mixtures, the
largest 99.5 and 97 % (one seed).
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.blocks.layers import channels_last_
from nas.errors import UserError
from nas.network.supernet import Supernet, build_largest
from nas.training.augment import Draws, Normaliser, prepare
from nas.training.batch_norm import recalibrate_on_images
from nas.training.checkpoint import Checkpoint
from nas.training.data import Dataset
from nas.training.evaluate import Scores, evaluate
from nas.training.loop import Trainer
from nas.training.members import Members, every_option, largest
from nas.training.recipe import Recipe

RANDOM_MEMBERS = 2
"""Random members of a step, beside the largest and the smallest one."""
LARGEST_GRADIENT = 5.0
"""Norm to which a step's gradient is clipped: it is the sum of four networks'."""
RECALIBRATING_IMAGES = 2_000
"""Training images on which a member's BatchNorm is recalibrated before it is judged."""


def new_supernet(space: Space, num_classes: int) -> Supernet:
    """Make a space's supernet, with fresh weights drawn from torch's global generator.

    Raises:
        UserError: a choice of the space cannot be a slice of its largest network.
    """
    architecture = largest(space)
    supernet = Supernet(architecture, build_largest(architecture, num_classes), num_classes)
    for member in every_option(space):
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
    """

    def __init__(self, space: Space, dataset: Dataset, recipe: Recipe, *, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            supernet = new_supernet(space, len(dataset.classes))
        super().__init__(supernet.network, dataset, recipe, seed=seed, graph=False)
        self.supernet, self._drawn = supernet, Members(space)

    def _step(self, draws: Draws) -> None:
        images = prepare(self.dataset.train.images[draws.order], self._augmentation, draws, self._normalise)
        self.supernet.train()
        self._sums += self._add_gradients(self._forward, images, draws)
        for member in self._members():
            self._add_gradients(functools.partial(self.supernet, member=member), images, draws)
        nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _members(self) -> list[Architecture]:
        """Draw a step's members; from the generator that a resumed training goes on with."""
        seed = int(torch.randint(2**31, (), generator=self._generator))
        rng = np.random.default_rng(seed)
        return [self._drawn.smallest, *(self._drawn.draw(rng) for _ in range(RANDOM_MEMBERS))]


@dataclass
class TrainedSupernet:
    """A supernet that is trained, with the data that its members are judged by.

    Attributes:
        supernet: on the CPU.
        dataset: in the search's own format.
    """

    supernet: Supernet
    dataset: Dataset

    def judge(self, member: Architecture) -> Scores:
        """Let a member judge the validation images, its BatchNorm recalibrated on training images.

        Raises:
            UserError: it is no member of the space.
        """
        images = self.dataset.for_network(member.input.channels, member.input.resolution, "cpu")
        network = channels_last_(self.supernet.built(member))
        normalise = Normaliser(images.mean, images.std, images.device)
        recalibrate_on_images(network, images.train.images[:RECALIBRATING_IMAGES], normalise, batch=256)
        return evaluate(network, images, "validation")


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
    network = build_largest(architecture, classes)
    network.load_state_dict(checkpoint.weights)
    return Supernet(architecture, network, classes, scores=scores), space


def supernet_extra(supernet: Supernet, space: Space) -> dict[str, Any]:
    """Describe a supernet in plain values, for a checkpoint's ``extra``."""
    return {
        "space": space.document,
        "scores": {name: scores.tolist() for name, scores in supernet.scores.items()},
    }
