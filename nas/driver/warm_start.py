"""Import what an earlier run found out."""

from collections.abc import Sequence
from pathlib import Path

from nas.driver.objectives import trained_for
from nas.driver.run import Run
from nas.driver.settings import Settings
from nas.driver.study import SUPERNET_ACCURACY, SearchStudy
from nas.errors import UserError
from nas.training.checkpoint import load_checkpoint, save_checkpoint

SAME_IMAGES = ("dataset", "train_size", "validation_fraction", "image_resolution", "fit", "split_by")
"""Settings that choose the images of a run, beside the seed."""
SAME = (*SAME_IMAGES, "resplit", "parsed_recipe", "seed", "init", "judged_as")
"""Settings in which two runs must agree for their accuracies to be comparable (the seed splits the data)."""


def earlier_run(settings: Settings) -> Run | None:
    """The run that `warm_start` names.

    Raises:
        UserError: it is no run, or its networks were trained under other conditions.
    """
    if settings.warm_start is None:
        return None
    run = Run.open(settings.warm_start)
    if differs := difference(run.settings, settings):
        raise UserError(
            f"--warm-start {settings.warm_start}: its {differs} is another one, so its accuracies cannot be compared"
        )
    return run


def difference(earlier: Settings, settings: Settings, names: Sequence[str] = SAME) -> str:
    """Name the first setting in which two runs differ; empty where they agree."""
    differing = next((name for name in names if getattr(earlier, name) != getattr(settings, name)), "")
    return {"judged_as": "target"}.get(differing, differing.removeprefix("parsed_"))


def import_networks(earlier: Run, study: SearchStudy, out: Path, *, judged: bool = False) -> tuple[int, int]:
    """Enter the earlier run's finished networks into the study, their kept weights into the run.

    `judged`: both runs have one supernet, whose accuracies are taken over too.

    Returns:
        Their number, and how many of them are over a limit of this search: the sampler learns from those too, but they
        never stand on the front.
    """
    taken: list[int] = []
    trained = trained_for(study.objectives).name
    for record in earlier.records:
        figures = record.reached
        ended = record.was_imported or (record.state == "complete" and not record.untrained)
        if not ended or trained not in figures:  # an earlier version's run knows no balanced accuracy
            continue
        if judged and record.supernet_accuracy is not None:
            figures = {**figures, SUPERNET_ACCURACY: record.supernet_accuracy}
        number = study.import_trial(record.architecture, figures, str(earlier.path), record.origin)
        if number is not None:
            taken.append(number)
            if earlier.checkpoint(record).exists():
                # Read before it is copied: it may be damaged, or no file that ends.
                weights = load_checkpoint(earlier.checkpoint(record))
                save_checkpoint(out / "checkpoints" / f"{number}.pt", weights)
    trials = study.study.get_trials(deepcopy=False)
    return len(taken), sum(any(excess > 0 for excess in trials[number].constraints.values()) for number in taken)
