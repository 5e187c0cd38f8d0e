"""The optimizer of a recipe, Xavier initialisation, and the running average of weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nas.training.recipe import Recipe


def build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Build the recipe's optimizer over all parameters, in one kernel per step (fused) where the device has it.

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
    """Initialise every convolution and linear layer by Xavier's uniform distribution, biases 0, in place.

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


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Give an optimizer the momentum and counts of a saved one; its settings stay the recipe's.

    Raises:
        ValueError: they are another network's; torch itself would fail in the middle of a step.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept_by_parameter = state["state"]
    if kept_by_parameter and kept_by_parameter.keys() != set(range(len(parameters))):
        raise ValueError("its optimizer is for other parameters")
    for index, kept in kept_by_parameter.items():
        if [*map(_form, kept.items())] != [*map(_form, kept_by_parameter[0].items())]:
            raise ValueError("its optimizer lacks what it keeps of some parameters")
        for name, value in kept.items():
            is_count = isinstance(value, Tensor) and value.ndim == 0
            if value is not None and not is_count and value.shape != parameters[index].shape:
                raise ValueError(f"its optimizer's {name} of parameter {index} has another shape")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": copy.deepcopy(kept_by_parameter), "param_groups": groups})


def _form(item: tuple[str, Any]) -> tuple[str, bool]:
    return item[0], item[1] is None


class WeightAverage:
    """An exponential moving average of a network's parameters and buffers, which must stay the tensors that they are.

    torch's `AveragedModel` asks the device whether it has averaged before, once per step: a synchronisation that this
    one avoids.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay
        # Listed once: walking through the modules would take longer than a step's kernels here.
        self._averages, self._counters = _tensors(self.network)
        self._weights, self._counts = _tensors(network)

    def update(self, step: int) -> None:
        """Take in the weights after a step (from 0). Early ones weigh more, or the start would stay in for long."""
        decay = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
            if self._counters:
                torch._foreach_copy_(self._counters, self._counts)


def _tensors(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Split parameters and buffers into those to be averaged and whole numbers."""
    tensors = [*network.parameters(), *network.buffers()]
    return [t for t in tensors if t.is_floating_point()], [t for t in tensors if not t.is_floating_point()]
