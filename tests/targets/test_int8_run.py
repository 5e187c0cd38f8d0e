"""A run whose accuracies are those of int8 networks: what is drawn, told and compared of it."""

from dataclasses import replace

import pytest
from runs import begin, epoch

import nas
from nas.console import print_run
from nas.driver.confirmation import Confirmation
from nas.driver.final_evaluation import note
from nas.driver.run import Run
from nas.driver.settings import Settings
from nas.driver.warm_start import earlier_run, import_networks
from nas.errors import UserError
from nas.report.page import render_page
from nas.terminal import Terminal

SPACE = {
    "name": "tiny",
    "input": {"channels": 1, "resolution": 8},
    "stem": {"channels": 8},
    "stages": [{"block": "inverted_residual", "channels": {"choice": [8, 16]}}],
}
SETTINGS = Settings(
    space=SPACE, target="onnxruntime-int8", objectives=("accuracy", "size"), limits=("size<=1MB",), recipe={"epochs": 2}
)


@pytest.fixture
def run(tmp_path):
    """Two networks: int8 makes the better one the worse one, and the file of the other is over the limit."""
    study = begin(tmp_path / "run", SETTINGS)
    for fp32, int8, size in ((0.75, 0.5, 900_000), (0.625, 0.6, 2_000_000)):
        number = study.propose().number
        study.record_epoch(number, epoch(1, fp32 / 2))
        study.record_epoch(number, {**epoch(2, fp32), "int8_accuracy": int8})
        study.complete(number)
        note(study.study, {number: {"test_accuracy": int8, "fp32_test_accuracy": fp32, "file_bytes": size}})
    return Run.open(tmp_path / "run")


def test_accuracy_is_that_of_int8_with_fp32_beside_it(run):
    worse, better = run.records
    assert [(record.accuracy, record.fp32_accuracy) for record in run.records] == [(0.5, 0.75), (0.6, 0.625)]
    assert [trial.values[0] for trial in run.study.trials] == [0.5, 0.6]
    assert [point["accuracy"] for point in worse.curve] == [0.375, 0.75]  # epochs are compared in fp32
    assert run.best() == better
    row = run.trials.set_index("trial").loc[better.number]
    assert (row.accuracy, row.fp32_accuracy, row.test_accuracy, row.fp32_test_accuracy) == (0.6, 0.625, 0.6, 0.625)
    assert (row.size_measured_bytes, row.size_bytes) == (2_000_000, better.costs["size"])
    run.write_tables()
    assert ",2000000," in (run.path / "trials.csv").read_text()
    file = run.front_file(1, better).read_text()
    assert "accuracy int8 60.0 %, fp32 62.5 %, size" in file.splitlines()[0]
    assert file.splitlines()[0].endswith("; size measured: 2 MB")
    assert nas.load(run.front_file(1, better)) == better.architecture


def test_page_and_screen_show_both_and_name_what_is_over_a_limit(run, tmp_path):
    page, lines = render_page(run), tmp_path / "screen"
    with lines.open("w") as file:
        print_run(Terminal(file=file, width=200), run, tmp_path)
    screen = lines.read_text()
    over = f"{run.records[1].architecture.id} is over a limit: size<=1MB: 2 MB measured."
    assert over in screen and over in page.replace("&lt;", "<").replace("\u00a0", " ")
    row = next(line for line in screen.splitlines() if line.startswith("1 ") and "%" in line)
    assert row.replace(" %", "%").split()[2:6] == ["60.0%", "62.5%", "60.0%", "62.5%"]
    text = page.replace("\u00a0", " ")
    assert "int8 60.0 %, fp32 62.5 % of the test images" in text
    assert "2 networks get on average 13.8 points less of the validation images right than in fp32, the worst" in text
    assert "the worst 25.0 less; nas train --qat" in text


def test_runs_that_are_judged_otherwise_are_not_compared(run, tmp_path):
    warm = replace(SETTINGS, warm_start=str(run.path))
    study = begin(tmp_path / "next", warm)
    assert import_networks(earlier_run(warm), study, tmp_path / "next") == (2, 0)
    again = Run.open(tmp_path / "next").records
    assert [(record.accuracy, record.fp32_accuracy) for record in again] == [(0.5, 0.75), (0.6, 0.625)]
    for other in ("torch", "litert-int8"):
        with pytest.raises(UserError, match="its target is another one"):
            earlier_run(replace(warm, target=other))


def test_a_confirmation_counts_int8(run):
    confirmation = Confirmation(run.study, run.records[:1], seeds=1, epochs=2)
    number = confirmation.next_candidate().number
    end = {"epoch": 2, "seconds": 1.0, "validation_accuracy": 0.75, "int8_accuracy": 0.5}
    assert confirmation.report(number, {"epoch": end})
    assert Run.open(run.path).records[0].confirmed["accuracies"] == [0.5]
