"""Engines: each loads a folded network and runs it on a batch of images.

Another engine is another subclass of :class:`Engine`, in a file of its own, and an entry of `ENGINES`: measurements,
calibrations and the command ask nothing else.
"""

import contextlib
import io
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.hardware import check_device
from nas.latency.segments import split
from nas.latency.timing import Runner, cuda_runner, runner

Layout = Literal["contiguous", "channels_last"]
Run = Callable[[Any], Any]
"""Runs a module once on an input in the engine's own form; returns the output in that form."""


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

    def check(self) -> None:
        """Raise UserError where this process cannot run networks so."""
        if self.threads < 1 or self.batch < 1:
            raise UserError(f"threads and batch are at least 1, not {self.threads} and {self.batch}")
        if self.engine not in ENGINES:
            raise UserError(f"unknown engine {self.engine!r}; allowed: {', '.join(ENGINES)}")
        if self.device == "mps":
            raise UserError("device 'mps': latencies are measured on cpu and cuda")
        check_device(self.device)
        ENGINES[self.engine].check(self)


class Engine(ABC):
    """A way to run folded networks."""

    layouts: Sequence[Layout] = ("contiguous",)
    """Memory layouts that a network is tried in; the fastest one is its own."""

    def check(self, runtime: Runtime) -> None:  # noqa: B027  (most need nothing more)
        """Raise UserError where this machine cannot run networks so."""

    def versions(self) -> list[str]:
        """Names and versions of the libraries beside torch."""
        return []

    @abstractmethod
    def load(self, network: nn.Module, images: Tensor, runtime: Runtime) -> tuple[Sequence[Run], Any]:
        """Make a network ready to run.

        Args:
            network: folded, in eval mode, on the images' device, in the layout to run in.
            images: (N, C, R, R), in that layout too.

        Returns:
            The steps of a run, each of which takes what the one before it returns, and what the first one takes: all of
            the network, or its segments, which are then timed one by one.
        """


class EagerEngine(Engine):
    """torch as it is, segment by segment, with a clock between them, since that costs nothing.

    Every segment reads what the one before it wrote, and its weights come from where they are in the running network: a
    block timed alone in a loop keeps both in its cache and is faster than it ever is in use, by a fifth. A graphics
    card runs ahead of the clock.
    """

    layouts = ("contiguous", "channels_last")

    def load(self, network: nn.Module, images: Tensor, runtime: Runtime) -> tuple[Sequence[Run], Any]:
        return [network] if images.is_cuda else split(network), images


class CompiledEngine(Engine):
    """``torch.compile``, which takes up to a minute per network, before the clock starts."""

    layouts = ("channels_last",)

    def load(self, network: nn.Module, images: Tensor, runtime: Runtime) -> tuple[Sequence[Run], Any]:
        run = torch.compile(network, dynamic=False)
        run(images)
        return [run], images


class GraphEngine(Engine):
    """Eager mode, captured as one CUDA graph and replayed: no launch cost. Not measured for this project yet."""

    layouts = ("contiguous", "channels_last")

    def check(self, runtime: Runtime) -> None:
        if runtime.device == "cpu":
            raise UserError("engine graph replays CUDA graphs; use --device cuda, or --engine eager")

    def load(self, network: nn.Module, images: Tensor, runtime: Runtime) -> tuple[Sequence[Run], Any]:
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


class OnnxRuntimeEngine(Engine):
    """The network as ONNX on ONNX Runtime, an extra."""

    def check(self, runtime: Runtime) -> None:
        try:
            import onnx  # noqa: F401  (the exporter needs it)
            import onnxruntime
        except ImportError as error:
            raise UserError(
                f"engine onnxruntime: {error.name} is not installed; run: pip install onnx onnxscript onnxruntime"
            ) from None
        if runtime.device != "cpu" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise UserError("engine onnxruntime: no CUDA provider here; install onnxruntime-gpu or use --device cpu")

    def versions(self) -> list[str]:
        import onnxruntime

        return [f"onnxruntime {onnxruntime.__version__}"]

    def load(self, network: nn.Module, images: Tensor, runtime: Runtime) -> tuple[Sequence[Run], Any]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = runtime.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        provider = "CPUExecutionProvider" if runtime.device == "cpu" else "CUDAExecutionProvider"
        session = onnxruntime.InferenceSession(to_onnx(network, images), options, providers=[provider])
        name = session.get_inputs()[0].name
        return [lambda array: session.run(None, {name: array})[0]], images.cpu().numpy()


ENGINES: Mapping[str, Engine] = {
    "eager": EagerEngine(),
    "compiled": CompiledEngine(),
    "onnxruntime": OnnxRuntimeEngine(),
    "graph": GraphEngine(),
}


def load(network: nn.Module, images: Tensor, layout: Layout, runtime: Runtime) -> Runner:
    """Make a network ready for the clock.

    Args:
        network: folded, in eval mode, on the images' device; its convolutions' memory layout is changed.
        images: (N, C, R, R).
        layout: of the engine's.
    """
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):  # others may hold weights of five dimensions, which have no such layout
            layer.to(memory_format=form)
    steps, value = ENGINES[runtime.engine].load(network, images.contiguous(memory_format=form), runtime)
    return cuda_runner(steps[0], value, images.device) if images.is_cuda else runner(steps, value)


def faster_layout(network: nn.Module, images: Tensor, runtime: Runtime) -> Layout:
    """The memory layout, of the engine's, in which it runs a network fastest."""

    def quickest(layout: Layout) -> int:
        with torch.inference_mode():
            run = load(network, images, layout, runtime)
            run()
            return min(sum(run()) for _ in range(5))

    return min(ENGINES[runtime.engine].layouts, key=quickest)


def to_onnx(module: nn.Module, images: Tensor) -> bytes:
    """The module as an ONNX model for inputs of one shape, with the layers that nas.export gives it.

    By the older exporter, which traces: it is ten times faster than the newer one, and a calibration exports hundreds
    of blocks.
    """
    buffer: Any = io.BytesIO()  # the exporter takes it, its annotation does not
    with warnings.catch_warnings(), _exporting():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (images,), buffer, dynamo=False, input_names=["input"], output_names=["output"])
    return buffer.getvalue()


@contextlib.contextmanager
def _exporting() -> Iterator[None]:
    """Conditional convolutions have another form in ONNX, which they take when torch says that it exports."""
    before = torch.compiler._is_exporting_flag
    torch.compiler._is_exporting_flag = True
    try:
        yield
    finally:
        torch.compiler._is_exporting_flag = before
