"""What a user of Python sees: names, signatures, a run's text, progress, limits asked afterwards."""

import inspect
import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import runs
import torch

import nas
from nas import api
from nas.console import print_comparison
from nas.driver.display import progress_to
from nas.driver.run import Run
from nas.driver.scheduler import Progress
from nas.driver.settings import Settings
from nas.errors import UserError
from nas.latency import calibrate
from nas.terminal import Terminal
from nas.training.checkpoint import save_checkpoint, save_weights
from nas.training.recipe import Recipe

SPACE = {
    "name": "few",
    "input": {"channels": 1, "resolution": 8},
    "stem": {"channels": 8},
    "stages": [{"block": "inverted_residual", "channels": 8, "expansion": {"choice": [1, 2, 3, 4]}}],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four networks, the larger the more accurate; latency is no objective."""
    settings = Settings(space=SPACE, objectives=("accuracy", "size"), recipe=Recipe(epochs=1).to_dict(), trials=4)
    folder = tmp_path_factory.mktemp("runs") / "run"
    study = runs.begin(folder, settings)
    for _ in range(4):
        candidate = study.propose()
        assert candidate is not None
        study.record_epoch(candidate.number, runs.epoch(1, study.costs(candidate.architecture)["size"] / 1e5))
        study.complete(candidate.number)
    return Run.open(folder)


def test_the_package_lists_its_functions() -> None:
    assert {"search", "train", "evaluate", "cost", "load", "load_space", "open_run", "Run"} <= set(dir(nas))
    assert all(getattr(nas, name) is not None for name in nas.__all__)


def test_search_and_cost_have_the_signatures_and_documents_of_their_functions() -> None:
    from nas.api import search
    from nas.costs.analytic import cost

    assert nas.search is search and nas.cost is cost  # and no package of that name stands in their way
    assert "trials" in inspect.signature(nas.search).parameters


def test_listing_the_package_imports_nothing_heavy() -> None:
    code = "import nas, sys; dir(nas); print([m for m in ('torch', 'ray', 'optuna') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_prints_what_it_is(run: Run) -> None:
    said = repr(run)
    assert str(run.path) in said
    assert "few on digits, 4 of 4 trials done, 4 on the front" in said
    assert f"{100 * max(r.accuracy or 0 for r in run.records):.1f} %" in said  # its images are not counted
    table = run._repr_html_()
    assert all(record.architecture.id in table for record in run.front_records)
    assert "&lt;Run" in table


def test_best_keeps_a_limit_on_latency_that_was_no_objective(run: Run, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"the search knew no latencies; calibrate the device .*latency_table"
    ) as caught:
        run.best(limit={"latency": "3ms"})
    assert "\n" not in str(caught.value)
    file = tmp_path / "latency.json"
    table = calibrate(nas.Space(SPACE), num_classes=10, networks=8, isolate=False)
    table.save(file)
    upper = {record.number: table.predict(record.architecture).high_ms for record in run.records}
    second = sorted(upper.values())[1]
    best = run.best(limit={"latency": f"{second * 1.0001:.9f}ms"}, latency_table=file)
    allowed = [record for record in run.records if upper[record.number] <= second]
    assert best.number == max(allowed, key=lambda record: record.accuracy or 0).number
    # The run's own table serves, too, and so does its settings'.
    named = Run(run.path, replace(run.settings, latency_table=str(file)), run.environment, run.study)
    assert named.best(limit={"latency": "1s"}).number == run.best().number
    with pytest.raises(UserError, match="no network keeps the limits"):
        named.best(limit={"latency": "1us"})


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"speed": "3ms"}, "'speed' cannot be limited; allowed: size, latency"),
        ({"accuracy": "90%"}, "'accuracy' cannot be limited"),
        ({"size": "3 parsecs"}, "unknown unit 'parsecs'"),
        ({"size": "much"}, "write it as FIGURE<=VALUE"),
        ({"size": "1B"}, "no network keeps the limits"),
        ("size<=1MB", "give a mapping, such as"),
    ],
)
def test_a_limit_that_makes_no_sense_is_one_line(run: Run, limit: object, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        run.best(limit=limit)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_network_is_also_its_name_and_a_run_its_folder(run: Run) -> None:
    assert nas.cost("han-e") == nas.cost(nas.load("han-e"))
    assert nas.build("han-e", 10)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert nas.figure(run.path, y="params") == nas.figure(run, y="params")
    assert nas.open_run(run) is run
    assert api.compare("han-e").equals(api.compare(["han-e"]))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda run: nas.build(run.best(), 10), "a network is a name, a YAML file or a document, not a Record"),
        (lambda run: nas.cost(run), "a document, not a Run"),
        (lambda run: api.compare([run]), "a document, not a Run"),
        (lambda run: nas.cost("han-e", 0), "num-classes 0: at least 1 is needed"),
        (lambda run: nas.build("han-e", 0), "num-classes 0: at least 1 is needed"),
        (lambda run: nas.search(objectives="accuracy, size"), r"give a list, such as \['accuracy', 'size'\]"),
        (lambda run: nas.search(limits="size<=1MB"), r"give a list, such as \['size<=1MB'\]"),
        (lambda run: nas.figure(run, "curves", x="macs"), "figure 'curves' has no axes x to choose"),
        (lambda run: nas.figure(run, z="macs"), "'pareto' has x, y and colour"),
    ],
)
def test_what_is_not_taken_is_said_in_one_line(run: Run, call: Callable[[Run], object], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        call(run)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_interactive_search_prints_its_progress_and_names_the_study_s_metrics(tmp_path: Path) -> None:
    """At a prompt progress is printed unasked. The study is one of an older nas, which did not name its metrics."""
    settings = Settings(
        space=SPACE,
        train_size=100,
        objectives=("accuracy", "size"),
        recipe=Recipe(epochs=1, warmup_epochs=0).to_dict(),
        trials=1,
        published="none",
    )
    folder = tmp_path / "run"
    assert runs.begin(folder, settings).study.metric_names is None
    code = "import sys; sys.ps1 = '>>> '; from nas import api; print(api.resume(sys.argv[1]).study.metric_names)"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert "1/1 trials" in done.stdout
    assert done.stdout.rstrip().endswith("['Validation accuracy', 'Size']")
    assert "ExperimentalWarning" not in done.stderr


def test_a_run_that_goes_on_keeps_its_search(tmp_path: Path) -> None:
    allowed = "trials, confirm, confirm_epochs, keep"
    with pytest.raises(nas.UserError, match=f"sampler of a run cannot be changed; allowed: {allowed}$"):
        api.resume(tmp_path, sampler="tpe")


def test_a_script_is_told_nothing_unless_it_asks(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[Progress] = []
    for progress, on_change, printed in ((None, None, False), (True, None, True), (True, told.append, True)):
        with progress_to(progress, on_change) as tell:
            logging.getLogger("nas.driver").info("beginning")
            tell(Progress(budget=3))
        said = capsys.readouterr().out
        assert ("0/3 trials" in said, "beginning" in said) == (printed, printed)
    assert len(told) == 1


@pytest.mark.parametrize("width", [80, 120])
def test_a_comparison_fits_the_screen_and_hides_no_digit(run: Run, width: int) -> None:
    table = api.compare(["mobilenetv2-cifar", "han-e", "pydmobilenet-add-29-0.5", run.path])
    assert table["name"].tolist()[3:] == [record.architecture.name for record in run.front_records]
    assert table["accuracy"].tolist()[3:] == [record.accuracy for record in run.front_records]
    text = io.StringIO()
    print_comparison(Terminal(file=text, width=width), table)
    figures = text.getvalue().split("\n\n")[:-1]
    lines = [line for block in figures for line in block.splitlines()]
    assert max(map(len, lines)) <= width
    for title, shown in {
        "Parameters (M)": (f"{nas.cost(nas.load('mobilenetv2-cifar')).params / 1e6:.2f}", "0.104"),
        "Printed: accuracy (%)": ("93.47", "91.77"),  # Han and Kwon, Table 3
        "Size (MB)": (f"{nas.cost(nas.load('han-e')).size_bytes / 1e6:.2f}",),
        "  latency (ms)": ("26.00", "13.00"),
        "  time/size (µs per kB)": ("2.83",),
    }.items():
        words = [word for line in lines if line.startswith(title) for word in line[len(title) :].split()]
        assert set(shown) <= set(words)
        assert len(words) == len(table)  # one for each network, in one line each
    assert sum(line.startswith("Id ") for line in lines) == len(figures)


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.pt"])
def test_a_training_s_folder_is_compared(tmp_path: Path, name: str) -> None:
    network = nas.load("han-e").with_input(channels=1, resolution=8)
    settings = Settings(space=SPACE, recipe=Recipe(epochs=1).to_dict())
    checkpoint = runs.checkpoint_of(network, settings, epochs=1, accuracy=0.625)
    (save_weights if name.endswith(".safetensors") else save_checkpoint)(tmp_path / name, checkpoint)
    row = api.compare([tmp_path]).iloc[0]
    assert (row["id"], row["accuracy"]) == (network.id, 0.625)
    assert row["params"] == nas.cost(network, 10).params


def test_what_cannot_be_compared_is_one_line(tmp_path: Path) -> None:
    for reference, said in ((tmp_path, "no run and no training here"), (tmp_path / "gone", "gone")):
        with pytest.raises(UserError, match=said) as caught:
            api.compare(["han-e", reference])
        assert "\n" not in str(caught.value)


def test_onnx_runtime_sends_and_keeps_nothing(tmp_path):
    """Its telemetry leaves an identifier of the device in the home folder, at the import already."""
    pytest.importorskip("onnxruntime")
    told = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in told} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", "import nas, onnxruntime"], env=environment, check=True)
    assert not [*tmp_path.rglob("*")]
