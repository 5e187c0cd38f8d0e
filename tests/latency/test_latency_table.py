"""Tables: fitted, predicted from, written, read, refused; and calibrations that were cut short."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import reference_seconds
from timings import DOCUMENT, SPACE, groups, table_of, timed
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.driver.prepare import latency_table
from nas.driver.settings import Settings
from nas.errors import UserError
from nas.latency import calibrate, load_table, measuring, table_for
from nas.latency.calibration import GROUP, draw_networks
from nas.latency.engines import Layout, Runtime
from nas.latency.fitting import Group, Timed
from nas.latency.layers import Layer, segments
from nas.latency.model import Context, kinds_of
from nas.latency.table import SCHEMA, Table, parse_table, space_id


@pytest.fixture(scope="module")
def table() -> Table:
    return table_of(groups())


class TestPrediction:
    def test_is_exact_where_the_model_holds(self, table: Table) -> None:
        for seed in range(20):
            architecture = SPACE.sample(seed)
            found = table.predict(architecture)
            assert found.value_ms == pytest.approx(timed(architecture).whole, rel=0.01)
            assert found.low_ms < found.value_ms < found.high_ms
        assert table.held_out.within_10 == 1.0
        assert table.held_out.spearman > 0.99

    def test_is_the_sum_over_segments_times_the_context(self, table: Table) -> None:
        architecture = SPACE.sample(0)
        chain = segments(architecture, 10)
        weights = sum(layer.weights for segment in chain for layer in segment.layers)
        assert table.per_run == 0
        bare = table.model_copy(update={"context": Context()})
        singles = sum(bare.total([segment]) for segment in chain)
        expected = singles * table.context(singles, weights, len(kinds_of(chain)))
        assert table.predict(architecture).value_ms == pytest.approx(expected)

    def test_what_large_networks_take_more_is_found(self) -> None:
        def slower(item: Timed) -> Timed:
            factor = item.whole**0.15
            return Timed(item.segments, tuple(factor * part for part in item.parts), factor * item.whole)

        found = table_of([Group(group.sentinel, tuple(map(slower, group.networks))) for group in groups(8)])
        for seed in range(10):
            expected = slower(timed(SPACE.sample(seed))).whole
            assert found.predict(SPACE.sample(seed)).value_ms == pytest.approx(expected, rel=0.03)

    def test_what_filled_up_channels_take_is_found(self) -> None:
        def filled_up(architecture: Architecture) -> Timed:
            def ms(layer: Layer) -> float:
                macs = layer.macs
                if layer.kind == "pointwise":
                    ceil_in = 16 * math.ceil(layer.in_channels / 16) if layer.in_channels > 15 else layer.in_channels
                    macs = layer.resolution**2 * ceil_in * 16 * math.ceil(layer.out_channels / 16)
                return 0.002 + macs / 1e6

            chain = tuple(segments(architecture, 10))
            parts = tuple(sum(map(ms, segment.layers)) for segment in chain)
            return Timed(chain, parts, sum(parts))

        drawn = list(draw_networks(SPACE, 24, 10))
        found = table_of([Group(filled_up(drawn[0]).whole, tuple(map(filled_up, drawn[1:])))])
        assert any(layer.out_channels % 16 for item in drawn for part in segments(item, 10) for layer in part.layers)
        for seed in range(10):
            expected = filled_up(SPACE.sample(seed)).whole
            assert found.by_layers(segments(SPACE.sample(seed), 10)) == pytest.approx(expected, rel=0.01)

    def test_the_context_ends_where_the_timed_networks_end(self) -> None:
        context = Context(0.1, 0.2, 0.3, least_ms=0.5, most_ms=2.0)
        assert context(100.0, 0, 0) == context(2.0, 0, 0) > context(1.0, 0, 0)
        assert context(0.01, 0, 0) == context(0.5, 0, 0)

    def test_does_not_depend_on_the_order_of_questions(self, table: Table) -> None:
        fresh = parse_table(table.to_json(), "t")
        items = [SPACE.sample(seed) for seed in range(8)]
        forward = [table.predict(item) for item in items]
        assert [fresh.predict(item) for item in reversed(items)][::-1] == forward

    def test_takes_microseconds(self, table: Table) -> None:
        architecture = SPACE.sample(0)
        table.predict(architecture)
        reference = min(reference_seconds() for _ in range(5))
        start = time.process_time()
        for _ in range(100):
            table.predict(architecture)
        assert (time.process_time() - start) / 100 < 2.5 * reference  # a fifteenth of it

    def test_drift_between_groups_is_divided_out(self) -> None:
        drifted = table_of(groups(drift=0.3))
        for seed in range(5):
            architecture = SPACE.sample(seed)
            assert drifted.predict(architecture).value_ms == pytest.approx(timed(architecture).whole, rel=0.02)

    def test_noise_widens_the_interval(self, table: Table) -> None:
        generator = np.random.default_rng(0)
        noisy = []
        for group in groups():
            members = []
            for member in group.networks:
                factor = float(np.exp(generator.normal(0, 0.1)))
                parts = tuple(factor * part for part in member.parts)
                members.append(Timed(member.segments, parts, factor * member.whole))
            noisy.append(Group(group.sentinel, tuple(members)))
        found = table_of(noisy)
        assert found.held_out.error_95 > 0.1
        assert found.held_out.error_95 > 3 * table.held_out.error_95

    def test_the_interval_holds_the_machines_speed_at_another_time(self, table: Table) -> None:
        found = table.predict(SPACE.sample(0))
        later = timed(SPACE.sample(0)).whole * np.exp(np.random.default_rng(0).normal(0, 0.04, 1000))
        inside = np.mean((found.low_ms <= later) & (later <= found.high_ms))
        assert 0.94 < inside < 0.99

    def test_an_unknown_kind_of_layer_is_an_error(self, table: Table) -> None:
        document = {**SPACE.sample(0).to_dict(), "stages": [{"block": "conv", "channels": 8, "kernel": 7}]}
        with pytest.raises(UserError, match="knows no layer of kind 'conv7s1'"):
            table.predict(Architecture.from_dict(document))

    def test_blocks_timed_in_runs_of_their_own_are_freed_from_them(self) -> None:
        call = 0.5  # ms, as long as the network itself
        alone = [
            Group(
                group.sentinel + call,
                tuple(
                    Timed(item.segments, tuple(part + call for part in item.parts), item.whole + call)
                    for item in group.networks
                ),
            )
            for group in groups()
        ]
        found = table_of(alone)
        assert found.per_run == pytest.approx(call, rel=0.05)
        architecture = SPACE.sample(1)
        assert found.predict(architecture).value_ms == pytest.approx(timed(architecture).whole + call, rel=0.05)

    def test_what_no_timed_network_does_has_no_price(self) -> None:
        """Channels of 16 fill nothing up; those of others must not be charged with rounding errors."""
        full = Space({**DOCUMENT, "width": 1.0, "stages": [{"block": "conv", "channels": 32}]})
        found = table_of([Group(timed(full.sample(0)).whole, (timed(full.sample(0)),) * 3)])
        assert [prices[-1] for prices in found.prices.values()] == pytest.approx([0.0] * len(found.prices))

    def test_whole_networks_alone_are_enough(self) -> None:
        wholes = [
            Group(group.sentinel, tuple(Timed(item.segments, (), item.whole) for item in group.networks))
            for group in groups()
        ]
        found = table_of(wholes)
        architecture = SPACE.sample(1)
        assert found.predict(architecture).value_ms == pytest.approx(timed(architecture).whole, rel=0.05)


class TestFile:
    def test_round_trip(self, table: Table, tmp_path: Path) -> None:
        table.save(tmp_path / "new" / "table.json")
        read = load_table(tmp_path / "new" / "table.json")
        assert read == table
        assert read.predict(SPACE.sample(0)) == table.predict(SPACE.sample(0))

    def test_where_it_cannot_be_written_is_one_line(self, table: Table) -> None:
        with pytest.raises(UserError, match=r"^/proc/nas/table\.json: cannot be written: No such file or directory$"):
            table.save(Path("/proc/nas/table.json"))

    def test_a_table_of_an_earlier_version_predicts_what_it_did(self) -> None:
        found = load_table(Path(__file__).with_name("table_schema_3.json"))
        predicted = [found.predict(SPACE.sample(seed)).value_ms for seed in range(4)]
        assert predicted == pytest.approx([0.2949147, 0.3330001, 0.2286356, 0.2286356])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"schema": 0}, f"schema 0, this version of nas reads {SCHEMA}"),
            ({"prices": {}}, "prices"),
            ({"prices": {"conv3s1": [1.0, float("nan"), 0.0, 0.0, 0.0]}}, "prices.conv3s1"),
            ({"prices": {"conv3s1": [1.0, -1.0, 0.0, 0.0, 0.0]}}, "prices.conv3s1.1"),
            ({"prices": {"conv3s1": [1.0]}}, "prices.conv3s1"),
            ({"segments": {"a": [float("nan"), 1]}}, "segments.a.0"),
            ({"segments": {"a": [-1.0, 1]}}, "segments.a.0"),
            ({"segments": {"a": "x"}}, "damaged"),
            ({"segments": None}, "damaged"),
            ({"context": {"base": float("inf")}}, "context.base"),
            ({"held_out": {"networks": 9, "within_10": float("inf"), "spearman": 0.9, "error_95": 0.1}}, "within_10"),
            ({"provenance": {"device": "x"}}, "damaged"),
            ({"num_classes": "ten"}, "damaged"),
        ],
    )
    def test_bad_tables_are_one_line(self, table: Table, change: dict[str, Any], message: str) -> None:
        text = json.dumps({**json.loads(table.to_json()), **change})
        with pytest.raises(UserError, match="nas latency calibrate") as caught:
            parse_table(text, "pi4.json")
        assert message in str(caught.value)
        assert str(caught.value).startswith("pi4.json")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("text", ["", "[]", "{}", "not json", '"schema"', "[" * 100_000])
    def test_other_files_are_one_line(self, text: str) -> None:
        with pytest.raises(UserError, match="not a latency table"):
            parse_table(text, "x.json")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="cannot be read"):
            load_table(tmp_path / "none.json")

    def test_of_another_space_engine_or_classes(self, table: Table) -> None:
        table.check(space=SPACE, engine="eager", num_classes=10)
        with pytest.raises(UserError, match=r"made for space tiny .* --space tiny --channels 3 --resolution 16$"):
            table.check(space=SPACE.with_input(channels=3, resolution=16))
        with pytest.raises(UserError, match="made with engine eager, not onnxruntime"):
            table.check(engine="onnxruntime")
        with pytest.raises(UserError, match=r"made for 10 classes, not 100; .* --num-classes 100"):
            table.check(num_classes=100)

    def test_times_of_another_engine_than_the_target_s_are_said_to_be_so(
        self, table: Table, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        table.save(tmp_path / "pi4.json")
        for target in ("torch", "onnxruntime-int8"):
            settings = Settings(space=DOCUMENT, target=target, latency_table=str(tmp_path / "pi4.json"))
            assert latency_table(settings, SPACE, 10, tmp_path) == table
        said = "pi4.json: its times are of engine eager, not of target onnxruntime-int8"
        assert [message.endswith(said) for message in caplog.messages] == [True]

    def test_a_space_is_known_by_its_content(self) -> None:
        assert space_id(SPACE) == space_id(Space({**DOCUMENT, "name": "other"}))
        assert space_id(SPACE) != space_id(SPACE.with_input(channels=3))


class TestCalibration:
    def test_times_the_space_here(self, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        found = calibrate(
            SPACE, networks=36, partial=tmp_path / "p", isolate=False, on_progress=lambda *at: seen.append(at)
        )
        assert seen == [(32, 36), (36, 36)]
        assert found.predict(SPACE.sample(0)).value_ms > 0
        assert found.held_out.networks == 36
        assert not (tmp_path / "p").exists()

    def test_every_network_has_its_own_faster_layout_as_when_it_is_measured(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []
        choose = measuring.faster_layout

        def spy(network: nn.Module, images: Tensor, runtime: Runtime) -> Layout:
            asked.append(network)
            return choose(network, images, runtime)

        monkeypatch.setattr(measuring, "faster_layout", spy)
        calibrate(SPACE, networks=4, budget_seconds=0, isolate=False)  # no second chance on a busy machine
        assert len(asked) == 1 + 4  # the sentinel too

    def test_a_budget_ends_it_after_a_group(self) -> None:
        found = calibrate(SPACE, networks=64, budget_seconds=0, isolate=False)
        assert found.held_out.networks == GROUP

    @pytest.mark.slow
    def test_goes_on_after_a_kill(self, tmp_path: Path) -> None:
        partial, space = tmp_path / "partial", tmp_path / "space.json"
        space.write_text(json.dumps(DOCUMENT))
        code = (
            "import sys, json; from pathlib import Path; from nas.architecture.space import Space\n"
            "from nas.latency import calibrate\n"
            "space = Space(json.loads(Path(sys.argv[1]).read_text()))\n"
            "calibrate(space, networks=400, partial=Path(sys.argv[2]), isolate=False)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code, str(space), str(partial)])
        deadline = time.monotonic() + 100
        while not partial.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        state = json.loads(partial.read_text())  # whole, whenever the kill came
        done = len(state["groups"])
        assert done >= 1
        state["identity"]["networks"] = GROUP * (done + 1)  # ask for one group more
        partial.write_text(json.dumps(state))
        start = len(state["groups"])
        timed_now: list[int] = []
        calibrate(
            SPACE,
            networks=GROUP * (done + 1),
            partial=partial,
            isolate=False,
            on_progress=lambda *_: timed_now.append(len(json.loads(partial.read_text())["groups"])),
        )
        assert timed_now[0] == start  # the first groups came from the file
        assert timed_now[-1] == start + 1

    @pytest.mark.parametrize("text", ["", "{}", '{"identity": 1}', "[]"])
    def test_a_damaged_partial_file_is_ignored(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "p").write_text(text)
        assert calibrate(SPACE, networks=3, partial=tmp_path / "p", isolate=False).segments

    def test_draws_cover_the_space_and_are_the_same_every_time(self) -> None:
        drawn = list(draw_networks(SPACE, 24, 10))
        assert [item.id for item in drawn] == [item.id for item in draw_networks(SPACE, 24, 10)]
        assert len({item.id for item in drawn}) > 15


def test_the_cache_is_used_and_mended(tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path))
    made: list[Table] = []

    def fake(*_: Any, **__: Any) -> Table:
        made.append(table)
        return table

    monkeypatch.setattr("nas.latency.calibration.calibrate", fake)
    assert table_for(SPACE) == table
    assert table_for(SPACE) == table
    assert len(made) == 1
    (path,) = (tmp_path / "latency").glob("tiny-*.json")
    path.write_text("damaged")
    assert table_for(SPACE) == table
    assert len(made) == 2
    table_for(SPACE, num_classes=3)
    assert len(made) == 3


def test_timing_is_announced_where_it_is_done_and_why_again(
    tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path))
    made = [table.model_copy(update={"complaint": "busy"}), table.model_copy(update={"complaint": ""})]
    monkeypatch.setattr("nas.latency.calibration.calibrate", lambda *_, **__: made.pop(0))
    caplog.set_level("INFO", logger="nas")
    said = []
    for _ in range(3):
        caplog.clear()
        table_for(SPACE)
        said.append(caplog.messages)
    timing = "timing the space's blocks on this device"
    assert said == [
        [f"{timing} (once per space and device)"],
        [f"{timing} (again, since the machine was busy then)"],
        [],
    ]


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("nas.latency.calibration.calibrate", lambda *_, **__: table)
    assert table_for(SPACE) == table
