"""The helpers of the generated file: each in the plainest form that the network needs, and only where it is used."""

from nas.export.python.source import call as laid_out
from nas.export.python.source import function, mentions, module_class


def helpers(text: str, *, activation: str, norm: bool, experts: bool, padding: bool) -> list[str]:
    """Sources of the helpers that `text` mentions, and those that these mention.

    Args:
        text: the network and its blocks.
        activation: the expression that makes one.
        norm: whether a BatchNorm follows each convolution.
        experts: whether some convolution is conditional.
        padding: whether some convolution is not padded.
    """
    keywords = ["stride: int = 1", "groups: int = 1"]
    names = ["stride", "groups"]
    if padding:
        keywords.append("padding: int | None = None")
        names.append("padding")
    if experts:
        keywords.append("experts: int = 1")
        names.append("experts")
    parameters = ["inputs: int", "outputs: int", "kernel: int = 1", "*", *keywords]
    call = f"conv(inputs, outputs, kernel, {', '.join(f'{name}={name}' for name in names)})"
    available = {
        "SqueezeExcitation": _squeeze_excitation(),
        "make_shortcut": _make_shortcut(),
        "conv_norm_act": _conv_norm_act(parameters, call, activation, norm),
        "conv_norm": _conv_norm(parameters, call),
        "norm_act": _norm_act(activation),
        "Pyramid": _pyramid(experts),
        "conv": _conv(parameters, norm, experts, padding),
        "CondConv2d": _conditional(norm),
    }
    if not norm:  # the convolution's own bias stands in its place
        del available["conv_norm"]
    found = []
    for name, source in available.items():
        if mentions(text, name):
            found.append(source)
            text += source
    return found


def _conv_norm_act(parameters: list[str], call: str, activation: str, norm: bool) -> str:
    doc = '"""Convolution, batch norm, activation."""' if norm else '"""Convolution, activation."""'
    layers = [call, "nn.BatchNorm2d(outputs)", activation] if norm else [call, activation]
    return function("conv_norm_act", parameters, "nn.Sequential", [doc, *laid_out("return nn.Sequential", layers, 4)])


def _conv_norm(parameters: list[str], call: str) -> str:
    layers = [call, "nn.BatchNorm2d(outputs)"]
    body = ['"""Convolution, batch norm."""', *laid_out("return nn.Sequential", layers, 4)]
    return function("conv_norm", parameters, "nn.Sequential", body)


def _norm_act(activation: str) -> str:
    return function(
        "norm_act",
        ["layer: nn.Module", "channels: int"],
        "nn.Sequential",
        [
            '"""A layer, batch norm of its output channels, activation."""',
            f"return nn.Sequential(layer, nn.BatchNorm2d(channels), {activation})",
        ],
    )


def _conv(parameters: list[str], norm: bool, experts: bool, padding: bool) -> str:
    bias = str(not norm)
    doc = "A convolution; its padding keeps the size up to the stride"
    body, pad = [], "kernel // 2"
    if padding:
        doc += ", unless it is given"
        body.append("padding = kernel // 2 if padding is None else padding")
        pad = "padding"
    if experts:
        doc += ". With several experts a conditional one"
        body += [
            "if experts > 1:",
            "    return CondConv2d("
            f"inputs, outputs, kernel, stride=stride, padding={pad}, groups=groups, experts=experts)",
        ]
    body.append(f"return nn.Conv2d(inputs, outputs, kernel, stride, {pad}, groups=groups, bias={bias})")
    return function("conv", parameters, "nn.Module", [f'"""{doc}."""', *body])


def _make_shortcut() -> str:
    return function(
        "make_shortcut",
        ["kind: str", "inputs: int", "outputs: int", "stride: int = 1"],
        "nn.Module | None",
        [
            '"""What is added to a block\'s output: nothing, its input, or its input through a 1x1 convolution."""',
            'if kind == "conv":',
            "    return conv_norm(inputs, outputs, stride=stride)",
            'return nn.Identity() if kind == "identity" else None',
        ],
    )


def _squeeze_excitation() -> str:
    return module_class(
        "SqueezeExcitation",
        "Weighs every channel by what all channels look like on average (Hu et al. 2018).",
        ["channels: int", "squeeze: int"],
        ["self.fc1 = nn.Conv2d(channels, squeeze, 1)", "self.fc2 = nn.Conv2d(squeeze, channels, 1)"],
        ["weights = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu())", "return x * weights.sigmoid()"],
    )


def _pyramid(experts: bool) -> str:
    given, taken = (["experts: int = 1"], ", experts=experts") if experts else ([], "")
    return module_class(
        "Pyramid",
        "Convolutions of several kernel sizes on one input, added or concatenated (Hoang and Jo 2018).",
        [
            "channels: int",
            "kernels: tuple[int, ...]",
            "*",
            "groups: int",
            "stride: int = 1",
            "concat: bool = False",
            *given,
        ],
        [
            "self.concat = concat",
            "self.branches = nn.ModuleList(",
            f"    conv(channels, channels, kernel, stride=stride, groups=groups{taken}) for kernel in kernels",
            ")",
        ],
        [
            "outputs = [branch(x) for branch in self.branches]",
            "return torch.cat(outputs, dim=1) if self.concat else sum(outputs[1:], outputs[0])",
        ],
    )


def _conditional(norm: bool) -> str:
    bias = [] if norm else ["self.bias = nn.Parameter(torch.zeros(experts, outputs))"]
    out = "out.view(n, self.shape[0], *out.shape[2:])"
    if not norm:
        out += " + (routing @ self.bias)[:, :, None, None]"
    return module_class(
        "CondConv2d",
        "A convolution whose kernel is mixed from experts for every image (Yang et al. 2019).",
        [
            "inputs: int",
            "outputs: int",
            "kernel: int",
            "*",
            "stride: int",
            "padding: int",
            "groups: int",
            "experts: int",
        ],
        [
            "self.shape = (outputs, inputs // groups, kernel, kernel)",
            "self.stride, self.padding, self.groups = stride, padding, groups",
            "self.weight = nn.Parameter(torch.empty(experts, outputs * inputs // groups * kernel**2))",
            *bias,
            "self.routing = nn.Linear(inputs, experts)",
            "for expert in self.weight.data:",
            '    nn.init.kaiming_normal_(expert.view(self.shape), mode="fan_out", nonlinearity="relu")',
        ],
        [
            "n, channels, height, width = x.shape",
            "routing = torch.sigmoid(self.routing(x.mean((2, 3))))  # (n, experts)",
            "kernels = (routing @ self.weight).view(n * self.shape[0], *self.shape[1:])",
            "# One convolution for all images: each is a group of its own.",
            "x = x.reshape(1, n * channels, height, width)",
            "out = F.conv2d(x, kernels, stride=self.stride, padding=self.padding, groups=n * self.groups)",
            f"return {out}",
        ],
    )
