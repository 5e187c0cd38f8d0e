"""Make networks ready and let them wait to be timed in turn: each in a process of its own.

Memory is a matter of history: networks of a process that had built 24 or 32 others before took 12 to 15% longer than in
a fresh one, whether those others still lived or not (eager torch, Xeon, 8 networks, n = 2). Whoever ships a network
runs it alone. So each is made ready in a fork of the measuring process, and waits there for its turns.

That has two steps. Networks are built on all cores at once. What must be timed to make one ready, such as the layout in
which it is faster, is timed as everything else: one after the other, on the cores that were chosen for it.
"""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nas.errors import UserError
from nas.latency.engines import Runtime
from nas.latency.timing import Probe, Runner, Timer, Visit, visit

_PR_SET_PDEATHSIG = 1  # of sys/prctl.h


class Prepared(NamedTuple):
    """A network that waits to be timed."""

    timer: Timer
    about: Any
    """What is known of it since it was made ready."""


Finish = Callable[[], Prepared]
"""The second step: with the core to itself."""
Build = Callable[[], Finish]
"""The first step: beside others."""
Prepare = Callable[[Sequence[Build]], list[Prepared]]
Place = Callable[[], contextlib.AbstractContextManager[Prepare]]
"""Where networks are made ready: :func:`here` or :func:`in_children`. Built is on the cores that are allowed as the
context begins; what follows is on those that the caller has chosen meanwhile
(:func:`nas.latency.machine.quiet_process`)."""


def prepared(runner: Runner, about: Any, *, runs: int, runtime: Runtime) -> Prepared:
    """A network that waits in this process; see :func:`nas.latency.timing.visit`."""
    probe, single_thread = Probe(), runtime.threads == 1 and runtime.device == "cpu"

    def timer() -> Visit:
        with torch.inference_mode():
            return visit(runner, probe, runs=runs, single_thread=single_thread)

    return Prepared(timer, about)


def place_for(device: str) -> Place:
    """Return where the measuring process makes networks ready: in children, where what it uses survives a fork."""
    return in_children if device == "cpu" and sys.platform == "linux" else here


@contextlib.contextmanager
def here() -> Iterator[Prepare]:
    """Networks are made ready in this process, one after the other."""
    yield lambda builds: [build()() for build in builds]


@contextlib.contextmanager
def in_children() -> Iterator[Prepare]:
    """Each network is made ready, and timed, in a fork of this process, which ends with the context.

    Only for a process that has one thread and has used neither OpenMP nor CUDA, as the measuring process
    (:mod:`nas.latency.worker`): neither survives a fork.
    """
    cores = os.sched_getaffinity(0)

    def prepare(builds: Sequence[Build]) -> list[Prepared]:
        children: list[_Child] = []
        building: dict[Connection, _Child] = {}
        for build in builds:
            if len(building) == len(cores):
                for connection in wait(list(building)):
                    building.pop(connection).answer()  # type: ignore[call-overload]
            child = _Child(build, cores)
            stack.callback(child.end)
            children.append(child)
            building[child.connection] = child
        for child in building.values():
            child.answer()
        return [Prepared(child.next, child.next()) for child in children]

    gc.freeze()  # what is here already, no child's garbage collector need search again and again
    try:
        with contextlib.ExitStack() as stack:
            yield prepare
    finally:
        gc.unfreeze()


class _Child:
    """A fork that builds a network, and then does one thing after the other when it is asked to."""

    def __init__(self, build: Build, cores: set[int]) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(build, cores, theirs))
        self._process.start()
        theirs.close()

    def next(self) -> Any:
        """Let it do the next thing, on the cores that are ours now: finish, then time the network again and again."""
        self.connection.send(os.sched_getaffinity(0))
        return self.answer()

    def answer(self) -> Any:
        """Return what it has done.

        Raises:
            UserError: it raised one.
            RuntimeError: it died.
        """
        try:
            result, error = self.connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"a process that measures ended with {self._process.exitcode}") from None
        if error is not None:
            raise UserError(error)
        return result

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def _serve(build: Build, cores: set[int], parent: Connection) -> None:
    with contextlib.suppress(AttributeError, OSError):  # Linux: end with the parent, however that ends
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def wait_for_turn() -> None:
        nonlocal cores
        if (chosen := parent.recv()) != cores:
            cores = chosen
            for thread in Path("/proc/self/task").iterdir():  # the engine's threads as well
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), cores)

    try:
        os.sched_setaffinity(0, cores)
        finish = build()
        parent.send((None, None))
        wait_for_turn()
        timer, about = finish()
        parent.send((about, None))
    except UserError as error:
        parent.send((None, str(error)))
        return
    while True:
        wait_for_turn()
        parent.send((timer(), None))
