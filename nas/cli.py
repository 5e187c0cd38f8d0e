"""The `nas` command: options and output. What it does is in :mod:`nas.api`, how it ends in :mod:`nas.exit`."""

import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from nas import __version__
from nas.command_options import command
from nas.driver.options import CHANGEABLE, ReproduceOptions, Resources, SearchOptions
from nas.errors import UserError
from nas.exit import errors, resumable, run_command, same_command
from nas.latency_cli import AsJson, console, latency_app
from nas.options import FROM_1, TARGETS, DataDir, OnCommandLine
from nas.terminal import log_to
from nas.training.options import DATASETS, DataOptions, TrainOptions
from nas.units import int8_percent

app = typer.Typer(
    name="nas",
    help="Search small convolutional networks for the best trade of accuracy, size and latency.",
    epilog="Begin with: nas search --space inverted_residual. Each command's --help ends with an example; "
    "nas --debug COMMAND shows where an error comes from.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        console.print(f"nas {__version__}")
        raise typer.Exit


@app.callback()
def begin(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of `nas` itself: each ends it, or is taken off before (`--debug`)."""


@command(
    app,
    "nas search --space inverted_residual --dataset cifar10 --limit 'size<=2MB'",
    asked=SearchOptions,
    resources=Resources,
)
def search(
    *,
    asked: dict[str, Any],
    resume: Annotated[
        Path | None, "Resume this run; only --trials, --hours, --confirm, --keep and how it is run may change."
    ] = None,
    resources: dict[str, Any],
) -> None:
    """Search a space: train its networks, keep the front, write a report."""
    began = time.monotonic()
    from nas import api
    from nas.console import print_runs
    from nas.driver.asked import default_space
    from nas.driver.display import shown

    out = asked.get("out")
    if resume is None and "space" not in asked:
        with log_to(console):
            asked["space"] = default_space(asked["dataset"])
    folder = resume or out or api.fresh_folder(Path(asked["space"]).stem, asked["dataset"])

    def again() -> str:
        begun = (folder / "run.yaml").exists()
        return shlex.join(["nas", "search", "--resume", str(folder)]) if begun else same_command(folder, out or resume)

    with resumable(again), shown(console) as display:
        how: dict[str, Any] = {"resources": Resources(**resources), "on_change": display, "began": began}
        if resume is None:
            runs = api.search_devices(**asked | {"out": folder}, **how)
        else:
            may = (*CHANGEABLE, "hours", "report_every")
            changes = {key: value for key, value in asked.items() if key in may or value != getattr(SearchOptions, key)}
            runs = [api.resume(resume, **changes, **how)]
    print_runs(console, runs, folder)


@command(app, "nas report results/RUN; nas report results/ONE results/TWO --out both.html")
def report(
    runs: Annotated[list[Path], "Folder of a run; several are compared.", OnCommandLine(name="RUN")],
    *,
    form: Annotated[str, "html writes the page; csv, json and md are printed.", OnCommandLine(name="format")] = "html",
    published: Annotated[
        str | None,
        "Networks drawn as the papers print them: contained, all or none (default: as the search was asked).",
    ] = None,
    out: Annotated[
        Path | None, "The page (default: report.html in the run's folder; comparison.html here for several runs)."
    ] = None,
) -> None:
    """Write a run's report again, print its tables, or compare several runs on one page."""
    from nas import api
    from nas.driver.run import Run
    from nas.report.comparison import write_comparison
    from nas.report.summary import render

    if form != "html" and (len(runs) > 1 or out is not None):
        raise UserError(f"--format {form} prints one run; give one folder and no --out")
    if published is not None and (form != "html" or len(runs) > 1):
        raise UserError(f"--published {published} is for the page of one run; leave it out")
    if len(runs) > 1:
        console.print(str(write_comparison([Run.open(run) for run in runs], out or Path("comparison.html"))))
    elif form == "html":
        console.print(str(api.report(runs[0], published=published, out=out)))
    else:
        print(render(Run.open(runs[0]), form), end="")


@command(app, "nas compare mobilenetv2-cifar han-e results/best")
def compare(
    networks: Annotated[
        list[str],
        "Published networks, YAML files, or folders of trainings and searches.",
        OnCommandLine(name="NETWORK"),
    ],
    *,
    dataset: Annotated[str, "Data set of the printed figures."] = "cifar10",
    num_classes: Annotated[int | None, "Number of classes (default: the data set's).", FROM_1] = None,
    form: Annotated[str, "table, csv or json.", OnCommandLine(name="format")] = "table",
) -> None:
    """Networks side by side: costs, printed accuracy, accuracy and time per size."""
    from nas import api
    from nas.console import print_comparison

    table = api.compare(networks, dataset=dataset, num_classes=num_classes)
    if form == "csv":
        print(table.to_csv(index=False), end="")
    elif form == "json":
        print(table.to_json(orient="records", indent=2))
    elif form == "table":
        print_comparison(console, table)
    else:
        raise UserError(f"unknown format {form!r}; allowed: table, csv, json")


@command(app, "nas reproduce han-table3 --epochs 10 --seeds 3", asked=ReproduceOptions, resources=Resources)
def reproduce(
    table: Annotated[
        str, "han-table3, han-table5, hoang-table3, hoang-table5 or kuo-table3.", OnCommandLine(name="TABLE")
    ],
    *,
    asked: dict[str, Any],
    resources: dict[str, Any],
) -> None:
    """Train, or time, the networks of a paper's table, and write it again with our figures."""
    from nas import api
    from nas.console import print_reproduction
    from nas.driver.display import shown

    folder = asked.get("out") or api.fresh_folder("reproduce", table)
    with resumable(lambda: same_command(folder, asked.get("out"))), shown(console) as display:
        how: dict[str, Any] = {"resources": Resources(**resources), "on_change": display}
        done = api.reproduce(table, **asked | {"out": folder}, **how)
    print_reproduction(console, done)


@command(app, "nas train results/RUN/front/01-0123456789ab.yaml", asked=TrainOptions)
def train(
    architecture: Annotated[str, "A published network or a YAML file.", OnCommandLine(name="NETWORK")],
    *,
    asked: dict[str, Any],
) -> None:
    """Train one network in full: checkpoint, metrics and config go to a folder."""
    began = time.monotonic()
    from nas.training.cpu import wait_asleep

    wait_asleep()
    from nas import api
    from nas.architecture.catalogue import load
    from nas.console import print_epoch, print_trained
    from nas.driver.run_file import searched
    from nas.training.distributed import launched_rank
    from nas.training.origin import Origin

    console.quiet = errors.quiet = launched_rank() > 0  # one of torchrun's processes speaks for all
    out, resume = asked.get("out"), asked["resume"]
    network = load(architecture)
    origin = searched(architecture, network, asked.get("run")) or Origin()
    folder = out or api.fresh_folder(network.name, asked.get("dataset", origin.dataset))

    def again() -> str:
        return same_command(folder, out, resumes=(folder / "train.yaml").exists())

    with resumable(again), log_to(console):
        result = api.train(
            architecture,
            **asked | {"out": out if resume else folder, "began": began},
            on_epoch=lambda epoch, epochs: print_epoch(console, epoch, epochs),
        )
    print_trained(console, result)


@command(app, "nas evaluate results/best/model.safetensors")
def evaluate(
    checkpoint: Annotated[
        Path, "Checkpoint of a training or a search, or an exported .onnx or .tflite.", OnCommandLine(name="CHECKPOINT")
    ],
    *,
    dataset: Annotated[str | None, "Data set (default: the one it was trained on)."] = None,
    data_dir: DataDir = None,
    device: Annotated[str | None, "cpu or cuda (default: cuda where there is one)."] = None,
    target: Annotated[str | None, f"Judge what ships there, and measure it: {TARGETS}."] = None,
    out: Annotated[Path | None, "Write a page: confusion matrix, mistakes as pictures."] = None,
    as_json: AsJson = False,
) -> None:
    """Accuracy of a trained network on validation and test images, class by class, and its mistakes."""
    from nas import api
    from nas.console import print_judgement, shipped_line

    with log_to(errors):  # the result may be read by a program
        result = api.evaluate(checkpoint, dataset=dataset, data_dir=data_dir, device=device, target=target, out=out)
    if as_json:
        console.print_json(data=result)
        return
    fp32 = result["fp32"] if result.get("target", {}).get("int8") else {}
    accuracies = (
        f"{part} accuracy "
        + int8_percent(result[f"{part}_accuracy"], fp32.get(f"{part}_accuracy"), result[f"{part}_images"])
        for part in ("validation", "test")
    )
    console.print(f"{result['name']} on {result['dataset']}: {', '.join(accuracies)}")
    if "target" in result:
        console.print(shipped_line(result["target"]))
    print_judgement(console, result["test"], "test")
    console.print(f"Page:  {out}" if out else "Look at the mistakes: --out PAGE.html")


@command(app, "nas data imagefolder:/data/flowers --out flowers.html", asked=DataOptions)
def data(
    dataset: Annotated[str, f"{DATASETS}.", OnCommandLine(name="DATASET")],
    *,
    asked: dict[str, Any],
    as_json: AsJson = False,
) -> None:
    """Describe a data set: classes, sizes, skipped files, copies; a page of images as a network sees them."""
    from nas import api
    from nas.console import print_data

    document = api.data(dataset, **asked)
    if as_json:
        console.print_json(data=document)
        return
    print_data(console, document)
    console.print(f"Page:  {asked['out']}" if "out" in asked else "Look at the images: --out PAGE.html")


@command(app, "nas export results/best/model.safetensors --format onnx --int8")
def export(
    checkpoint: Annotated[Path, "A checkpoint, or a training's .safetensors.", OnCommandLine(name="CHECKPOINT")],
    *,
    form: Annotated[
        str | None,
        "onnx, torch-export, python, litert or tflite-micro (default: the target's, else onnx).",
        OnCommandLine(name="format"),
    ] = None,
    target: Annotated[str | None, f"Write what ships there, in int8 where it is int8: {TARGETS}."] = None,
    out: Annotated[Path | None, "The file or folder (default: beside the checkpoint, named like the network)."] = None,
    int8: Annotated[bool, "Write an int8 ONNX or LiteRT model too, calibrated on training images."] = False,
    dataset: Annotated[str | None, "Data set to calibrate with (default: its own)."] = None,
    data_dir: DataDir = None,
) -> None:
    """Write a trained network for other runtimes, or as one Python file; checked against torch."""
    from nas.console import print_exported
    from nas.export.command import export as write

    with log_to(errors):
        exported = write(checkpoint, form=form, target=target, out=out, int8=int8, dataset=dataset, data_dir=data_dir)
    print_exported(console, exported)


@command(app, "nas predict model.onnx photo.jpg")
def predict(
    model: Annotated[Path, "A checkpoint, .safetensors or exported .onnx, .tflite.", OnCommandLine(name="MODEL")],
    images: Annotated[list[Path], "Image files.", OnCommandLine(name="IMAGE")],
    *,
    top: Annotated[int, "Number of classes per image.", FROM_1] = 5,
    as_json: AsJson = False,
) -> None:
    """Classify images by a trained network: the likeliest classes with their probabilities."""
    from nas.console import print_predictions
    from nas.export.predict import predict as classify

    unread: list[UserError] = []
    predictions = classify(model, images, top=top, on_unreadable=unread.append)
    if as_json:
        console.print_json(data=[asdict(item) | {"image": str(item.image)} for item in predictions])
    else:
        print_predictions(console, predictions)
    for error in unread:
        errors.print(f"nas: {error}", markup=False, emoji=False)
    if unread:
        raise typer.Exit(1 if predictions else 2)


@command(app, "nas profile han-e --json")
def profile(
    architecture: Annotated[str, "A published network or a YAML file.", OnCommandLine(name="NETWORK")],
    *,
    num_classes: Annotated[int, "Number of classes.", FROM_1] = 10,
    resolution: Annotated[int | None, "Input side in pixels (default: the network's).", FROM_1] = None,
    target: Annotated[str | None, f"Add what it costs where it runs: {TARGETS}."] = None,
    as_json: AsJson = False,
) -> None:
    """Profile a network: parameters, MACs, size, memory; checked by thop and torch."""
    from nas import api
    from nas.console import print_profile

    document = api.profile(architecture, num_classes=num_classes, resolution=resolution, target=target)
    if as_json:
        console.print_json(data=document)
        return
    print_profile(console, document)


app.add_typer(latency_app, name="latency")


@command(app, "nas list", name="list")
def list_() -> None:
    """Shipped spaces, and published networks with their parameters and papers."""
    from nas.architecture.catalogue import by_paper, load_space, space_names
    from nas.console import print_catalogue
    from nas.costs.analytic import cost

    networks = [(network, cost(network).params) for group in by_paper().values() for network in group]
    print_catalogue(console, [load_space(name) for name in space_names()], networks)


def main() -> None:
    """The command's entry point."""
    run_command(app)
