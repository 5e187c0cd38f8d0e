""".tflite files against the network that they were made from, by LiteRT's and TensorFlow Lite Micro's interpreters.

Most need the extra `litert`, which CI installs in an environment of its own.
"""

import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shipping import KINDS, card_of, expected_logits, lived_in, small, train_tiny
from torch import nn

import nas
from nas.errors import UserError
from nas.export.check import ExportError
from nas.export.command import Exported, export
from nas.export.litert import Session, litert_bytes, litert_int8_bytes, to_litert
from nas.export.predict import predict
from nas.export.shipping import open_exported
from nas.network.tflite_file import operators
from nas.training.data import load_dataset
from nas.training.session import Trained

NETWORKS = {
    "relu6": small(
        [
            stage
            for kind in ("inverted_residual", "bottleneck", "depthwise_separable", "conv", "separable", "shuffle")
            for stage in KINDS[kind]
        ],
        input={"resolution": 96},
        activation="relu6",
    ),
    "hard_swish": small(
        [stage for kind in ("separable", "shuffle", "fire") for stage in KINDS[kind]],
        input={"resolution": 48},
        activation="hard_swish",
        stem={"channels": 8, "kernel": 5, "pool": "max"},
        head={"channels": 24, "classifier": "conv"},
    ),
    "same_upper": nas.Architecture.from_dict(
        {
            **nas.load("efficientnet-lite0").to_dict(),
            "width": 0.25,
            "input": {"channels": 3, "resolution": 32},
        }
    ),
}
"""Every block kind but conditional convolutions; each conversion takes seconds."""


def skip_without_extra() -> None:
    for module in ("litert_torch", "ai_edge_quantizer", "ai_edge_litert", "tflite_micro"):
        pytest.importorskip(module)


@pytest.fixture(scope="module")
def runtime():
    """LiteRT's own interpreter."""
    skip_without_extra()
    return pytest.importorskip("ai_edge_litert.interpreter").Interpreter


@pytest.fixture(scope="module")
def schema():
    return pytest.importorskip("ai_edge_litert.schema_py_generated")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return train_tiny(tmp_path_factory.mktemp("trained") / "tiny")


@pytest.fixture(scope="module")
def quantised(trained) -> Exported:
    skip_without_extra()
    return export(trained.checkpoint, form="litert", int8=True)


@pytest.fixture(scope="module")
def firmware(trained) -> Exported:
    skip_without_extra()
    return export(trained.checkpoint, form="tflite-micro")


def run(interpreter, images: np.ndarray) -> np.ndarray:
    """Outputs of a model for images (N, R, R, C), one after another."""
    interpreter.allocate_tensors()
    outputs = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return np.concatenate(outputs)


def pixels_of_digits() -> tuple[np.ndarray, np.ndarray]:
    """The test images as a camera gives them, uint8 (N, 8, 8, 1), and their labels."""
    test = load_dataset("digits").test
    return test.images.permute(0, 2, 3, 1).numpy(), test.labels.numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_tflite_gives_the_networks_logits(name, runtime, tmp_path):
    architecture = NETWORKS[name]
    network, card = lived_in(architecture), card_of(architecture)
    shipped = to_litert(card, network.state_dict(), tmp_path / "a.tflite")
    images = torch.rand(3, *card.shape)
    expected = expected_logits(network, card, images)
    assert expected.abs().max() > 0.1
    logits = run(runtime(str(tmp_path / "a.tflite")), images.permute(0, 2, 3, 1).contiguous().numpy())
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)
    assert shipped.difference < 1e-4
    if name == "same_upper":  # which is the runtime's own: no node of its own
        assert "PAD" not in operators((tmp_path / "a.tflite").read_bytes())
    assert shipped.size == (tmp_path / "a.tflite").stat().st_size
    model, read = open_exported(tmp_path / "a.tflite")
    assert (read.architecture.id, read.classes, read.mean) == (architecture.id, card.classes, card.mean)
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
    assert b"nas/" not in (tmp_path / "a.tflite").read_bytes()  # no lines of Python
    # Every operator runs in int8 too, padded maxima of negative values among them, and none is left in float.
    many = (torch.rand(16, *card.shape) * 255).to(torch.uint8)
    int8 = Session(litert_int8_bytes((tmp_path / "a.tflite").read_bytes(), torch.cat([many, (images * 255).byte()])))
    assert (int8(images) - expected).abs().max() < 0.1 * expected.abs().max()
    kinds = {details["dtype"] for details in int8.interpreter.get_tensor_details()}
    assert kinds <= {np.int8, np.int32}


