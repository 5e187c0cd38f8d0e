"""The README and the pages of docs/, read as Markdown."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from nas.architecture.document import Input

ROOT = Path(__file__).parents[2]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}
SPACE, METHOD, FILES = PAGES["docs/space.md"], PAGES["docs/method.md"], PAGES["docs/files.md"]
NOT_RUN = re.compile(r"<!-- not run: [^>]+ -->\s*$")


class Snippet(NamedTuple):
    page: str
    line: int
    language: str
    code: str
    runs: bool


def snippets(page: str) -> list[Snippet]:
    text = PAGES[page]
    return [
        Snippet(
            page, text[: match.start(2)].count("\n") + 1, match[1], match[2], not NOT_RUN.search(text[: match.start()])
        )
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)
    ]


def prose(page: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.S | re.M)


def inline_code(page: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def section(text: str, heading: str) -> str:
    """What stands between a heading and the next one."""
    match = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.S | re.M)
    assert match, f"no section {heading}"
    return match[1]


def table(text: str, first_column: str) -> list[dict[str, str]]:
    """The rows of the table whose first column is called that, by column."""
    lines = iter(text.splitlines())
    header: list[str] = []
    for line in lines:
        if line.startswith(f"| {first_column} |"):
            header = cells(line)
            next(lines)
            break
    assert header, f"no table of {first_column}"
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(header, cells(line), strict=True)))
    return rows


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def named(rows: list[dict[str, str]], column: str) -> list[str]:
    """What a column names in code, several to a cell or one."""
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row[column])]


def written_default(cell: str) -> Any:
    return "" if cell == "empty" else yaml.safe_load(cell.strip("`"))


def plain_default(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump() if isinstance(value, Input) else value.without_defaults()
    return list(value) if isinstance(value, tuple) else value
