"""Importance of every search parameter, and the trials as parallel coordinates.

The importances are Optuna's. Its figures of them are not used: bars hide most names where 30 parameters have three
objectives each, and its parallel coordinates draw a trace per trial, which no axis can filter.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import optuna
from optuna.importance import MeanDecreaseImpurityImportanceEvaluator, get_param_importances

from nas.architecture.space import Value
from nas.driver.objectives import OBJECTIVES
from nas.driver.record import Record
from nas.driver.run import Run
from nas.report.scatter import HEATMAP, SCALE, Figure
from nas.units import QUANTITIES, listed

LEAST_TRIALS = 12
"""With fewer networks an importance says more about chance than about the parameter."""

MOST_TRIALS = 400
"""More are drawn from, evenly: the forest's time grows with them, its answer hardly changes."""

TREES = 32
MOST_ROWS = 14
LEAST_SHARE = 0.005
MOST_AXES = 7

Importances = Mapping[str, Mapping[str, float]]
"""Objective -> parameter -> share; the shares of one objective add up to 1."""


def importances(run: Run) -> Importances:
    """Compute each parameter's share of the differences in each objective (a random forest's decrease of impurity).

    Accuracy is judged on the networks trained to the end, a cost on all whose cost is known. Objectives with fewer than
    :data:`LEAST_TRIALS` networks, or no differences, are left out.
    """
    trials = run.study.get_trials(deepcopy=False)
    found = {}
    for objective in run.objectives:
        pairs = [
            (record, value)
            for record in run.records
            if record.params and record.twin is None and (value := record.value(objective)) is not None
            if objective.known or record.state == "complete"
        ]
        if len(pairs) < LEAST_TRIALS or len({value for _, value in pairs}) < 2:
            continue
        pairs = [pairs[index] for index in np.unique(np.linspace(0, len(pairs) - 1, MOST_TRIALS).astype(int))]
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params=dict(record.params),
                    distributions=trials[record.number].distributions,
                    # Costs span orders of magnitude; on a linear scale the largest networks alone would decide.
                    value=float(np.log(max(value, 1e-12))) if objective.known else value,
                )
                for record, value in pairs
            ]
        )
        evaluator = MeanDecreaseImpurityImportanceEvaluator(n_trees=TREES, seed=0)
        found[objective.name] = {k: float(v) for k, v in get_param_importances(study, evaluator=evaluator).items()}
    return found


def note(run: Run, found: Importances) -> str:
    """Return why an objective is missing; empty where none is."""
    missing = [QUANTITIES[o.name].title.lower() for o in run.objectives if o.name not in found]
    if not missing:
        return ""
    return (
        f"Too few networks to say what mattered for {listed(missing)}: it takes at least {LEAST_TRIALS} of the space "
        "that differ, for accuracy trained to the end."
    )


def importance_figure(found: Importances) -> Figure | None:
    """Draw parameters by objectives, the shares as numbers and shades, those that matter most first; None for none."""
    if not found:
        return None
    parameters = [name for name in _ranked(found) if max(s.get(name, 0) for s in found.values()) >= LEAST_SHARE]
    parameters = parameters[:MOST_ROWS]
    shares = [[100 * shares.get(name, 0.0) for shares in found.values()] for name in parameters]
    return {
        "data": [
            {
                **HEATMAP,
                "z": shares,
                "x": [OBJECTIVES[key].title for key in found],
                "y": [label(name) for name in parameters],
                "text": [[f"{share:.0f} %" if share >= 0.5 else "" for share in row] for row in shares],
                "hovertemplate": "%{y}, %{x}: %{z:.1f} %<extra></extra>",
                "zmax": max(max(row) for row in shares),
                "xgap": 2,
                "ygap": 2,
            }
        ],
        "layout": {
            "xaxis": {"side": "top", "showgrid": False, "fixedrange": True},
            "yaxis": {"autorange": "reversed", "showgrid": False, "fixedrange": True},
            "height": 70 + 27 * len(parameters),
            "margin": {"l": 140, "r": 16, "t": 40, "b": 10},
        },
    }


def parallel_figure(run: Run, found: Importances) -> Figure | None:
    """Draw trials as lines across the parameters that matter most and the objectives; None for fewer than two."""
    records = [record for record in run.records if record.ended and record.params and record.accuracy is not None]
    if len(records) < 2:
        return None
    varying = [name for name in records[0].params if len({str(record.params.get(name)) for record in records}) > 1]
    ranked = [name for name in _ranked(found) if name in varying] or varying
    rng = np.random.default_rng(0)
    options = {name: parameter.values for name, parameter in run.settings.open_space().parameters_by_name.items()}
    axes = [_choice_axis(name, options.get(name, ()), records, rng) for name in ranked[:MOST_AXES]]
    for objective in run.objectives:
        quantity = QUANTITIES[objective.name]
        values = [record.value(objective) or 0.0 for record in records]
        factor, unit = quantity.axis_unit(values)
        axes.append({"label": f"{objective.title} ({unit})", "values": [value * factor for value in values]})
    return {
        "data": [
            {
                "type": "parcoords",
                "dimensions": axes,
                "line": {
                    "color": [100 * (record.accuracy or 0.0) for record in records],
                    "colorscale": SCALE,
                    "showscale": False,
                },
                "labelangle": -20,
                "labelside": "top",
                "labelfont": {"color": "var(--ink)", "size": 12},
                "tickfont": {"color": "var(--soft)", "size": 11},
                "rangefont": {"color": "rgba(0,0,0,0)", "size": 1},
                "unselected": {"line": {"color": "var(--grid)", "opacity": 0.4}},
            }
        ],
        "layout": {"height": 400, "margin": {"l": 50, "r": 50, "t": 86, "b": 16}, "least_width": 90 * len(axes)},
    }


def label(parameter: str) -> str:
    """Put a parameter's name into words: ``stages[1].expansion`` is ``stage 2 expansion``."""
    words = re.sub(r"stages\[(\d+)\]", lambda match: f"stage {int(match[1]) + 1}", parameter)
    return escape(words.replace(".", " ").replace("_", " "))


def _ranked(found: Importances) -> list[str]:
    """Rank parameters by their largest share, each objective's most important ones first."""
    best: dict[str, float] = {}
    for shares in found.values():
        for name, share in shares.items():
            best[name] = max(best.get(name, 0.0), share)
    return sorted(best, key=lambda name: -best[name])


def _choice_axis(name: str, options: Sequence[Value], records: Sequence[Record], rng: np.random.Generator) -> Figure:
    """Make a parameter's axis: its options in the space's order, lines a little apart so that none hides another."""
    values = [record.params[name] for record in records]
    order = [option for option in options if option in values]
    return {
        "label": label(name),
        "values": [order.index(value) + rng.uniform(-0.12, 0.12) for value in values],
        "tickvals": list(range(len(order))),
        "ticktext": [escape(str(option)) for option in order],
        "range": [-0.4, len(order) - 0.6],
    }
