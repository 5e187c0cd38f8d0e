"""A search space: an architecture document in which any value may be ``{choice: [...]}``.

The choices are the space's *parameters*. A parameter is named by its path in the document (``stages[2].expansion``), as
error messages name it, and has one value per option: the option itself where that is a scalar, and its YAML text
(``[3, 5]``) where it is a list or a mapping, so that a parameter's value fits Optuna, CSV and JSON as it is.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError

from nas.architecture.document import Architecture, dump_yaml, scale, unversioned, versioned
from nas.blocks import AnyStage, Stage
from nas.errors import UserError
from nas.files import dump_flow
from nas.units import counted

Value = str | int | float | bool
Location = tuple[str | int, ...]

MAX_OPTIONS = 1_000
"""Of one choice."""
MAX_STAGES = 20_000
"""Of a space, kept as they are checked."""
MAX_COMBINATIONS = 100_000
"""Up to as many choices within one stage are told apart exactly when a space's size is counted."""

_STAGE: TypeAdapter[Stage] = TypeAdapter(AnyStage)


class Parameter(NamedTuple):
    """One choice of a space."""

    path: Location
    options: tuple[Any, ...]
    values: tuple[Value, ...]
    """The options as parameter values, in the same order."""

    @property
    def name(self) -> str:
        return _name(self.path)


class _State(NamedTuple):
    """State that the next stage's canonical form depends on: width, chosen list of stages, channels before it."""

    width: float
    stages: Value | None
    channels: int