def test_a_layer_that_is_always_0_keeps_no_network_from_running(runtime):
    """Such as an SE layer whose ReLU lets nothing through: a scale of nearly 0, which XNNPACK refuses."""
    del runtime
    architecture = small([{"block": "inverted_residual", "channels": 12, "expansion": 2, "se_ratio": 0.25}])
    network, card = lived_in(architecture), card_of(architecture)
    for name, bias in network.named_parameters():
        if name.endswith("fc1.bias"):
            nn.init.constant_(bias, -100.0)
    images = (torch.rand(16, *card.shape) * 255).to(torch.uint8)
    expected = expected_logits(network, card, images / 255)
    logits = Session(litert_int8_bytes(litert_bytes(card, network.state_dict()), images))(images / 255)
    assert (logits - expected).abs().max() < 0.1 * expected.abs().max()


def test_int8_is_smaller_and_about_as_accurate(quantised, runtime, trained):
    before, after = quantised.accuracies
    small_one = quantised.quantised
    assert small_one.path.name == "tiny-int8.tflite"
    assert small_one.size == small_one.path.stat().st_size < quantised.model.size == small_one.size_before
    assert before.validation == pytest.approx(trained.validation_accuracy, abs=1e-6)
    assert quantised.agreement > 0.96
    # By LiteRT alone, as on a device: the pixel with its highest bit flipped.
    pixels, labels = pixels_of_digits()
    outputs = run(runtime(str(small_one.path)), (pixels ^ 0x80).view(np.int8))
    assert outputs.dtype == np.int8
    assert (outputs.argmax(1) == labels).mean() == pytest.approx(after.test, abs=1e-6)
    assert after.test > trained.test_accuracy - 0.03
    assert nas.evaluate(small_one.path)["test_accuracy"] == after.test


def test_weights_lie_in_the_tables_and_aligned(quantised, schema):
    """TensorFlow Lite Micro reads no weights that lie behind the tables, and kernels read them by words."""
    content = quantised.quantised.path.read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    buffers = [model.Buffers(number) for number in range(model.BuffersLength())]
    kept = [buffer.DataAsNumpy() for buffer in buffers if buffer.DataLength()]
    starts = [values.ctypes.data - np.frombuffer(content, np.uint8).ctypes.data for values in kept]
    assert len(kept) > 20
    assert all(start % 16 == 0 for start in starts)
    assert not any(buffer.Offset() or buffer.Size() for buffer in buffers)
    graph = model.Subgraphs(0)
    assert {graph.Tensors(number).Name() for number in range(graph.TensorsLength())} == {b"images", b"logits", None}


def test_predict_reads_tflite(quantised, trained, tmp_path):
    image = load_dataset("digits").test.images[0, 0]
    Image.fromarray(image.numpy()).save(tmp_path / "digit.png")
    files = (trained.checkpoint, quantised.model.files[0], quantised.quantised.path)
    of_torch, fp32, int8 = (predict(file, [tmp_path / "digit.png"])[0].guesses[0] for file in files)
    assert of_torch.label == fp32.label == int8.label
    assert fp32.probability == pytest.approx(of_torch.probability, abs=1e-4)


