"""One writer to a run: a lock of its folder and, where its study is in a database, a lease of the study.

The folder's lock ends with the process that holds it, but holds only where processes share the folder. Copies of one
folder, or machines without a common file system, meet in the database: there a driver renews a lease every few seconds,
and one that died loses it.
"""

import _thread
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import column, delete, insert, select, table, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from nas.errors import UserError

LOCK_FILE = ".lock"
LEASE_SECONDS = 30.0
_KEY = "nas:lease"
_ATTRIBUTES = table("study_system_attributes", column("study_id"), column("key"), column("value_json"))
"""Optuna's table of what stands in a study beside its trials; :meth:`optuna.storages.BaseStorage` cannot compare and
set, which a lease needs."""


class LeaseLostError(RuntimeError):
    """Another driver has taken the run over, while this one stood still for longer than its lease."""


@contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Create a run's folder, and keep other writers out of it for as long as this process is in here.

    What was created, and is empty in the end, is removed again.

    Raises:
        UserError: it cannot be created or written to, or another process writes to it.
    """
    absent = [folder for folder in (out / "checkpoints", out, *out.absolute().parents) if not folder.exists()]
    try:
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
        handle = _lock(out / LOCK_FILE)
    except OSError as error:
        raise UserError(f"{out}: cannot be created: {error.strerror or error}") from error
    try:
        yield
    finally:
        (out / LOCK_FILE).unlink(missing_ok=True)
        os.close(handle)
        for folder in absent:
            with suppress(OSError):  # something stands in it by now
                folder.rmdir()


def _lock(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 500).decode(errors="replace") or "another process"
            os.close(handle)
            raise UserError(f"{path.parent}: {holder}, is writing to this run; wait for it, or stop it") from error
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                os.truncate(handle, 0)
                os.write(handle, _myself().encode())
                return handle
        os.close(handle)  # its holder removed it between the two calls


def _myself() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"


def _machine() -> str:
    """Return where process numbers are ours: this machine since its start, this container."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # Linux
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return " ".join(parts)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


class StudyLease:
    """While it is entered, a study in a database is this driver's.

    It is taken, renewed and given back by a statement each that changes the row only where the row is what was read, so
    that of two drivers one succeeds. Clocks of machines should agree within the lease's length (`seconds` after the
    last renewal): where they do not, a driver whose lease was taken notices at the next renewal or write.

    Raises:
        UserError: another driver has it.
        LeaseLostError: another driver took it over meanwhile; raised in the main thread (unless SIGINT is ignored, as
            by background jobs of shells), and by :meth:`batch`.
        KeyError: there is no such study.
    """

    def __init__(self, storage: BaseStorage, study: str, *, seconds: float = LEASE_SECONDS) -> None:
        assert isinstance(storage, RDBStorage)
        self._engine = storage.engine
        self._key = {"study_id": storage.get_study_id_from_name(study), "key": _KEY}
        self._row = [_ATTRIBUTES.c[name] == value for name, value in self._key.items()]
        self._study = study
        self._seconds = seconds
        self._holder = {"holder": _myself(), "machine": _machine(), "process": os.getpid(), "token": uuid.uuid4().hex}
        self._held = ""
        self._until = 0.0
        self._lost = False
        self._over = threading.Event()
        self._renewing = threading.Lock()
        self._thread = threading.Thread(target=self._renew, name="study-lease", daemon=True)

    def __enter__(self) -> Self:
        before = self._read()
        self._refuse(before)
        if not self._swap(before, self._next()):
            self._refuse(self._read())
            raise UserError(f"study {self._study}: another driver begins with it right now; try again")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._lost:
            raise self._loss() from error
        with suppress(SQLAlchemyError):
            self._swap(self._held, None)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Write within: a driver that was suspended past its lease finds out before, and not when it renews it."""
        if time.time() > self._until and not self._prolong():
            raise self._loss()
        yield

    def _renew(self) -> None:
        while not self._over.wait(self._seconds / 3):
            try:
                if self._prolong():
                    continue
            except SQLAlchemyError:  # not reachable for a moment: it may be again before the lease ends
                continue
            _thread.interrupt_main()
            return

    def _prolong(self) -> bool:
        with self._renewing:
            if not self._lost:
                self._lost = not self._swap(self._held, self._next())
            return not self._lost

    def _refuse(self, value: str | None) -> None:
        try:
            other = json.loads(value or "{}")
            left = float(other["until"]) - time.time()
            holder = str(other["holder"])
            died = other["machine"] == _machine() and not _lives(int(other["process"]))
        except (ValueError, KeyError, TypeError):  # free, or nothing that a driver wrote
            return
        if left > 0 and not died:
            raise UserError(
                f"study {self._study}: {holder}, is writing to this run; wait for it, or stop it "
                f"(had it died, the run is free in {left:.0f} s)"
            )

    def _loss(self) -> LeaseLostError:
        return LeaseLostError(f"another driver has taken over the study {self._study}, while this one stood still")

    def _next(self) -> str:
        return json.dumps({**self._holder, "until": round(time.time() + self._seconds, 3)})

    def _read(self) -> str | None:
        with self._engine.connect() as connection:
            return connection.execute(select(_ATTRIBUTES.c.value_json).where(*self._row)).scalar()

    def _swap(self, before: str | None, after: str | None) -> bool:
        """Replace the row where it is as it was; None: no row. Returns whether it was replaced."""
        statement: Any
        if before is None:
            statement = insert(_ATTRIBUTES).values(**self._key, value_json=after)
        elif after is None:
            statement = delete(_ATTRIBUTES).where(*self._row, _ATTRIBUTES.c.value_json == before)
        else:
            statement = update(_ATTRIBUTES).where(*self._row, _ATTRIBUTES.c.value_json == before)
            statement = statement.values(value_json=after)
        try:
            with self._engine.begin() as connection:
                changed = connection.execute(statement).rowcount == 1
        except IntegrityError:  # two inserted it at once
            return False
        if changed and after is not None:
            self._held, self._until = after, json.loads(after)["until"]
        return changed
