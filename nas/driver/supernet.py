"""A search whose networks are first judged by a supernet: train it once, judge members in seconds, train the best.

The record of the judged members is an Optuna study of its own beside the search's, in the same storage, so that an
interrupted search goes on where it was. Only trained networks stand on the search's front.
"""

import logging
import math
import time
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from nas import pareto
from nas.architecture.document import Architecture
from nas.driver.cluster import Workers
from nas.driver.earlier_supernet import AS_INT8, MEMBERS, TRUSTED, Known, known_members
from nas.driver.objectives import losses, trained_for
from nas.driver.opened_supernet import open_supernet
from nas.driver.prepare import Prepared, sampler_for
from nas.driver.run import Run
from nas.driver.sampler.known_cost import KnownCostSampler
from nas.driver.sampler.whole_space import WholeSpaceSampler
from nas.driver.settings import Settings
from nas.driver.study import SUPERNET_ACCURACY, SearchStudy, curve_of, may_stand_on_front, of_what_ships
from nas.significance import spearman
from nas.training.supernet import TrainedSupernet
from nas.units import percent

log = logging.getLogger(__name__)

JUDGED_PER_TRIAL = 10
"""Members that are judged for every trial of the search."""
TRAINING_SHARE, JUDGING_SHARE = 1 / 3, 1 / 10
"""Of the time that is left when each begins, where hours limit the search."""
PROBE = 8
"""Members that are trained to see whether the supernet is to be trusted, at most half of the trials."""
LEAST_CORRELATION = 0.6
"""Spearman's, among the probe: with less the supernet's favourites are worth no more than others."""


class Judged(NamedTuple):
    """A member, its accuracy in the supernet, and the losses of the search's objectives with that accuracy."""

    architecture: Architecture
    accuracy: float
    losses: list[float]


def judge_members(
    study: SearchStudy,
    trained: TrainedSupernet,
    sampler: WholeSpaceSampler,
    count: int,
    images: int,
    known: Sequence[Known] = (),
    deadline: float | None = None,
) -> list[Judged]:
    """Let the supernet judge `count` members that a sampler proposes; those judged before an interruption count.

    `known` are judged already: the sampler learns from them, they cost nothing and do not count. After the deadline, on
    the clock of :func:`time.monotonic`, no further one is judged.

    Returns:
        The members that keep the limits, known ones included.
    """
    judged = optuna.create_study(
        study_name=f"{study.study.study_name}{MEMBERS}",
        storage=study.study._storage,
        sampler=sampler,
        directions=study.study.directions,
        load_if_exists=True,
    )
    if trained.target.int8 and not judged.get_trials(deepcopy=False):  # an older version judged in fp32
        judged.set_user_attr(AS_INT8, True)
    for trial in judged.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):  # a driver died over it
        judged.tell(trial.number, state=TrialState.FAIL)
    _enter_known(judged, study, known)
    done = judged.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    left = count - sum("taken" not in trial.user_attrs for trial in done)
    best = 0.0
    for number in range(1, left + 1):
        late = deadline is not None and time.monotonic() >= deadline
        if late or sampler.is_spent(judged):
            break
        with study.batch():
            asked = judged.ask(study.distributions)
            architecture = study.space.architecture(asked.params)
            scores = trained.judge(architecture)
            figures = {"accuracy": scores.accuracy, "balanced_accuracy": scores.balanced_accuracy}
            for name, value in {"document": architecture.to_dict(), **figures}.items():
                asked.set_user_attr(name, value)
            judged.tell(asked, study.values(study.costs(architecture), figures))
        best = max(best, scores.accuracy)
        if number % 20 == 0:
            of_all = "" if deadline is not None else f" of {left}"
            log.info("supernet: %d%s members judged, the best has %s", number, of_all, percent(best, images))
    ended = judged.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [_read_judged(trial, study) for trial in ended if all(x <= 0 for x in trial.constraints.values())]


def _enter_known(judged: optuna.Study, study: SearchStudy, known: Sequence[Known]) -> None:
    """Enter members that are judged already, with the costs that they have in this search."""
    ended = judged.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    entered = {_read_judged(trial, study).architecture.id for trial in ended}
    trained = trained_for(study.objectives).name
    with study.batch():
        for architecture, figures in known:
            if architecture.id in entered or trained not in figures or not study.space.contains(architecture):
                continue
            entered.add(architecture.id)
            costs = study.costs(architecture)
            judged.add_trial(
                optuna.trial.create_trial(
                    values=study.values(costs, figures),
                    params=study.space.parameters(architecture),
                    distributions=study.distributions,
                    user_attrs={"document": architecture.to_dict(), "taken": True, **figures},
                    constraints=study.excesses(costs),
                )
            )


def _read_judged(trial: FrozenTrial, study: SearchStudy) -> Judged:
    architecture = Architecture.from_dict(trial.user_attrs["document"], f"member {trial.number}")
    return Judged(architecture, trial.user_attrs["accuracy"], losses(study.objectives, trial.values))


def spread_out(judged: Sequence[Judged], count: int) -> list[Judged]:
    """Choose members over the range of the supernet's accuracies: by rank, evenly."""
    ranked = sorted(judged, key=lambda each: each.accuracy)
    places = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
    return [ranked[place] for place in places]


