"""A target: the file that is shipped there, how large it is, how much memory it needs, and what its runtime knows."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from nas.architecture.document import Architecture
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
