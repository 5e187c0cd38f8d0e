"""Every command's options as data: what a refactoring of the command line has to leave as it is.

`python tests/test_contracts.py` writes the file again, where a change is meant.
"""

import json
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from nas.cli import app

FILE = Path(__file__).with_name("commands.json")


def commands() -> dict[str, Any]:
    """Each command's help, and each of its parameters' names, type, default and help, by the command's words."""
    found = {}

    def visit(command: Any, words: str) -> None:
        found[words] = {
            "help": command.help,
            "epilog": command.epilog,
            "parameters": {"/".join([*item.opts, *item.secondary_opts]): described(item) for item in command.params},
        }
        for name, sub in getattr(command, "commands", {}).items():
            visit(sub, f"{words} {name}")

    visit(typer.main.get_command(app), "nas")
    return found


def described(parameter: Any) -> dict[str, Any]:
    default = parameter.default
    values = {
        "kind": parameter.param_type_name,
        "type": type_name(parameter.type_descriptor.annotation) if hasattr(parameter, "type_descriptor") else "bool",
        "metavar": parameter.metavar,
        "default": default if isinstance(default, bool | int | float | str | list | None) else str(default),
        "shows_default": default is not None and bool(parameter.show_default),
        "help": parameter.help,
    }
    flags = {name: True for name in ("multiple", "required", "is_flag") if getattr(parameter, name, False)}
    return values | flags | ({"nargs": parameter.nargs} if parameter.nargs != 1 else {})


def type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


RECORDED = json.loads(FILE.read_text()) if FILE.exists() else {}


def test_the_commands_are_those_recorded() -> None:
    assert list(commands()) == list(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_a_command_s_options_are_those_recorded(name: str) -> None:
    found = commands()[name]
    assert found == RECORDED[name]
    assert list(found["parameters"]) == list(RECORDED[name]["parameters"])  # in this order, as --help shows them


if __name__ == "__main__":
    FILE.write_text(json.dumps(commands(), indent=1, ensure_ascii=False) + "\n")
    sys.exit(0)
