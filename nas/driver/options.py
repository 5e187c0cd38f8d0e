"""Options of `nas search` and of :func:`nas.search`, stated once; importing this loads neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nas.errors import UserError
from nas.options import (
    ABOVE_0,
    FROM_0,
    FROM_1,
    TARGETS,
    THREADS,
    Augment,
    ClassWeights,
    DataDir,
    Epochs,
    Fit,
    Flip,
    OnCommandLine,
    Seed,
    Strict,
    TrainSize,
    check_options,
    resumable_options,
)
from nas.training.options import DATASETS, DEFAULT_FIT

if TYPE_CHECKING:
    from nas.architecture.document import Architecture
    from nas.architecture.space import Space
    from nas.driver.scheduler import Progress
    from nas.training.recipe import Recipe
else:  # they load torch; the command line gives names
    Architecture = Space = Progress = Recipe = Any

DEFAULT_TRIALS = 32
MOST_TRIALS = 10_000
"""Trials of a search that is limited by its time alone, until it ends."""

ON_RESUME = OnCommandLine(default=None, resumes=True)
"""An option that a resumed search may change; where it is not given, the run's own value holds."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Machine resources that a search may use, and its tolerance of failures; a resumed search may change them.

    cpus_per_trial   default 1 on a CPU (several networks at once beat several threads on one), and an equal share of
                     the cores beside a GPU
    gpus_per_trial   default 1 where there is a GPU, else 0
    max_concurrent   default as many as the cores or GPUs allow
    address          default: Ray starts here
    """

    cpus_per_trial: Annotated[int | None, "Threads per worker.", THREADS] = None
    gpus_per_trial: Annotated[float | None, "Share of a GPU and of its memory per worker, such as 0.25.", FROM_0] = None
    max_concurrent: Annotated[int | None, "Maximum number of workers.", FROM_1] = None
    address: Annotated[str | None, "Address of a running Ray cluster, or auto."] = None
    max_failures: Annotated[int, "Failed trials in a row that end the search.", FROM_1] = 5
    epoch_timeout: Annotated[float, "Time limit of an epoch in seconds; 0 disables it.", FROM_0] = 3600

    def __post_init__(self) -> None:
        check_options(self)
        share = self.gpus_per_trial
        if share and not 0.01 <= share <= 1:
            raise UserError(f"gpus-per-trial {share:g}: a network trains on one GPU; 0 or 0.01 to 1 is needed")


SMALL_SPACE, PHOTO_SPACE = "inverted_residual", "efficientnet_lite"
"""Spaces that a search takes where none is given."""


@dataclass(frozen=True)
class SearchOptions:
    """A search as asked for; what a run records of it is :class:`nas.driver.settings.Settings`."""

    space: Annotated[
        str | Path | Space | None,
        "A shipped space (see nas list) or a YAML file (default: inverted_residual; efficientnet_lite for a folder of "
        "photographs).",
    ] = None
    _: KW_ONLY
    dataset: Annotated[str, f"{DATASETS}."] = "digits"
    data_dir: DataDir = None
    train_size: TrainSize = None
    resolution: Annotated[int | None, "Input side in pixels (default: the space's, at most the images').", FROM_1] = (
        None
    )
    fit: Fit = DEFAULT_FIT
    strict: Strict = False
    resplit: Annotated[bool, "Draw validation images for each trial; by default all trials have the same."] = False
    target: Annotated[
        str,
        f"Where the networks will run; size, memory, latency and int8 accuracy are those there: {TARGETS}.",
    ] = "torch"
    objectives: Annotated[
        Sequence[str], "accuracy or balanced_accuracy, and any of size, latency, memory, params, macs, peak_memory."
    ] = (
        "accuracy",
        "size",
        "latency",
    )
    limits: Annotated[Sequence[str], "Limit such as 'size<=4MB' or 'latency<=5ms'.", OnCommandLine(name="limit")] = ()
    trials: Annotated[
        int | None,
        f"Networks to train, stopped ones included (default: {DEFAULT_TRIALS}; with --hours as many as fit).",
        FROM_1,
        ON_RESUME,
    ] = None
    hours: Annotated[
        float | None, "End within this time: trials, confirmation of the front by one seed or more, report.", ABOVE_0
    ] = None
    recipe: Annotated[str | Recipe, "How networks are trained: search, train, han, hoang, kuo, or a YAML file."] = (
        "search"
    )
    epochs: Epochs = None
    flip: Flip = None
    augment: Augment = None
    class_weights: ClassWeights = None
    init: Annotated[
        Path | str | None,
        "Parent whose weights trials begin with: efficientnet-lite0, mobilenetv2, a checkpoint, auto or none (default: "
        "auto for spaces of photographs).",
    ] = None
    sampler: Annotated[str, "known-cost, tpe, nsga2, gp or random."] = "known-cost"
    evaluator: Annotated[
        str, "training: each network from fresh weights; supernet: one training judges all, the best are trained."
    ] = "training"
    supernet: Annotated[
        Path | str | None, "Run, or its supernet.pt, whose supernet and judgements to take (default: train one)."
    ] = None
    reduction: Annotated[int, "Successive-halving reduction factor; 1 disables early stopping.", FROM_1] = 3
    published: Annotated[
        str,
        "Published networks to train first, whatever the limits: references (E, MobileNetV2, PydMobileNet), "
        "contained (in the space), all, none, or NAME,...",
    ] = "references"
    references: Annotated[
        int | None,
        "Number of thinner references to train too, the line to beat: E and MobileNetV2 at widths 0.25, 0.5 and 0.75, "
        "PydMobileNets (default: up to 6 within a fifth of the trials).",
        FROM_0,
    ] = None
    enqueue: Annotated[Sequence[str | Path | Architecture], "Own networks to train first, whatever the limits."] = ()
    warm_start: Annotated[Path | str | None, "Earlier run whose finished networks are imported."] = None
    latency_table: Annotated[
        Path | str | Sequence[Path | str] | None,
        "Latency table of a device to search for, made there by nas latency calibrate.",
        OnCommandLine(repeats=True),
    ] = None
    confirm: Annotated[
        int | None,
        "Number of further seeds to train the front with (default: 0; with --hours 1, as far as there is time).",
        FROM_0,
        ON_RESUME,
    ] = None
    confirm_epochs: Annotated[
        int | None, "Epochs of each of these trainings (default: the recipe's).", FROM_1, ON_RESUME
    ] = None
    keep: Annotated[str, "Weights to keep: all trials', the front's or none.", ON_RESUME] = "front"
    report_every: Annotated[
        float, "Seconds between reports while the search runs; 0 disables them.", FROM_0, OnCommandLine(default=120)
    ] = 0
    seed: Seed = 0
    out: Annotated[Path | str | None, "The run's folder (default: fresh, under results/)."] = None
    storage: Annotated[str | None, "Optuna URL for the study (default: a file in the run's folder)."] = None
    resources: Resources | None = None
    progress: bool | None = None
    on_change: Callable[[Progress], None] | None = None
    began: float | None = None

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("objectives", "limits", "enqueue"):
            if isinstance(text := getattr(self, name), str):  # whose characters are a sequence of texts too
                raise UserError(f"{name} {text!r}: give a list, such as {[part.strip() for part in text.split(',')]}")
        check_confirmed(self.budget["confirm"], self.confirm_epochs)

    @property
    def latency_tables(self) -> tuple[str, ...]:
        """The devices' tables; none where latencies are measured here, or not asked for."""
        given = self.latency_table
        return () if given is None else (str(given),) if isinstance(given, str | Path) else tuple(map(str, given))

    @property
    def budget(self) -> dict[str, int]:
        """The trials, and the seeds that the front is confirmed with, in numbers."""
        limited = self.hours is not None
        return {
            "trials": (MOST_TRIALS if limited else DEFAULT_TRIALS) if self.trials is None else self.trials,
            "confirm": int(limited) if self.confirm is None else self.confirm,
        }


def check_confirmed(seeds: int, epochs: int | None) -> None:
    """Check that there is a confirmation where its epochs are asked for.

    Raises:
        UserError: there is none.
    """
    if epochs is not None and not seeds:
        raise UserError(f"confirm-epochs {epochs}: of no training; give --confirm N too")


CHANGEABLE = resumable_options(SearchOptions)
"""How far a search goes, and whose weights stay: what a run that goes on may be told otherwise."""


@dataclass(frozen=True)
class ReproduceOptions:
    """A paper's table as it is asked for."""

    table: str
    _: KW_ONLY
    dataset: Annotated[str | None, "Data set (default: the table's)."] = None
    data_dir: DataDir = None
    train_size: TrainSize = None
    recipe: Annotated[str | Recipe | None, "Training recipe (default: the paper's)."] = None
    epochs: Epochs = None
    seeds: Annotated[int, "Number of seeds that each network is trained with.", FROM_1] = 1
    seed: Seed = 0
    out: Annotated[Path | str | None, "The folder (default: fresh, under results/)."] = None
    resources: Resources | None = None
    on_change: Callable[[Progress], None] | None = None

    def __post_init__(self) -> None:
        check_options(self)
