"""A fresh process for what must not be disturbed: no other thread takes its interpreter, torch starts afresh.

The parent writes one JSON request to the worker's input; the worker answers with one JSON object a line: progress, and
at the end a result or the user's error.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from nas.errors import UserError

COMMAND = (sys.executable, "-m", "nas.cost.latency")


def call(task: str, request: dict[str, Any], *, threads: int, on_progress: Callable[[int, int], None] | None) -> Any:
    """Run a task in a fresh process and return its answer.

    Raises:
        UserError: the task raised one.
        RuntimeError: the process died; the message ends with the last lines that it wrote.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({"task": task, **request}))
            process.stdin.close()
            for line in process.stdout:
                message = json.loads(line)
                if "error" in message:
                    raise UserError(message["error"])
                if "result" in message:
                    return message["result"]
                if on_progress is not None:
                    on_progress(*message["progress"])
        except BrokenPipeError:
            pass  # it died before it read the request; its last words follow
        except BaseException:
            process.kill()  # an interrupt, or a progress callback that raised
            raise
        process.wait()
        complaints.seek(0)
        words = " | ".join(complaints.read().strip().splitlines()[-3:])
        raise RuntimeError(f"the measuring process ended with {process.returncode}: {words}")
