"""Weights of a network from those of a larger one of its family.

Every layer of the child is a slice of the parent's: the most important channels, the centre of the kernels, the first
blocks of a stage. Channels of a stream are chosen together for all blocks of a stage, since residuals add them. A child
that is equal to its parent has its weights, and one that differs in depth alone computes what the parent does with
these blocks skipped. What the parent lacks begins so that it changes nothing: SE at a gate that the next layer makes up
for, experts equal up to a part that cancels, a shortcut's convolution at zero.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.blocks import Block
from nas.blocks.inheritance import (
    Channels,
    DoesNotFitError,
    Slices,
    Weights,
    Wire,
    after,
    best,
    layers,
    written_channels,
)
from nas.blocks.layers import SqueezeExcitation
from nas.blocks.stage import Ends
from nas.errors import UserError
from nas.network.build import Network, block_skeleton, skeleton, weight_shapes
from nas.network.importance import Scores, importance, placed_blocks

HEADLESS = "headless"
"""A supernet's classifier for members without a head."""
DIRECT = "direct"
"""A supernet's blocks for members that leave the expansion out: their layers read the stream itself, and trained as
slices of those that read expanded channels, either kind spoils the other's."""
_FIELDS = {"hidden": "expansion", "se": "se_ratio", "out": "channels", "expand": "keep_expansion"}
"""The document's fields that groups of channels and layers come from."""


