"""Spaces: how many networks, which, and back from a network to its parameters."""

import itertools
from typing import Any

import numpy as np
import pytest
from documents import architectures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nas
from nas.architecture.catalogue import space_names

SMALL: dict[str, Any] = {
    "name": "small",
    "input": {"resolution": {"choice": [16, 32]}},
    "width": {"choice": [0.9, 1, 1.1]},
    "stem": {"channels": {"choice": [16, 32]}},
    "stages": [
        {
            "block": "inverted_residual",
            "channels": {"choice": [16, 24]},
            "repeats": {"choice": [1, 2]},
            "expansion": {"choice": [1, 4]},
            "keep_expansion": {"choice": [False, True]},
            "shortcut": {"choice": ["none", "identity", "conv"]},
        },
        {
            "block": "inverted_residual",
            "channels": 24,
            "stride": 2,
            "kernels": {"choice": [[3], [3, 5], [5, 3]]},
            "combine": {"choice": ["add", "concat"]},
        },
    ],
    "head": {"channels": {"choice": [0, 64]}},
}

WHOLE_PARTS: dict[str, Any] = {
    "name": "whole_parts",
    "input": {"choice": [{"resolution": 16}, {"resolution": 16, "channels": 3}, {"resolution": 32}]},
    "stem": {"choice": [{"channels": 8}, {"channels": 8, "kernel": 3}, {"channels": 8, "stride": 2}]},
    "stages": {
        "choice": [
            [{"block": "conv", "channels": 8}],
            [{"block": "conv", "channels": 8}, {"block": "conv", "channels": 8, "stride": 2}],
            [{"block": "conv", "channels": 8, "kernel": 3}, {"block": "fire", "channels": 8}],
        ]
    },
}

STAGE_CHOICE: dict[str, Any] = {
    "name": "stage_choice",
    "stem": {"channels": 12},
    "stages": [
        {"choice": [{"block": "conv", "channels": 12}, {"block": "conv", "channels": 12, "kernel": 3}]},
        {"choice": [{"block": "conv", "channels": 8, "stride": 2}, {"block": "shuffle", "channels": 24, "stride": 2}]},
        {"block": "depthwise_separable", "channels": {"choice": [8, 24]}, "shortcut": {"choice": ["none", "identity"]}},
    ],
}


def everything(space: nas.Space) -> list[tuple[dict[str, Any], nas.Architecture]]:
    """Every choice of parameters, written out."""
    parameters = space.parameters_by_name
    chosen = (
        dict(zip(parameters, v, strict=True)) for v in itertools.product(*(p.values for p in parameters.values()))
    )
    return [(values, space.architecture(values)) for values in chosen]


@pytest.mark.parametrize("document", [SMALL, WHOLE_PARTS, STAGE_CHOICE], ids=lambda document: document["name"])
def test_size_and_inverse_against_writing_everything_out(document: dict[str, Any]) -> None:
    space = nas.Space(document)
    networks = everything(space)
    distinct = {architecture.id: architecture for _, architecture in networks}
    assert space.size == len(distinct) < len(networks)
    rng = np.random.default_rng(0)
    for index in rng.permutation(len(distinct))[:200]:
        architecture = list(distinct.values())[index]
        assert space.contains(architecture)
        assert space.architecture(space.parameters(architecture)).id == architecture.id


def test_a_document_without_choices_is_a_space_of_one() -> None:
    space = nas.Space(nas.load("han-e").to_dict())
    assert space.size == 1
    assert space.sample(3).id == nas.load("han-e").id
    assert space.parameters(nas.load("han-e")) == {}


@pytest.mark.parametrize("name", space_names())
def test_shipped_spaces(name: str) -> None:
    space = nas.load_space(name)
    assert space.size >= (10**12 if name in ("inverted_residual", "se_condconv") else 10**6)
    assert nas.Space(space.document).to_yaml() == space.to_yaml()
    rng = np.random.default_rng(1)
    for _ in range(20):
        architecture = space.sample(rng)
        assert space.contains(architecture)
        again = space.parameters(architecture)
        assert list(again) == list(space.parameters_by_name)
        assert space.architecture(again).id == architecture.id


def test_sampling_is_reproducible_and_uniform_per_parameter() -> None:
    space = nas.load_space("inverted_residual")
    assert space.sample(7) == space.sample(7)
    assert [space.sample(np.random.default_rng(7)).id] == [space.sample(7).id]
    generator = np.random.default_rng(0)
    samples = [space.sample_parameters(generator) for _ in range(2000)]
    assert len({space.architecture(sample).id for sample in samples}) > 1990
    for parameter in space.parameters_by_name.values():
        shares = [sum(sample[parameter.name] == value for sample in samples) / 2000 for value in parameter.values]
        assert max(abs(share - 1 / len(shares)) for share in shares) < 0.05


