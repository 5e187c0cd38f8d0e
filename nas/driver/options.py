"""Options of `nas search` and of :func:`nas.search`, stated once; importing this loads neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nas.errors import UserError
from nas.options import OnCommandLine

if TYPE_CHECKING:
    from nas.architecture.document import Architecture
    from nas.architecture.space import Space
    from nas.driver.conductor import Progress
    from nas.training.recipe import Recipe
else:  # they load torch; the command line gives names
    Architecture = Space = Progress = Recipe = Any

ON_RESUME = OnCommandLine(default=None)
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

    cpus_per_trial: Annotated[int | None, "Threads of a worker."] = None
    gpus_per_trial: Annotated[float | None, "Share of a GPU and of its memory, such as 0.25."] = None
    max_concurrent: Annotated[int | None, "Workers at once."] = None
    address: Annotated[str | None, "Of a running Ray cluster, or auto."] = None
    max_failures: Annotated[int, "End after so many failed trials in a row."] = 5
    epoch_timeout: Annotated[float, "Seconds after which an epoch is given up; 0: never."] = 3600

    def __post_init__(self) -> None:
        for name in ("cpus_per_trial", "max_concurrent", "max_failures"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name.replace('_', '-')} {value}: at least 1 is needed")
        for name in ("gpus_per_trial", "epoch_timeout"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise UserError(f"{name.replace('_', '-')} {value}: 0 or more is needed")
        share = self.gpus_per_trial
        if share and not 0.01 <= share <= 1:
            raise UserError(f"gpus-per-trial {share:g}: a network trains on one GPU; 0 or 0.01 to 1 is needed")


@dataclass(frozen=True)
class SearchOptions:
    """A search as asked for; what a run records of it is :class:`nas.driver.settings.Settings`."""

    space: Annotated[str | Path | Space, "A shipped space (see nas list) or a YAML file."] = "inverted_residual"
    _: KW_ONLY
    dataset: Annotated[str, "digits, cifar10, cifar100, svhn, stl10, fashion_mnist or imagefolder:PATH."] = "digits"
    data_dir: Annotated[Path | str | None, "Where data sets lie or are downloaded to."] = None
    train_size: Annotated[int | None, "Train on so many images."] = None
    resolution: Annotated[int | None, "Input side in pixels (default: the space's, at most the images')."] = None
    objectives: Annotated[Sequence[str], "accuracy and any of size, latency, params, macs, peak_memory."] = (
        "accuracy",
        "size",
        "latency",
    )
    limits: Annotated[Sequence[str], "Such as 'size<=4MB' or 'latency<=5ms'.", OnCommandLine(name="limit")] = ()
    trials: Annotated[int, "Networks to train, stopped ones included.", ON_RESUME] = 32
    recipe: Annotated[str | Recipe, "How networks are trained: search, train, han, hoang, kuo."] = "search"
    epochs: Annotated[int | None, "Instead of the recipe's."] = None
    sampler: Annotated[str, "known-cost, tpe, nsga2, gp or random."] = "known-cost"
    reduction: Annotated[int, "Of so many trials one goes on past a rung; 1 stops none."] = 3
    published: Annotated[
        str,
        "Published networks to train first, whatever the limits: references (E, MobileNetV2, PydMobileNet), "
        "contained (in the space), all, none, or NAME,...",
    ] = "references"
    enqueue: Annotated[Sequence[str | Path | Architecture], "Own networks to train first, whatever the limits."] = ()
    warm_start: Annotated[Path | str | None, "A run whose finished networks are taken along."] = None
    latency_table: Annotated[
        Path | str | None, "Of the device to search for (nas latency calibrate makes it there)."
    ] = None
    confirm: Annotated[int, "Train the front again with so many seeds.", ON_RESUME] = 0
    confirm_epochs: Annotated[int | None, "Of each of those (default: the recipe's).", ON_RESUME] = None
    keep: Annotated[str, "Whose weights stay: all trials', the front's or none.", ON_RESUME] = "front"
    report_every: Annotated[
        float, "Seconds between reports while the search runs; 0: none.", OnCommandLine(default=120)
    ] = 0
    seed: Annotated[int, "Of everything random."] = 0
    out: Annotated[Path | str | None, "The run's folder (default: fresh, under results/)."] = None
    storage: Annotated[str | None, "Optuna URL for the study (default: a file in the run's folder)."] = None
    resources: Resources | None = None
    progress: bool | None = None
    on_change: Callable[[Progress], None] | None = None
    say: Callable[[str], None] | None = None
