"""The document: round trips, canonical form, and one clear line for everything that is wrong with it."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from documents import architectures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nas
from nas.architecture.document import scale
from nas.costs.analytic import cost
from nas.files import parse_yaml

BASE: dict[str, Any] = {
    "name": "base",
    "stem": {"channels": 16},
    "stages": [
        {"block": "inverted_residual", "channels": 16, "expansion": 1},
        {"block": "inverted_residual", "channels": 24, "stride": 2, "kernels": [3, 5]},
    ],
}
CASES = settings(max_examples=750, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def base(path: str = "", value: Any = None) -> dict[str, Any]:
    """The base document with one value set, by a path such as ``stages.0.channels``."""
    document = copy.deepcopy(BASE)
    if path:
        *parents, last = path.split(".")
        node: Any = document
        for part in parents:
            node = node[int(part)] if part.isdigit() else node.setdefault(part, {})
        node[int(last) if last.isdigit() else last] = value
    return document


# Properties


@CASES
@given(architectures())
def test_a_valid_document_survives_the_round_trip(document: dict[str, Any]) -> None:
    architecture = nas.Architecture.from_dict(document)
    text = architecture.to_yaml()
    again = nas.Architecture.from_dict(parse_yaml(text, "round trip"))
    assert again == architecture
    assert again.to_yaml() == text
    assert again.id == architecture.id
    # The canonical form is a document too: of the same network, at the same cost, and its own canonical form.
    canonical = nas.Architecture.from_dict({"name": "canonical", **architecture.canonical()})
    assert canonical.canonical() == architecture.canonical()
    assert canonical.id == architecture.id
    assert cost(canonical) == cost(architecture)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 40),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=3),
    st.dates(),
    st.lists(st.one_of(st.integers(-3, 9), st.text(max_size=3), st.none()), max_size=3),
    st.dictionaries(st.one_of(st.text(max_size=8), st.integers()), st.integers(), max_size=2),
    st.sampled_from(["none", "conv", "valid", "max", [3, 5], [[3]], {"choice": [1, 2]}]),
)
FIELD = st.one_of(
    st.text(max_size=8), st.sampled_from(["channels", "kernel", "expansion", "block", "groups", "padding"])
)


@CASES
@given(architectures(), st.data())
def test_a_mutated_document_loads_or_is_refused_in_one_line(document: dict[str, Any], data: st.DataObject) -> None:
    document = copy.deepcopy(document)
    nodes: list[Any] = [document]
    for node in nodes:  # grows while it is walked
        nodes.extend(n for n in (node.values() if isinstance(node, dict) else node) if isinstance(n, dict | list))
    node = data.draw(st.sampled_from(nodes))
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    change = data.draw(st.sampled_from(["set", "delete", "add"]))
    if change == "add" or not keys:
        junk = data.draw(JUNK)
        if isinstance(node, dict):
            node[data.draw(FIELD)] = junk
        else:
            node.append(junk)
    elif change == "delete":
        del node[data.draw(st.sampled_from(keys))]
    else:
        node[data.draw(st.sampled_from(keys))] = data.draw(JUNK)
    check_loads_or_refuses(document)


@CASES
@given(architectures(max_stages=2), st.data())
def test_mutated_text_loads_or_is_refused_in_one_line(document: dict[str, Any], data: st.DataObject) -> None:
    text = nas.Architecture.from_dict(document).to_yaml()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 6)))
    insert = data.draw(
        st.one_of(
            st.text(max_size=4), st.sampled_from(["&a ", "*a", "!!python/tuple ", "- ", "{", "]", ": ", "\t", "1e9"])
        )
    )
    try:
        mutated = parse_yaml(text[:start] + insert + text[end:], "mutated")
    except nas.UserError as error:
        assert "\n" not in str(error)
        return
    check_loads_or_refuses(mutated)


def check_loads_or_refuses(document: Any) -> None:
    try:
        architecture = nas.Architecture.from_dict(document, "mutated")
    except nas.UserError as error:
        assert str(error).startswith("mutated: ")
        assert "\n" not in str(error)
    else:
        assert nas.Architecture.from_dict(architecture.to_dict()) == architecture
        cost(architecture)


# What has no effect is not in the id


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "another"),
        ("source", "elsewhere"),
        ("width", 1.0),
        ("norm", "batch"),
        ("head", {"channels": 0, "classifier": "linear"}),
        ("stem.pool", "none"),
        ("stages.0.combine", "concat"),
        ("stages.0.expansion", 1.0),
        ("stages.0.shortcut", "conv"),  # nothing changes shape in this stage
        ("stages.1.keep_expansion", True),  # t is not 1
        ("stages.1.kernels", [5, 3]),
        ("stages.1.se_ratio", 0.0),
        ("stages.1.experts", 1),
        ("stages.1.shortcut", "none"),  # one strided block: no identity either way
    ],
)
def test_fields_without_effect_leave_the_id(path: str, value: Any) -> None:
    assert nas.Architecture.from_dict(base(path, value)).id == nas.Architecture.from_dict(base()).id


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("width", 1.4),
        ("activation", "silu"),
        ("norm", "none"),
        ("input", {"resolution": 64}),
        ("stem.kernel", 5),
        ("stem.pool", "max"),
        ("stem.padding", "valid"),
        ("head.channels", 8),
        ("head.classifier", "conv"),
        ("stages.0.keep_expansion", True),
        ("stages.0.shortcut", "none"),
        ("stages.0.repeats", 2),
        ("stages.1.combine", "concat"),
        ("stages.1.kernels", [3]),
        ("stages.1.shortcut", "conv_strided"),
        ("stages.1.experts", 2),
        ("stages.1.se_ratio", 0.25),
    ],
)
def test_fields_with_effect_change_the_id(path: str, value: Any) -> None:
    assert nas.Architecture.from_dict(base(path, value)).id != nas.Architecture.from_dict(base()).id


@pytest.mark.parametrize(
    ("stage", "without_effect"),
    [
        ({"block": "conv", "channels": 8, "kernel": 1}, {"padding": "valid"}),
        ({"block": "conv", "channels": 16, "padding": "valid"}, {"shortcut": "conv_strided"}),
        ({"block": "separable", "channels": 8, "depth": 1}, {"expansion": 2}),
        ({"block": "shuffle", "channels": 8, "groups": 1}, {"group_first": False}),
        ({"block": "shuffle", "channels": 8, "groups": 3}, {"group_first": False}),  # 3 divides neither 16 nor 8
    ],
)
def test_fields_of_other_blocks_without_effect(stage: dict[str, Any], without_effect: dict[str, Any]) -> None:
    document = {"name": "a", "stem": {"channels": 16}, "stages": [stage]}
    other = {**document, "stages": [{**stage, **without_effect}]}
    assert nas.Architecture.from_dict(document).id == nas.Architecture.from_dict(other).id


def test_a_width_is_the_same_as_the_channels_that_it_gives() -> None:
    document = base("width", 0.5)
    document["head"] = {"channels": 64}
    written_out = base("stem.channels", 8)
    written_out["head"] = {"channels": 64}  # the head is never thinned
    written_out["stages"][0]["channels"] = 8
    written_out["stages"][1]["channels"] = 16
    assert scale(24, 0.5) == 16  # MobileNetV2: 12 would round to 8, which is below 90%
    assert nas.Architecture.from_dict(document).id == nas.Architecture.from_dict(written_out).id


# Bad documents


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("name", 7, "name: "),
        ("name", "", "name: "),
        ("name", "my space", "name: letters, digits and _ + . - are allowed, not 'my space'"),
        ("width", {"choice": [0.5, 1]}, "width: a choice makes this a search space; one network is needed here"),
        ("head", {"choice": [{}, {"channels": 8}]}, "head: a choice makes this a search space"),
        ("stages.0", {"choice": [{"block": "conv"}]}, "stages[0]: a choice makes this a search space"),
        ("stages.0.kernels", {"choice": [[3], [5]]}, "stages[0].kernels: a choice makes this a search space"),
        ("width", [0.5, 1], "input should be a number, not [0.5, 1]; alternatives are written {choice: [...]}"),
        ("stages.0.expansion", {"choices": [1, 2]}, "'choices': [1, 2]}; alternatives are written {choice: [...]}"),
        ("width", "wide", "width: input should be a number, not 'wide'"),
        ("width", 0, "width: "),
        ("width", float("nan"), "width: "),
        ("activation", "tanh", "activation: "),
        ("norm", "layer", "norm: "),
        ("color", "red", "unknown field 'color'; allowed: name"),
        ("widht", 1, "unknown field 'widht'; did you mean 'width'?"),
        ("input.resolution", 1, "input.resolution: 1 is too small for the strides; give at least 2"),
        ("input.resolution", 32.0, "input.resolution: "),
        ("input.channels", 0, "input.channels: "),
        ("stem", 16, "stem: "),
        ("stem.kernel", 4, "stem.kernel: kernel 4 is even; kernels are odd"),
        ("stem.pool", "average", "stem.pool: "),
        ("stages", {}, "stages: "),
        ("stages", [], "stages: "),
        ("stages.0", "block", "stages[0]: "),
        ("stages.0", {"channels": 8}, "stages[0]: a stage needs a 'block': bottleneck"),
        ("stages.0", {"block": "conv"}, "stages[0].channels: this field is missing"),
        ("stages.0.block", "transformer", "stages[0]: unknown block 'transformer'; allowed: bottleneck"),
        ("stages.0.channels", "16", "stages[0].channels: input should be a valid integer, not '16'"),
        ("stages.0.channels", True, "stages[0].channels: "),
        ("stages.0.channels", -1, "stages[0].channels: "),
        ("stages.0.expansion", "6", "stages[0].expansion: input should be a number, not '6'"),
        ("stages.0.kernels", [3, 4], "kernel 4 is even"),
        ("stages.0.kernels", [3, 3], "stages[0].kernels: kernels [3, 3] name one kernel twice"),
        ("stages.0.kernels", [], "stages[0].kernels: "),
        ("stages.0.kernels", 3, "stages[0].kernels: 3 is not a list of odd kernels"),
        ("stages.0.se_ratio", 2, "stages[0].se_ratio: "),
        ("stages.0.groups", 2, "stages[0]: unknown field 'groups'"),
        ("stages.0", {"block": "fire", "channels": 1}, "stages[0].channels: "),
        ("head.dropout", 1, "head.dropout: "),
        ("head.classifier", "tree", "head.classifier: "),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field(path: str, value: Any, message: str) -> None:
    with pytest.raises(nas.UserError) as error:
        nas.Architecture.from_dict(base(path, value), "mine.yaml")
    line = str(error.value)
    assert line.startswith("mine.yaml: ")
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize("document", [None, 3, "text", [], [BASE]])
def test_a_document_is_a_mapping(document: Any) -> None:
    with pytest.raises(nas.UserError, match="an architecture is a mapping of fields"):
        nas.Architecture.from_dict(document)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: !!python/object/apply:os.system [echo]", "not plain YAML in line 1: could not determine a constructor"),
        ("name: !mine x", "not plain YAML in line 1: could not determine a constructor"),
        ("name: &a [*a]", "nested deeper than 20 levels, or an alias that contains itself"),
        ("stages: &a {stages: *a}", "nested deeper than 20 levels, or an alias that contains itself"),
        ("name: one\nname: two", "key 'name' is given twice"),
        ("name: [", "not plain YAML in line 1"),
        ("a: " + "[" * 5000, "nested deeper than 20 levels"),
        ("? [a]\n: 1", "not plain YAML"),
        (LAUGHS, "more than 100,000 values"),
        ("x" * 1_000_001, "a document has at most 1,000,000"),
    ],
    ids=[
        "python tag",
        "own tag",
        "cycle",
        "cycle of mappings",
        "key twice",
        "open",
        "deep",
        "list key",
        "laughs",
        "long",
    ],
)
def test_hostile_yaml_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    with pytest.raises(nas.UserError) as error:
        nas.load(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


# Resolution


@pytest.mark.parametrize(
    "stages",
    [
        [{"block": "conv", "channels": 8, "padding": "valid", "kernel": 5, "repeats": 2, "stride": 2}],
        [{"block": "fire", "channels": 8, "stride": 2}, {"block": "fire", "channels": 8, "stride": 3}],
        [{"block": "separable", "channels": 8, "stride": 2}, {"block": "shuffle", "channels": 8, "stride": 2}],
    ],
)
@pytest.mark.parametrize(
    "stem", [{"channels": 8}, {"channels": 8, "kernel": 7, "stride": 2, "padding": "valid", "pool": "max"}]
)
def test_the_least_resolution_is_the_least_that_torch_takes(stages: list[dict[str, Any]], stem: dict[str, Any]) -> None:
    document = {"name": "least", "input": {"resolution": 256}, "stem": stem, "stages": stages}
    architecture = nas.Architecture.from_dict(document)
    least = architecture.least_resolution
    with torch.device("meta"):
        network = nas.build(architecture, 2).eval()
        assert network(torch.empty(1, 3, least, least)).shape == (1, 2)
    nas.Architecture.from_dict(document).with_input(resolution=least)
    with pytest.raises(nas.UserError, match=f"too small for the strides; give at least {least}"):
        architecture.with_input(resolution=least - 1)


@pytest.mark.parametrize("resolution", range(20, 30))
def test_sizes_are_torchs(resolution: int) -> None:
    stages = [
        {"block": "fire", "channels": 8, "stride": 2},
        {"block": "conv", "channels": 8, "padding": "valid", "kernel": 3},
        {"block": "separable", "channels": 8, "stride": 2},
    ]
    stem = {"channels": 8, "kernel": 3, "padding": "valid", "pool": "max"}
    document = {"name": "sizes", "input": {"resolution": resolution}, "stem": stem, "stages": stages}
    architecture = nas.Architecture.from_dict(document)
    with torch.device("meta"):
        network = nas.build(architecture, 2).eval()
        x = network.stem(torch.empty(1, 3, resolution, resolution))
        for block, module in zip(architecture.blocks(), network.blocks, strict=True):
            assert x.shape[2] == block.resolution
            x = module(x)
            assert x.shape[1:3] == (block.out_channels, block.out_resolution)


# Version

FRONT_FILE = """\
# trial 7 of a search on digits: accuracy 98.51 %, size 435 kB
name: inverted_residual-3ebe3f3b7b4b
stem: {channels: 16}
stages:
  - {block: inverted_residual, channels: 24, kernels: [3, 5]}
