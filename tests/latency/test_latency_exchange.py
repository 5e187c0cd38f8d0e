"""Blocks that are timed on a device without Python, and the table that their times give."""

import json
from pathlib import Path

import numpy as np
import pytest
from timings import SPACE, timed, true_ms

from nas.architecture.document import Architecture
from nas.errors import UserError
from nas.latency import export_blocks, import_timings
from nas.latency.layers import segments


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("blocks")
    assert export_blocks(SPACE, folder, blocks=40, networks=4) == len(list(folder.glob("*.onnx")))
    return folder


class TestExchange:
    def fill(self, folder: Path, path: Path, **changed: str) -> Path:
        lines = ["file,ms"]
        for entry in json.loads((folder / "manifest.json").read_text())["entries"]:
            chain = segments(Architecture.from_dict(entry["architecture"]), 10)
            ms = true_ms(chain[entry["segment"]]) if "segment" in entry else sum(map(true_ms, chain))
            lines.append(f"{entry['file']},{changed.get(entry['file'].split('.')[0].replace('-', '_'), ms)}")
        path.write_text("\n".join(lines) + "\n")
        return path

    def test_files_run_elsewhere(self, folder: Path) -> None:
        import onnxruntime

        manifest = json.loads((folder / "manifest.json").read_text())
        entry = manifest["entries"][3]
        session = onnxruntime.InferenceSession(str(folder / entry["file"]), providers=["CPUExecutionProvider"])
        assert session.get_inputs()[0].shape == entry["input"]
        session.run(None, {session.get_inputs()[0].name: np.zeros(entry["input"], np.float32)})

    def test_times_come_back_as_a_table(self, folder: Path, tmp_path: Path) -> None:
        found = import_timings(self.fill(folder, tmp_path / "t.csv"), manifest=folder / "manifest.json", device="pi4")
        architecture = SPACE.sample(2)
        assert found.predict(architecture).value_ms == pytest.approx(timed(architecture).whole, rel=0.05)
        assert found.provenance.device == "pi4"
        found.check(space=SPACE, engine="onnxruntime")

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"block_0001": "nan"}, "line 7: block-0001.onnx: 'nan' is not a time"),
            ({"block_0001": "-1"}, "is not a time in ms above 0"),
            ({"block_0001": "fast"}, "is not a time in ms above 0"),
            ({"block_0001": "inf"}, "is not a time in ms above 0"),
            ({"block_0001": ""}, "no time for block-0001.onnx"),
        ],
    )
    def test_bad_times_are_one_line(self, folder: Path, tmp_path: Path, changed: dict[str, str], message: str) -> None:
        path = self.fill(folder, tmp_path / "t.csv", **changed)
        if "line" in message:
            message = message.partition(": ")[2]
        with pytest.raises(UserError, match=message):
            import_timings(path, manifest=folder / "manifest.json", device="pi4")

    def test_times_beyond_all_bounds_are_one_line(self, folder: Path, tmp_path: Path) -> None:
        lines = ["file,ms"]  # 2 s per MAC: more than 1e9 ms per million of them
        for entry in json.loads((folder / "manifest.json").read_text())["entries"]:
            chain = segments(Architecture.from_dict(entry["architecture"]), 10)
            chain = chain[entry["segment"] : entry["segment"] + 1] if "segment" in entry else chain
            lines.append(f"{entry['file']},{2e3 * sum(layer.macs for part in chain for layer in part.layers) + 1}")
        path = tmp_path / "t.csv"
        path.write_text("\n".join(lines))
        with pytest.raises(UserError, match=r"t.csv: times that no table holds \(prices\.\w+") as caught:
            import_timings(path, manifest=folder / "manifest.json", device="pi4")
        assert "\n" not in str(caught.value)

    def test_foreign_files_are_one_line(self, folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        manifest = folder / "manifest.json"
        for text, message in (
            ("", "first line must name the columns"),
            ("a,b\n1,2\n", "first line must name the columns"),
            ("file,ms\nother.onnx,1\n", "is not in"),
            ("file,ms\nblock-0000.onnx\n", "1 cell, the header has 2"),
        ):
            path.write_text(text)
            with pytest.raises(UserError, match=message):
                import_timings(path, manifest=manifest, device="pi4")
        path.write_text("{}")
        with pytest.raises(UserError, match="not the manifest"):
            import_timings(path, manifest=path, device="pi4")

    def test_refuses_a_folder_in_use(self, folder: Path) -> None:
        with pytest.raises(UserError, match="not empty"):
            export_blocks(SPACE, folder)
