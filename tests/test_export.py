"""Exported forms against the network that they were made from, by other runtimes than nas."""

import io
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checks import EVERYTHING
from PIL import Image
from shipping import KINDS, TINY, card_of, expected_logits, imported, lived_in, small, train_tiny

import nas
from nas.console import print_exported
from nas.errors import UserError
from nas.export import Card, ExportError, to_onnx, to_program
from nas.export.check import Normalised, compare
from nas.export.command import export
from nas.terminal import Terminal
from nas.training.data import load_dataset
from nas.training.recipe import load_recipe
from nas.training.session import Trained

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return train_tiny(tmp_path_factory.mktemp("trained") / "tiny")


def run_onnx(path: Path, images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_gives_the_networks_logits(kind, tmp_path):
    architecture = small(KINDS[kind])
    network, card = lived_in(architecture), card_of(architecture)
    shipped = to_onnx(card, network.state_dict(), tmp_path / "a.onnx")
    for batch in (1, 7):
        images = torch.rand(batch, 3, 16, 16)
        expected = expected_logits(network, card, images)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(run_onnx(tmp_path / "a.onnx", images), expected, rtol=1e-4, atol=1e-4)
    assert shipped.difference < 1e-4
    assert shipped.size == (tmp_path / "a.onnx").stat().st_size

    model = onnx.load(tmp_path / "a.onnx")
    operations = [node.op_type for node in model.graph.node]
    # What has no exact fold: a norm before a padded or a conditional convolution, or after a concatenation.
    assert operations.count("BatchNormalization") <= (1 if kind == "bottleneck" else 0)
    assert [value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input] == ["batch"]
    assert str(Path(nas.__file__).parent).encode() not in (tmp_path / "a.onnx").read_bytes()
    assert len(Card.from_metadata({item.key: item.value for item in model.metadata_props}, "a").classes) == 10


def test_onnx_has_a_pyramid_as_one_convolution(tmp_path):
    stage = {"block": "inverted_residual", "channels": 8, "kernels": [3, 5, 7]}
    architecture = small([stage])
    to_onnx(card_of(architecture), lived_in(architecture).state_dict(), tmp_path / "a.onnx")
    convolutions = [node for node in onnx.load(tmp_path / "a.onnx").graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 4  # stem, expansion, depthwise, projection


def test_a_card_survives_metadata():
    architecture = small(KINDS["fire"], source='größe "quoted"')
    card = Card(architecture, ("a", "ö\n'\""), (0.1, 0.2, 0.3), (1.0, 0.25, 1 / 3), decoded_at=64)
    read = Card.from_metadata(card.to_metadata(), "a.onnx")
    assert read == card
    assert read.architecture.id == architecture.id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nas.version": None}, "a.onnx: not exported by nas"),
        ({"nas.version": "9"}, "a.onnx: version 9, this nas reads version 1"),
        ({"mean": "[1"}, "a.onnx: mean: not JSON"),
        ({"mean": "[1, 2]"}, "mean and std need 3 values"),
        ({"std": "[0, 1, 1]"}, "std above 0"),
        ({"classes": None}, "a.onnx: its metadata are damaged"),
        ({"classes": "[]"}, "no class names"),
        ({"architecture": '{"name": "x"}'}, "a.onnx: stem: this field is missing"),
        ({"decoded_at": "x"}, "a.onnx: its metadata are damaged"),
    ],
)
def test_damaged_metadata_are_told(change, message):
    metadata = {**card_of(small(KINDS["fire"])).to_metadata(), **change}
    with pytest.raises(UserError, match=message.replace("[", r"\[")) as caught:
        Card.from_metadata({key: value for key, value in metadata.items() if value is not None}, "a.onnx")
    assert "\n" not in str(caught.value)


def test_program_runs_any_batch(tmp_path):
    architecture = nas.Architecture.from_dict(EVERYTHING).with_input(resolution=32)
    network, card = lived_in(architecture), card_of(architecture)
    to_program(card, network.state_dict(), tmp_path / "a.pt2")
    files = {"card.json": ""}
    program = torch.export.load(tmp_path / "a.pt2", extra_files=files).module()
    for batch in (1, 2, 7):
        images = torch.rand(batch, 3, 32, 32)
        torch.testing.assert_close(program(images), expected_logits(network, card, images), rtol=1e-4, atol=1e-5)
    assert '"classes"' in files["card.json"]
    assert b"layers.py" not in (tmp_path / "a.pt2").read_bytes()  # no traces of this machine's files


