import pytest

from nas.architecture.space import Space

SMALL = {
    "name": "small",
    "input": {"channels": 1, "resolution": 8},
    "width": {"choice": [0.25, 0.5]},
    "stem": {"channels": 16},
    "stages": [
        {"block": "inverted_residual", "channels": 16, "expansion": {"choice": [1, 2, 3]}},
        {
            "block": "inverted_residual",
            "channels": 32,
            "stride": 2,
            "expansion": {"choice": [1, 2]},
            "kernels": {"choice": [[3], [3, 5]]},
            "combine": {"choice": ["add", "concat"]},
        },
    ],
}


@pytest.fixture
def small_space():
    """36 different networks of a few thousand parameters, of 8x8 images."""
    return Space(SMALL)
