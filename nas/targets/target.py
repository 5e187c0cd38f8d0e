"""A target: the file that is shipped there, how large it is, how much memory it needs, and what its runtime knows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nas.architecture.document import Architecture

CostInBytes = Callable[[Architecture, int], int]
"""A network's bytes for a number of classes."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A file format and a runtime, with a network's costs there.

    Attributes:
        name: as ``--target`` gives it.
        ending: of the file's name.
        engine: the latency engine (:mod:`nas.latency.engines`); None where no latency is known.
        int8: weights, per output channel, and activations are int8.
        size: the file's bytes.
        memory: bytes that a run needs.
        knows_experts: the runtime runs conditional convolutions.
        aliases: further names of objectives.
    """

    name: str
    ending: str
    engine: str | None
    size: CostInBytes
    memory: CostInBytes
    int8: bool = False
    knows_experts: bool = True
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)

    def objection(self, architecture: Architecture) -> str | None:
        """Return why the target cannot run a network, or None where it can."""
        if not self.knows_experts and architecture.has_experts:
            return f"conditional convolutions (experts above 1) do not run on {self.name}"
        return None
