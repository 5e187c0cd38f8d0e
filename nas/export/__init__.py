"""A trained network as others run it: ONNX, LiteRT, ``torch.export``, or one Python file that needs torch alone.

Every form takes RGB (or gray) values in [0, 1] and normalises them itself, so that nobody can feed it the wrong way;
every form gives logits; every form is run against the network that it was made from before it is written.
"""

from nas.export.check import ExportError, Quantised, Shipped
from nas.export.onnx import to_onnx
from nas.export.program import to_program
from nas.export.python import to_python
from nas.export.shipping import quantise
from nas.training.card import Card

__all__ = ["Card", "ExportError", "Quantised", "Shipped", "quantise", "to_onnx", "to_program", "to_python"]
