"""Storage of a search's study: a journal file in the run's folder, or a database.

The file has Optuna's journal format, for the one writer that a run has. Optuna's own ``JournalFileBackend`` opens and
reads the same file (``optuna-dashboard`` does), but is made for many writers: it locks, writes and flushes to disk for
every parameter of every trial, waits half a minute for the lock of a process that was killed, and cannot be read any
more once a killed process has left half a line that the next one wrote on to. Here the run's folder is locked
(:mod:`nas.driver.locking`), half a line is cut off, and what belongs together is flushed together or, where an
exception comes between, not at all.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from nas.errors import UserError, first_line

STUDY_FILE = "study.journal"
MAX_LINE = 16_000_000
"""Bytes. The longest lines are those of what is found out at the end about all networks of a front, some hundred kB."""


class RunJournal(BaseJournalBackend):
    """See the module's docstring.

    Args:
        path: the file; a writer creates it.
        writer: whether to write. Any number of readers may read beside the writer.

    Raises:
        UserError: the file cannot be opened, or is damaged.
    """

    def __init__(self, path: Path, *, writer: bool) -> None:
        self._path = path
        self._pending: list[dict[str, Any]] = []
        self._batches = 0
        self._written = 0
        self._broken = False
        # Where reading goes on: the number of the next line and its place in the file.
        self._next = (0, 0)
        self._writes = writer
        if writer:
            self._written = _repair(path)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries; within a batch they wait for its end.

        Raises:
            RuntimeError: a batch broke off before. Optuna's copy in memory has what was dropped: open the file again.
        """
        if self._broken:
            raise RuntimeError(f"{self._path}: a write was broken off; open the journal again")
        self._pending.extend(logs)
        if not self._batches:
            self._flush()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        number, offset = self._next if self._next[0] <= log_number_from else (0, 0)
        with self._path.open("rb") as file:
            file.seek(offset)
            for line in _whole_lines(file, self._path):
                if number >= log_number_from:
                    yield _parse(line, self._path)
                number, offset = number + 1, offset + len(line)
        self._next = (number, offset)
        if self._writes:
            # Through JSON, so that what is read back does not depend on whether it was flushed yet.
            yield from json.loads(json.dumps(self._pending[max(0, log_number_from - self._written) :]))

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Flush what is written within as one, at the end: after a crash or an exception all of it is there or none."""
        self._batches += 1
        try:
            yield
        except BaseException:
            self._break_off()
            raise
        finally:
            self._batches -= 1
        if not self._batches:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        try:
            lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in self._pending)
            left = lines.encode()
            with self._path.open("ab", buffering=0) as file:
                start = file.seek(0, os.SEEK_END)
                try:
                    while left:
                        left = left[file.write(left) :]
                    os.fsync(file.fileno())
                except BaseException:
                    # A full disk, or Ctrl-C: what is not written whole must not stand there in part.
                    file.truncate(start)
                    raise
        except BaseException:
            self._break_off()
            raise
        self._written += len(self._pending)
        self._pending.clear()

    def _break_off(self) -> None:
        self._pending.clear()
        self._broken = True


def _repair(path: Path) -> int:
    """Create the file, or cut off half a line at its end; returns the number of whole lines."""
    count = end = 0
    try:
        file = path.open("rb+" if path.exists() else "wb+")
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror or error}") from error
    with file:
        for line in _whole_lines(file, path):
            count, end = count + 1, end + len(line)
        file.truncate(end)
    return count


def _whole_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines up to one that is being written right now, or was left by a writer that was killed."""
    while (line := file.readline(MAX_LINE)).endswith(b"\n"):
        yield line
    if len(line) == MAX_LINE:
        raise UserError(f"{path}: damaged: a line of more than {MAX_LINE:,} bytes")


def _parse(line: bytes, path: Path) -> dict[str, Any]:
    try:
        log = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged: a line is not JSON") from error
    if not isinstance(log, dict):
        raise UserError(f"{path}: damaged: a line is not a journal entry")
    return log


def open_storage(
    folder: Path, url: str | None, *, journal: RunJournal | None = None, create: bool = True
) -> BaseStorage:
    """Open the journal file in the run's folder (`journal`, if its writer has opened it), or the database of a URL.

    A database is made, and tables in it, with `create` alone: a folder of somebody else's may name any file.

    Raises:
        UserError: the database cannot be reached, or the file holds what is no study.
    """
    if url is None:
        try:
            return JournalStorage(journal or RunJournal(folder / STUDY_FILE, writer=False))
        except UserError:
            raise
        except Exception as error:  # Optuna plays back what a journal holds without looking at it
            raise UserError(f"{folder / STUDY_FILE}: damaged: {type(error).__name__}: {error}") from error
    try:
        address = make_url(url)
        shown = address.render_as_string(hide_password=True)
        if not create and address.get_backend_name() == "sqlite" and not Path(address.database or "").is_file():
            raise UserError(f"{folder}: its study should be in {shown}; there is no such file")
        return RDBStorage(url, skip_table_creation=not create)
    except UserError:
        raise
    except ArgumentError as error:
        raise UserError(f"--storage {url!r}: not a database's URL, such as sqlite:///study.db") from error
    except ImportError as error:
        raise UserError(f"--storage {shown}: its driver is not installed: {error.__cause__ or error}") from error
    except Exception as error:  # every database driver has errors of its own
        raise UserError(f"--storage {shown}: {first_line(error)}") from error
