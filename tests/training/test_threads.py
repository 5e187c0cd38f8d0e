from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest

from nas.training.cpu import available_cores, fewest_fast, worker_environment


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no processes")
def test_a_worker_is_pinned() -> None:
    core = available_cores()[-1]
    code = (
        "import os, torch\n"
        "from nas.training.cpu import set_threads\n"
        f"set_threads(1, [{core}])\n"
        "print(torch.get_num_threads(), sorted(os.sched_getaffinity(0)), os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {**os.environ, **worker_environment(1)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"1 [{core}] PASSIVE"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no processes")
def test_a_training_has_its_threads_and_cores_for_as_long_as_it_lasts() -> None:
    code = (
        "from nas.training.cpu import own_threads, wait_asleep\n"
        "wait_asleep()\n"
        "import os, torch\n"
        "torch.set_num_threads(3)\n"
        "before = os.sched_getaffinity(0)\n"
        "with own_threads(1):\n"
        "    print(torch.get_num_threads(), len(os.sched_getaffinity(0)), os.environ['OMP_WAIT_POLICY'])\n"
        "print(torch.get_num_threads(), os.sched_getaffinity(0) == before)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP")}
    with tempfile.TemporaryDirectory() as folder:  # of the locks, so that no other training has claimed the cores
        environment["TMPDIR"] = folder
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["1 1 PASSIVE", "3 True"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 3.4, 2: 3.3}, 1),  # two cores for nothing
        ({1: 3.4, 2: 25.0}, 1),  # beside another process
        ({1: 4.0, 2: 2.1, 3: 1.5}, 3),
        ({1: 4.0, 2: 2.1, 4: 2.0, 6: 2.4}, 2),
        ({1: 1.0}, 1),
    ],
)
def test_the_fewest_threads_that_are_about_as_fast_as_any(seconds: dict[int, float], expected: int) -> None:
    asked: list[int] = []

    def time_step(count: int) -> float:
        asked.append(count)
        return seconds[count] * (9 if len(asked) <= len(seconds) else 1)  # the first of each warms up

    steps = 1000
    found = fewest_fast(time_step, max(seconds), steps)
    assert found == (expected, seconds[expected] if len(seconds) > 1 else None)
    assert set(asked) == (set(seconds) if len(seconds) > 1 else set())
    assert len(asked) <= steps / 20


def test_a_short_training_measures_nothing() -> None:
    assert fewest_fast(lambda count: pytest.fail("measured"), 16, steps=200) == (1, None)
