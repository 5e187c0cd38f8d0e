"""The block classes of the generated file: for each kind, its source for the keywords that its blocks use."""

from collections.abc import Callable, Mapping

from nas.export.python.calls import DEFAULTS, Style
from nas.export.python.source import call, module_class

_ANNOTATIONS = {
    "kernel": "int",
    "kernels": "tuple[int, ...]",
    "concat": "bool",
    "stride": "int",
    "expand": "bool",
    "depthwise": "bool",
    "intermediate": "bool",
    "squeeze": "int",
    "experts": "int",
    "padding": "int | None",
    "residual": "bool",
    "shortcut": "str",
    "first": "int | None",
    "last": "int | None",
}


class _Writer:
    """What the kinds' sources share. `names`: the keywords in use."""

    def __init__(self, names: set[str], style: Style, activation: str, norm: bool) -> None:
        self.names = names
        self.style = style
        self.activation = activation
        self.norm = norm

    def parameters(self, *channels: str, required: tuple[str, ...] = ()) -> list[str]:
        """The channels, then the keywords in use."""
        keywords = [f"{name}: int" for name in required]
        for name, annotation in _ANNOTATIONS.items():
            if name in self.names:
                default = f'"{DEFAULTS[name]}"' if annotation == "str" else DEFAULTS[name]
                keywords.append(f"{name}: {annotation} = {default}")
        return [*(f"{name}: int" for name in channels), *(["*", *keywords] if keywords else [])]

    def passed(self, *names: str) -> str:
        """The keywords among these that are in use, to be passed on."""
        return "".join(f", {name}={name}" for name in names if name in self.names)

    @property
    def kernel(self) -> str:
        return "kernel" if "kernel" in self.names else str(DEFAULTS["kernel"])

    def wide(self, channels: str) -> str:
        """The name of the channels behind the depthwise part."""
        return "wide" if "concat" in self.names else channels

    def widened(self, channels: str) -> list[str]:
        if "concat" not in self.names:
            return []
        return [f"wide = {channels} * len(kernels) if concat else {channels}"]

    def pyramid(self, channels: str, groups: str) -> str:
        keywords = self.passed("stride", "concat", "experts")
        return f"Pyramid({channels}, kernels, groups={groups}{keywords})"

    def spatial(self, name: str, channels: str, groups: str) -> list[str]:
        """The depthwise layer with norm and activation, under a name."""
        if "kernels" in self.names:
            pyramid = self.pyramid(channels, groups)
            if not self.norm:
                return call(f"{name} = nn.Sequential", [pyramid, self.activation], 8)
            return call(f"{name} = norm_act", [pyramid, self.wide(channels)], 8)
        keywords = f"{self.passed('stride')}, groups={groups}{self.passed('experts')}"
        return [f"{name} = conv_norm_act({channels}, {channels}, {self.kernel}{keywords})"]

    def excitation(self, channels: str) -> list[str]:
        if "squeeze" not in self.names:
            return []
        return [f"self.excite = SqueezeExcitation({self.wide(channels)}, squeeze) if squeeze else nn.Identity()"]

    @property
    def excited(self) -> list[str]:
        return ["out = self.excite(out)"] if "squeeze" in self.names else []

    @property
    def shortcut(self) -> list[str]:
        """The lines of ``__init__`` that prepare what is added to the body's output."""
        style, strided = self.style.shortcut, "stride" in self.names
        if style == "kind":
            return [f"self.shortcut = make_shortcut(shortcut, inputs, outputs{self.passed('stride')})"]
        if style == "flag":
            return ["self.residual = residual"]
        if style == "identity":
            return [f"self.residual = {'stride == 1 and ' if strided else ''}inputs == outputs"]
        if style == "conv" and strided:
            return [
                "self.shortcut: nn.Module | None = None",
                "if stride == 1:",
                "    self.shortcut = nn.Identity() if inputs == outputs else conv_norm(inputs, outputs)",
            ]
        if style in ("conv", "conv_strided"):
            return [
                f"unchanged = {'stride == 1 and ' if strided else ''}inputs == outputs",
                f"self.shortcut = nn.Identity() if unchanged else conv_norm(inputs, outputs{self.passed('stride')})",
            ]
        return []

    def returned(self, body: str) -> list[str]:
        """The last lines of ``forward``: what `body` gives, with the shortcut."""
        style = self.style.shortcut
        if style == "none":
            return [f"return {body}"]
        if style in ("flag", "identity"):
            return [f"out = {body}", "return out + x if self.residual else out"]
        if style == "kind" or (style == "conv" and "stride" in self.names):
            return [f"out = {body}", "return out if self.shortcut is None else out + self.shortcut(x)"]
        return [f"return {body} + self.shortcut(x)"]


