"""Times at which a run's workers were held: one account for tables, bars and curves, pauses left out.

A trial that an interrupted search left behind is finished by a later one, and its two timestamps have the pause between
them. A driver writes down when it begins (`sessions`, in the study), which tells such trials from others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nas.driver.run import Run


@dataclass(frozen=True)
class Held:
    """A trial's hold of a worker, in POSIX seconds; `seconds` of it were epochs, as the worker measured them."""

    begin: float
    end: float
    seconds: float


def holds(run: Run) -> list[Held]:
    """The closed trials' holds of workers.

    From its start to its end where no driver began in between. Of a trial with a pause, and of all in a run of an older
    version, which does not say, only the epochs are known: they are put together before its end.
    """
    sessions = run.sessions
    found = []
    for record in run.records:
        if record.was_trained and record.started is not None and record.finished is not None:
            begin, end, seconds = record.started.timestamp(), record.finished.timestamp(), record.seconds
            if not sessions or any(begin < session < end for session in sessions):
                begin = end - seconds
            found.append(Held(min(begin, end - seconds), end, seconds))
    return found


def most_at_once(run: Run) -> int:
    """The most workers that were busy at once: pauses do not change it."""
    spans = [
        (r.started.timestamp(), r.finished.timestamp())
        for r in run.records
        if r.was_trained and r.started and r.finished
    ]
    return max((busy for _, _, busy in stretches(spans)), default=0)


def stretches(spans: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float, int]]:
    """The time from the first begin to the last end, in pieces: begin, end, and how many spans lie over it."""
    changes = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    busy = 0
    for (moment, change), (following, _) in pairwise(changes):
        busy += change
        if following > moment:
            yield moment, following, busy


def searched(held: Sequence[Held], moment: float) -> float:
    """Seconds until a moment in which any worker was held: where none was, the search itself was away."""
    return sum(
        min(end, moment) - begin
        for begin, end, busy in stretches([(item.begin, item.end) for item in held])
        if busy and begin < moment
    )