def test_a_wrong_result_is_found():
    card = card_of(small(KINDS["fire"]))
    network = Normalised(lived_in(card.architecture), card)
    form = {"tolerance": 1e-4, "form": "it"}
    assert compare(network, network, card, **form) == 0
    with pytest.raises(ExportError, match=r"it: differs from torch by 0\.0\d+"):
        compare(network, lambda images: network(images) * 1.01, card, **form)
    with pytest.raises(ExportError, match="differs from torch by nan"):
        compare(network, lambda images: network(images) * torch.nan, card, **form)
    with pytest.raises(ExportError, match="where torch gives"):
        compare(network, lambda images: network(images)[:, :1], card, **form)
    with pytest.raises(ExportError, match="differs"):  # right for one image only
        compare(network, lambda images: network(images[:1]).expand(len(images), -1), card, **form)


@pytest.mark.parametrize("module", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_is_named(module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    architecture = small(KINDS["fire"])
    with pytest.raises(UserError, match=rf"needs {module}, which is not installed: pip install 'nas\[export\]'"):
        to_onnx(card_of(architecture), {}, tmp_path / "a.onnx")


def test_weights_of_another_network_are_refused(tmp_path):
    architecture = small(KINDS["fire"])
    weights = lived_in(small(KINDS["conv"])).state_dict()
    with pytest.raises(UserError, match="the weights do not fit small"):
        to_program(card_of(architecture), weights, tmp_path / "a.pt2")


def test_int8_is_smaller_and_about_as_accurate(trained, tmp_path):
    done = export(trained.checkpoint, out=tmp_path / "tiny.onnx", int8=True)
    figures = done.quantised
    assert figures.path == tmp_path / "tiny-int8.onnx"
    assert figures.size == figures.path.stat().st_size < figures.size_before == done.model.size
    before, after = done.accuracies
    assert before.validation == pytest.approx(trained.validation_accuracy, abs=0.01)
    assert after.validation > before.validation - 0.02
    assert figures.calibration_images == 512
    said = io.StringIO()
    print_exported(Terminal(file=said, width=200), done)
    assert f"test accuracy {100 * before.test:.0f} % -> {100 * after.test:.0f} %," in said.getvalue()  # few images

    # By ONNX Runtime alone, on images that took no part.
    test = load_dataset("digits").test
    images = (test.images / 255).float()
    logits = [run_onnx(path, images) for path in (tmp_path / "tiny.onnx", figures.path)]
    hits = [(each.argmax(1) == test.labels).float().mean().item() for each in logits]
    assert hits[0] == pytest.approx(trained.test_accuracy, abs=1e-6)  # a mean in float32
    assert hits[1] > hits[0] - 0.03
    assert [before.test, after.test] == pytest.approx(hits, abs=1e-6)
    for path, expected in ((tmp_path / "tiny.onnx", before), (figures.path, after)):
        judged = nas.evaluate(path)
        assert (judged["name"], judged["dataset"]) == ("tiny", "digits")
        assert [judged["validation_accuracy"], judged["test_accuracy"]] == [expected.validation, expected.test]
    assert not torch.allclose(*logits, atol=1e-4)

    model = onnx.load(figures.path)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weights = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in kinds]
    assert sum(kinds[node.input[0]] == onnx.TensorProto.INT8 for node in weights) >= 12
    metadata = {item.key: item.value for item in model.metadata_props}
    assert Card.from_metadata(metadata, "int8").classes == tuple("0123456789")
    assert metadata["quantisation"].startswith("int8, static, per channel")


def test_a_target_per_tensor_has_one_scale_for_all_weights_of_a_layer(trained, tmp_path):
    found = {}
    for target in ("onnxruntime-int8", "onnxruntime-int8:per-tensor"):
        done = export(trained.checkpoint, target=target, out=tmp_path / "net.onnx")
        graph = onnx.load(done.quantised.path).graph
        dims = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        scales = {node.output[0]: dims[node.input[1]] for node in graph.node if node.op_type == "DequantizeLinear"}
        weights = [scales[node.input[1]] for node in graph.node if node.op_type in ("Conv", "Gemm")]
        found[target] = (weights, done.quantised.size, done.accuracies[1].test)
    (channels, larger, accuracy), (tensors, smaller, other_accuracy) = found.values()
    assert len(tensors) == len(channels) and all(map(len, channels)) and not any(map(len, tensors))
    assert smaller < larger
    assert accuracy > other_accuracy - 0.02 and other_accuracy > 0.8


def test_int8_of_own_images_is_calibrated_on_all_classes(tmp_path, caplog):
    """A folder's own validation images may hold one class alone, or lie in the order of the classes."""
    for name, level in {
        "train/dark": 20,
        "train/bright": 250,
        "val/dark": 20,
        "test/dark": 20,
        "test/bright": 250,
    }.items():
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(6):
            size = (12 + index, 12 + len(name) - len("test/dark"))  # no two are copies
            Image.new("RGB", size, (level + index % 5,) * 3).save(tmp_path / "images" / name / f"{index}.png")
    dataset = f"imagefolder:{tmp_path / 'images'}"
    architecture = nas.Architecture.from_dict({**TINY, "input": {"channels": 3, "resolution": 8}})
    recipe = load_recipe("search").with_epochs(1)
    done = nas.train(architecture, dataset=dataset, recipe=recipe, device="cpu", out=tmp_path / "out")
    shipped = export(done.checkpoint, int8=True)
    model = onnx.load(shipped.quantised.path)
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")  # of the normalised images
    scale, zero = (values[name].astype(float) for name in node.input[1:])
    brightest = (254 / 255 - shipped.card.mean[0]) / shipped.card.std[0]
    assert scale * (127 - zero) == pytest.approx(brightest, rel=0.02)

    for path in (shipped.model.files[0], shipped.quantised.path):
        with pytest.raises(UserError, match="give --dataset imagefolder:PATH"):
            nas.evaluate(path)
        assert str(tmp_path).encode() not in path.read_bytes()
        caplog.clear()
        with caplog.at_level(logging.INFO, "nas"):
            judged = nas.evaluate(path, dataset=dataset)
        assert caplog.messages == ["30 images read (30 .png)", "no validation image of bright"]
        images = load_dataset(dataset, resolution=8)
        logits = run_onnx(path, images.test.images / 255)
        assert judged["test_accuracy"] == pytest.approx((logits.argmax(1) == images.test.labels).float().mean().item())
    (tmp_path / "images/train/bright").rename(tmp_path / "images/train/Bright")
    (tmp_path / "images/test/bright").rename(tmp_path / "images/test/Bright")
    for path in (shipped.model.files[0], done.checkpoint):
        with pytest.raises(UserError, match=r"trained on class 'bright' where .* has 'Bright'"):
            nas.evaluate(path, dataset=dataset)


def test_a_model_that_is_none_of_ours_is_not_evaluated(trained, tmp_path):
    path = export(trained.checkpoint, out=tmp_path / "tiny.onnx").model.files[0]
    foreign = onnx.load(path)
    metadata = {item.key: item.value for item in foreign.metadata_props}
    changes = {
        "not exported by nas": {},
        "export it again": {**metadata, "split": "null"},
        "split: seed": {**metadata, "split": '{"seed": -1}'},
    }
    for message, kept in changes.items():
        onnx.helper.set_model_props(foreign, kept)
        onnx.save(foreign, tmp_path / "foreign.onnx")
        with pytest.raises(UserError, match=message) as caught:
            nas.evaluate(tmp_path / "foreign.onnx")
        assert str(caught.value).startswith(str(tmp_path / "foreign.onnx"))
    with pytest.raises(UserError, match="leave --device cuda out"):
        nas.evaluate(path, device="cuda")


@pytest.mark.parametrize("source", ["checkpoint.pt", "model.safetensors"])
def test_export_from_each_file_of_a_training(trained, source, tmp_path):
    path = trained.checkpoint.with_name(source)
    shipped = export(path, form="python", out=tmp_path / "tiny.py").model
    assert [file.name for file in shipped.files] == ["tiny.py", "tiny.pt"]
    validation = load_dataset("digits").validation
    with torch.inference_mode():
        guesses = imported(tmp_path / "tiny.py").load()(validation.images / 255).argmax(1)
    accuracy = (guesses == validation.labels).float().mean().item()
    assert accuracy == pytest.approx(trained.validation_accuracy, abs=1e-6)  # a mean in float32


def test_export_goes_beside_its_source(trained):
    folder = trained.checkpoint.parent
    assert export(trained.checkpoint, form="torch-export").model.files == (folder / "tiny.pt2",)
    assert export(trained.checkpoint, form="python").model.files == (folder / "tiny.py", folder / "tiny.pt")


def test_export_refuses_what_makes_no_sense(trained, tmp_path):
    source = trained.checkpoint
    before = source.read_bytes()
    with pytest.raises(UserError, match="unknown format 'tflite'; allowed: onnx, torch-export, python"):
        export(source, form="tflite")
    with pytest.raises(UserError, match="--int8 quantises ONNX and LiteRT models"):
        export(source, form="python", int8=True)
    with pytest.raises(UserError, match="would be overwritten"):
        export(source, form="python", out=source.with_suffix(".py"))
    with pytest.raises(UserError, match="cannot be read"):
        export(tmp_path / "nowhere.pt")
    with pytest.raises(UserError, match="cannot be written"):
        export(source, form="torch-export", out=Path("/proc/nowhere/a.pt2"))
    assert source.read_bytes() == before


def test_normalisation_is_inside(trained, tmp_path):
    """A stranger's use: pixels divided by 255, nothing else known."""
    export(trained.checkpoint, out=tmp_path / "tiny.onnx")
    test = load_dataset("digits").test
    session = onnxruntime.InferenceSession(tmp_path / "tiny.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(None, {"images": test.images.numpy().astype(np.float32) / 255})[0]
    assert (logits.argmax(1) == test.labels.numpy()).mean() == trained.test_accuracy
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["input"] == "float32 (batch, 1, 8, 8), gray in [0, 1], neither mean nor std applied"
    assert metadata["normalisation"].startswith("inside")
