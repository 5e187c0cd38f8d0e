"""Files that somebody else may have written: each reader loads what it is given, or says in one line what is wrong.

Valid files of every kind are damaged, in their bytes and in the values that they hold, always in the same way.
"""

import csv
import io
import json
import os
import resource
import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import optuna
import pytest
import torch
import yaml
from mutations import damage_bytes, damage_value
from safetensors import safe_open
from safetensors.torch import save as save_tensors
from valid import IMAGES, RECIPE, write_all

import nas
from nas.driver.run import Run
from nas.driver.settings import Settings
from nas.driver.study import SearchStudy
from nas.driver.warm_start import earlier_run, import_networks
from nas.errors import UserError
from nas.export.predict import predict
from nas.files import parse_json, read_text
from nas.latency.exchange import import_timings
from nas.latency.table import load_table
from nas.preprocessing import decode_file
from nas.report.images import confusion_figure, judgement_section, run_sections
from nas.report.summary import render
from nas.training.data import load_dataset
from nas.training.failures import TrainingError
from nas.training.fingerprint import compare, read_fingerprint
from nas.training.origin import Origin, check_same
from nas.training.recipe import load_recipe
from nas.training.weights import initialise

# Pillow's about damaged images, which it then reads or refuses
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")

SECONDS = 10.0
"""No file keeps a reader longer, in processor time."""
MEGABYTES = 1500
"""No file takes more memory."""


@dataclass(frozen=True)
class Reader:
    """A file and those who read it.

    `parse`, `dump`: between the file's bytes and plain values, where its values are damaged too. `allowed`: errors
    beside UserError that have nothing to do with the file's form.
    """

    file: str
    read: Callable[[Path], object]
    parse: Callable[[bytes], Any] | None = None
    dump: Callable[[Any], bytes] | None = None
    allowed: tuple[type[Exception], ...] = ()
    called: str = "\n"
    """What an error may call the file instead of its name."""
    cost: int = 1
    """So many times dearer than the cheap ones, and damaged so many times less often."""


def read_architecture(folder: Path) -> None:
    architecture = nas.load(folder / "architecture.yaml")
    assert nas.Architecture.from_dict(yaml.safe_load(architecture.to_yaml())) == architecture
    nas.cost(architecture)


def read_space(folder: Path) -> None:
    space = nas.load_space(folder / "space.yaml")
    assert space.contains(space.sample(0))
    space.to_yaml()


def read_run(folder: Path) -> None:
    run = Run.open(folder / "run")
    for form in ("csv", "json", "md"):
        render(run, form)
    run.write_tables()
    assert {path.name for path in folder.iterdir()} <= NAMES


def read_report(folder: Path) -> None:
    nas.api.report(folder / "run")


def read_images(folder: Path) -> None:
    summary, _, judgement = run_sections(Run.open(folder / "run"))
    assert summary is not None and judgement is not None
    confusion_figure(judgement)
    judgement_section(judgement)


def read_warm_start(folder: Path) -> None:
    settings = Run.open(folder / "untouched").settings
    space = settings.open_space()
    run = earlier_run(Settings(**{**vars(settings), "warm_start": str(folder / "run")}))
    study = optuna.create_study(directions=["maximize", "minimize"])
    new = SearchStudy(
        study, space=space, objectives=settings.parsed_objectives, limits=(), costs=lambda a: vars_of(nas.cost(a))
    )
    (folder / "new" / "checkpoints").mkdir(parents=True, exist_ok=True)
    import_networks(run, new, folder / "new")


def vars_of(counts: Any) -> dict[str, float]:
    return {"params": counts.params, "macs": counts.macs, "size": counts.size_bytes}


def read_table(folder: Path) -> None:
    table = load_table(folder / "table.json")
    space = nas.load_space(folder / "space.yaml")
    for seed in range(3):
        table.predict(space.sample(seed))
    table.to_json()


def read_timings(folder: Path) -> None:
    import_timings(folder / "timings.csv", manifest=folder / "manifest.json", device="x").to_json()


