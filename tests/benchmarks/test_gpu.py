"""benchmarks/gpu.sh: its dry run on a CPU, and what is left of it when it ends early."""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu  # noqa: E402
from gpu_parts import PARTS, Part  # noqa: E402

WITHOUT_RAY = """
import sys

class NoRay:
    def find_spec(self, name, path=None, target=None):
        if name == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")

sys.meta_path.insert(0, NoRay())
"""


def dry_run(folder, *options, **environment):
    command = [str(ROOT / "benchmarks/gpu.sh"), "--device", "cpu", "--out", str(folder), *options]
    environment = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800, check=True).stdout


def figures(folder, part):
    return json.loads((folder / f"{part}.json").read_text())


def test_a_row_is_on_disk_before_the_next_one_is_begun(tmp_path, monkeypatch):
    def rows(*_):
        yield {"network": "a", "speed": 1.0}
        assert figures(tmp_path, "device")["rows"] == [{"network": "a", "speed": 1.0}]
        yield {"network": "b", "speed": 1.0}
        yield {"network": "a", "speed": 2.0}  # known better by now
        raise OSError("the card fell off the bus")

    monkeypatch.setitem(PARTS, "device", Part(rows, 1))
    gpu.run_part("device", Namespace(device="cpu", out=tmp_path, until=time.time() + 60))
    found = figures(tmp_path, "device")
    assert found["rows"] == [{"network": "a", "speed": 2.0}, {"network": "b", "speed": 1.0}]
    assert found["state"] == "failed: OSError: the card fell off the bus"
    assert [line.split() for line in gpu.show(found)][-2:] == [["a", "2"], ["b", "1"]]


def test_a_part_ends_when_its_time_is_over(tmp_path, monkeypatch):
    monkeypatch.setitem(PARTS, "device", Part(lambda *_: ({"n": n} for n in range(1_000_000)), 1))
    gpu.run_part("device", Namespace(device="cpu", out=tmp_path, until=time.time() - 1))
    found = figures(tmp_path, "device")
    assert (found["state"], found["rows"]) == ("its time was over", [{"n": 0}])


def test_nothing_is_downloaded(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as raised:
        dry_run(tmp_path / "out", "--data-dir", str(tmp_path))
    assert raised.value.stderr.splitlines()[-1].endswith("holds no cifar-10-batches-py; nothing is downloaded here")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_part_that_lacks_a_package_leaves_the_others_alone(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_RAY)
    printed = dry_run(tmp_path / "out", "--only", "search", "--only", "device", PYTHONPATH=str(tmp_path))
    assert "== search: left out: the package ray is missing here" in printed
    assert figures(tmp_path / "out", "device")["state"] == "whole"
    assert "precision auto" in printed


@pytest.mark.rehearsal
def test_the_dry_run_goes_through_every_part(tmp_path):
    printed = dry_run(tmp_path, "--minutes", "12")
    found = {part: figures(tmp_path, part) for part in PARTS}
    assert {part: entry["state"] for part, entry in found.items()} == dict.fromkeys(PARTS, "whole"), printed
    assert all(f"== {part}: whole" in printed for part in PARTS)
    assert [(row["outcome"], row["parts"]) for row in found["memory"]["rows"]] == [
        ("trained", 1),
        ("trained", 2),  # half a batch at a time
        ("given up", 0),
        ("trained", 1),  # and the next network has the whole device again
    ]
    assert [row["network"] for row in found["throughput"]["rows"]] == ["han-e", "mobilenetv2-cifar"]
    for row in found["throughput"]["rows"]:
        assert row["ours/plain"] == pytest.approx(row["ours"] / row["plain"])
        assert 0 < row["share"] < 1
    assert found["latency"]["rows"][0]["eager"] > 0
    assert found["accuracy"]["rows"][0]["epochs"] == 1
    values = {row["what"]: row["value"] for row in found["search"]["rows"]}
    assert (values["exit code"], values["complete"]) == (0, 2)
    assert (tmp_path / "search" / "report.html").stat().st_size == pytest.approx(1000 * values["report, kB"])
