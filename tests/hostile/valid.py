"""One valid file of every kind that the program reads, small and quickly made."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import optuna
import runs
import torch
from onnx import TensorProto, helper
from PIL import Image

import nas
from nas.driver.run import Run
from nas.driver.settings import Settings
from nas.export import Card
from nas.latency.exchange import import_timings
from nas.latency.layers import segments
from nas.latency.table import space_id
from nas.training.checkpoint import save_checkpoint
from nas.training.data import load_dataset
from nas.training.evaluate import scores
from nas.training.facts import describe, summarise
from nas.training.fingerprint import Fingerprint
from nas.training.per_class import judge, with_pictures
from nas.training.pictures import picture
from nas.training.recipe import Recipe

SPACE: dict[str, Any] = {
    "name": "tiny",
    "source": "a test",
    "input": {"channels": 1, "resolution": 8},
    "stem": {"channels": 8, "stride": 2},
    "stages": [
        {"block": "inverted_residual", "channels": 8, "expansion": {"choice": [1, 2, 3]}, "kernels": [3, 5]},
        {"block": "inverted_residual", "channels": {"choice": [8, 16]}, "stride": 2, "se_ratio": 0.25},
    ],
    "head": {"channels": 16},
}
RECIPE = Recipe(epochs=3, batch_size=16)


class StoppedHereError(Exception):
    """Ends a training in its middle."""


def write_all(folder: Path) -> None:
    """Fill an empty folder."""
    space = nas.Space(SPACE)
    (folder / "space.yaml").write_text(space.to_yaml())
    (folder / "architecture.yaml").write_text(space.sample(0).to_yaml())
    (folder / "recipe.yaml").write_text("optimizer: adamw\nlr: 0.01\nepochs: 4\nmilestones: [1, 2]\nflip: none\n")
    write_run(folder / "run", space)
    write_training(folder / "training", space.sample(0))
    write_images(folder)
    with contextlib.suppress(StoppedHereError):
        nas.train(
            space.sample(0),
            dataset=f"imagefolder:{folder / 'pictures'}",
            recipe=RECIPE,
            out=folder / "own",
            device="cpu",
            on_epoch=stop,
        )
    for name in ("a.pt", "a.safetensors"):
        source = {"a.pt": "checkpoint.pt", "a.safetensors": "model.safetensors"}[name]
        (folder / name).write_bytes((folder / "training" / source).read_bytes())
    write_onnx(folder / "a.onnx", space.sample(0))
    write_timings(folder, space)


def stop(*_: Any) -> None:
    raise StoppedHereError


def write_run(out: Path, space: nas.Space) -> None:
    """Four trials, with invented accuracies; one is stopped, one failed, and the front is judged."""
    settings = Settings(
        space=dict(space.document),
        objectives=("accuracy", "size"),
        recipe=RECIPE.to_dict(),
        trials=4,
        limits=("macs<=1G",),
    )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = runs.begin(out, settings)
    study = search.study
    search.enqueue(space.sample(5), "own")
    closed = []
    for accuracy in (0.5, 0.7, 0.6, 0.4):
        candidate = search.propose()
        assert candidate is not None
        for epoch in (1, 2, 3):
            search.record_epoch(candidate.number, runs.epoch(epoch, accuracy))
            if epoch == 2 and accuracy == 0.4:
                search.stop(candidate.number, "dominated at epoch 2 of 3", 3)
                break
        else:
            search.complete(candidate.number)
            closed.append(candidate.number)
            weights = runs.checkpoint_of(candidate.architecture, settings, epochs=3)
            save_checkpoint(out / "checkpoints" / f"{candidate.number}.pt", weights)
    confirmed: dict[str, Any] = {str(number): {"test_accuracy": 0.5} for number in closed}
    confirmed["0"] |= {"latency_ms": 1.0, "latency_low_ms": 0.9, "latency_high_ms": 1.1, "latency_noisy": ""}
    confirmed["0"]["repeats"] = {"3": {"1": 0.5, "2": 0.6}}
    study.set_user_attr("confirmed", confirmed)
    run = Run.open(out)
    run.write_tables()
    digits = load_dataset("digits")
    pictures = {name: picture(digits.train.images[:1]) for name in digits.classes}
    (out / "data.json").write_text(json.dumps(summarise(describe(digits), pictures)))
    few = digits.test.take(torch.arange(20))
    found = scores(few.labels, few.labels.flip(0), torch.linspace(0, 1, 20))
    judgement = with_pictures(judge(few, found, digits.classes), few)
    file = run.judgement_file(run.front_records[0].number)
    file.parent.mkdir()
    file.write_text(json.dumps(judgement))


def write_training(out: Path, architecture: nas.Architecture) -> None:
    """One that was stopped after its second epoch of three."""

    def stop(epoch: Any, _: int) -> None:
        if epoch.epoch == 2:
            raise StoppedHereError

    try:
        nas.train(architecture, recipe=RECIPE, train_size=64, out=out, device="cpu", on_epoch=stop)
    except StoppedHereError:
        return
    raise AssertionError


def write_onnx(file: Path, architecture: nas.Architecture) -> None:
    """A linear classifier of the pixels' mean, with the metadata of an exported network."""
    data = Fingerprint(dict.fromkeys("0123456789", 2), 7, {})
    card = Card(architecture, tuple("0123456789"), (0.3,), (0.3,), fit="pad", white=4095.0, data=data)
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [1, 10], np.linspace(-1, 1, 10, dtype=np.float32))
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(nodes, "network", [images], [logits], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, card.to_metadata())
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())


IMAGES = ("a.png", "a.jpg", "a.gif", "a.bmp", "a.tif", "a.webp", "a.ppm", "deep.png", "fractions.tif")


def write_images(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    kinds = {
        "deep.png": pixels[..., 0].astype(np.uint16) * 16,
        "fractions.tif": pixels[..., 0].astype(np.float32) / 255,
    }
    for name in IMAGES:
        Image.fromarray(kinds.get(name, pixels)).save(folder / name)
    for label in "ab":
        (folder / "pictures" / label).mkdir(parents=True)
        for index in range(9):
            Image.fromarray(np.roll(pixels, index, 1)[: 20 + (label == "b")]).save(
                folder / "pictures" / label / f"{index}.png"
            )
    known = load_dataset(f"imagefolder:{folder / 'pictures'}", resolution=8).fingerprint
    assert known is not None
    (folder / "images.json").write_text(json.dumps(known.to_dict(), indent=1))


def write_timings(folder: Path, space: nas.Space) -> None:
    """The manifest and the times of some blocks and networks, and the table that they give."""
    entries: list[dict[str, Any]] = []
    for index in range(6):
        architecture = space.sample(index)
        entries.append({"file": f"network-{index}.onnx", "architecture": architecture.to_dict()})
        for number, segment in enumerate(segments(architecture, 10)):
            block = {"file": f"block-{index}-{number}.onnx", "architecture": architecture.to_dict()}
            entries.append({**block, "segment": number, "key": segment.key})
    manifest = {
        "schema": 1,
        "space": {"name": space.name, "id": space_id(space)},
        "num_classes": 10,
        "batch": 1,
        "entries": entries,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    times = "".join(f"{entry['file']},{0.1 + index % 5 / 10}\n" for index, entry in enumerate(entries))
    (folder / "timings.csv").write_text("file,ms\n" + times)
    table = import_timings(folder / "timings.csv", manifest=folder / "manifest.json", device="a test")
    table.save(folder / "table.json")
