"""A built network -> the text of a Python file that builds it with torch alone.

A layer is written as the call of its constructor, with the arguments that its signature asks for and its attributes
hold. Blocks are copied from where they are defined, other layers of ours as :mod:`nas.export.plain_layers` has them: a
new block kind, whose class takes its parts, needs no line here.
"""

import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from torch import nn

from nas.blocks import ResidualBlock
from nas.blocks.layers import ACTIVATIONS, CondConv2d, Pyramid, SqueezeExcitation
from nas.export import plain_layers
from nas.network.build import Network
from nas.training.card import Card

WIDTH = 120
_HELPERS = ("conv_norm_act", "conv_norm", "conv_act", "norm_act", "SqueezeExcitation", "Pyramid", "CondConv2d")


def source(card: Card, network: nn.Module, *, module: str) -> str:
    """Write the file's text.

    Args:
        card: the network's.
        network: as built from the card's architecture.
        module: the name under which the file is imported.
    """
    assert isinstance(network, Network)
    written, blocks = [_LOAD, _network(card, network)], _blocks(network)
    body = "\n\n\n".join([*written, *_helpers("\n".join(written)), *blocks])
    head = [_docstring(card, network, module), "", "from pathlib import Path", "", "import torch"]
    if re.search(r"\bF\.", body):
        head.append("import torch.nn.functional as F")
    head += ["from torch import Tensor, nn", ""]
    if "ACTIVATION" in body:
        head.append(f"ACTIVATION = nn.{ACTIVATIONS[card.architecture.activation].__name__}")
    names = [_string(name) for name in card.classes]
    classes = f"CLASSES = ({', '.join(names)}{',' * (len(names) == 1)})"
    # Some names are the first thing to know of a classifier; a thousand would hide it.
    if len(classes) <= WIDTH:
        return "\n".join([*head, classes]) + f"\n\n\n{body}\n"
    listed = "".join(f"    {name},\n" for name in names)
    return "\n".join(head).rstrip() + f"\n\n\n{body}\n\n\nCLASSES = (\n{listed})\n"


def _docstring(card: Card, network: nn.Module, module: str) -> str:
    architecture, (channels, side, _) = card.architecture, card.shape
    params = sum(parameter.numel() for parameter in network.parameters())
    colours = {1: "gray", 3: "RGB"}.get(channels, f"{channels} channels")
    title = f"{architecture.name}: {params:,} parameters, {colours} {side}x{side} -> {len(card.classes)} classes."
    origin = f"Written by `nas export --format python` from architecture {architecture.id}"
    origin += f" ({architecture.source})." if architecture.source else "."
    steps = "\n".join(_prose(step) for step in card.preprocessing.text().splitlines())
    return f'''"""{_prose(title)}

{_prose(origin)}
Needs torch alone. The weights lie beside this file in {module}.pt.

    from {module} import CLASSES, load

    network = load()
    logits = network(images)  # images: float (N, {channels}, {side}, {side}), {colours} in [0, 1]
    print([CLASSES[index] for index in logits.argmax(1)])

It is an ordinary module: train it further, take it apart, build it into your own program.

From an image file to `images`:

{steps}
"""'''


_LOAD = '''def load(weights: Path | None = None) -> "Network":
    """The trained network, in eval mode, on the CPU; its weights are those beside this file, or others."""
    path = weights or Path(__file__).with_suffix(".pt")
    network = Network()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()'''


def _network(card: Card, network: Network) -> str:
    """Write the class ``Network``: stem, one part per stage, head, classifier."""
    architecture, (channels, side, _) = card.architecture, card.shape
    blocks = list(architecture.blocks())
    parts: dict[str, tuple[Sequence[nn.Module], str]] = {
        "stem": ([network.stem], _shape(architecture.stem_channels, blocks[0].resolution))
    }
    stages = [sum(block.first for block in blocks[: index + 1]) for index in range(len(blocks))]
    for stage, group in groupby(range(len(blocks)), key=stages.__getitem__):
        indices = list(group)
        last = blocks[indices[-1]]
        modules = [network.blocks[index] for index in indices]
        parts[f"stage{stage}"] = modules, _shape(last.out_channels, last.out_resolution)
    if architecture.head_channels:
        parts["head"] = [network.head], _shape(architecture.head_channels, blocks[-1].out_resolution)
    init = ["super().__init__()"]
    for name, values in (("mean", card.mean), ("std", card.std)):
        value = f"torch.tensor({list(values)!r}).view(1, -1, 1, 1)"
        init += _Call("self.register_buffer", [f'"{name}"', value], {"persistent": "False"}).lines()
    forward = [f"x = (images - self.mean) / self.std  # {_shape(channels, side)}"]
    for name, (made, shape) in parts.items():
        call = _written(nn.Sequential(*made)) if len(made) > 1 else _written(*made)
        init += call.lines(f"self.{name} = ")
        forward.append(f"x = self.{name}(x)  # {shape}")
    if not network.convolutional:
        forward.append("x = x.mean((2, 3))")
    if architecture.head.dropout:
        init.append(f"self.dropout = nn.Dropout({architecture.head.dropout})")
        forward.append("x = self.dropout(x)")
    init += _written(network.classifier).lines("self.classifier = ")
    forward.append(f"return self.classifier(x){'.mean((2, 3))' if network.convolutional else ''}")
    return "\n".join(
        [
            "class Network(nn.Module):",
            f'    """Images (N, {channels}, {side}, {side}) in [0, 1] -> logits (N, {len(card.classes)})."""',
            "",
            "    mean: Tensor",
            "    std: Tensor",
            "",
            "    def __init__(self) -> None:",
            textwrap.indent("\n".join(init), " " * 8),
            "",
            "    def forward(self, images: Tensor) -> Tensor:",
            textwrap.indent("\n".join(forward), " " * 8),
        ]
    )


