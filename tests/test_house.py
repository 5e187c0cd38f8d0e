"""The floor plan, as far as import-linter cannot see it."""

import ast
from pathlib import Path

import nas

ROOT = Path(nas.__file__).parent
BY_NAME = {
    "__init__.py",  # nas.search and the others, when they are first used
    "blocks/__init__.py",  # the block kinds of its own folder
    "preprocessing.py",  # pillow-heif, where it is installed
}


def test_nothing_is_imported_by_name_past_the_linter() -> None:
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name in ("import_module", "__import__"):
                found.add(str(path.relative_to(ROOT)))
    assert found == BY_NAME


def test_no_file_is_two_things() -> None:
    long = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if len(path.read_text().splitlines()) > 400}
    assert not long
