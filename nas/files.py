"""Reading files that may come from somebody else, and writing files that are never half-written."""

import os
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from nas.errors import UserError

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_NODES = 100_000


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses a key that is given twice (PyYAML keeps the last one silently)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML from an untrusted source into plain lists, dictionaries and scalars.

    Raises:
        UserError: not YAML, a tag, a cycle, or larger, deeper or more aliased than any document of ours.
    """
    if len(text) > MAX_BYTES:
        raise UserError(f"{where}: {len(text):,} characters; a document has at most {MAX_BYTES:,}")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}: not plain YAML{line}: {problem}") from error
    except RecursionError as error:
        raise UserError(f"{where}: nested deeper than {MAX_DEPTH} levels") from error
    except (TypeError, ValueError, OverflowError, AttributeError) as error:  # an unhashable key, a date 9999-99-99
        raise UserError(f"{where}: not plain YAML: {error}") from error
    _check_extent(value, where)
    return value


def read_text(path: Path) -> str:
    """The text of a file; every way in which that can fail is a one-line UserError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes; a document has at most {MAX_BYTES:,}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_yaml(path: Path) -> Any:
    """Parse a YAML file from an untrusted source; see :func:`parse_yaml`."""
    return parse_yaml(read_text(path), str(path))


def dump_flow(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write beside the file, flush to disk, rename: a reader (or a crash) sees the old content or the new, whole."""
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _check_extent(root: Any, where: str) -> None:
    """Walk the document as it would be written out in full (aliases expanded), which also ends in a cycle."""
    nodes = 0
    pending = [(root, 0)]
    while pending:
        value, depth = pending.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            raise UserError(f"{where}: nested deeper than {MAX_DEPTH} levels, or an alias that contains itself")
        if nodes > MAX_NODES:
            raise UserError(f"{where}: more than {MAX_NODES:,} values once its aliases are written out")
        if isinstance(value, dict):
            pending.extend((item, depth + 1) for pair in value.items() for item in pair)
        elif isinstance(value, list | tuple | set):
            pending.extend((item, depth + 1) for item in value)
