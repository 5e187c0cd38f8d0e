"""Latency of a network on a device: measured, or predicted from a table that was calibrated there."""

from nas.latency.calibration import calibrate, table_for
from nas.latency.engine import Engine
from nas.latency.engines import ENGINES, Runtime
from nas.latency.exchange import export_blocks, import_timings
from nas.latency.machine import Provenance
from nas.latency.measuring import measure
from nas.latency.summary import Measurement
from nas.latency.table import Prediction, Table, load_table

__all__ = [
    "ENGINES",
    "Engine",
    "Measurement",
    "Prediction",
    "Provenance",
    "Runtime",
    "Table",
    "calibrate",
    "export_blocks",
    "import_timings",
    "load_table",
    "measure",
    "table_for",
]
