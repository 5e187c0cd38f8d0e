"""The engines that run the files that ship: LiteRT's and ONNX Runtime's int8, in fresh processes and from the command.

Those of LiteRT need the extra `litert`, which CI installs in an environment of its own.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import spearmanr

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.errors import UserError
from nas.latency import calibrate, measure
from nas.latency.calibration import draw_networks
from nas.latency.engine import example, shipped
from nas.latency.engines import ENGINES, Runtime
from nas.latency.file_engines import to_onnx_int8

DOCUMENT = {
    "name": "small",
    "input": {"channels": 3, "resolution": 32},
    "stem": {"channels": 8},
    "stages": [
        {"block": "inverted_residual", "channels": 8, "expansion": 2, "se_ratio": 0.25, "kernels": [3, 5]},
        {"block": "separable", "channels": 16, "stride": 2},
        {"block": "inverted_residual", "channels": 16, "stride": 2, "combine": "concat", "kernels": [3, 5]},
    ],
}
SMALL = Architecture.from_dict(DOCUMENT)
ROUTED = Architecture.from_dict(
    {**DOCUMENT, "name": "routed", "stages": [{"block": "inverted_residual", "channels": 8, "experts": 2}]}
)
SPACE = Space(
    {
        "name": "growing",
        "input": {"channels": 3, "resolution": 32},
        "stem": {"channels": 16},
        "stages": [
            {
                "block": "inverted_residual",
                "channels": {"choice": [16, 32, 64]},
                "expansion": {"choice": [1, 3, 6]},
                "repeats": {"choice": [1, 2, 3]},
            }
        ],
    }
)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """An engine whose libraries are here."""
    needed = ("litert_torch", "ai_edge_quantizer") if request.param.startswith("litert") else ("onnx", "onnxruntime")
    for module in needed:
        pytest.importorskip(module)
    return request.param


@pytest.mark.parametrize("engine", ["litert", "litert-int8", "onnxruntime-int8"], indirect=True)
def test_the_network_is_run(engine: str) -> None:
    with torch.inference_mode():
        network, images = shipped(SMALL, 10), example(SMALL).clamp(0, 1)
        (run,), array = ENGINES[engine].load(network, images, 1)
        expected = network((images - 0.5) / 0.25 if engine.startswith("litert") else images).numpy()
    logits = run(array)
    assert logits.shape == expected.shape
    if engine == "litert":
        np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    else:  # LiteRT's in units of its own scale
        assert np.corrcoef(logits, expected)[0, 1] > 0.99
    assert (logits.dtype, array.dtype) == ((np.int8, np.int8) if engine == "litert-int8" else (np.float32, np.float32))


def test_every_convolution_is_quantised_with_its_bias() -> None:
    """A fresh network's biases are equal, which the exporter made one of, and the quantiser left in float."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    with torch.inference_mode():
        graph = onnx.load_from_string(to_onnx_int8(shipped(SMALL, 10), example(SMALL))).graph
    kinds = {name: node.op_type for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) >= 8
    assert {kinds.get(name) for node in convolutions for name in node.input} == {"DequantizeLinear"}


@pytest.mark.parametrize("engine", ["litert-int8", "onnxruntime-int8"], indirect=True)
def test_it_is_measured_from_the_command_line(engine: str, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(DOCUMENT))
    done = _nas("measure", tmp_path / "small.yaml", "--engine", engine, "--max-seconds", 0, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert 0 < found["value_ms"] < 100
    assert found["provenance"]["engine"] == engine
    assert ("ai-edge-litert" if engine == "litert-int8" else "onnxruntime") in found["provenance"]["versions"]


@pytest.mark.parametrize("engine", ["litert"], indirect=True)
def test_what_litert_does_not_run_is_one_line(engine: str) -> None:
    message = r"routed: conditional convolutions .* do not run in LiteRT; set experts to 1, or use --engine onnxruntime"
    with pytest.raises(UserError, match=message):
        measure([SMALL, ROUTED], Runtime(engine))
    stage = {"block": "inverted_residual", "channels": 8, "experts": {"choice": [1, 2]}}
    with pytest.raises(UserError, match="conditional convolutions"):
        calibrate(Space({**DOCUMENT, "stages": [stage]}), Runtime(engine), networks=4)


@pytest.mark.parametrize(
    ("engine", "module", "extra"),
    [
        ("litert", "litert_torch", "litert"),
        ("litert-int8", "litert_torch", "litert"),
        ("onnxruntime-int8", "onnx", "export"),
    ],
)
def test_a_missing_extra_is_one_line(engine: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    message = rf"^engine {engine} needs {module}, which is not installed: pip install 'nas\[{extra}\]'$"
    with pytest.raises(UserError, match=message):
        measure([SMALL], Runtime(engine))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["litert-int8"], indirect=True)
def test_a_table_of_litert_orders_networks_that_it_never_saw(engine: str, tmp_path: Path) -> None:
    partial = tmp_path / "table.partial"
    table = calibrate(SPACE, Runtime(engine), networks=16, partial=partial)
    assert table.provenance.engine == engine
    with pytest.raises(UserError, match=f"made with engine {engine}, not litert"):
        table.check(space=SPACE, engine="litert")
    timed = {item.id for item in draw_networks(SPACE, 16, 10)}
    unseen = [item for item in map(SPACE.sample, range(40)) if item.id not in timed][:8]
    measured = [item.value_ms for item in measure(unseen, Runtime(engine), max_seconds=2)]
    predicted = [table.predict(item).value_ms for item in unseen]
    assert spearmanr(predicted, measured)[0] > 0.85
    assert np.median(np.abs(np.divide(predicted, measured) - 1)) < 0.3  # a busy machine's speed is another one later


def _nas(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nas", "latency", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
