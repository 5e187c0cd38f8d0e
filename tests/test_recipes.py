"""The recipes that the README links to run as they stand: each with a tiny budget, in a folder of its own."""

import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits
from warm import warm_nas

import nas
from nas.latency import Runtime, calibration

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "docs" / "recipes"

SPACE = """
name: tiny
input: {channels: 1, resolution: 8}
stem: {channels: 8}
stages:
  - {block: inverted_residual, channels: 8, expansion: {choice: [1, 2, 4]}}
  - {block: inverted_residual, channels: 16, stride: 2, expansion: {choice: [1, 2]}}
"""

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}

Recipe = Callable[..., str]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that knows this device's latencies, which on a busy machine each search would time again for a minute."""
    folder, space = tmp_path_factory.mktemp("cache"), nas.Space(yaml.safe_load(SPACE))
    table = calibration.calibrate(space, networks=8, isolate=False).model_copy(update={"complaint": ""})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE_DIR", str(folder))
        patch.setattr(calibration, "calibrate", lambda *_, **__: table)
        calibration.table_for(space, Runtime())
    return folder


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """A folder with the `nas` of the recipes."""
    with tempfile.TemporaryDirectory(prefix="nas-") as folder, warm_nas(Path(folder)):  # a socket's path is short
        yield Path(folder)


@pytest.fixture
def recipe(tmp_path: Path, cache: Path, programs: Path) -> Recipe:
    """Runs one of docs/recipes as a user would, from an empty folder; returns what it printed."""
    (tmp_path / "tiny.yaml").write_text(SPACE)

    def run(name: str, *arguments: object, **variables: object) -> str:
        budget = {"TRIALS": 3, "EPOCHS": 1, "FULL_EPOCHS": 1, "SPACE": "tiny.yaml", "DATASET": "digits"}
        images = {"CHANNELS": 1, "RESOLUTION": 8, "CLASSES": 10}
        given = {**budget, **images, "NAS_CACHE_DIR": cache, **variables}
        environment = {**os.environ, **{key: str(value) for key, value in given.items()}}
        # `python3` is the one that the tests run with.
        environment["PATH"] = os.pathsep.join([str(programs), str(Path(sys.executable).parent), environment["PATH"]])
        interpreter = "sh" if name.endswith(".sh") else sys.executable
        done = subprocess.run(
            [interpreter, RECIPES / name, *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr or done.stdout
        return done.stdout

    return run


def finished(folder: Path, trials: int = 3) -> nas.Run:
    """The run in a folder, which was searched to its end and has a report."""
    run = nas.open_run(folder)
    assert sum(record.was_trained for record in run.records) == trials
    assert run.is_tested and len(run.front) > 0
    assert (folder / "report.html").stat().st_size > 1_000_000
    return run


def test_the_readme_links_to_every_recipe() -> None:
    linked = re.findall(r"\(docs/recipes/([\w.]+)\)", (ROOT / "README.md").read_text())
    runnable = {path.name for path in RECIPES.iterdir() if path.suffix in (".sh", ".py", ".yaml")}
    assert set(linked) == runnable - {"time_blocks.py"}  # which bare_device.sh calls


def test_scripts_say_how_to_start_them() -> None:
    for path in RECIPES.glob("*.sh"):
        head = path.read_text().partition("set -eu\n")[0]
        assert f"sh docs/recipes/{path.name}" in head


@pytest.mark.slow
def test_own_images(recipe: Recipe, tmp_path: Path) -> None:
    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images[:240], digits.target[:240], strict=True)):
        folder = tmp_path / "images" / f"digit-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype(np.uint8)).resize((20, 16)).save(folder / f"{index}.png")
    recipe("own_images.sh", IMAGES=tmp_path / "images", OBJECTIVES="accuracy,size", OUT="out", RESOLUTION=8)
    run = finished(tmp_path / "out" / "search")
    trained = nas.load(tmp_path / "out" / "best" / "architecture.yaml")
    assert trained.id == run.front_records[0].architecture.id
    assert trained.input.resolution == 8


@pytest.mark.slow
def test_raspberry_pi(recipe: Recipe, tmp_path: Path) -> None:
    recipe("raspberry_pi.sh", NETWORKS=8, OUT="out")
    run = finished(tmp_path / "out" / "search")
    assert run.settings.latency_table == "out/pi.json"
    assert all(record.costs["latency_high"] <= 5 and record.costs["size"] <= 1e6 for record in run.front_records)
    # Latencies of another device are predictions to the end.
    assert not any("latency_ms" in record.confirmed for record in run.records)


