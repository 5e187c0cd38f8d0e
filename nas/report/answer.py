"""The answer: what stands on the front, and how it compares with what was known."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from nas import catalog
from nas.report.numbers import counted, listed, show, three_digits
from nas.report.points import shown_name, train_command
from nas.search.run import Record, Run

SAME_ACCURACY = 0.005
"""Networks within half a point are called equally accurate: on small validation sets one image is as much."""

_BETTER_WORSE = {
    "size": ("smaller", "larger"),
    "latency": ("faster", "slower"),
    "params": ("fewer parameters", "more parameters"),
    "macs": ("fewer MACs", "more MACs"),
    "peak_memory": ("less peak memory", "more peak memory"),
}


_EQUAL = {
    "size": "as large as",
    "latency": "as fast as",
    "params": "as many parameters as",
    "macs": "as many MACs as",
    "peak_memory": "as much peak memory as",
}

_GOOD = {
    "accuracy": "accurate",
    "size": "small",
    "latency": "fast",
    "params": "low in parameters",
    "macs": "low in MACs",
    "peak_memory": "low in memory",
}

ENDED = {"complete": "to the end", "stopped": "stopped early", "failed": "failed"}


@dataclass(frozen=True)
class FrontRow:
    """One row of the answer's table; all texts. `mark` says where a network comes from that was not found here."""

    rank: int
    number: int
    name: str
    mark: str
    accuracy: str
    accuracy_note: str
    test: str
    size: str
    latency: str
    latency_note: str
    macs: str
    params: str
    distance: str
    command: str


def front_rows(run: Run) -> list[FrontRow]:
    """The front, most accurate first."""
    names = catalog.network_names()
    return [_front_row(run, rank, record, names) for rank, record in enumerate(run.front_records, 1)]


@dataclass(frozen=True)
class Distance:
    """How a network stands to a published one.

    Attributes:
        key: the cost that is compared.
        ratio: the network's cost over the published one's.
        gap: its accuracy minus the published one's.
    """

    rival: str
    key: str
    ratio: float
    gap: float

    @property
    def is_same_accuracy(self) -> bool:
        return abs(self.gap) <= SAME_ACCURACY

    @property
    def cost(self) -> str:
        """Such as ``2.1× smaller than han-e``."""
        better, worse = _BETTER_WORSE[self.key]
        factor = max(self.ratio, 1 / self.ratio)
        if factor < 1.05:
            return f"{_EQUAL[self.key]} {self.rival}"
        return f"{factor:.{1 if factor < 10 else 0}f}× {better if self.ratio < 1 else worse} than {self.rival}"

    def __str__(self) -> str:
        if self.is_same_accuracy:
            return f"{self.cost} at the same accuracy"
        return f"{self.cost}, {100 * abs(self.gap):.1f} points {'more' if self.gap > 0 else 'less'} accurate"


def distance(run: Run, record: Record) -> Distance | None:
    """How a network stands to the nearest published one that was trained in the same run; None where there is none.

    Of those as accurate as it (on test images where both were read), the cheapest; where none is, the one whose
    accuracy is nearest. Cost is the first objective beside accuracy, or the size.
    """
    key = next((objective.name for objective in run.objectives if objective.known), "size")
    own = record.costs.get(key)
    rivals = [
        (other, other.costs[key])
        for other in run.records
        if other.published and other.state == "complete" and other.twin is None and other.number != record.number
        if other.costs.get(key)
    ]
    if not own or not rivals:
        return None
    same = [rival for rival in rivals if abs(_gap(record, rival[0])) <= SAME_ACCURACY]
    rival, cost = (
        min(same, key=lambda pair: pair[1]) if same else min(rivals, key=lambda pair: abs(_gap(record, pair[0])))
    )
    return Distance(rival.architecture.name, key, own / cost, _gap(record, rival))


def summary(run: Run) -> str:
    """The answer in one paragraph."""
    trained = [record for record in run.records if record.was_trained]
    if not trained:
        return "No network has been trained yet."
    ended = {state: sum(record.state == state for record in trained) for state in ENDED}
    parts = [f"{count} {ENDED[state]}" for state, count in ended.items() if count]
    queued = [
        f"{count} {words}"
        for count, words in (
            (sum(record.published for record in trained), "published"),
            (sum(record.origin == "own" for record in trained), "your own"),
        )
        if count
    ]
    sentences = [
        f"{counted(len(trained), 'network')} of the space {run.settings.space.get('name', '')} "
        f"{'was' if len(trained) == 1 else 'were'} trained on {run.settings.dataset}"
        f"{f' ({listed(queued)})' if queued else ''}: {', '.join(parts)}."
    ]
    front = run.front_records
    if not front:
        return f"{sentences[0]} None reached the end, so there is no front."
    found = sum(not origin_mark(record) for record in front)
    if len(run.objectives) > 1:
        better = listed([_GOOD[objective.name] for objective in run.objectives])
        all_found = not queued and found == len(front)
        origin = "" if all_found else f", {_part(found, len(front))} of them found by this search"
        sentences.append(f"{counted(len(front), 'network')} make the front{origin}: no other is at once as {better}.")
    sentences += _extremes(front)
    sentences += references(run)
    steps = [(record, distance(run, record)) for record in front if not record.origin]
    wins = [(record, step) for record, step in steps if step and step.is_same_accuracy and step.ratio < 1 / 1.05]
    if wins:
        record, step = min(wins, key=lambda win: win[1].ratio)
        sentences.append(f"{shown_name(run, record)} is {step}.")
    return " ".join(sentences)


