from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nas.training.threads import available_cores, worker_cores, worker_environment


def test_workers_do_not_share_cores_while_there_are_enough() -> None:
    cores = [0, 2, 4, 6, 8]
    shares = [worker_cores(cores, 2, index) for index in range(2)]
    assert shares == [[0, 2], [4, 6]]
    assert [worker_cores([1, 3], 3, index) for index in range(3)] == [[1], [3], [1]]


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
