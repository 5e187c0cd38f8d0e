"""What `pip install` puts into somebody's environment."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_holds_nas_alone_and_all_that_it_needs(tmp_path: Path) -> None:
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    tree = tmp_path / "tree"
    subprocess.run(["git", "clone", "-q", ROOT, tree], check=True)  # a build leaves files beside what it builds
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", tmp_path, tree], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"nas", f"{wheel.name.split('-py3')[0]}.dist-info"}
    packed = {name for name in names if name.endswith(".py")}
    assert packed == {str(path.relative_to(tree)) for path in (tree / "nas").rglob("*.py")}
    subprocess.run([*pip, "install", *options, "--target", tmp_path / "site", wheel], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    few = "--objectives accuracy,size --published none --trials 1 --epochs 1 --train-size 100 --out run"
    for arguments in ("compare mobilenetv2-cifar han-e", f"search --space inverted_residual {few}"):
        done = subprocess.run(
            [sys.executable, "-m", "nas", *arguments.split()],
            cwd=empty,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "93.47" in done.stdout or (empty / "run" / "report.html").exists()
