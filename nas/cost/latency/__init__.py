"""What a network takes on a device: measured, or predicted from a table that was calibrated there."""

from nas.cost.latency.cache import table_for
from nas.cost.latency.calibration import calibrate
from nas.cost.latency.engines import ENGINES, Engine, Runtime
from nas.cost.latency.exchange import export_blocks, import_timings
from nas.cost.latency.machine import Provenance
from nas.cost.latency.measuring import measure
from nas.cost.latency.summary import Measurement
from nas.cost.latency.table import Prediction, Table, load_table

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