def inherit(
    parent: Architecture,
    weights: Weights,
    child: Architecture,
    *,
    classifier: bool = True,
    scores: Scores | None = None,
    covariances: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Slice a child's weights out of its parent's.

    Strides, padding and resolution may differ; they have no weights. The result is differentiable in the parent's
    weights: ``torch.func.functional_call`` with it runs a member of a supernet.

    Args:
        parent: the larger network's document.
        weights: its state dict.
        child: the smaller network's document.
        classifier: the classes are the parent's; else the last layer is left out.
        scores: importance of the parent's channels; default: :func:`nas.network.importance.importance`, by its weights.
        covariances: of what the parent's layers read, by path, where they are known: the child's weights then make up
            for the channels that it lacks.

    Returns:
        The child's state dict, without what begins fresh: the classifier of other classes, a head that follows another
        stage than the parent's, and the first layers of SE and of shortcuts that the parent lacks.

    Raises:
        UserError: one line that names the stage and the field: the child is larger, or of another family, or the
            weights are not the parent's.
    """
    check_family(parent, child)
    classes = _classes(parent, weights)
    large, small = skeleton(parent, classes), skeleton(child, classes)
    check_weights(parent, classes, weights)
    scores = importance(parent, large, weights) if scores is None else scores
    return _Inheritance((parent, large), (child, small), Slices(weights, covariances or {}), scores).run(classifier)


def check_fits(parent: Architecture, child: Architecture) -> None:
    """Check that a child could inherit from a parent, whatever its weights.

    Raises:
        UserError: one line that names the stage and the field.
    """
    tensors = skeleton(parent, 2).state_dict()
    inherit(parent, {name: torch.zeros(tensor.shape) for name, tensor in tensors.items()}, child)


def check_family(parent: Architecture, child: Architecture) -> None:
    """Check what no slice can change: the layers' kinds, and how many stages and blocks there are.

    Raises:
        UserError: one line that names the stage and the field.
    """
    stages = zip(child.stages, parent.stages, strict=False)
    same = [
        ("activation", child.activation, parent.activation),
        ("norm", child.norm, parent.norm),
        ("input.channels", child.input.channels, parent.input.channels),
        ("head.classifier", child.head.classifier, parent.head.classifier),
        *((f"stages[{number}].block", own.block, other.block) for number, (own, other) in enumerate(stages)),
    ]
    for field, own, other in same:
        if own != other:
            raise UserError(f"{child.name}: {field}: {own}, the parent {parent.name} has {other}: another family")
    most = [("stages", len(child.stages), len(parent.stages))]
    for number, (own_stage, stage) in enumerate(zip(child.stages, parent.stages, strict=False)):
        most.append((f"stages[{number}].repeats", own_stage.repeats, stage.repeats))
    for field, count, at_most in most:
        if count > at_most:
            raise UserError(f"{child.name}: {field}: {count} are more than the parent's {at_most} ({parent.name})")


class _Layer(NamedTuple):
    """A layer with its path in the network."""

    path: str
    module: nn.Module


class _Inheritance:
    """Walks through a child's layers beside its parent's."""

    def __init__(
        self,
        parent: tuple[Architecture, Network],
        child: tuple[Architecture, Network],
        slices: Slices,
        scores: Scores,
    ) -> None:
        (self.parent, self.large), (self.child, self.small) = parent, child
        self.slices = slices
        self.scores = scores

    def run(self, classifier: bool) -> dict[str, Tensor]:
        with self._at("stem"):
            image = Channels(torch.arange(self.parent.input.channels))
            stream = Channels(self._keep("stem", "out", self.child.stem_channels))
            self._take(_Layer("stem", self.small.stem), _Layer("stem", self.large.stem), image, stream)
        stages: dict[int, list[tuple[Block, str, str]]] = {}
        for stage, block, path in placed_blocks(self.parent):
            stages.setdefault(stage, []).append((block, path, f"stages[{stage}]"))
        position = 0
        for stage, block, path in placed_blocks(self.child):
            position = 0 if block.first else position + 1
            with self._at(f"stages[{stage}]"):
                stream = self._block(block, path, *self._source(block, *stages[stage][position]), stream)
        if len(self.child.stages) == len(self.parent.stages):
            with self._at("head"):
                self._head(stream, classifier)
        return self.slices.found

    def _source(self, block: Block, larger: Block, path: str, stream: str) -> tuple[Block, str, str]:
        """Choose what a block inherits from: the larger one or, where only that expands, a supernet's own for such."""
        place = f"{DIRECT}.{path.rpartition('.')[2]}"
        if leaves_expansion_out(block, larger) and any(name.startswith(f"{place}.") for name in self.slices.weights):
            return unexpanded(larger), place, stream
        return larger, path, stream

    def _block(
        self, block: Block, path: str, larger: Block, larger_path: str, larger_stream: str, stream: Channels
    ) -> Channels:
        """Slice one block whose input keeps `stream`; return what its output keeps."""
        ends, out = Ends(block, larger, stream.index), stream
        tied = larger.shortcut == "identity" and block.in_channels == block.out_channels
        if block.first and not tied:
            out = Channels(self._keep(larger_stream, "out", block.out_channels, ends))
        groups = {"stream": stream, "in": stream, "out": out}  # by the larger block's names
        wires, theirs = ({wire.role: wire for wire in each.spec.all_wires(each)} for each in (block, larger))
        last = "in"
        for role in _merged(list(wires), list(theirs)):
            wire, their = wires.get(role), theirs.get(role)
            if their is None:
                assert wire is not None
                self._begin(role, self._part(self.small, path, wire), groups, last)
                continue
            large = self._larger_part(larger, larger_path, their)
            if wire is None:
                if isinstance(large.module, SqueezeExcitation):
                    groups[their.reads] = self.slices.without_squeeze(large.path, groups[their.reads])
                continue
            small = self._part(self.small, path, wire)
            for group, count in ((their.reads, block.in_channels), (their.writes, written_channels(small.module))):
                if group not in groups:
                    groups[group] = Channels(self._keep(f"{larger_path}.{group}", group, count, ends))
            reads, writes = groups[their.reads], groups[their.writes]
            if isinstance(small.module, SqueezeExcitation):
                inner = self._keep(f"{larger_path}.se", "se", small.module.fc1.out_channels, ends)
                self.slices.squeeze(small.path, large.path, reads, inner)
            elif their.writes == "out":
                part = writes.index[wire.begins : wire.begins + written_channels(small.module)] - their.begins
                self._take(small, large, reads, Channels(part))
            else:
                total = len(self.scores.get(f"{larger_path}.{their.writes}", ()))
                groups[their.writes] = self._take(small, large, reads, writes, total)
                last = their.writes
        return out

    def _begin(self, role: str, small: _Layer, groups: dict[str, Channels], group: str) -> None:
        """Begin a layer that the larger block lacks."""
        if isinstance(small.module, SqueezeExcitation):
            groups[group] = self.slices.new_squeeze(small.path, small.module, groups[group])
        elif role == "shortcut":
            self.slices.silence(list(layers(small.module, small.path)))
        else:
            raise DoesNotFitError(_FIELDS.get(role, "depth"), f"has the layer {role!r}, the parent's has not")

    def _take(self, small: _Layer, large: _Layer, reads: Channels, writes: Channels, total: int = 0) -> Channels:
        """Slice the layers of a wire; return what the group that they write, of `total` channels, is then."""
        own, other = list(layers(small.module, small.path)), list(layers(large.module, large.path))
        if len(own) != len(other):
            raise DoesNotFitError("intermediate", "the parent's is another one")
        writes = Channels(writes.index)
        for (path, module), (place, whole) in zip(own, other, strict=True):
            self.slices.take(path, module, place, whole, reads, writes)
            writes = after(module, whole, writes, total)
        return writes

    def _head(self, stream: Channels, classifier: bool) -> None:
        if self.child.head_channels:
            if not self.parent.head_channels:
                raise DoesNotFitError("channels", "the parent has no convolution there")
            head = Channels(self._keep("head", "out", self.child.head_channels))
            self._take(_Layer("head", self.small.head), _Layer("head", self.large.head), stream, head)
            stream = head
        if not classifier:
            return
        name = source = "classifier" if isinstance(self.small.classifier, nn.Linear) else "classifier.0"
        if self.parent.head_channels and not self.child.head_channels:
            source = HEADLESS  # nothing else of the parent's reads these channels
        if f"{source}.weight" in self.slices.weights:
            weight = self.slices.explained(source, self.slices.weights[f"{source}.weight"], stream)
            self.slices.found[f"{name}.weight"] = weight[:, stream.index]
            self.slices.found[f"{name}.bias"] = self.slices.weights[f"{source}.bias"]

    def _keep(self, group: str, name: str, count: int, ends: Ends | None = None) -> Tensor:
        """Choose the channels of a group that the child keeps."""
        scores = self.scores[group]
        if count > len(scores):
            raise DoesNotFitError(_FIELDS.get(name, "expansion"), f"{count} channels, the parent has {len(scores)}")
        if count == len(scores):
            return torch.arange(count)
        return best(scores, count) if ends is None else ends.block.spec.keep(name, scores, count, ends)

    @contextmanager
    def _at(self, where: str) -> Iterator[None]:
        """Say where what does not fit stands."""
        try:
            yield
        except DoesNotFitError as error:
            field, reason = error.args
            raise UserError(f"{self.child.name}: {where}.{field}: {reason} ({self.parent.name})") from None

    def _larger_part(self, larger: Block, path: str, wire: Wire) -> _Layer:
        if path.startswith(DIRECT):
            return _Layer(f"{path}.{wire.module}", block_skeleton(larger, 1).get_submodule(wire.module))
        return self._part(self.large, path, wire)

    @staticmethod
    def _part(network: Network, path: str, wire: Wire) -> _Layer:
        return _Layer(f"{path}.{wire.module}", network.get_submodule(f"{path}.{wire.module}"))


def leaves_expansion_out(block: Block, larger: Block) -> bool:
    """Return whether a larger block has a convolution that expands, and a smaller one has none."""
    own, theirs = ({wire.role for wire in each.spec.wires(each)} for each in (block, larger))
    return "expand" in theirs - own


def unexpanded(block: Block) -> Block:
    """Return a block without its expansion."""
    return block._replace(spec=block.spec.model_copy(update={"expansion": 1, "keep_expansion": False}))


def _merged(own: Sequence[str], other: Sequence[str]) -> list[str]:
    """Merge the roles of two blocks in the order in which the layers stand."""
    merged, rest = [], list(other)
    for role in own:
        if role in rest:
            place = rest.index(role)
            merged += rest[:place]
            rest = rest[place + 1 :]
        merged.append(role)
    return merged + rest


def _classes(parent: Architecture, weights: Mapping[str, Tensor]) -> int:
    for name in ("classifier.weight", "classifier.0.weight"):
        if name in weights:
            return len(weights[name])
    raise UserError(f"the weights do not fit the parent {parent.name}: classifier.weight is missing")


def check_weights(parent: Architecture, classes: int, weights: Weights) -> None:
    """Check that weights are those of a network.

    Raises:
        UserError: one is missing, or of another shape.
    """
    for name, shape in weight_shapes(parent, classes).items():
        given = weights.get(name)
        if given is None or given.shape != shape:
            found = "missing" if given is None else f"{tuple(given.shape)}, not {tuple(shape)}"
            raise UserError(f"the weights do not fit the parent {parent.name}: {name} is {found}")
