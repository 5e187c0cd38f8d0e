"""The papers' tables again: which networks, under which protocol, and what is written beside the printed figures."""

import csv
import itertools
import statistics
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

from nas.architecture import catalogue
from nas.architecture.reported import read_table
from nas.architecture.space import Space
from nas.costs.analytic import cost
from nas.driver import final_evaluation, reproduce
from nas.driver.options import ReproduceOptions
from nas.driver.run import Run
from nas.driver.settings import Settings
from nas.errors import UserError
from nas.latency import Runtime
from nas.network.build import build
from nas.report.page import write_report
from nas.training.data import load_dataset
from nas.training.recipe import load_recipe

QUICK = load_recipe("search").from_dict(
    {"epochs": 1, "batch_size": 32, "lr": 0.02, "warmup_epochs": 0.0, "schedule": "constant"}
)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def ranked(values, *, least=False):
    """By definition: one more than how many are better."""
    return [1 + sum(other < value if least else other > value for other in values) for value in values]


def correlation(left, right):
    """Pearson's, of the ranks with ties in their middle."""
    middle = [[sum(o < v for o in side) + sum(o == v for o in side) / 2 for v in side] for side in (left, right)]
    return None if min(len(set(left)), len(set(right))) == 1 else float(np.corrcoef(middle)[0, 1])


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("han-table9", {}, "table 'han-table9' cannot be reproduced; one of: han-table3, han-table5"),
        ("kuo-table4", {}, "cannot be reproduced"),
        ("han-table3", {"dataset": "digits", "seeds": 0}, "seeds 0: at least 1"),
        ("han-table3", {"dataset": "moons"}, "unknown data set 'moons'"),
        ("han-table3", {"dataset": "digits", "recipe": "kuhn"}, "unknown recipe 'kuhn'"),
        ("kuo-table3", {}, "imagenet-56-100 cannot be downloaded; give --dataset imagefolder:PATH"),
        ("hoang-table5", {"epochs": 2}, "timed, not trained; leave --epochs out"),
        ("hoang-table5", {"seeds": 2}, "timed, not trained; leave --seeds out"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(table, options, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        reproduce.reproduce(ReproduceOptions(table, out=tmp_path / "run", **options))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@dataclass
class Asked:
    settings: Settings
    out: str


@pytest.fixture
def asked(monkeypatch):
    """Catches what would be searched, and ends it there."""
    found = []

    def stop(settings, *, out, **_):
        found.append(Asked(settings, out.name))
        raise InterruptedError

    monkeypatch.setattr(reproduce, "search", stop)

    def ask(table, **options):
        with pytest.raises(InterruptedError):
            reproduce.reproduce(ReproduceOptions(table, **options))
        return found[-1]

    return ask


@pytest.mark.parametrize(
    ("table", "count", "recipe"), [("han-table3", 8, "han"), ("han-table5", 2, "han"), ("hoang-table3", 22, "hoang")]
)
def test_all_networks_of_a_table_are_queued_with_the_papers_recipe(table, count, recipe, asked, tmp_path):
    settings = asked(table, dataset="digits", out=tmp_path, seeds=3).settings
    names = dict.fromkeys(row.name for row in read_table(table) if row.name)
    assert [document["name"] for document in settings.enqueue] == list(names)
    assert len(names) == settings.trials == count
    assert settings.recipe == load_recipe(recipe).to_dict()
    assert (settings.reduction, settings.published, settings.confirm) == (1, "none", 2)
    assert all(document["input"] == {"channels": 1, "resolution": 8} for document in settings.enqueue)


def test_its_space_holds_the_first_network_alone(asked, tmp_path):
    settings = asked("han-table3", dataset="digits", out=tmp_path).settings
    space = Space(settings.space)
    first, second = (
        catalogue.load(name).with_input(channels=1, resolution=8) for name in ("mobilenetv2-cifar", "han-a")
    )
    assert space.size == 1
    assert space.contains(first)
    assert not space.contains(second)


def test_the_networks_of_each_table_have_one_resolution_and_differ():
    for table in (*reproduce.TRAINED, *reproduce.TIMED):
        networks = [catalogue.load(name) for name in dict.fromkeys(row.name for row in read_table(table) if row.name)]
        assert len({network.input.resolution for network in networks}) == 1
        assert len({network.id for network in networks}) == len(networks)


def test_a_table_of_several_data_sets_is_a_run_for_each(asked, tmp_path, monkeypatch):
    digits = load_dataset("digits")
    monkeypatch.setattr(reproduce, "load_dataset", lambda name, **options: digits)
    assert asked("han-table5", out=tmp_path).out == "cifar10"
    stl10 = asked("han-table5", dataset="stl10", out=tmp_path)
    assert stl10.out == "stl10"
    assert stl10.settings.recipe == {**load_recipe("han").to_dict(), "batch_size": 50}
    assert asked("han-table5", dataset="stl10", recipe="han", out=tmp_path).settings.recipe["batch_size"] == 128
    assert asked("han-table3", out=tmp_path / "table3").out == "table3"


def test_a_folder_of_images_is_read_at_the_networks_resolution(asked, tmp_path):
    for label, number in itertools.product("ab", range(8)):
        (tmp_path / "images" / label).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (70, 80), (number, 0, 0)).save(tmp_path / "images" / label / f"{number}.png")
    settings = asked("kuo-table3", dataset=f"imagefolder:{tmp_path / 'images'}", out=tmp_path / "run").settings
    assert settings.image_resolution == 56
    assert [document["input"]["resolution"] for document in settings.enqueue] == [56, 56, 56]
    assert settings.recipe == load_recipe("kuo").to_dict()


def test_times_stand_beside_those_of_the_same_kind_of_device(tmp_path, monkeypatch):
    measured = reproduce.measure([catalogue.load("mobilenet-56-0.5").with_input(resolution=8)], max_seconds=0)[0]
    asked = []

    def pretend(networks, runtime, **options):
        asked.append((runtime, options))
        named = [replace(measured, value_ms=1.0 + i) for i in range(len(networks))]
        return named[::-1]

    monkeypatch.setattr(reproduce, "measure", pretend)
    monkeypatch.setattr(reproduce.torch.cuda, "is_available", lambda: False)
    done = reproduce.reproduce(ReproduceOptions("hoang-table5", out=tmp_path))
    assert asked == [(Runtime(device="cpu", batch=128), {"num_classes": 10})]
    rows = rows_of(tmp_path / "table.csv")
    assert [row["row"] for row in rows] == [row.row for row in read_table("hoang-table5")]
    timed = [row for row in rows if "Intel" in row["printed_hardware"]]
    assert [float(row["latency_ms"]) for row in timed] == [float(11 - i) for i in range(11)]
    assert [int(row["latency_ms_rank"]) for row in timed] == [11 - i for i in range(11)]
    printed = [float(row["printed_latency_ms"]) for row in timed]
    assert [int(row["printed_latency_ms_rank"]) for row in timed] == ranked(printed, least=True)
    assert list(done.orders.values()) == [pytest.approx(correlation(printed, list(range(11, 0, -1))))]
    for row in timed:
        assert int(row["params"]) == cost(catalogue.load(row["name"]), 10).params
    left = [row for row in rows if "NVIDIA" in row["printed_hardware"]]
    assert len(left) == len(timed) == 11
    assert not any(row["latency_ms"] or row["latency_ms_rank"] for row in left)
    assert done.runs == []


def test_rows_without_a_network_of_ours_or_a_run_stay_as_printed(tmp_path):
    printed = read_table("hoang-table3")
    done = reproduce._write("hoang-table3", tmp_path, [reproduce._trained(row, None) for row in printed], [])
    rows = rows_of(tmp_path / "table.csv")
    assert [(row["row"], row["dataset"]) for row in rows] == [(row.row, row.dataset) for row in printed]
    assert [float(row["printed_accuracy"]) for row in rows] == [row.accuracy for row in printed]
    assert not any(row["accuracy"] or row["accuracy_rank"] or row["printed_accuracy_rank"] for row in rows)
    assert done.orders == {}
    assert "| ResNet-20 | cifar10 | 92.70% |" in (tmp_path / "table.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("own_ray")
def test_a_table_is_trained_interrupted_resumed_and_written(tmp_path, monkeypatch):
    """Han's Table 3, whole, on digits: real workers, a Ctrl-C in the middle, another seed."""
    monkeypatch.setattr(final_evaluation, "MEASURE_SECONDS", 0.2)
    closed = []

    def interrupt(progress):
        closed.append(progress.closed)
        if progress.closed == 3:
            raise KeyboardInterrupt

    options = {"dataset": "digits", "train_size": 200, "recipe": QUICK, "out": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        reproduce.reproduce(ReproduceOptions("han-table3", **options, seeds=2, on_change=interrupt))
    assert not (tmp_path / "run" / "table.csv").exists()
    done = reproduce.reproduce(
        ReproduceOptions("han-table3", **options, seeds=2, on_change=lambda state: closed.append(state.closed))
    )
    assert closed[-1] == 8  # confirmed

    run = Run.open(done.path)
    trials = {row["name"]: row for row in rows_of(done.path / "trials.csv")}
    rows = rows_of(done.path / "table.csv")
    printed = read_table("han-table3")
    assert tuple(rows[0]) == tuple(reproduce.COLUMNS)
    assert [row["name"] for row in rows] == [row.name for row in printed] == list(trials)
    for row, original, record in zip(rows, printed, run.records, strict=True):
        trial = trials[row["name"]]
        assert (float(row["printed_accuracy"]), float(row["printed_size_bytes"])) == (
            original.accuracy,
            original.size_bytes,
        )
        assert (row["id"], row["state"], row["epochs"], row["seeds"]) == (trial["id"], "complete", "1", "2")
        assert (row["test_accuracy"], row["trained_on"]) == (trial["test_accuracy"], "digits")
        both = [float(trial["accuracy"]), record.confirmed["repeats"]["1"]["0"]]
        assert float(row["accuracy"]) == pytest.approx(statistics.fmean(both), abs=1e-6)
        assert float(row["accuracy_spread"]) == pytest.approx(statistics.stdev(both), abs=1e-6)
        network = catalogue.load(row["name"]).with_input(channels=1, resolution=8)
        assert int(row["params"]) == sum(parameter.numel() for parameter in build(network, 10).parameters())
        assert (int(row["macs"]), int(row["size_bytes"])) == (int(trial["macs"]), int(trial["size_bytes"]))
        assert float(row["latency_low_ms"]) <= float(row["latency_ms"]) <= float(row["latency_high_ms"])
    for (column, *_), found in done.orders.items():
        least = column == "latency_ms"
        ours, theirs = ([float(row[side + column]) for row in rows] for side in ("", "printed_"))
        assert [int(row[f"{column}_rank"]) for row in rows] == ranked(ours, least=least)
        assert [int(row[f"printed_{column}_rank"]) for row in rows] == ranked(theirs, least=least)
        assert found == pytest.approx(correlation(ours, theirs))
    assert len(done.orders) == 2

    text = (done.path / "table.md").read_text()
    assert all(f"| {row.printed_name} |" in text for row in printed)
    for row in rows:  # few images: ours in whole per cent, the printed ones as printed
        ours = [float(row[key]) for key in ("printed_accuracy", "accuracy", "accuracy_spread", "test_accuracy")]
        assert "| {:.2%} | {:.0f} % | {:.0f} % | {:.0f} % |".format(ours[0], *(100 * own for own in ours[1:])) in text
    assert write_report(run).exists()

    record = (done.path / "study.journal").read_bytes()
    again = reproduce.reproduce(ReproduceOptions("han-table3", **options, seeds=2))
    assert (done.path / "study.journal").read_bytes() == record
    assert rows_of(again.path / "table.csv") == rows
    with pytest.raises(UserError, match="holds another run"):
        reproduce.reproduce(ReproduceOptions("han-table3", **{**options, "train_size": 300}))