@pytest.mark.slow
def test_bare_device(recipe: Recipe, tmp_path: Path) -> None:
    recipe("bare_device.sh", OUT="out")
    blocks = {path.name for path in (tmp_path / "out" / "blocks").glob("*.onnx")}
    rows = (tmp_path / "out" / "blocks" / "timings.csv").read_text().split()[1:]
    assert {row.partition(",")[0] for row in rows} == blocks
    assert all(0 < float(row.partition(",")[2]) < 1000 for row in rows)
    run = finished(tmp_path / "out" / "search")
    assert all(record.costs["latency"] > 0 for record in run.front_records)


@pytest.mark.slow
def test_gpu(recipe: Recipe, tmp_path: Path) -> None:
    assert "timing the space's blocks" not in recipe("gpu.sh", OUT="out")  # the cache knows them
    finished(tmp_path / "out")


@pytest.fixture
def head() -> Iterator[str]:
    """The address of a Ray cluster of one machine, started as the recipe says."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={port}"]
    options = ["--node-ip-address=127.0.0.1", "--num-cpus=2", "--include-dashboard=false"]
    # Not below tmp_path: the names of Ray's sockets have to be short.
    with tempfile.TemporaryDirectory(prefix="nas-") as folder:
        ray = psutil.Popen(
            [*command, *options],
            env={**os.environ, **TOKEN, "RAY_TMPDIR": folder},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert any("Ray runtime started" in line for line in ray.stdout)
            yield f"127.0.0.1:{port}"
        finally:  # `ray stop` would end every Ray on this machine
            for process in [*ray.children(recursive=True), ray]:
                process.kill()
            ray.wait(30)


@pytest.mark.slow
def test_cluster(recipe: Recipe, tmp_path: Path, head: str) -> None:
    recipe("cluster.sh", ADDRESS=head, OUT=tmp_path / "shared", **TOKEN)
    finished(tmp_path / "shared")


@pytest.mark.slow
def test_own_space(recipe: Recipe, tmp_path: Path) -> None:
    recipe("own_space.sh", SPACE=RECIPES / "own_space.yaml", OUT="out")
    run = finished(tmp_path / "out")
    assert run.settings.objectives == ("accuracy", "size", "macs")
    shipped = nas.load_space(RECIPES / "own_space.yaml").with_input(channels=1, resolution=8)
    assert all(shipped.contains(record.architecture) for record in run.front_records)


@pytest.mark.slow
def test_published(recipe: Recipe, tmp_path: Path) -> None:
    printed = recipe("published.sh", OUT="out")
    run = finished(tmp_path / "out")
    trained = [record.architecture.name for record in run.records if record.published]
    assert trained == ["han-e", "mobilenetv2-cifar"]
    figures = {line.split("  ")[0]: line.split()[-2:] for line in printed.splitlines()}
    assert figures["Parameters (M)"] == ["0.890", "2.30"]  # Han and Kwon, Table 3: 889,946 of han-e
    assert "| Nearest published, by validation accuracy |" in printed


@pytest.mark.slow
def test_confirm_and_ship(recipe: Recipe, tmp_path: Path) -> None:
    recipe("confirm.sh", RUN="run", SEEDS=2)
    run = finished(tmp_path / "run")
    for record in run.front_records:
        assert len(record.confirmed["accuracies"]) == 2
    image = tmp_path / "seven.png"
    Image.fromarray((load_digits().images[7] * 15).astype(np.uint8)).save(image)
    printed = recipe("ship.sh", image, RUN="run")
    shipped = tmp_path / "run" / "shipped"
    assert {path.name for path in shipped.iterdir()} >= {"model.onnx", "model-int8.onnx", "model.py", "model.pt"}
    assert "int8: size" in printed and printed.count("seven.png") == 1
    assert yaml.safe_load((shipped / "train.yaml").read_text())["id"] == run.front_records[0].architecture.id


@pytest.mark.slow
def test_notebook(recipe: Recipe, tmp_path: Path) -> None:
    printed = recipe("notebook.py", OUT="out")
    run = finished(tmp_path / "out" / "search")
    assert (tmp_path / "out" / "pareto.html").exists()
    assert list((tmp_path / "out" / "best").glob("*.onnx"))
    assert run.best(limit={"size": "10MB"}).architecture.to_yaml() in printed