def test_microcontroller_runs_the_array(firmware, quantised):
    micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    files = {file.name: file for file in firmware.model.files}
    assert list(files) == ["tiny.tflite", "model_data.h", "model_data.cc", "README.md"]
    assert firmware.accuracies == quantised.accuracies
    numbers = re.findall(r"0x([0-9a-f]{2})", files["model_data.cc"].read_text())
    array = bytes.fromhex("".join(numbers))
    assert f"g_model_data_size = {len(array)};" in files["model_data.cc"].read_text()
    assert b"architecture" in files["tiny.tflite"].read_bytes()
    assert b"architecture" not in array
    readme = files["README.md"].read_text()
    arena = int(re.search(r"Arena: ([\d,]+) bytes", readme)[1].replace(",", ""))
    interpreter = micro.Interpreter.from_bytes(array, arena_size=arena)
    pixels, labels = pixels_of_digits()
    hits = 0
    for image, label in zip((pixels ^ 0x80).view(np.int8), labels, strict=True):
        interpreter.set_input(image[None], 0)
        interpreter.invoke()
        hits += interpreter.get_output(0).argmax() == label
    assert hits / len(labels) == pytest.approx(firmware.accuracies[1].test, abs=0.01)  # other kernels round otherwise
    with pytest.raises(RuntimeError):
        micro.Interpreter.from_bytes(array, arena_size=arena // 2)
    details = interpreter.get_input_details(0)["quantization_parameters"]
    assert f"Scale {details['scales'][0]:.10g}, zero point {details['zero_points'][0]}" in readme
    assert "resolver.AddDepthwiseConv2D();" in readme
    assert "resolver.AddFullyConnected();" in readme


def test_files_of_others_are_refused(quantised, tmp_path):
    micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    foreign = Path(micro.__file__).with_name("sine_float.tflite").read_bytes()
    ours = quantised.model.files[0].read_bytes()
    contents = {
        "not exported by nas": foreign,
        "not a .tflite": b"hello",
        "damaged": ours[: len(ours) // 2],
        "no such file": None,
    }
    for message, content in contents.items():
        path = tmp_path / f"{message}.tflite"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            nas.evaluate(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_conditional_convolutions_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_torch", None)  # it is not asked for
    architecture = small(KINDS["conditional"])
    with pytest.raises(UserError, match=r"small: conditional convolutions .* do not run in LiteRT"):
        to_litert(card_of(architecture), {}, tmp_path / "a.tflite")
    assert not list(tmp_path.iterdir())


def test_a_layer_that_the_quantiser_cannot_take_is_refused_in_one_line(runtime):
    del runtime
    architecture = small([{"block": "conv", "channels": 1024, "stride": 4, "repeats": 2}], stem={"channels": 4})
    network, card = lived_in(architecture), card_of(architecture)
    with pytest.raises(ExportError, match=r"cannot quantise this model: a layer has 37\.7 MB of weights") as caught:
        litert_int8_bytes(litert_bytes(card, network.state_dict()), torch.zeros(1, *card.shape, dtype=torch.uint8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["litert", "tflite-micro"])
def test_a_missing_extra_is_named(form, trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(UserError, match=r"needs litert_torch, which is not installed: pip install 'nas\[litert\]'"):
        export(trained.checkpoint, form=form, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_search_for_a_microcontroller_is_judged_and_measured_by_what_ships(tmp_path, caplog):
    skip_without_extra()
    caplog.set_level(logging.INFO)
    stage = {"block": "inverted_residual", "channels": {"choice": [8, 16]}, "experts": {"choice": [1, 4]}}
    space = {"name": "tiny", "input": {"channels": 1, "resolution": 8}, "stem": {"channels": 8}, "stages": [stage]}
    given = {"target": "tflite-micro", "limits": ("flash<=30kB", "memory<=64kB"), "published": "none"}
    run = nas.search(nas.Space(space), dataset="digits", trials=1, epochs=2, out=tmp_path / "run", **given)
    assert "the space loses them (stages[0].experts)" in caplog.text
    assert [objective.name for objective in run.objectives] == ["accuracy", "size", "memory"]
    (record,) = run.front_records
    shipped = export(run.checkpoint(record), target="tflite-micro", out=tmp_path / "board")
    assert [record.accuracy, record.confirmed["test_accuracy"]] == pytest.approx(
        [shipped.accuracies[1].validation, shipped.accuracies[1].test], abs=1e-6
    )
    assert record.fp32_accuracy == pytest.approx(shipped.accuracies[0].validation, abs=1e-6)
    readme = (tmp_path / "board" / "README.md").read_text()
    flash, arena = (
        int(re.search(rf"{name}: ([\d,]+) bytes", readme)[1].replace(",", "")) for name in ("Flash", "Arena")
    )
    assert record.measured == {"size": flash, "memory": arena}
    beside = run.path / "checkpoints" / f"{record.number}-int8.tflite"
    assert beside.read_bytes() == (tmp_path / "board" / f"{record.architecture.name}.tflite").read_bytes()
    assert record.costs["size"] == pytest.approx(flash, rel=0.02) and flash <= 30_000
    assert record.costs["memory"] == pytest.approx(arena, rel=0.05) and arena <= 64_000
