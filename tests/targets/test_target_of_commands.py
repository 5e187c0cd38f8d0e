"""`--target` of the commands beside a search: what is refused before anything is read or written."""

import sys

import pytest
from shipping import train_tiny
from typer.testing import CliRunner

import nas
from nas.cli import app
from nas.errors import UserError
from nas.export.command import export
from nas.training.session import Trained

EXPERTS = "conditional convolutions .* do not run on litert"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return train_tiny(tmp_path_factory.mktemp("trained") / "tiny", epochs=1)


def refusal(*arguments: str) -> str:
    """The line in which a command refuses what it was given."""
    error = CliRunner().invoke(app, list(arguments)).exception
    assert isinstance(error, UserError)
    return str(error)


def test_a_format_that_does_not_ship_there_is_refused(trained, tmp_path):
    with pytest.raises(UserError, match="--format onnx ships there; leave --format litert out"):
        export(trained.model, target="onnxruntime-int8", form="litert", out=tmp_path / "out")
    with pytest.raises(UserError, match="--target torch: the training's own file ships there"):
        export(trained.model, target="torch", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_ship_is_refused_at_once(tmp_path):
    with pytest.raises(UserError, match=rf"^kuo-se-condconv: {EXPERTS}"):
        nas.train("kuo-se-condconv", target="litert-int8", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())
    stage = {"block": "inverted_residual", "channels": 8, "experts": 2}
    network = nas.Architecture.from_dict(
        {"name": "mixed", "input": {"channels": 1, "resolution": 8}, "stem": {"channels": 8}, "stages": [stage]}
    )
    model = nas.train(network, epochs=1, train_size=200, out=tmp_path / "mixed").model
    for command in (nas.evaluate, export):
        with pytest.raises(UserError, match=rf"^mixed: {EXPERTS}"):
            command(model, target="litert-int8", dataset="stl10", data_dir=tmp_path / "none")  # not even looked for


def test_a_missing_extra_is_named_before_anything_begins(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    given = {"target": "tflite-micro", "out": tmp_path / "out"}
    for command in (
        lambda: nas.search("micro", **given),
        lambda: nas.train("han-e", **given),
        lambda: nas.evaluate(trained.model, **given),
        lambda: export(trained.model, **given),
    ):
        with pytest.raises(UserError, match=r"--target tflite-micro needs .*: pip install 'nas\[litert\]'"):
            command()
    assert not list(tmp_path.iterdir())


def test_what_ships_already_has_no_other_target(tmp_path):
    with pytest.raises(UserError, match=r"is what ships already; leave --target litert out"):
        nas.evaluate(tmp_path / "net.onnx", target="litert")


def test_a_target_gives_the_latency_engine():
    assert "its latency cannot be measured here" in refusal("latency", "measure", "han-e", "--target", "tflite-micro")
    both = ("--target", "litert", "--engine", "eager")
    assert "is timed by --engine litert; leave one of the two out" in refusal("latency", "measure", "han-e", *both)
    refused = refusal("latency", "measure", "kuo-se-condconv", "--target", "litert")
    assert refused.startswith("kuo-se-condconv: conditional convolutions")


def test_the_models_own_file_ships_on_torch(trained):
    judged = nas.evaluate(trained.model, target="torch")
    network = nas.load(trained.model.parent / "architecture.yaml")
    assert judged["target"]["file_bytes"] == nas.cost(network, 10).size_bytes
    assert judged["fp32"]["test_accuracy"] == judged["test_accuracy"]