def references(run: Run) -> list[str]:
    """How the networks that were asked for by name stand to the front, in plain words; a sentence per answer.

    By the objectives, with accuracy on validation images, as the front itself.
    """
    asked = [record for record in run.records if record.origin and record.state == "complete" and record.twin is None]
    said: dict[str, list[str]] = {"dominated": [], "not": [], "on": []}
    for record in asked:
        name = record.architecture.name
        if record.on_front:
            said["on"].append(name)
        elif any(_dominates(run, other, record) for other in run.front_records):
            said["dominated"].append(f"{name} ({record.beside})" if record.beside else name)
        else:
            said["not"].append(f"{name} ({record.beside})")
    known = [o for o in run.objectives if all(o.name in r.costs or not o.known for r in asked)]
    good = listed([_GOOD[objective.name] for objective in known])
    templates = {
        "dominated": f"Dominated: {{names}}; for each the front holds a network that is at least as {good}.",
        "not": f"Not dominated, and trained beside the front: {{names}}; nothing on the front is at once as {good}.",
        "on": "Of the networks asked for by name, {names} {verb} on the front.",
    }
    return [
        templates[key].format(names=listed(names), verb="stands" if len(names) == 1 else "stand")
        for key, names in said.items()
        if names
    ]


def _dominates(run: Run, record: Record, other: Record) -> bool:
    """Whether a network is at least as good in every objective that is known of the other one."""
    for objective in run.objectives:
        own, others = record.value(objective), other.value(objective)
        if own is None or (others is not None and (own < others if objective.maximise else own > others)):
            return False
    return True


def origin_mark(record: Record) -> str:
    """Where a network comes from that the search did not find; empty for one that it found."""
    return "earlier run" if record.was_taken_along else {"own": "your own"}.get(record.origin, record.origin)


def test_accuracy(record: Record) -> float | None:
    """Accuracy on the test images, where they were read."""
    accuracy: float | None = record.confirmed.get("test_accuracy")
    return accuracy


def repeated_accuracy(record: Record) -> str:
    """What trainings with other seeds gave on the validation images, as mean and spread; empty where there are none."""
    accuracies: Sequence[float] = record.confirmed.get("accuracies") or ()
    if not accuracies:
        return ""
    spread = f" ± {100 * stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    epochs = record.confirmed.get("epochs")
    longer = f" of {counted(epochs, 'epoch')}" if epochs not in (None, len(record.curve)) else ""
    return f"again: {100 * fmean(accuracies):.2f}{spread}, {counted(len(accuracies), 'seed')}{longer}"


def latency(record: Record) -> tuple[str, str]:
    """Latency as text, and its spread or where it comes from."""
    measured = record.confirmed.get("latency_ms")
    if measured is None:
        predicted = record.costs.get("latency")
        return show("latency", predicted), "" if predicted is None else "predicted"
    low, high = record.confirmed.get("latency_low_ms"), record.confirmed.get("latency_high_ms")
    spread = "measured" if low is None or high is None else f"{three_digits(low)} to {show('latency', high)}"
    return show("latency", measured), f"{spread}, noisy" if record.confirmed.get("latency_noisy") else spread


def _front_row(run: Run, rank: int, record: Record, names: Sequence[str]) -> FrontRow:
    latency_text, latency_note = latency(record)
    return FrontRow(
        rank=rank,
        number=record.number,
        name=shown_name(run, record),
        mark=origin_mark(record),
        accuracy=show("accuracy", record.accuracy),
        accuracy_note=repeated_accuracy(record),
        test=show("accuracy", test_accuracy(record)),
        size=show("size", record.costs.get("size")),
        latency=latency_text,
        latency_note=latency_note,
        macs=show("macs", record.costs.get("macs")),
        params=show("params", record.costs.get("params")),
        distance=str(distance(run, record) or ""),
        command=train_command(run, record, rank, names),
    )


def _gap(record: Record, other: Record) -> float:
    """How much more accurate `record` is: on test images where both were read, else on validation images."""
    own, others = test_accuracy(record), test_accuracy(other)
    if own is not None and others is not None:
        return own - others
    return (record.accuracy or 0) - (other.accuracy or 0)


def _part(count: int, total: int) -> str:
    return "all" if count == total else str(count or "none")


def _extremes(front: Sequence[Record]) -> list[str]:
    best = front[0]
    lightest = min(front, key=lambda record: record.costs.get("size", 0))
    test = test_accuracy(best)
    on_test = f" ({show('accuracy', test)} of the test images)" if test is not None else ""
    sentence = (
        f"The most accurate gets {show('accuracy', best.accuracy)} of the validation images right{on_test} "
        f"at {show('size', best.costs.get('size'))}"
    )
    if lightest is not best:
        sentence += (
            f", the smallest {show('accuracy', lightest.accuracy)} at {show('size', lightest.costs.get('size'))}"
        )
    return [f"{sentence}."]
