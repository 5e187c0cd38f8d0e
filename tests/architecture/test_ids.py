"""An architecture's id: what has no effect is not in it, what has is."""

from typing import Any

import pytest
from documents import base

import nas
from nas.architecture.document import scale


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