@pytest.mark.parametrize(
    ("space", "name", "reason"),
    [
        ("inverted_residual", "kuo-se", "its input differs"),
        ("inverted_residual", "resnet-29-0.5", "it has 3 stages, not 7"),
        ("se_condconv", "mobilenetv2", "differs"),
        ("mobilenet_v1", "mobilenetv1-full-conv", "no choice of stages[0] gives"),
    ],
)
def test_what_a_space_does_not_contain(space: str, name: str, reason: str) -> None:
    assert not nas.load_space(space).contains(nas.load(name))
    with pytest.raises(nas.UserError) as error:
        nas.load_space(space).parameters(nas.load(name))
    assert f"space {space} does not contain {name}: " in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_an_architecture_beside_the_options_is_not_contained() -> None:
    document = {**SMALL, "stages": [{**SMALL["stages"][0], "expansion": 5}, SMALL["stages"][1]]}
    stranger = nas.Space(document).sample(0)
    assert not nas.Space(SMALL).contains(stranger)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(architectures(max_stages=3), st.data())
def test_any_document_with_choices(document: dict[str, Any], data: st.DataObject) -> None:
    """A space made of two documents' values contains both, and every sample is one of its networks."""
    other = data.draw(architectures(max_stages=3))
    mixed = dict(document)
    for field in ("input", "stem", "stages", "width", "head"):
        if field in document and field in other and document[field] != other[field] and data.draw(st.booleans()):
            mixed[field] = {"choice": [document[field], other[field]]}
    try:
        space = nas.Space(mixed)
    except nas.UserError as error:  # an option that is written twice in two spellings, or too large strides together
        assert "\n" not in str(error)
        return
    architecture = nas.Architecture.from_dict(document)
    assert space.contains(architecture)
    sampled = space.sample(0)
    assert space.architecture(space.parameters(sampled)).id == sampled.id
    assert space.size == len({network.id for _, network in everything(space)})


# Bad spaces


def broken(**fields: Any) -> dict[str, Any]:
    return {"name": "mine", "stem": {"channels": 8}, "stages": [{"block": "conv", "channels": 8}], **fields}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "a space is a mapping of fields"),
        ({"choice": [broken()]}, "the whole document cannot be a choice"),
        (broken(name={"choice": ["a", "b"]}), "name: "),
        (broken(width={"choice": []}), "width: a choice needs a list of at least one option, not []"),
        (broken(width={"choice": 3}), "width: a choice needs a list of at least one option, not 3"),
        (broken(width={"choice": [1, 1.0]}), "width: option 1.0 is given twice"),
        (broken(width={"choice": [1], "default": 1}), "width: a choice stands alone; move default"),
        (broken(width={"choice": [{"choice": [1]}]}), "width: a choice within a choice"),
        (broken(width={"choice": [1, -2]}), "width: "),
        (broken(width={"choice": [1, "2"]}), "width: input should be a number, not '2'"),
        (broken(stages=[{"block": {"choice": ["conv", "convolution"]}, "channels": 8}]), "unknown block 'convolution'"),
        (broken(stages=[{"block": "conv", "channels": 8, "kernel": {"choice": [3, 4]}}]), "kernel 4 is even"),
        (broken(color={"choice": [1, 2]}), "unknown field 'color'"),
        (
            broken(
                input={"resolution": {"choice": [32, 4]}},
                stages=[{"block": "conv", "channels": 8, "stride": {"choice": [1, 4]}} for _ in range(2)],
            ),
            "input.resolution: 4 is too small for the strides; give at least 16",
        ),
        (
            broken(
                input={"resolution": 8},
                stages=[{"choice": [{"block": "conv", "channels": 8, "stride": s} for s in (1, 4)]} for _ in range(2)],
            ),
            "input.resolution: 8 is too small for the strides; give at least 16",
        ),
    ],
)
def test_a_mistake_in_a_space_is_one_line(document: Any, message: str) -> None:
    with pytest.raises(nas.UserError) as error:
        nas.Space(document, "mine.yaml")
    assert str(error.value).startswith("mine.yaml: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "parameter 'width' is not given"),
        ({"width": 2}, "width is 2; allowed: 0.5, 1"),
        ({"width": True}, "width is True; allowed: 0.5, 1"),
        ({"width": 1, "depth": 3}, "unknown parameter 'depth'"),
    ],
)
def test_parameters_are_checked(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(nas.UserError, match="space mine: ") as error:
        nas.Space(broken(width={"choice": [0.5, 1]})).architecture(parameters)
    assert message in str(error.value)


def test_other_images() -> None:
    space = nas.load_space("mobilenet_v1")
    assert space.resolutions == (128, 160, 192, 224)
    grey = space.with_input(channels=1)
    assert grey.resolutions == space.resolutions
    assert grey.size == space.size
    small = space.with_input(channels=1, resolution=32)
    assert small.resolutions == (32,)
    assert small.sample(0).input.channels == 1
    assert nas.Space(WHOLE_PARTS).with_input(channels=1).resolutions == (16, 32)
    with pytest.raises(nas.UserError, match="too small for the strides"):
        space.with_input(channels=1, resolution=8)


def test_a_files_numbers_are_those_that_people_mean(tmp_path):
    """PyYAML's 016 is 14, and its 1e1 a text."""
    file = tmp_path / "space.yaml"
    stage = "{block: inverted_residual, channels: {choice: [016, 024]}, expansion: 3}"
    file.write_text(
        f"name: s\ninput: {{channels: 3, resolution: 32}}\nwidth: 5e-1\nstem: {{channels: 8}}\nstages:\n  - {stage}\n"
    )
    space = nas.load_space(file)
    assert space.parameters_by_name["stages[0].channels"].values == (16, 24)
    assert space.sample(0).width == 0.5
