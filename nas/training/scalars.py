"""A training's curves for TensorBoard, where it is installed."""

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from nas.training.loop import Epoch


class Scalars(Protocol):
    """Takes the epochs of a training."""

    def __call__(self, epoch: Epoch) -> None: ...


@contextlib.contextmanager
def scalars(folder: Path, *, first_epoch: int) -> Iterator[Scalars]:
    """Writes event files into `folder`; does nothing where TensorBoard is not installed.

    Args:
        folder: created when the first epoch comes.
        first_epoch: what a killed training wrote from this epoch on is hidden.
    """
    if find_spec("tensorboard") is None:
        yield lambda epoch: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=first_epoch) as writer:

        def write(epoch: Epoch) -> None:
            figures = {
                "loss": epoch.loss,
                "accuracy/train": epoch.train_accuracy,
                "accuracy/validation": epoch.validation_accuracy,
                "learning_rate": epoch.lr,
                "images_per_second": epoch.images_per_second,
            }
            for name, figure in figures.items():
                writer.add_scalar(name, figure, epoch.epoch)
            writer.flush()

        yield write
