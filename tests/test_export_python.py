"""The exported Python file against the network that it was made from: readable, alone, and the same function."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checks import EVERYTHING
from documents import architectures
from hypothesis import HealthCheck, given, settings
from shipping import KINDS, card_of, expected_logits, imported, lived_in, small

import nas
from nas.errors import UserError
from nas.export import Card, to_python
from nas.export.check import Normalised


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


PYTHON = {
    **{kind: small(stages) for kind, stages in KINDS.items()},
    "everything": nas.Architecture.from_dict(EVERYTHING),
    "every kind without norm": nas.Architecture.from_dict({**EVERYTHING, "norm": "none", "activation": "relu6"}),
    "unpadded stem": small(KINDS["fire"], stem={"channels": 8, "kernel": 5, "padding": "valid", "pool": "max"}),
    "shortcuts of all rules": small(
        [
            {"block": "inverted_residual", "channels": 12, "repeats": 2, "shortcut": rule}
            for rule in ("none", "conv", "identity", "conv_strided")
        ],
        activation="silu",
        head={"channels": 24, "dropout": 0.2},
    ),
    "flagged shortcuts": small(
        [
            {"block": "depthwise_separable", "channels": 8, "shortcut": "none"},
            {"block": "depthwise_separable", "channels": 8, "shortcut": "identity"},
        ]
    ),
}


@pytest.mark.parametrize("name", PYTHON)
def test_python_file_gives_the_networks_logits(name, tmp_path):
    architecture = PYTHON[name]
    network, card = lived_in(architecture), card_of(architecture)
    shipped = to_python(card, network.state_dict(), tmp_path / "shipped.py")
    assert shipped.difference < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shipped.pt", "shipped.py"]
    module = imported(tmp_path / "shipped.py")
    assert card.classes == module.CLASSES
    plain = module.load()
    images = torch.rand(3, *card.shape)
    with torch.inference_mode():
        expected = expected_logits(network, card, images)
        torch.testing.assert_close(plain(images), expected, rtol=1e-5, atol=1e-5)
    # It goes on training as ours does: batch statistics, and a gradient for every weight.
    if not architecture.head.dropout:
        normalised = Normalised(network, card).train()
        network.requires_grad_(True)
        torch.testing.assert_close(plain.train()(images), normalised(images), rtol=1e-3, atol=1e-4)
    plain.train()(images).square().sum().backward()
    assert all(parameter.grad is not None for parameter in plain.parameters())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(document=architectures(max_stages=3))
def test_python_file_of_any_network(document, tmp_path_factory):
    architecture = nas.Architecture.from_dict(document)
    architecture = architecture.with_input(resolution=max(8, architecture.least_resolution))
    path = tmp_path_factory.mktemp("any") / "any.py"
    weights = lived_in(architecture).state_dict()
    assert to_python(card_of(architecture), weights, path).difference < 1e-5  # what export itself measured


def test_python_files_are_laid_out_as_ruff_does(tmp_path):
    for index, architecture in enumerate(PYTHON.values()):
        to_python(card_of(architecture), lived_in(architecture).state_dict(), tmp_path / f"net{index}.py")
    config = Path(nas.__file__).parents[1] / "pyproject.toml"
    for command in (["format", "--check", "--diff"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", config, tmp_path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_python_file_needs_torch_alone(tmp_path):
    architecture = PYTHON["everything"]
    to_python(card_of(architecture), lived_in(architecture).state_dict(), tmp_path / "alone.py")
    tree = ast.parse((tmp_path / "alone.py").read_text())
    roots = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert roots == {"torch", "pathlib"}
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['nas', 'torchvision', 'safetensors', 'onnx']))\n"
        "import torch, alone\n"
        "print(tuple(alone.load()(torch.rand(2, 3, 64, 64)).shape))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "(2, 10)\n", done.stderr


def test_python_file_says_nothing_that_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attack = '"""\nopen("hacked", "w")\n"""\\'
    # A source of several lines is refused by the document itself; class names are not.
    architecture = small(KINDS["fire"], source=attack.replace("\n", " "))
    classes = (attack, "'\"", "ö 🦊", "\udcff", "\x00", "{}", "a\\nb", *(f"class {index}" for index in range(3)))
    card = Card(architecture, classes, (0.1, 0.2, 0.3), (0.1, 0.2, 0.3))
    to_python(card, lived_in(architecture).state_dict(), Path("safe.py"))
    assert classes == imported(Path("safe.py")).CLASSES
    assert not Path("hacked").exists()


def test_many_classes_stand_at_the_end(tmp_path):
    architecture = small(KINDS["fire"])
    weights = lived_in(architecture, 300).state_dict()
    to_python(card_of(architecture, 300), weights, tmp_path / "many.py")
    text = (tmp_path / "many.py").read_text()
    assert text.index("CLASSES = (") > text.index("class Network")
    assert len(imported(tmp_path / "many.py").CLASSES) == 300


@pytest.mark.parametrize("name", ["han-e.py", "2x.py", "class.py", "a.txt"])
def test_a_name_that_python_cannot_import_is_refused(name, tmp_path):
    architecture = small(KINDS["fire"])
    with pytest.raises(UserError, match=r"name it \w+\.py"):
        to_python(card_of(architecture), lived_in(architecture).state_dict(), tmp_path / name)
    assert not list(tmp_path.iterdir())
