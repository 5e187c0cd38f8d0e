"""The whole generated file."""

import re
from collections.abc import Sequence
from itertools import groupby

from nas.export.card import Card
from nas.export.python.calls import Call, calls, styles, used
from nas.export.python.classes import CLASSES, block_class
from nas.export.python.layers import helpers
from nas.export.python.source import WIDTH, function, mentions, prose, sequence, string
from nas.geometry import POOL_KERNEL, convolved
from nas.stages import Block

_ACTIVATIONS = {
    "relu": "nn.ReLU(inplace=True)",
    "relu6": "nn.ReLU6(inplace=True)",
    "hard_swish": "nn.Hardswish(inplace=True)",
    "silu": "nn.SiLU(inplace=True)",
}


def source(card: Card, *, module: str, params: int) -> str:
    """The file's text.

    Args:
        card: the network's.
        module: the name under which the file is imported.
        params: the network's parameters, for its first line.
    """
    architecture = card.architecture
    activation, norm = _ACTIVATIONS[architecture.activation], architecture.norm == "batch"
    blocks = list(architecture.blocks())
    found = calls(blocks)
    network = _network(card, blocks, found, activation)
    names = used(found)
    kinds = {call.kind: style for call, style in zip(found, styles(blocks), strict=True)}
    parts = [
        block_class(kind, names[kind], style, activation, norm=norm) for kind, style in kinds.items() if kind in CLASSES
    ]
    parts += helpers(
        "\n".join([network, *parts]),
        activation=activation,
        norm=norm,
        experts=any("experts" in words for words in names.values()),
        padding="padding=" in network,
    )
    body = "\n\n\n".join([network, *parts])
    if not norm:
        body = re.sub(r"\bconv_norm\b", "conv", re.sub(r"\bconv_norm_act\b", "conv_act", body))
    head = [_docstring(card, module, params), ""]
    if mentions(body, "pairwise"):
        head.append("from itertools import pairwise")
    head += ["from pathlib import Path", "", "import torch"]
    if mentions(body, "F"):
        head.append("import torch.nn.functional as F")
    head.append("from torch import Tensor, nn")
    classes = f"CLASSES = {sequence([string(name) for name in card.classes], prefix=len('CLASSES = '))}"
    # Some names are the first thing to know of a classifier; a thousand would hide it.
    if "\n" not in classes:
        return "\n".join([*head, "", classes]) + f"\n\n\n{body}\n"
    return "\n".join(head) + f"\n\n\n{body}\n\n\n{classes}\n"


def _docstring(card: Card, module: str, params: int) -> str:
    architecture = card.architecture
    channels, side, _ = card.shape
    colours = {1: "gray", 3: "RGB"}.get(channels, f"{channels} channels")
    title = f"{architecture.name}: {params:,} parameters, {colours} {side}x{side} -> {len(card.classes)} classes."
    origin = f"Written by `nas export --format python` from architecture {architecture.id}"
    origin += f" ({architecture.source})." if architecture.source else "."
    return f'''"""{prose(title, escape=True)}

{prose(origin, escape=True)}
Needs torch alone. The weights lie beside this file in {module}.pt.

    from {module} import CLASSES, load

    network = load()
    logits = network(images)  # images: float (N, {channels}, {side}, {side}), {colours} in [0, 1]
    print([CLASSES[index] for index in logits.argmax(1)])

It is an ordinary module: train it further, take it apart, build it into your own program.
"""'''


