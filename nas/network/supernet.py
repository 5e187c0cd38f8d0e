"""One network that holds smaller ones of its family: a member runs on slices of its weights.

A member has no layers of its own. Its document is built without weights, and called with those that it inherits
(:func:`nas.network.inherit.inherit`), which are differentiable in the supernet's; so what a member computes in the
supernet is what the built member with inherited weights computes.

Sources: Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment", 2020; Yu et al.,
"BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models", 2020.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from nas.architecture.document import Architecture
from nas.blocks.layers import SqueezeExcitation
from nas.errors import UserError
from nas.network.build import Network, build, initialise, skeleton, weight_shapes
from nas.network.importance import Scores, importance, placed_blocks
from nas.network.inherit import DIRECT, HEADLESS, inherit, leaves_expansion_out, unexpanded


def build_largest(architecture: Architecture, num_classes: int, unexpanding: Iterable[int] = ()) -> Network:
    """Build a supernet's network with fresh weights, and what its members do not slice from the largest one's layers.

    That is a second classifier for those that have no head, and a second body of each block that some build without
    expansion; `unexpanding` are these blocks' numbers.
    """
    network = build(architecture, num_classes)
    blocks = list(architecture.blocks())
    if architecture.head_channels:
        classifier = nn.Linear(blocks[-1].out_channels, num_classes)
        nn.init.normal_(classifier.weight, std=0.01)
        nn.init.zeros_(classifier.bias)
        network.add_module(HEADLESS, classifier)
    direct = {str(number): unexpanded(blocks[number]) for number in unexpanding}
    if direct:
        built = nn.ModuleDict({number: block.spec.build(block) for number, block in direct.items()})
        network.add_module(DIRECT, built.apply(initialise))
    return network


def unexpanding_blocks(architecture: Architecture, members: Iterable[Architecture]) -> list[int]:
    """Return the numbers of the largest network's blocks that some members build without expansion."""
    stages = [stage for stage, *_ in placed_blocks(architecture)]
    larger = {stage: block for stage, block, _ in placed_blocks(architecture)}
    found = {
        stage
        for member in members
        for stage, block, _ in placed_blocks(member)
        if stage in larger and leaves_expansion_out(block, larger[stage])
    }
    return [number for number, stage in enumerate(stages) if stage in found]


def has_own_weights(architecture: Architecture, member: Architecture) -> bool:
    """Return whether a member has layers that are no slices of the largest network's; see :func:`build_largest`."""
    return bool((architecture.head_channels and not member.head_channels) or unexpanding_blocks(architecture, [member]))


def unexpanding_of(weights: Iterable[str]) -> list[int]:
    """Return them from the names of a supernet's weights; older supernets have none."""
    return sorted({int(name.split(".")[1]) for name in weights if name.startswith(f"{DIRECT}.")})


class Supernet(nn.Module):
    """The largest network of a family, which runs any member.

    Shapes: (N, C, R, R) images -> (N, num_classes) logits; images of another side than the member's are resized.

    Args:
        architecture: the largest network's document.
        network: as :func:`build_largest` makes it.
        num_classes: outputs of the last layer.
        scores: which channels of each group members keep, the highest first; by default those that matter most by the
            weights as they are now. They stay as they are while the weights change, so that a member stays a member.
    """

    def __init__(
        self, architecture: Architecture, network: Network, num_classes: int, *, scores: Scores | None = None
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.num_classes = num_classes
        self.network = network
        self.scores = scores or {**importance(architecture, network, network.state_dict()), **_direct_scores(network)}

    def weights_of(self, member: Architecture) -> dict[str, Tensor]:
        """Slice a member's state dict, differentiable in the supernet's parameters.

        Raises:
            UserError: it is no member; the line names the stage and the field.
        """
        return self._checked(member, self._slice(member))

    def forward(self, x: Tensor, member: Architecture) -> Tensor:
        side = member.input.resolution
        if x.shape[-1] != side:
            x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
        layers = skeleton(member, self.num_classes).train(self.training)
        return functional_call(layers, self._slice(member), (x,), strict=True)

    def built(self, member: Architecture) -> nn.Module:
        """Build a member with inherited weights, on the CPU; its BatchNorm needs recalibration."""
        with torch.random.fork_rng(devices=[]):  # its fresh weights are drawn for nothing
            network = build(member, self.num_classes)
        network.load_state_dict({name: tensor.detach().cpu() for name, tensor in self.weights_of(member).items()})
        return network

    def check(self, member: Architecture) -> None:
        """Check that a network is a member, at little cost.

        Raises:
            UserError: it is none; the line names the stage and the field.
        """
        weights = {name: tensor.to("meta") for name, tensor in self.network.state_dict().items()}
        self._checked(member, inherit(self.architecture, weights, member, scores=self.scores))

    def _slice(self, member: Architecture) -> dict[str, Tensor]:
        weights = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        return inherit(self.architecture, weights, member, scores=self.scores)

    def _checked(self, member: Architecture, sliced: dict[str, Tensor]) -> dict[str, Tensor]:
        if missing := weight_shapes(member, self.num_classes).keys() - sliced.keys():
            raise UserError(f"{member.name}: its {min(missing)} is no slice of {self.architecture.name}")
        return sliced


def _direct_scores(network: Network) -> dict[str, Tensor]:
    """Score the channels within SE of the blocks without expansion: members keep the first ones."""
    return {
        name.rpartition(".body.")[0] + ".se": torch.ones(module.fc1.out_channels)
        for name, module in network.named_modules()
        if name.startswith(f"{DIRECT}.") and isinstance(module, SqueezeExcitation)
    }
