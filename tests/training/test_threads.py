from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nas.training.threads import available_cores, worker_environment


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no processes")
def test_a_worker_is_pinned() -> None:
    core = available_cores()[-1]
    code = (
        "import os, torch\n"
        "from nas.training.threads import set_threads\n"
        f"set_threads(1, [{core}])\n"
        "print(torch.get_num_threads(), sorted(os.sched_getaffinity(0)), os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {**os.environ, **worker_environment(1)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"1 [{core}] PASSIVE"
