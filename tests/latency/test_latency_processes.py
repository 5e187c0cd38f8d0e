"""Networks wait to be timed each in a process of its own, which ends with its parent."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from timings import visit

from nas.errors import UserError
from nas.latency.engines import Runtime
from nas.latency.machine import _own_seconds, quiet_process
from nas.latency.processes import Finish, Prepared, here, in_children


class TestChildren:
    """Every network in a process of its own."""

    @staticmethod
    def waits(about: object = None) -> Finish:
        """Answers with the number of its process."""
        return lambda: Prepared(lambda: visit([[os.getpid()]]), about)

    def test_each_has_its_own_and_keeps_it(self) -> None:
        with in_children() as prepare:
            items = prepare([partial(self.waits, number) for number in range(5)])
            assert [item.about for item in items] == [0, 1, 2, 3, 4]
            first, second = ([item.timer().runs[0] for item in items] for _ in range(2))
            assert first == second and len({*first, os.getpid()}) == 6
        assert not any(Path(f"/proc/{child}").exists() for child in first)
        with here() as prepare:
            (item,) = prepare([self.waits])
            assert item.timer().runs == [os.getpid()]

    def test_they_are_built_at_once_and_then_have_the_chosen_core_one_by_one(self, tmp_path: Path) -> None:
        cores = os.sched_getaffinity(0)

        def note(step: str, begins: bool) -> None:
            with (tmp_path / step).open("a") as file:
                file.write("+" if begins else "-")

        def build() -> Finish:
            assert os.sched_getaffinity(0) == cores
            note("build", True)
            wait_until(lambda: "++" in (tmp_path / "build").read_text() or len(cores) == 1)
            note("build", False)
            stop = threading.Event()
            threading.Thread(target=stop.wait, daemon=True).start()
            return finish

        def finish() -> Prepared:
            note("finish", True)
            time.sleep(0.05)
            note("finish", False)
            threads = [int(thread.name) for thread in Path("/proc/self/task").iterdir()]
            return Prepared(lambda: visit([[0]]), list(map(os.sched_getaffinity, threads)))

        with in_children() as prepare, quiet_process(1):
            chosen = os.sched_getaffinity(0)
            items = prepare([build] * 4)
        assert [item.about for item in items] == [[chosen, chosen]] * 4  # its other thread too
        assert len(chosen) == 1 and os.sched_getaffinity(0) == cores
        assert (tmp_path / "finish").read_text() == "+-" * 4

    def test_a_users_error_is_passed_on(self) -> None:
        with in_children() as prepare, pytest.raises(UserError, match="unknown engine 'fast'"):
            prepare([lambda: Runtime("fast").check()])  # type: ignore[list-item, return-value]

    def test_a_death_is_no_silence(self) -> None:
        with in_children() as prepare:
            (item,) = prepare([lambda: lambda: Prepared(lambda: os._exit(3), None)])
            with pytest.raises(RuntimeError, match="ended with 3"):
                item.timer()
            with pytest.raises(RuntimeError, match="ended with 4"):
                prepare([lambda: os._exit(4)])

    def test_they_end_with_their_parent(self, tmp_path: Path) -> None:
        code = (
            "import os, sys, time; from pathlib import Path; from nas.latency.processes import in_children\n"
            "def make():\n"
            "    Path(sys.argv[1]).write_text(str(os.getpid()))\n"
            "    time.sleep(100)\n"
            "with in_children() as prepare:\n"
            "    prepare([make])\n"
        )
        pid = tmp_path / "pid"
        with subprocess.Popen([sys.executable, "-c", code, str(pid)]) as process:
            wait_until(lambda: pid.exists() and pid.read_text())
            process.kill()
        child = int(pid.read_text())
        wait_until(lambda: not Path(f"/proc/{child}/exe").exists())  # a zombie has none either

    def test_their_time_is_ours(self) -> None:
        def burn() -> Finish:
            end = time.process_time() + 0.6
            while time.process_time() < end:
                pass
            return self.waits()

        before = _own_seconds()
        with in_children() as prepare:
            prepare([burn])
            alive = _own_seconds() - before
        assert alive > 0.5
        assert _own_seconds() - before >= alive - 0.05


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
