"""The supernet of a search: the user's file, or one that is trained for it."""

import logging
import time
from pathlib import Path

import torch

from nas.architecture.space import Space
from nas.costs.analytic import cost
from nas.driver.cluster import Workers
from nas.driver.earlier_supernet import SUPERNET_FILE, supernet_file
from nas.driver.prepare import Prepared
from nas.driver.region import Region, members_within, region_of
from nas.driver.settings import Settings
from nas.driver.supernet_training import Task, train_supernet
from nas.errors import UserError
from nas.network.supernet import Supernet
from nas.training.checkpoint import Checkpoint, load_checkpoint, write_checkpoint
from nas.training.loop import Epoch
from nas.training.members import largest
from nas.training.supernet import TrainedSupernet, new_supernet, supernet_of
from nas.units import percent

log = logging.getLogger(__name__)

MOST_ON_A_CPU = 20_000_000
"""Parameters of a supernet that is trained on a CPU without a warning. A step of one of 73 million took nine times a
member's own, and after 752 its members judged as chance does; one of 3.4 million learned (docs/benchmarks.md)."""


def check_supernet(settings: Settings, prepared: Prepared) -> None:
    """Check that the user's supernet has the space's networks, or that the space has a supernet.

    Raises:
        UserError: so it is not; the line says what differs.
    """
    if settings.supernet is not None:
        _read_supernet(supernet_file(Path(settings.supernet)), prepared)
    else:
        with torch.random.fork_rng(devices=[]):
            new_supernet(prepared.space, prepared.num_classes)


def open_supernet(
    settings: Settings,
    prepared: Prepared,
    out: Path,
    workers: Workers,
    deadline: float | None = None,
    *,
    several_devices: bool = False,
) -> TrainedSupernet:
    """Return the supernet that was asked for; without a file of the user's, train one, or go on training it.

    Members are drawn within the search's limits while it is trained.

    Args:
        workers: whose GPUs train it.
        several_devices: it will serve searches for other devices too.
    """
    region, file = region_of(settings, prepared, several_devices=several_devices), file_of(settings, out)
    if settings.supernet is None and (task := _task(settings, prepared, file, region, deadline)) is not None:
        if doubt := doubt_about(prepared.space, workers.device):
            log.warning(doubt)
        if task.among:
            log.info("supernet: the members that are trained keep %s", task.region)
        for epoch, epochs, content in train_supernet(task, workers):
            write_checkpoint(file, content)
            log.info("supernet: epoch %d of %d, %s", epoch.epoch, epochs, _reached_by(task, epoch))
    supernet, within = _read_supernet(file, prepared)
    if not within.holds(region):
        log.warning("%s: trained within %s; it knows less of other networks, which this search allows", file, within)
    return TrainedSupernet(supernet, prepared.dataset, settings.parsed_target)


def doubt_about(space: Space, device: str) -> str:
    """Say that a space's supernet is too large to learn on a device; empty where it is not."""
    parameters = cost(largest(space), 1).params
    if device != "cpu" or parameters <= MOST_ON_A_CPU:
        return ""
    size = f"the supernet of space {space.name} has {parameters / 1e6:.0f} million parameters"
    return f"{size}: on a CPU it hardly learns in the time of a search; take a smaller space, such as micro, or a GPU"


def _reached_by(task: Task, epoch: Epoch) -> str:
    if task.among:  # the largest network is over the limits, and learns only what members share with it
        return f"its members have {percent(epoch.train_accuracy)} of the training images"
    return f"its largest network has {percent(epoch.validation_accuracy)}"


def _task(settings: Settings, prepared: Prepared, file: Path, region: Region, deadline: float | None) -> Task | None:
    """Describe the training of a supernet, from where its checkpoint left off; None where that is its end."""
    state = None
    if file.exists():
        checkpoint = load_checkpoint(file)
        if checkpoint.trainer is None:
            return None
        state, region = checkpoint.trainer, _region_of(checkpoint, file)
    return Task(
        space=prepared.space,
        dataset=prepared.dataset,
        recipe=settings.parsed_recipe,
        seed=settings.seed,
        among=tuple(members_within(region, prepared.space, prepared.costs, seed=settings.seed)),
        region=region,
        state=state,
        seconds=None if deadline is None else deadline - time.monotonic(),
    )


def _region_of(checkpoint: Checkpoint, file: Path) -> Region:
    described = checkpoint.extra.get("supernet")
    return Region.read(described.get("region") if isinstance(described, dict) else None, f"{file}: its region")


def file_of(settings: Settings, out: Path) -> Path:
    """Return the file of a run's supernet."""
    return out / SUPERNET_FILE if settings.supernet is None else supernet_file(Path(settings.supernet))


def _read_supernet(file: Path, prepared: Prepared) -> tuple[Supernet, Region]:
    checkpoint = load_checkpoint(file)
    supernet, members = supernet_of(checkpoint, str(file))
    if checkpoint.trainer is not None:
        raise UserError(f"{file}: a supernet whose training is not done; nas search --resume {file.parent} goes on")
    check_members(members, prepared.space, str(file))
    if tuple(checkpoint.classes) != tuple(prepared.dataset.classes):
        raise UserError(f"{file}: a supernet of other classes ({', '.join(checkpoint.classes[:5])}, ...)")
    return supernet, _region_of(checkpoint, file)


def check_members(supernet: Space, space: Space, where: str) -> None:
    """Check that a space's networks are members of a supernet.

    Raises:
        UserError: a field differs; the line names it.
    """
    members = supernet.parameters_by_name
    for name, parameter in space.parameters_by_name.items():
        if name not in members:
            raise UserError(f"{where}: a supernet of space {supernet.name}, where {name} cannot be chosen")
        if lacking := [value for value in parameter.values if value not in members[name].values]:
            raise UserError(f"{where}: a supernet of space {supernet.name}, where {name} is never {lacking[0]}")
    if not supernet.contains(space.sample(0)):
        raise UserError(f"{where}: a supernet of space {supernet.name}, which differs in what is not chosen")
