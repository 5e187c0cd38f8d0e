"""Notices that Ray is gone.

When its head dies, Ray keeps every call waiting for a minute and then ends the process, without a word on how the
search goes on. So a thread asks head and raylet once a second whether they are there, by opening a connection.
"""

import _thread
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

PATIENCE = 10
"""Attempts in a row, one a second, after which Ray is given up. A network may fail for a moment, and this process may
stand still for some seconds, in which it asks nothing."""

REACTION = 5.0
"""Seconds in which the main thread has to react, unless it waits for Ray within Ray's own code."""


class RayLostError(RuntimeError):
    """Ray's head, or the raylet that this process works through, does not answer any more."""


class HeadWatch:
    """While it is entered, Ray's end is a :class:`RayLostError`, raised in the main thread.

    A main thread that is stuck in a call of Ray's cannot raise anything: then the watching thread does, which
    ``threading.excepthook`` is told of.

    Args:
        addresses: host and port of each process that is needed.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]]) -> None:
        self._addresses = addresses
        self._lost = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ray-head-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._lost and kind is not None:
            raise RayLostError(self._lost) from error

    def _watch(self) -> None:
        failures = dict.fromkeys(self._addresses, 0)
        while not self._over.wait(1.0):
            for address in failures:
                failures[address] = 0 if _answers(address) else failures[address] + 1
            silent = [address for address, count in failures.items() if count >= PATIENCE]
            if silent and not self._over.is_set():
                self._lost = f"Ray does not answer any more at {silent[0][0]}:{silent[0][1]}"
                _thread.interrupt_main()
                if not self._over.wait(REACTION):
                    raise RayLostError(self._lost)
                return


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1.0).close()
    except OSError:
        return False
    return True
