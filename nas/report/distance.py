"""Compare a network with the nearest published one: its costs, and whether their accuracies can be told apart."""

from dataclasses import dataclass

from nas.driver.record import Record
from nas.driver.run import Run
from nas.significance import Difference, over_seeds, unpaired
from nas.units import bracketed

LEAST_SEEDS = 3
"""With two seeds each, the interval of a difference is as wide as 20 points: their spread is hardly known."""


@dataclass(frozen=True)
class Words:
    """Comparisons of one objective: ``at once as ...``, ``... than``, ``... as``."""

    good: str
    better: str = ""
    worse: str = ""
    equal: str = ""


WORDS = {
    "accuracy": Words("accurate"),
    "balanced_accuracy": Words("accurate on every class"),
    "size": Words("small", "smaller", "larger", "as large"),
    "latency": Words("fast", "faster", "slower", "as fast"),
    "params": Words("low in parameters", "fewer parameters", "more parameters", "as many parameters"),
    "macs": Words("low in MACs", "fewer MACs", "more MACs", "as many MACs"),
    "memory": Words("low in memory", "less memory", "more memory", "as much memory"),
    "peak_memory": Words("low in memory", "less peak memory", "more peak memory", "as much peak memory"),
}


@dataclass(frozen=True)
class Distance:
    """A network's costs and accuracy beside those of a published one.

    Attributes:
        rival: the published one.
        key: the cost that is compared.
        ratio: the network's cost over the published one's.
        gap: its validation accuracy less the published one's.
        difference: `gap` with its interval; None where the run does not say how many images it has.
    """

    rival: Record
    key: str
    ratio: float
    gap: float
    difference: Difference | None

    def __str__(self) -> str:
        """Say it, such as ``2.1× smaller than han-e, 1.0 points less accurate (0.2 to 1.8)``."""
        name, words, factor = self.rival.architecture.name, WORDS[self.key], max(self.ratio, 1 / self.ratio)
        cost = f"{factor:.{1 if factor < 10 else 0}f}× {words.better if self.ratio < 1 else words.worse} than {name}"
        if factor < 1.05:
            cost = f"{words.equal} as {name}"
        return f"{cost}, {difference_in_words(self.difference or self.gap)}"


def cost_key(run: Run) -> str:
    """Return the first objective beside accuracy, or the size."""
    return next((objective.name for objective in run.objectives if objective.known), "size")


def published_networks(run: Run) -> list[Record]:
    """Return the published networks that were trained to the end in a run, and whose compared cost is known."""
    key = cost_key(run)
    return [record for record in run.records if record.published and record.ended and record.costs.get(key)]


def distance(run: Run, record: Record) -> Distance | None:
    """Compare a network with the nearest published one that was trained in the same run; None where there is none.

    Of those that cannot be told from it in validation accuracy, the cheapest; where there are none, the one whose
    validation accuracy is nearest. Cost is the first objective beside accuracy, or the size.
    """
    key = cost_key(run)
    own = record.costs.get(key)
    rivals = [other for other in published_networks(run) if other.number != record.number]
    if not own or not rivals:
        return None
    steps = []
    for rival in rivals:
        difference = validation_difference(run, record, rival)
        gap = difference.gap if difference else (record.accuracy or 0) - (rival.accuracy or 0)
        steps.append(Distance(rival, key, own / rival.costs[key], gap, difference))
    same = [step for step in steps if step.difference and not step.difference.is_distinguishable]
    return max(same, key=lambda step: step.ratio) if same else min(steps, key=lambda step: abs(step.gap))


def validation_difference(run: Run, record: Record, other: Record) -> Difference | None:
    """Return `record`'s lead in validation accuracy: over seeds where both have enough, else in the search.

    None where the run does not say how many images it has.
    """
    again, others = (item.confirmed.get("accuracies") or () for item in (record, other))
    epochs = record.confirmed.get("epochs")
    if min(len(again), len(others)) >= LEAST_SEEDS and epochs == other.confirmed.get("epochs"):
        return over_seeds(again, others)
    images = run.data.get("validation")
    if images is None or record.accuracy is None or other.accuracy is None:
        return None
    return unpaired(record.accuracy, other.accuracy, images)


def difference_in_words(difference: Difference | float) -> str:
    """Say ``not distinguishable in accuracy (−1.2 to +3.4 points)`` or the like; a bare gap has no interval."""
    gap = difference if isinstance(difference, float) else difference.gap
    more = f"{100 * abs(gap):.1f} points {'more' if gap > 0 else 'less'} accurate"
    if isinstance(difference, float):
        return more
    if not difference.is_distinguishable:
        ends = bracketed(f"{100 * difference.low:+.1f}", f"{100 * difference.high:+.1f}", " points").replace("-", "−")
        return f"not distinguishable in accuracy{ends}"
    low, high = sorted(100 * abs(end) for end in (difference.low, difference.high))
    return f"{more}{bracketed(f'{low:.1f}', f'{high:.1f}')}"