class _Call:
    """An expression that calls `head`, laid out as ruff does: on one line, or with a line per argument."""

    def __init__(self, head: str, arguments: Sequence["_Call | str"], keywords: Mapping[str, "_Call | str"]):
        self.head = head
        self.arguments = [("", argument) for argument in arguments]
        self.arguments += [(f"{name}=", value) for name, value in keywords.items()]

    def __str__(self) -> str:
        return f"{self.head}({', '.join(f'{name}{value}' for name, value in self.arguments)})"

    def lines(self, prefix: str = "", *, indent: int = 8, suffix: str = "") -> list[str]:
        line = f"{prefix}{self}{suffix}"
        if indent + len(line) <= WIDTH:
            return [line]
        inner: list[str] = []
        for name, value in self.arguments:
            if isinstance(value, str):
                inner.append(f"{name}{value},")
            else:
                inner += value.lines(name, indent=indent + 4, suffix=",")
        return [f"{prefix}{self.head}(", *(f"    {line}" for line in inner), f"){suffix}"]


def _written(module: nn.Module) -> _Call:
    """Write the expression that makes a module."""
    match module:
        case nn.Sequential():
            return _sequence(list(module))
        case Pyramid():
            branches = [_written(branch) for branch in module.branches]
            concat = {"concat": "True"} if module.combine == "concat" else {}
            return branches[0] if len(branches) == 1 else _Call("Pyramid", branches, concat)
        case CondConv2d():
            return _layer(module, "CondConv2d", plain_layers.CondConv2d)
        case SqueezeExcitation():
            return _Call("SqueezeExcitation", [str(module.fc1.in_channels), str(module.fc1.out_channels)], {})
        case ResidualBlock():
            return _layer(module, type(module).__name__)
        case _:
            return _layer(module, f"nn.{type(module).__name__}")


def _layer(module: nn.Module, head: str, signature: Any = None) -> _Call:
    """Write a call with the arguments that a signature (default: the module's class's) asks for.

    The module has them as attributes; those that are at their default are left out.
    """
    arguments, keywords = [], {}
    for name, parameter in inspect.signature(signature or type(module)).parameters.items():
        value = getattr(module, name, parameter.default)
        if isinstance(value, tuple) and len({*value}) == 1:  # a kernel's two sides
            value = value[0]
        if name == "bias":
            value = value is not None
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or value == parameter.default:
            continue
        written = _written(value) if isinstance(value, nn.Module) else repr(value)
        if parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
            arguments.append(written)
        else:
            keywords[name] = written
    return _Call(head, arguments, keywords)


def _sequence(layers: list[nn.Module]) -> _Call:
    """Write a sequence, by the helper that makes one of this kind where there is one."""
    first, *others = layers
    if isinstance(first, Pyramid) and len(first.branches) == 1:
        return _sequence([first.branches[0], *others])
    kinds = ["act" if type(layer) in ACTIVATIONS.values() else type(layer).__name__ for layer in layers]
    helper = {
        ("Conv2d", "BatchNorm2d", "act"): "conv_norm_act",
        ("Conv2d", "BatchNorm2d"): "conv_norm",
        ("Conv2d", "act"): "conv_act",
    }.get(tuple(kinds))
    if helper and isinstance(first, nn.Conv2d) and first.padding[0] == first.kernel_size[0] // 2:
        return _layer(first, helper, getattr(plain_layers, helper))
    if kinds[1:] == ["BatchNorm2d", "act"]:
        return _Call("norm_act", [_written(first), str(layers[1].num_features)], {})
    return _written(first) if len(layers) == 1 else _Call("nn.Sequential", [_written(layer) for layer in layers], {})


def _blocks(network: nn.Module) -> list[str]:
    """Return the source of the blocks that the network has, bases first."""
    found = [type(module) for module in network.modules() if isinstance(module, ResidualBlock)]
    kinds = [kind for block in found for kind in reversed(block.__mro__) if issubclass(kind, ResidualBlock)]
    return [inspect.getsource(kind).rstrip() for kind in dict.fromkeys(kinds)]


def _helpers(text: str) -> list[str]:
    """Return the definitions of :mod:`nas.export.plain_layers` that the text mentions, and those that these mention."""
    found: dict[str, str] = {}
    for name in _HELPERS:
        if re.search(rf"\b{name}\(", "\n".join([text, *found.values()])):
            found[name] = inspect.getsource(getattr(plain_layers, name)).rstrip()
    return list(found.values())


def _shape(channels: int, size: int) -> str:
    return f"{channels} x {size} x {size}"


def _string(text: str) -> str:
    """Write a string literal, in double quotes where that needs no escape."""
    literal = repr(text)
    return f'"{literal[1:-1]}"' if "'" not in text and '"' not in text else literal


def _prose(text: str) -> str:
    """Wrap a stranger's text for a docstring, which it must not end."""
    text = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
    text = text.replace("\\", "\\\\").replace('"', "'")
    return "\n".join(textwrap.wrap(text, WIDTH - 4, break_long_words=False, break_on_hyphens=False))