def read_model(name: str) -> Callable[[Path], object]:
    return lambda folder: predict(folder / name, [folder / "a.png"])


def read_weights(folder: Path) -> None:
    predict(folder / "a.safetensors", [folder / "a.png"])
    initialise(nas.build(nas.load(folder / "architecture.yaml"), 10), folder / "a.safetensors")


def read_evaluated(folder: Path) -> None:
    nas.evaluate(folder / "a.pt", device="cpu")


def read_image(name: str) -> Callable[[Path], object]:
    white = {"deep.png": 4095.0, "fractions.tif": 1.0}.get(name)
    return lambda folder: decode_file(folder / name, 16, "pad" if white else "crop", white)


def go_on(folder: Path) -> None:
    nas.train(
        nas.load(folder / "training" / "architecture.yaml"),
        recipe=RECIPE,
        train_size=64,
        out=folder / "training",
        device="cpu",
        resume=True,
    )


def go_on_with_images(folder: Path) -> None:
    (folder / "own" / "checkpoint.pt").unlink()
    nas.train(nas.load(folder / "architecture.yaml"), out=folder / "own", device="cpu", resume=True)


def read_identity(folder: Path) -> None:
    known = read_fingerprint(parse_json(read_text(folder / "images.json"), "images.json"), "images.json")
    data = load_dataset(f"imagefolder:{folder / 'pictures'}", resolution=8)
    compare(known, data.fingerprint)
    check_same(Origin("images", images=known), data, "images.json")


def begin_again(folder: Path) -> None:
    (folder / "training" / "checkpoint.pt").unlink()
    go_on(folder)


# Between bytes and values


def load_journal(content: bytes) -> list[Any]:
    return [json.loads(line) for line in content.decode().splitlines()]


def dump_journal(value: list[Any]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in value).encode()


def dump_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value).encode()


def dump_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def load_pt(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=True)


