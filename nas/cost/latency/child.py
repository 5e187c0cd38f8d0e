"""A forked child for each group of networks, so that every group meets memory that nothing has used before.

Networks of a process that had built 24 or 32 others before took 12 to 15% longer than in a fresh one, whether those
others still lived or not (eager torch, Xeon, 8 networks, n = 2): their tensors lie scattered over more pages. Whoever
ships a network runs it alone.
"""

import contextlib
import ctypes
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from nas.errors import UserError

Answer = TypeVar("Answer")
_PR_SET_PDEATHSIG = 1  # of sys/prctl.h


def in_child(task: Callable[[], Answer]) -> Answer:
    """Do a task in a fork of this process and return its answer, which is pickled.

    Only for a process that has one thread and has used neither OpenMP nor CUDA, as the measuring process
    (:mod:`nas.cost.latency.worker`): neither survives a fork.

    Raises:
        UserError: the task raised one.
        RuntimeError: the child died; its error is on standard error.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(task, sender))
    process.start()
    sender.close()
    try:
        answer, error = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the child that measured ended with {process.exitcode}") from None
    except BaseException:
        process.kill()
        raise
    process.join()
    if error is not None:
        raise UserError(error)
    result: Answer = answer
    return result


def _answer(task: Callable[[], Any], sender: Connection) -> None:
    with contextlib.suppress(AttributeError, OSError):  # Linux: end with the parent, however that ends
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        sender.send((task(), None))
    except UserError as error:
        sender.send((None, str(error)))