class Space:
    """All networks that a document with choices describes.

    A document without choices is a space of one network.

    Raises:
        UserError: an empty or repeated choice, a choice within a choice, or an option that is no valid value there.
    """

    def __init__(self, document: Any, where: str = "space") -> None:
        if not isinstance(document, Mapping):
            raise UserError(f"{where}: a space is a mapping of fields, this is a {type(document).__name__}")
        self.document = unversioned(document, where)
        self.parameters_by_name = {parameter.name: parameter for parameter in _find(self.document, where)}
        self._stages: dict[Any, Stage] = {}
        self._check(where)

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @functools.cached_property
    def size(self) -> int:
        """Return how many different networks the space holds: choices that come to one canonical form count once.

        Where one stage has more than 100,000 choices, all of the space's choices count.
        """
        if any(_ways(group) > MAX_COMBINATIONS for group in self._staged.values()):
            return _ways(self.parameters_by_name.values())
        size = 1
        for part, group in self._apart.items():
            frames = (self._with(chosen).canonical_frame() for chosen in _combinations(group))
            size *= len({_freeze(frame.get(part)) for frame in frames})
        starts: dict[Any, set[_State]] = {}
        for chosen in _combinations(self._joint):
            architecture = self._with(chosen)
            frame = architecture.canonical_frame()
            state = _State(architecture.width, chosen.get("stages"), architecture.stem_channels)
            starts.setdefault(_freeze([frame["stem"], frame["head"]]), set()).add(state)
        known: dict[tuple[int, frozenset[_State]], int] = {}
        return size * sum(self._continuations(0, frozenset(states), known) for states in starts.values())

    def architecture(self, parameters: Mapping[str, Value], name: str | None = None) -> Architecture:
        """Return the network that the parameters choose.

        Args:
            parameters: a value for each parameter of the space, by name.
            name: the network's name (default: the space's).

        Raises:
            UserError: a parameter is missing or unknown, or its value is none of the options.
        """
        for key in parameters:
            if key not in self.parameters_by_name:
                raise UserError(f"space {self.name}: unknown parameter {key!r}")
        missing = [key for key in self.parameters_by_name if key not in parameters]
        if missing:
            raise UserError(f"space {self.name}: parameter {missing[0]!r} is not given")
        return self._with(parameters, name)

    def sample(self, rng: np.random.Generator | int | None = None) -> Architecture:
        """Draw a network, every parameter uniformly; the same generator state or seed gives the same network."""
        return self.architecture(self.sample_parameters(rng))

    def sample_parameters(self, rng: np.random.Generator | int | None = None) -> dict[str, Value]:
        """Draw the parameters of :meth:`sample`."""
        generator = np.random.default_rng(rng)
        return {
            name: parameter.values[int(generator.integers(len(parameter.values)))]
            for name, parameter in self.parameters_by_name.items()
        }

    def contains(self, architecture: Architecture) -> bool:
        """Return whether some choice of parameters gives this network (its name aside)."""
        try:
            self.parameters(architecture)
        except UserError:
            return False
        return True

    def parameters(self, architecture: Architecture) -> dict[str, Value]:
        """Find the parameters that give this network: the inverse of sampling.

        Where several do (``combine`` with one kernel), the first option in order.

        Raises:
            UserError: the space does not contain the network; the line says which part differs.
        """
        target = architecture.canonical()
        reason = "its input, activation, norm, stem or head differs"
        apart: dict[str, Value] = {}
        for part, group in self._apart.items():
            for values in _combinations(group):
                if self._with(values).canonical_frame().get(part) == target.get(part):
                    apart |= values
                    break
            else:
                raise UserError(f"space {self.name} does not contain {architecture.name}: its {part} differs")
        # What else lies outside the stages (width, stem, head) is few choices; given those, each stage is on its own.
        for joint in _combinations(self._joint):
            chosen = apart | joint
            candidate = self._with(chosen)
            if any(target.get(part) != value for part, value in candidate.canonical_frame().items()):
                continue
            if len(candidate.stages) != len(target["stages"]):
                reason = f"it has {counted(len(target['stages']), 'stage')}, not {len(candidate.stages)}"
                continue
            channels = candidate.stem_channels
            for index, wanted in enumerate(target["stages"]):
                state = _State(candidate.width, joint.get("stages"), channels)
                match = next((values for values, form in self._forms(index, state) if form == wanted), None)
                if match is None:
                    reason = f"no choice of stages[{index}] gives {dump_flow(wanted)}"
                    break
                chosen |= match
                channels = wanted["channels"]
            else:
                return {name: chosen[name] for name in self.parameters_by_name}
        raise UserError(f"space {self.name} does not contain {architecture.name}: {reason}")

    def with_input(self, *, channels: int, resolution: int | None = None) -> "Space":
        """Return the same space for other images: channels, and a resolution in place of its own."""
        image = self.document.get("input", {})
        if _is_choice(image):
            image = {"resolution": _choice_of(self.resolutions)}
        image = {**image, "channels": channels}
        if resolution is not None:
            image["resolution"] = resolution
        return Space({**self.document, "input": image}, self.name)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The input resolutions that the space can choose, in pixels."""
        group = self._apart.get("input", [])
        return tuple(dict.fromkeys(self._with(chosen).input.resolution for chosen in _combinations(group)))

    def to_yaml(self) -> str:
        """Return the space's document as a YAML file, its version first."""
        return dump_yaml(versioned(self.document))

    @functools.cached_property
    def _staged(self) -> dict[int, list[Parameter]]:
        """The parameters within each stage."""
        staged: dict[int, list[Parameter]] = {}
        for parameter in self.parameters_by_name.values():
            if parameter.path[0] == "stages" and len(parameter.path) > 1:
                staged.setdefault(int(parameter.path[1]), []).append(parameter)
        return staged

    @functools.cached_property
    def _firsts(self) -> dict[int, list[tuple[str, Value]]]:
        """The names of the parameters within each stage, and the first value of each; joining a name takes time."""
        return {index: [(p.name, p.values[0]) for p in group] for index, group in self._staged.items()}

    @functools.cached_property
    def _apart(self) -> dict[str, list[Parameter]]:
        """The parameters that touch one part of the document and nothing else."""
        return {
            part: [parameter for parameter in self.parameters_by_name.values() if parameter.path[0] == part]
            for part in ("input", "activation", "norm")
        }

    @functools.cached_property
    def _joint(self) -> list[Parameter]:
        """The parameters that meet: width, stem, head, and a choice between lists of stages."""
        alone = {p.name for group in (*self._staged.values(), *self._apart.values()) for p in group}
        return [parameter for parameter in self.parameters_by_name.values() if parameter.name not in alone]

    def _continuations(
        self, index: int, states: frozenset[_State], known: dict[tuple[int, frozenset[_State]], int]
    ) -> int:
        """Count the ways in which the canonical form goes on from stage `index`, where one of these states led."""
        if (index, states) not in known:
            following: dict[Any, set[_State]] = {}
            ended = 0
            for state in states:
                if index == len(self._stage_documents(state.stages)):
                    ended = 1
                    continue
                for _, form in self._forms(index, state):
                    following.setdefault(_freeze(form), set()).add(state._replace(channels=form["channels"]))
            known[index, states] = ended + sum(
                self._continuations(index + 1, frozenset(after), known) for after in following.values()
            )
        return known[index, states]

    def _forms(self, index: int, state: _State) -> Iterator[tuple[dict[str, Value], dict[str, Any]]]:
        """List the choices of one stage, each with its canonical form."""
        document = self._stage_documents(state.stages)[index]
        for values in _combinations(self._staged.get(index, [])):
            stage = _STAGE.validate_python(self._substitute(document, ("stages", index), values))
            yield values, stage.canonical(state.channels, scale(stage.channels, state.width))

    def _stage_documents(self, choice: Value | None) -> list[Any]:
        parameters = {} if choice is None else {"stages": choice}
        stages = self.document["stages"]
        documents = self._substitute(stages, ("stages",), parameters) if _is_choice(stages) else stages
        return list(documents)

    def _with(self, parameters: Mapping[str, Value], name: str | None = None) -> Architecture:
        """Substitute the choices; what is not given takes its first option."""
        document: dict[str, Any] = {
            key: self._substitute(node, (key,), parameters) for key, node in self.document.items() if key != "stages"
        }
        stages = self.document["stages"]
        if _is_choice(stages):
            document["stages"] = self._substitute(stages, ("stages",), parameters)
        else:
            document["stages"] = [self._stage(index, stage, parameters) for index, stage in enumerate(stages)]
        if name is not None:
            document["name"] = name
        return Architecture.from_dict(document, f"space {self.document.get('name', '')}")

    def _stage(self, index: int, document: Any, parameters: Mapping[str, Value]) -> Any:
        """Substitute a stage's choices; checked once for each of them, which many networks share.

        What is wrong with a document is left to the architecture to say.
        """
        values = [parameters.get(name, first) for name, first in self._firsts.get(index, ())]
        key = (index, *values, *map(type, values))  # 1 and True are one key
        if key not in self._stages:
            substituted = self._substitute(document, ("stages", index), parameters)
            try:
                stage: Any = _STAGE.validate_python(substituted)
            except ValidationError:
                return substituted
            if len(self._stages) >= MAX_STAGES:
                self._stages.clear()
            self._stages[key] = stage
        return self._stages[key]

    def _substitute(self, node: Any, path: Location, parameters: Mapping[str, Value]) -> Any:
        if _is_choice(node):
            parameter = self.parameters_by_name[_name(path)]
            value = parameters.get(parameter.name, parameter.values[0])
            # A list, not a dictionary: 1 and True are one key.
            for option, known in zip(parameter.options, parameter.values, strict=True):
                if known == value and type(known) is type(value):
                    return option
            options = ", ".join(map(str, parameter.values))
            raise UserError(f"space {self.name}: {parameter.name} is {value!r}; allowed: {options}")
        if isinstance(node, Mapping):
            return {key: self._substitute(item, (*path, key), parameters) for key, item in node.items()}
        if isinstance(node, list | tuple):
            return [self._substitute(item, (*path, index), parameters) for index, item in enumerate(node)]
        return node

    def _check(self, where: str) -> None:
        """Check that every option is valid where it stands, and that the strides fit the least resolution."""
        if not isinstance(self.document.get("name"), str):
            Architecture.from_dict({"name": None, **self.document}, where)
        worst: dict[str, Value] = {}
        for parameter in self.parameters_by_name.values():
            demands = [self._demand({parameter.name: value}, where) for value in parameter.values]
            worst[parameter.name] = parameter.values[demands.index(max(demands))]
        Architecture.from_dict(self._substitute(self.document, (), worst), where)

    def _demand(self, parameters: Mapping[str, Value], where: str) -> float:
        """Return the part of the resolution that the strides need, for a document that is valid but for that."""
        document = self._substitute(self.document, (), parameters)
        try:
            architecture = Architecture.model_validate(document)
        except ValidationError:
            architecture = Architecture.from_dict(document, where)  # for its message
        return architecture.least_resolution / architecture.input.resolution


