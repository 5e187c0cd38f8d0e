"""Engines: each loads a folded network and runs it on a batch of images.

Another engine is another subclass of :class:`nas.latency.engine.Engine`, in a file of its own, and an entry of
`ENGINES`: measurements, calibrations and the command ask nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.errors import UserError
from nas.hardware import check_device
from nas.latency.engine import Engine, Layout, Run
from nas.latency.engine import split as split_network
from nas.latency.file_engines import LiteRTEngine, OnnxRuntimeEngine
from nas.latency.timing import Runner, cuda_runner, runner


@dataclass(frozen=True)
class Runtime:
    """Engine, device, threads and batch of a network's run.

    Attributes:
        engine: a name of `ENGINES`.
        device: ``cpu``, ``cuda`` or ``cuda:<index>``.
        threads: of one network's run, each on a core of its own.
        batch: images per run.
    """

    engine: str = "eager"
    device: str = "cpu"
    threads: int = 1
    batch: int = 1

    def check(self, architectures: Iterable[Architecture] = ()) -> None:
        """Raise UserError where this process cannot run networks so, or not these."""
        if self.threads < 1 or self.batch < 1:
            raise UserError(f"threads and batch are at least 1, not {self.threads} and {self.batch}")
        if self.engine not in ENGINES:
            raise UserError(f"unknown engine {self.engine!r}; allowed: {', '.join(ENGINES)}")
        if self.device == "mps":
            raise UserError("device 'mps': latencies are measured on cpu and cuda")
        check_device(self.device)
        ENGINES[self.engine].check(self.device)
        for architecture in architectures:
            ENGINES[self.engine].check_network(architecture)


class EagerEngine(Engine):
    """torch as it is, segment by segment, with a clock between them, since that costs nothing.

    Every segment reads what the one before it wrote, and its weights come from where they are in the running network: a
    block timed alone in a loop keeps both in its cache and is faster than it ever is in use, by a fifth. A graphics
    card runs ahead of the clock.
    """

    layouts = ("contiguous", "channels_last")

    def load(self, network: nn.Module, images: Tensor, threads: int) -> tuple[Sequence[Run], Any]:
        return [network] if images.is_cuda else split_network(network), images


class CompiledEngine(Engine):
    """``torch.compile``, which takes up to a minute per network, before the clock starts."""

    layouts = ("channels_last",)

    def load(self, network: nn.Module, images: Tensor, threads: int) -> tuple[Sequence[Run], Any]:
        run = torch.compile(network, dynamic=False)
        run(images)
        return [run], images


class GraphEngine(Engine):
    """Eager mode, captured as one CUDA graph and replayed: no launch cost. Not measured for this project yet."""

    layouts = ("contiguous", "channels_last")

    def check(self, device: str) -> None:
        if device == "cpu":
            raise UserError("engine graph replays CUDA graphs; use --device cuda, or --engine eager")

    def load(self, network: nn.Module, images: Tensor, threads: int) -> tuple[Sequence[Run], Any]:
        with torch.cuda.device(images.device):
            graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    network(images)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph, stream=stream):
                network(images)
        return [lambda _: graph.replay()], images


ENGINES: Mapping[str, Engine] = {
    "eager": EagerEngine(),
    "compiled": CompiledEngine(),
    "onnxruntime": OnnxRuntimeEngine("onnxruntime"),
    "onnxruntime-int8": OnnxRuntimeEngine("onnxruntime-int8"),
    "onnxruntime-int8:per-tensor": OnnxRuntimeEngine("onnxruntime-int8:per-tensor"),
    "litert": LiteRTEngine("litert"),
    "litert-int8": LiteRTEngine("litert-int8"),
    "litert-int8:per-tensor": LiteRTEngine("litert-int8:per-tensor"),
    "graph": GraphEngine(),
}


def load(network: nn.Module, images: Tensor, layout: Layout, runtime: Runtime, *, split: bool = False) -> Runner:
    """Make a network ready for the clock.

    Args:
        network: folded, in eval mode, on the images' device; its convolutions' memory layout is changed.
        images: (N, C, R, R).
        layout: of the engine's.
        split: each segment is a model of its own (:attr:`nas.latency.engine.Engine.splits`).
    """
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):  # others may hold weights of five dimensions, which have no such layout
            layer.to(memory_format=form)
    engine = ENGINES[runtime.engine]
    loaded = engine.load_segments if split else engine.load
    steps, value = loaded(network, images.contiguous(memory_format=form), runtime.threads)
    return cuda_runner(steps[0], value, images.device) if images.is_cuda else runner(steps, value)


def faster_layout(network: nn.Module, images: Tensor, runtime: Runtime) -> Layout:
    """The memory layout, of the engine's, in which it runs a network fastest."""

    def quickest(layout: Layout) -> int:
        with torch.inference_mode():
            run = load(network, images, layout, runtime)
            run()
            return min(sum(run()) for _ in range(5))

    return min(ENGINES[runtime.engine].layouts, key=quickest)
