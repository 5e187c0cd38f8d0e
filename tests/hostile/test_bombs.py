"""Files made to run something, to fill the memory, to take for ever, or to be written where they should not."""

import io
import json
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import torch
import yaml
from mutations import bomb
from valid import RECIPE, SPACE, write_run

import nas
from nas.driver.run import Run
from nas.driver.run_file import describe_environment, read_run_file, write_run_file
from nas.driver.settings import Settings
from nas.driver.storage import STUDY_FILE
from nas.errors import UserError
from nas.export.predict import load_model
from nas.latency.table import load_table
from nas.preprocessing import decode_file
from nas.training.checkpoint import load_checkpoint
from nas.training.folder import Reading, read_folder
from nas.training.recipe import load_recipe

SECONDS = 10.0
"""Of processor time, for the largest files that are read at all."""


def refused(read: Callable[[], object]) -> str:
    """The line that it is refused with, soon."""
    started = time.process_time()
    with pytest.raises(UserError) as caught:
        read()
    assert time.process_time() - started < SECONDS
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) <= 2000
    return line


READERS: dict[str, Callable[[Path], object]] = {
    "a.yaml": nas.load,
    "b.yaml": nas.load_space,
    "c.yaml": lambda path: load_recipe(str(path)),
    "d.json": load_table,
    "e.pt": load_checkpoint,
    "f.safetensors": load_model,
    "g.onnx": load_model,
    "h.png": lambda path: decode_file(path, 8),
}


@pytest.mark.parametrize("name", READERS)
def test_a_sparse_file_of_100_gigabytes(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.touch()
    os.truncate(path, 10**11)
    assert name in refused(lambda: READERS[name](path))


@pytest.mark.parametrize("name", READERS)
def test_a_device_without_end(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.symlink_to("/dev/zero")
    assert name in refused(lambda: READERS[name](path))


def test_a_sparse_journal(tmp_path: Path) -> None:
    write_run(tmp_path / "run", nas.Space(SPACE))
    os.truncate(tmp_path / "run" / STUDY_FILE, 10**11)
    assert "damaged" in refused(lambda: Run.open(tmp_path / "run"))


def test_a_pipe_among_images(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        os.mkfifo(tmp_path / label / "x.png")
    assert "no image in it" in refused(lambda: read_folder(tmp_path, name="x", reading=Reading(8)))


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch hacked",)


def test_nothing_in_a_pickle_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = io.BytesIO()
    torch.save({"format": "nas-checkpoint", "version": 1, "weights": Evil()}, file)
    with zipfile.ZipFile(io.BytesIO(file.getvalue())) as archive:
        assert any(b"system" in archive.read(name) for name in archive.namelist())  # the bomb is in it
    for name, content in {"zip.pt": file.getvalue(), "bare.pt": pickle.dumps(Evil())}.items():
        (tmp_path / name).write_bytes(content)
        assert "damaged" in refused(lambda name=name: load_checkpoint(tmp_path / name))  # type: ignore[misc]
        assert "damaged" in refused(lambda name=name: nas.evaluate(tmp_path / name))  # type: ignore[misc]
    assert not Path("hacked").exists()
    torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    assert Path("hacked").exists()  # where somebody reads it without care


def test_yaml_makes_no_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("name: !!python/object/apply:os.system ['touch hacked']\n")
    assert "not plain YAML" in refused(lambda: nas.load("a.yaml"))
    assert not Path("hacked").exists()


def test_a_checkpoint_whose_values_are_endless(tmp_path: Path) -> None:
    for field in ("architecture", "classes", "version"):
        torch.save({"format": "nas-checkpoint", "version": 1, field: bomb()}, tmp_path / "a.pt")
        assert "a.pt" in refused(lambda: load_checkpoint(tmp_path / "a.pt"))


def test_a_checkpoint_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    torch.save({"format": "nas-checkpoint", "x": torch.zeros(10**7)}, tmp_path / "whole.pt")
    packed = zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "whole.pt") as source, packed:
        for name in source.namelist():
            packed.writestr(name, source.read(name))
    assert (tmp_path / "packed.pt").stat().st_size < 10**6
    assert "damaged" in refused(lambda: load_checkpoint(tmp_path / "packed.pt"))


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
        + "".join(f"{chr(99 + i)}: &{chr(99 + i)} [{','.join([f'*{chr(98 + i)}'] * 9)}]\n" for i in range(12)),
        "a: &a [*a]\n",
        "[" * 20_000,
        "{a: " * 20_000,
        "".join(f"k{index}: 1\n" for index in range(20_000)),
        "".join(f"? {index * (2**61 - 1)}\n: 1\n" for index in range(10_000)),  # one hash for all of them
        f"width: 0x{'f' * 5000}\n",
        f"width: {'9' * 5000}\n",
        "name: x\nwidth: {choice: [" + ", ".join(str(1 + index / 1e6) for index in range(20_000)) + "]}\nstages: []\n",
    ],
    ids=["laughs", "cycle", "deep list", "deep mapping", "many keys", "equal hashes", "hex", "digits", "many options"],
)
def test_yaml_that_takes_for_ever(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert "a.yaml" in refused(lambda: nas.load_space(tmp_path / "a.yaml"))


def test_a_network_too_large_for_any_memory_is_refused_from_its_document(tmp_path: Path) -> None:
    stage = {"block": "conv", "channels": 65_536, "kernel": 31, "repeats": 64}
    document = {"name": "large", "input": {"resolution": 2048}, "stem": {"channels": 65_536}, "stages": [stage] * 100}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(document))
    assert "training needs" in refused(lambda: nas.train(tmp_path / "a.yaml", out=tmp_path / "out", device="cpu"))
    document["stem"] = {"channels": 10**6}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(document))
    assert "stem.channels" in refused(lambda: nas.load(tmp_path / "a.yaml"))


