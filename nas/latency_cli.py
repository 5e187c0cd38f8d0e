"""The `nas latency` commands."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from nas.errors import UserError
from nas.options import TARGETS
from nas.terminal import Terminal
from nas.units import counted

if TYPE_CHECKING:
    import nas

console = Terminal()
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
Space = Annotated[str, typer.Option(help="A shipped space or a YAML file.")]
Channels = Annotated[
    int | None, typer.Option(help="Channels of the images (default: the space's).", show_default=False)
]
Resolution = Annotated[
    int | None, typer.Option(help="Input side in pixels (default: the document's).", show_default=False)
]
Classes = Annotated[int, typer.Option(help="Number of classes.")]
EngineOption = Annotated[
    str | None,
    typer.Option(
        help="eager, compiled, onnxruntime, onnxruntime-int8, litert, litert-int8, or graph (CUDA) (default: the "
        "target's, else eager).",
        show_default=False,
    ),
]
TargetOption = Annotated[str | None, typer.Option(help=f"Time what ships there: {TARGETS}.", show_default=False)]
DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]
Threads = Annotated[int, typer.Option(help="Threads per run.")]
Batch = Annotated[int, typer.Option(help="Images per run.")]


@latency_app.command(name="measure", epilog="Example: nas latency mobilenetv2-cifar han-e --threads 1")
def latency_measure(
    architectures: Annotated[
        list[str], typer.Argument(help="Published networks or YAML files.", metavar="NETWORK", show_default=False)
    ],
    num_classes: Classes = 10,
    engine: EngineOption = None,
    target: TargetOption = None,
    device: DeviceOption = "cpu",
    threads: Threads = 1,
    batch: Batch = 1,
    resolution: Resolution = None,
    max_seconds: Annotated[float, typer.Option(help="Seconds to wait for a machine that is too busy.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Measure networks as they are shipped: folded, pinned, repeats in turn, with spread and provenance."""
    from nas.architecture.catalogue import load
    from nas.console import print_latencies
    from nas.latency import Runtime, measure

    networks = [load(reference) for reference in architectures]
    found = measure(
        networks,
        Runtime(_engine(engine, target, networks), device, threads, batch),
        num_classes=num_classes,
        resolution=resolution,
        max_seconds=max_seconds,
    )
    if as_json:
        console.print_json(data=[asdict(item) for item in found])
    else:
        print_latencies(console, found)


@latency_app.command(name="calibrate", epilog="Example: nas latency calibrate --space inverted_residual --out pi4.json")
def latency_calibrate(
    out: Annotated[Path, typer.Option(help="File of the latency table.", show_default=False)],
    space: Space = "inverted_residual",
    channels: Channels = None,
    resolution: Resolution = None,
    num_classes: Classes = 10,
    engine: EngineOption = None,
    target: TargetOption = None,
    device: DeviceOption = "cpu",
    threads: Threads = 1,
    batch: Batch = 1,
    networks: Annotated[int, typer.Option(help="Number of networks to time.")] = 64,
) -> None:
    """Time a space's blocks on this device and write the table that nas search --latency-table reads."""
    from nas.console import print_table_quality
    from nas.latency import Runtime, calibrate

    runtime = Runtime(_engine(engine, target), device, threads, batch)
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


@latency_app.command(
    name="export-blocks", epilog="Example: nas latency export-blocks blocks/ --space inverted_residual"
)
def latency_export_blocks(
    folder: Annotated[Path, typer.Argument(help="New or empty folder.", metavar="FOLDER", show_default=False)],
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


@latency_app.command(
    name="import-timings", epilog="Example: nas latency import-timings blocks/timings.csv --out pi4.json"
)
def latency_import_timings(
    timings: Annotated[
        Path, typer.Argument(help="CSV file with the columns file and ms.", metavar="TIMINGS.csv", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="File of the latency table.", show_default=False)],
    device_name: Annotated[str, typer.Option(help="Name of the device that the times are of.")] = "imported",
    manifest: Annotated[
        Path | None, typer.Option(help="manifest.json of the blocks (default: beside the CSV).", show_default=False)
    ] = None,
    engine: Annotated[str, typer.Option(help="Engine that ran them.")] = "onnxruntime",
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


def _engine(engine: str | None, target: str | None, networks: "Sequence[nas.Architecture]" = ()) -> str:
    """Return the engine asked for, or the target's, which has to run the networks."""
    from nas.targets import target as target_named

    if target is None:
        return engine or "eager"
    wanted = target_named(target)
    wanted.check(networks)
    if engine not in (None, wanted.timing_engine()):
        raise UserError(f"--target {target} is timed by --engine {wanted.engine}; leave one of the two out")
    return wanted.timing_engine()


def _fitted(reference: str, channels: int | None, resolution: int | None, engine: str = "") -> "nas.Space":
    """Load a space for images of these channels and this side, None: its own; as a search for an engine takes it."""
    from nas.architecture.catalogue import load_space
    from nas.targets import TARGETS
    from nas.targets.restrict import restricted

    space = load_space(reference)
    if engine in TARGETS:
        space, lost = restricted(space, TARGETS[engine])
        if lost:
            console.print(lost)
    own = space.sample(0).input.channels
    return space.with_input(channels=channels or own, resolution=resolution)
