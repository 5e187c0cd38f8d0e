"""A training's curves for TensorBoard, where it is installed."""

import contextlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from nas.training.loop import Epoch


@contextlib.contextmanager
def scalars(folder: Path, *, first_epoch: int) -> Iterator[Callable[[Epoch], None]]:
    """Yield what takes the epochs of a training: event files in `folder`, or nothing without TensorBoard.

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
