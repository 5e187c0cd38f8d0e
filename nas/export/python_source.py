"""A built network -> the text of a Python file that builds it with torch alone.

Torch's own layers are written as calls, other layers as those of :mod:`nas.export.plain_layers`, and a block as its
parts with the block's own ``forward``, copied from where it is defined: a new block kind needs no line here.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from torch import nn
from torchvision.ops import SqueezeExcitation

from nas.blocks import ResidualBlock
from nas.blocks.layers import ACTIVATIONS, CondConv2d, Pyramid
from nas.export import plain_layers
from nas.network.build import Network
from nas.training.card import Card

WIDTH = 120

_PARAMETERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.BatchNorm2d: ("num_features",),
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "ceil_mode"),
    nn.AvgPool2d: ("kernel_size", "stride", "padding"),
    nn.ChannelShuffle: ("groups",),
    nn.Identity: (),
    **dict.fromkeys(ACTIVATIONS.values(), ("inplace",)),  # type: ignore[arg-type]
}
"""The arguments of torch's layers that blocks may hold; those with a default are named where they differ from it."""

_HELPERS = ("conv_norm_act", "conv_norm", "conv_act", "norm_act", "Parts", "SqueezeExcitation", "Pyramid", "CondConv2d")


def source(card: Card, network: nn.Module, *, module: str) -> str:
    """Write the file's text.

    Args:
        card: the network's.
        network: as built from the card's architecture.
        module: the name under which the file is imported.
    """
    assert isinstance(network, Network)
    written, blocks = [_load(), _network(card, network)], _blocks(network)
    body = "\n\n\n".join([*written, *_helpers("\n".join([*written, *blocks])), *blocks])
    head = [_docstring(card, network, module), "", "from pathlib import Path", "", "import torch"]
    if re.search(r"\bF\.", body):
        head.append("import torch.nn.functional as F")
    head.append("from torch import Tensor, nn")
    if "ACTIVATION" in body:
        head += ["", f"ACTIVATION = nn.{ACTIVATIONS[card.architecture.activation].__name__}"]
    names = tuple(card.classes)
    classes = f"CLASSES = ({', '.join(map(_string, names))}{',' if len(names) == 1 else ''})"
    # Some names are the first thing to know of a classifier; a thousand would hide it.
    if len(classes) <= WIDTH:
        return "\n".join([*head, *([] if "ACTIVATION" in body else [""]), classes]) + f"\n\n\n{body}\n"
    listed = "".join(f"    {_string(name)},\n" for name in names)
    return "\n".join(head) + f"\n\n\n{body}\n\n\nCLASSES = (\n{listed})\n"


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


def _load() -> str:
    return '''def load(weights: Path | None = None) -> "Network":
    """The trained network, in eval mode, on the CPU; its weights are those beside this file, or others."""
    path = weights or Path(__file__).with_suffix(".pt")
    network = Network()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()'''


