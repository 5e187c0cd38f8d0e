"""A search whose networks are first judged by a supernet: train it once, judge members in seconds, train the best.

The record of the judged members is an Optuna study of its own beside the search's, in the same storage, so that an
interrupted search goes on where it was. Only trained networks stand on the search's front.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
import torch
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
from scipy.stats import spearmanr

from nas import pareto
from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.driver.objectives import losses
from nas.driver.prepare import Prepared, sampler_for
from nas.driver.settings import Settings
from nas.driver.study import SUPERNET_ACCURACY, SearchStudy, Spendable, curve_of, may_stand_on_front
from nas.errors import UserError
from nas.network.supernet import Supernet
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.evaluator import TrainingEvaluator
from nas.training.loop import Epoch
from nas.training.supernet import SupernetTrainer, TrainedSupernet, new_supernet, supernet_extra, supernet_of
from nas.units import percent

log = logging.getLogger(__name__)

SUPERNET_FILE = "supernet.pt"
JUDGED_PER_TRIAL = 10
"""Members that are judged for every trial of the search."""
PROBE = 8
"""Members that are trained to see whether the supernet is to be trusted, at most half of the trials."""
LEAST_CORRELATION = 0.6
"""Spearman's, among the probe: with less the supernet's favourites are worth no more than others."""


class Judged(NamedTuple):
    """A member, its accuracy in the supernet, and the losses of the search's objectives with that accuracy."""

    architecture: Architecture
    accuracy: float
    losses: list[float]


def check_supernet(settings: Settings, prepared: Prepared) -> None:
    """Check that the user's supernet has the space's networks, or that the space has a supernet.

    Raises:
        UserError: so it is not; the line says what differs.
    """
    if settings.supernet is not None:
        _read_supernet(Path(settings.supernet), prepared)
    else:
        with torch.random.fork_rng(devices=[]):
            new_supernet(prepared.space, prepared.num_classes)


def open_supernet(settings: Settings, prepared: Prepared, out: Path) -> TrainedSupernet:
    """Return the supernet that was asked for; without a file of the user's, train one, or go on training it."""
    if settings.supernet is None:
        for epoch in train_supernet(settings, prepared, out / SUPERNET_FILE):
            log.info(
                "supernet: epoch %d of %d, its largest network has %s",
                *(epoch.epoch, settings.parsed_recipe.epochs, percent(epoch.validation_accuracy)),
            )
    return TrainedSupernet(_read_supernet(supernet_file(settings, out), prepared), prepared.dataset)


def supernet_file(settings: Settings, out: Path) -> Path:
    """Return the file of a run's supernet."""
    return out / SUPERNET_FILE if settings.supernet is None else Path(settings.supernet)


def _read_supernet(file: Path, prepared: Prepared) -> Supernet:
    checkpoint = load_checkpoint(file)
    supernet, members = supernet_of(checkpoint, str(file))
    check_members(members, prepared.space, str(file))
    if tuple(checkpoint.classes) != tuple(prepared.dataset.classes):
        raise UserError(f"{file}: a supernet of other classes ({', '.join(checkpoint.classes[:5])}, ...)")
    return supernet


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


def train_supernet(settings: Settings, prepared: Prepared, file: Path) -> Iterator[Epoch]:
    """Train the space's supernet, or go on from its checkpoint; one item per epoch that was missing."""
    state = load_checkpoint(file).trainer if file.exists() else {}
    if state is None:  # trained to the end
        return
    recipe = settings.parsed_recipe
    side, device = max(prepared.space.resolutions), "cuda" if torch.cuda.is_available() else "cpu"
    data = prepared.dataset.for_network(prepared.dataset.channels, side, device)
    trainer = SupernetTrainer(prepared.space, data, recipe, seed=settings.seed)
    if state:
        trainer.load_state_dict(state)
    describe = TrainingEvaluator(prepared.dataset, recipe)
    while not trainer.done:
        epoch = trainer.run_epoch()
        extra = {
            "supernet": supernet_extra(trainer.supernet, prepared.space),
            "seed": settings.seed,
            "epochs": [asdict(epoch)],
        }
        save_checkpoint(file, describe.checkpoint(trainer.supernet.architecture, trainer, **extra))
        yield epoch


