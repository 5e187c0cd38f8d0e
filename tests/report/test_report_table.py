"""The run as text, and runs compared."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from studies import SMALL, invented_run

from nas import pareto
from nas.architecture.space import Space
from nas.driver.record import COLUMNS
from nas.driver.run import Run
from nas.driver.run_file import describe_data, read_run_file, write_run_file
from nas.errors import UserError
from nas.latency import calibrate
from nas.report.comparison import caveats, common_box, common_objectives, run_rows, shared_front, write_comparison
from nas.report.page import write_report
from nas.report.progress import losses_of
from nas.report.reliability import facts
from nas.report.summary import render
from nas.training.data import load_dataset


def test_csv_is_trials_csv(trained: Run) -> None:
    assert render(trained, "csv") == (trained.path / "trials.csv").read_text()
    assert next(csv.reader(io.StringIO(render(trained, "csv")))) == list(COLUMNS)


def test_json_holds_settings_trials_and_front(trained: Run) -> None:
    document = json.loads(render(trained, "json"))
    assert len(document["trials"]) == len(trained.records)
    assert [row["id"] for row in document["front"]] == list(trained.front["id"])
    assert document["front"][0]["command"].startswith("nas train ")
    assert document["settings"] == trained.settings.to_dict()


def test_columns_that_hold_nothing_are_left_out(tmp_path: Path) -> None:
    run = invented_run(tmp_path / "run", trials=15, epochs=4, objectives=("accuracy", "size"), published="none")
    page, text = write_report(run, tmp_path / "report.html").read_text(), render(run, "md")
    for title in ("<th>Latency</th>", 'data-title="Latency"', "Beside the nearest published", "<th>Memory</th>"):
        assert title not in page
    assert "<th>Size</th>" in page
    assert "| Size | MACs | Belongs there |\n" in text
    assert "Latency" in render(invented_run(tmp_path / "timed", trials=15, epochs=4), "md").splitlines()[4]


def test_markdown_has_a_row_per_front_member(run: Run) -> None:
    lines = render(run, "md").splitlines()
    rows = [re.findall(r" (.*?) \|", line) for line in lines if line.startswith("| ")]
    assert len(rows) == len(run.front) + 2
    assert {len(row) for row in rows} == {9}
    belongs = rows[0].index("Belongs there")
    assert all("%" in row[belongs] for row in rows[2:]) and all(rows[0][1:])
    assert lines[0] == "# inverted_residual on digits"


def test_unknown_format(run: Run) -> None:
    with pytest.raises(UserError, match="unknown format 'pdf'; allowed: html, csv, json, md"):
        render(run, "pdf")


def test_report_stands_in_the_run_s_folder(trained: Run) -> None:
    path = write_report(trained)
    assert path == trained.path / "report.html"
    text = path.read_text()
    assert text.startswith("<!doctype html>")
    assert all(str(trained.front_file(rank, r)) in text for rank, r in enumerate(trained.front_records, 1))


def test_a_report_that_cannot_be_written_says_so(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing/report\.html: cannot be written: No such file"):
        write_report(trained, tmp_path / "missing" / "report.html")


@pytest.mark.parametrize("own", [True, False])
def test_the_head_counts_the_images_and_the_split_is_the_folders(trained: Run, tmp_path: Path, own: bool) -> None:
    """A folder with its own val/ used to be told as 15 % held out."""
    for part, count in {"train": 20, "val" if own else "test": 7}.items():
        for label in ("a", "b"):
            (tmp_path / "images" / part / label).mkdir(parents=True)
            for index in range(count):  # no two are copies
                level = (index, 100 * (part == "train"), 100 * (label == "b"))
                Image.new("RGB", (20, 20), level).save(tmp_path / "images" / part / label / f"{index}.png")
    dataset = load_dataset(f"imagefolder:{tmp_path / 'images'}", at_most=32)
    data = describe_data(dataset)
    write_run_file(tmp_path, trained.settings, trained.environment, None, data)
    made = Run(tmp_path, trained.settings, trained.environment, trained.study, read_run_file(tmp_path)["data"])
    head = write_report(made).read_text().split("</header>")[0]
    train, validation, test = len(dataset.train), len(dataset.validation), len(dataset.test)
    assert (validation, train + test) == (14, 40) if own else (test, train + validation) == (14, 40)
    counts = f"{train} training, {validation} validation and {test} test"
    assert f"{counts} images, 2 classes, 20 × 20 pixels" in head
    split = dict(facts(made))["Split"]
    assert split == "validation and training images as the folder divides them" if own else "15 % of it" in split


def test_the_run_s_latency_table_is_told_of(trained: Run, tmp_path: Path) -> None:
    assert "Latency" not in dict(facts(trained))
    made = Run(tmp_path, trained.settings, trained.environment, trained.study)
    (tmp_path / "latency.json").write_text("{}")
    assert "latency.json" in dict(facts(made))["Latency"]  # damaged: said, and the report is written all the same
    space = Space(SMALL)
    calibrate(space, num_classes=10, networks=8, isolate=False).save(tmp_path / "latency.json")
    assert "eager, 1 thread, batch 1; of " in dict(facts(made))["Latency"]


def test_hypervolumes_have_one_reference(run: Run) -> None:
    other = invented_run(Path("results/other"), trials=20, seed=5)
    runs = [run, other]
    objectives = common_objectives(runs)
    box = common_box(runs, objectives)
    assert box is not None
    rows = run_rows(runs, ["a", "b"], objectives, box)
    for made, row in zip(runs, rows, strict=True):
        points = np.array([p for r in made.records if (p := losses_of(objectives, r)) is not None])
        size = np.prod(box.corner - box.ideal)
        assert row["hypervolume"] == f"{100 * pareto.hypervolume(points, box.corner) / size:.1f} %"
    assert sum(shared_front(runs, objectives).values()) >= 1


def test_runs_that_cannot_be_compared_say_so(run: Run) -> None:
    other = invented_run(Path("results/other"), trials=10, dataset="cifar10", epochs=3)
    other.environment = {**other.environment, "cpu": "another"}
    assert [objective.name for objective in common_objectives([run, other])] == ["accuracy", "size"]
    said = " ".join(caveats([run, other]))
    assert "different data sets" in said
    assert "different recipes" in said
    assert "different machines" in said
    assert caveats([run, run]) == []


def test_a_comparison_needs_two(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least two runs"):
        write_comparison([run], tmp_path / "compared.html")
