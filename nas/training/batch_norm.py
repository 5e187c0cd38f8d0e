"""Running statistics of BatchNorm: those of the weights as they are, and of all processes together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.training.distributed import ALONE, Ranks


@torch.no_grad()
def recalibrate_batch_norm(network: nn.Module, batches: Iterable[Tensor], *, ranks: Ranks = ALONE) -> None:
    """Set the running statistics of every BatchNorm to those of all that it is given while the network sees `batches`.

    Each batch is normalised with its own statistics on its way, as in training. As everywhere in torch, the running
    variance is the unbiased one.

    Args:
        network: its mode and the norms' momenta are kept.
        batches: (N, C, H, W), of any N.
        ranks: processes that recalibrate together, each on batches of its own.

    Source: Y. Wu, J. Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3 ("PreciseBN").
    """
    norms = _norms(network)
    momenta = [norm.momentum for norm in norms]
    seen: dict[nn.Module, list[tuple[int, Tensor, Tensor]]] = defaultdict(list)

    def note(norm: nn.Module, given: tuple[Tensor], _: Tensor) -> None:
        assert isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
        count = given[0].numel() // given[0].shape[1]
        seen[norm].append((count, norm.running_mean.clone(), norm.running_var * ((count - 1) / count)))

    hooks = [norm.register_forward_hook(note) for norm in norms]
    was_training = network.training
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0  # the running statistics are then the last batch's
    for batch in batches:
        network(batch)
    network.train(was_training)
    for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
        hook.remove()
        norm.momentum = momentum
        counts, means, variances = zip(*seen[norm], strict=True)
        weights = torch.tensor(counts, dtype=torch.float32, device=means[0].device)
        mean, variance, values = _pool(weights, torch.stack(means), torch.stack(variances), ranks)
        _set(norm, mean, variance * values / (values - 1))


@torch.no_grad()
def share_batch_norm(network: nn.Module, ranks: Ranks) -> None:
    """Set the running statistics of every BatchNorm to those of all processes together; every process counts alike."""
    if ranks.count == 1:
        return
    for norm in _norms(network):
        assert norm.running_mean is not None and norm.running_var is not None
        alike = torch.ones(1, device=norm.running_mean.device)
        _set(norm, *_pool(alike, norm.running_mean[None], norm.running_var[None], ranks)[:2])


def _pool(weights: Tensor, means: Tensor, variances: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of all values together, from those of their parts in all processes.

    μ = E[m], σ² = E[v + (m - μ)²], which is E[v + m²] - μ² without its cancellation. The mean of the variances alone
    would leave out how the parts' means differ.

    Args:
        weights: (K,) of this process's parts.
        means, variances: (K, C); the variances biased.

    Returns:
        (C,), (C,), and the sum of all weights.
    """
    total = ranks.all_reduce_sum(weights.sum())
    mean = ranks.all_reduce_sum(weights @ means) / total
    variance = ranks.all_reduce_sum(weights @ (variances + (means - mean).square())) / total
    return mean, variance, total


def _set(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
