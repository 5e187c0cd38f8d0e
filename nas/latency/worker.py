"""A fresh process for what must not be disturbed: no other thread takes its interpreter, torch starts afresh.

Parent and worker exchange pickles: a function of ours with its arguments, then progress, and at the end the result or
the user's error. Not multiprocessing's spawn, which runs the user's script a second time.
"""

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

from nas.errors import UserError

Progress = Callable[[int, int], None]
"""Called with the units of work done and the number in all."""
Result = TypeVar("Result")


def call(
    function: Callable[..., Result], *arguments: Any, threads: int, on_progress: Progress | None, **options: Any
) -> Result:
    """Call a function in a fresh process and return its result.

    Args:
        function: at the top of a module; it takes ``on_progress`` beside the arguments and options.
        threads: torch's, in that process.

    Raises:
        UserError: the function raised one.
        RuntimeError: the process died; the message ends with the last lines that it wrote.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            (sys.executable, "-m", __name__),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            pickle.dump((function, arguments, options), process.stdin)
            process.stdin.close()
            while True:
                kind, value = pickle.load(process.stdout)
                if kind == "result":
                    return value
                if kind == "error":
                    raise UserError(value)
                if on_progress is not None:
                    on_progress(*value)
        except (BrokenPipeError, EOFError):
            pass  # it died; its last words follow
        except BaseException:
            process.kill()  # an interrupt, or a progress callback that raised
            raise
        process.wait()
        complaints.seek(0)
        words = " | ".join(complaints.read().strip().splitlines()[-3:])
        raise RuntimeError(f"the measuring process ended with {process.returncode}: {words}")


def main() -> None:
    """Read a request, do it, answer."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers

    def answer(kind: str, value: Any) -> None:
        pickle.dump((kind, value), answers)
        answers.flush()

    function, arguments, options = pickle.load(sys.stdin.buffer)
    try:
        result = function(*arguments, **options, on_progress=lambda done, total: answer("progress", (done, total)))
    except UserError as error:
        answer("error", str(error))
    else:
        answer("result", result)


if __name__ == "__main__":
    main()
