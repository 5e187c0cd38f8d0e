"""Tables of what ``supernet.py`` measured, and what they say of its supernets."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any, TypeAlias

import machine
import numpy as np
import optuna
from numpy.typing import ArrayLike
from scipy.stats import kendalltau, spearmanr

import nas
from nas.architecture.space import Space
from nas.driver.sampler.known_cost import KnownCostSampler
from nas.driver.study import distributions
from nas.targets import TARGETS

Rows: TypeAlias = Sequence[dict[str, Any]]

LIKE = 2.0
"""Factor of MACs below which two members are of like cost."""
INT8 = TARGETS["onnxruntime-int8"]
TRAINED, CHOICES = 8, 20
BEGUN = 0.2
"""Share of the epochs that members train for which begin with the supernet's weights."""
SMALL = 100_000
"""Bytes of fp32 up to which a member is small."""


def concordance(guess: ArrayLike, truth: ArrayLike, macs: ArrayLike) -> tuple[float, int]:
    """Return Kendall's tau over the pairs of members of like cost, and how many they are."""
    guessed, true, cost = (np.subtract.outer(x, x) for x in (np.asarray(guess), np.asarray(truth), np.log(macs)))
    pairs = np.triu(np.abs(cost) < np.log(LIKE), 1)
    return float((np.sign(guessed) * np.sign(true))[pairs].mean()), int(pairs.sum())


def judge(
    known: dict[str, Any],
    space: Space,
    members: Sequence[nas.Architecture],
    arms: Sequence[str],
    seeds: int,
    say: machine.Output,
) -> None:
    """Print all tables.

    Args:
        known: rows by name.
        space: of the members.
        members: in the rows' order.
        arms: names of the supernets, of which the first is judged in every way.
        seeds: of the trainings alone.
    """
    count = len(members)
    rows = [[known[f"alone {seed} {number}"] for number in range(count)] for seed in range(seeds)]
    short = [known[f"short {number}"] for number in range(count)]
    truth = np.mean([[row["accuracy"] for row in each] for each in rows], axis=0)
    guesses, costs = guesses_and_costs(known, rows, short, arms)
    judge_guesses(guesses, costs, truth, rows, known["supernet"]["seconds_judging"] / count, say)
    say()
    costs_of = np.log([[row["macs"], row["params"]] for row in rows[0]])
    judge_choices(space, members, truth, np.array(known["supernet"]["judged"]), costs_of, say)
    say()
    judge_model(space, members, truth, {name: guesses[name] for name in ("MACs", *costs)}, say)
    say()
    judge_begun(known["supernet"]["begun"], rows, say)
    say()
    judge_rounding(known["supernet"], say)
    say()
    judge_steps(np.array(known["steps"]), say)


