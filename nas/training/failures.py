"""What ends a training before its time."""


class TrainingError(RuntimeError):
    """A training that cannot go on: the network's fault rather than the user's, so that a search goes on."""


class DivergedError(TrainingError):
    """The loss of an epoch was not finite."""


class EpochTimeoutError(TrainingError):
    """An epoch took longer than allowed."""


class OutOfTimeError(TrainingError):
    """The training's own time is over; the message says at which of its steps."""
