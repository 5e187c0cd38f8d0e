"""Running statistics of BatchNorm: those of the weights as they are, and of all processes together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.training.distributed import Ranks


@torch.no_grad()
def recalibrate_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of every BatchNorm to those of all that it is given while the network sees `batches`.

    Each batch is normalised with its own statistics on its way, as in training. As everywhere in torch, the running
    variance is the unbiased one. The network's mode and the norms' momenta are kept; batches (N, C, H, W) are of any N.

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
        if norm not in seen:  # of a supernet's members alone
            continue
        counts, means, variances = zip(*seen[norm], strict=True)
        values = sum(counts)
        weights = torch.tensor(counts, dtype=torch.float32, device=means[0].device) / values
        # σ² = E[v + (m - μ)²], which is E[v + m²] - μ² without its cancellation: the parts' means differ too.
        mean = weights @ torch.stack(means)
        variance = weights @ (torch.stack(variances) + (torch.stack(means) - mean).square())
        _set(norm, mean, variance * (values / (values - 1)))


def recalibrate_on_images(
    network: nn.Module, images: Tensor, normalise: Callable[[Tensor], Tensor], *, batch: int
) -> None:
    """Recalibrate on images (N, C, H, W) as they are stored, `batch` at a time; one that is left over is left out.

    A single image has no statistics where its features have one pixel.
    """
    parts = torch.split(images, batch)
    recalibrate_batch_norm(network, (normalise(part) for part in parts if len(part) > 1))


@torch.no_grad()
def share_batch_norm(network: nn.Module, ranks: Ranks) -> None:
    """Set the running statistics of every BatchNorm to those of all processes together; every process counts alike."""
    if ranks.count == 1:
        return
    for norm in _norms(network):
        assert norm.running_mean is not None and norm.running_var is not None
        mean = ranks.all_reduce_sum(norm.running_mean / ranks.count)
        apart = (norm.running_mean - mean).square()
        _set(norm, mean, ranks.all_reduce_sum((norm.running_var + apart) / ranks.count))


def _set(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
