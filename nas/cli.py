"""The `nas` command: options and output. What it does is in :mod:`nas.api`, how it ends in :mod:`nas.exit`."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.errors import UserError
from nas.exit import errors, resumable, run_command, same_command
from nas.latency_cli import AsJson, console, latency_app
from nas.resource_options import with_resources
from nas.units import percent

if TYPE_CHECKING:
    from nas.driver.cluster import Resources

app = typer.Typer(
    name="nas",
    help="Search small convolutional networks for the best trade of accuracy, size and latency.",
    epilog="Begin with: nas search --space inverted_residual. Each command's --help ends with an example; "
    "nas --debug COMMAND shows where an error comes from.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

DataDir = Annotated[Path | None, typer.Option(help="Where data sets lie or are downloaded to.", show_default=False)]
Dataset = Annotated[
    str, typer.Option(help="digits, cifar10, cifar100, svhn, stl10, fashion_mnist or imagefolder:PATH.")
]
TrainSize = Annotated[int | None, typer.Option(help="Train on so many images.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Of everything random.")]


@app.command(epilog="Example: nas search --space inverted_residual --dataset cifar10 --limit 'size<=2MB'")
@with_resources
def search(
    space: Annotated[str, typer.Option(help="A shipped space (see nas list) or a YAML file.")] = "inverted_residual",
    dataset: Dataset = "digits",
    data_dir: DataDir = None,
    train_size: TrainSize = None,
    resolution: Annotated[
        int | None,
        typer.Option(help="Input side in pixels (default: the space's, at most the images').", show_default=False),
    ] = None,
    objectives: Annotated[
        str, typer.Option(help="Comma-separated: accuracy and any of size, latency, params, macs, peak_memory.")
    ] = "accuracy,size,latency",
    limit: Annotated[
        list[str] | None, typer.Option(help="Such as 'size<=4MB' or 'latency<=5ms'; may be repeated.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Networks to train, stopped ones included (default: 32).", show_default=False)
    ] = None,
    recipe: Annotated[str, typer.Option(help="How networks are trained: search, train, han, hoang, kuo.")] = "search",
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.", show_default=False)] = None,
    sampler: Annotated[str, typer.Option(help="known-cost, tpe, nsga2, gp or random.")] = "known-cost",
    reduction: Annotated[int, typer.Option(help="Of so many trials one goes on past a rung; 1 stops none.")] = 3,
    published: Annotated[
        str,
        typer.Option(
            help="Published networks to train first, whatever the limits: references (E, MobileNetV2, PydMobileNet), "
            "contained (in the space), all, none, or NAME,..."
        ),
    ] = "references",
    enqueue: Annotated[
        list[str] | None, typer.Option(help="Own networks to train first, whatever the limits; may be repeated.")
    ] = None,
    warm_start: Annotated[Path | None, typer.Option(help="A run whose finished networks are taken along.")] = None,
    latency_table: Annotated[
        Path | None, typer.Option(help="Of the device to search for (nas latency calibrate makes it there).")
    ] = None,
    confirm: Annotated[int | None, typer.Option(help="Train the front again with so many seeds.")] = None,
    confirm_epochs: Annotated[int | None, typer.Option(help="Of each of those (default: the recipe's).")] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Whose weights stay: all trials', the front's or none (default: front).", show_default=False),
    ] = None,
    report_every: Annotated[float, typer.Option(help="Seconds between reports while the search runs; 0: none.")] = 120,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="The run's folder (default: fresh, under results/).")] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with this run; only --trials, --confirm, --keep and how it is run may change."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna URL for the study (default: a file in the run's folder).")
    ] = None,
    *,
    resources: "Resources",
) -> None:
    """Search a space: train its networks, keep the front, write a report."""
    from nas import api
    from nas.console import print_run
    from nas.driver.display import Display

    folder = resume or out or api.fresh_folder(Path(space).stem, dataset)

    def again() -> str:
        begun = (folder / "run.yaml").exists()
        return shlex.join(["nas", "search", "--resume", str(folder)]) if begun else same_command(folder, out or resume)

    with resumable(again), Display(console) as display:
        if resume is not None:
            run = api.resume(
                resume,
                trials=trials,
                confirm=confirm,
                confirm_epochs=confirm_epochs,
                keep=keep,
                report_every=report_every,
                resources=resources,
                on_change=display,
                say=display.say,
            )
        else:
            run = api.search(
                space,
                dataset=dataset,
                data_dir=data_dir,
                train_size=train_size,
                resolution=resolution,
                objectives=tuple(objectives.split(",")),
                limits=tuple(limit or ()),
                recipe=recipe,
                epochs=epochs,
                trials=32 if trials is None else trials,
                sampler=sampler,
                reduction=reduction,
                published=published,
                enqueue=tuple(enqueue or ()),
                warm_start=warm_start,
                latency_table=latency_table,
                confirm=confirm or 0,
                confirm_epochs=confirm_epochs,
                keep=keep or "front",
                seed=seed,
                out=folder,
                storage=storage,
                resources=resources,
                report_every=report_every,
                on_change=display,
                say=display.say,
            )
    print_run(console, run, api.report(run.path))


@app.command(epilog="Example: nas report results/RUN; nas report results/ONE results/TWO --out both.html")
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="A run's folder; several are compared.", metavar="RUN", show_default=False)
    ],
    form: Annotated[str, typer.Option("--format", help="html writes the page; csv, json and md are printed.")] = "html",
    published: Annotated[
        str | None,
        typer.Option(
            help="Networks drawn as the papers print them: contained, all or none (default: as the search was asked).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page (default: report.html in the run's folder; comparison.html here for several runs).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a run's report again, print its tables, or compare several runs on one page."""
    from nas import api

    if form != "html" and (len(runs) > 1 or out is not None):
        raise UserError(f"--format {form} prints one run; give one folder and no --out")
    if len(runs) > 1:
        console.print(str(api.compare_runs(runs, out or Path("comparison.html"))), markup=False)
    elif form == "html":
        console.print(str(api.report(runs[0], published=published, out=out)), markup=False)
    else:
        print(api.render_run(runs[0], form), end="")


