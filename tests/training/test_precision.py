from __future__ import annotations

import pytest
import torch

from nas.api import choose_device
from nas.errors import UserError
from nas.hardware import device_name
from nas.training.precision import autocast_dtype

CARD = torch.device("cuda", 1)


def test_a_card_that_only_emulates_bf16_trains_in_fp32() -> None:
    asked: list[torch.device] = []

    def native(device: torch.device) -> bool:
        asked.append(device)
        return False

    assert autocast_dtype("auto", CARD, 32, native) is None
    assert autocast_dtype("bf16", CARD, 32, native) is torch.bfloat16  # asked for by name
    assert autocast_dtype("auto", CARD, 32, lambda device: True) is torch.bfloat16
    assert asked == [CARD]  # the card that trains, and not the current one


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_another_kind_of_device_is_named_without_cuda() -> None:
    """Asking CUDA would raise here; Apple's GPU has no name of its own."""
    assert device_name("mps") == f"mps of {device_name('cpu')}"
    assert autocast_dtype("auto", torch.device("mps"), 32) is None


@pytest.mark.parametrize("device", ["cuda:99", "cuda:x", "tpu", "cuda:-1", "mps:0", ""])
def test_devices_that_are_not_here_are_refused(device: str) -> None:
    with pytest.raises(UserError, match="device"):
        choose_device(device)
