"""Reuse of a supernet's search: the members that it judged, the networks that it trained, and whether it was trusted.

Another limit or device changes what networks cost, not what the supernet says of them or what training makes of them.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import TrialState

from nas.architecture.document import Architecture
from nas.driver.run import Run
from nas.driver.settings import Settings
from nas.driver.study import SearchStudy
from nas.driver.warm_start import SAME_IMAGES, difference, import_networks
from nas.errors import UserError
from nas.units import counted

log = logging.getLogger(__name__)

SUPERNET_FILE = "supernet.pt"
MEMBERS = "-supernet"
"""Ending of the name of the study of judged members, beside the search's."""
TRUSTED = "supernet_trusted"
"""A study's attribute: whether the supernet agreed with trainings; missing until enough networks were trained."""
AS_INT8 = "as_int8"
"""An attribute of the study of members: all were judged as their int8 models compute; older runs judged in fp32."""
MOST_RUNS = 64
"""Runs that may have taken one supernet over from each other."""
SAME_JUDGEMENT = (*SAME_IMAGES, "seed", "judged_as")
"""Settings in which two runs must agree for a supernet to say the same of a member."""


class Known(NamedTuple):
    """A member, and its accuracies in the supernet by name."""

    architecture: Architecture
    figures: dict[str, float]


def supernet_file(asked: Path) -> Path:
    """Return the file of a supernet, given that file or a run that trained the supernet or took it over.

    Raises:
        UserError: the run has none.
    """
    place = asked
    for _ in range(MOST_RUNS):
        if not place.is_dir() or (place / SUPERNET_FILE).exists():
            return place / SUPERNET_FILE if place.is_dir() else place
        taken_over = Run.open(place).settings.supernet
        if taken_over is None:
            break
        place = Path(taken_over)
    raise UserError(f"{asked}: a search without a supernet; nas search --evaluator supernet trains one")


def supernet_search(settings: Settings) -> Run | None:
    """Open the search that the asked-for supernet comes from; None where its file lies in no run's folder.

    Raises:
        UserError: there is no supernet.
    """
    if settings.supernet is None:
        return None
    asked = Path(settings.supernet)
    if not supernet_file(asked).is_file():
        raise UserError(f"--supernet {asked}: no such file; give a run that trained a supernet, or its {SUPERNET_FILE}")
    folder = asked if asked.is_dir() else asked.parent
    return Run.open(folder) if (folder / "run.yaml").is_file() else None


def known_members(earlier: Run, settings: Settings) -> list[Known]:
    """Return the members that an earlier search judged by the images of this one, and in int8 where this one does.

    Raises:
        UserError: what it wrote down is damaged.
    """
    study = earlier.study
    if differs := difference(earlier.settings, settings, SAME_JUDGEMENT):
        log.info("supernet: members are judged again, since %s has another %s", earlier.path, differs)
        return []
    try:
        members = optuna.load_study(study_name=f"{study.study_name}{MEMBERS}", storage=study._storage)
    except KeyError:
        return []
    if members.user_attrs.get(AS_INT8, False) != settings.parsed_target.int8:
        return []
    trials = members.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [_known(trial.user_attrs, f"{earlier.path}: member {trial.number}") for trial in trials]


def _known(attributes: dict[str, Any], where: str) -> Known:
    figures = {str(name): attributes[name] for name in ("accuracy", "balanced_accuracy") if name in attributes}
    if "accuracy" not in figures or not all(isinstance(x, float) and 0 <= x <= 1 for x in figures.values()):
        raise UserError(f"{where}: damaged: its accuracy in the supernet is {figures.get('accuracy')!r}")
    return Known(Architecture.from_dict(attributes.get("document"), where), figures)


def take_over(earlier: Run, settings: Settings, study: SearchStudy, out: Path) -> None:
    """Enter the networks that an earlier search trained, and whether it trusted the supernet."""
    if differs := difference(earlier.settings, settings):
        log.info("%s has another %s: the networks that it trained are not taken over", earlier.path, differs)
        return
    taken, over = import_networks(earlier, study, out, judged=True)
    networks = counted(taken, "trained network")
    log.info("%s taken over from %s, %d of them over a limit", networks, earlier.path, over)
    trusted = earlier.study.user_attrs.get(TRUSTED)
    if isinstance(trusted, bool):
        study.study.set_user_attr(TRUSTED, trusted)
