"""Reliability of a run's figures: the search's against confirmed ones, and how the run was made."""

import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from nas.driver.confirmation import Confirmed, confirmed_networks
from nas.driver.prepare import LATENCY_FILE
from nas.driver.run import Run
from nas.errors import UserError
from nas.export.judging import MOST_LOST
from nas.latency import load_table
from nas.report.points import Point, shown_name
from nas.report.scatter import Figure
from nas.significance import agreement, holm, spearman, welch
from nas.units import counted, listed

SYMBOLS = {"found": "circle", "own": "square", "published": "diamond"}

AGAINST: Mapping[str, tuple[str, str, float, str, str]] = {
    "accuracy": ("accuracy", "test_accuracy", 100, "Validation accuracy (%)", "Test accuracy (%)"),
    "latency": ("latency", "measured_latency", 1, "Predicted latency (ms)", "Measured latency (ms)"),
    "supernet": ("supernet_accuracy", "accuracy", 100, "In the supernet (%)", "Validation accuracy (%)"),
}
"""Figures of one quantity against another, of the networks that have both: keys, factor on screen, titles."""

LEAST_NETWORKS = 4
"""With fewer networks the order of two lists agrees or not by chance."""


MOST_PAIRS = 6
"""A longer list of pairs is cut: nobody reads it."""


def confirmed_figure(run: Run, points: Sequence[Point]) -> Figure | None:
    """Draw the search's accuracy against that of trainings with other seeds, mean and sample standard deviation."""
    indices = {point.number: index for index, point in enumerate(points)}
    confirmed = [item for item in confirmed_networks(run.records) if item.record.number in indices]
    if not confirmed:
        return None
    return _diagonal(
        points,
        [indices[item.record.number] for item in confirmed],
        [100 * (item.record.accuracy or 0) for item in confirmed],
        [100 * item.mean for item in confirmed],
        "Validation accuracy in the search (%)",
        "Validation accuracy, trained again (%)",
        [100 * item.spread for item in confirmed],
    )


def sentences(run: Run) -> list[str]:
    """Say how the search's figures compare with confirmed ones."""
    said = (_tested(run), *_shipped(run), _trained_again(run), *_latencies(run), _supernet(run))
    return [sentence for sentence in said if sentence]


def _tested(run: Run) -> str:
    pairs = [
        (record.accuracy, test)
        for record in run.records
        if record.accuracy is not None and (test := record.confirmed.get("test_accuracy")) is not None
    ]
    if not pairs:
        return "The test set has not been read: accuracies are those on validation images, which the search chose by."
    return (
        f"The test set was read once, after the search, for {counted(len(pairs), 'network')}: on average they get "
        f"{_lead(fmean(test - validation for validation, test in pairs))} of it right than of the validation images."
        f"{_agreement(pairs)}"
    )


def _shipped(run: Run) -> list[str]:
    """Say what int8 costs in accuracy, and how the files that ship compare with what was predicted of them."""
    said = []
    losses = [r.fp32_accuracy - (r.accuracy or 0.0) for r in run.records if r.fp32_accuracy is not None]
    if losses:
        worst = f", the worst {100 * max(losses):.1f} less" if max(losses) > 0 else ""
        advice = "; nas train --qat trains for int8" if max(losses) > MOST_LOST else ""
        said.append(
            "Networks that were trained to the end are judged in int8, those that were stopped in fp32. In int8 "
            f"{counted(len(losses), 'network')} get on average {_lead(-fmean(losses))} of the validation images right "
            f"than in fp32{worst}{advice}."
        )
    for name, title in (("size", "sizes"), ("memory", "memory needs")):
        pairs = [(r.costs[name], r.measured[name]) for r in run.records if name in r.costs and name in r.measured]
        if pairs:
            error = max(abs(predicted / measured - 1) for predicted, measured in pairs)
            files = counted(len(pairs), "file")
            said.append(f"Predicted {title} are at most {100 * error:.2g} % off those measured of {files}.")
    return said


def over_limits(run: Run) -> list[str]:
    """Name the networks of the front that are over a limit by what was measured, though not by what was predicted."""
    return [
        f"{shown_name(run, record)} is over a limit: {over}."
        for record in run.front_records
        if (over := run.measured_over_limits(record))
    ]


def _trained_again(run: Run) -> str:
    confirmed = confirmed_networks(run.records)
    if not confirmed:
        return ""
    # A confirmation draws its own validation images where it can; see nas.training.data.resplit.
    stays = run.data.get("own_validation") or run.settings.train_size is not None
    drawn = "" if stays else " and draws of validation images"
    found = spearman([c.record.accuracy or 0.0 for c in confirmed], [c.mean for c in confirmed])
    correlation = "" if found is None else f" Rank correlation between the two (Spearman): {found:.2f}."
    return (
        f"{counted(len(confirmed), 'network')} were trained again, {counted(confirmed[0].epochs, 'epoch')} each with "
        f"other seeds{drawn}: on average they get "
        f"{_lead(fmean(c.mean - (c.record.accuracy or 0) for c in confirmed))} of the validation images right than in "
        f"the search.{correlation}{_not_told_apart(run, confirmed)}"
    )


