"""What defines a search: enough to run it again. Written to ``run.yaml`` and kept in the study."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from nas.architecture.catalogue import network_names
from nas.architecture.space import Space
from nas.driver.checkpoints import KEEP
from nas.driver.objectives import Limit, Objective, parse_limit, parse_objectives
from nas.driver.options import SearchOptions
from nas.driver.stopping import rungs
from nas.errors import UserError, first_mistake
from nas.training.recipe import Recipe

SCHEMA = 1
"""Version of ``run.yaml``; a file of a newer version is refused, older ones load."""

SAMPLERS = ("known-cost", "tpe", "nsga2", "gp", "random")
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
    """The search as asked for; everything but machine and resources.

    space            the space's document, its input already that of the data set
    dataset          name or ``imagefolder:PATH``
    image_resolution side to which the images of a folder are brought when they are read
    objectives       names; accuracy is one of them
    limits           as text, such as ``size<=4MB``
    recipe           :meth:`nas.training.recipe.Recipe.to_dict`, epochs included
    trials           how many networks are trained, stopped ones included
    reduction        of so many trials one goes on past a rung; 1 stops none
    first_rung       no trial is stopped before this epoch
    published        which published networks are trained beside the found ones: references (E, MobileNetV2,
                     PydMobileNet, and more that the space contains where the budget is large), contained (in the
                     space), all, none, or names, comma-separated
    enqueue          documents of the user's own networks to train first
    warm_start       a run whose finished networks are imported
    latency_table    a file, for a device other than this one
    confirm          with how many seeds the front is trained again; 0: not at all
    confirm_epochs   of each of those trainings; default the recipe's
    keep             whose weights stay: those of all trials, of the front (and of queued networks), or of none. It
                     stands here because a run that goes on must not remove what it was told to keep
    """

    space: dict[str, Any]
    dataset: str = SearchOptions.dataset
    data_dir: str | None = None
    train_size: int | None = None
    validation_fraction: float = 0.15
    image_resolution: int | None = None
    objectives: tuple[str, ...] = tuple(SearchOptions.objectives)
    limits: tuple[str, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    trials: int = SearchOptions.trials
    sampler: str = SearchOptions.sampler
    reduction: int = SearchOptions.reduction
    first_rung: int = 1
    published: str = SearchOptions.published
    enqueue: tuple[dict[str, Any], ...] = ()
    warm_start: str | None = None
    latency_table: str | None = None
    confirm: int = SearchOptions.confirm
    confirm_epochs: int | None = None
    keep: str = SearchOptions.keep
    seed: int = SearchOptions.seed

    def __post_init__(self) -> None:
        parse_objectives(self.objectives)
        for limit in self.limits:
            parse_limit(limit)
        for name, value, allowed in (
            ("sampler", self.sampler, SAMPLERS),
            ("keep", self.keep, KEEP),
        ):
            if value not in allowed:
                raise UserError(f"unknown {name} {value!r}; allowed: {', '.join(allowed)}")
        check_published(self.published)
        for name, least in (("trials", 1), ("reduction", 1), ("first_rung", 1), ("seed", 0), ("confirm", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"{name} {value!r}: a whole number of at least {least} is needed")

    def is_same_search(self, other: "Settings") -> bool:
        """Whether the two differ at most in how far they go, trials and confirmation, and in whose weights are kept."""
        free: dict[str, Any] = {"trials": 1, "confirm": 0, "confirm_epochs": None, "keep": "front", "recipe": {}}
        # a run of an older version says nothing of what recipes did not have then
        return self.parsed_recipe == other.parsed_recipe and replace(self, **free) == replace(other, **free)

    @property
    def parsed_objectives(self) -> tuple[Objective, ...]:
        return parse_objectives(self.objectives)

    @property
    def parsed_limits(self) -> tuple[Limit, ...]:
        return tuple(parse_limit(limit) for limit in self.limits)

    @property
    def needs_latency(self) -> bool:
        """Whether the search has to know latencies before it trains."""
        return "latency" in self.objectives or any(limit.objective.name == "latency" for limit in self.parsed_limits)

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which trials are compared."""
        return rungs(self.parsed_recipe.epochs, self.first_rung) if self.reduction > 1 else ()

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
            key: tuple(value) if isinstance(value, list) else value for key, value in document.items()
        }
        try:
            for name, kind in get_type_hints(cls).items():
                if name in values:
                    TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(values[name])
            settings = cls(**values)
            Recipe.from_dict(settings.recipe)
        except ValidationError as error:
            raise UserError(f"{where}: {name} {values[name]!r}: {first_mistake(error)[1]}") from error
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        return settings
