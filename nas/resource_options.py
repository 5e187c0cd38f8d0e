"""The options of the commands that train on Ray, stated once."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer


def _options(
    cpus_per_trial: Annotated[int | None, typer.Option(help="Threads of a worker.", show_default=False)] = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option(help="Share of a GPU and of its memory, such as 0.25.", show_default=False)
    ] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Workers at once.", show_default=False)] = None,
    address: Annotated[str | None, typer.Option(help="Of a running Ray cluster, or auto.", show_default=False)] = None,
    max_failures: Annotated[int, typer.Option(help="End after so many failed trials in a row.")] = 5,
    epoch_timeout: Annotated[float, typer.Option(help="Seconds after which an epoch is given up; 0: never.")] = 3600,
) -> None:
    """Named as the fields of :class:`nas.driver.cluster.Resources`."""


def with_resources(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose last parameter is ``resources``: typer sees the options above in its place."""
    own, options = inspect.signature(command), inspect.signature(_options).parameters

    @functools.wraps(command)
    def run(**given: Any) -> None:
        from nas.driver.cluster import Resources

        resources = Resources(**{name: given.pop(name) for name in options})
        command(**given, resources=resources)

    *parameters, _ = own.parameters.values()
    everything = [*parameters, *options.values()]
    run.__signature__ = own.replace(parameters=everything)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in everything}
    return run
