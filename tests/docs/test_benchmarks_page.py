"""The README's measured figures stand in docs/benchmarks.md, and those in what the scripts printed."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from pages import PAGES, ROOT, section, table

ROWS = table(PAGES["README.md"], "what")
PRINTED = {
    script.stem: "".join(path.read_text() for path in (ROOT / "results" / "benchmarks").glob(f"{script.stem}*.txt"))
    for script in (ROOT / "benchmarks").glob("*.py")
}


def figures(text: str) -> list[str]:
    """The measured numbers of a text: those with a decimal point."""
    return re.findall(r"\d+\.\d+", text)


@pytest.mark.parametrize("row", ROWS, ids=[row["what"] for row in ROWS])
def test_a_figure_of_the_readme_is_explained(row: dict[str, str]) -> None:
    explained = section(PAGES["docs/benchmarks.md"], row["script"])
    numbers = re.findall(r"\d[\d.,]*", row["figure"] + row["what"].partition("(")[2])
    assert numbers and [number for number in numbers if number not in explained] == []


@pytest.mark.parametrize("script", sorted({row["script"].strip("`") for row in ROWS}))
def test_a_figure_of_the_page_was_printed(script: str) -> None:
    printed = sorted(map(float, re.findall(r"\d+(?:\.\d+)?", PRINTED[script.removesuffix(".py")])))
    for figure in figures(section(PAGES["docs/benchmarks.md"], f"`{script}`")):
        rounding = 0.5001 * 10.0 ** -len(figure.partition(".")[2])
        assert any(abs(float(figure) - number) <= rounding for number in printed), figure


def test_one_command_runs_every_benchmark() -> None:
    command = (ROOT / "benchmarks" / "all.sh").read_text()
    scripts = {path.name for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()}
    assert sorted(name for name in scripts - {"gpu.py"} if name not in command.split()) == []


@pytest.mark.slow
def test_what_a_benchmark_printed_is_kept_and_not_made_twice(tmp_path: Path) -> None:
    command = ["bash", str(ROOT / "benchmarks" / "all.sh"), str(tmp_path), str(tmp_path), "early_stopping"]
    run = partial(subprocess.run, command, capture_output=True, text=True, check=True)
    run(env={**os.environ, "PYTHON": sys.executable})
    kept = (tmp_path / "early_stopping.txt").read_text()
    assert re.match(r"commit \w+", kept) and "hypervolume kept" in kept and re.search(r"^took \d+ min$", kept, re.M)
    assert run(env={**os.environ, "PYTHON": "false"}).stdout == "early_stopping: is there\n"
