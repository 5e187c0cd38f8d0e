"""bfloat16 where it is faster."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from nas.training.recipe import Precision


def autocast_dtype(precision: Precision, device: torch.device, resolution: int) -> torch.dtype | None:
    """bfloat16 where autocast is to be on, else None.

    auto: on for CUDA devices with bf16; on for CPUs with native bf16 arithmetic from 16x16 images up. Measured on one
    core of an AMD EPYC (Zen 5), images per second of training at batch 128 (64 at 8x8), fp32 -> bf16 as
    `mixed_precision` does it: MobileNetV2-CIFAR 59 -> 152 at 32x32, 412 -> 409 at 16x16, 668 -> 550 at 8x8; E 121 ->
    313, 561 -> 1085, 1559 -> 1296; two sampled networks of width 0.5 with kernel pyramids 114 -> 109 and 124 -> 138,
    448 -> 528 and 540 -> 590.
    """
    if precision == "fp32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    if device.type == "cpu" and resolution >= 16 and _cpu_has_bf16():
        return torch.bfloat16
    return None


def _cpu_has_bf16() -> bool:
    # torch.cpu keeps these two private and without a promise: absent means no
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(check()) for check in checks if check is not None)


def mixed_precision(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Autocast to `dtype`; None: off."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
