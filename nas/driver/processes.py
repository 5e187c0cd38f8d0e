"""Processes beside this one: those that it started, and Ray's, whose end it has to notice.

When its head dies, Ray keeps every call waiting for a minute and then ends the process, without a word on how the
search goes on. So a thread asks head and raylet once a second whether they are there, by opening a connection.
"""

import _thread
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 10
"""Attempts in a row, one a second, after which Ray is given up. A network may fail for a moment, and this process may
stand still for some seconds, in which it asks nothing."""
REACTION = 5.0
"""Seconds in which the main thread has to react, unless it waits for Ray within Ray's own code."""


def descendants(process: int) -> list[int]:
    """The processes that a process started, and those that they started; empty where there is no ``/proc``."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    found, open_ = [], [process]
    while open_:
        mine = children.get(open_.pop(), [])
        found += mine
        open_ += mine
    return found


class RayLostError(RuntimeError):
    """Ray's head, or the raylet that this process works through, does not answer any more."""


@contextmanager
def watched(addresses: Sequence[tuple[str, int]]) -> Iterator[None]:
    """Make Ray's end a :class:`RayLostError`, raised in the main thread.

    A main thread that is stuck in a call of Ray's cannot raise anything: then the watching thread does, which
    ``threading.excepthook`` is told of.

    Args:
        addresses: host and port of each process that is needed.
    """
    lost: list[str] = []
    over = threading.Event()

    def watch() -> None:
        failures = dict.fromkeys(addresses, 0)
        while not over.wait(1.0):
            for address in failures:
                failures[address] = 0 if _answers(address) else failures[address] + 1
            silent = [address for address, count in failures.items() if count >= PATIENCE]
            if silent and not over.is_set():
                lost.append(f"Ray does not answer any more at {silent[0][0]}:{silent[0][1]}")
                _thread.interrupt_main()
                if not over.wait(REACTION):
                    raise RayLostError(lost[0])
                return

    threading.Thread(target=watch, name="ray-watchdog", daemon=True).start()
    try:
        yield
    except BaseException as error:
        over.set()
        if lost:
            raise RayLostError(lost[0]) from error
        raise
    finally:
        over.set()


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1.0).close()
    except OSError:
        return False
    return True
