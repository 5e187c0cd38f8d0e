"""Real data for the tests: scikit-learn's digits, and CIFAR-10 where it lies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from training_networks import small_network

from nas.training.data import Dataset, load_dataset


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="session")
def cifar10_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds cifar-10-batches-py; the test is skipped where there is none."""
    given = os.environ.get("NAS_TEST_CIFAR10")
    if given:
        return Path(given)
    script = Path(__file__).parents[2].parent / "shared/data/cifar10/unpack_cifar10.py"
    if not script.exists():
        pytest.skip("no CIFAR-10: set NAS_TEST_CIFAR10 to a folder that holds cifar-10-batches-py")
    folder = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture
def network() -> nn.Module:
    return small_network()
