"""Settings that define a search: enough to run it again. Written to ``run.yaml`` and kept in the study."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from nas.architecture.catalogue import network_names
from nas.architecture.space import Space
from nas.driver.checkpoints import Keep
from nas.driver.objectives import Limit, Objective, parse_limit, parse_objectives
from nas.driver.options import CHANGEABLE, DEFAULT_TRIALS, MOST_TRIALS, SearchOptions, check_confirmed
from nas.driver.stopping import rungs
from nas.errors import UserError
from nas.options import check_fields
from nas.preprocessing import Fit
from nas.targets import Target
from nas.targets import target as target_named
from nas.training.data import FOLDER_PREFIX, absolute
from nas.training.folder import SplitBy
from nas.training.recipe import Recipe

SCHEMA = 1
"""Version of ``run.yaml``; a file of a newer version is refused, older ones load."""

Sampler = Literal["known-cost", "tpe", "nsga2", "gp", "random"]
Evaluator = Literal["training", "supernet"]
PUBLISHED = ("references", "contained", "all", "none")
"""Words for which published networks are trained; names of theirs, comma-separated, say it too."""


def check_published(which: str) -> None:
    """Check a choice of published networks.

    Raises:
        UserError: it is no word of :data:`PUBLISHED`, and not all of it are names.
    """
    unknown = sorted({*which.split(",")} - {*network_names()})
    if which not in PUBLISHED and unknown:
        raise UserError(f"unknown published {unknown[0]!r}; allowed: {', '.join(PUBLISHED)}, or names (see nas list)")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The search as asked for; everything but machine and resources. What is not named here is as in `SearchOptions`.

    space            the space's document, its input already that of the data set
    target           where the networks will run; torch in runs of older versions
    image_resolution side to which the images of a folder are brought when they are read
    fit              how images of a folder become squares
    split_by         how images of a folder are divided: by their names, or in older runs in a shuffled order
    recipe           :meth:`nas.training.recipe.Recipe.to_dict`, epochs included
    first_rung       no trial is stopped before this epoch
    init             parent whose weights the trials of its family begin with: a published name or a path
    enqueue          documents of the user's own networks to train first
    """

    space: dict[str, Any]
    dataset: str = SearchOptions.dataset
    data_dir: str | None = None
    train_size: int | None = None
    validation_fraction: float = 0.15
    image_resolution: int | None = None
    fit: Fit = "crop"
    split_by: SplitBy = "order"
    resplit: bool = SearchOptions.resplit
    target: str = SearchOptions.target
    objectives: tuple[str, ...] = tuple(SearchOptions.objectives)
    limits: tuple[str, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    trials: Annotated[int, Field(ge=1)] = DEFAULT_TRIALS
    sampler: Sampler = SearchOptions.sampler  # type: ignore[assignment]  # checked below
    evaluator: Evaluator = SearchOptions.evaluator  # type: ignore[assignment]  # checked below
    supernet: str | None = None
    reduction: Annotated[int, Field(ge=1)] = SearchOptions.reduction
    first_rung: Annotated[int, Field(ge=1)] = 1
    published: str = SearchOptions.published
    references: Annotated[int, Field(ge=0)] | None = SearchOptions.references
    enqueue: tuple[dict[str, Any], ...] = ()
    warm_start: str | None = None
    latency_table: str | None = None
    confirm: Annotated[int, Field(ge=0)] = 0
    confirm_epochs: int | None = None
    keep: Keep = SearchOptions.keep  # type: ignore[assignment]  # checked below
    seed: Annotated[int, Field(ge=0)] = SearchOptions.seed
    init: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        _ = self.parsed_objectives, self.parsed_limits
        check_published(self.published)

    def is_same_search(self, other: "Settings") -> bool:
        """Return whether the two differ at most in what a resumed search may change."""
        free = {name: getattr(other, name) for name in CHANGEABLE}
        if absolute(self.dataset) == absolute(other.dataset):  # as it was given, in older runs
            free["dataset"] = other.dataset
        # a run of an older version says nothing of what recipes did not have then
        return self.parsed_recipe == other.parsed_recipe and replace(self, **free, recipe=other.recipe) == other

    def going_on(self, changes: Mapping[str, Any], *, hours: float | None = None) -> "Settings":
        """Return the settings of a search that is resumed.

        Args:
            changes: of :data:`nas.driver.options.CHANGEABLE`.
            hours: in which it ends; without trials among the changes, as many are trained as fit.

        Raises:
            UserError: nothing limits it, or it would not do what the changes ask for.
        """
        limit = {} if hours is None else {"trials": MOST_TRIALS}
        settings = replace(self, **limit | dict(changes))
        if "confirm_epochs" in changes:
            check_confirmed(settings.confirm, settings.confirm_epochs)
        if settings.trials == MOST_TRIALS and hours is None:
            raise UserError("its time limited this search, not a number of trials; give --hours or --trials")
        return settings

    @property
    def epochs_of_confirmation(self) -> int:
        """Epochs with which the front is trained again: those asked for, or else the search's own."""
        return self.confirm_epochs or self.parsed_recipe.epochs

    @property
    def parsed_target(self) -> Target:
        return target_named(self.target)

    @property
    def judged_as(self) -> str:
        """Whose the accuracies are: runs in which it is the same can be compared."""
        target = self.parsed_target
        if not target.int8:
            return "fp32"
        return f"int8{' per tensor' if target.per_tensor else ''}, {'ONNX' if target.form == 'onnx' else '.tflite'}"

    @property
    def parsed_objectives(self) -> tuple[Objective, ...]:
        return parse_objectives(self.objectives, self.parsed_target.aliases)

    @property
    def parsed_limits(self) -> tuple[Limit, ...]:
        return tuple(parse_limit(limit, self.parsed_target.aliases) for limit in self.limits)

    @property
    def needs_latency(self) -> bool:
        """Return whether the search has to know latencies before it trains."""
        return "latency" in self.objectives or any(limit.objective.name == "latency" for limit in self.parsed_limits)

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which trials are compared."""
        return rungs(self.parsed_recipe.epochs, self.first_rung) if self.reduction > 1 else ()

    @property
    def reading(self) -> dict[str, Any]:
        """Keywords of :func:`nas.training.data.load_dataset`."""
        same = ["data_dir", "train_size", "validation_fraction", "seed", "split_by"]
        if self.dataset.startswith(FOLDER_PREFIX):  # older runs have a fit of other images too, which is none
            same.append("fit")
        return {name: getattr(self, name) for name in same} | {"resolution": self.image_resolution}

    @property
    def parsed_recipe(self) -> Recipe:
        return Recipe.from_dict(self.recipe)

    def open_space(self, where: str = "") -> Space:
        """The space; `where` begins what an error says."""
        return Space(self.space, f"{where}space {self.space.get('name', '')}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML and JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, document: Any, where: str = "settings") -> "Settings":
        """The settings from plain values.

        Raises:
            UserError: a field that does not exist, is missing, or holds a value that is not allowed.
        """
        if not isinstance(document, Mapping):
            raise UserError(f"{where}: settings are a mapping of fields, this is a {type(document).__name__}")
        known = {item.name for item in fields(cls)}
        for key in document:
            if key not in known:
                raise UserError(f"{where}: unknown setting {key!r}; allowed: {', '.join(sorted(known))}")
        if "space" not in document:
            raise UserError(f"{where}: the setting 'space' is missing")
        values: dict[str, Any] = {
            key: tuple(item) if isinstance(item, list) else item for key, item in document.items()
        }
        try:
            settings = cls(**values)
            Recipe.from_dict(settings.recipe)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        return settings
