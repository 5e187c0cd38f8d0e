"""Every number that a command takes: one out of range is one line, before anything is read or begun."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import nas
from nas import api
from nas.cli import app, main
from nas.driver.options import Resources
from nas.errors import UserError


def numbers(command: Any = None, words: tuple[str, ...] = ()) -> Iterator[Any]:
    """The commands' options that are numbers, each with what its command needs beside it and cannot find."""
    command = command or typer.main.get_command(app)
    for name, sub in getattr(command, "commands", {}).items():
        yield from numbers(sub, (*words, name))
    needed = [*words, *("nowhere" for item in command.params if item.param_type_name == "argument")]
    for item in command.params:
        if item.opts[0] == "--space" or (item.required and item.param_type_name == "option"):
            needed += [item.opts[0], "nowhere"]
    for item in command.params:
        if item.param_type_name == "option" and item.type_descriptor.annotation in (int, float):
            yield pytest.param([*needed, item.opts[0]], id=" ".join([*words, item.opts[0]]))


ALL = list(numbers())


def test_there_are_options_that_are_numbers() -> None:
    assert {item.id for item in ALL} >= {"search --trials", "train --hours", "latency calibrate --networks"}


@pytest.mark.parametrize("words", ALL)
def test_a_negative_number_is_one_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nas", *words, "-3"])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith(f"nas: {words[-1].removeprefix('--')} -3: ") and "needed" in printed.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"report_every": -1}, "report-every -1: at least 0 is needed"),
        ({"epochs": 0}, "epochs 0: at least 1 is needed"),
        ({"hours": math.inf}, "hours inf: more than 0 are needed"),
        ({"hours": math.nan}, "hours nan: more than 0 are needed"),
        ({"hours": 0}, "hours 0: more than 0 are needed"),
        ({"seed": -1}, "seed -1: at least 0 is needed, at most 9,223,372,036,854,775,807"),
        ({"seed": 2**64}, "seed 18446744073709551616: at least 0 is needed, at most 9,223,372,036,854,775,807"),
    ],
)
def test_python_s_options_have_the_ranges_of_the_command_s(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        nas.search("nowhere", **options)
    if "report_every" in options or "hours" in options:
        with pytest.raises(UserError, match=f"^{message}$"):
            api.resume("nowhere", **options)


def test_a_range_has_its_ends() -> None:
    for share in (0, 0.01, 1):
        Resources(gpus_per_trial=share)
    for threads in (1, 1024):
        Resources(cpus_per_trial=threads)
    with pytest.raises(UserError, match="cpus-per-trial 1025: at least 1 is needed, at most 1,024"):
        Resources(cpus_per_trial=1025)