def _latencies(run: Run) -> list[str]:
    said = []
    measured = [record for record in run.records if record.confirmed.get("latency_ms")]
    pairs = [(r.costs["latency"], r.confirmed["latency_ms"]) for r in measured if r.costs.get("latency")]
    if pairs:
        error = fmean(abs(predicted / found - 1) for predicted, found in pairs)
        said.append(
            f"Predicted latencies are {100 * error:.0f} % off the measured ones on average of {len(pairs)}."
            f"{_agreement(pairs)}"
        )
    noisy = [reason for record in measured if (reason := record.confirmed.get("latency_noisy"))]
    if noisy:
        count = counted(len(measured), "measured latency", "measured latencies")
        said.append(f"{len(noisy)} of {count}: {noisy[0]}.")
    return said


def _supernet(run: Run) -> str:
    pairs = [
        (record.supernet_accuracy, record.accuracy)
        for record in run.records
        if record.supernet_accuracy is not None and record.accuracy is not None and record.state == "complete"
    ]
    if not pairs:
        return ""
    trusted = run.study.user_attrs.get("supernet_trusted")
    verdict = " It was not to be trusted, and the search went on without it." if trusted is False else ""
    return (
        f"A supernet judged {counted(len(pairs), 'network')} that were trained after that.{_agreement(pairs)}{verdict}"
    )


def _lead(share: float) -> str:
    return f"{100 * abs(share):.1f} points {'less' if share < 0 else 'more'}"


def _agreement(pairs: Sequence[tuple[float, float]]) -> str:
    """Say how far two figures order networks alike; empty for few networks."""
    found = agreement([first for first, _ in pairs], [second for _, second in pairs])
    if found is None or len(pairs) < LEAST_NETWORKS:
        return ""
    ties = f", {found.tied} tied" if found.tied else ""
    return (
        f" The two order {found.same} of {found.pairs} pairs of networks alike and {found.opposite} the other way "
        f"round{ties} (Kendall's tau-b {found.tau:.2f})."
    )


def _not_told_apart(run: Run, confirmed: Sequence[Confirmed]) -> str:
    """Name the pairs of the front that its seeds cannot tell apart in accuracy, as many as one reads."""
    front = [item for item in confirmed if item.record.on_front and len(item.accuracies) > 1]
    pairs = list(itertools.combinations(front, 2))
    adjusted = holm([welch(a.accuracies, b.accuracies) for a, b in pairs])
    tied = [
        f"{shown_name(run, a.record)} and {shown_name(run, b.record)}"
        for (a, b), p_value in zip(pairs, adjusted, strict=True)
        if p_value > 0.05
    ]
    if not tied:
        return ""
    more = f"; and {len(tied) - MOST_PAIRS} more" if len(tied) > MOST_PAIRS else ""
    return (
        f" Of the {counted(len(pairs), 'pair')} on the front these trainings do not tell {len(tied)} apart in accuracy "
        f"(Welch's t-tests at 5 % over all pairs, by Holm's correction): {'; '.join(tied[:MOST_PAIRS])}{more}."
    )


def facts(run: Run) -> list[tuple[str, str]]:
    """List how the run was made, as (what, how)."""
    settings, environment = run.settings, run.environment
    recipe = settings.parsed_recipe
    levels = settings.rungs
    stopping = (
        f"after epoch {listed([str(level) for level in levels])} one trial of {settings.reduction} goes on, "
        "compared by dominance over all objectives, and every one that no other dominates"
        if levels
        else "none"
    )
    images = (
        f"{settings.train_size:,} images drawn from the training set" if settings.train_size else "whole training set"
    )
    rows = [
        ("Data", f"{settings.dataset}; {images}"),
        ("Images", images_line(run)),
        ("Split", _split(run)),
        ("Target", "" if settings.target == "torch" else settings.target),
        ("Objectives", ", ".join(settings.objectives)),
        ("Limits", ", ".join(settings.limits) or "none"),
        ("Sampler", f"{settings.sampler}, seed {settings.seed}"),
        ("Budget", f"{counted(settings.trials, 'trial')} of {counted(recipe.epochs, 'epoch')}"),
        ("Early stopping", stopping),
        (
            "Recipe",
            f"{recipe.optimizer}, learning rate {recipe.lr:g}, {recipe.schedule.replace('_', ' ')}, "
            f"batch {recipe.batch_size}, weight decay {recipe.weight_decay:g}",
        ),
        ("Validation set", "read after every epoch of every trial; it steers the search"),
        ("Test set", "kept apart; read once, after the search, for the front and the published networks beside it"),
        ("Seeds", _seeds(run)),
        ("Device", _join(environment, "device", "cpu")),
        ("Latency", _latency(run)),
        ("Machine", _join(environment, "platform", "cores") + (" cores" if environment.get("cores") else "")),
        ("Started", str(environment.get("started", ""))),
        ("Python", str(environment.get("python", ""))),
        ("Versions", ", ".join(f"{name} {number}" for name, number in environment.get("versions", {}).items())),
    ]
    return [(what, how) for what, how in rows if how]


