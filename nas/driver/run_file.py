"""``run.yaml``: what was asked for, and on what machine and versions."""

import datetime
import os
import platform
import uuid
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from nas.architecture.document import Architecture
from nas.driver.settings import SCHEMA, Settings
from nas.driver.validation import check_run_file
from nas.errors import UserError
from nas.files import read_yaml, write_atomic
from nas.hardware import cpu_info
from nas.training.data import PARTS, Dataset
from nas.training.origin import Origin
from nas.training.recipe import full_recipe

DATA_FILE = "data.json"
"""What the images are like, in a run's folder."""


def read_run_file(path: Path) -> dict[str, Any]:
    """``run.yaml`` of a run's folder, its version checked.

    Raises:
        UserError: it is missing, no YAML, or of a newer version.
    """
    file = path / "run.yaml"
    if not file.is_file():
        raise UserError(f"{path}: no run here (run.yaml is missing)")
    document = read_yaml(file)
    if not isinstance(document, dict) or not isinstance(document.get("schema"), int):
        raise UserError(f"{file}: not a run's file (no schema)")
    if document["schema"] > SCHEMA:
        raise UserError(f"{file}: schema {document['schema']}, this nas reads up to {SCHEMA}; use a newer nas")
    check_run_file(document, str(file))
    return document


def write_run_file(
    path: Path,
    settings: Settings,
    environment: Mapping[str, Any],
    storage: str | None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write ``run.yaml``; of one that is there already, the study and the environment stay.

    `environment` is that of :func:`describe_environment`, `data` of :func:`describe_data`; `storage` is Optuna's URL of
    the study, where it is in a database.
    """
    known = read_run_file(path) if (path / "run.yaml").exists() else {}
    before = known.get("data", {})  # the images that the search began with stay on record
    document = {
        "schema": SCHEMA,
        # Unlike any other in a database that many runs share, and the same when the folder gets another name.
        "study": known.get("study", f"{path.resolve().name}-{uuid.uuid4().hex[:8]}"),
        "storage": storage,
        "settings": settings.to_dict(),
        "environment": known.get("environment", dict(environment)),
        "data": {**(data or before), **({"images": before["images"]} if "images" in before else {})},
        # A run may be resumed on other machines: what was not repeatable on one of them is not in the run.
        "not_repeatable": list(
            dict.fromkeys([*known.get("not_repeatable", []), *not_repeatable(settings, environment)])
        ),
    }
    write_atomic(path / "run.yaml", yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120))


def searched(architecture: str | Path | Architecture, network: Architecture, run: str | Path | None) -> Origin | None:
    """Return what a training takes over from a search.

    Args:
        architecture: as given; a file of a front belongs to the search in whose folder it is.
        network: the architecture.
        run: the search's folder; default: the one that the file belongs to.

    Returns:
        None where there is no search.

    Raises:
        UserError: `run` holds none, or its file is damaged.
    """
    if run is None:
        file = Path() if isinstance(architecture, Architecture) else Path(architecture).absolute()
        run = file.parent.parent
        if file.parent.name != "front" or not (run / "run.yaml").is_file():
            return None
    document = read_run_file(Path(run))
    settings = Settings.from_dict(document.get("settings"), str(Path(run) / "run.yaml"))
    sides = settings.open_space().resolutions
    return Origin(
        dataset=settings.dataset,
        reading=settings.reading,
        resolution=network.input.resolution if network.input.resolution in sides else sides[-1],
        recipe=full_recipe(settings.parsed_recipe, document.get("data", {}).get("train")),
        target=settings.target,
        init=settings.init,
        file=str(Path(run) / "run.yaml"),
    )


def not_repeatable(settings: Settings, environment: Mapping[str, Any]) -> list[str]:
    """Name what comes out otherwise when a search is run again with the same settings.

    A training on the CPU is not among it: its seed follows from the search's and the network's id.
    """
    found = {
        "which networks are tried, and where they are stopped: several workers finish in any order": (
            environment["workers"] > 1
        ),
        "latencies, and what follows from them: times are measured": settings.needs_latency,
        "trainings, bit for bit: a GPU adds in any order": environment["device"] != "cpu",
    }
    return [line for line, holds in found.items() if holds]


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Images per part, classes, image side in pixels, whether the data set has a validation part of its own, and the
    identity of a folder's images: intervals of accuracies follow from the first.
    """
    known = dataset.fingerprint
    return {
        **{part: len(dataset.part(part)) for part in PARTS},
        "classes": len(dataset.classes),
        "resolution": dataset.resolution,
        "own_validation": dataset.own_validation,
        **({"images": known.to_dict()} if known is not None else {}),
    }


def describe_environment(device: str, workers: int = 1) -> dict[str, Any]:
    """Machine and versions, for people and for comparing runs; `device` is ``cpu`` or the GPU's name."""
    packages = ("nas", "torch", "torchvision", "ray", "optuna", "numpy", "scikit-learn")
    return {
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": device,
        "workers": workers,
        "cpu": cpu_info("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