def block_class(kind: str, names: set[str], style: Style, activation: str, *, norm: bool) -> str:
    """The source of the class of a block kind.

    Args:
        kind: the class's name.
        names: the keywords that some block of it uses.
        style: how its blocks are written.
        activation: the expression that makes one.
        norm: whether the network has BatchNorm.
    """
    return CLASSES[kind](_Writer(names, style, activation, norm))


def _inverted_residual(w: _Writer) -> str:
    expand = f"self.expand = conv_norm_act(inputs, hidden{w.passed('experts')})"
    if "expand" in w.names:
        expand += " if expand else nn.Identity()"
    return module_class(
        "InvertedResidual",
        "1x1 to `hidden` channels, depthwise, 1x1 to `outputs` without activation (Sandler et al. 2018).",
        w.parameters("inputs", "hidden", "outputs"),
        [
            *w.widened("hidden"),
            expand,
            *w.spatial("self.depthwise", "hidden", "hidden"),
            *w.excitation("hidden"),
            f"self.project = conv_norm({w.wide('hidden')}, outputs{w.passed('experts')})",
            *w.shortcut,
        ],
        ["out = self.depthwise(self.expand(x))", *w.excited, *w.returned("self.project(out)")],
    )


def _bottleneck(w: _Writer) -> str:
    groups = "hidden"
    if "depthwise" in w.names:
        groups = "hidden if depthwise else 1"
    return module_class(
        "Bottleneck",
        f"{'Norm, ' if w.norm else ''}1x1 to `hidden` channels, spatial convolution, 1x1 (Hoang and Jo 2018).",
        w.parameters("inputs", "hidden", "outputs"),
        [
            *w.widened("hidden"),
            *(["self.norm = nn.BatchNorm2d(inputs)"] if w.norm else []),
            f"self.reduce = conv_norm_act(inputs, hidden{w.passed('experts')})",
            *w.spatial("self.spatial", "hidden", groups),
            *w.excitation("hidden"),
            f"self.project = conv_norm({w.wide('hidden')}, outputs{w.passed('experts')})",
            *w.shortcut,
        ],
        [
            f"out = self.spatial(self.reduce({'self.norm(x)' if w.norm else 'x'}))",
            *w.excited,
            *w.returned("self.project(out)"),
        ],
    )


def _depthwise_separable(w: _Writer) -> str:
    """Without `intermediate` the depthwise layer has neither norm nor activation behind it."""
    if "intermediate" in w.names:
        keywords = f"{w.passed('stride')}, groups=inputs{w.passed('experts')}"
        plain = f"conv(inputs, inputs, {w.kernel}{keywords})"
        if "kernels" in w.names:
            plain = w.pyramid("inputs", "inputs")
        between = f"norm_act(nn.Identity(), {w.wide('inputs')})" if w.norm else w.activation
        depthwise = [
            f"self.depthwise = {plain}",
            f"self.between = {between} if intermediate else nn.Identity()",
        ]
        first = "out = self.between(self.depthwise(x))"
    else:
        depthwise, first = w.spatial("self.depthwise", "inputs", "inputs"), "out = self.depthwise(x)"
    return module_class(
        "DepthwiseSeparable",
        "Depthwise, then 1x1 to `outputs` (Howard et al. 2017).",
        w.parameters("inputs", "outputs"),
        [
            *w.widened("inputs"),
            *depthwise,
            *w.excitation("inputs"),
            f"self.pointwise = conv_norm_act({w.wide('inputs')}, outputs{w.passed('experts')})",
            *w.shortcut,
        ],
        [first, *w.excited, *w.returned("self.pointwise(out)")],
    )


