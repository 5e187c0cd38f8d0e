"""BatchNorm's statistics against those of all that a norm was given, by numpy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_networks import small_network

from nas.training.batch_norm import recalibrate_batch_norm

TWO_PROCESSES = """
import sys
import torch
from nas.training.batch_norm import recalibrate_batch_norm, share_batch_norm
from nas.training.distributed import joined
from training_networks import small_network

batches = torch.load(sys.argv[1])
network = small_network()
with joined("cpu") as (ranks, _):
    recalibrate_batch_norm(network, batches[ranks.index :: 2])
    share_batch_norm(network, ranks)
    torch.save(network.state_dict(), f"{sys.argv[2]}-{ranks.index}")
    network[1].running_mean.fill_([1.0, 4.0][ranks.index])
    network[1].running_var.fill_([2.0, 6.0][ranks.index])
    share_batch_norm(network, ranks)
    torch.save(network.state_dict(), f"{sys.argv[2]}-shared-{ranks.index}")
"""


def batches(sizes: tuple[int, ...] = (48, 7, 64, 16)) -> list[Tensor]:
    """From dark to bright: the variance lies between the batches more than within them."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(n, 1, 8, 8, generator=generator) + 3 * i for i, n in enumerate(sizes)]


def statistics(network: nn.Module, given: list[Tensor]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and unbiased variance of all values that each norm is given, per channel."""
    seen: dict[str, list[np.ndarray]] = {}
    for name, norm in network.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.register_forward_pre_hook(
                lambda _, args, name=name: seen.setdefault(name, []).append(args[0].double().numpy())
            )
    with torch.no_grad():
        for batch in given:
            network.train()(batch)
    values = {name: np.concatenate(parts).swapaxes(0, 1).reshape(parts[0].shape[1], -1) for name, parts in seen.items()}
    return {name: (rows.mean(1), rows.var(1, ddof=1)) for name, rows in values.items()}


def assert_statistics(
    state: dict[str, Tensor], expected: dict[str, tuple[np.ndarray, np.ndarray]], rtol: float = 1e-5
) -> None:
    assert len(expected) == 3
    for name, (mean, variance) in expected.items():
        np.testing.assert_allclose(state[f"{name}.running_mean"], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state[f"{name}.running_var"], variance, rtol=rtol, atol=1e-6)


def test_statistics_are_those_of_all_values_together() -> None:
    network = small_network(dropout=0.3).eval()
    recalibrate_batch_norm(network, batches())
    assert_statistics(network.state_dict(), statistics(small_network(), batches()))
    assert not network.training
    assert {module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}


def test_a_large_mean_leaves_the_variance_exact() -> None:
    """E[v + m²] - μ² in float32 would lose it: 1e6 has no digits left for 0.08."""
    norm = nn.BatchNorm2d(1)
    given = [batch % 1 + 1000 for batch in batches()]
    recalibrate_batch_norm(norm, given)
    values = torch.cat(given).double().numpy()
    assert norm.running_var is not None
    assert norm.running_var.item() == pytest.approx(values.var(ddof=1), rel=1e-3)


def test_a_network_without_norms_is_left_alone() -> None:
    recalibrate_batch_norm(nn.Conv2d(1, 1, 1), batches())


@pytest.mark.slow
def test_two_processes_have_the_statistics_of_all_values(tmp_path: Path) -> None:
    shares = batches((48, 24, 16, 40))  # of 64 images for each process: every batch has equal shares
    torch.save(shares, tmp_path / "batches")
    (tmp_path / "script.py").write_text(TWO_PROCESSES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run(
        [*torchrun, tmp_path / "script.py", tmp_path / "batches", tmp_path / "state"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        check=True,
        timeout=120,
    )
    expected = statistics(small_network(), shares)
    for rank in (0, 1):
        # n / (n - 1) of the unbiased variance is that of a process's own values: 1,024 at least
        assert_statistics(torch.load(tmp_path / f"state-{rank}"), expected, rtol=1e-3)
        shared = torch.load(tmp_path / f"state-shared-{rank}")
        # Two halves: mean of the means, mean of the variances, and (4 - 1)² / 4 between them.
        assert (shared["1.running_mean"] == 2.5).all()
        assert (shared["1.running_var"] == 4 + 2.25).all()
