"""A search's target: what its figures are, and what is refused before anything is read or written."""

import pytest

import nas
from nas.driver.asked import objectives_for
from nas.driver.objectives import parse_limit, parse_objectives
from nas.driver.prepare import cost_function, prepare, queued
from nas.driver.settings import Settings
from nas.errors import UserError
from nas.export.command import export
from nas.latency import ENGINES
from nas.targets import TARGETS, target
from nas.training.data import load_dataset

MICRO = target("tflite-micro")
SPACE = {
    "name": "tiny",
    "input": {"channels": 1, "resolution": 8},
    "stem": {"channels": 8},
    "stages": [
        {"block": "inverted_residual", "channels": {"choice": [8, 16]}, "experts": {"choice": [1, 4]}},
    ],
}


def settings(**fields):
    plain = {**SPACE, "stages": [{**SPACE["stages"][0], "experts": 1}]}
    return Settings(**{"space": plain, "target": "tflite-micro", "objectives": ("accuracy", "size"), **fields})


def test_figures_are_those_of_the_target():
    network = nas.load("han-e")
    figures, before = cost_function(10, target=MICRO)(network), cost_function(10)(network)
    assert (figures["size"], figures["memory"]) == (MICRO.size(network, 10), MICRO.memory(network, 10))
    assert figures["size"] < before["size"] / 3  # int8
    assert {name: figures[name] for name in ("params", "macs", "peak_memory")} == {
        name: before[name] for name in ("params", "macs", "peak_memory")
    }
    assert "memory" not in before


def test_names_of_a_target():
    assert parse_limit("flash<=100kB", MICRO.aliases) == parse_limit("size<=100kB")
    assert [item.name for item in parse_objectives("accuracy,flash,memory", MICRO.aliases)] == [
        "accuracy",
        "size",
        "memory",
    ]
    with pytest.raises(UserError, match="'flash' cannot be limited"):
        parse_limit("flash<=100kB")
    with pytest.raises(UserError, match="unknown objective 'flash'"):
        settings(target="litert-int8", objectives=("accuracy", "flash"))
    assert settings(target="torch", limits=("memory<=1MB",)).parsed_limits == (parse_limit("peak_memory<=1MB"),)


def test_settings_keep_the_target_and_old_runs_are_torch():
    kept = settings(limits=("flash<=100kB", "memory<=64KiB"))
    assert Settings.from_dict(kept.to_dict()) == kept
    assert [(limit.objective.name, limit.value) for limit in kept.parsed_limits] == [("size", 1e5), ("memory", 65536)]
    old = {name: value for name, value in kept.to_dict().items() if name not in ("target", "limits")}
    assert Settings.from_dict(old).target == "torch"
    with pytest.raises(UserError, match="unknown target 'tpu'"):
        settings(target="tpu")


def test_every_target_but_a_microcontroller_has_an_engine():
    without = {name for name, item in TARGETS.items() if item.engine not in ENGINES}
    assert without == {"tflite-micro", "tflite-micro:per-tensor"}


def test_latency_without_an_engine_is_refused(tmp_path):
    for asked in ({"objectives": ("accuracy", "latency")}, {"limits": ("latency<=1ms",)}):
        with pytest.raises(UserError, match="target tflite-micro: its latency cannot be measured here") as caught:
            prepare(settings(**asked), run=tmp_path / "run", dataset=load_dataset("digits"))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "run.yaml").exists()


def test_memory_stands_in_for_latency_in_the_default_objectives():
    default = ("accuracy", "size", "latency")
    assert objectives_for(MICRO, default, has_table=False) == ("accuracy", "size", "memory")
    assert objectives_for(MICRO, default, has_table=True) == default
    assert objectives_for(target("torch"), default, has_table=False) == default
    assert objectives_for(target("onnxruntime"), default, has_table=False) == default


def test_networks_that_cannot_ship_are_refused_by_name_and_left_out_else(tmp_path):
    with pytest.raises(UserError, match=r"--enqueue kuo-se-condconv: .* do not run on tflite-micro"):
        nas.search("micro", target="tflite-micro", enqueue=["kuo-se-condconv"], dataset="digits", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    data = load_dataset("digits")
    space = nas.Space(settings().space)
    with pytest.raises(UserError, match="--published kuo-se-condconv"):
        queued(settings(published="kuo-se-condconv"), space, data)
    names = {item.architecture.name for item in queued(settings(published="all"), space, data)}
    everywhere = {item.architecture.name for item in queued(settings(published="all", target="torch"), space, data)}
    assert everywhere - names == {"kuo-se-condconv"}


def test_a_profile_says_what_a_network_costs_there():
    there = nas.api.profile("han-e", target="tflite-micro")["target"]
    assert there["file_bytes"] == MICRO.size(nas.load("han-e"), 10)
    assert (there["memory_bytes"], there["latency_engine"], there["objection"]) == (
        MICRO.memory(nas.load("han-e"), 10),
        None,
        None,
    )
    refused = nas.api.profile("kuo-se-condconv", target="litert", num_classes=100)["target"]
    assert refused["file_bytes"] is None and "experts" in refused["objection"]
    assert "target" not in nas.api.profile("han-e")


@pytest.mark.slow
@pytest.mark.usefixtures("shared_ray")
def test_a_search_in_int8_is_judged_by_what_ships(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    run = nas.search(
        nas.Space({**SPACE, "stages": [{**SPACE["stages"][0], "experts": 1}]}),
        target="onnxruntime-int8",
        dataset="digits",
        objectives=("accuracy", "size"),
        limits=("size<=30kB",),
        trials=1,
        epochs=2,
        published="none",
        out=tmp_path / "run",
    )
    (record,) = run.front_records
    file = export(run.checkpoint(record), target="onnxruntime-int8", out=tmp_path / "net.onnx").quantised.path
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    data = load_dataset("digits")
    for part, accuracy in ((data.validation, record.accuracy), (data.test, record.confirmed["test_accuracy"])):
        (logits,) = session.run(None, {"images": (part.images.float() / 255).numpy()})
        assert (logits.argmax(1) == part.labels.numpy()).mean() == pytest.approx(accuracy, abs=1e-6)
    assert record.fp32_accuracy == pytest.approx(nas.evaluate(run.checkpoint(record))["validation_accuracy"], abs=1e-6)
    assert record.measured == {"size": file.stat().st_size}
    assert record.costs["size"] == pytest.approx(file.stat().st_size, rel=0.02)
    judged = nas.evaluate(run.checkpoint(record), target="onnxruntime-int8")
    assert [judged["validation_accuracy"], judged["target"]["file_bytes"]] == [record.accuracy, file.stat().st_size]
    assert judged["fp32"]["validation_accuracy"] == pytest.approx(record.fp32_accuracy, abs=1e-6)
    trained = nas.train(run.front_file(1, record), epochs=1, out=tmp_path / "trained")  # for the search's target
    file = export(trained.model, target="onnxruntime-int8").quantised.path
    assert trained.shipped["file_bytes"] == file.stat().st_size
    assert trained.shipped["test_accuracy"] == nas.evaluate(file)["test_accuracy"]
