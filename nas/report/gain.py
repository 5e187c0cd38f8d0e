"""Compare a search with the line of its references: what it gained over published networks that are just made thinner.

Both ways of reading a distance between two trade-off curves, as Bjøntegaard's deltas are for codecs (VCEG-M33, 2001):
in accuracy at equal cost and in cost at equal accuracy, here as means over the networks that the search found.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from nas import pareto
from nas.driver.objectives import OBJECTIVES, trained_for
from nas.driver.record import Record
from nas.driver.run import Run
from nas.report.distance import LEAST_SEEDS, WORDS, Words, cost_key, published_networks
from nas.units import bracketed, counted

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: Numbers) -> "Estimate":
        low, value, high = np.percentile(draws, [2.5, 50, 97.5])
        return cls(float(value), float(low), float(high))


@dataclass(frozen=True)
class Gain:
    """A search beside the line of its references.

    Attributes:
        key: the cost that is compared.
        points: accuracy beyond the line's at equal cost; None where no network costs as much as the line's first.
        times: the line's cost at equal accuracy over a network's, geometric mean; None where none has an equal there.
        networks: how many found networks the means are over.
        seeds: trainings of each network in its confirmation; 0 where accuracies are the search's.
        test: `points` on test images; None where not all of these networks have judged them.
    """

    key: str
    points: Estimate | None
    times: Estimate | None
    networks: int
    seeds: int
    test: float | None


class Line:
    """The best accuracy that the references give at a cost, straight between them on a logarithmic scale of costs.

    Args:
        logs: of their costs, ascending, shape (references,).
        accuracies: shape (draws, references).
    """

    def __init__(self, logs: Numbers, accuracies: Numbers) -> None:
        self.logs = logs
        self.best = np.maximum.accumulate(accuracies, axis=1)

    def accuracy(self, log: float) -> Numbers:
        """Return the line's height at a cost, shape (draws,); flat beyond its ends."""
        return np.array([np.interp(log, self.logs, best) for best in self.best])

    def log(self, accuracies: Numbers) -> Numbers:
        """Return the logarithm of the cost at which the line reaches each draw's accuracy, kept within its ends."""
        reached = self.best >= accuracies[:, None]
        after = np.where(reached.any(axis=1), reached.argmax(axis=1), len(self.logs) - 1)
        before, rows = np.maximum(after - 1, 0), np.arange(len(accuracies))
        low, high = self.best[rows, before], self.best[rows, after]
        share = np.clip((accuracies - low) / np.where(high > low, high - low, np.inf), 0, 1)
        share = np.where(reached.any(axis=1), share, 1.0)
        return np.asarray(self.logs[before] + share * (self.logs[after] - self.logs[before]))


def references(run: Run) -> list[Record]:
    """Return the published networks that were trained to the end, the cheapest first: the line's points."""
    key = cost_key(run)
    return sorted(published_networks(run), key=lambda record: record.costs[key])


def found_networks(run: Run) -> list[Record]:
    """Return the networks that the search found which none of them dominates in accuracy and the compared cost."""
    key, judged = cost_key(run), trained_for(run.objectives)
    found = [record for record in run.front_records if not record.origin and record.costs.get(key)]
    mask = pareto.front_mask(
        np.reshape([[record.costs[key], -(record.value(judged) or 0)] for record in found], (-1, 2))
    )
    return [record for record, is_best in zip(found, mask, strict=True) if is_best]


def gain(run: Run) -> Gain | None:
    """Measure what a search gained; None where there is nothing to compare."""
    line, found = references(run), found_networks(run)
    if not (line and found):
        return None
    draws, seeds = _accuracies(run, [*line, *found])
    key = cost_key(run)
    logs = np.log([record.costs[key] for record in (*line, *found)])
    compared = partial(_compare, logs, len(line))
    points, times, networks = compared(draws)
    if points is None and times is None:
        return None
    test = [record.confirmed.get("test_accuracy") for record in (*line, *found)]
    read = [value for value in test if value is not None]
    on_test = compared(np.array([read]))[0] if len(read) == len(test) else None
    return Gain(
        key,
        None if points is None else Estimate.of(points),
        None if times is None else Estimate.of(times),
        networks,
        seeds,
        None if on_test is None else float(on_test[0]),
    )


def _compare(logs: Numbers, references: int, draws: Numbers) -> tuple[Numbers | None, Numbers | None, int]:
    """Mean points and geometric mean of times, by draw, over the networks after the references; and their number.

    A network that is both cheaper and less accurate than the line's beginning has no equal on it, nor has one that is
    both dearer and more accurate than its end; at equal cost the line is flat beyond its end.
    """
    line = Line(logs[:references], draws[:, :references])
    least, most = float(draws[:, 0].mean()), float(line.best[:, -1].mean())
    points, times = [], []
    for place in range(references, len(logs)):
        own, log = draws[:, place], float(logs[place])
        mean = float(own.mean())
        if log >= logs[0]:
            points.append(own - line.accuracy(log))
        if (log >= logs[0] or mean >= least) and (log <= logs[references - 1] or mean <= most):
            times.append(line.log(own) - log)
    mean_points = np.mean(points, axis=0) if points else None
    mean_times = np.exp(np.mean(times, axis=0)) if times else None
    return mean_points, mean_times, max(len(points), len(times))


