"""``torch.export``: the folded network as a program that torch, ExecuTorch and AOTInductor read without its code."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nas.export.check import Normalised, Shipped, compare, one_line
from nas.extras import quietly
from nas.files import write_file
from nas.network.fold import fold
from nas.training.card import Card
from nas.training.weights import restore

TOLERANCE = 1e-5
BATCH = "batch"


def to_program(card: Card, weights: Mapping[str, Tensor], path: Path) -> Shipped:
    """Write a trained network with ``torch.export.save``; ``torch.export.load(path).module()`` runs it.

    Takes float32 (batch, C, R, R) in [0, 1], any batch size, gives logits. The card lies in the file as
    ``card.json``: ``torch.export.load(path, extra_files=files)`` fills ``files = {"card.json": ""}``.

    Raises:
        UserError: the weights do not fit, the file cannot be written.
        ExportError: torch cannot export the network, or the program gives other logits by more than 1e-5.
    """
    expected = Normalised(restore(card, weights), card)
    folded = Normalised(fold(expected.network), card).eval()
    example = torch.zeros(2, *card.shape)  # a batch of 1 would be taken for a constant
    buffer = io.BytesIO()
    with one_line("torch cannot export this network"), quietly():
        program = torch.export.export(folded, (example,), dynamic_shapes=({0: torch.export.Dim(BATCH)},))
        for node in program.graph.nodes:
            # The lines of code it came from, with this machine's paths: a third of a small file.
            node.meta.pop("stack_trace", None)
        torch.export.save(program, buffer, extra_files={"card.json": json.dumps(card.to_metadata())})
        written = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    difference = compare(expected, written, card, tolerance=TOLERANCE, form="torch.export")
    write_file(path, buffer.getvalue(), new_folder=True)
    return Shipped((path,), difference)