def judge_members(
    study: SearchStudy, trained: TrainedSupernet, sampler: BaseSampler, count: int, images: int
) -> list[Judged]:
    """Let the supernet judge `count` members that a sampler proposes; those judged before an interruption count."""
    directions = study.study.directions
    judged = optuna.create_study(
        study_name=f"{study.study.study_name}-supernet",
        storage=study.study._storage,
        sampler=sampler,
        directions=directions,
        load_if_exists=True,
    )
    found: list[Judged] = []
    for known in judged.get_trials(deepcopy=False):
        if known.state == TrialState.COMPLETE:
            architecture = Architecture.from_dict(known.user_attrs["document"], f"member {known.number}")
            found.append(Judged(architecture, known.user_attrs["accuracy"], losses(study.objectives, known.values)))
        elif not known.state.is_finished():  # a driver died over it
            judged.tell(known.number, state=TrialState.FAIL)
    while len(found) < count and not (isinstance(sampler, Spendable) and sampler.is_spent(judged)):
        with study.batch():
            trial = judged.ask(study.distributions)
            architecture = study.space.architecture(trial.params)
            accuracy = trained.judge(architecture).accuracy
            costs = study.costs(architecture)
            values = [costs[each.name] if each.known else accuracy for each in study.objectives]
            trial.set_user_attr("document", architecture.to_dict())
            trial.set_user_attr("accuracy", accuracy)
            judged.tell(trial, values)
        found.append(Judged(architecture, accuracy, losses(study.objectives, values)))
        if len(found) % 20 == 0:
            best = max(each.accuracy for each in found)
            log.info("supernet: %d of %d members judged, the best has %s", len(found), count, percent(best, images))
    return found


def spread_out(judged: Sequence[Judged], count: int) -> list[Judged]:
    """Choose members over the range of the supernet's accuracies: by rank, evenly."""
    ranked = sorted(judged, key=lambda each: each.accuracy)
    places = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
    return [ranked[place] for place in places]


def best_of(judged: Sequence[Judged], count: int) -> list[Judged]:
    """Choose the front of what the supernet judged, thinned to `count` members that lie apart."""
    points = np.array([each.losses for each in judged])
    front = np.flatnonzero(pareto.front_mask(points))
    kept = front[pareto.spread_order(points[front])[:count]]
    return [judged[place] for place in kept]


def judged_by_supernet(settings: Settings, prepared: Prepared, study: SearchStudy, out: Path) -> list[Judged]:
    """Train the supernet, or take the user's, and let it judge members of the space."""
    trained = open_supernet(settings, prepared, out)
    count = JUDGED_PER_TRIAL * settings.trials
    return judge_members(study, trained, sampler_for(settings, prepared), count, len(prepared.dataset.validation))


def enqueue_probe(study: SearchStudy, judged: Sequence[Judged], trials: int) -> int:
    """Queue the members that show whether the supernet is to be trusted; return how many trials there are with them."""
    queued = len(study.study.get_trials(deepcopy=False))
    _enqueue(study, spread_out(judged, min(PROBE, trials // 2)))
    return min(trials, max(queued, len(study.study.get_trials(deepcopy=False))))


def enqueue_best(study: SearchStudy, judged: Sequence[Judged], trials: int) -> None:
    """Queue the front of what the supernet judged, where the probe shows that it is to be trusted."""
    agreement = correlation(study.study)
    study.study.set_user_attr("supernet_trusted", agreement >= LEAST_CORRELATION)
    if not agreement >= LEAST_CORRELATION:
        said = "too few members were trained" if math.isnan(agreement) else f"rank correlation {agreement:.2f}"
        log.warning("the supernet is not to be trusted here (%s): the search goes on without it", said)
        return
    log.info("the supernet agrees with trainings: rank correlation %.2f; its front is trained", agreement)
    room = trials - sum(trial.state.is_finished() for trial in study.study.get_trials(deepcopy=False))
    _enqueue(study, best_of(judged, max(room, 0)))


def _enqueue(study: SearchStudy, members: Sequence[Judged]) -> None:
    for each in members:
        named = each.architecture.model_copy(update={"name": f"{study.space.name[:80]}-{each.architecture.id}"})
        study.enqueue(named, origin="", **{SUPERNET_ACCURACY: each.accuracy})


def correlation(study: optuna.Study) -> float:
    """Correlate the supernet's accuracies with those after training: Spearman's, over the trained members; or NaN."""
    pairs = [
        (trial.user_attrs[SUPERNET_ACCURACY], curve_of(trial.user_attrs)[-1]["accuracy"])
        for trial in study.get_trials(deepcopy=False)
        if SUPERNET_ACCURACY in trial.user_attrs and may_stand_on_front(trial)
    ]
    if len(pairs) < 3 or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return math.nan
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)
