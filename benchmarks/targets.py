"""File sizes and the arena as a target predicts them from the document, against the files and the interpreter.

    python benchmarks/targets.py --networks 100 --out results/benchmarks/targets.txt

For every shipped space: random networks with random weights, exported as `nas export` does it. Errors are relative, in
per cent; the LiteRT targets see the space without conditional convolutions. Needs the extras `export` and `litert`, of
which what is missing is left out. `--record FILE` keeps what was measured, as tests/targets/recorded.json, and goes on
from what is in it; `--tflite N` converts fewer networks for LiteRT, which takes most of the time.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from machine import Output, parser
from torch import nn

import nas
from nas.architecture.catalogue import load_space, space_names
from nas.export import Card, quantise, to_onnx
from nas.targets import TARGETS, restricted

CLASSES = 10
IMAGES = 4
"""To calibrate int8 with: sizes do not depend on them."""


def installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)


HAS_ONNX = installed("onnx", "onnxscript", "onnxruntime")
HAS_LITERT = installed("litert_torch", "ai_edge_quantizer", "ai_edge_litert", "tflite_micro")


def measure(architecture: nas.Architecture, known: dict[str, int], tflite: bool) -> dict[str, int]:
    """Export a network with random weights; bytes by target, and ``arena``, ``arena_head`` of tflite-micro.

    Args:
        architecture: the network.
        known: what was measured of it; that is not done again.
        tflite: whether LiteRT's conversion, which is slow, is wanted too.
    """
    onnx = HAS_ONNX and "onnxruntime" not in known
    tflite &= HAS_LITERT and "litert" not in known and TARGETS["litert"].objection(architecture) is None
    if not (onnx or tflite):
        return known
    torch.manual_seed(0)
    network = nas.build(architecture, CLASSES).eval()
    for module in network.modules():  # as after a training: exporters write equal tensors once
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            nn.init.uniform_(bias, -0.3, 0.3)
    channels, side = architecture.input.channels, architecture.input.resolution
    classes = tuple(f"class {index}" for index in range(CLASSES))
    card = Card(architecture, classes=classes, mean=(0.45,) * channels, std=(0.25,) * channels)
    images = torch.randint(0, 256, (IMAGES, channels, side, side), dtype=torch.uint8)
    found = dict(known)
    if onnx:
        with tempfile.TemporaryDirectory() as folder:
            model, int8 = Path(folder, "model.onnx"), Path(folder, "int8.onnx")
            found["onnxruntime"] = to_onnx(card, network.state_dict(), model).size
            found["onnxruntime-int8"] = quantise(model, int8, images).size
            found["onnxruntime-int8:per-tensor"] = quantise(model, int8, images, per_tensor=True).size
    if tflite:
        from nas.export.litert import litert_bytes, litert_int8_bytes
        from nas.export.micro import arena
        from nas.network.tflite_file import pack

        fp32 = litert_bytes(card, network.state_dict())
        quantised = litert_int8_bytes(fp32, images)
        flash = pack(quantised)
        memory = arena(flash)
        found |= {"litert": len(fp32), "litert-int8": len(quantised), "tflite-micro": len(flash)}
        found |= {"arena": memory.total, "arena_head": memory.head}
        quantised = litert_int8_bytes(fp32, images, per_tensor=True)
        found |= {"litert-int8:per-tensor": len(quantised), "tflite-micro:per-tensor": len(pack(quantised))}
    return found


def predict(architecture: nas.Architecture, figure: str) -> int:
    """What the target says of a figure of :func:`measure`."""
    from nas.targets.tflite import arena_head

    if figure == "arena_head":
        return arena_head(architecture, CLASSES)
    if figure == "arena":
        return TARGETS["tflite-micro"].memory(architecture, CLASSES)
    return TARGETS[figure].size(architecture, CLASSES)


def keep(rows: list[dict[str, Any]], record: Path | None) -> None:
    """Write what was measured so far, a network per line."""
    if record is not None:
        record.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--networks", type=int, default=3, help="random networks per space")
    arguments.add_argument("--tflite", type=int, help="of these, converted for LiteRT too; all unless given")
    arguments.add_argument("--space", action="append", help="only these spaces")
    arguments.add_argument("--record", type=Path, help="add what was measured to this JSON file")
    given = arguments.parse_args()
    out = Output(given.out)
    out(f"ONNX {'measured' if HAS_ONNX else 'left out'}, LiteRT {'measured' if HAS_LITERT else 'left out'}")
    rows = json.loads(given.record.read_text()) if given.record and given.record.exists() else []
    known = {nas.Architecture.from_dict(row["document"]).id: row for row in rows}
    for name in given.space or space_names():
        errors: dict[str, list[float]] = {}
        for seed in range(given.networks):
            whole = load_space(name)
            networks = {
                item.id: item for item in (whole.sample(seed), restricted(whole, TARGETS["litert"])[0].sample(seed))
            }
            for architecture in networks.values():
                row = known.setdefault(architecture.id, {"document": architecture.to_dict(), "measured": {}})
                measured = measure(architecture, row["measured"], given.tflite is None or seed < given.tflite)
                if measured != row["measured"]:
                    if not row["measured"]:
                        rows.append(row)
                    row["measured"] = measured
                    keep(rows, given.record)
                for figure, value in measured.items():
                    errors.setdefault(figure, []).append(100 * (predict(architecture, figure) / value - 1))
        for figure, values in errors.items():
            worst = max(values, key=abs)
            middle = statistics.median(map(abs, values))
            out(f"{name:18} {figure:27} n = {len(values):3}   median {middle:5.2f} %   worst {worst:+6.2f} %")


if __name__ == "__main__":
    main()
