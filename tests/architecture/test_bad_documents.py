"""One clear line for everything that is wrong with a document."""

from pathlib import Path
from typing import Any

import pytest
from documents import BASE, base

import nas


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
