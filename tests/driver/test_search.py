"""Whole searches on Ray, tiny ones, on the embedded digits."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import checks
import numpy as np
import psutil
import pytest
import torch
import yaml
from commands import SPACE
from PIL import Image

import nas
from nas.driver.record import COLUMNS
from nas.driver.run_file import write_run_file
from nas.driver.scheduler import Candidate
from nas.driver.trial_scheduler import training_seed
from nas.errors import UserError
from nas.training.checkpoint import load_checkpoint
from nas.training.data import load_dataset
from nas.training.evaluator import TrainingEvaluator
from nas.training.recipe import Recipe
from nas.training.weights import restored


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shared_ray):  # noqa: ARG001
    """A finished search of eight trials."""
    folder = tmp_path_factory.mktemp("search") / "run"
    progress = []
    run = nas.search(
        nas.Space(SPACE),
        objectives=("accuracy", "size"),
        published="none",
        trials=8,
        epochs=3,
        train_size=600,
        out=folder,
        on_change=lambda state: progress.append((state.closed, state.running)),
    )
    return run, progress


def kinds(value):
    """A document with the names of its values' types in their place."""
    if isinstance(value, dict):
        return {key: kinds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [kinds(item) for item in value[:1]]
    return type(value).__name__


def kept(recorded, written):
    """What was recorded, with the kind that it is written with now: keys may be added, none may change or go."""
    if isinstance(recorded, dict) and isinstance(written, dict):
        return {key: kept(kind, written.get(key, "gone")) for key, kind in recorded.items()}
    return recorded if written == [] and isinstance(recorded, list) else written  # one worker's search is repeatable


def test_files_have_the_keys_and_types_recorded(finished):
    """Files of a run are read by older and newer versions, and by other programs."""
    run, _ = finished
    recorded = json.loads((Path(__file__).parent / "recorded_files.json").read_text())
    written = kinds(yaml.safe_load((run.path / "run.yaml").read_text()))
    assert kept(recorded["run.yaml"], written) == recorded["run.yaml"]
    front = (run.path / "front" / f"01-{run.front_records[0].architecture.id}.yaml").read_text()
    assert front.startswith(f"# trial {run.front_records[0].number} of a search on digits: accuracy ")
    assert kept(recorded["front"], kinds(yaml.safe_load(front))) == recorded["front"]
    with (run.path / "trials.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["on_front"] == "True")
    cells = {key: "str" if key in ("id", "name") else kinds(yaml.safe_load(cell)) for key, cell in row.items()}
    assert list(cells.items()) == list(recorded["trials.csv"].items())
    assert {item.name for item in run.path.iterdir()} >= set(recorded["folder"])


def test_its_folder_says_what_the_images_are_like_and_how_they_are_judged(finished):
    run, _ = finished
    digits = load_dataset("digits", train_size=600)
    summary = json.loads((run.path / "data.json").read_text())
    assert [item["train"] for item in summary["classes"]] == digits.train.labels.bincount().tolist()
    tested = [record for record in run.records if "test_accuracy" in record.confirmed]
    assert {int(file.stem) for file in (run.path / "judged").iterdir()} == {record.number for record in tested}
    for record in tested:
        judgement = json.loads(run.judgement_file(record.number).read_text())
        assert [sum(row) for row in judgement["confusion"]] == digits.test.labels.bincount().tolist()
        right = sum(row[index] for index, row in enumerate(judgement["confusion"]))
        assert right / 359 == record.confirmed["test_accuracy"]
        recalls = [row[index] / sum(row) for index, row in enumerate(judgement["confusion"])]
        assert record.confirmed["test_balanced_accuracy"] == pytest.approx(np.mean(recalls))


def test_the_table_has_its_columns_and_the_front_follows_from_it(finished):
    run, _ = finished
    with (run.path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    trained = [row for row in rows if not row["reason"].startswith("same network")]
    assert len(trained) == 8
    complete = [row for row in trained if row["state"] == "complete"]
    assert complete
    for row in trained:
        assert (row["on_front"] == "True") == (row["state"] == "complete" and not checks.dominated(row, complete))
        assert int(row["epochs"]) == 3 or row["state"] == "stopped"


def test_costs_in_the_table_are_those_of_the_built_networks(finished):
    run, _ = finished
    for record in run.records:
        network = nas.build(record.architecture, 10)
        assert record.costs["params"] == sum(parameter.numel() for parameter in network.parameters())


def test_the_front_can_be_loaded_and_its_weights_judge_the_same(finished):
    run, _ = finished
    for rank, record in enumerate(run.front_records, 1):
        assert nas.load(run.front_file(rank, record)).id == record.architecture.id
        figures = nas.evaluate(run.checkpoint(record))
        assert figures["validation_accuracy"] == pytest.approx(record.accuracy, abs=1e-6)
        assert figures["test_accuracy"] == pytest.approx(record.confirmed["test_accuracy"], abs=1e-6)


def test_the_test_set_is_kept_image_by_image(finished):
    run, _ = finished
    digits = load_dataset("digits", train_size=600)
    for record in run.front_records:
        network = restored(load_checkpoint(run.checkpoint(record)), "here").eval()
        images = digits.for_network(record.architecture.input.channels, record.architecture.input.resolution)
        normalised = (images.test.images.float() / 255 - images.mean[0]) / images.std[0]
        with torch.inference_mode():
            right = [bool(hit) for hit in network(normalised).argmax(1) == images.test.labels]
        kept = [int(bit) for byte in bytes.fromhex(record.confirmed["test_hits"]) for bit in f"{byte:08b}"]
        assert kept[: len(right)] == right
        assert not any(kept[len(right) :])


def test_run_yaml_counts_the_images(finished):
    run, _ = finished
    # Digits has 1,797 images of 8x8 in 10 classes, a fifth of each class for testing.
    assert run.data["train"] == 600
    assert run.data["test"] == 359
    assert run.data["validation"] == len(load_dataset("digits", train_size=600).validation)
    assert (run.data["classes"], run.data["resolution"]) == (10, 8)


def test_only_weights_of_the_front_are_kept(finished):
    run, _ = finished
    kept = {path.name for path in (run.path / "checkpoints").iterdir()}
    assert kept == {f"{record.number}.pt" for record in run.front_records}


def test_progress_ends_with_all_trials(finished):
    _, progress = finished
    assert progress[-1] == (8, 0)
    assert max(running for _, running in progress) >= 1


def test_run_yaml_says_how_to_do_it_again(finished):
    run, _ = finished
    document = yaml.safe_load((run.path / "run.yaml").read_text())
    assert document["schema"] == 1
    assert document["settings"]["space"]["name"] == "tiny"
    assert {"torch", "ray", "optuna"} <= document["environment"]["versions"].keys()


def test_run_yaml_says_what_cannot_be_repeated(finished, tmp_path):
    run, _ = finished
    several = run.environment["workers"] > 1
    found = yaml.safe_load((run.path / "run.yaml").read_text())["not_repeatable"]
    assert [line.partition(":")[0] for line in found] == [
        "which networks are tried, and where they are stopped"
    ] * several
    # Resumed elsewhere, the run is no more repeatable than its least repeatable part.
    settings = replace(run.settings, objectives=("accuracy", "latency"))
    for device, workers in (("cpu", 1), ("a GPU", 2), ("cpu", 1)):
        write_run_file(tmp_path, settings, {"device": device, "workers": workers}, None)
    found = yaml.safe_load((tmp_path / "run.yaml").read_text())["not_repeatable"]
    assert [line.split()[0] for line in found] == ["latencies,", "which", "trainings,"]


def test_a_trials_training_is_repeatable_from_its_seed(finished):
    """Alone in another process, whatever order the workers had: the same curve, to the last digit that is kept."""
    run, _ = finished
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        evaluator = TrainingEvaluator(
            load_dataset(run.settings.dataset, **run.settings.reading), run.settings.parsed_recipe
        )
        for record in [record for record in run.records if record.was_trained][-3:]:
            seed = training_seed(run.settings.seed, Candidate(record.number, record.architecture))
            again = list(evaluator.run(record.architecture, seed=seed))[: len(record.curve)]
            curve = [(epoch["accuracy"], epoch["loss"]) for epoch in record.curve]
            assert [(round(epoch.validation_accuracy, 6), round(epoch.loss, 6)) for epoch in again] == curve
    finally:
        torch.set_num_threads(threads)


def test_a_finished_run_is_not_overwritten(finished):
    run, _ = finished
    before = (run.path / "trials.csv").read_bytes()
    with pytest.raises(UserError, match="holds another run"):
        nas.search(nas.Space(SPACE), objectives=("accuracy", "macs"), trials=8, epochs=3, out=run.path)
    with pytest.raises(UserError, match="is finished"):
        nas.api.resume(run.path)
    assert (run.path / "trials.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "held"),
    [("checkpoints/7.pt", "checkpoints"), ("front/mine.yaml", "front"), ("report.html", "report.html")],
)
def test_what_a_run_would_replace_is_left_as_it_is(tmp_path, name, held):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    (tmp_path / "log.txt").touch()  # of a shell that keeps what the command prints
    with pytest.raises(UserError, match=rf"holds something else \({held}\); give another --out"):
        nas.search(nas.Space(SPACE), objectives=("accuracy", "size"), trials=1, epochs=1, out=tmp_path)
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == sorted([name, "log.txt"])


def test_a_run_does_not_begin_among_its_images(tmp_path):
    for number in range(12):
        file = tmp_path / ("rose", "tulip")[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), 20 * number).save(file)
    with pytest.raises(UserError, match=r"holds something else \(the images\); give another --out"):
        nas.search(nas.Space(SPACE), dataset=f"imagefolder:{tmp_path}", trials=1, out=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rose", "tulip"]


@pytest.mark.slow
@pytest.mark.usefixtures("shared_ray")
def test_a_hundred_trials_leave_no_handles_and_few_files(tmp_path):
    process = psutil.Process()
    seen = {}

    def watch(progress):
        if progress.closed in (40, 100):
            seen.setdefault(progress.closed, (process.num_fds(), process.memory_info().rss / 1e6))

    stages = [SPACE["stages"][0], {**SPACE["stages"][1], "expansion": {"choice": [1, 2, 3, 4, 6]}}]
    run = nas.search(
        nas.Space({**SPACE, "stages": stages, "width": {"choice": [1, 2]}}),
        objectives=("accuracy", "size"),
        recipe=Recipe(epochs=1, batch_size=64),
        published="none",
        sampler="random",
        trials=100,
        train_size=64,
        out=tmp_path / "run",
        on_change=watch,
    )
    (handles, memory), (handles_later, memory_later) = seen[40], seen[100]
    assert handles_later <= handles + 2
    assert memory_later - memory < 20
    front = {run.checkpoint(record).name for record in run.front_records}
    files = [path for path in run.path.rglob("*") if path.is_file() and path.parent.name not in ("front", "judged")]
    few = ["data.json", "run.yaml", "study.journal", "trials.csv"]
    assert sorted(file.name for file in files if file.name not in front) == few
    assert len(list((run.path / "judged").iterdir())) == len(run.front_records)
