"""Writing: a file is the old one or the new one, whole, whatever happens to the writer."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas.errors import UserError, printable
from nas.files import remove_unfinished, write_atomic

WRITE = """
import itertools, sys
from pathlib import Path
from nas.files import write_atomic
for letter in itertools.cycle("ab"):
    write_atomic(Path(sys.argv[1]), letter * 300_000)
"""


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a" * 300_000)
    seen, killed = set(), 0
    for delay in (0.0, 0.01, 0.02, 0.05):
        writer = subprocess.Popen([sys.executable, "-c", WRITE, str(path)])
        while not list(tmp_path.glob(".file.*.tmp")):
            time.sleep(0.001)  # until it has begun to write
        for _ in range(20):
            seen.add(path.read_text())
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        killed += writer.wait() == -signal.SIGKILL
        seen.add(path.read_text())
    assert killed == 4
    assert seen <= {"a" * 300_000, "b" * 300_000}
    remove_unfinished(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    flush, rename = os.fsync, Path.replace

    def note_flush(handle: int) -> None:
        done.append(("flushed", os.fstat(handle).st_size))
        flush(handle)

    def note_rename(self: Path, target: Path) -> Path:
        done.append(("renamed", self.stat().st_size))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(Path, "replace", note_rename)
    write_atomic(tmp_path / "file", "content")
    assert done == [("flushed", 7), ("renamed", 7)]


def test_an_error_is_one_printable_line() -> None:
    line = str(UserError("a\nb\x1b[2Jc\u2028\udcff" + "x" * 10_000))
    assert line.startswith(r"a\nb\x1b[2Jc\u2028\udcffxxx")
    assert line.isprintable()
    assert len(line) == 2000
    assert printable("Größe 7 µs → 日本") == "Größe 7 µs → 日本"
