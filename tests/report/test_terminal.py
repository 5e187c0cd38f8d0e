"""A user's names stand on the screen as they are: `:b:` is no emoji, `[red]` no markup, ESC no command."""

import io
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from shipping import TINY
from studies import invented_run
from typer.testing import CliRunner

from nas.cli import app
from nas.console import print_run
from nas.driver.display import shown
from nas.driver.trial_scheduler import Progress
from nas.exit import run_command
from nas.terminal import Terminal

NAME = "a:b:[red]c"
"""Rich makes three characters of it where it may."""

PHOTO = f"{{}}/images/{NAME}0/{NAME}3.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Images of two classes and a network's YAML in a folder of that name, and a training of theirs."""
    folder = tmp_path_factory.mktemp("user") / NAME
    for label in (f"{NAME}0", f"{NAME}1"):
        (folder / "images" / label).mkdir(parents=True)
        for index in range(12):
            Image.new("L", (8, 8), (index * 20,)).save(folder / "images" / label / f"{NAME}{index}.png")
    (folder / "net.yaml").write_text(yaml.safe_dump({**TINY, "source": NAME}))
    stages = [{"block": "conv", "channels": 4, "kernel": {"choice": [1, 3]}}]
    (folder / "space.yaml").write_text(
        yaml.safe_dump({"name": "two", "input": TINY["input"], "stem": TINY["stem"], "stages": stages})
    )
    return folder


@pytest.fixture(scope="module")
def training(folder: Path) -> str:
    torch.set_num_threads(1)
    dataset = f"imagefolder:{folder / 'images'}"
    options = ["--epochs", "1", "--recipe", "search", "--no-compile", "--threads", "1", "--out", f"{folder}/out"]
    return output("train", str(folder / "net.yaml"), "--dataset", dataset, *options)


def output(*words: str) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.output.replace("\n", "")


def test_train_says_where_the_weights_are(training: str, folder: Path) -> None:
    assert f"nas evaluate {folder}/out/model.safetensors" in training


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["evaluate", "{}/out/model.safetensors"], "tiny on imagefolder:{}/images: validation"),
        (["export", "{}/out/model.safetensors", "--format", "python"], "{}/out/tiny.py  "),
        (["predict", "{}/out/model.safetensors", PHOTO], f"{PHOTO}  "),
        (["predict", "{}/out/model.safetensors", PHOTO], f"%  {NAME}1"),
        (["compare", "{}/net.yaml", "{}/out"], f"tiny: {NAME}"),
        (["profile", "{}/net.yaml"], "tiny"),
        (["latency", "export-blocks", "{}/blocks", "--space", "{}/space.yaml"], "files in {}/blocks; fill in"),
    ],
    ids=lambda words: " ".join(words[:2]) if isinstance(words, list) else "",
)
@pytest.mark.usefixtures("training")
def test_commands_print_names_as_they_are(folder: Path, words: list[str], shown: str) -> None:
    for module in ("onnx", "onnxscript") if words[0] == "latency" else ():
        pytest.importorskip(module)
    assert shown.format(folder) in output(*(word.format(folder) for word in words))


def test_a_search_s_screen_and_an_error_print_names_as_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = invented_run(folder / "run", trials=10, epochs=1, dataset=f"imagefolder:{NAME}")
    screen = io.StringIO()
    terminal = Terminal(file=screen, width=400)
    with shown(terminal) as display:
        logging.getLogger("nas.somewhere").info("reading %s", NAME)
        display(progress_with(NAME))
    print_run(terminal, run, run.path / "report.html")
    text = screen.getvalue()
    assert f"reading {NAME}\n" in text
    assert f" · {NAME}\n" in text
    assert f"Report:  {run.path}/report.html" in text
    assert f"nas train '{run.path}/front/01-" in text
    monkeypatch.setattr("sys.argv", ["nas", "profile", f"{NAME}.yaml"])
    with pytest.raises(SystemExit):
        run_command(app)
    assert f"{NAME}.yaml" in capsys.readouterr().err.replace("\n", "")


def progress_with(note: str) -> Progress:
    known: dict[str, Any] = dict.fromkeys(Progress.__dataclass_fields__, 0)
    return Progress(**known | {"note": note, "best_accuracy": None, "images": None})


def test_control_characters_are_shown() -> None:
    screen = io.StringIO()
    Terminal(file=screen).print("one\ntwo \x1b[31m \a")
    assert screen.getvalue() == "one\ntwo \\x1b[31m \\x07\n"
