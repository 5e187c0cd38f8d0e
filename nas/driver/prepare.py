"""Check and work out what a search needs before it begins: data, space, costs, limits, the queue."""

import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from nas.architecture.catalogue import load as load_network
from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.costs.analytic import cost
from nas.driver import references
from nas.driver.limits import check_limits
from nas.driver.objectives import Limit
from nas.driver.options import DEFAULT_TRIALS, MOST_TRIALS, SearchOptions
from nas.driver.sampler.registry import make_sampler
from nas.driver.sampler.whole_space import WholeSpaceSampler
from nas.driver.settings import PUBLISHED, Settings
from nas.driver.study import CostFunction
from nas.errors import UserError
from nas.latency import Prediction, Runtime, Table, load_table, measure, table_for
from nas.latency.layers import segments
from nas.targets import TARGETS, Target
from nas.training.data import Dataset, load_dataset, resplit

log = logging.getLogger(__name__)

LATENCY_FILE = "latency.json"
CALIBRATING, CALIBRATING_ASKED = 0.05, 1 / 3
"""Shares of a limited time that latency's calibration may take, the second where latency was asked for."""


@dataclass(frozen=True)
class Prepared:
    """Data, space, costs and queue of a search that is about to start; `settings` as they turned out."""

    settings: Settings
    dataset: Dataset
    space: Space
    costs: CostFunction
    queue: Sequence["Queued"]
    table: Table | None
    """What latencies are predicted from; None where none are asked for."""

    @property
    def num_classes(self) -> int:
        return len(self.dataset.classes)


def prepare(settings: Settings, *, run: Path, dataset: Dataset | None, deadline: float | None = None) -> Prepared:
    """Check what can be checked, and work out what is known before a network is trained. Writes nothing.

    `run` is the run's folder, which holds a latency table where the search is resumed. `deadline` is the search's, on
    the clock of :func:`time.monotonic`: where latency is an objective by default and its calibration does not end in
    its share of the time until then, MACs take its place.

    Raises:
        UserError: something given does not fit.
    """
    dataset = dataset or load_dataset(settings.dataset, **settings.reading)
    if settings.resplit:
        resplit(dataset, settings.seed)  # refuses what the workers could not divide
    num_classes, target = len(dataset.classes), settings.parsed_target
    if settings.needs_latency and settings.latency_table is None and target.engine is None:
        raise UserError(
            f"target {target.name}: its latency cannot be measured here; leave latency out of the objectives and "
            "limits (macs tells much of it), or give --latency-table"
        )
    target.require()
    space, limits = settings.open_space(), settings.parsed_limits
    known = cost_function(num_classes, target=target)
    # The limits that need no latency first: a mistake in them should not wait for the calibration.
    check_limits(space, [limit for limit in limits if limit.objective.name != "latency"], known)
    queue = queued(settings, space, dataset)
    if not settings.needs_latency:
        return Prepared(settings, dataset, space, known, queue, None)
    stand_in = with_macs(settings)
    share = CALIBRATING_ASKED if stand_in is None else CALIBRATING
    timeout = None if deadline is None else max(0.0, share * (deadline - time.monotonic()))
    try:
        table = latency_table(settings, space, num_classes, run, timeout)
    except TimeoutError:
        if stand_in is None:
            raise UserError(
                f"--hours: latency is asked for, and was not calibrated in {timeout:.0f} s, {share:.0%} of the time; "
                "give more time, or a --latency-table"
            ) from None
        log.info(
            "latency was not calibrated in %.0f s, %.0f%% of the time: macs are an objective in its place",
            timeout,
            100 * share,
        )
        return Prepared(stand_in, dataset, space, known, queue, None)
    here = settings.latency_table is None
    networks = [item.architecture for item in queue]
    predict = latency_model(table, networks, num_classes, here=here, runtime=runtime_of(target))
    costs = cost_function(num_classes, predict, target)
    check_limits(space, limits, costs)
    return Prepared(settings, dataset, space, costs, queue, table)


def sampler_for(settings: Settings, prepared: Prepared, further: Sequence[Limit] = ()) -> WholeSpaceSampler:
    """Make the sampler that a search asks; its proposals keep the search's limits and further ones."""
    return make_sampler(
        settings.sampler,
        space=prepared.space,
        objectives=settings.parsed_objectives,
        limits=[*settings.parsed_limits, *further],
        costs=prepared.costs,
        seed=settings.seed,
    )


def with_macs(settings: Settings) -> Settings | None:
    """Return the search with MACs in latency's place; None where latency was asked for, or a table is given."""
    by_default = settings.objectives == tuple(SearchOptions.objectives) and settings.latency_table is None
    if not by_default or any(limit.objective.name == "latency" for limit in settings.parsed_limits):
        return None
    return replace(settings, objectives=tuple("macs" if name == "latency" else name for name in settings.objectives))


def runtime_of(target: Target) -> Runtime:
    """Return how a target's latencies are measured: its engine on one thread of the CPU."""
    return Runtime(target.engine) if target.engine is not None else Runtime()


