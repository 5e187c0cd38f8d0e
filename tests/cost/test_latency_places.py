"""Networks wait to be timed each in a process of its own, which ends with its parent."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from timings import visit

from nas.cost.latency.engines import check
from nas.cost.latency.machine import _own_seconds
from nas.cost.latency.places import Prepared, here, in_children
from nas.errors import UserError


class TestChildren:
    """Every network in a process of its own."""

    @staticmethod
    def waits(about: object = None) -> Prepared:
        """Answers with the number of its process."""
        return Prepared(lambda: visit([[os.getpid()]]), about)

    def test_each_has_its_own_and_keeps_it(self) -> None:
        with in_children() as prepare:
            items = [prepare(partial(self.waits, number)) for number in range(3)]
            assert [item.about for item in items] == [0, 1, 2]
            first, second = ([item.timer().runs[0] for item in items] for _ in range(2))
            assert first == second and len({*first, os.getpid()}) == 4
        assert not any(Path(f"/proc/{child}").exists() for child in first)
        with here() as prepare:
            assert prepare(self.waits).timer().runs == [os.getpid()]

    def test_a_users_error_is_passed_on(self) -> None:
        with in_children() as prepare, pytest.raises(UserError, match="unknown engine 'fast'"):
            prepare(lambda: check("fast", "cpu"))

    def test_a_death_is_no_silence(self) -> None:
        with in_children() as prepare:
            item = prepare(lambda: Prepared(lambda: os._exit(3), None))
            with pytest.raises(RuntimeError, match="ended with 3"):
                item.timer()

    def test_they_end_with_their_parent(self, tmp_path: Path) -> None:
        code = (
            "import os, sys, time; from pathlib import Path; from nas.cost.latency.places import in_children\n"
            "def make():\n"
            "    Path(sys.argv[1]).write_text(str(os.getpid()))\n"
            "    time.sleep(100)\n"
            "with in_children() as prepare:\n"
            "    prepare(make)\n"
        )
        pid = tmp_path / "pid"
        with subprocess.Popen([sys.executable, "-c", code, str(pid)]) as process:
            wait_until(lambda: pid.exists() and pid.read_text())
            process.kill()
        child = int(pid.read_text())
        wait_until(lambda: not Path(f"/proc/{child}/exe").exists())  # a zombie has none either

    def test_their_time_is_ours(self) -> None:
        def burn() -> Prepared:
            end = time.process_time() + 0.6
            while time.process_time() < end:
                pass
            return self.waits()

        before = _own_seconds()
        with in_children() as prepare:
            prepare(burn)
            alive = _own_seconds() - before
        assert alive > 0.5
        assert _own_seconds() - before >= alive - 0.05


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
