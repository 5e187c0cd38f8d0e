"""Cores claimed by real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nas.training.cpu import claim_cores

CLAIM = """
import sys
from pathlib import Path
from nas.training.cpu import claim_cores
claimed = claim_cores(int(sys.argv[2]), [3, 5, 7], Path(sys.argv[1]))
print(*(claimed.numbers if claimed else ()), flush=True)
sys.stdin.read()
"""


def claim(folder: Path, count: int) -> tuple[subprocess.Popen[str], list[int]]:
    """A process that claims so many of the cores 3, 5 and 7, and what it got."""
    arguments = [sys.executable, "-c", CLAIM, str(folder), str(count)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, [int(number) for number in process.stdout.readline().split()]


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_processes_keep_out_of_each_others_way_and_the_system_frees_their_cores(tmp_path: Path) -> None:
    first, got = claim(tmp_path, 2)
    second, left = claim(tmp_path, 1)
    try:
        assert (got, left) == ([3, 5], [7])
        assert claim_cores(1, [3, 5, 7], tmp_path) is None
    finally:
        end(first)  # as the system's out-of-memory killer does
    try:
        third = claim_cores(1, [3, 5, 7], tmp_path)
        assert third is not None and third.numbers == (3,)
    finally:
        end(second)


def test_it_is_all_or_none(tmp_path: Path) -> None:
    first = claim_cores(2, [3, 5, 7], tmp_path)
    assert first is not None and first.numbers == (3, 5)
    assert claim_cores(2, [3, 5, 7], tmp_path) is None
    one = claim_cores(1, [3, 5, 7], tmp_path)  # what was not enough was given back
    assert one is not None and one.numbers == (7,)
    first.release()
    again = claim_cores(2, [3, 5, 7], tmp_path)
    assert again is not None and again.numbers == (3, 5)


def test_where_nothing_can_be_written_nothing_is_claimed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert claim_cores(1, [0], tmp_path / "file") is None
