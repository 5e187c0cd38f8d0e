"""Where a search runs: in a container without a home, below a long temporary folder, in a program that runs Ray."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nas.driver.cluster import LONGEST_FOLDER, short_folder
from nas.files import cache_folder
from nas.training.sources import default_data_dir

NAMELESS = """
import os, pwd, sys
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
os.environ.pop("HOME", None)
"""
"""A user as a container has it: a number that passwd does not know, and no HOME."""
SEARCH = """
import nas
run = nas.search(nas.Space(%r), objectives=("accuracy", "size"), published="none", trials=2, epochs=1,
                 train_size=100, out=%r)
print(len(run.records), run.front_records[0].confirmed["test_accuracy"])
"""
SPACE = {
    "name": "tiny",
    "input": {"channels": 1, "resolution": 8},
    "stem": {"channels": 8, "stride": 2},
    "stages": [{"block": "inverted_residual", "channels": 8, "expansion": {"choice": [1, 2]}}],
}


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def searched(out, before="", after="", **environment):
    """Search two networks in another process; returns what that says after it."""
    first, *others = python(before + SEARCH % (SPACE, str(out)) + after, **environment).splitlines()
    trials, test_accuracy = first.split()
    assert int(trials) == 2
    assert 0 <= float(test_accuracy) <= 1
    return others


def test_commands_import_what_takes_seconds_where_they_need_it_alone():
    """Checking costs by other libraries takes torch's compiler, but not Ray."""
    code = "from nas import api; api.compare(['han-e']); print(*sys.modules); api.profile('han-e'); print(*sys.modules)"
    compared, profiled = python(NAMELESS + code).splitlines()
    assert not {"ray", "torchvision", "torch._dynamo"} & {*compared.split()}
    assert "ray" not in profiled.split()


@pytest.mark.parametrize("home", ["/nonexistent", "/proc"])
def test_without_a_home_to_write_to_caches_are_temporary(home, monkeypatch):
    for name in ("XDG_CACHE_HOME", "NAS_CACHE_DIR", "NAS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != home)  # root may write to any folder
    temporary = Path(tempfile.gettempdir())
    assert all(temporary in folder.parents for folder in (cache_folder("latency"), default_data_dir()))


@pytest.mark.slow
def test_a_user_without_a_home_and_with_a_temporary_folder_too_long_for_sockets_searches(tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        long = Path(folder) / ("x" * 42)
        long.mkdir()
        said = searched(tmp_path / "run", NAMELESS, 'print(os.environ.get("HOME"))', TMPDIR=str(long))
    assert said == ["None"]


def test_a_short_folder_is_left_to_ray(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/" + "x" * (LONGEST_FOLDER - 1))
    assert short_folder() is None
    monkeypatch.setenv("TMPDIR", "/" + "x" * LONGEST_FOLDER)
    assert len(short_folder()) < LONGEST_FOLDER


@pytest.mark.slow
def test_a_cluster_that_the_program_runs_is_used_and_left(tmp_path):
    ray = "import ray; ray.init(num_cpus=1, include_dashboard=False, logging_level='ERROR')\n"
    after = "print(ray.is_initialized(), int(ray.cluster_resources()['CPU']), run.environment['workers'])"
    assert searched(tmp_path / "run", ray, after) == ["True 1 1"]
