"""Account of a search's time, and of how its trials ended."""

import math
from collections import Counter
from dataclasses import dataclass

from nas.driver.run import Record, Run
from nas.report.clock import holds, most_at_once, stretches
from nas.report.numbers import counted, show_seconds
from nas.report.scatter import Document
from nas.report.summary import ENDED


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
    held, workers = holds(run), most_at_once(run)
    waiting = math.fsum(item.end - item.begin - item.seconds for item in held)
    free = math.fsum(
        (end - begin) * max(0, workers - busy)
        for begin, end, busy in stretches([(item.begin, item.end) for item in held])
        if busy
    )
    return Spent(by_state, waiting + free, workers)


def time_figure(spent: Spent) -> Document:
    """Worker time by how trials ended, and what it was spent on."""
    states = [state for state in ENDED if state in spent.by_state]
    rows = [ENDED[state].capitalize() for state in states]
    parts = (("Training", "var(--found)"), ("Evaluation", "var(--second)"), ("Set-up, saving", "var(--third)"))
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
        {**bar, "name": "Waiting", "y": ["No trial"], "x": [spent.idle * factor], "marker": {"color": "var(--stopped)"}}
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
    if record.was_imported:
        return "along"
    return record.state if record.was_trained or record.state in ("running", "waiting") else "passed"


def time_sentence(spent: Spent) -> str:
    """Return where the time went, in words."""
    if not spent.total:
        return ""
    training = sum(parts[0] for parts in spent.by_state.values())
    evaluation = sum(parts[1] for parts in spent.by_state.values())
    rest = spent.total - training - evaluation - spent.idle
    shares = (
        (training, "training"),
        (evaluation, "evaluation"),
        (rest, "set-up and saving"),
        (spent.idle, "waiting"),
    )
    said = [f"{100 * part / spent.total:.0f} % {what}" for part, what in shares]
    return f"{show_seconds(spent.total)} of worker time on {counted(spent.workers, 'worker')}: {', '.join(said)}."