def cost_function(
    num_classes: int,
    latency: Callable[[Architecture], Prediction | None] | None = None,
    target: Target = TARGETS["torch"],
) -> CostFunction:
    """Make the function of a network's known figures on a target.

    `latency` predicts it, or knows none of this network.
    """

    # Small: the keys are whole documents, and a sampler that prices thousands of them keeps the figures itself.
    @functools.lru_cache(maxsize=1_000)
    def costs(architecture: Architecture) -> dict[str, float]:
        counts = cost(architecture, num_classes)
        figures: dict[str, float] = {
            "params": counts.params,
            "macs": counts.macs,
            "size": counts.size_bytes,
            "peak_memory": counts.peak_activation_bytes,
        }
        if target.name != "torch":
            figures["size"] = target.size(architecture, num_classes)
            figures["memory"] = target.memory(architecture, num_classes)
        if latency is not None and (predicted := latency(architecture)) is not None:
            figures["latency"] = predicted.value_ms
            figures["latency_high"] = predicted.high_ms
        return figures

    return costs


def latency_table(settings: Settings, space: Space, num_classes: int, run: Path, timeout: float | None = None) -> Table:
    """The table that a search predicts latencies from: the run's own where it is resumed, the user's, or this device's.

    Raises:
        UserError: the user's table cannot be read, or is for something else.
        TimeoutError: this device's was not calibrated in `timeout` seconds.
    """
    if (run / LATENCY_FILE).exists():
        return load_table(run / LATENCY_FILE)
    if settings.latency_table is not None:
        table = load_table(Path(settings.latency_table))
        table.check(space=space, num_classes=num_classes)
        engine, own = table.provenance.engine, settings.parsed_target.engine
        if settings.target != "torch" and engine != own:
            log.warning(
                "%s: its times are of engine %s, not of target %s", settings.latency_table, engine, settings.target
            )
        return table
    table = table_for(space, runtime_of(settings.parsed_target), num_classes=num_classes, timeout=timeout)
    if table.complaint:
        log.warning(table.complaint)
    return table


def latency_model(
    table: Table,
    queue: Sequence[Architecture],
    num_classes: int,
    *,
    here: bool,
    runtime: Runtime = Runtime(),  # noqa: B008  (immutable)
) -> Callable[[Architecture], Prediction | None]:
    """Predicts from the table. Queued networks with layers that it does not know are measured, here and now; where the
    table is another device's, their latency stays unknown, as is that of all others with such layers.
    """
    strange = {item.id: item for item in queue if not all(map(table.knows, segments(item, num_classes)))}
    known: dict[str, Prediction | None] = dict.fromkeys(strange)
    if here and strange:
        figures = measure(list(strange.values()), runtime, num_classes=num_classes, max_seconds=5)
        known |= {
            id: Prediction(figure.value_ms, figure.low_ms, figure.high_ms)
            for id, figure in zip(strange, figures, strict=True)
        }

    def predict(architecture: Architecture) -> Prediction | None:
        if architecture.id in known:
            return known[architecture.id]
        try:
            return table.predict(architecture)
        except UserError:  # layers that were never timed
            return None

    return predict


class Queued(NamedTuple):
    """A network that is trained before any proposal; `origin` is ``published`` or ``own``."""

    architecture: Architecture
    origin: str


def queued(settings: Settings, space: Space, dataset: Dataset) -> list[Queued]:
    """The networks that are trained before any proposal, in this data set's input: the user's own, published ones.

    A published network that the user queued is a published one, whatever its document calls it.

    Raises:
        UserError: one that was asked for by name does not fit the images.
    """
    if not settings.enqueue and settings.published == "none" and not settings.references:
        return []
    target = settings.parsed_target
    if settings.published not in PUBLISHED:
        target.check(map(load_network, settings.published.split(",")), "--published")
    target.check([Architecture.from_dict(item, "--enqueue") for item in settings.enqueue], "--enqueue")
    published = {
        name: network
        for name, network in references.published_here(space, dataset.channels).items()
        if target.objection(network) is None
    }
    known = {architecture.id for architecture in published.values()}
    asked_for = [
        Architecture.from_dict(document, "--enqueue").with_input(
            channels=dataset.channels, resolution=space.resolutions[-1]
        )
        for document in settings.enqueue
    ]
    beside = references.chosen(
        settings.published,
        published,
        thinner=settings.references,
        # of a search that its time limits, nobody knows how many fit
        trials=DEFAULT_TRIALS if settings.trials == MOST_TRIALS else settings.trials,
        space=space,
        limits=settings.parsed_limits,
        costs=cost_function(len(dataset.classes), target=target),
    )
    unique: dict[str, Queued] = {}
    for architecture in asked_for:
        unique.setdefault(architecture.id, Queued(architecture, "published" if architecture.id in known else "own"))
    for architecture in beside:
        unique.setdefault(architecture.id, Queued(architecture, "published"))
    return list(unique.values())
