"""A network made ready for the clock: folded, in one piece or as its chain of segments."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.latency.engines import Engine, Layout, Run, Runtime, prepare
from nas.latency.timing import Runner
from nas.network.build import Network, build
from nas.network.fold import fold

LAYOUTS: tuple[Layout, ...] = ("contiguous", "channels_last")


def shipped(architecture: Architecture, num_classes: int, device: str = "cpu") -> nn.Module:
    """The network folded, with fresh weights of a fixed seed (its latency does not depend on them), on the device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(architecture, num_classes)
    return fold(network).to(device)


def example(architecture: Architecture, runtime: Runtime) -> Tensor:
    """A batch of noise, (N, C, R, R)."""
    image = architecture.input
    generator = torch.Generator().manual_seed(0)
    shape = runtime.batch, image.channels, image.resolution, image.resolution
    return torch.randn(shape, generator=generator).to(runtime.device)


def whole(network: nn.Module, images: Tensor, layout: Layout, runtime: Runtime) -> Runner:
    """A runner of the network in one piece."""
    run, value = prepare(network, images, layout, runtime)
    if runtime.engine == "graph":
        run = _captured(run, value)
    return _cuda_runner(run, value, images.device) if images.is_cuda else timed_run(run, value)


def runner(network: nn.Module, images: Tensor, layout: Layout, runtime: Runtime) -> Runner:
    """A runner of the network as the engine runs it; with a clock between its segments where that costs nothing."""
    if runtime.engine == "eager" and not images.is_cuda:
        return segmented(network, images, layout)
    return whole(network, images, layout, runtime)


def segmented(network: nn.Module, images: Tensor, layout: Layout) -> Runner:
    """A runner of the network in torch's eager mode, segment by segment (stem, blocks, tail).

    Every segment reads what the one before it wrote, and its weights come from where they are in the running network:
    a block timed alone in a loop keeps both in its cache and is faster than it ever is in use, by a fifth.
    """
    _, images = prepare(network, images, layout, Runtime())
    return _runner(split(network), images)


def split(network: nn.Module) -> list[nn.Module]:
    """A folded network's segments as modules, in the order of :func:`nas.latency.layers.segments`."""
    assert isinstance(network, Network) and isinstance(network.blocks, nn.Sequential)
    if network.convolutional:
        tail = nn.Sequential(network.head, network.classifier, network.pool, nn.Flatten())
    else:
        tail = nn.Sequential(network.head, network.pool, nn.Flatten(), network.classifier)
    return [network.stem, *network.blocks, tail]


def only_layout(engine: Engine) -> Layout | None:
    """The memory layout in which the engine runs networks; None where either may be the faster one."""
    if engine in ("eager", "graph"):
        return None
    return "contiguous" if engine == "onnxruntime" else "channels_last"


def faster_layout(network: nn.Module, images: Tensor, runtime: Runtime) -> Layout:
    """The memory layout in which the engine runs the network faster."""
    # Ends in channels_last; `prepare` converts back and forth.
    times = {layout: _quick(network, images, layout, runtime) for layout in LAYOUTS}
    return min(times, key=lambda layout: times[layout])


def _quick(network: nn.Module, images: Tensor, layout: Layout, runtime: Runtime) -> int:
    if layout == "contiguous":
        network.to(memory_format=torch.contiguous_format)
    runner = whole(network, images, layout, runtime)
    runner()
    return min(sum(runner()) for _ in range(5))


def timed_run(run: Run, value: Any) -> Runner:
    """A runner of one function on one input."""
    return _runner([run], value)


def _runner(runs: Sequence[Run], value: Any) -> Runner:
    clock = time.perf_counter_ns

    def once() -> Sequence[int]:
        current, times = value, []
        last = clock()
        for run in runs:
            current = run(current)
            now = clock()
            times.append(now - last)
            last = now
        return times

    return once


def _cuda_runner(run: Run, value: Any, device: torch.device) -> Runner:
    """Timed by the card's own events, once it has finished what went before. Not measured for this project yet."""

    def once() -> Sequence[int]:
        with torch.cuda.device(device):
            start, end = torch.Event("cuda", enable_timing=True), torch.Event("cuda", enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            run(value)
            end.record()
            torch.cuda.synchronize()
        return [round(start.elapsed_time(end) * 1e6)]

    return once


def _captured(run: Run, value: Tensor) -> Run:
    """The run as one CUDA graph, replayed: no launch cost. Not measured for this project yet."""
    with torch.cuda.device(value.device):
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                run(value)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph, stream=stream):
            run(value)
    return lambda _: graph.replay()
