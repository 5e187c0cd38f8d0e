"""The README's measured figures stand in docs/benchmarks.md, and those in what the scripts printed."""

import re

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
