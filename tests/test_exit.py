"""How a command ends on signals: real processes."""

import functools
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import psutil
import pytest

from nas.exit import same_command

CLEANS_UP = """
import atexit, time
from nas.exit import interruptible
atexit.register(time.sleep, 1)
with interruptible(lambda: "another"), interruptible(lambda: "the line"):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        time.sleep(1)
        print("cleaned up", flush=True)
"""

IN_AN_EXEC = """
from nas.exit import interruptible
with interruptible(lambda: "the line"):
    exec("import time; print('ready', flush=True); time.sleep(60)")
"""

SWALLOWS = """
import subprocess, sys, time
import nas.exit
nas.exit.PATIENCE = 1.0
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
with nas.exit.interruptible(lambda: "the line"):
    while True:
        try:
            print(child.pid, flush=True)
            time.sleep(60)
        except BaseException:
            pass
"""


def begin(*arguments, cwd=None):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ignored in whatever a shell script started in the background, such as these tests.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_any_number_of_signals_ends_in_one_line_and_in_order(number, code):
    process = begin("-c", CLEANS_UP)
    assert process.stdout.readline() == "ready\n"
    while process.poll() is None:
        os.kill(process.pid, number)
        time.sleep(0.05)
    output, _ = process.communicate(timeout=20)
    assert (process.returncode, output) == (code, "cleaned up\nthe line\n")


def test_a_signal_within_exec_ends_with_the_exit_code_too(tmp_path):
    """As in an import that makes a dataclass; Python then kills itself by the signal, whoever caught it."""
    (tmp_path / "module.py").write_text(IN_AN_EXEC)
    process = begin("-m", "module", cwd=tmp_path)
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert (process.returncode, output) == (130, "the line\n")


def test_what_does_not_end_is_ended_with_all_that_it_started():
    process = begin("-c", SWALLOWS)
    child = psutil.Process(int(process.stdout.readline()))
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert (process.returncode, output) == (143, f"{child.pid}\nthe line\n")
    assert not psutil.wait_procs([child], timeout=10)[1]


@pytest.mark.parametrize(
    ("given", "resumes", "expected"),
    [
        ("train han-e --init a.pt --out r", False, "nas train han-e --init a.pt --out r"),
        ("train han-e --init a.pt --out r", True, "nas train han-e --out r --resume"),
        ("train han-e --teacher=b.pt --init a.pt --out r", True, "nas train han-e --out r --resume"),
        ("train han-e --init=a.pt --out r --resume", True, "nas train han-e --out r --resume"),
        ("train han-e --run s --out r", True, "nas train han-e --out r --resume"),
        ("train 'my net.yaml'", True, "nas train 'my net.yaml' --resume --out r"),
        ("search --epochs 3", False, "nas search --epochs 3 --out r"),
    ],
)
def test_the_same_command_again(monkeypatch, tmp_path, given, resumes, expected):
    monkeypatch.setattr(sys, "argv", ["nas", *shlex.split(given)])
    folder = tmp_path / "r"
    shown = same_command(folder, folder if "--out" in given else None, resumes=resumes)
    assert shown == expected.replace("--out r", f"--out {folder}" if "--out" not in given else "--out r")


def test_imports_and_the_end_look_for_no_garbage(tmp_path):
    """Where nothing is to be found it took seconds of each command."""
    code = """
import atexit, gc
atexit.register(lambda: print(*collected, gc.isenabled(), gc.get_freeze_count() > 0))
collected = []
import nas
gc.callbacks.append(lambda phase, info: collected.append(phase))
nas.api
gc.callbacks.clear()
import sys
from nas.cli import main
sys.argv = ["nas", "--version"]
main()
"""
    output, _ = begin("-c", code, cwd=tmp_path).communicate(timeout=60)
    assert output.splitlines()[-1] == "True True"


@pytest.mark.slow
def test_a_full_disk_ends_a_training_with_the_file_and_the_command_that_goes_on(tmp_path):
    train = f"{sys.executable} -m nas train han-e --recipe search --epochs 9 --train-size 100 --resolution 8 --out r"
    mount = f"mount -t tmpfs -o size=64k tmpfs {tmp_path} || exit 77; cd {tmp_path}"
    run = ["unshare", "--map-root-user", "--mount", "sh", "-c", f"{mount}; exec {train}"]
    try:
        ended = subprocess.run(run, capture_output=True, text=True, timeout=100)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if ended.returncode in (1, 77) and "nas:" not in ended.stderr:
        pytest.skip(f"a disk cannot be made here: {ended.stderr.strip()}")
    what, go_on, command = ended.stderr.splitlines()[-3:]
    assert (ended.returncode, go_on) == (2, "nas: go on with")
    assert re.fullmatch(r"nas: .*r/\S+: cannot be written: No space left on device", what)
    assert command == f"  {train.replace(f'{sys.executable} -m ', '')} --resume"


@pytest.mark.slow
def test_ctrl_c_in_a_training_ends_with_the_command_that_goes_on(tmp_path):
    """And that command goes on with it."""
    words = "nas train han-e --recipe search --epochs 1000 --train-size 100 --resolution 8"
    process = begin("-m", *words.split(), cwd=tmp_path)
    while not (found := list(tmp_path.rglob("checkpoint.pt"))):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    for _ in range(3):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.2)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    folder = found[0].parent.relative_to(tmp_path)
    command = f"{words} --resume --out {folder}"
    assert output.splitlines()[-2:] == ["nas: interrupted; go on with", f"  {command}"]
    assert "Traceback" not in output
    rows = (tmp_path / folder / "metrics.csv").read_text().count("\n")
    process = begin("-m", *shlex.split(command), cwd=tmp_path)
    while (tmp_path / folder / "metrics.csv").read_text().count("\n") <= rows:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 143, output
