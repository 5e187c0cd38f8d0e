"""Reading files that may come from somebody else, and writing files that are never half-written."""

import datetime
import errno
import io
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from nas.errors import UserError

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_NODES = 100_000
MAX_NUMBER = 2**63


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without infinities, keys that are no text, and keys given twice (PyYAML keeps the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):  # numbers can be chosen so that all have one hash
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is no text", key_node.start_mark)
            if key in keys:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
            keys.add(key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> float:
        if not math.isfinite(value := self.construct_yaml_float(node)):
            raise yaml.constructor.ConstructorError(None, None, f"{node.value} is no number", node.start_mark)
        return value


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_Loader.add_constructor(_FLOAT, _Loader.construct_number)


class _HandWrittenLoader(_Loader):
    """The loader with the numbers that people mean, those of YAML 1.2: 1e-2 is one, 016 is 16, and 1:30 is text.

    Not for what `nas` writes itself: PyYAML leaves a text such as 1e5 without quotes, since in YAML 1.1 it is text.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # of PyYAML's class, by first character
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT, _FLOAT)]
        for first, resolvers in _Loader.yaml_implicit_resolvers.items()
    }

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        text = node.value.replace("_", "")
        return int(text, 10 if text.lstrip("+-").isdigit() else 0)


_HandWrittenLoader.add_constructor(_INT, _HandWrittenLoader.construct_whole_number)
_HandWrittenLoader.add_implicit_resolver(
    _INT, re.compile(r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)$"), list("+-0123456789")
)
_HandWrittenLoader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"),
    list("+-.0123456789"),
)


def parse_yaml(text: str, where: str, *, hand_written: bool = False) -> Any:
    """Parse YAML from an untrusted source into plain lists, dictionaries and scalars.

    `hand_written`: it is a file of the user's, a recipe or a space; its numbers are those of YAML 1.2.

    Raises:
        UserError: not YAML, a tag, a cycle, or larger, deeper or more aliased than any document of ours.
    """
    if len(text) > MAX_BYTES:
        raise UserError(f"{where}: {len(text):,} characters; a document has at most {MAX_BYTES:,}")
    try:
        value = yaml.load(text, Loader=_HandWrittenLoader if hand_written else _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}: not plain YAML{line}: {problem}") from error
    except RecursionError as error:
        raise UserError(f"{where}: nested deeper than {MAX_DEPTH} levels") from error
    except (TypeError, ValueError, OverflowError, AttributeError) as error:  # an unhashable key, a date 9999-99-99
        raise UserError(f"{where}: not plain YAML: {error}") from error
    check_extent(value, where)
    return value


def parse_json(text: str, where: str) -> Any:
    """Parse JSON from an untrusted source, within the same limits as :func:`parse_yaml`.

    Raises:
        UserError: not JSON, or larger or deeper than any document of ours.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of more than 4,300 digits is a ValueError too
        raise UserError(f"{where}: not JSON: {error}") from error
    check_extent(value, where)
    return value


def read_text(path: Path, *, most: int = MAX_BYTES) -> str:
    """The text of a file of at most so many bytes; every way in which that can fail is a one-line UserError."""
    try:
        return io.TextIOWrapper(io.BytesIO(read_bytes(path, most=most)), encoding="utf-8").read()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text") from error


def read_bytes(path: Path, *, most: int) -> bytes:
    """The content of a file of at most so many bytes, as :func:`read_text`."""
    check_size(path, most=most)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def check_size(path: Path, *, most: int) -> None:
    """Check a file before it is read: a sparse file of a terabyte costs nothing, and a device has no end.

    Args:
        path: the file.
        most: bytes.

    Raises:
        UserError: it is larger, missing, or no file.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path}: cannot be read: {os.strerror(errno.EISDIR)}")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: cannot be read: not a file")
    if status.st_size > most:
        raise UserError(f"{path}: {status.st_size:,} bytes; such a document has at most {most:,}")


def read_yaml(path: Path, *, hand_written: bool = False) -> Any:
    """Parse a YAML file from an untrusted source; see :func:`parse_yaml`."""
    return parse_yaml(read_text(path), str(path), hand_written=hand_written)


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
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def write_file(path: Path, content: str | bytes, where: str = "", *, new_folder: bool = False) -> None:
    """Write a file of the user's by :func:`write_atomic`.

    Args:
        path: the file.
        content: all of it.
        where: what an error begins with; default: the path.
        new_folder: create its folder.

    Raises:
        UserError: it cannot be written.
    """
    try:
        if new_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        raise UserError(f"{where or path}: cannot be written: {error.strerror or error}") from error


def cache_folder(subject: str) -> Path:
    """Return the cache folder of a subject: ``$NAS_CACHE_DIR/<subject>``, or ``nas/<subject>`` in the user's.

    It is not created.
    """
    own = os.environ.get("NAS_CACHE_DIR")
    if own:
        return Path(own) / subject
    shared = os.environ.get("XDG_CACHE_HOME")
    home = home_folder()
    usual = home / ".cache" if home is not None else Path(tempfile.gettempdir())
    return (Path(shared) if shared else usual) / "nas" / subject


def home_folder() -> Path | None:
    """Return the user's home; None where there is none to write to, as in a container whose user has no name."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if home.is_dir() and os.access(home, os.W_OK) else None


def shipped_folder(name: str) -> Path:
    """Return a folder of files that come with the program, such as ``search_spaces``.

    Installed, it is data of the package; in a checkout it lies beside the package.
    """
    package = Path(__file__).resolve().parent
    installed = package / "data" / name
    return installed if installed.is_dir() else package.parent / name


def remove_unfinished(folder: Path) -> None:
    """Remove what :func:`write_atomic` left in a folder when its process was killed; for the folder's one writer."""
    for file in folder.glob(".*.tmp"):
        file.unlink(missing_ok=True)


def check_extent(root: Any, where: str) -> None:
    """Check what a parser gave before anybody walks or prints it.

    It is walked as it would be written out in full (aliases expanded), which also ends in a cycle.

    Raises:
        UserError: deeper, larger or with a larger whole number than any document of ours.
    """
    nodes = 0
    pending = [(root, 0)]
    while pending:
        value, depth = pending.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            raise UserError(f"{where}: nested deeper than {MAX_DEPTH} levels, or an alias that contains itself")
        if nodes > MAX_NODES:
            raise UserError(f"{where}: more than {MAX_NODES:,} values once its aliases are written out")
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise UserError(f"{where}: a whole number beyond {MAX_NUMBER:,}")
        if isinstance(value, dict):
            pending.extend((item, depth + 1) for pair in value.items() for item in pair)
        elif isinstance(value, list | tuple | set):
            pending.extend((item, depth + 1) for item in value)


def fresh_folder(subject: str, dataset: str) -> Path:
    """Return a folder under ``results/`` that does not exist yet, named by time, subject and data set."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("results") / f"{stamp}-{subject}-{dataset.partition(':')[0]}"
