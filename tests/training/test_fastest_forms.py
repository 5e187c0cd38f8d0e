"""Which form is chosen, that it is kept, and that training in the chosen forms learns what torch's own does."""

from __future__ import annotations

import copy
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import nas
from nas.blocks.forms import Case, forms_of, usual
from nas.blocks.layers import DepthwiseConv2d
from nas.training import fastest_forms as forms
from nas.training.fastest_forms import FastestForms, fastest, install, pick

CPU = torch.device("cpu")
SMALL = Case("depthwise", "float32", 2, kernel=3)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"plain": 1.0, "split": 0.5}, "split"),
        ({"plain": 1.0, "split": 0.95}, "plain"),  # no more than noise
        ({"plain": 0.5, "split": 1.0}, "plain"),
        ({"split": 1.0, "wide": 0.9}, "wide"),  # the preferred one failed
        ({}, "plain"),
    ],
)
def test_noise_does_not_choose(seconds: dict[str, float], expected: str) -> None:
    assert pick(seconds, "plain") == expected


@pytest.mark.parametrize("case", [SMALL, SMALL._replace(operation="depthwise per image", dtype="bfloat16")])
def test_a_form_of_the_case_is_found(case: Case) -> None:
    before = torch.get_rng_state()
    assert fastest(case, CPU) in forms_of(case)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_form_that_fails_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = forms._example

    def example(case: Case, form: str, device: torch.device) -> Any:
        def fail() -> None:
            raise torch.OutOfMemoryError("no memory")

        return fail if form == usual(case) else real(case, form, device)

    monkeypatch.setattr(forms, "_example", example)
    assert fastest(SMALL, CPU) == "split"


def test_what_was_measured_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FastestForms(CPU, tmp_path)
    form = first(SMALL)
    monkeypatch.setattr(forms, "fastest", lambda case, device: pytest.fail("measured again"))
    assert first(SMALL) == FastestForms(CPU, tmp_path)(SMALL) == form
    assert copy.deepcopy(first) is first


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:20],
        lambda text: "[]",
        lambda text: text.replace('"schema": 1', '"schema": 0'),
        lambda text: text.replace(torch.__version__, "1.0"),
        lambda text: text.replace('"kept"', '"gone"'),
        lambda text: json.dumps({**json.loads(text), "forms": [[["depthwise"], "split", 3]]}),
    ],
)
def test_a_file_that_is_damaged_or_of_something_else_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    names = iter(("kept", "new"))
    monkeypatch.setattr(forms, "fastest", lambda case, device: next(names))
    monkeypatch.setattr(forms, "forms_of", lambda case: ("kept", "new"))
    first = FastestForms(CPU, tmp_path)
    assert first(SMALL) == "kept"
    first.path.write_text(damage(first.path.read_text()))
    assert FastestForms(CPU, tmp_path)(SMALL) == "new"
    assert FastestForms(CPU, tmp_path)(SMALL) == "new"


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert FastestForms(CPU, file / "forms")(SMALL) in forms_of(SMALL)


def _ask(folder: Path, queue: Any) -> None:
    torch.set_num_threads(1)
    asked: list[Case] = []
    real = forms.fastest

    def counted(case: Case, device: torch.device) -> str:
        asked.append(case)
        return real(case, device)

    forms.fastest = counted  # type: ignore[assignment]
    cases = [SMALL._replace(kernel=kernel, stride=stride) for kernel in (3, 5) for stride in (1, 2)]
    named = [FastestForms(CPU, folder)(case) for case in cases]
    queue.put((named, len(asked)))


def test_processes_measure_each_case_once_and_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_ask, args=(tmp_path, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert all(named == answers[0][0] for named, _ in answers)
    assert sum(asked for _, asked in answers) == 4


@pytest.mark.parametrize(
    ("conv", "replaced"),
    [
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), True),
        (nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8, bias=False), True),
        (nn.Conv2d(8, 8, 3, padding=1), False),
        (nn.Conv2d(8, 16, 3, padding=1, groups=8), False),
        (nn.Conv2d(8, 8, 3, padding=1, groups=4), False),
        (nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=8), False),
        (nn.Conv2d(8, 8, 3, padding="same", groups=8), False),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8), False),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8, padding_mode="reflect"), False),
        (nn.Conv2d(8, 8, 1, groups=8), False),
        (nn.Conv2d(1, 1, 3, padding=1), False),
    ],
)
def test_depthwise_convolutions_are_replaced_in_place(conv: nn.Conv2d, replaced: bool) -> None:
    network = nn.Sequential(conv, nn.ReLU())
    parameters = dict(network.named_parameters())
    plain = copy.deepcopy(network)
    install(network, lambda case: "split")
    assert isinstance(network[0], DepthwiseConv2d) is replaced
    assert all(parameter is parameters[name] for name, parameter in network.named_parameters())
    x = torch.randn(3, conv.in_channels, 9, 9)
    torch.testing.assert_close(network(x), plain(x))
    torch.testing.assert_close(network.eval()(x), plain.eval()(x))


def step(network: nn.Module, x: Tensor) -> list[Tensor]:
    out = network.train()(x)
    out.square().sum().backward()
    return [out, *(parameter.grad for parameter in network.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize("form", ["usual", "other"])
@pytest.mark.parametrize("seed", range(3))
def test_a_network_learns_the_same_in_every_form(form: str, seed: int) -> None:
    space = nas.load_space("inverted_residual").with_input(channels=3, resolution=8)
    torch.manual_seed(seed)
    network = space.sample(seed).build(10).double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.double)
    expected = step(copy.deepcopy(network), x)
    install(network, lambda case: forms_of(case)[0 if form == "usual" else -1])
    torch.testing.assert_close(step(network, x), expected)


def test_another_librarys_network_learns_the_same() -> None:
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.25, dropout=0.0).double()
    x = torch.randn(4, 3, 32, 32, dtype=torch.double)
    expected = step(copy.deepcopy(network), x)
    install(network, lambda case: "split")
    assert sum(isinstance(module, DepthwiseConv2d) for module in network.modules()) == 17
    torch.testing.assert_close(step(network, x), expected)