def guesses_and_costs(
    known: dict[str, Any], rows: Sequence[Rows], short: Rows, arms: Sequence[str]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return what guesses each member's accuracy, by name, and the seconds of those that something is trained for."""
    trained = [name for name in arms if name in known]
    guesses = {
        **{name: known[name]["judged"] for name in trained},
        "short": [row["accuracy"] for row in short],
        "params": [row["params"] for row in rows[0]],
        "MACs": np.array([row["macs"] for row in rows[0]]),
        "gradient norm": [row["gradient"] for row in short],
    }
    if len(rows) > 1:
        guesses["the other seed"] = [row["accuracy"] for row in rows[1]]
    costs = {name: known[name]["seconds"] for name in trained}
    return guesses, costs | {"short": sum(row["seconds"] for row in short)}


def judge_guesses(
    guesses: dict[str, Any],
    costs: dict[str, float],
    truth: np.ndarray,
    rows: Sequence[Rows],
    judging: float,
    say: machine.Output,
) -> None:
    """Say how each guess ranks the members, and at what cost; `judging` are the seconds of one in the supernet."""
    macs, members = guesses["MACs"], len(truth)
    one = sum(row["seconds"] for row in rows[0]) / members
    test = f"alone {100 * truth.min():.1f} to {100 * truth.max():.1f} % on the test images"
    say(f"{members} members of {macs.min() / 1e6:.2f} to {macs.max() / 1e6:.2f} M MACs; {test}, {one:.0f} s each")
    say(f"a member is judged in {judging:.2f} s; {concordance(macs, truth, macs)[1]} pairs of like cost")
    say(f"{'guess':20}{'trainings':>10}{'Kendall':>9}{'Spearman':>10}{'like cost':>11}")
    for name, guess in guesses.items():
        true = np.array([row["accuracy"] for row in rows[0]]) if name == "the other seed" else truth
        cost = f"{costs[name] / one:.1f}" if name in costs else ""
        ranks = kendalltau(guess, true).statistic, spearmanr(guess, true).statistic, concordance(guess, true, macs)[0]
        say(f"{name:20}{cost:>10}{ranks[0]:>9.2f}{ranks[1]:>10.2f}{ranks[2]:>11.2f}")


def judge_steps(steps: np.ndarray, say: machine.Output) -> None:
    """Compare a step of the supernet with those of its members by themselves; a row per round, the supernet first."""
    alone = steps[:, 1:].mean(1)
    ideal = 100 * alone / steps[:, 0]
    of = f"mean of {steps.shape[1] - 1} members"
    say(f"a step of the supernet, {of}: {machine.spread(1e3 * steps[:, 0])} ms (n = {len(steps)})")
    say(f"the same members by themselves: {machine.spread(1e3 * alone)} ms")
    say(f"share of the ideal: {machine.spread(ideal)} %")


def judge_choices(
    space: Space,
    members: Sequence[nas.Architecture],
    truth: np.ndarray,
    guess: np.ndarray,
    costs: np.ndarray,
    say: machine.Output,
) -> None:
    """Say which choices the supernet misjudges, by correlations with both accuracies, Kendall without the worst, and
    what the supernet tells of that part of the accuracies which costs and the worst choice do not explain.
    """
    chosen = [space.parameters(member) for member in members]
    found = []
    for name, choice in space.parameters_by_name.items():
        places = np.array([choice.values.index(each[name]) for each in chosen])
        alone, within = (float(np.corrcoef(places, accuracy)[0, 1]) for accuracy in (truth, guess))
        found.append((abs(within - alone), name, alone, within, places))
    found.sort(key=lambda each: -each[0])
    say(f"{'correlation of':22}{'alone':>7}{'in the supernet':>17}")
    for _, name, alone, within, _ in found[:4]:
        say(f"{name:22}{alone:>7.2f}{within:>17.2f}")
    _, name, *_, places = found[0]
    for place in np.unique(places):
        same = places == place
        option = space.parameters_by_name[name].values[place]
        tau = kendalltau(guess[same], truth[same]).statistic
        say(f"the supernet among {same.sum()} members of {name} {option}: Kendall {tau:.2f}")
    known = np.column_stack([np.ones(len(truth)), costs, places])
    alone, within = (each - known @ np.linalg.lstsq(known, each, rcond=None)[0] for each in (truth, guess))
    told = f"log MACs, log params and {name} explain {100 * (1 - alone.var() / truth.var()):.0f} % of the variance"
    say(f"{told}, {100 * alone.std():.1f} points are left;")
    say(f"of these the supernet tells: correlation {np.corrcoef(alone, within)[0, 1]:.2f}")


def judge_model(
    space: Space,
    members: Sequence[nas.Architecture],
    truth: np.ndarray,
    guesses: dict[str, Any],
    say: machine.Output,
) -> None:
    """Say how the sampler's model, given some members' accuracies and guesses of all, ranks the others."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    points, space_of_study = [space.parameters(member) for member in members], distributions(space)
    named = functools.partial(json.dumps, sort_keys=True)
    macs = {named(point): nas.cost(member, 10).macs for point, member in zip(points, members, strict=True)}
    orders = [np.random.default_rng(seed).permutation(len(members)) for seed in range(CHOICES)]

    def ranks(guess: Sequence[float], order: np.ndarray) -> list[float]:
        sampler = KnownCostSampler(known={1: lambda point: macs[named(point)]}, search_space=space_of_study)
        sampler.learn_from(list(zip(points, guess, strict=False)))
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        for place in order[:TRAINED]:
            values = [truth[place], macs[named(points[place])]]
            study.add_trial(
                optuna.trial.create_trial(values=values, params=points[place], distributions=space_of_study)
            )
        others = order[TRAINED:]
        expected = sampler.expected(study, [points[place] for place in others])
        assert expected is not None
        return ranked(expected[:, 0], others)

    def ranked(guess: ArrayLike, others: np.ndarray) -> list[float]:
        cost = np.array([macs[named(points[place])] for place in others])
        tau, rho = kendalltau(guess, truth[others]).statistic, spearmanr(guess, truth[others]).statistic
        return [tau, rho, concordance(guess, truth[others], cost)[0]]

    rows = {
        name: [ranked(np.array(guess)[order[TRAINED:]], order[TRAINED:]) for order in orders]
        for name, guess in guesses.items()
    }
    rows |= {
        f"model, {name}": [ranks(guess, order) for order in orders] for name, guess in guesses.items() if name != "MACs"
    }
    rows["model alone"] = [ranks([], order) for order in orders]
    alone = np.array(rows["model alone"])
    say(f"{len(members) - TRAINED} members ranked, {TRAINED} others trained: mean of {CHOICES} choices, and deviation")
    say(f"{'guess':22}{'Kendall':>14}{'Spearman':>10}{'like cost':>11}{'less than the model alone':>27}")
    for name, found in rows.items():
        row = np.array(found)
        means, less = row.mean(0), (alone - row)[:, 0]
        tau = f"{means[0]:.2f} +- {row[:, 0].std(ddof=1):.2f}"
        own = "" if name == "model alone" else f"{less.mean():.2f} +- {less.std(ddof=1):.2f}"
        say(f"{name:22}{tau:>14}{means[1]:>10.2f}{means[2]:>11.2f}{own:>27}")


def judge_begun(begun: Sequence[Sequence[float]], rows: Sequence[Rows], say: machine.Output) -> None:
    """Compare members that begin with the supernet's weights with the same from fresh ones, all and small ones."""
    truth = np.mean([[row["accuracy"] for row in each] for each in rows], axis=0)
    gained = 100 * (np.array(begun)[:, 0] - truth)
    part = sum(seconds for _, seconds in begun) / sum(row["seconds"] for row in rows[0])
    spent = f"{BEGUN:.0%} of the epochs ({part:.0%} of the seconds)"
    say(f"from the supernet's weights in {spent}, against fresh ones in all epochs:")
    small = np.array([4 * row["params"] <= SMALL for row in rows[0]])
    for name, some in {"all": np.ones_like(small), f"up to {SMALL // 1000} kB": small}.items():
        if some.any():
            ends = f"[{gained[some].min():+.1f}, {gained[some].max():+.1f}]"
            say(f"{name:14} n = {some.sum():2}: mean {gained[some].mean():+.1f} points, {ends}")
    tau = kendalltau(np.array(begun)[:, 0], truth).statistic
    say(f"rank correlation with the trainings from fresh weights: Kendall {tau:.2f}")


def judge_rounding(row: dict[str, Any], say: machine.Output) -> None:
    """Say how near simulated int8 is to the file's, and whether fp32 would rank alike."""
    int8 = row["int8"]
    file, fp32 = np.array(int8["file"]), np.array(row["judged"][: len(int8["file"])])
    say(f"int8 ({INT8.name}) of {len(file)} members in the supernet, against the file's accuracy:")
    for name, guess in {"fp32": fp32, "simulated int8": np.array(int8["simulated"])}.items():
        off = 100 * np.abs(guess - file)
        tau = kendalltau(guess, file).statistic
        say(f"{name:16} {off.mean():.2f} points off, at most {off.max():.2f}; Kendall {tau:.2f}")
    seconds = {name: np.mean(int8[f"seconds_{name}"]) for name in ("simulated", "file")}
    say(f"a member in int8: {seconds['simulated']:.2f} s simulated, {seconds['file']:.2f} s by its file")