def test_a_space_of_1e40_networks_is_only_text(tmp_path: Path) -> None:
    stage = {"block": "inverted_residual", "channels": {"choice": [8, 16, 24, 32]}, "expansion": {"choice": [1, 2, 3]}}
    document = {"name": "vast", "input": {"channels": 1, "resolution": 8}, "stem": {"channels": 8}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**document, "stages": [stage] * 40}))
    started = time.process_time()
    space = nas.load_space(tmp_path / "a.yaml")
    assert space.size > 10**40
    assert space.contains(space.sample(0))
    assert time.process_time() - started < SECONDS


HOSTILE = "../../outside\n<script>alert(1)</script>\x1b[2J"


def test_what_a_record_says_stays_in_its_folder(tmp_path: Path) -> None:
    """A journal whose ids, names and reasons were changed by hand, and a data set of two lines."""
    run = tmp_path / "here" / "run"
    run.mkdir(parents=True)
    write_run(run, nas.Space(SPACE))
    lines = [json.loads(line) for line in (run / STUDY_FILE).read_text().splitlines()]
    for log in lines:
        for key in log.get("user_attr", {}):
            if key in ("id", "name", "reason"):
                log["user_attr"][key] = HOSTILE
    (run / STUDY_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    document = yaml.safe_load((run / "run.yaml").read_text())
    document["settings"]["dataset"] = "imagefolder:x\nname: y"
    (run / "run.yaml").write_text(yaml.safe_dump(document))
    for file in (run / "front").iterdir():
        file.unlink()
    opened = Run.open(run)
    opened.write_tables()
    nas.api.report(run)
    for rank, record in enumerate(opened.front_records, 1):
        assert nas.load(opened.front_file(rank, record)) == record.architecture
    assert {path.name for path in tmp_path.iterdir()} == {"here"}
    assert {path.name for path in run.parent.iterdir()} == {"run"}
    written = {path.name for path in run.iterdir()}
    known = {"run.yaml", "data.json", STUDY_FILE, "trials.csv", "front", "judged", "checkpoints", "report.html"}
    assert written == known
    assert "<script>alert" not in (run / "report.html").read_text()


def test_a_name_that_is_a_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**SPACE, "name": "../../outside"}))
    assert "name" in refused(lambda: nas.load_space(tmp_path / "a.yaml"))


def test_opening_a_run_makes_no_database(tmp_path: Path) -> None:
    """A run's file may name any database; only a search makes one."""
    for name, before in {"missing.db": None, "other.db": b""}.items():
        run, database = tmp_path / f"run-{name}", tmp_path / name
        run.mkdir()
        if before is not None:
            database.write_bytes(before)
        settings = Settings(space=dict(SPACE), recipe=RECIPE.to_dict())
        write_run_file(run, settings, describe_environment("cpu"), f"sqlite:///{database}")
        refused(lambda run=run: Run.open(run))  # type: ignore[misc]
        assert (database.read_bytes() if database.exists() else None) == before


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    settings = Settings(space=dict(SPACE), recipe=RECIPE.to_dict())
    url = "postgresql://user:secret@127.0.0.1:1/db"
    write_run_file(tmp_path / "run", settings, describe_environment("cpu"), url)
    assert "secret" not in refused(lambda: Run.open(tmp_path / "run"))


def test_a_journal_with_another_study(tmp_path: Path) -> None:
    write_run(tmp_path / "run", nas.Space(SPACE))
    assert read_run_file(tmp_path / "run")["study"] != "other"
    document = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    (tmp_path / "run" / "run.yaml").write_text(yaml.safe_dump({**document, "study": "other"}))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    assert "its study does not stand in" in refused(lambda: Run.open(tmp_path / "run"))
