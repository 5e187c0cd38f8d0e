"""Of a front's members that are said to belong there with 80 %, do 80 %? Against a truth that a search does not see.

    python benchmarks/calibration.py
    python benchmarks/calibration.py --seeds 2 --trials 20 --tables cell

Each search is of one of ``search_quality.py``'s invented spaces, which know every network's accuracy without noise.
Told is a count of so many validation images after trainings that differ by half a point. Two objectives: accuracy and
parameters. A network belongs on the front when, without noise, none of the search's networks that cost no more is as
accurate. Printed per range of the probabilities that ``nas`` gives: members, mean probability, and the share that
belongs with Wilson's 95 % interval; then how far observed and expected accuracies of the front are from the truth.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import warnings
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from search_quality import describe_machine
from search_tables import TOPOLOGIES, Table, synthetic

from nas import pareto
from nas.architecture.space import Space
from nas.driver.belief import believe
from nas.driver.objectives import parse_objectives
from nas.driver.record import Record
from nas.driver.sampler.known_cost import KnownCostSampler
from nas.significance import wilson

OBJECTIVES = parse_objectives("accuracy,params")
RANGES = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)
SEED_STD = 0.005


def searched(table: Table, seed: int, trials: int, images: int) -> tuple[list[Record], np.ndarray[Any, Any]]:
    """Search; return its networks, and their true accuracies and parameters, shape (trials, 2), accuracy negative."""
    sampler = KnownCostSampler(known={1: table.known[1]}, search_space=table.space, seed=seed)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    rng = np.random.default_rng([seed, 3])
    told, true = [], []
    for _ in range(trials):
        trial = study.ask(table.space)
        error, log_params, _ = table.values(trial.params)
        reached = float(np.clip(1 - error + SEED_STD * rng.standard_normal(), 0, 1))
        told.append([rng.binomial(images, reached) / images, float(np.exp(log_params))])
        true.append([error - 1, log_params])
        study.tell(trial, [1 - told[-1][0], float(log_params)])
    seen = np.array(told) * [-1, 1]
    empty = dict.fromkeys(item.name for item in fields(Record)) | {"state": "complete", "curve": [{}], "confirmed": {}}
    empty |= {"origin": "", "beside": ""}
    places = zip(study.trials, told, pareto.front_mask(seen), strict=True)
    records = [
        Record(
            **cast(dict[str, Any], empty)
            | {"number": trial.number, "params": trial.params, "on_front": bool(on_front)}
            | {"accuracy": accuracy, "costs": {"params": params}}
        )
        for trial, (accuracy, params), on_front in places
    ]
    return records, np.array(true)


def main() -> int:
    makers = {"synthetic": synthetic, **TOPOLOGIES}
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tables", default=",".join(makers))
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--images", type=int, default=500)
    options = parser.parse_args()
    if unknown := set(options.tables.split(",")) - set(makers):
        parser.error(f"--tables: {', '.join(sorted(unknown))} is not one of {', '.join(makers)}")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    print(f"{describe_machine(options.seeds, options.trials)}; {options.images} images")
    for name in options.tables.split(","):
        members, errors = [], []
        for seed in range(options.seeds):
            table = makers[name](seed)
            records, true = searched(table, seed, options.trials, options.images)
            levels = {
                key: SimpleNamespace(values=cast(CategoricalDistribution, d).choices) for key, d in table.space.items()
            }
            space = cast(Space, SimpleNamespace(parameters_by_name=levels))
            belief = believe(records, space, OBJECTIVES, options.images)
            belongs = pareto.front_mask(true)
            for record in records:
                if record.on_front:
                    members.append((belief.belongs[record.number], float(belongs[record.number])))
                    truth = -true[record.number, 0]
                    errors.append(((record.accuracy or 0) - truth, (belief.expected(record) or 0) - truth))
        said, held = np.array(members).T
        print(f"\n{name}: {len(members)} members of {options.seeds} fronts")
        for low, high in itertools.pairwise(RANGES):
            some = (said >= low) & ((said < high) | (high == 1.0))
            if some.any():
                ends = wilson(float(held[some].mean()), int(some.sum()))
                print(
                    f"said {low:.0%} to {high:.0%}: {some.sum():4d} members, mean {said[some].mean():.0%}, "
                    f"belong {held[some].mean():.0%} [{ends[0]:.0%}, {ends[1]:.0%}]"
                )
        for title, deviation in zip(("observed", "expected"), np.array(errors).T, strict=True):
            print(
                f"{title} accuracy less the truth: mean {100 * deviation.mean():+.2f} points, root mean square "
                f"{100 * np.sqrt(np.mean(deviation**2)):.2f}"
            )
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
