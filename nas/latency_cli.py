"""The `nas latency` commands."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from nas.command_options import command
from nas.errors import UserError
from nas.options import FROM_0, FROM_1, TARGETS, THREADS, OnCommandLine
from nas.terminal import Terminal
from nas.units import counted

if TYPE_CHECKING:
    import nas
    from nas.latency import Runtime

console = Terminal()
AsJson = Annotated[bool, "Print JSON.", OnCommandLine(name="json")]


class _MeasureByDefault(TyperGroup):
    """`nas latency han-e` is short for `nas latency measure han-e`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["measure", *args]
        return super().parse_args(ctx, args)


latency_app = typer.Typer(
    cls=_MeasureByDefault,
    help="Measure and predict latency: nas latency NETWORK... measures.",
    epilog="Example: nas latency mobilenetv2-cifar han-e",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
Space = Annotated[str, "A shipped space or a YAML file."]
Channels = Annotated[int | None, "Channels of the images (default: the space's).", FROM_1]
Resolution = Annotated[int | None, "Input side in pixels (default: the document's).", FROM_1]
Classes = Annotated[int, "Number of classes.", FROM_1]
Threads = Annotated[int, "Threads per run.", THREADS]
Batch = Annotated[int, "Images per run.", FROM_1]


@dataclass(frozen=True)
class RunOptions:
    """How networks are run; see :class:`nas.latency.Runtime`."""

    engine: Annotated[
        str | None,
        "eager, compiled, onnxruntime, onnxruntime-int8, litert, litert-int8, or graph (CUDA) (default: the "
        "target's, else eager).",
    ] = None
    target: Annotated[str | None, f"Time what ships there: {TARGETS}."] = None
    device: Annotated[str, "cpu or cuda."] = "cpu"
    threads: Threads = 1
    batch: Batch = 1


@command(latency_app, "nas latency mobilenetv2-cifar han-e --threads 1", name="measure", how=RunOptions)
def latency_measure(
    architectures: Annotated[list[str], "Published networks or YAML files.", OnCommandLine(name="NETWORK")],
    *,
    num_classes: Classes = 10,
    how: dict[str, Any],
    resolution: Resolution = None,
    max_seconds: Annotated[float, "Seconds to wait for a machine that is too busy.", FROM_0] = 30,
    as_json: AsJson = False,
) -> None:
    """Measure networks as they are shipped: folded, pinned, repeats in turn, with spread and provenance."""
    from nas.architecture.catalogue import load
    from nas.console import print_latencies
    from nas.latency import measure

    networks = [load(reference) for reference in architectures]
    runtime = _runtime(networks, **how)
    found = measure(networks, runtime, num_classes=num_classes, resolution=resolution, max_seconds=max_seconds)
    if as_json:
        console.print_json(data=[asdict(item) for item in found])
    else:
        print_latencies(console, found)


@command(
    latency_app, "nas latency calibrate --space inverted_residual --out pi4.json", name="calibrate", how=RunOptions
)
def latency_calibrate(
    *,
    out: Annotated[Path, "File of the latency table."],
    space: Space = "inverted_residual",
    channels: Channels = None,
    resolution: Resolution = None,
    num_classes: Classes = 10,
    how: dict[str, Any],
    networks: Annotated[int, "Number of networks to time.", FROM_1] = 64,
) -> None:
    """Time a space's blocks on this device and write the table that nas search --latency-table reads."""
    from nas.console import print_table_quality
    from nas.latency import calibrate

    runtime = _runtime((), **how)
    table = calibrate(
        _fitted(space, channels, resolution, runtime.engine),
        runtime,
        num_classes=num_classes,
        networks=networks,
        partial=out.with_suffix(".partial"),  # where a calibration that was interrupted goes on
        on_progress=lambda done, total: console.print(f"{done}/{total} networks timed"),
    )
    table.save(out)
    print_table_quality(console, table, out)


@command(latency_app, "nas latency export-blocks blocks/ --space inverted_residual", name="export-blocks")
def latency_export_blocks(
    folder: Annotated[Path, "New or empty folder.", OnCommandLine(name="FOLDER")],
    *,
    space: Space = "inverted_residual",
    channels: Channels = None,
    resolution: Resolution = None,
    num_classes: Classes = 10,
    batch: Batch = 1,
) -> None:
    """Write a space's blocks as ONNX files, to be timed on a device without Python."""
    from nas.latency import export_blocks

    count = export_blocks(_fitted(space, channels, resolution), folder, num_classes=num_classes, batch=batch)
    console.print(f"{counted(count, 'file')} in {folder}; fill in timings.csv there, then nas latency import-timings")


@command(latency_app, "nas latency import-timings blocks/timings.csv --out pi4.json", name="import-timings")
def latency_import_timings(
    timings: Annotated[Path, "CSV file with the columns file and ms.", OnCommandLine(name="TIMINGS.csv")],
    *,
    out: Annotated[Path, "File of the latency table."],
    device_name: Annotated[str, "Name of the device that the times are of."] = "imported",
    manifest: Annotated[Path | None, "manifest.json of the blocks (default: beside the CSV)."] = None,
    engine: Annotated[str, "Engine that ran them."] = "onnxruntime",
    threads: Threads = 1,
) -> None:
    """Make a latency table from measured times of exported blocks."""
    from nas.console import print_table_quality
    from nas.latency import import_timings

    table = import_timings(
        timings,
        manifest=manifest or timings.parent / "manifest.json",
        device=device_name,
        engine=engine,
        threads=threads,
    )
    table.save(out)
    print_table_quality(console, table, out)


def _runtime(
    networks: "Sequence[nas.Architecture]", *, engine: str | None = None, target: str | None = None, **how: Any
) -> "Runtime":
    """Make what is asked for; a target gives its engine, and has to run the networks."""
    from nas.latency import Runtime
    from nas.targets import target as target_named

    if target is not None:
        wanted = target_named(target)
        wanted.check(networks)
        if engine not in (None, wanted.timing_engine()):
            raise UserError(f"--target {target} is timed by --engine {wanted.engine}; leave one of the two out")
        engine = wanted.timing_engine()
    return Runtime(engine or "eager", **how)


def _fitted(reference: str, channels: int | None, resolution: int | None, engine: str = "") -> "nas.Space":
    """Load a space for images of these channels and this side, None: its own; as a search for an engine takes it."""
    from nas.architecture.catalogue import load_space
    from nas.targets import TARGETS, restricted

    space = load_space(reference)
    if engine in TARGETS:
        space, lost = restricted(space, TARGETS[engine])
        if lost:
            console.print(lost)
    own = space.sample(0).input.channels
    return space.with_input(channels=channels or own, resolution=resolution)
