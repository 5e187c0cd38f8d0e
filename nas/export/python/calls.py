"""The blocks of an architecture as the calls that a person would write.

A parameter that every block of a kind leaves at its default is left out of the class too: a file for a network without
SE does not mention SE.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nas.network.blocks.mobile import expands, squeeze_channels
from nas.stages import (
    Block,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    Fire,
    InvertedResidual,
    Separable,
    Shuffle,
    inner_channels,
)

DEFAULTS: dict[str, Any] = {
    "kernel": 3,
    "kernels": (3,),
    "concat": False,
    "stride": 1,
    "expand": True,
    "depthwise": True,
    "intermediate": True,
    "squeeze": 0,
    "experts": 1,
    "padding": None,
    "residual": False,
    "shortcut": "none",
    "first": None,
    "last": None,
}
"""What a keyword of a block's class is where the call does not name it."""


@dataclass(frozen=True)
class Call:
    """One block: its class, its channels, and the keywords that are not at their defaults."""

    kind: str
    channels: tuple[int, ...]
    keywords: dict[str, Any]

    def __str__(self) -> str:
        words = [str(number) for number in self.channels]
        words += [f"{name}={_literal(value)}" for name, value in self.keywords.items()]
        return f"{self.kind}({', '.join(words)})"


def calls(blocks: Sequence[Block]) -> list[Call]:
    """The blocks in order as calls; blocks of one kind agree on which keywords there are."""
    return [_CALLS[block.spec.block](block, style) for block, style in zip(blocks, styles(blocks), strict=True)]


def styles(blocks: Sequence[Block]) -> list["Style"]:
    """How each block is written; blocks of one kind alike."""
    kinds = {block.spec.block for block in blocks}
    by_kind = {kind: Style.of([block for block in blocks if block.spec.block == kind]) for kind in kinds}
    return [by_kind[block.spec.block] for block in blocks]


def used(found: Iterable[Call]) -> dict[str, set[str]]:
    """For each class the keywords that some call names."""
    names: dict[str, set[str]] = {}
    for call in found:
        names.setdefault(call.kind, set()).update(call.keywords)
    return names


@dataclass(frozen=True)
class Style:
    """How the blocks of one kind are written: with pyramids or single kernels, and how their shortcuts are told."""

    pyramids: bool
    shortcut: str
    """The rule that gives every block its shortcut from its shape (`none`, `identity`, `conv`, `conv_strided`); where
    there is none, `flag`: the call says where the input is added, or `kind`: it names one of three kinds.
    """

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> "Style":
        pyramids = any(len(getattr(block.spec, "kernels", ())) > 1 for block in blocks)
        for rule in ("none", "identity", "conv", "conv_strided"):
            if all(block.shortcut == _shortcut(rule, block) for block in blocks):
                return cls(pyramids, rule)
        return cls(pyramids, "kind" if any(block.shortcut == "conv" for block in blocks) else "flag")


def _shortcut(rule: str, block: Block) -> str:
    """What the rule, as :mod:`nas.stages` defines it, puts beside a block of this shape."""
    if rule != "none" and block.stride == 1 and block.in_channels == block.out_channels:
        return "identity"
    if rule == "conv_strided" or (rule == "conv" and block.stride == 1):
        return "conv"
    return "none"


def _call(kind: str, channels: tuple[int, ...], block: Block, style: Style, **keywords: Any) -> Call:
    keywords["stride"] = block.stride
    if style.shortcut == "kind":
        keywords["shortcut"] = block.shortcut
    elif style.shortcut == "flag":
        keywords["residual"] = block.shortcut == "identity"
    return Call(kind, channels, {name: value for name, value in keywords.items() if value != DEFAULTS.get(name)})


def _pyramid(spec: InvertedResidual | Bottleneck | DepthwiseSeparable, channels: int, style: Style) -> dict[str, Any]:
    """The keywords of the depthwise part; `channels` go into it."""
    kernels = tuple(sorted(spec.kernels))
    concat = spec.combine == "concat" and len(kernels) > 1
    wide = channels * len(kernels) if concat else channels
    return {
        **({"kernels": kernels, "concat": concat} if style.pyramids else {"kernel": kernels[0]}),
        "squeeze": squeeze_channels(wide, spec.se_ratio) if spec.se_ratio else 0,
        "experts": spec.experts,
    }


