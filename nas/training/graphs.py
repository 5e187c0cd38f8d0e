"""Training steps as CUDA graphs, where the device would wait for Python. Never run on a GPU yet: see docs/gpu.md."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nas.training.augment import Draws

Step = Callable[[Draws], None]

_WARM_UP = 3  # first steps: cuDNN chooses its kernels, the optimizer makes its buffers
_WORTH_STEPS = 100  # capturing issues every kernel of a step once and instantiates the graph: some ten eager steps


class StepGraph:
    """Runs the steps of one training on a CUDA device.

    The first steps run kernel by kernel. Where enough are left, one is then captured, and all others are a single
    launch each; else, or where capturing fails, steps go on kernel by kernel.

    `optimizer`: of the captured step. `steps`: how many there will be at most. The step is an argument of `run` and not
    kept, since a trainer that is referred to from here would outlive its last use, with all its memory.

    The captured step reads and writes the tensors of the first one: weights, momentum and sums must stay where they
    are. The draws and the learning rate are copied into tensors of the graph's own. Dropout redraws in every replay,
    from the seed that the default generator has then.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, device: torch.device, steps: int) -> None:
        self._optimizer = optimizer
        self._warm_up = _WARM_UP if steps >= _WARM_UP + _WORTH_STEPS else -1  # steps before the capture; < 0: none
        self._stream = _capture_stream(device)
        self._lr = torch.zeros((), device=device)
        self._draws: Draws | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    @property
    def captured(self) -> bool:
        return self._graph is not None

    def run(self, draws: Draws, lr: float, step: Step, *, warm_up: Step) -> bool:
        """Run one step with the learning rate `lr`; False where the caller has to run it, kernel by kernel.

        `step`: what is captured. `warm_up`: the same with what a graph cannot do, such as a second try.
        """
        if self._warm_up > 0:
            self._warm_up -= 1
            current = torch.cuda.current_stream(self._stream.device)
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):  # as torch asks for before a capture
                warm_up(draws)
            current.wait_stream(self._stream)
            return True
        if self._warm_up == 0:
            self._warm_up = -1
            self._capture(step, draws)
        if self._graph is None or self._draws is None:
            return False
        self._draws.copy_(draws)
        self._lr.fill_(lr)
        self._graph.replay()
        return True

    def _capture(self, step: Step, draws: Draws) -> None:
        """Capture a step without running it; nothing is kept where that cannot be done."""
        graph, own_draws = torch.cuda.CUDAGraph(), draws.clone()
        try:
            with _capturable(self._optimizer, self._lr), torch.cuda.graph(graph, stream=self._stream):
                step(own_draws)
        except RuntimeError:  # out of memory is one of them
            self._optimizer.zero_grad(set_to_none=True)
        else:
            self._graph, self._draws = graph, own_draws


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the process's stream for warm-ups and captures: cuBLAS keeps a workspace (32 MB on Hopper) for each."""
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
    """Give the optimizer what a graph needs: the learning rate as a tensor, which later steps can change.

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
