"""Where the time of a search went, and how its trials ended."""

import math
from collections import Counter
from dataclasses import dataclass

from nas.report.answer import ENDED
from nas.report.numbers import counted, show_seconds
from nas.report.scatter import Document
from nas.search.run import Record, Run


@dataclass(frozen=True)
class Spent:
    """Worker time in seconds, by how trials ended: training, evaluation, and what else they held a worker for.

    `idle` is what workers waited while others trained; `workers` the most that were busy at once.
    """

    by_state: dict[str, tuple[float, float, float]]
    idle: float
    workers: int

    @property
    def total(self) -> float:
        return self.idle + sum(sum(parts) for parts in self.by_state.values())


def time_spent(run: Run) -> Spent:
    """Where the workers' time went."""
    by_state: dict[str, tuple[float, float, float]] = {}
    events: list[tuple[float, int]] = []
    for record in run.records:
        if not record.was_trained or record.started is None or record.finished is None:
            continue
        training = math.fsum(epoch["seconds_train"] for epoch in record.curve)
        evaluation = math.fsum(epoch["seconds_eval"] for epoch in record.curve)
        held = max((record.finished - record.started).total_seconds(), training + evaluation)
        before = by_state.get(record.state, (0.0, 0.0, 0.0))
        parts = (training, evaluation, held - training - evaluation)
        by_state[record.state] = (before[0] + parts[0], before[1] + parts[1], before[2] + parts[2])
        events += [(record.started.timestamp(), 1), (record.finished.timestamp(), -1)]
    busy, workers, last, stretches = 0, 0, 0.0, []
    for moment, change in sorted(events):
        stretches.append((moment - last, busy))
        busy, last = busy + change, moment
        workers = max(workers, busy)
    # Where nothing ran at all the search itself was away: interrupted, and gone on with later.
    idle = sum(length * (workers - running) for length, running in stretches if running)
    return Spent(by_state, idle, workers)


def time_figure(spent: Spent) -> Document:
    """Worker time by how trials ended, and what it was spent on."""
    states = [state for state in ENDED if state in spent.by_state]
    rows = [ENDED[state].capitalize() for state in states]
    parts = (("Training", "var(--found)"), ("Evaluation", "var(--second)"), ("Set-up, saving, waiting", "var(--third)"))
    unit, factor = ("minutes", 1 / 60) if spent.total > 600 else ("seconds", 1.0)
    bar = {"type": "bar", "orientation": "h", "hovertemplate": "%{fullData.name}: %{x:.3g} " + unit + "<extra></extra>"}
    traces = [
        {
            **bar,
            "name": name,
            "y": rows,
            "x": [spent.by_state[state][index] * factor for state in states],
            "marker": {"color": colour},
        }
        for index, (name, colour) in enumerate(parts)
    ]
    traces.append(
        {**bar, "name": "Idle", "y": ["No trial"], "x": [spent.idle * factor], "marker": {"color": "var(--stopped)"}}
    )
    return {
        "data": traces,
        "layout": {
            "barmode": "stack",
            "xaxis": {"title": {"text": f"Worker {unit}"}},
            "yaxis": {"autorange": "reversed"},
            "height": 120 + 38 * (len(rows) + 1),
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        },
    }


@dataclass(frozen=True)
class StateRow:
    """Trials that ended in one way for one reason; all texts but the count."""

    state: str
    count: int
    reason: str
    time: str


def state_rows(run: Run) -> list[StateRow]:
    """Trials by state and reason, the states in order, the commonest reasons first."""
    titles = {
        "complete": "Trained to the end",
        "stopped": "Stopped early",
        "failed": "Failed",
        "running": "In training",
        "waiting": "Queued",
        "along": "Trained in an earlier run",
        "passed": "Never trained",
    }
    groups: Counter[tuple[str, str]] = Counter()
    seconds: Counter[tuple[str, str]] = Counter()
    for record in run.records:
        state = _ending(record)
        reason = "same network as an earlier trial" if record.twin is not None else record.reason
        groups[state, reason] += 1
        seconds[state, reason] += round(1000 * record.seconds)
    order = list(titles)
    return [
        StateRow(
            titles[state],
            count,
            reason,
            show_seconds(seconds[state, reason] / 1000) if seconds[state, reason] else "–",
        )
        for (state, reason), count in sorted(groups.items(), key=lambda item: (order.index(item[0][0]), -item[1]))
    ]


def _ending(record: Record) -> str:
    if record.was_taken_along:
        return "along"
    return record.state if record.was_trained or record.state in ("running", "waiting") else "passed"


def time_sentence(spent: Spent) -> str:
    """Where the time went, in words."""
    if not spent.total:
        return ""
    training = sum(parts[0] for parts in spent.by_state.values())
    evaluation = sum(parts[1] for parts in spent.by_state.values())
    rest = spent.total - training - evaluation - spent.idle
    shares = (
        (training, "training"),
        (evaluation, "evaluation"),
        (rest, "set-up, saving and waiting"),
        (spent.idle, "idle"),
    )
    said = [f"{100 * part / spent.total:.0f} % {what}" for part, what in shares]
    return f"{show_seconds(spent.total)} of worker time on {counted(spent.workers, 'worker')}: {', '.join(said)}."
