"""The optimizer of a recipe, Xavier initialisation, and the running average of weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from nas.training.recipe import Recipe


def build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters of `network`, in one kernel per step (fused) where the device has it.

    Unless `recipe.decay_norm_and_bias`, parameters of one dimension (normalisation weights, biases) are not decayed:
    decay is meant for what scales with the size of a weight matrix, and in normalised networks it only disturbs the
    rest (T. He et al., "Bag of Tricks for Image Classification with CNNs", 2019, section 3.1).
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    decayed = [p for p in parameters if p.ndim > 1 or recipe.decay_norm_and_bias]
    free = [p for p in parameters if not (p.ndim > 1 or recipe.decay_norm_and_bias)]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused)
    nesterov = recipe.optimizer == "nag" and recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)


def xavier_(network: nn.Module, generator: torch.Generator) -> None:
    """Xavier's uniform initialisation of every convolution and linear layer, biases 0, in place.

    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                # drawn on the CPU, so that a seed means the same on every device
                drawn = torch.empty(module.weight.shape)
                nn.init.xavier_uniform_(drawn, generator=generator)
                module.weight.copy_(drawn)
                if module.bias is not None:
                    module.bias.zero_()


class WeightAverage:
    """An exponential moving average of a network's parameters and buffers.

    torch's `AveragedModel` asks the device whether it has averaged before, once per step: a synchronisation that this
    one avoids.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay

    def update(self, network: nn.Module, step: int) -> None:
        """Takes in the weights after training step `step` (from 0). Early steps weigh more, or the start would stay in
        for long.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
            averaged = [pair for pair in pairs if pair[0].is_floating_point()]
            torch._foreach_lerp_([old for old, _ in averaged], [new for _, new in averaged], 1 - decay)
            for old, new in pairs:
                if not old.is_floating_point():
                    old.copy_(new)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