@app.command(epilog="Example: nas compare mobilenetv2-cifar han-e results/best")
def compare(
    networks: Annotated[
        list[str],
        typer.Argument(
            help="Published networks, YAML files, or folders of trainings and searches.",
            metavar="NETWORK",
            show_default=False,
        ),
    ],
    dataset: Annotated[str, typer.Option(help="Whose printed figures are shown.")] = "cifar10",
    num_classes: Annotated[int | None, typer.Option(help="Default: the data set's.", show_default=False)] = None,
    form: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
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


@app.command(epilog="Example: nas reproduce han-table3 --epochs 10 --seeds 3")
@with_resources
def reproduce(
    table: Annotated[
        str,
        typer.Argument(
            help="han-table3, han-table5, hoang-table3, hoang-table5 or kuo-table3.",
            metavar="TABLE",
            show_default=False,
        ),
    ],
    dataset: Annotated[str | None, typer.Option(help="Default: the table's.", show_default=False)] = None,
    data_dir: DataDir = None,
    train_size: TrainSize = None,
    recipe: Annotated[str | None, typer.Option(help="Default: the paper's.", show_default=False)] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.", show_default=False)] = None,
    seeds: Annotated[int, typer.Option(help="How often each network is trained.")] = 1,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="The folder (default: fresh, under results/).")] = None,
    *,
    resources: "Resources",
) -> None:
    """Train, or time, the networks of a paper's table, and write it again with our figures."""
    from nas import api
    from nas.console import print_reproduction
    from nas.driver.display import Display

    folder = out or api.fresh_folder("reproduce", table)
    with resumable(lambda: same_command(folder, out)), Display(console) as display:
        done = api.reproduce(
            table,
            out=folder,
            dataset=dataset,
            data_dir=data_dir,
            train_size=train_size,
            recipe=recipe,
            epochs=epochs,
            seeds=seeds,
            seed=seed,
            resources=resources,
            on_change=display,
            say=display.say,
        )
    print_reproduction(console, done)


@app.command(epilog="Example: nas train results/RUN/front/01-0123456789ab.yaml --dataset digits")
def train(
    architecture: Annotated[
        str, typer.Argument(help="A published network or a YAML file.", metavar="NETWORK", show_default=False)
    ],
    dataset: Dataset = "digits",
    data_dir: DataDir = None,
    train_size: TrainSize = None,
    resolution: Annotated[
        int | None,
        typer.Option(help="Input side in pixels (default: the network's, at most the images').", show_default=False),
    ] = None,
    recipe: Annotated[str, typer.Option(help="train, search, han, hoang, kuo, or a YAML file.")] = "train",
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda (default: cuda where there is one).")] = None,
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile the network first (default: where a long training pays it back).",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Of the CPU (default: as many as make it faster).", show_default=False)
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="The folder (default: fresh, under results/).")] = None,
    init: Annotated[
        Path | None, typer.Option(help="Begin with the weights of this checkpoint or .safetensors.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in --out.")] = False,
) -> None:
    """Train one network in full: checkpoint, metrics and config go to a folder."""
    from nas.training.threads import wait_asleep

    wait_asleep()
    from nas import api
    from nas.architecture.catalogue import load
    from nas.console import print_epoch
    from nas.training.distributed import launched_rank

    console.quiet = errors.quiet = launched_rank() > 0  # one of torchrun's processes speaks for all
    folder = out or api.fresh_folder(load(architecture).name, dataset)

    def again() -> str:
        return same_command(folder, out, resumes=(folder / "train.yaml").exists())

    with resumable(again):
        result = api.train(
            architecture,
            dataset=dataset,
            data_dir=data_dir,
            train_size=train_size,
            resolution=resolution,
            recipe=recipe,
            epochs=epochs,
            device=device,
            compile=compile,
            threads=threads,
            seed=seed,
            out=out if resume else folder,
            resume=resume,
            init=init,
            say=lambda line: console.print(line, markup=False),
            on_epoch=lambda epoch, epochs: print_epoch(console, epoch, epochs),
        )
    console.print(
        f"validation accuracy {percent(result.validation_accuracy, result.validation_images)} · "
        f"test accuracy {percent(result.test_accuracy, result.test_images)}\n"
        f"Weights:  {result.model}\n"
        f"Judge it, or ship it:\n  nas evaluate {result.model}\n  nas export {result.model}",
        markup=False,
    )