def _seeds(run: Run) -> str:
    several = max((len(record.confirmed.get("accuracies") or ()) for record in run.records), default=0)
    if several > 1:
        return f"front confirmed with up to {several} trainings each; the table gives their mean and spread"
    how = "front confirmed with one further training each" if several else "each network trained once"
    return f"{how}: differences of a point may be chance"


def images_line(run: Run) -> str:
    """Count images per part, classes and image side; empty in a run of an older nas."""
    data = run.data
    if not {"train", "validation", "test", "classes", "resolution"} <= data.keys():
        return ""
    return (
        f"{data['train']:,} training, {data['validation']:,} validation and {data['test']:,} test images, "
        f"{counted(data['classes'], 'class', 'classes')}, {data['resolution']} × {data['resolution']} pixels"
    )


def _split(run: Run) -> str:
    if run.data.get("own_validation"):
        return "validation and training images as the folder divides them"
    held_out = f"{100 * run.settings.validation_fraction:g} %"
    drawn = ", drawn again for each training" if run.settings.resplit else ""
    return f"{held_out} of it held out for validation, stratified, seed {run.settings.seed}{drawn}"


def _latency(run: Run) -> str:
    """Name the latency table's device, and how well it predicts; empty where there is no table."""
    path = run.path / LATENCY_FILE
    if not path.exists():
        return ""
    try:
        table = load_table(path)
    except UserError as error:  # the rest of the report does not depend on it
        return str(error)
    where, held = table.provenance, table.held_out
    text = (
        f"{where.device}, {where.engine}, {counted(where.threads, 'thread')}, batch {where.batch}; of "
        f"{held.networks} networks held out {100 * held.within_10:.0f} % are predicted to within 10 %"
    )
    return f"{text}; {table.complaint}" if table.complaint else text


def _join(environment: Mapping[str, Any], *keys: str) -> str:
    found = [str(environment[key]) for key in keys if environment.get(key)]
    return ", ".join(dict.fromkeys(found))


def against(points: Sequence[Point], name: str) -> Figure | None:
    """Draw one of :data:`AGAINST`; None where no network has both quantities."""
    x, y, factor, x_title, y_title = AGAINST[name]
    shown = [i for i, p in enumerate(points) if p.kind != "printed" and x in p.values and y in p.values]
    xs, ys = ([points[index].values[key] * factor for index in shown] for key in (x, y))
    return _diagonal(points, shown, xs, ys, x_title, y_title) if shown else None


def _diagonal(
    points: Sequence[Point],
    shown: Sequence[int],
    xs: Sequence[float],
    ys: Sequence[float],
    x_title: str,
    y_title: str,
    spreads: Sequence[float] | None = None,
) -> Figure:
    """Draw two figures of the same networks against each other, and the line on which they are equal."""
    reach = [y + sign * spread for sign in (-1, 1) for y, spread in zip(ys, spreads or [0.0] * len(ys), strict=True)]
    low, high = min(*xs, *reach), max(*xs, *reach)
    edge = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    ends = [low - edge, high + edge]
    kinds = [points[index].kind for index in shown]
    networks: Figure = {
        "x": xs,
        "y": ys,
        "mode": "markers",
        "marker": {
            "size": 9,
            "symbol": [SYMBOLS[kind] for kind in kinds],
            "color": [f"var(--{kind})" for kind in kinds],
        },
        "hovertemplate": "%{x:.4g}, %{y:.4g}<extra></extra>",
        "meta": {"role": "check", "points": list(shown)},
    }
    if spreads is not None:
        networks["error_y"] = {"array": list(spreads), "color": "var(--stopped)", "thickness": 1, "width": 4}
    equal = {"x": ends, "y": ends, "mode": "lines", "hoverinfo": "skip"}
    return {
        "data": [{**equal, "line": {"color": "var(--stopped)", "width": 1, "dash": "dash"}}, networks],
        "layout": {
            "xaxis": {"title": {"text": x_title}, "range": ends},
            "yaxis": {"title": {"text": y_title}, "range": ends},
            "showlegend": False,
            "hovermode": "closest",
            "height": 340,
        },
    }
