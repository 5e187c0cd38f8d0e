"""Training steps as CUDA graphs, where the device would wait for Python."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from nas.training.augment import Draws

Step = Callable[[Draws, Tensor], None]

_WARM_UP = 3  # first steps: cuDNN chooses its kernels, the optimizer makes its buffers
_TIMED = 3
_WORTH_STEPS = 100  # capturing issues every kernel of a step once and instantiates the graph: some ten eager steps
_LAUNCH_BOUND = 0.8  # of a step's time is spent on issuing it


class Timing(NamedTuple):
    """Seconds of one step on an idle device: until its last kernel was issued, and until that had run."""

    issued: float
    finished: float


def worth_capturing(timings: Sequence[Timing], steps_left: int) -> bool:
    """Decide whether capturing the step pays: enough steps are left, and issuing them is what takes time.

    A device that is busy long after the last kernel was issued does not wait for Python, and gains nothing. Not yet
    measured on a GPU: the two thresholds are reasoned.
    """
    issued = statistics.median(timing.issued for timing in timings)
    finished = statistics.median(timing.finished for timing in timings)
    return steps_left >= _WORTH_STEPS and issued >= _LAUNCH_BOUND * finished


class StepGraph:
    """Runs the steps of one training on a CUDA device.

    The first steps run kernel by kernel, and the last of them are timed. Where it is worth it, one step is then
    captured, and all others are a single launch each; else, or where capturing fails, steps go on kernel by kernel.

    `optimizer`: of the captured step. `steps`: how many there will be at most. Steps are arguments of `run` and not
    kept, since a trainer that is referred to from here would outlive its last use, with all its memory.

    The captured step reads and writes the tensors of the first one: weights, momentum and the sums must stay where they
    are. The draws and the learning rate are copied into tensors of the graph's own. Dropout redraws in every replay,
    from the seed that the default generator has then.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, device: torch.device, steps: int) -> None:
        self._optimizer = optimizer
        self._steps_left = steps
        self._stream = _capture_stream(device)
        self._lr = torch.zeros((), device=device)
        self._begun = 0
        self._timings: list[Timing] = []
        self._draws: Draws | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    @property
    def captured(self) -> bool:
        return self._graph is not None

    def run(self, draws: Draws, sums: Tensor, lr: float, *, step: Step, bare_step: Step) -> None:
        """Run one step. `bare_step` is what is captured: as `step`, but errors are let through."""
        self._steps_left -= 1
        self._begun += 1
        if self._graph is not None:
            self._replay(draws, lr)
        elif self._begun <= _WARM_UP:
            self._beside(step, draws, sums)
        elif self._begun <= _WARM_UP + _TIMED:
            self._timings.append(self._beside(step, draws, sums))
        elif self._begun == _WARM_UP + _TIMED + 1 and worth_capturing(self._timings, self._steps_left):
            if self._capture(bare_step, draws, sums):
                self._replay(draws, lr)
            else:
                step(draws, sums)
        else:
            step(draws, sums)

    def _beside(self, step: Step, draws: Draws, sums: Tensor) -> Timing:
        """Run a step on the stream of the capture, as torch asks for before one; synchronises."""
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        self._stream.synchronize()
        started = time.perf_counter()
        with torch.cuda.stream(self._stream):
            step(draws, sums)
        issued = time.perf_counter()
        self._stream.synchronize()
        return Timing(issued - started, time.perf_counter() - started)

    def _capture(self, step: Step, draws: Draws, sums: Tensor) -> bool:
        """Capture a step without running it; False where that cannot be done."""
        graph, own_draws = torch.cuda.CUDAGraph(), draws.clone()
        try:
            with _capturable(self._optimizer, self._lr), torch.cuda.graph(graph, stream=self._stream):
                step(own_draws, sums)
        except RuntimeError:  # out of memory is one of them
            self._optimizer.zero_grad(set_to_none=True)
            return False
        self._graph, self._draws = graph, own_draws
        return True

    def _replay(self, draws: Draws, lr: float) -> None:
        assert self._graph is not None and self._draws is not None
        self._draws.copy_(draws)
        self._lr.fill_(lr)
        self._graph.replay()


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The process's stream for warm-ups and captures: cuBLAS keeps a workspace (32 MB on Hopper) for every stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextmanager
def kernels_chosen_by_time() -> Iterator[None]:
    """Let cuDNN time its kernels at the first step: the shapes of a training never change. Without cuDNN, nothing."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def _capturable(optimizer: torch.optim.Optimizer, lr: Tensor) -> Iterator[None]:
    """The optimizer as a graph needs it: the learning rate a tensor, that later steps can change.

    Only meanwhile, so that checkpoints hold plain numbers and eager steps stay as they were.
    """
    before = [dict(group) for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = lr
        if "capturable" in group:
            group["capturable"] = True
    try:
        yield
    finally:
        for group, old in zip(optimizer.param_groups, before, strict=True):
            group.update(old)
