"""A space without what a target does not run."""

from collections.abc import Mapping
from typing import Any

from nas.architecture.space import Space
from nas.errors import UserError
from nas.targets.target import Target


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
