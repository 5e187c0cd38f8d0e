"""A target: the file that is shipped there, how large it is, how much memory it needs, and what its runtime knows.

A space for a target is one without what the target does not run (:func:`restricted`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.errors import UserError
from nas.extras import require

CostInBytes = Callable[[Architecture, int], int]
"""A network's bytes for a number of classes."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A file format and a runtime, with a network's costs there.

    Attributes:
        name: as ``--target`` gives it.
        ending: of the file's name.
        form: the format of `nas export`; None where a training writes the file itself.
        modules: libraries that make the file and run it, and `extra`, which installs them.
        engine: the latency engine (:mod:`nas.latency.engines`); None where no latency is known.
        int8: weights and activations are int8.
        per_tensor: all of a layer's weights share a scale; else each output channel has its own.
        size: the file's bytes.
        memory: bytes that a run needs.
        knows_experts: the runtime runs conditional convolutions.
        aliases: further names of objectives.
    """

    name: str
    ending: str
    form: str | None
    modules: tuple[str, ...] = ()
    extra: str = ""
    engine: str | None
    size: CostInBytes
    memory: CostInBytes
    int8: bool = False
    per_tensor: bool = False
    knows_experts: bool = True
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)

    def objection(self, architecture: Architecture) -> str | None:
        """Return why the target cannot run a network, or None where it can."""
        if not self.knows_experts and architecture.has_experts:
            return f"conditional convolutions (experts above 1) do not run on {self.name}"
        return None

    def check(self, networks: Iterable[Architecture], option: str = "") -> None:
        """Refuse networks that were asked for by name and cannot ship.

        Args:
            networks: in the order in which they are looked at.
            option: that asked for them; an error begins with it.

        Raises:
            UserError: the target does not run one of them.
        """
        for network in networks:
            if objection := self.objection(network):
                raise UserError(f"{option} {network.name}: {objection}".lstrip())

    def timing_engine(self) -> str:
        """Return the latency engine; raises UserError where there is none."""
        if self.engine is None:
            raise UserError(f"target {self.name}: its latency cannot be measured here (macs tells much of it)")
        return self.engine

    def require(self) -> None:
        """Raise UserError unless the libraries that make and run the target's file are installed."""
        require(f"--target {self.name}", *self.modules, extra=self.extra)


def restricted(space: Space, target: Target) -> tuple[Space, str]:
    """Return the space without the options that the target does not run, and a line that says what it lost.

    Raises:
        UserError: nothing is left.
    """
    if target.knows_experts:
        return space, ""
    lost = [
        parameter.name
        for parameter in space.parameters_by_name.values()
        if any(_has_experts(parameter.path[-1], option) for option in parameter.options)
    ]
    document = _without_experts("", space.document)
    if _has_experts("", document):
        raise UserError(
            f"space {space.name}: conditional convolutions (experts above 1) do not run on {target.name}, "
            "and its stages have no others; give experts: 1 as an option"
        )
    if not lost:
        return space, ""
    said = f"{', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}"
    return Space(document, space.name), f"{target.name} runs no experts above 1: the space loses them ({said})"


def _without_experts(key: object, node: Any) -> Any:
    """Return a document whose choices have lost their options with experts, where others are left."""
    if isinstance(node, Mapping) and "choice" in node:
        options = [option for option in node["choice"] if not _has_experts(key, option)]
        return options[0] if len(options) == 1 else {"choice": options or list(node["choice"])}
    if isinstance(node, Mapping):
        return {name: _without_experts(name, item) for name, item in node.items()}
    return [_without_experts(key, item) for item in node] if isinstance(node, list | tuple) else node


def _has_experts(key: object, node: Any) -> bool:
    """Return whether a part of a document, under this key, has experts above 1 in it."""
    if isinstance(node, Mapping):
        return any(_has_experts(key if name == "choice" else name, item) for name, item in node.items())
    if isinstance(node, list | tuple):
        return any(_has_experts(key, item) for item in node)
    return key == "experts" and isinstance(node, int) and node > 1
