"""Engines: each turns a folded module into a function that runs it on one input.

``eager``        torch as it is.
``compiled``     ``torch.compile``, which takes up to a minute per network, before the clock starts.
``onnxruntime``  the module as ONNX on ONNX Runtime (an extra).
``graph``        eager, captured as a CUDA graph and replayed; CUDA only.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.hardware import check_device

Engine = Literal["eager", "compiled", "onnxruntime", "graph"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
Layout = Literal["contiguous", "channels_last"]
Run = Callable[[Any], Any]
"""Runs a module once on an input in the engine's own form; returns the output in that form."""


@dataclass(frozen=True)
class Runtime:
    """Engine, device, threads and batch of a network's run.

    Attributes:
        engine: see above.
        device: ``cpu``, ``cuda`` or ``cuda:<index>``.
        threads: of one network's run, each on a core of its own.
        batch: images per run.
    """

    engine: Engine = "eager"
    device: str = "cpu"
    threads: int = 1
    batch: int = 1

    def check(self) -> None:
        """Raise UserError where this process cannot run networks so."""
        if self.threads < 1 or self.batch < 1:
            raise UserError(f"threads and batch are at least 1, not {self.threads} and {self.batch}")
        if self.engine not in ENGINES:
            raise UserError(f"unknown engine {self.engine!r}; allowed: {', '.join(ENGINES)}")
        on_cpu = self.device == "cpu"
        if self.device == "mps":
            raise UserError("device 'mps': latencies are measured on cpu and cuda")
        check_device(self.device)
        if self.engine == "graph" and on_cpu:
            raise UserError("engine graph replays CUDA graphs; use --device cuda, or --engine eager")
        if self.engine == "onnxruntime":
            try:
                import onnx  # noqa: F401  (the exporter needs it)
                import onnxruntime
            except ImportError as error:
                raise UserError(
                    f"engine onnxruntime: {error.name} is not installed; run: pip install onnx onnxscript onnxruntime"
                ) from None
            if not on_cpu and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise UserError(
                    "engine onnxruntime: no CUDA provider here; install onnxruntime-gpu or use --device cpu"
                )


def prepare(module: nn.Module, example: Tensor, layout: Layout, runtime: Runtime) -> tuple[Run, Any]:
    """Make a folded module ready to run.

    Args:
        module: folded, in eval mode, on the example's device; its convolutions' memory layout may be changed.
        example: (N, C, H, W).

    Returns:
        The function, and the example as it takes it.
    """
    if runtime.engine == "onnxruntime":
        return onnx_run(onnx_session(to_onnx(module, example), runtime)), example.cpu().numpy()
    if layout == "channels_last":
        example = example.contiguous(memory_format=torch.channels_last) if example.ndim == 4 else example
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):  # others may hold weights of five dimensions, which have no such layout
                layer.to(memory_format=torch.channels_last)
    run: Run = module
    if runtime.engine == "compiled":
        run = torch.compile(module, dynamic=False)
        run(example)
    return run, example


def to_onnx(module: nn.Module, example: Tensor) -> bytes:
    """The module as an ONNX model for inputs of the example's shape, with the layers that nas.export gives it.

    By the older exporter, which traces: it is ten times faster than the newer one, and a calibration exports hundreds
    of blocks.
    """
    buffer: Any = io.BytesIO()  # the exporter takes it, its annotation does not
    with warnings.catch_warnings(), _exporting():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (example,), buffer, dynamo=False, input_names=["input"], output_names=["output"])
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


def onnx_session(model: bytes, runtime: Runtime, *, profile: Path | None = None) -> Any:
    """An ONNX Runtime session of a model.

    Args:
        profile: begin a profile, whose file's name begins so.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = runtime.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    provider = "CPUExecutionProvider" if runtime.device == "cpu" else "CUDAExecutionProvider"
    return onnxruntime.InferenceSession(model, options, providers=[provider])


def onnx_run(session: Any) -> Run:
    """The function that runs a session on one array."""
    name = session.get_inputs()[0].name
    return lambda array: session.run(None, {name: array})[0]