head: {channels: 64}
"""
"""As the first nas wrote it, before files had a version."""


@pytest.mark.parametrize("heading", ["", "schema: 1\n"])
def test_files_of_every_version_load(heading: str, tmp_path: Path) -> None:
    file = tmp_path / "front.yaml"
    file.write_text(heading + FRONT_FILE)
    assert nas.load(file).id == "3ebe3f3b7b4b"
    assert nas.load_space(file).sample(0).id == "3ebe3f3b7b4b"
    assert nas.load(file).to_yaml().splitlines()[0] == "schema: 1"
    assert nas.load_space(file).to_yaml().splitlines()[0] == "schema: 1"


def test_the_version_is_no_part_of_the_network() -> None:
    plain, numbered = (nas.Architecture.from_dict({**fields, **base()}) for fields in ({}, {"schema": 1}))
    assert plain == numbered
    assert "schema" not in numbered.to_dict() and "schema" not in numbered.canonical()


@pytest.mark.parametrize("reader", [nas.Architecture.from_dict, nas.Space])
@pytest.mark.parametrize(
    ("version", "message"),
    [
        (2, "here: schema 2, this nas reads up to 1; use a newer nas"),
        (0, "here: schema: a version is a whole number from 1 on, not 0"),
        (True, "not True"),
        ("1", "not '1'"),
        ({"choice": [1]}, "not {'choice': [1]}"),
    ],
)
def test_other_versions_are_refused(reader: Any, version: Any, message: str) -> None:
    # The version speaks first: a newer document may well have fields that this one does not know.
    with pytest.raises(nas.UserError, match=re.escape(message)):
        reader({"schema": version, "unheard_of": 1, **base()}, "here")
