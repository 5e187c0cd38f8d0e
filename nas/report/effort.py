"""Account of a search's time, pauses left out, and of how its trials ended.

A trial that an interrupted search left behind is finished by a later one, and its two timestamps have the pause between
them. A driver writes down when it begins (`sessions`, in the study), which tells such trials from others.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nas.driver.record import Record
from nas.driver.run import Run
from nas.report.scatter import LEGEND_ABOVE, Figure
from nas.report.summary import ENDED
from nas.units import counted, show_seconds

ENDINGS = {
    "complete": "Trained to the end",
    "stopped": "Stopped early",
    "failed": "Failed",
    "running": "In training",
    "waiting": "Queued",
    "along": "Trained in an earlier run",
    "passed": "Never trained",
}


@dataclass(frozen=True)
class Held:
    """A trial's hold of a worker, in POSIX seconds; `seconds` of it were epochs, as the worker measured them."""

    begin: float
    end: float
    seconds: float


@dataclass(frozen=True)
class Spent:
    """Worker time in seconds, by how trials ended: training, evaluation, and what else their epochs took.

    `idle` is what workers waited for others, or for the driver; `workers` the most that were busy at once.
    """

    by_state: dict[str, tuple[float, float, float]]
    idle: float
    workers: int

    @property
    def total(self) -> float:
        return self.idle + sum(sum(parts) for parts in self.by_state.values())


def holds(run: Run) -> list[Held]:
    """Return the closed trials' holds of workers.

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


def stretches(held: Sequence[Held]) -> Iterator[tuple[float, float, int]]:
    """Yield the time in which any worker was held, in pieces: begin, end, and how many were.

    Where none was, the search itself was away.
    """
    changes = sorted([(item.begin, 1) for item in held] + [(item.end, -1) for item in held])
    busy = 0
    for (moment, change), (following, _) in pairwise(changes):
        busy += change
        if busy and following > moment:
            yield moment, following, busy


def searched(held: Sequence[Held], moment: float) -> float:
    """Return the seconds until a moment in which any worker was held."""
    return sum(min(end, moment) - begin for begin, end, _ in stretches(held) if begin < moment)


def time_spent(run: Run) -> Spent:
    """Return where the workers' time went: a trial's is what its worker measured, as in ``trials.csv``."""
    by_state: dict[str, tuple[float, float, float]] = {}
    for record in run.records:
        if record.was_trained and record.curve:
            training = math.fsum(epoch["seconds_train"] for epoch in record.curve)
            evaluation = math.fsum(epoch["seconds_eval"] for epoch in record.curve)
            before = by_state.get(record.state, (0.0, 0.0, 0.0))
            parts = (training, evaluation, max(0.0, record.seconds - training - evaluation))
            by_state[record.state] = (before[0] + parts[0], before[1] + parts[1], before[2] + parts[2])
    held = holds(run)
    pieces = list(stretches(held))
    workers = max((busy for _, _, busy in pieces), default=0)
    waiting = math.fsum(item.end - item.begin - item.seconds for item in held)
    free = math.fsum((end - begin) * (workers - busy) for begin, end, busy in pieces)
    return Spent(by_state, waiting + free, workers)


def time_figure(spent: Spent) -> Figure | None:
    """Draw worker time by how trials ended, and what it was spent on; None where there was none."""
    if not spent.total:
        return None
    states = [state for state in ENDED if state in spent.by_state]
    rows = [ENDED[state].capitalize() for state in states]
    unit, factor = ("minutes", 1 / 60) if spent.total > 600 else ("seconds", 1.0)
    bar = {"type": "bar", "orientation": "h", "hovertemplate": "%{fullData.name}: %{x:.3g} " + unit + "<extra></extra>"}
    parts = (("Training", "var(--found)"), ("Evaluation", "var(--second)"), ("Set-up, saving", "var(--third)"))
    bars = [
        (name, colour, rows, [spent.by_state[state][index] * factor for state in states])
        for index, (name, colour) in enumerate(parts)
    ]
    bars.append(("Waiting", "var(--stopped)", ["No trial"], [spent.idle * factor]))
    return {
        "data": [{**bar, "name": name, "y": y, "x": x, "marker": {"color": colour}} for name, colour, y, x in bars],
        "layout": {
            "barmode": "stack",
            "xaxis": {"title": {"text": f"Worker {unit}"}},
            "yaxis": {"autorange": "reversed"},
            "height": 120 + 38 * (len(rows) + 1),
            "legend": {**LEGEND_ABOVE, "traceorder": "normal"},
        },
    }


def time_sentence(spent: Spent) -> str:
    """Say where the time went; empty where there was none."""
    if not spent.total:
        return ""
    training, evaluation, rest = (sum(parts) for parts in zip(*spent.by_state.values(), (0.0, 0.0, 0.0), strict=True))
    shares = (
        (training, "training"),
        (evaluation, "evaluation"),
        (rest, "set-up and saving"),
        (spent.idle, "waiting"),
    )
    said = ", ".join(f"{100 * part / spent.total:.0f} % {what}" for part, what in shares)
    return f"{show_seconds(spent.total)} of worker time on {counted(spent.workers, 'worker')}: {said}."


def ending_rows(run: Run) -> list[dict[str, str]]:
    """Count trials by state and reason, for a table: the states in order, the commonest reasons first."""
    trials: Counter[tuple[str, str]] = Counter()
    seconds: Counter[tuple[str, str]] = Counter()
    for record in run.records:
        key = (_ending(record), "same network as an earlier trial" if record.twin is not None else record.reason)
        trials[key] += 1
        seconds[key] += round(1000 * record.seconds)
    order = list(ENDINGS)
    return [
        {
            "state": ENDINGS[state],
            "count": str(count),
            "reason": reason,
            "time": show_seconds(seconds[state, reason] / 1000) if seconds[state, reason] else "–",
        }
        for (state, reason), count in sorted(trials.items(), key=lambda item: (order.index(item[0][0]), -item[1]))
    ]


def _ending(record: Record) -> str:
    if record.was_imported:
        return "along"
    return record.state if record.was_trained or record.state in ("running", "waiting") else "passed"
