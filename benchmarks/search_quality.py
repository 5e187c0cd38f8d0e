"""How many trainings each sampler needs for the same front: our known-cost sampler beside those of Optuna.

    python benchmarks/search_quality.py --nasbench-macro nasbench_macro_cifar10.parquet
    python benchmarks/search_quality.py --seeds 2 --evaluations 60 --samplers random,known-cost --out /tmp/quality

Tables of three objectives each (``search_tables.py``), all minimised: error (linear), log params, log MACs.

nasbench-macro
    6,561 networks, trained to the end (Su et al., 2021, CVPR; CIFAR-10). Ideal and nadir are those of the true front of
    all of them. The table's error is the mean of three seeds, so it has little noise. Reading it needs pyarrow.
synthetic
    20 parameters of 5 values, 9.5e13 points, another space for each seed: an additive accuracy with pairwise
    interactions and saturation, noise of 0.2 points on every evaluation, and two known costs. Nobody can list the true
    front; it is taken to be what evolution on the noise-free functions finds in 160,000 evaluations.
cell, chain
    Two invented spaces of topologies, another for each seed (``topologies.py``): strong interactions, dead networks,
    plateaus, noise as that of seeds. They are listed, so their fronts are exact.

Samplers: those of Optuna and ours; ``gp`` is Optuna's Gaussian process, ``botorch`` (where it is installed) BoTorch's
with our candidates and the exact costs (``botorch_sampler.py``). These take seconds per proposal and so have
``--gp-seeds`` seeds alone. What part of ours is knowledge of the costs, and what part the model? ``model-alone`` is
ours without that knowledge: it models the costs too. ``tpe-costs`` is a rival with it: of what TPE proposes, a network
is not trained where an evaluated one costs no more and is as accurate as any so far, nor where it was trained before.

The figure is the hypervolume below the reference point (1.1, 1.1, 1.1) of all networks evaluated so far, with their
noise-free values, divided by that of the true front. A repeated network counts as an evaluation. Intervals are 95%
bootstrap intervals of the mean over seeds (of the median, for evaluations needed).

Writes ``<out>.csv`` (a row per table, sampler, seed and count) and ``<out>.html`` (the curves); prints the summary.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from search_tables import TOPOLOGIES, Array, Table, nasbench_macro, synthetic

from nas import pareto
from nas.driver.sampler.known_cost import KnownCostSampler

FIGURES = (25, 50, 100, 150, 200, 300)
REFERENCE = np.full(3, 1.1)
DIRECTIONS = [optuna.study.StudyDirection.MINIMIZE] * 3
MULTIVARIATE = "tpe-multivariate"
OURS = "known-cost"
RIVALS = ("random", "nsga2", "tpe", MULTIVARIATE, "gp", "botorch")
GOALS = (50, 100)  # ours is compared with the best rival after so many evaluations, and after all
WITH_COSTS = "tpe-costs"
SKIPPED_IN_A_ROW = 50
BOOTSTRAPS = 2000


def make_samplers(table: Table, seed: int) -> Mapping[str, Callable[[], optuna.samplers.BaseSampler]]:
    return {
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        MULTIVARIATE: lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True),
        WITH_COSTS: lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "botorch": lambda: make_botorch(table, seed),
        "model-alone": lambda: KnownCostSampler(search_space=table.space, seed=seed),
        OURS: lambda: KnownCostSampler(known=table.known, search_space=table.space, seed=seed),
    }


TABLES = ("nasbench-macro", "synthetic", *TOPOLOGIES)
SAMPLERS = ("random", "nsga2", "tpe", MULTIVARIATE, WITH_COSTS, "gp", "botorch", "model-alone", OURS)
SLOW = ("gp", "botorch")


def make_botorch(table: Table, seed: int) -> optuna.samplers.BaseSampler:
    from botorch_sampler import BoTorchSampler  # an extra, which takes seconds to import

    return BoTorchSampler(table.known, table.space, seed)


def is_hopeless(table: Table, trial: optuna.Trial, seen: Mapping[tuple[Any, ...], Array]) -> bool:
    """Tell from its costs that a network cannot enter the front unless it is more accurate than all before it."""
    if tuple(trial.params.items()) in seen:
        return True
    told = np.array(list(seen.values())).reshape(-1, 3)
    best = told[told[:, 0] <= told[:, 0].min(initial=np.inf)]
    costs = table.values(trial.params)[1:]
    return bool(np.any(np.all(best[:, 1:] <= costs, axis=1)))


def search(
    table: Table, sampler: optuna.samplers.BaseSampler, evaluations: int, *, knows_costs: bool = False
) -> tuple[Array, float]:
    """Relative hypervolume after each evaluation, shape (evaluations,), and seconds per ask and tell.

    `knows_costs`: proposals that their costs alone tell to be hopeless are passed over, up to 50 in a row.
    """
    seen: dict[tuple[Any, ...], Array] = {}
    study = optuna.create_study(directions=DIRECTIONS, sampler=sampler)
    ideal, nadir = table.front.min(axis=0), table.front.max(axis=0)
    whole = pareto.hypervolume((table.front - ideal) / (nadir - ideal), REFERENCE)
    front, curve, seconds = np.zeros((0, 3)), np.zeros(evaluations), 0.0
    for i in range(evaluations):
        start = time.perf_counter()
        trial = study.ask(table.space)
        for _ in range(SKIPPED_IN_A_ROW * knows_costs):
            if not is_hopeless(table, trial, seen):
                break
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            trial = study.ask(table.space)
        seconds += time.perf_counter() - start
        told = [float(value) for value in table.observed(trial.params, i)]
        seen[tuple(trial.params.items())] = np.array(told)
        start = time.perf_counter()
        study.tell(trial, told)
        seconds += time.perf_counter() - start
        point = (table.values(trial.params) - ideal) / (nadir - ideal)
        if np.any(np.all(front <= point, axis=1)):
            curve[i] = curve[i - 1]
            continue
        front = np.concatenate([front, point[None]])
        front = front[pareto.front_mask(front)]
        curve[i] = pareto.hypervolume(front, REFERENCE) / whole
    return curve, seconds / evaluations


def interval(samples: Array, statistic: Callable[..., Array]) -> tuple[float, float]:
    """95% bootstrap interval of a statistic over seeds."""
    draws = np.random.default_rng(0).integers(0, len(samples), (BOOTSTRAPS, len(samples)))
    low, high = np.percentile(statistic(samples[draws], axis=1), [2.5, 97.5])
    return float(low), float(high)


def needed(curves: Array, target: float) -> Array:
    """Evaluations until each curve reaches the target; infinite where it does not."""
    reached = curves >= target
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)


def summarise(name: str, curves: Mapping[str, Array], seconds: Mapping[str, Array], evaluations: int) -> pd.DataFrame:
    """Print one table, and return it as rows per sampler, seed and count."""
    figures = [n for n in FIGURES if n <= evaluations] or [evaluations]
    seeds = max(map(len, curves.values()))
    rivals = [sampler for sampler in RIVALS if sampler in curves]
    goals = [(MULTIVARIATE, evaluations)] if MULTIVARIATE in curves else []
    for count in sorted({*GOALS, evaluations}) if rivals else []:
        if count <= evaluations:
            best = max(rivals, key=lambda sampler: float(curves[sampler][:, count - 1].mean()))
            goals += [(best, count)] if (best, count) not in goals else []

    print(f"\n{name}: relative hypervolume, mean of {seeds} seeds [95% interval]")
    print(f"{'sampler':18s}" + "".join(f"{n:>26d}" for n in figures) + f"{'ms per trial':>14s}")
    for sampler, curve in curves.items():
        cells = []
        for n in figures:
            low, high = interval(curve[:, n - 1], np.mean)
            cells.append(f"{curve[:, n - 1].mean():>10.4f} [{low:.4f}, {high:.4f}]".rjust(26))
        few = f"   {len(curve)} seeds" if len(curve) < seeds else ""
        print(f"{sampler:18s}" + "".join(cells) + f"{1e3 * seconds[sampler].mean():>14.1f}{few}")
    reached: dict[str, Array] = {}
    for goal, count in goals:
        target = float(curves[goal][:, count - 1].mean())
        print(f"\nevaluations to reach the {target:.4f} that {goal} has at {count}: median [95% interval]")
        for sampler, curve in curves.items():
            counts = needed(curve, target)
            low, high = interval(np.minimum(counts, 10.0 * evaluations), np.median)
            median = float(np.median(counts))
            shown = _count(median, evaluations)
            bounds = ", ".join(_count(bound, evaluations) for bound in (low, high))
            ratio = f"   {count / median:.1f} times fewer" if sampler == OURS and math.isfinite(median) else ""
            print(f"{sampler:18s}{shown:>8s} [{bounds}], worst seed {_count(float(counts.max()), evaluations)}{ratio}")
            if (goal, count) == goals[0]:
                reached[sampler] = counts
    rows = [
        {
            "table": name,
            "sampler": sampler,
            "seed": seed,
            "evaluations": n,
            "relative_hypervolume": round(float(curve[seed, n - 1]), 6),
            "ms_per_trial": round(1e3 * float(seconds[sampler][seed]), 2),
            "evaluations_to_target": reached[sampler][seed] if sampler in reached else math.nan,
        }
        for sampler, curve in curves.items()
        for seed in range(len(curve))
        for n in figures
    ]
    return pd.DataFrame(rows)


def _count(needed_evaluations: float, evaluations: int) -> str:
    return f"{needed_evaluations:.0f}" if needed_evaluations <= evaluations else f"> {evaluations}"


def plot(results: Mapping[str, Mapping[str, Array]], path: Path) -> None:
    figure = make_subplots(rows=1, cols=len(results), subplot_titles=list(results))
    colors = dict(
        zip(
            SAMPLERS,
            ("#999999", "#e69f00", "#56b4e9", "#0072b2", "#cc79a7", "#009e73", "#f0e442", "#000000", "#d55e00"),
            strict=True,
        )
    )
    for column, curves in enumerate(results.values(), start=1):
        for sampler, curve in curves.items():
            count = np.arange(1, curve.shape[1] + 1)
            figure.add_scatter(
                x=count,
                y=np.round(curve.mean(axis=0), 4),
                error_y={"array": np.round(curve.std(axis=0), 4), "thickness": 0.3, "width": 0},
                name=sampler,
                legendgroup=sampler,
                showlegend=column == 1,
                line={"color": colors[sampler]},
                row=1,
                col=column,
            )
    figure.update_xaxes(title_text="evaluations")
    figure.update_yaxes(title_text="relative hypervolume", range=[0.0, 1.02])
    figure.update_layout(title="Mean over seeds, bars of one standard deviation", template="plotly_white")
    go.Figure(figure).write_html(path, include_plotlyjs="cdn")


def describe_machine(seeds: int, evaluations: int) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("optuna", "moocore", "numpy", "scipy"))
    processor = next(
        (line.split(":")[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.processor(),
    )
    return (
        f"{processor}, {platform.system()} {platform.machine()}, Python {platform.python_version()}, {packages}; "
        f"{seeds} seeds, {evaluations} evaluations, in-memory storage"
    )


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--nasbench-macro", type=Path, help="nasbench_macro_cifar10.parquet; skipped when absent")
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--gp-seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/search_quality"))
    options = parser.parse_args(arguments)
    chosen = options.samplers.split(",")
    if unknown := set(chosen) - set(SAMPLERS):
        parser.error(f"--samplers: {', '.join(sorted(unknown))} is not one of {', '.join(SAMPLERS)}")
    wanted = options.tables.split(",")
    if unknown := set(wanted) - set(TABLES):
        parser.error(f"--tables: {', '.join(sorted(unknown))} is not one of {', '.join(TABLES)}")
    if "botorch" in chosen and find_spec("botorch") is None:
        print("botorch: left out, it is not installed (pip install 'nas[benchmarks]')")
        chosen.remove("botorch")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)

    print(describe_machine(options.seeds, options.evaluations))
    makers: dict[str, Callable[[int], Table]] = {}
    if "nasbench-macro" in wanted and (macro := _read_macro(options.nasbench_macro)) is not None:
        makers["nasbench-macro"] = lambda seed: macro
    makers |= {name: make for name, make in {"synthetic": synthetic, **TOPOLOGIES}.items() if name in wanted}
    results: dict[str, dict[str, Array]] = {}
    frames = []
    for name, make in makers.items():
        tables = [make(seed) for seed in range(options.seeds)]
        curves, seconds = {}, {}
        for sampler in chosen:
            some = tables[: options.gp_seeds] if sampler in SLOW else tables
            runs = [
                search(t, make_samplers(t, s)[sampler](), options.evaluations, knows_costs=sampler == WITH_COSTS)
                for s, t in enumerate(some)
            ]
            curves[sampler] = np.stack([curve for curve, _ in runs])
            seconds[sampler] = np.array([duration for _, duration in runs])
        results[name] = curves
        frames.append(summarise(name, curves, seconds, options.evaluations))
        sys.stdout.flush()
    if not frames:
        print("nothing to do")
        return 0
    options.out.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(frames).to_csv(options.out.with_suffix(".csv"), index=False)
    plot(results, options.out.with_suffix(".html"))
    print(f"\nwrote {options.out.with_suffix('.csv')} and {options.out.with_suffix('.html')}")
    return 0


def _read_macro(path: Path | None) -> Table | None:
    if path is None or not path.exists():
        where = "no --nasbench-macro was given" if path is None else f"{path} does not exist"
        print(f"\nnasbench-macro: skipped, {where}")
        return None
    try:
        return nasbench_macro(path)
    except ImportError:
        print("\nnasbench-macro: skipped, reading a parquet file needs pyarrow (pip install pyarrow)")
        return None


if __name__ == "__main__":
    sys.exit(main())
