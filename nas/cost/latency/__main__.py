"""The measuring process, started by :mod:`nas.cost.latency.worker`: reads a request, does it, answers."""

import json
import os
import sys
from typing import Any

from nas.cost.latency.calibration import serve as calibrate
from nas.cost.latency.measuring import serve as measure
from nas.errors import UserError

TASKS = {"measure": measure, "calibrate": calibrate}


def main() -> None:
    """Read a request, do it, answer."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers

    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    request = json.load(sys.stdin)
    try:
        result = TASKS[request.pop("task")](request, lambda done, total: say({"progress": [done, total]}))
    except UserError as error:
        say({"error": str(error)})
    else:
        say({"result": result})


if __name__ == "__main__":
    main()
