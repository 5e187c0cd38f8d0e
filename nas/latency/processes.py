"""The processes that measure: a fresh one, and in it a fork for each network, which waits there for its turns.

A fresh process, since the user's other threads would take the interpreter from the one that measures. It is no spawn of
multiprocessing's, which runs the user's script a second time: it reads a pickled call and answers with pickles.

Memory is a matter of history: networks of a process that had built 24 or 32 others before took 12 to 15% longer than in
a fresh one, whether those others still lived or not (eager torch, Xeon, 8 networks, n = 2). Whoever ships a network
runs it alone. So each is made ready in a fork of the measuring process.

That has two steps. Networks are built on all cores at once. What must be timed to make one ready, such as the layout in
which it is faster, is timed as everything else: one after the other, on the cores that were chosen for it.
"""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from nas.errors import UserError
from nas.latency.engine import Layout
from nas.latency.machine import quiet_process
from nas.latency.timing import Timer

Progress = Callable[[int, int], None]
"""Called with the units of work done and the number in all."""
Result = TypeVar("Result")
_PR_SET_PDEATHSIG = 1  # of sys/prctl.h


class Ready(NamedTuple):
    """A network that waits to be timed."""

    timer: Timer
    layout: Layout
    """In which it is faster."""


Build = Callable[[], Callable[[], Ready]]
"""Builds a network beside others; returns the second step, which has the core to itself."""


def call(
    function: Callable[..., Result],
    *arguments: Any,
    threads: int,
    on_progress: Progress | None = None,
    timeout: float | None = None,
    **options: Any,
) -> Result:
    """Call a function in a fresh process and return its result.

    Args:
        function: at the top of a module.
        threads: torch's, in that process.
        on_progress: what the function's option of this name is called with there, this is called with here.
        timeout: seconds after which the process is killed.

    Raises:
        UserError: the function raised one.
        TimeoutError: it took longer than `timeout`.
        RuntimeError: the process died; the message ends with the last lines that it wrote.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = (sys.executable, "-c", f"from {__name__} import answer_call; answer_call()")
    late = threading.Event()
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, env=environment
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout or 0.0, give_up)
        if timeout is not None:
            timer.start()
        try:
            pickle.dump((function, arguments, options, on_progress is not None), process.stdin)
            process.stdin.close()
            while True:
                kind, value = pickle.load(process.stdout)
                if kind == "result":
                    process.kill()  # else it would take a second to free all that it has imported
                    return value
                if kind == "error":
                    raise UserError(value)
                if on_progress is not None:
                    on_progress(*value)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            pass  # it died; its last words follow
        except BaseException:
            process.kill()  # an interrupt, or a progress callback that raised
            raise
        finally:
            timer.cancel()
        process.wait()
        if late.is_set():
            raise TimeoutError(f"the measuring process took over {timeout:g} s")
        complaints.seek(0)
        words = " | ".join(complaints.read().strip().splitlines()[-3:])
        raise RuntimeError(f"the measuring process ended with {process.returncode}: {words}")


def answer_call() -> None:
    """Be the fresh process: read a call, make it, answer."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers

    def answer(kind: str, value: Any) -> None:
        pickle.dump((kind, value), answers)
        answers.flush()

    function, arguments, options, tells_progress = pickle.load(sys.stdin.buffer)
    if tells_progress:
        options["on_progress"] = lambda done, total: answer("progress", (done, total))
    try:
        result = function(*arguments, **options)
    except UserError as error:
        answer("error", str(error))
    else:
        answer("result", result)


@contextlib.contextmanager
def made_ready(builds: Sequence[Build], *, threads: int, fork: bool) -> Iterator[list[Ready]]:
    """Make networks ready to be timed on the `threads` cores that are least used now.

    Args:
        builds: run on all cores.
        threads: of a network's run.
        fork: each in a fork of this process, which ends with the context. Only for a process that has one thread and
            has used neither OpenMP nor CUDA, such as a fresh one: neither survives a fork. Else one after the other in
            this process.
    """
    cores = os.sched_getaffinity(0) if fork else set[int]()
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet_process(threads))
        if not fork:
            yield [build()() for build in builds]
            return
        gc.freeze()  # what is here already, no child's garbage collector need search again and again
        stack.callback(gc.unfreeze)
        children: list[_Child] = []
        building: dict[Any, _Child] = {}
        for build in builds:
            if len(building) == len(cores):
                for connection in wait(list(building)):
                    building.pop(connection).answer()
            child = _Child(build, cores)
            stack.callback(child.end)
            children.append(child)
            building[child.connection] = child
        for child in building.values():
            child.answer()
        yield [Ready(child.next, child.next()) for child in children]


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
        timer, layout = finish()
        parent.send((layout, None))
    except UserError as error:
        parent.send((None, str(error)))
        return
    while True:
        wait_for_turn()
        parent.send((timer(), None))