def _network(card: Card, network: Network) -> str:
    """Write the class ``Network``: stem, one part per stage, head, classifier."""
    architecture, (channels, side, _) = card.architecture, card.shape
    blocks = list(architecture.blocks())
    numbers = [sum(block.first for block in blocks[: index + 1]) for index in range(len(blocks))]
    parts: list[tuple[str, Sequence[nn.Module], str]] = [
        ("stem", [network.stem], _shape(architecture.stem_channels, blocks[0].resolution))
    ]
    for number, group in groupby(range(len(blocks)), key=numbers.__getitem__):
        stage = list(group)
        last = blocks[stage[-1]]
        parts.append(
            (
                f"stage{number}",
                [network.blocks[index] for index in stage],
                _shape(last.out_channels, last.out_resolution),
            )
        )
    if architecture.head_channels:
        parts.append(("head", [network.head], _shape(architecture.head_channels, blocks[-1].out_resolution)))
    init = [
        f'self.register_buffer("{name}", torch.tensor({list(values)!r}).view(1, -1, 1, 1), persistent=False)'
        for name, values in (("mean", card.mean), ("std", card.std))
    ]
    init = [line for statement in init for line in _fit(statement)]
    forward = [f"x = (images - self.mean) / self.std  # {_shape(channels, side)}"]
    for name, modules, shape in parts:
        value = _Call("nn.Sequential", [_written(item) for item in modules]) if len(modules) > 1 else _written(*modules)
        init += value.lines(f"self.{name} = ", indent=8)
        forward.append(f"x = self.{name}(x)  # {shape}")
    dropout = []
    if architecture.head.dropout:
        init.append(f"self.dropout = nn.Dropout({architecture.head.dropout})")
        dropout = ["x = self.dropout(x)"]
    init += _written(network.classifier).lines("self.classifier = ", indent=8)
    if network.convolutional:
        forward += [*dropout, "return self.classifier(x).mean((2, 3))"]
    else:
        forward += ["x = x.mean((2, 3))", *dropout, "return self.classifier(x)"]
    return "\n".join(
        [
            "class Network(nn.Module):",
            f'    """Images (N, {channels}, {side}, {side}) in [0, 1] -> logits (N, {len(card.classes)})."""',
            "",
            "    mean: Tensor",
            "    std: Tensor",
            "",
            "    def __init__(self) -> None:",
            textwrap.indent("\n".join(["super().__init__()", *init]), " " * 8),
            "",
            "    def forward(self, images: Tensor) -> Tensor:",
            textwrap.indent("\n".join(forward), " " * 8),
        ]
    )


class _Call:
    """An expression that calls `head`, laid out as ruff does: on one line, or with a line per argument."""

    def __init__(
        self, head: str, arguments: Sequence["_Call | str"], keywords: Mapping[str, "_Call | str"] | None = None
    ):
        self.head = head
        self.arguments = [("", argument) for argument in arguments]
        self.arguments += [(f"{name}=", value) for name, value in (keywords or {}).items()]

    def __str__(self) -> str:
        return f"{self.head}({', '.join(f'{name}{value}' for name, value in self.arguments)})"

    def lines(self, prefix: str, *, indent: int, suffix: str = "") -> list[str]:
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
        case ResidualBlock():
            return _Call(_defining(type(module)).__name__, [], {name: _value(v) for name, v in _used(module).items()})
        case Pyramid():
            branches = [_written(branch) for branch in module.branches]
            if len(branches) == 1:
                return branches[0]
            return _Call("Pyramid", branches, {"concat": "True"} if module.combine == "concat" else {})
        case CondConv2d():
            keywords = {"experts": str(module.experts)}
            keywords |= {n: str(v) for n in ("stride", "groups") if (v := getattr(module, n)) != 1}
            keywords |= {"padding": str(module.padding)} if module.padding else {}
            keywords |= {"bias": "True"} if module.bias is not None else {}
            channels = (module.in_channels, module.out_channels, module.kernel_size)
            return _Call("CondConv2d", [str(number) for number in channels], keywords)
        case SqueezeExcitation():
            return _Call("SqueezeExcitation", [str(module.fc1.in_channels), str(module.fc1.out_channels)])
        case nn.Conv2d():
            keywords = _conv_keywords(module)
            keywords |= {"padding": str(module.padding[0])} if module.padding[0] else {}
            keywords |= {"bias": "False"} if module.bias is None else {}
            return _Call("nn.Conv2d", _conv_channels(module, default_kernel=None), keywords)
        case _:
            return _torch_layer(module)


def _torch_layer(module: nn.Module) -> _Call:
    signature = inspect.signature(type(module)).parameters
    arguments: list[str] = []
    keywords: dict[str, str] = {}
    for name in _PARAMETERS[type(module)]:
        value, default = getattr(module, name), signature[name].default
        if default is inspect.Parameter.empty or (name == "stride" and not keywords):
            arguments.append(repr(value))
        elif value != default:
            keywords[name] = repr(value)
    return _Call(f"nn.{type(module).__name__}", arguments, keywords)