def _network(card: Card, blocks: Sequence[Block], found: Sequence[Call], activation: str) -> str:
    """``load`` and the class ``Network``."""
    architecture, count = card.architecture, len(card.classes)
    init: list[str] = []
    steps: list[tuple[str, str]] = []

    def step(name: str, layers: str, wide: int, size: int) -> None:
        init.append(f"self.{name} = {layers}")
        steps.append((f"x = self.{name}(x)", f"{wide} x {size} x {size}"))

    stem, width, size = architecture.stem, architecture.stem_channels, blocks[0].resolution
    words = [str(architecture.input.channels), str(width)]
    words += [str(stem.kernel)] if stem.kernel != 1 else []
    words += [f"stride={stem.stride}"] if stem.stride != 1 else []
    words += ["padding=0"] if stem.padding == "valid" and stem.kernel > 1 else []
    convolved_size = convolved(architecture.input.resolution, stem.kernel, stem.stride, stem.padding)
    step("stem", f"conv_norm_act({', '.join(words)})", width, convolved_size)
    if stem.pool == "max":
        form = f"{POOL_KERNEL // 2}" if stem.padding == "same" else "ceil_mode=True"
        step("stem_pool", f"nn.MaxPool2d({POOL_KERNEL}, {stem.pool_stride}, {form})", width, size)
    for number, stage in enumerate(_stages(blocks, found), 1):
        lines = [str(call) for _, call in stage]
        last = stage[-1][0]
        layers = lines[0]
        if len(lines) > 1:
            layers = "nn.Sequential(\n" + "".join(f"    {line},\n" for line in lines) + ")"
        step(f"stage{number}", layers, last.out_channels, last.out_resolution)
        width, size = last.out_channels, last.out_resolution
    if architecture.head_channels:
        step("head", f"conv_norm_act({width}, {architecture.head_channels})", architecture.head_channels, size)
        width = architecture.head_channels
    dropout = []
    if architecture.head.dropout:
        init.append(f"self.dropout = nn.Dropout({architecture.head.dropout})")
        dropout = ["x = self.dropout(x)"]
    if architecture.head.classifier == "conv":
        init.append(f"self.classifier = nn.Sequential(nn.Conv2d({width}, {count}, 1), {activation})")
        end = [*dropout, "return self.classifier(x).mean((2, 3))"]
    else:
        init.append(f"self.classifier = nn.Linear({width}, {count})")
        end = ["x = x.mean((2, 3))", *dropout, "return self.classifier(x)"]
    return _load() + "\n\n\n" + _class(card, init, steps, end)


def _class(card: Card, init: Sequence[str], steps: Sequence[tuple[str, str]], end: Sequence[str]) -> str:
    channels, side, _ = card.shape
    buffers = [
        f'self.register_buffer("{name}", torch.tensor({list(values)!r}).view(1, -1, 1, 1), persistent=False)'
        for name, values in (("mean", card.mean), ("std", card.std))
    ]
    assignments = ["super().__init__()", *(line for buffer in buffers for line in _fit(buffer)), *init]
    body = "\n".join(assignments).splitlines()
    first = ("x = (images - self.mean) / self.std", f"{channels} x {side} x {side}")
    forward = [f"{code}  # {shape}" for code, shape in (first, *steps)]
    methods = "\n\n".join(
        [
            function("__init__", ["self"], "None", body),
            function("forward", ["self", "images: Tensor"], "Tensor", [*forward, *end]),
        ]
    )
    doc = f'"""Images (N, {channels}, {side}, {side}) in [0, 1] -> logits (N, {len(card.classes)})."""'
    inside = f"{doc}\n\nmean: Tensor\nstd: Tensor\n\n{methods}"
    return "class Network(nn.Module):\n" + "\n".join(f"    {line}" if line else "" for line in inside.splitlines())


def _load() -> str:
    return function(
        "load",
        ["weights: Path | None = None"],
        '"Network"',
        [
            '"""The trained network, in eval mode, on the CPU; its weights are those beside this file, or others."""',
            'path = weights or Path(__file__).with_suffix(".pt")',
            "network = Network()",
            'network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))',
            "return network.eval()",
        ],
    )


def _fit(statement: str, indent: int = 8) -> list[str]:
    """A call as one line, or with its arguments on a line of their own where it is too long."""
    if indent + len(statement) <= WIDTH:
        return [statement]
    head, _, rest = statement.partition("(")
    return [f"{head}(", f"    {rest[:-1]}", ")"]


def _stages(blocks: Sequence[Block], found: Sequence[Call]) -> list[list[tuple[Block, Call]]]:
    """The blocks with their calls, stage by stage."""
    number = 0
    numbered = []
    for block, call in zip(blocks, found, strict=True):
        number += block.first
        numbered.append((number, (block, call)))
    return [[pair for _, pair in group] for _, group in groupby(numbered, key=lambda item: item[0])]