def _accuracies(run: Run, records: Sequence[Record]) -> tuple[Numbers, int]:
    """Draw accuracies without noise, shape (draws, networks), and the seeds of the confirmation that they are from; 0:
    what the search believes of them.
    """
    again = _confirmed(records)
    if again is not None:
        return again
    drawn = [run.belief.of(record) for record in records]
    return np.array([own for own in drawn if own is not None]).T, 0


def _confirmed(records: Sequence[Record], draws: int = 2_000) -> tuple[Numbers, int] | None:
    """Draw mean accuracies over the seeds of a confirmation, shape (draws, networks), with the number of seeds.

    Each seed has its own validation images, the same for all networks: what a seed adds to all of them is left out of
    the noise (two-way analysis of variance). None where not every network has enough of the same seeds.
    """
    epochs = {record.confirmed.get("epochs") for record in records}
    if len(epochs) != 1 or None in epochs or len(records) < 2:
        return None
    by_seed = [record.confirmed["repeats"][str(*epochs)] for record in records]
    seeds = set(by_seed[0]).intersection(*by_seed)
    if len(seeds) < LEAST_SEEDS:
        return None
    table = np.array([[own[seed] for seed in sorted(seeds)] for own in by_seed])
    means = table.mean(axis=1)
    rest = table - means[:, None] - table.mean(axis=0) + table.mean()
    freedom = (len(records) - 1) * (len(seeds) - 1)
    deviation = math.sqrt(float((rest**2).sum()) / freedom / len(seeds))
    noise = stats.t.rvs(freedom, size=(draws, len(records)), random_state=0)
    return means + deviation * noise, len(seeds)


def sentences(run: Run) -> list[str]:
    """Say what the search gained over the line of its references; empty where it had none or found nothing."""
    line, networks = references(run), found_networks(run)
    if not (line and networks):
        return []
    named = f"the line of the {counted(len(line), 'published network')} trained here"
    if len(line) == 1:
        named = f"{line[0].architecture.name}, the one published network trained here,"
    found = gain(run)
    if found is None:
        return [_below_the_line(run, line[0], networks)]
    noun = OBJECTIVES[found.key].title
    noun = noun if noun.isupper() or noun == "MACs" else noun.lower()
    figures, lows, highs = [], [], []
    if found.points is not None:
        ends = bracketed(_signed(found.points.low), _signed(found.points.high))
        figures.append(f"{_signed(found.points.value)} points of accuracy at equal {noun}{ends}")
        lows.append(found.points.low)
        highs.append(found.points.high)
    if found.times is not None:
        figures.append(_times(found.times, noun, WORDS[found.key]))
        lows.append(math.log(found.times.low))
        highs.append(math.log(found.times.high))
    verdict = "gained nothing that chance does not explain"
    if max(lows) > 0 and min(highs) > 0:
        verdict = "gained"
    elif min(highs) < 0 and max(lows) <= 0:
        verdict = "fell short"
    intervals = "95 % intervals, " if any(figure.endswith(")") for figure in figures) else ""
    test = "" if found.test is None else f" On test images, which chose nothing: {_signed(found.test)} points."
    return [
        f"Against {named} the search {verdict}: {', '.join(figures)}; means over "
        f"{counted(found.networks, 'network')} of the front, {intervals}{_basis(found.seeds)}.{test}"
    ]


def _basis(seeds: int) -> str:
    if seeds:
        return f"trained again with {seeds} seeds"
    return "by validation accuracy, corrected for having been chosen by it"


def _below_the_line(run: Run, first: Record, found: Sequence[Record]) -> str:
    """Compare the most accurate network found with the cheapest reference, which all found ones cost and reach less
    than: nothing on the line is equal to any of them.
    """
    key = cost_key(run)
    draws, seeds = _accuracies(run, [first, *found])
    place = int(draws[:, 1:].mean(axis=0).argmax())
    points = Estimate.of(draws[:, 1 + place] - draws[:, 0])
    times = first.costs[key] / found[place].costs[key]
    told = "less accurate" if points.high < 0 else "no difference in accuracy that can be told"
    ends = bracketed(_signed(points.low), _signed(points.high))
    kind = "95 % interval, " if ends else ""
    return (
        f"No published network trained here is as {WORDS[key].good} as those found. The most accurate of these, "
        f"{times:.1f} times {WORDS[key].better} than {first.architecture.name}, has {_signed(points.value)} points of "
        f"accuracy beside it{ends}, {told}; {kind}{_basis(seeds)}."
    )


def _times(times: Estimate, noun: str, words: Words) -> str:
    """Say ``2.1 times smaller at equal accuracy (1.5 to 3.0)``, or the other way round where it is larger.

    An interval from the one to the other says neither; it is given without a middle.
    """
    if times.value < 1 and times.low == times.high:  # in every draw less accurate than where the line begins
        return f"at least {1 / times.value:.1f} times {words.worse} at equal accuracy"
    if times.low < 1 < times.high:
        ends = f"{1 / times.low:.1f} times {words.worse} to {times.high:.1f} times {words.better}"
        return f"no difference in {noun} that can be told at equal accuracy ({ends})"
    word = words.better
    if times.value < 1:
        times, word = Estimate(1 / times.value, 1 / times.high, 1 / times.low), words.worse
    return f"{times.value:.1f} times {word} at equal accuracy{bracketed(f'{times.low:.1f}', f'{times.high:.1f}')}"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")
