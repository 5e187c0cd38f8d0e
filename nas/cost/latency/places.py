"""Where networks are made ready and wait to be timed in turn: each in a process of its own.

Memory is a matter of history: networks of a process that had built 24 or 32 others before took 12 to 15% longer than in
a fresh one, whether those others still lived or not (eager torch, Xeon, 8 networks, n = 2). Whoever ships a network
runs it alone. So each is made ready in a fork of the measuring process, and waits there for its turns.
"""

import contextlib
import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

from nas.cost.latency.timing import Probe, Runner, Timer, Visit, visit
from nas.errors import UserError

_PR_SET_PDEATHSIG = 1  # of sys/prctl.h


class Prepared(NamedTuple):
    """A network that waits to be timed."""

    timer: Timer
    about: Any
    """What is known of it since it was made ready."""


Make = Callable[[], Prepared]
Prepare = Callable[[Make], Prepared]
Place = Callable[[], contextlib.AbstractContextManager[Prepare]]
"""Where networks are made ready: :func:`here` or :func:`in_children`."""


def prepared(runner: Runner, about: Any, *, runs: int, threads: int, device: str) -> Prepared:
    """A network that waits in this process; see :func:`nas.cost.latency.timing.visit`."""
    probe, single_thread = Probe(), threads == 1 and device == "cpu"

    def timer() -> Visit:
        with torch.inference_mode():
            return visit(runner, probe, runs=runs, single_thread=single_thread)

    return Prepared(timer, about)


def place_for(device: str) -> Place:
    """Where the measuring process makes networks ready: in children, where what it uses survives a fork."""
    return in_children if device == "cpu" and sys.platform == "linux" else here


@contextlib.contextmanager
def here() -> Iterator[Prepare]:
    """Networks are made ready in this process."""
    yield lambda make: make()


@contextlib.contextmanager
def in_children() -> Iterator[Prepare]:
    """Each network is made ready, and timed, in a fork of this process, which ends with the context.

    Only for a process that has one thread and has used neither OpenMP nor CUDA, as the measuring process
    (:mod:`nas.cost.latency.worker`): neither survives a fork.
    """
    with contextlib.ExitStack() as stack:
        yield lambda make: _in_child(make, stack)


def _in_child(make: Make, stack: contextlib.ExitStack) -> Prepared:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(make, theirs))
    process.start()
    theirs.close()
    stack.callback(process.join)
    stack.callback(process.kill)

    def answer() -> Any:
        try:
            result, error = ours.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"a process that measures ended with {process.exitcode}") from None
        if error is not None:
            raise UserError(error)
        return result

    def timer() -> Any:
        ours.send(None)
        return answer()

    return Prepared(timer, answer())


def _serve(make: Make, parent: Connection) -> None:
    with contextlib.suppress(AttributeError, OSError):  # Linux: end with the parent, however that ends
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        timer, about = make()
    except UserError as error:
        parent.send((None, str(error)))
        return
    parent.send((about, None))
    while True:
        parent.recv()
        parent.send((timer(), None))
