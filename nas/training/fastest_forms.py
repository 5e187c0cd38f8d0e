"""Which form of a slow convolution trains fastest here: found by measuring, once per device, and kept.

What is kept is a small file per device, number of threads and version of torch, in the user's cache folder. So a
training does the same arithmetic when it is repeated or resumed on a machine, and each form is timed by one process.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.blocks.forms import Case, Choose, convolve_each, depthwise, forms_of, pointwise_each, usual
from nas.blocks.layers import DepthwiseConv2d, Formed, MeanPool
from nas.errors import UserError
from nas.files import cache_folder, parse_json, read_text, write_atomic
from nas.hardware import device_name

SCHEMA = 1
IMAGES = 16
CHANNELS = {1: 256, 2: 256, 4: 256, 8: 128, 16: 64, 32: 32}
"""By the images' side: about those of a network of the inverted-residual family, in its narrow layers."""
EXPANSION = 4
ROUNDS = 3
HOPELESS, VERY_HOPELESS = 1.5, 6.0
"""A form is given up that takes so many times as long as the best in its first run, or while it warms up."""
WORTH = 0.9
"""Another form than the usual one must take at most this part of its time, so that noise does not choose."""


class FastestForms:
    """Names the fastest form of a case, on one device; measures where that is not known yet.

    Args:
        device: where the networks train.
        folder: of the files; default: ``forms`` in the user's cache folder. Where it cannot be written, what was
            measured is known to this process alone.
    """

    def __init__(self, device: torch.device, folder: Path | None = None) -> None:
        self._device = device
        about = {"device": device_name(str(device)), "torch": torch.__version__, "threads": torch.get_num_threads()}
        self._about = about if device.type == "cpu" else {**about, "threads": 0}
        digest = hashlib.sha256(json.dumps(self._about).encode()).hexdigest()[:16]
        self.path = (folder or cache_folder("forms")) / f"{digest}.json"
        self._known: dict[Case, str] = {}

    def __call__(self, case: Case) -> str:
        """The name of a form of :func:`nas.blocks.forms.forms_of`."""
        if case not in self._known:
            with self._file_locked():
                self._known |= self._read()
                if case not in self._known:
                    self._known[case] = fastest(case, self._device)
                    self._write()
        return self._known[case]

    def __deepcopy__(self, memo: object) -> FastestForms:
        """Itself: what a device does best does not belong to the network that is copied."""
        return self

    @contextmanager
    def _file_locked(self) -> Iterator[None]:
        """Others wait, and then read what was measured."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            yield
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _read(self) -> dict[Case, str]:
        """What is kept; nothing where that is damaged, of another version, or names forms that there are no more."""
        if not self.path.exists():
            return {}
        try:
            document = parse_json(read_text(self.path), str(self.path))
            if (document["schema"], document["about"]) != (SCHEMA, self._about):
                return {}
            kept = {Case(*case): form for case, form in document["forms"]}
            return {case: form for case, form in kept.items() if form in forms_of(case)}
        except (UserError, KeyError, TypeError, ValueError):
            return {}

    def _write(self) -> None:
        document = {
            "schema": SCHEMA,
            "about": self._about,
            "forms": [[list(c), form] for c, form in self._known.items()],
        }
        with suppress(OSError):  # a cache that cannot be written costs time, not the result
            write_atomic(self.path, json.dumps(document, indent=1))


def install(network: nn.Module, choose: Choose) -> None:
    """Let every layer that has several forms train in the one that `choose` names, in place.

    torch's depthwise convolutions and global poolings become ours, as they stand: their parameters and hooks stay.
    """
    for module in network.modules():
        if type(module) is nn.AdaptiveAvgPool2d and module.output_size in (1, (1, 1)):
            module.__class__ = MeanPool
        if type(module) is nn.Conv2d and DepthwiseConv2d.may_replace(module):
            module.__class__ = DepthwiseConv2d
        if isinstance(module, Formed):
            module.choose = choose


def fastest(case: Case, device: torch.device) -> str:
    """Time forward and backward of every form of a case, in turn; a form that fails is out.

    Sizes are the same whatever network asks: :data:`IMAGES` images, :data:`CHANNELS` channels.
    """
    names = forms_of(case)
    if len(names) == 1:
        return names[0]
    runs: dict[str, Callable[[], None]] = {}
    times: dict[str, list[float]] = {}
    with torch.enable_grad():
        for name in names:
            run = _example(case, name, device)
            try:
                warm_up = _seconds(run, device)  # kernels are compiled, memory is got
                if times and warm_up > VERY_HOPELESS * min(map(min, times.values())):
                    continue
                times[name] = [_seconds(run, device)]
            except (RuntimeError, MemoryError):
                continue
            runs[name] = run
        best = min(map(min, times.values()), default=0.0)
        for _ in range(ROUNDS):
            for name, run in runs.items():
                if times[name][0] <= HOPELESS * best:
                    times[name].append(_seconds(run, device))
    middle = {name: statistics.median(seconds) for name, seconds in times.items()}
    return pick(middle, usual(case))


def pick(seconds: dict[str, float], preferred: str) -> str:
    """The fastest form, or the preferred one where that is about as fast or nothing could be timed."""
    if not seconds:
        return preferred
    best = min(seconds, key=lambda name: seconds[name])
    near = preferred in seconds and seconds[best] > WORTH * seconds[preferred]
    return preferred if near else best


def _example(case: Case, form: str, device: torch.device) -> Callable[[], None]:
    """A run of a form, forward and backward, in the format of the case."""
    dtype: torch.dtype = getattr(torch, case.dtype)
    channels = CHANNELS[case.side]
    if case.operation != "pointwise per image":
        channels *= EXPANSION
    before, after = channels, channels
    if case.operation == "pointwise per image":
        before, after = (channels, channels * EXPANSION) if case.widens else (channels * EXPANSION, channels)

    def parameter(*shape: int) -> Tensor:
        return torch.full(shape, 0.5, dtype=dtype, device=device).requires_grad_()

    images = parameter(IMAGES, before, case.side, case.side).detach()
    x = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    place = {"stride": case.stride, "padding": case.kernel // 2}

    def chosen(_: Case) -> str:
        return form

    given: Sequence[Tensor]
    if case.operation == "depthwise":
        given = (parameter(before, 1, case.kernel, case.kernel),)
    elif case.operation == "depthwise per image":
        given = (parameter(IMAGES, before, 1, case.kernel, case.kernel),)
    else:
        given = parameter(IMAGES, case.experts), parameter(case.experts, after, before)

    def run() -> None:
        if case.operation == "depthwise":
            out = depthwise(x, given[0], None, **place, choose=chosen)
        elif case.operation == "depthwise per image":
            out = convolve_each(x, given[0], **place, groups=before, choose=chosen)
        else:
            out = pointwise_each(x, *given, choose=chosen)
        torch.autograd.grad(out, (x, *given), torch.ones_like(out))

    return run


def _seconds(run: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
