"""README and docs say what is true: their commands parse, their links and paths lead somewhere."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from pages import PAGES, ROOT, inline_code, prose, snippets

from nas.cli import app

COMMAND: Any = typer.main.get_command(app)


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and the words that are left for it."""
    command = COMMAND
    while hasattr(command, "commands"):
        assert words, "no command"
        if command.name == "latency" and words[0] not in command.commands:
            words = ["measure", *words]  # as the command itself does
        assert words[0] in command.commands, f"no command {words[0]!r}; there are {', '.join(command.commands)}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def all_options(command: Any = COMMAND) -> set[str]:
    inner = [all_options(sub) for sub in getattr(command, "commands", {}).values()]
    return options_of(command).union(*inner, {"--debug", "--help"})


def shell_commands(page: str) -> list[list[str]]:
    """The words behind each `nas` of the page's shell blocks."""
    found = []
    for snippet in snippets(page):
        if snippet.language not in ("sh", "bash", "shell", "console"):
            continue
        for line in snippet.code.replace("\\\n", " ").splitlines():
            words: list[str] = []
            for word in [*shlex.split(line.removeprefix("$ "), comments=True), ";"]:
                if word in ("&&", "||", "|", ";"):
                    if words[:1] == ["nas"]:
                        found.append(words[1:])
                    words = []
                else:
                    words.append(word)
    return found


SHELL = [pytest.param(words, id=f"{page}: nas {' '.join(words)}") for page in PAGES for words in shell_commands(page)]
INLINE = [
    pytest.param(code, id=f"{page}: {code}")
    for page in PAGES
    for code in dict.fromkeys(inline_code(page))
    if re.match(r"nas [a-z]", code)
]


def test_the_readme_has_commands() -> None:
    assert len(shell_commands("README.md")) > 5


@pytest.mark.parametrize("words", SHELL)
def test_command_parses(words: list[str]) -> None:
    command, rest = find_command([word for word in words if word != "--debug"])
    command.make_context(command.name, rest)  # parses, and raises what the user would see; runs nothing


@pytest.mark.parametrize("code", INLINE)
def test_command_in_a_sentence(code: str) -> None:
    """It may lack arguments, but what it names exists."""
    command, rest = find_command(shlex.split(code)[1:])
    known = options_of(command) | {"--help", "--debug"}
    for word in rest:
        assert not word.startswith("--") or word.partition("=")[0] in known


@pytest.mark.parametrize("page", PAGES)
def test_options_in_sentences(page: str) -> None:
    mentioned = {code.split()[0].partition("=")[0] for code in inline_code(page) if code.startswith("--")}
    assert mentioned <= all_options()


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


LINKS = [
    pytest.param(page, link, id=f"{page}: {link}")
    for page in PAGES
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page))
    if not re.match(r"[a-z]+:", link)
]


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_link_resolves(page: str, link: str) -> None:
    file, _, anchor = link.partition("#")
    target = (ROOT / page).parent / file if file else ROOT / page
    assert target.exists()
    assert not anchor or anchor in anchors(target)


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_sentences_exist(page: str) -> None:
    ours = re.compile(r"(nas|benchmarks|tests|docs|search_spaces|results/(published|benchmarks)|\.ci)/[\w./-]*")
    named_paths = [code for code in inline_code(page) if ours.fullmatch(code)]
    assert [path for path in named_paths if not (ROOT / path).exists()] == []