def dump_pt(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def load_safetensors(content: bytes) -> Any:
    Path("scratch").write_bytes(content)
    with safe_open("scratch", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["nas"])  # noqa: SIM118


def dump_safetensors(value: Any) -> bytes:
    tensors, described = value
    return save_tensors(tensors, {"nas": json.dumps(described)})


def load_onnx(content: bytes) -> Any:
    model = onnx.load_from_string(content)
    return [content, {item.key: json_or_text(item.value) for item in model.metadata_props}]


def dump_onnx(value: Any) -> bytes:
    model = onnx.load_from_string(value[0])
    texts = {str(key): item if isinstance(item, str) else json.dumps(item) for key, item in value[1].items()}
    onnx.helper.set_model_props(model, texts)
    return model.SerializeToString()


def json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def load_csv(content: bytes) -> Any:
    return list(csv.reader(io.StringIO(content.decode())))


def dump_csv(value: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(row if isinstance(row, list) else [row] for row in value)
    return text.getvalue().encode(errors="replace")


YAML = (yaml.safe_load, dump_yaml)
JSON = (json.loads, dump_json)
JOURNAL = (load_journal, dump_journal)
PT = (load_pt, dump_pt)
CSV = (load_csv, dump_csv)
TRAINING = (TrainingError,)  # what is wrong with the numbers and not with the file

READERS = {
    "architecture": Reader("architecture.yaml", read_architecture, *YAML),
    "space": Reader("space.yaml", read_space, *YAML, called="space tiny"),
    "recipe": Reader("recipe.yaml", lambda folder: load_recipe(str(folder / "recipe.yaml")), *YAML),
    "run.yaml": Reader("run/run.yaml", read_run, *YAML, called="space tiny", cost=4),
    "journal": Reader("run/study.journal", read_run, *JOURNAL, cost=4),
    "report of run.yaml": Reader("run/run.yaml", read_report, *YAML, called="space tiny", cost=40),
    "report of a journal": Reader("run/study.journal", read_report, *JOURNAL, cost=40),
    "report of images": Reader("run/data.json", read_images, *JSON, cost=8),
    "report of mistakes": Reader("run/judged/1.json", read_images, *JSON, cost=8),
    "warm start": Reader("run/study.journal", read_warm_start, *JOURNAL, cost=8),
    "warm start's weights": Reader("run/checkpoints/1.pt", read_warm_start, cost=16),
    "latency table": Reader("table.json", read_table, *JSON, called="the latency table"),
    "manifest": Reader("manifest.json", read_timings, *JSON, cost=4),
    "timings": Reader("timings.csv", read_timings, *CSV, cost=4),
    "checkpoint": Reader("a.pt", read_model("a.pt"), *PT, cost=2),
    "evaluated checkpoint": Reader("a.pt", read_evaluated, *PT, cost=16),
    "safetensors": Reader("a.safetensors", read_weights, load_safetensors, dump_safetensors, cost=2),
    "onnx": Reader("a.onnx", read_model("a.onnx"), load_onnx, dump_onnx, cost=2),
    "training's checkpoint": Reader("training/checkpoint.pt", go_on, *PT, TRAINING, "the saved training", cost=16),
    "training's metrics": Reader("training/metrics.csv", go_on, *CSV, allowed=TRAINING, cost=16),
    "images' identity": Reader("images.json", read_identity, *JSON, cost=16),
    "own images' training": Reader("own/train.yaml", go_on_with_images, *YAML, allowed=TRAINING, cost=32),
    "training's settings": Reader("training/train.yaml", begin_again, *YAML, allowed=TRAINING, cost=16),
    **{f"image {name}": Reader(name, read_image(name), cost=2) for name in IMAGES},
}
NAMES = {"run", "untouched"}


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("valid")
    write_all(folder)
    shutil.copytree(folder / "run", folder / "untouched")
    NAMES.update(path.name for path in folder.iterdir())
    return folder


@pytest.fixture
def folder(valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to damage; nothing is written beside it."""
    copied = tmp_path / "files"
    shutil.copytree(valid, copied)
    monkeypatch.chdir(tmp_path)
    return copied


def check(reader: Reader, folder: Path) -> bool:
    """Whether it was read; where not, it ended as it should."""
    started = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        reader.read(folder)
        read = True
    except reader.allowed:
        read = False
    except UserError as error:
        line = str(error)
        assert line.isprintable()
        names = (Path(reader.file).name, str((folder / reader.file).parent), reader.called)
        assert any(name in line for name in names), line
        read = False
    assert time.process_time() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1000
    return read


def damaged(reader: Reader, content: bytes, seed: int, name: str) -> bytes:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if reader.parse is None or reader.dump is None or seed % 2:
        return damage_bytes(content, rng)
    while True:
        try:
            return reader.dump(damage_value(reader.parse(content), rng))
        except (ValueError, TypeError, OverflowError, AttributeError, RuntimeError, KeyError, IndexError):
            continue  # what the format cannot hold


def check_many(name: str, folder: Path, seeds: range) -> None:
    reader = READERS[name]
    target = folder / reader.file
    changing = target.parent if target.parent != folder else None
    valid = {path: path.read_bytes() for path in (changing or folder).rglob("*") if changing and path.is_file()}
    content = target.read_bytes()
    outcomes = []
    for seed in seeds:
        for path, whole in valid.items():
            path.write_bytes(whole)
        mutated = damaged(reader, content, seed, name)
        target.write_bytes(mutated)
        try:
            outcomes.append(check(reader, folder))
        except BaseException:
            Path(os.environ.get("NAS_FUZZ_KEEP", "/dev/null")).write_bytes(mutated)
            print(f"{name}, seed {seed}")
            raise
    assert not all(outcomes)


@pytest.mark.parametrize("name", READERS)
def test_a_valid_file_is_read(name: str, folder: Path) -> None:
    assert check(READERS[name], folder)


CHEAP = 80


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(name: str, folder: Path) -> None:
    check_many(name, folder, range(max(2, CHEAP // READERS[name].cost)))


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_file_damaged_in_many_ways(name: str, folder: Path) -> None:
    check_many(name, folder, range(CHEAP, CHEAP + 5 * CHEAP // READERS[name].cost))
