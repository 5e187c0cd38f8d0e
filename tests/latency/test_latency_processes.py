"""Networks wait to be timed each in a process of its own, which ends with its parent."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from timings import visit

from nas.errors import UserError
from nas.latency.engines import Runtime
from nas.latency.machine import _own_seconds
from nas.latency.processes import Build, Ready, call, made_ready


def test_a_call_is_given_up_after_its_time() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"took over 0\.5 s"):
        call(time.sleep, 60, threads=1, timeout=0.5)
    assert time.monotonic() - began < 30


class TestChildren:
    """Every network in a process of its own."""

    @staticmethod
    def waits(layout: Any = "contiguous") -> Callable[[], Ready]:
        """Answers with the number of its process."""
        return lambda: Ready(lambda: visit([[os.getpid()]]), layout)

    def test_each_has_its_own_and_keeps_it(self) -> None:
        with forks([partial(self.waits, number) for number in range(5)]) as items:
            assert [item.layout for item in items] == [0, 1, 2, 3, 4]
            first, second = ([item.timer().runs[0] for item in items] for _ in range(2))
            assert first == second and len({*first, os.getpid()}) == 6
        assert not any(Path(f"/proc/{child}").exists() for child in first)
        with made_ready([self.waits], threads=1, fork=False) as (item,):
            assert item.timer().runs == [os.getpid()]

    def test_they_are_built_at_once_and_then_have_the_chosen_core_one_by_one(self, tmp_path: Path) -> None:
        cores = os.sched_getaffinity(0)

        def note(step: str, begins: bool) -> None:
            with (tmp_path / step).open("a") as file:
                file.write("+" if begins else "-")

        def build() -> Callable[[], Ready]:
            assert os.sched_getaffinity(0) == cores
            note("build", True)
            wait_until(lambda: "++" in (tmp_path / "build").read_text() or len(cores) == 1)
            note("build", False)
            stop = threading.Event()
            threading.Thread(target=stop.wait, daemon=True).start()
            return finish

        def finish() -> Ready:
            note("finish", True)
            time.sleep(0.05)
            note("finish", False)
            threads = [int(thread.name) for thread in Path("/proc/self/task").iterdir()]
            return Ready(lambda: visit([[0]]), list(map(os.sched_getaffinity, threads)))  # type: ignore[arg-type]

        with forks([build] * 4) as items:
            chosen = os.sched_getaffinity(0)
        assert [item.layout for item in items] == [[chosen, chosen]] * 4  # its other thread too
        assert len(chosen) == 1 and os.sched_getaffinity(0) == cores
        assert (tmp_path / "finish").read_text() == "+-" * 4

    def test_a_users_error_is_passed_on(self) -> None:
        with (
            pytest.raises(UserError, match="unknown engine 'fast'"),
            forks([lambda: Runtime("fast").check()]),  # type: ignore[list-item, return-value]
        ):
            pass

    def test_a_death_is_no_silence(self) -> None:
        dies = forks([lambda: lambda: Ready(lambda: os._exit(3), "contiguous")])
        with dies as (item,), pytest.raises(RuntimeError, match="ended with 3"):
            item.timer()
        with pytest.raises(RuntimeError, match="ended with 4"), forks([lambda: os._exit(4)]):
            pass

    def test_they_end_with_their_parent(self, tmp_path: Path) -> None:
        code = (
            "import os, sys, time; from pathlib import Path; from nas.latency.processes import made_ready\n"
            "def make():\n"
            "    Path(sys.argv[1]).write_text(str(os.getpid()))\n"
            "    time.sleep(100)\n"
            "with made_ready([make], threads=1, fork=True):\n"
            "    pass\n"
        )
        pid = tmp_path / "pid"
        with subprocess.Popen([sys.executable, "-c", code, str(pid)]) as process:
            wait_until(lambda: pid.exists() and pid.read_text())
            process.kill()
        child = int(pid.read_text())
        wait_until(lambda: not Path(f"/proc/{child}/exe").exists())  # a zombie has none either

    def test_their_time_is_ours(self) -> None:
        def burn() -> Callable[[], Ready]:
            end = time.process_time() + 0.6
            while time.process_time() < end:
                pass
            return self.waits()

        before = _own_seconds()
        with forks([burn]):
            alive = _own_seconds() - before
        assert alive > 0.5
        assert _own_seconds() - before >= alive - 0.05


def forks(builds: Sequence[Build]) -> AbstractContextManager[list[Ready]]:
    return made_ready(builds, threads=1, fork=True)


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