def _is_choice(node: Any) -> bool:
    return isinstance(node, Mapping) and "choice" in node


def _choice_of(options: tuple[Any, ...]) -> Any:
    return {"choice": list(options)} if len(options) > 1 else options[0]


def _ways(parameters: Iterable[Parameter]) -> int:
    return math.prod(len(parameter.values) for parameter in parameters)


def _combinations(parameters: list[Parameter]) -> Iterator[dict[str, Value]]:
    names = [parameter.name for parameter in parameters]
    for values in itertools.product(*(parameter.values for parameter in parameters)):
        yield dict(zip(names, values, strict=True))


def _find(node: Any, where: str, path: Location = ()) -> Iterator[Parameter]:
    if _is_choice(node):
        name = _name(path)
        options = node["choice"]
        if len(node) > 1:
            raise UserError(
                f"{where}: {name}: a choice stands alone; move {', '.join(k for k in node if k != 'choice')}"
            )
        if not path:
            raise UserError(f"{where}: the whole document cannot be a choice")
        if not isinstance(options, list | tuple) or not options:
            raise UserError(f"{where}: {name}: a choice needs a list of at least one option, not {options!r}")
        if len(options) > MAX_OPTIONS:
            raise UserError(f"{where}: {name}: {len(options):,} options; a choice has at most {MAX_OPTIONS:,}")
        if any(_contains_choice(option) for option in options):
            raise UserError(f"{where}: {name}: a choice within a choice; write the options out")
        values = tuple(option if isinstance(option, Value) else dump_flow(option) for option in options)
        for index, value in enumerate(values):
            if value in values[:index]:
                raise UserError(f"{where}: {name}: option {value} is given twice")
        yield Parameter(path, tuple(options), values)
    elif isinstance(node, Mapping):
        for key, item in node.items():
            yield from _find(item, where, (*path, key))
    elif isinstance(node, list | tuple):
        for index, item in enumerate(node):
            yield from _find(item, where, (*path, index))


def _contains_choice(node: Any) -> bool:
    if isinstance(node, Mapping):
        return _is_choice(node) or any(_contains_choice(item) for item in node.values())
    return isinstance(node, list | tuple) and any(_contains_choice(item) for item in node)


@functools.cache
def _name(path: Location) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _freeze(node: Any) -> Any:
    if isinstance(node, dict):
        return tuple(sorted((key, _freeze(item)) for key, item in node.items()))
    return tuple(_freeze(item) for item in node) if isinstance(node, list) else node
