"""README and docs say what is true: their snippets run."""

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import PAGES, ROOT, Snippet, snippets

import nas
from nas import api
from nas.driver.run import Run


@pytest.mark.parametrize(
    "snippet",
    [snippet for page in PAGES for snippet in snippets(page) if snippet.language == "yaml"],
    ids=lambda snippet: f"{snippet.page}:{snippet.line}",
)
def test_yaml_is_a_space(snippet: Snippet) -> None:
    space = nas.Space(yaml.safe_load(snippet.code), snippet.page)
    assert space.contains(space.sample(0))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(snippet.language == "python" for snippet in snippets(page))]
)
def test_python_runs(page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a page, one after the other, in one namespace; a search is checked for its arguments and not run."""
    monkeypatch.chdir(workplace)

    def search(*arguments: Any, **options: Any) -> Run:
        inspect.signature(api.search).bind(*arguments, **options)
        return nas.open_run("results/first")

    monkeypatch.setattr(nas, "search", search, raising=False)
    namespace: dict[str, Any] = {}
    for snippet in (snippet for snippet in snippets(page) if snippet.language == "python"):
        code = "\n" * (snippet.line - 1) + snippet.code
        if snippet.runs:
            exec(compile(code, str(ROOT / page), "exec"), namespace)
        else:
            check_without_running(code, str(ROOT / page))


def check_without_running(code: str, name: str) -> None:
    """What is imported is there, and what was imported is called with arguments that it takes."""
    tree = ast.parse(code, name)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    namespace: dict[str, Any] = {}
    exec(compile(ast.Module(imports, []), name, "exec"), namespace)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Name) and call.func.id in namespace:
            keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            inspect.signature(namespace[call.func.id]).bind(*call.args, **keywords)
