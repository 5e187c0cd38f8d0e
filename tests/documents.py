"""Architecture documents: a plain one, and others for property tests, written out from the documented schema."""

import copy
from typing import Any

from hypothesis import strategies as st

BASE: dict[str, Any] = {
    "name": "base",
    "stem": {"channels": 16},
    "stages": [
        {"block": "inverted_residual", "channels": 16, "expansion": 1},
        {"block": "inverted_residual", "channels": 24, "stride": 2, "kernels": [3, 5]},
    ],
}


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


ratios = st.sampled_from([0.25, 0.5, 1, 1.0, 1.5, 2, 3, 6])
kernels = st.sampled_from([1, 3, 5, 7])
kernel_sets = st.lists(kernels, min_size=1, max_size=3, unique=True)
channels = st.integers(2, 80)
shortcuts = st.sampled_from(["none", "identity", "conv", "conv_strided"])
experts = st.integers(1, 4)
depthwise = {
    "kernels": kernel_sets,
    "combine": st.sampled_from(["add", "concat"]),
    "se_ratio": st.sampled_from([0, 0.0, 0.25, 1]),
    "experts": experts,
    "shortcut": shortcuts,
}
fields: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "inverted_residual": {**depthwise, "expansion": ratios, "keep_expansion": st.booleans()},
    "bottleneck": {**depthwise, "expansion": ratios, "conv": st.sampled_from(["standard", "depthwise"])},
    "depthwise_separable": {**depthwise, "intermediate": st.booleans()},
    "conv": {
        "kernel": kernels,
        "padding": st.sampled_from(["same", "valid"]),
        "experts": experts,
        "shortcut": shortcuts,
    },
    "separable": {"depth": st.integers(1, 3), "expansion": ratios, "kernel": kernels, "shortcut": shortcuts},
    "shuffle": {
        "groups": st.integers(1, 4),
        "expansion": ratios,
        "kernel": kernels,
        "group_first": st.booleans(),
    },
    "fire": {"expansion": ratios},
}


def stages() -> st.SearchStrategy[dict[str, Any]]:
    def of_kind(kind: str) -> st.SearchStrategy[dict[str, Any]]:
        common = {"repeats": st.integers(1, 3), "stride": st.integers(1, 2)}
        return st.fixed_dictionaries(
            {"block": st.just(kind), "channels": channels}, optional={**common, **fields[kind]}
        )

    return st.sampled_from(sorted(fields)).flatmap(of_kind)


def architectures(max_stages: int = 4) -> st.SearchStrategy[dict[str, Any]]:
    """Valid documents; the resolution is large enough for any of them."""
    stem = st.fixed_dictionaries(
        {"channels": channels},
        optional={
            "kernel": kernels,
            "stride": st.integers(1, 2),
            "padding": st.sampled_from(["same", "valid"]),
            "pool": st.sampled_from(["none", "max"]),
        },
    )
    head = st.fixed_dictionaries(
        {},
        optional={
            "channels": st.integers(0, 64),
            "dropout": st.sampled_from([0, 0.2]),
            "classifier": st.sampled_from(["linear", "conv"]),
        },
    )
    return st.fixed_dictionaries(
        {
            "name": st.from_regex(r"[a-z][a-z0-9.+-]{0,20}", fullmatch=True),
            "input": st.fixed_dictionaries(
                {"resolution": st.integers(600, 1024)}, optional={"channels": st.integers(1, 4)}
            ),
            "stem": stem,
            "stages": st.lists(stages(), min_size=1, max_size=max_stages),
        },
        optional={
            "source": st.text(
                st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\ufeff\ufffe\uffff"),
                max_size=30,
            ),
            "width": st.sampled_from([0.25, 0.75, 1, 1.0, 1.4]),
            "activation": st.sampled_from(["relu", "relu6", "hard_swish", "silu"]),
            "norm": st.sampled_from(["batch", "none"]),
            "head": head,
        },
    )
