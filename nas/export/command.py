"""Export of a training's file to the forms that others run; `nas export`."""

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from nas.errors import UserError
from nas.export import Card, Quantised, Shipped, quantise, to_onnx, to_program, to_python
from nas.export.judging import judge_exported, load_for
from nas.export.litert import check_litert, to_litert
from nas.export.micro import write_micro
from nas.export.python import module_name
from nas.export.shipping import calibration_images, open_exported
from nas.targets import Target
from nas.targets import target as target_named
from nas.training.checkpoint import load_trained
from nas.training.data import PartName
from nas.training.evaluate import Scores
from nas.training.weights import card

log = logging.getLogger(__name__)

FORMS: Mapping[str, tuple[str, Callable[[Card, Mapping[str, Tensor], Path], Shipped]]] = {
    "onnx": (".onnx", to_onnx),
    "torch-export": (".pt2", to_program),
    "python": (".py", to_python),
    "litert": (".tflite", to_litert),
    "tflite-micro": ("-tflite-micro", to_litert),
}
"""Formats by name: the ending of the file's name, and what writes it."""
_INT8 = ("onnx", "litert", "tflite-micro")
"""Those that can be quantised."""

LEAST_AGREEMENT = 0.98
"""Share of validation images to which int8 should give fp32's class; a smaller one is told."""


@dataclass(frozen=True)
class Accuracies:
    """Top-1 accuracies in [0, 1], and the images that they were counted on."""

    validation: float
    test: float
    validation_images: int
    test_images: int


@dataclass(frozen=True)
class Exported:
    """Results of an export. Without `int8`, `quantised` is None and the accuracies are empty."""

    card: Card
    model: Shipped
    quantised: Quantised | None = None
    accuracies: tuple[Accuracies, ...] = ()
    """Accuracies of the float model and of the int8 one, by the same runtime."""
    agreement: float | None = None
    """Share in [0, 1] of the validation images to which both give one class."""


def export(
    source: str | Path,
    *,
    form: str | None = None,
    target: str | None = None,
    out: str | Path | None = None,
    int8: bool = False,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
) -> Exported:
    """Write a trained network in another form, checked against torch.

    Args:
        source: a checkpoint (``.pt``), or ``model.safetensors`` of a training.
        form: ``onnx``, ``torch-export``, ``python``, ``litert`` (.tflite) or ``tflite-micro``; default the target's, or
            ONNX.
        target: where the network will run: gives the form, and says whether int8 is written too.
        out: the file, or the folder of ``tflite-micro``; default beside the source, named like the network.
        int8: quantise the ONNX or LiteRT model too, beside it as ``NAME-int8.onnx``; ``tflite-micro`` is always int8.
        dataset: what to calibrate with; default what the network was trained on, split as it was then. Of its training
            images some calibrate, class by class; the others give the accuracies before and after.
        data_dir: where data sets lie.

    Raises:
        UserError: something given does not fit, or an extra is missing.
        nas.export.ExportError: what came out does not compute what the network computes.
    """
    wanted = target_named(target) if target is not None else None
    form = form or "onnx" if wanted is None else _form_there(wanted, form)
    int8 = int8 or (wanted is not None and wanted.int8)
    if form not in FORMS:
        raise UserError(f"unknown format {form!r}; allowed: {', '.join(FORMS)}")
    if int8 and form not in _INT8:
        raise UserError(
            f"--int8 quantises ONNX and LiteRT models; leave it out, or give --format onnx instead of {form}"
        )
    if not int8 and form != "tflite-micro" and (dataset is not None or data_dir is not None):
        raise UserError("--dataset and --data-dir are for the calibration of int8; leave them out, or give --int8 too")
    source = Path(source)
    checkpoint = load_trained(source)
    description = card(checkpoint, str(source))
    if wanted is not None:
        wanted.check([description.architecture])
        wanted.require()
    ending, writer = FORMS[form]
    if writer is to_litert:
        check_litert(description.architecture)
    micro = form == "tflite-micro"
    name = module_name(description.architecture.name) if form == "python" else description.architecture.name
    path = Path(out) if out is not None else source.parent / f"{name}{ending}"
    quantised_path = path.with_name(f"{path.stem}-int8{ending}")
    beside = path.with_suffix(".pt") if form == "python" else quantised_path
    if source.resolve() in (path.resolve(), beside.resolve()):
        raise UserError(f"{source}: would be overwritten by the export; give another --out")
    if micro and path.is_file():
        raise UserError(f"{path}: is a file; --format tflite-micro writes a folder")
    # The data first: they may be missing, and converting takes a while.
    data = load_for(description, dataset or checkpoint.dataset, data_dir, str(source)) if int8 or micro else None
    if data is None:
        return Exported(description, writer(description, checkpoint.weights, path))
    with tempfile.TemporaryDirectory() as scratch:
        written = (Path(scratch, "float.tflite"), Path(scratch, "int8.tflite")) if micro else (path, quantised_path)
        model = writer(description, checkpoint.weights, written[0])
        per_tensor = wanted is not None and wanted.per_tensor
        quantised = quantise(*written, calibration_images(data), per_tensor=per_tensor)
        ours, theirs = (judge_exported(open_exported(file)[0], data) for file in written)
        if micro:
            files = write_micro(written[1].read_bytes(), description, path)
            model, quantised = Shipped(files, model.difference), replace(quantised, path=files[0])
    same = ours["validation"].predicted == theirs["validation"].predicted
    agreement = int(same.sum()) / max(1, len(same))
    if agreement < LEAST_AGREEMENT:
        log.warning(
            "int8 gives another class than fp32 to %.1f %% of the validation images; more than %.0f %% is much",
            100 * (1 - agreement),
            100 * (1 - LEAST_AGREEMENT),
        )
    return Exported(description, model, quantised, (_accuracies(ours), _accuracies(theirs)), agreement)


def _form_there(target: Target, form: str | None) -> str:
    """Return the format that ships on a target; `form` is the one asked for, if one was.

    Raises:
        UserError: it is another one.
    """
    if target.form is None:
        raise UserError(f"--target {target.name}: the training's own file ships there; give --format to write another")
    if form not in (None, target.form):
        raise UserError(f"--target {target.name}: --format {target.form} ships there; leave --format {form} out")
    return target.form


def _accuracies(found: Mapping[PartName, Scores]) -> Accuracies:
    validation, test = found["validation"], found["test"]
    return Accuracies(validation.accuracy, test.accuracy, len(validation.hits), len(test.hits))
