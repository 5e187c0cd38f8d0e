"""Export to one readable Python file that needs torch alone, with the weights beside it."""

import importlib.util
import io
import keyword
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.export.check import ExportError, Normalised, Shipped, compare
from nas.export.python_source import source
from nas.files import write_file
from nas.training.card import Card
from nas.training.weights import restore

TOLERANCE = 1e-5


def to_python(card: Card, weights: Mapping[str, Tensor], path: Path) -> Shipped:
    """Write a trained network as a Python file, and its weights beside it with the ending ``.pt``.

    The file defines ``Network``, a plain ``nn.Module`` of named parts that can be trained further; ``load()``, which
    reads the weights; and ``CLASSES``. It takes float (N, C, R, R) in [0, 1] and gives logits. Norms are not folded.

    Args:
        card: the network's.
        weights: its state dict.
        path: the file, whose name must be one that Python can import; replaced where it exists, and the weights too.

    Raises:
        UserError: the name cannot be imported, the weights do not fit, a file cannot be written.
        ExportError: the file computes other logits, by more than 1e-5.
    """
    if path.suffix != ".py" or not path.stem.isidentifier() or keyword.iskeyword(path.stem):
        raise UserError(f"{path}: Python cannot import a file of this name; name it {module_name(path.stem)}.py")
    network = restore(card, weights)
    text = source(card, network, module=path.stem)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, path.name)
        trial.write_text(text, encoding="utf-8")
        content = _renamed(network, _import(trial).Network())
        trial.with_suffix(".pt").write_bytes(content)
        difference = compare(
            Normalised(network, card), _import(trial).load(), card, tolerance=TOLERANCE, form="the Python file"
        )
    write_file(path.with_suffix(".pt"), content, new_folder=True)
    write_file(path, text.encode(), new_folder=True)
    return Shipped((path, path.with_suffix(".pt")), difference)


def module_name(name: str) -> str:
    """Turn a network's name into one that Python can import: ``han-e`` becomes ``han_e``."""
    words = "".join(letter if letter.isalnum() else "_" for letter in name).strip("_") or "network"
    return f"net_{words}" if words[0].isdigit() or keyword.iskeyword(words) else words


def _renamed(network: nn.Module, plain: nn.Module) -> bytes:
    """Serialize the weights under the plain module's names: both modules make the same tensors in the same order."""
    ours, theirs = network.state_dict(), plain.state_dict()
    shapes = [[tensor.shape for tensor in state.values()] for state in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise ExportError("the Python file has other weights than the network")
    buffer = io.BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in zip(theirs, ours.values(), strict=True)}, buffer)
    return buffer.getvalue()


def _import(path: Path) -> Any:
    """Import a file as a module, outside of ``sys.modules`` and without leaving byte code."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        with torch.random.fork_rng(devices=[]):
            spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module