def best_of(judged: Sequence[Judged], count: int, trained: Container[Any] = ()) -> list[Judged]:
    """Choose the front of what the supernet judged, but for networks trained already, thinned to `count` apart.

    `trained`: ids of networks.
    """
    points = np.array([each.losses for each in judged])
    is_new = np.array([each.architecture.id not in trained for each in judged])
    front = np.flatnonzero(pareto.front_mask(points) & is_new)
    kept = front[pareto.spread_order(points[front])[:count]]
    return [judged[place] for place in kept]


def judged_by_supernet(
    settings: Settings,
    prepared: Prepared,
    study: SearchStudy,
    out: Path,
    workers: Workers,
    earlier: Run | None,
    deadline: float | None = None,
    *,
    several_devices: bool = False,
) -> list[Judged]:
    """Train the supernet, or take the user's, and let it judge members of the space.

    Args:
        workers: whose GPUs train it.
        earlier: the search that the user's supernet comes from; what it knows of this supernet's members is not judged.
        deadline: of the search, on the clock of :func:`time.monotonic`; some of the time until then is taken.
        several_devices: it will serve searches for other devices too.
    """

    def until(share: float) -> float | None:
        return None if deadline is None else time.monotonic() + share * (deadline - time.monotonic())

    until_trained = until(TRAINING_SHARE)
    trained = open_supernet(settings, prepared, out, workers, until_trained, several_devices=several_devices)
    known = known_members(earlier, settings) if earlier is not None else []
    if earlier is not None and known:
        log.info("supernet: %d members are judged already, in %s", len(known), earlier.path)
    return judge_members(
        study,
        trained,
        sampler_for(settings, prepared),
        JUDGED_PER_TRIAL * settings.trials,
        len(prepared.dataset.validation),
        known,
        until(JUDGING_SHARE),
    )


def corrected(study: SearchStudy, judged: Sequence[Judged]) -> list[Judged]:
    """Judge members by the sampler's model of the trained networks, which knows what the supernet said of each.

    A supernet's accuracies are biased where options share weights that suit one better than the other. Its judgement
    stays as it is where the sampler has no such model, or too few networks are trained.
    """
    points = [study.space.parameters(each.architecture) for each in judged]
    sampler = study.study.sampler
    expected = sampler.expected(study.study, points) if points and isinstance(sampler, KnownCostSampler) else None
    if expected is None:
        return list(judged)
    return [
        each._replace(losses=losses(study.objectives, values))
        for each, values in zip(judged, expected.tolist(), strict=True)
    ]


def teach_sampler(study: SearchStudy, judged: Sequence[Judged]) -> None:
    """Let the search's own sampler learn from what the supernet said, as from biased guesses, where it can.

    It forgets that again where the supernet turned out not to be trusted.
    """
    place = next(i for i, objective in enumerate(study.objectives) if not objective.known)
    if isinstance(study.study.sampler, KnownCostSampler):
        study.study.sampler.learn_from(
            [(study.space.parameters(each.architecture), -each.losses[place]) for each in judged]
            if study.study.user_attrs.get(TRUSTED) is not False
            else []
        )


def enqueue_probe(study: SearchStudy, judged: Sequence[Judged], trials: int) -> int:
    """Queue the members that show whether the supernet is to be trusted; return how many trials there are with them."""
    _enqueue(study, spread_out(judged, min(PROBE, trials // 2)))
    return min(trials, len(_trained_here(study)))


def enqueue_best(study: SearchStudy, judged: Sequence[Judged], trials: int) -> None:
    """Queue the front of what the supernet judged, corrected by the trainings, where it is to be trusted.

    An earlier search says whether it is, or else the correlation of its accuracies with those after training.
    """
    trusted, said = study.study.user_attrs.get(TRUSTED), "as it turned out before"
    if trusted is None:
        agreement = correlation(study.study)
        trusted = agreement >= LEAST_CORRELATION
        study.study.set_user_attr(TRUSTED, trusted)
        said = "too few members were trained" if math.isnan(agreement) else f"rank correlation {agreement:.2f}"
    if not trusted:
        teach_sampler(study, judged)
        log.warning("the supernet is not to be trusted here (%s): the search goes on without it", said)
        return
    log.info("the supernet agrees with trainings (%s); the front by both is trained", said)
    known = {trial.user_attrs.get("id") for trial in study.study.get_trials(deepcopy=False)}
    room = trials - len(_trained_here(study))
    _enqueue(study, best_of(corrected(study, judged), max(room, 0), known))


def _trained_here(study: SearchStudy) -> list[FrozenTrial]:
    """Return the trials that count: all but those taken over, or passed over."""
    return [trial for trial in study.study.get_trials(deepcopy=False) if "untrained" not in trial.user_attrs]


def _enqueue(study: SearchStudy, members: Sequence[Judged]) -> None:
    for each in members:
        named = each.architecture.model_copy(update={"name": f"{study.space.name[:80]}-{each.architecture.id}"})
        study.enqueue(named, origin="", **{SUPERNET_ACCURACY: each.accuracy})


def correlation(study: optuna.Study) -> float:
    """Correlate the supernet's accuracies with those after training: Spearman's, over the trained members; or NaN."""
    pairs = [
        (trial.user_attrs[SUPERNET_ACCURACY], _reached(trial)["accuracy"])
        for trial in study.get_trials(deepcopy=False)
        if SUPERNET_ACCURACY in trial.user_attrs and may_stand_on_front(trial)
    ]
    found = spearman([judged for judged, _ in pairs], [trained for _, trained in pairs])
    return math.nan if found is None else found


def _reached(trial: FrozenTrial) -> dict[str, float]:
    return of_what_ships((curve_of(trial.user_attrs) or [trial.user_attrs])[-1])
