"""A training that ends in time: its recipe is cut to the epochs that fit, and where these are few, an epoch's steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace

from nas.errors import UserError
from nas.training.distributed import ALONE, Ranks
from nas.training.evaluator import TrainingEvaluator
from nas.training.loop import Epoch, Trainer
from nas.training.recipe import Recipe

log = logging.getLogger(__name__)

FEWEST_EPOCHS = 5
"""So many epochs of fewer steps stand in the place of fewer whole ones: a training's speed is corrected after each."""
MOST_VALIDATING = 0.2
"""Share of the time that such epochs may take to validate."""
FEW = 0.1
"""Share of the recipe's steps below which smaller images are advised."""
END_SECONDS = 3.0
"""For the program's start and for what is written at its end."""
_REHEARSED = 4  # steps


def rehearse(trainer: Trainer) -> tuple[float, float]:
    """Train an epoch of a few steps; return the seconds of a step, and those of validating."""
    recipe = trainer.recipe
    # As a last epoch, which recalibrates nothing: among so few steps that would count for much. Not as int8 computes,
    # which a trainer never ceases to do.
    last = replace(recipe.with_epochs(trainer.epoch + 1), qat=0.0)
    trainer.shorten(last, min(_REHEARSED, trainer.steps))
    epoch = trainer.run_epoch()
    trainer.shorten(recipe, trainer.steps)
    return epoch.seconds_train / trainer.steps, epoch.seconds_eval


class Pace:
    """Fits a training into what is left of its time: measured by its first steps, corrected after each epoch.

    The recipe's schedule is scaled to the epochs that fit, so that the learning rate ends as low as ever. Processes
    that share a training follow the first one's clock.

    Args:
        deadline: on the clock of :func:`time.monotonic`.
        recipe: the whole one; no training becomes longer than this.
        ranks: the processes.
    """

    def __init__(self, deadline: float, recipe: Recipe, ranks: Ranks = ALONE) -> None:
        self._deadline = deadline
        self._ranks = ranks
        self._whole = recipe
        self._end = END_SECONDS
        self._last = 0.0

    def begin(self, trainer: Trainer) -> None:
        """Take a few steps and undo them, and shorten the training to what fits.

        Raises:
            UserError: not even a step does.
        """
        images = trainer.dataset
        state, whole = trainer.state_dict(), trainer.steps
        step, validating = rehearse(trainer)
        trainer.load_state_dict(state)
        self._end += validating * len(images.test) / max(1, len(images.validation))
        left = self._left()
        epochs, steps = left / (whole * step + validating), whole
        if epochs < min(FEWEST_EPOCHS, self._whole.epochs):
            validated = int(MOST_VALIDATING * left / max(validating, 1e-9))
            epochs = max(1, int(epochs), min(FEWEST_EPOCHS, self._whole.epochs, validated))
            steps = int((left / epochs - validating) / step)
        epochs, steps = (self._agreed(value, trainer) for value in (epochs, steps))
        if steps < 1:
            raise UserError(f"--hours: a step takes {step:.2g} s and validating {validating:.2g} s; give more time")
        self._shorten(trainer, trainer.epoch + epochs, min(whole, steps))
        share = trainer.recipe.epochs * trainer.steps / (self._whole.epochs * whole)
        log.info(
            "%d of %d epochs of %d steps fit into the time, the learning rate falls accordingly%s",
            trainer.recipe.epochs,
            self._whole.epochs,
            trainer.steps,
            "; smaller images (--resolution) leave time for more" if share < FEW else "",
        )
        self._last = time.monotonic()

    def correct(self, trainer: Trainer) -> None:
        """Shorten or lengthen the rest of a training by the time of its last epoch, with all that came with it."""
        now = time.monotonic()
        fit = self._agreed(self._left() / (now - self._last), trainer)
        self._last = now
        self._shorten(trainer, trainer.epoch + fit, trainer.steps)

    def _left(self) -> float:
        return self._deadline - self._end - time.monotonic()

    def _agreed(self, value: float, trainer: Trainer) -> int:
        return int(self._ranks.broadcast_from_rank0(value, trainer.device))

    def _shorten(self, trainer: Trainer, epochs: int, steps: int) -> None:
        trainer.shorten(self._whole.with_epochs(max(1, trainer.epoch, min(epochs, self._whole.epochs))), steps)


def epochs_within(
    deadline: float | None, trainer: Trainer, evaluator: TrainingEvaluator, recipe: Recipe, ranks: Ranks = ALONE
) -> Iterator[Epoch]:
    """Fit a training into its time, where that is limited, and return its epochs; each is trained when asked for.

    The evaluator, which describes checkpoints, gets the recipe that it was cut to. The rest is as of :class:`Pace`.
    """
    if deadline is None or trainer.done:
        return trainer.epochs()
    pace = Pace(deadline, recipe, ranks)
    pace.begin(trainer)

    def corrected() -> Iterator[Epoch]:
        for epoch in trainer.epochs():
            pace.correct(trainer)
            evaluator.recipe = trainer.recipe
            yield epoch

    return corrected()
