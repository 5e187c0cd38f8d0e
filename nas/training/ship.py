"""From a training's file to the forms that others run: what `nas export` does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from nas.errors import UserError
from nas.export import Card, Quantised, Shipped, quantise, to_onnx, to_program, to_python
from nas.export.python import module_name
from nas.training.checkpoint import Checkpoint
from nas.training.data import Images, load_again
from nas.training.weights import card, load_trained

Form = Literal["onnx", "torch-export", "python"]
FORMS: tuple[Form, ...] = get_args(Form)
_ENDINGS = {"onnx": ".onnx", "torch-export": ".pt2", "python": ".py"}
_WRITERS = {"onnx": to_onnx, "torch-export": to_program, "python": to_python}


@dataclass(frozen=True)
class Exported:
    """What an export gave. `quantised` is None without `int8`."""

    card: Card
    model: Shipped
    quantised: Quantised | None


def export(
    source: Path,
    *,
    form: str = "onnx",
    out: Path | None = None,
    int8: bool = False,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
) -> Exported:
    """Write a trained network in another form, checked against torch.

    Args:
        source: a checkpoint (``.pt``), or ``best.safetensors`` and ``last.safetensors`` of a training.
        form: ``onnx``, ``torch-export`` or ``python``.
        out: the file; default beside the source, named like the network.
        int8: quantise the ONNX model too, beside it as ``NAME-int8.onnx``.
        dataset: what to calibrate with; default what the network was trained on, split as it was then. Its validation
            images calibrate, and give the accuracy before and after.
        data_dir: where data sets lie.

    Raises:
        UserError: something given does not fit, or an extra is missing.
        nas.export.ExportError: what came out does not compute what the network computes.
    """
    if form not in FORMS:
        raise UserError(f"unknown format {form!r}; allowed: {', '.join(FORMS)}")
    if int8 and form != "onnx":
        raise UserError(f"--int8 quantises ONNX models; leave it out, or give --format onnx instead of {form}")
    checkpoint = load_trained(source)
    description = card(checkpoint, str(source))
    path = out or source.parent / _default_name(description, form)
    quantised_path = path.with_name(f"{path.stem}-int8.onnx")
    _protect(source, path, path.with_suffix(".pt") if form == "python" else quantised_path)
    # The data first: they may be missing, and converting takes a while.
    images = _validation_images(checkpoint, description, dataset, data_dir) if int8 else None
    model = _WRITERS[form](description, checkpoint.weights, path)
    if images is None:
        return Exported(description, model, None)
    return Exported(description, model, quantise(path, quantised_path, images.images, images.labels))


def _default_name(description: Card, form: str) -> str:
    name = description.architecture.name
    return (module_name(name) if form == "python" else name) + _ENDINGS[form]


def _protect(source: Path, *written: Path) -> None:
    if source.resolve() in [path.resolve() for path in written]:
        raise UserError(f"{source}: would be overwritten by the export; give another --out")


def _validation_images(
    checkpoint: Checkpoint, description: Card, dataset: str | None, data_dir: str | Path | None
) -> Images:
    data = load_again(
        dataset or checkpoint.dataset,
        split=checkpoint.split,
        preprocessing=description.preprocessing,
        data_dir=data_dir,
    )
    if len(data.classes) != len(description.classes):
        raise UserError(f"--int8: {data.name} has {len(data.classes)} classes, the network {len(description.classes)}")
    channels, resolution, _ = description.shape
    return data.for_network(channels, resolution).validation
