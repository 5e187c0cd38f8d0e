"""Networks that are compared: published ones, files, and what trainings and searches left in their folders."""

from pathlib import Path

from nas.architecture.catalogue import load, network_names
from nas.architecture.document import Architecture
from nas.costs.compare import Trained
from nas.driver.run import Run
from nas.errors import UserError
from nas.training.checkpoint import load_trained
from nas.training.session import CHECKPOINT, MODEL


def networks_of(reference: str | Path | Architecture) -> list[Architecture | Trained]:
    """The networks that a name, a file or a folder stands for.

    Raises:
        UserError: it stands for none.
    """
    if isinstance(reference, Architecture) or str(reference) in network_names() or not Path(reference).is_dir():
        return [load(reference)]
    folder = Path(reference)
    if (folder / "run.yaml").is_file():
        run = Run.open(folder)
        if not run.front_records:
            raise UserError(f"{folder}: no network of this run was trained to the end")
        classes, images = run.data.get("classes"), run.data.get("validation")
        return [Trained(record.architecture, record.accuracy, classes, images) for record in run.front_records]
    weights = next((file for name in (MODEL, CHECKPOINT) if (file := folder / name).is_file()), None)
    if weights is not None:
        saved = load_trained(weights)
        architecture = Architecture.from_dict(saved.architecture, str(weights))
        return [Trained(architecture, saved.accuracy, len(saved.classes))]
    if (folder / "architecture.yaml").is_file():
        return [load(folder / "architecture.yaml")]
    raise UserError(f"{folder}: no run and no training here (neither run.yaml nor architecture.yaml)")