def _residual_conv(w: _Writer) -> str:
    keywords = w.passed("stride", "padding", "experts")
    return module_class(
        "ResidualConv",
        "A convolution with norm and activation beside a shortcut.",
        w.parameters("inputs", "outputs"),
        [f"self.body = conv_norm_act(inputs, outputs, {w.kernel}{keywords})", *w.shortcut],
        [*w.returned("self.body(x)")],
    )


def _separable(w: _Writer) -> str:
    margin = "kernel // 2" if "kernel" in w.names else str(DEFAULTS["kernel"] // 2)
    plain = w.activation.replace("inplace=True", "inplace=index > 0")
    pool = ["if stride > 1:", "    layers.append(nn.MaxPool2d(3, stride, 1))"] if "stride" in w.names else []
    keywords = w.parameters()
    by_shape = w.style.shortcut not in ("none", "flag")
    return module_class(
        "Separable",
        "(Activation, depthwise, 1x1, norm) for each step between `channels` (Chollet 2017, Xception).",
        ["*channels: int", *keywords[1:]],
        [
            *(["inputs, outputs = channels[0], channels[-1]"] if by_shape else []),
            "layers: list[nn.Module] = []",
            "for index, (before, after) in enumerate(pairwise(channels)):",
            f"    layers.append({plain})  # the first must not change the shortcut's input",
            f"    layers.append(nn.Conv2d(before, before, {w.kernel}, padding={margin}, groups=before, bias=False))",
            "    layers.append(conv_norm(before, after))",
            *pool,
            "self.body = nn.Sequential(*layers)",
            *w.shortcut,
        ],
        [*w.returned("self.body(x)")],
    )


def _shuffle(w: _Writer) -> str:
    stride = "stride" in w.names
    pool = " = nn.AvgPool2d(3, stride, 1) if stride > 1 else nn.Identity()" if stride else " = nn.Identity()"
    edges = {
        name: f"groups if {name} is None else {name}" if name in w.names else "groups" for name in ("first", "last")
    }
    return module_class(
        "Shuffle",
        "Grouped 1x1, shuffle, depthwise, grouped 1x1 (Zhang et al. 2017); its input is added, or concatenated.",
        w.parameters("inputs", "hidden", "outputs", required=("groups",)),
        [
            f"self.add = {'stride == 1 and ' if stride else ''}inputs == outputs",
            "self.concat = not self.add and outputs > inputs",
            "branch = outputs - inputs if self.concat else outputs",
            f"self.expand = conv_norm_act(inputs, hidden, groups={edges['first']})",
            "self.shuffle = nn.ChannelShuffle(groups)",
            f"self.depthwise = conv_norm(hidden, hidden, {w.kernel}{w.passed('stride')}, groups=hidden)",
            f"self.project = conv_norm(hidden, branch, groups={edges['last']})",
            f"self.pool{pool}",
            f"self.activation = {w.activation}",
        ],
        [
            "out = self.project(self.depthwise(self.shuffle(self.expand(x))))",
            "if self.add:",
            "    out = out + x",
            "elif self.concat:",
            "    out = torch.cat([self.pool(x), out], dim=1)",
            "return self.activation(out)",
        ],
    )


def _fire(w: _Writer) -> str:
    pool = "nn.MaxPool2d(3, stride, ceil_mode=True) if stride > 1 else nn.Identity()"
    stride = "stride" in w.names
    return module_class(
        "Fire",
        "1x1 to `hidden` channels, then 1x1 and 3x3 side by side (Iandola et al. 2016, SqueezeNet).",
        w.parameters("inputs", "hidden", "outputs"),
        [
            *([f"self.pool = {pool}"] if stride else []),
            "self.squeeze = conv_norm_act(inputs, hidden)",
            "self.expand1 = conv_norm_act(hidden, outputs // 2)",
            "self.expand3 = conv_norm_act(hidden, outputs - outputs // 2, 3)",
        ],
        [
            f"out = self.squeeze({'self.pool(x)' if stride else 'x'})",
            "return torch.cat([self.expand1(out), self.expand3(out)], dim=1)",
        ],
    )


CLASSES: Mapping[str, Callable[[_Writer], str]] = {
    "InvertedResidual": _inverted_residual,
    "Bottleneck": _bottleneck,
    "DepthwiseSeparable": _depthwise_separable,
    "ResidualConv": _residual_conv,
    "Separable": _separable,
    "Shuffle": _shuffle,
    "Fire": _fire,
}
