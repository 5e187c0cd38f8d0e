"""bfloat16 where it is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nas.training.recipe import Precision

_CONV2D_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


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


@contextmanager
def mixed_precision(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """Autocast to `dtype` (None: off); on CPUs, grouped convolutions that are slow in it stay in float32."""
    if dtype is None:
        yield
    elif device.type == "cpu":
        with torch.autocast("cpu", dtype=dtype), _SlowConvolutionsInFloat32():
            yield
    else:
        with torch.autocast(device.type, dtype=dtype):
            yield


class _SlowConvolutionsInFloat32(TorchFunctionMode):
    """Keeps strided grouped convolutions, and those with kernels of 5x5 and more, out of autocast.

    oneDNN has no fast bf16 kernel for them. Forward and backward of 64 x 96 x 32 x 32 in channels_last on one core (Zen
    5), fp32 against bf16: 3x3 stride 2: 6 against 80 ms, 5x5: 44 against 98, 7x7: 69 against 94; 3x3 stride 1: 14
    against 21, not worth the casts. Pointwise convolutions, where the work is: 66 against 39.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d:
            given: dict[str, Any] = {**dict(zip(_CONV2D_ARGUMENTS, args, strict=False)), **kwargs}
            stride = given.get("stride", 1)
            strided = stride not in (1, (1, 1), [1, 1])
            if given.get("groups", 1) > 1 and (strided or given["weight"].shape[-1] >= 5):
                with torch.autocast("cpu", enabled=False):
                    return func(**{name: _float32(value) for name, value in given.items()})
        return func(*args, **kwargs)


def _float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value