def _inverted_residual(block: Block, style: Style) -> Call:
    spec = block.spec
    assert isinstance(spec, InvertedResidual)
    hidden = inner_channels(spec.expansion, block.in_channels)
    channels = block.in_channels, hidden, block.out_channels
    return _call("InvertedResidual", channels, block, style, expand=expands(spec), **_pyramid(spec, hidden, style))


def _bottleneck(block: Block, style: Style) -> Call:
    spec = block.spec
    assert isinstance(spec, Bottleneck)
    hidden = inner_channels(spec.expansion, block.out_channels)
    channels = block.in_channels, hidden, block.out_channels
    depthwise = spec.conv == "depthwise"
    return _call("Bottleneck", channels, block, style, depthwise=depthwise, **_pyramid(spec, hidden, style))


def _depthwise_separable(block: Block, style: Style) -> Call:
    spec = block.spec
    assert isinstance(spec, DepthwiseSeparable)
    channels = block.in_channels, block.out_channels
    inside = _pyramid(spec, block.in_channels, style)
    return _call("DepthwiseSeparable", channels, block, style, intermediate=spec.intermediate, **inside)


def _conv(block: Block, style: Style) -> Call:
    spec = block.spec
    assert isinstance(spec, Conv)
    padding = 0 if spec.padding == "valid" and spec.kernel > 1 else None
    channels = block.in_channels, block.out_channels
    if style.shortcut != "none":
        return _call("ResidualConv", channels, block, style, kernel=spec.kernel, padding=padding, experts=spec.experts)
    # Without shortcuts the block is its one layer, whose kernel has another default than the blocks'.
    keywords = {"stride": block.stride, "padding": padding, "experts": spec.experts}
    named = {name: value for name, value in keywords.items() if value != DEFAULTS[name]}
    return Call("conv_norm_act", channels, {"kernel": spec.kernel, **named} if spec.kernel != 1 else named)


def _separable(block: Block, style: Style) -> Call:
    spec = block.spec
    assert isinstance(spec, Separable)
    inner = inner_channels(spec.expansion, block.out_channels)
    channels = block.in_channels, *(inner for _ in range(spec.depth - 1)), block.out_channels
    return _call("Separable", channels, block, style, kernel=spec.kernel)


def _shuffle(block: Block, style: Style) -> Call:
    spec = block.spec
    assert isinstance(spec, Shuffle)
    hidden = inner_channels(spec.expansion, block.out_channels)
    widens = block.shortcut == "none" and block.out_channels > block.in_channels
    branch = block.out_channels - block.in_channels if widens else block.out_channels
    groups = math.gcd(spec.groups, hidden)
    first = math.gcd(spec.groups, block.in_channels, hidden) if spec.group_first or not block.first else 1
    last = math.gcd(spec.groups, hidden, branch)
    keywords = {
        "groups": groups,
        "first": first if first != groups else None,
        "last": last if last != groups else None,
        "kernel": spec.kernel,
        "stride": block.stride,
    }
    del style  # its shortcuts follow from the shape alone
    named = {name: value for name, value in keywords.items() if name == "groups" or value != DEFAULTS[name]}
    return Call("Shuffle", (block.in_channels, hidden, block.out_channels), named)


def _fire(block: Block, style: Style) -> Call:
    spec = block.spec
    assert isinstance(spec, Fire)
    channels = block.in_channels, inner_channels(spec.expansion, block.out_channels), block.out_channels
    return _call("Fire", channels, block, style)


_CALLS: dict[str, Callable[[Block, Style], Call]] = {
    "inverted_residual": _inverted_residual,
    "bottleneck": _bottleneck,
    "depthwise_separable": _depthwise_separable,
    "conv": _conv,
    "separable": _separable,
    "shuffle": _shuffle,
    "fire": _fire,
}


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