def _sequence(layers: list[nn.Module]) -> _Call:
    """Write a sequence, by the helper that makes one of this kind where there is one."""
    first = layers[0]
    kinds = [type(layer) for layer in layers[1:]]
    norm, activated = kinds[:1] == [nn.BatchNorm2d], len(kinds) > 0 and kinds[-1] in ACTIVATIONS.values()
    if isinstance(first, Pyramid) and len(first.branches) == 1:
        return _sequence([first.branches[0], *layers[1:]])
    helper = {(True, True, 2): "conv_norm_act", (True, False, 1): "conv_norm", (False, True, 1): "conv_act"}
    name = helper.get((norm, activated, len(kinds)))
    if name and isinstance(first, nn.Conv2d) and _is_usual(first, norm):
        return _Call(name, _conv_channels(first), _conv_keywords(first))
    if name == "conv_norm_act":
        return _Call("norm_act", [_written(first), str(layers[1].num_features)])
    return _written(first) if len(layers) == 1 else _Call("nn.Sequential", [_written(layer) for layer in layers])


def _is_usual(conv: nn.Conv2d, norm: bool) -> bool:
    """Return whether the padding keeps the size up to the stride, and a bias stands where no norm follows."""
    return conv.padding[0] == conv.kernel_size[0] // 2 and (conv.bias is None) == norm


def _conv_channels(conv: nn.Conv2d, default_kernel: int | None = 1) -> list[str]:
    kernel = [] if conv.kernel_size[0] == default_kernel else [str(conv.kernel_size[0])]
    return [str(conv.in_channels), str(conv.out_channels), *kernel]


def _conv_keywords(conv: nn.Conv2d) -> dict[str, str]:
    given = {"stride": conv.stride[0], "groups": conv.groups}
    return {name: str(value) for name, value in given.items() if value != 1}


def _value(value: Any) -> "_Call | str":
    return _written(value) if isinstance(value, nn.Module) else repr(value)


def _defining(kind: type[nn.Module]) -> type[nn.Module]:
    """Return the class that defines a block's ``forward``."""
    return next(base for base in kind.__mro__ if "forward" in vars(base))


def _bases(kind: type[nn.Module]) -> Iterator[type[nn.Module]]:
    """Yield the class that defines ``forward``, then those whose ``forward`` it calls by ``super()``."""
    kind = _defining(kind)
    yield kind
    if "super()" in _forward(kind):
        yield from _bases(kind.__mro__[1])


def _forward(kind: type[nn.Module]) -> str:
    return textwrap.dedent(inspect.getsource(vars(kind)["forward"])).rstrip()


def _used(block: nn.Module) -> dict[str, Any]:
    """Return a block's parts and settings that its ``forward`` reads, in the order of its weights."""
    read = {
        node.attr
        for kind in _bases(type(block))
        for node in ast.walk(ast.parse(_forward(kind)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    parts = {name: part for name, part in block.named_children() if name in read}
    return parts | {name: getattr(block, name) for name in sorted(read - set(parts))}


def _blocks(network: nn.Module) -> list[str]:
    """Write the classes of the blocks that the network has, bases first."""
    found = [type(module) for module in network.modules() if isinstance(module, ResidualBlock)]
    written = []
    for kind in dict.fromkeys(kind for block in found for kind in reversed(list(_bases(block)))):
        called = list(_bases(kind))[1:]
        base = called[0].__name__ if called else "Parts"
        doc = _prose((kind.__doc__ or "").splitlines()[0])
        written.append(f'class {kind.__name__}({base}):\n    """{doc}"""\n\n' + textwrap.indent(_forward(kind), "    "))
    return written


def _helpers(text: str) -> list[str]:
    """Return the definitions of :mod:`nas.export.plain_layers` that the text mentions, and those that these mention."""
    found: dict[str, str] = {}
    for name in _HELPERS:
        if re.search(rf"\b{name}\(|\({name}\)", "\n".join([text, *found.values()])):
            found[name] = inspect.getsource(getattr(plain_layers, name)).rstrip()
    return list(found.values())


def _fit(statement: str, indent: int = 8) -> list[str]:
    """Lay out a call on one line, or with its arguments on a line of their own where it is too long."""
    if indent + len(statement) <= WIDTH:
        return [statement]
    head, _, rest = statement.partition("(")
    return [f"{head}(", f"    {rest[:-1]}", ")"]


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