@app.command(epilog="Example: nas evaluate results/best/model.safetensors")
def evaluate(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Of a training or a search, or an exported .onnx.", metavar="CHECKPOINT", show_default=False
        ),
    ],
    dataset: Annotated[str | None, typer.Option(help="Default: the one it was trained on.", show_default=False)] = None,
    data_dir: DataDir = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda (default: cuda where there is one).")] = None,
    as_json: AsJson = False,
) -> None:
    """Accuracy of a trained network on validation and test images."""
    from nas import api

    result = api.evaluate(checkpoint, dataset=dataset, data_dir=data_dir, device=device, say=_aside)
    if as_json:
        console.print_json(data=result)
        return
    console.print(
        f"{result['name']} on {result['dataset']}: "
        f"validation accuracy {percent(result['validation_accuracy'], result['validation_images'])}, "
        f"test accuracy {percent(result['test_accuracy'], result['test_images'])}"
    )


@app.command(epilog="Example: nas export results/best/model.safetensors --format onnx --int8")
def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="A checkpoint, or a training's .safetensors.", metavar="CHECKPOINT", show_default=False),
    ],
    form: Annotated[str, typer.Option("--format", help="onnx, torch-export or python.")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(help="The file (default: beside the checkpoint, named like the network).", show_default=False),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="An int8 ONNX model too, calibrated on training images.")
    ] = False,
    dataset: Annotated[
        str | None, typer.Option(help="To calibrate with (default: its own).", show_default=False)
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Write a trained network as ONNX, as a torch.export program, or as one Python file; checked against torch."""
    from nas import api
    from nas.console import print_exported

    print_exported(
        console,
        api.export(checkpoint, form=form, out=out, int8=int8, dataset=dataset, data_dir=data_dir, say=_aside),
    )


@app.command(epilog="Example: nas predict model.onnx photo.jpg")
def predict(
    model: Annotated[
        Path, typer.Argument(help="A checkpoint, .safetensors or exported .onnx.", metavar="MODEL", show_default=False)
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGE", show_default=False)],
    top: Annotated[int, typer.Option(help="So many classes per image.")] = 5,
    as_json: AsJson = False,
) -> None:
    """What a trained network sees in images: the likeliest classes with their probabilities."""
    from nas import api
    from nas.console import print_predictions

    unread: list[UserError] = []
    predictions = api.predict(model, images, top=top, on_unreadable=unread.append)
    if as_json:
        console.print_json(data=[asdict(item) | {"image": str(item.image)} for item in predictions])
    else:
        print_predictions(console, predictions)
    for error in unread:
        _aside(f"nas: {error}")
    if unread:
        raise typer.Exit(1 if predictions else 2)


@app.command(epilog="Example: nas profile han-e --json")
def profile(
    architecture: Annotated[
        str, typer.Argument(help="A published network or a YAML file.", metavar="NETWORK", show_default=False)
    ],
    num_classes: Annotated[int, typer.Option(help="Outputs of the last layer.")] = 10,
    resolution: Annotated[int | None, typer.Option(help="Instead of the network's.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """What a network costs: parameters, MACs, size, memory; checked by thop and torch."""
    from nas import api
    from nas.console import print_profile

    document = api.profile(architecture, num_classes=num_classes, resolution=resolution)
    if as_json:
        console.print_json(data=document)
        return
    print_profile(console, document)


app.add_typer(latency_app, name="latency")


@app.command(name="list", epilog="Example: nas list")
def list_() -> None:
    """Shipped spaces, and published networks with their parameters and papers."""
    from nas import api
    from nas.console import print_catalogue

    print_catalogue(console, *api.catalogue())


def _aside(line: str) -> None:
    """Print beside a command's result, which may be read by a program."""
    errors.print(line, markup=False, emoji=False)


def main() -> None:
    """The command's entry point."""
    run_command(app)
