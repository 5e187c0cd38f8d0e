"""A search space: an architecture document in which any value may be ``{choice: [...]}``.

The choices are the space's *parameters*. A parameter is named by its path in the document (``stages[2].expansion``), as
error messages name it, and has one value per option: the option itself where that is a scalar, and its YAML text
(``[3, 5]``) where it is a list or a mapping, so that a parameter's value fits Optuna, CSV and JSON as it is.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from nas.architecture import Architecture, dump_yaml
from nas.errors import UserError
from nas.files import dump_flow

Value = str | int | float | bool
Location = tuple[str | int, ...]


class Parameter(NamedTuple):
    """One choice of a space."""

    path: Location
    options: tuple[Any, ...]
    values: tuple[Value, ...]
    """The options as parameter values, in the same order."""

    @property
    def name(self) -> str:
        return _name(self.path)


class Space:
    """All networks that a document with choices describes.

    A document without choices is a space of one network.

    Raises:
        UserError: an empty or repeated choice, a choice within a choice, or an option that is no valid value there.
    """

    def __init__(self, document: Any, where: str = "space") -> None:
        if not isinstance(document, Mapping):
            raise UserError(f"{where}: a space is a mapping of fields, this is a {type(document).__name__}")
        self.document = document
        self.parameters_by_name = {parameter.name: parameter for parameter in _find(document, where)}
        self._check(where)

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @functools.cached_property
    def size(self) -> int:
        """How many different networks the space holds.

        Options that come to the same network within their stage (``combine`` where there is one kernel) count once. Two
        widths that round to the same channels everywhere would count twice.
        """
        size = 1
        for group in self._groups():
            names = [parameter.name for parameter in group]
            ways = math.prod(len(parameter.values) for parameter in group)
            if group[0].path[0] == "stages" and len(group) > 1 and ways <= 100_000:
                index = int(group[0].path[1])
                seen = {
                    _freeze(self._with(dict(zip(names, values, strict=True))).stages[index].canonical())
                    for values in itertools.product(*(parameter.values for parameter in group))
                }
                ways = len(seen)
            size *= ways
        return size

    def architecture(self, parameters: Mapping[str, Value], name: str | None = None) -> Architecture:
        """The network that the parameters choose.

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
        """A network with every parameter drawn uniformly; the same generator state or seed gives the same network."""
        return self.architecture(self.sample_parameters(rng))

    def sample_parameters(self, rng: np.random.Generator | int | None = None) -> dict[str, Value]:
        """The parameters of :meth:`sample`."""
        generator = np.random.default_rng(rng)
        return {
            name: parameter.values[int(generator.integers(len(parameter.values)))]
            for name, parameter in self.parameters_by_name.items()
        }

    def contains(self, architecture: Architecture) -> bool:
        """Whether some choice of parameters gives this network (its name aside)."""
        try:
            self.parameters(architecture)
        except UserError:
            return False
        return True

    def parameters(self, architecture: Architecture) -> dict[str, Value]:
        """The parameters that give this network: the inverse of sampling.

        Where several do (``combine`` with one kernel), the first option in order.

        Raises:
            UserError: the space does not contain the network; the line says which part differs.
        """
        target = architecture.canonical()
        groups = self._groups()
        shared = [parameter for group in groups for parameter in group if group[0].path[0] != "stages"]
        staged = {int(group[0].path[1]): group for group in groups if group[0].path[0] == "stages"}
        reason = "its input, stem or head differs"
        # What lies outside the stages (width, head) is few choices; given those, each stage is on its own.
        for values in itertools.product(*(parameter.values for parameter in shared)):
            chosen: dict[str, Value] = {p.name: value for p, value in zip(shared, values, strict=True)}
            candidate = self._with(chosen).canonical()
            if any(candidate[part] != target[part] for part in ("input", "activation", "stem", "head")):
                continue
            if len(candidate["stages"]) != len(target["stages"]):
                reason = f"it has {len(target['stages'])} stages, not {len(candidate['stages'])}"
                break
            for index, wanted in enumerate(target["stages"]):
                match = self._match_stage(staged.get(index, []), chosen, index, wanted)
                if match is None:
                    reason = f"no choice of stages[{index}] gives {dump_flow(wanted)}"
                    break
                chosen |= match
            else:
                return {name: chosen[name] for name in self.parameters_by_name}
        raise UserError(f"space {self.name} does not contain {architecture.name}: {reason}")

    def with_input(self, *, channels: int, resolution: int | None = None) -> "Space":
        """The same space for other images: channels, and a resolution in place of the document's (or its choice)."""
        image = dict(self.document.get("input", {}))
        image["channels"] = channels
        if resolution is not None:
            image["resolution"] = resolution
        return Space({**self.document, "input": image}, self.name)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The input resolutions that the space can choose, in pixels."""
        parameter = self.parameters_by_name.get("input.resolution")
        return tuple(parameter.options) if parameter else (self._with({}).input.resolution,)

    def to_yaml(self) -> str:
        """The space's document as YAML."""
        return dump_yaml(self.document)

    def _match_stage(
        self, group: list[Parameter], chosen: Mapping[str, Value], index: int, wanted: dict[str, Any]
    ) -> dict[str, Value] | None:
        names = [parameter.name for parameter in group]
        for values in itertools.product(*(parameter.values for parameter in group)):
            match = dict(zip(names, values, strict=True))
            if self._with({**chosen, **match}).canonical()["stages"][index] == wanted:
                return match
        return None

    def _groups(self) -> list[list[Parameter]]:
        """The parameters in groups that do not meet: one per stage, one per other field."""

        def group(parameter: Parameter) -> Location:
            return parameter.path[:2] if parameter.path[0] == "stages" else parameter.path

        return [list(items) for _, items in itertools.groupby(self.parameters_by_name.values(), group)]

    def _with(self, parameters: Mapping[str, Value], name: str | None = None) -> Architecture:
        """Substitute the choices; what is not given takes its first option."""
        document = self._substitute(self.document, (), parameters)
        if name is not None:
            document["name"] = name
        return Architecture.from_dict(document, f"space {self.document.get('name', '')}")

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
        """Every option is valid where it stands, and the strides fit the resolution in the worst case."""
        Architecture.from_dict(self._substitute(self.document, (), self._extreme()), where)
        for parameter in self.parameters_by_name.values():
            for value in parameter.values:
                document = self._substitute(self.document, (), {**self._extreme(), parameter.name: value})
                Architecture.from_dict(document, where)

    def _extreme(self) -> dict[str, Value]:
        """The parameters with the largest strides and the smallest resolution: if that fits, all do."""
        extreme = {}
        for parameter in self.parameters_by_name.values():
            if all(isinstance(value, int) for value in parameter.values):
                if parameter.path[-1] == "stride":
                    extreme[parameter.name] = max(parameter.values)
                elif parameter.path[-1] == "resolution":
                    extreme[parameter.name] = min(parameter.values)
        return extreme


def _is_choice(node: Any) -> bool:
    return isinstance(node, Mapping) and "choice" in node


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


def _name(path: Location) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _freeze(node: Any) -> Any:
    if isinstance(node, dict):
        return tuple(sorted((key, _freeze(item)) for key, item in node.items()))
    return tuple(_freeze(item) for item in node) if isinstance(node, list) else node
