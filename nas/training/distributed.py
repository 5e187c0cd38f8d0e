"""Several processes that train one network together, as torchrun starts them: one per GPU, or on CPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nas.errors import UserError


@dataclass(frozen=True)
class Ranks:
    """This process's index among those that train together; every method is a no-op in a single process.

    Every process holds the whole data set and network, and trains on its share of every batch. Each normalises its own
    share (as torchvision's reference training does; SyncBatchNorm would need CUDA, and a synchronisation per layer), so
    that a share should not be much smaller than 32 images.
    """

    index: int = 0
    count: int = 1
    in_backward: bool = True
    """Every backward pass averages gradients; else the training calls :meth:`average_gradients` after the last one."""

    @property
    def leads(self) -> bool:
        """True in the process that writes and prints."""
        return self.index == 0

    def share_gradients(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Wrap the network so that its gradients are averaged over the processes in every backward pass."""
        if self.count == 1 or not self.in_backward:
            return network
        ids = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)

    def average_gradients(self, network: nn.Module) -> None:
        """Average the gradients that a step's backward passes have added up; of the same layers in all processes."""
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        if self.count == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])  # one message in place of hundreds
        dist.all_reduce(flat)
        parts = torch.split(flat / self.count, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the processes, in place, and return it."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast_from_rank0(self, value: float, device: torch.device) -> float:
        """Broadcast the first process's value, so that all decide alike."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=device)
        dist.broadcast(shared, 0)
        return shared.item()

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Run the block in the first process before the others run it, such as a download."""
        if self.count > 1 and not self.leads:
            dist.barrier()
        yield
        if self.count > 1 and self.leads:
            dist.barrier()


ALONE = Ranks()


def launched_rank() -> int:
    """Return this process's rank under torchrun, 0 without it; only the environment is read."""
    return int(os.environ.get("RANK", "0")) if _launched() else 0


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the processes that torchrun has started; yield them and this one's device. Without torchrun it is alone.

    Raises:
        UserError: more processes than GPUs.
    """
    if not _launched() or os.environ.get("WORLD_SIZE") == "1":
        yield ALONE, device
        return
    if device.startswith("cuda"):
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise UserError(f"torchrun: process {local + 1} has no GPU of its own; --nproc-per-node {gpus} fits here")
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()


@contextmanager
def connected(ranks: Ranks, device: str, host: str, port: int) -> Iterator[None]:
    """Connect processes that torchrun has not started; they meet where :func:`meeting_point` of another one listens."""
    store = dist.TCPStore(host, port, is_master=False)  # type: ignore[attr-defined]
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, store=store, rank=ranks.index, world_size=ranks.count)
    try:
        yield
    finally:
        dist.destroy_process_group()


def meeting_point(host: str) -> Any:
    """Listen at a free `port` of this machine for as long as the result lives."""
    return dist.TCPStore(host, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]


def _launched() -> bool:
    return dist.is_torchelastic_launched()
