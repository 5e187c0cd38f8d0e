"""What do inherited weights bring on few images?

A network of at most 700 kB of fp32 (170,050 parameters, below; a member of `efficientnet_lite` but for its depth of
one) is trained on 500, 1,000 and 5,000 images of CIFAR-10 in 64 pixels, by `nas`'s recipe `train` shortened to a
number of epochs: once from fresh weights and once from slices of EfficientNet-Lite0's, with the same seeds (images,
their order, augmentation). `parent` is that network as a whole, 18.8 MB, fine-tuned in a plain torch loop: a new
classifier, AdamW at 0.001 in one cycle, batches of 32, mirrored images. All 10,000 test images judge, after the last
epoch.

Every training is a line of the file as soon as it is done; where the file has some already, it goes on.

    python benchmarks/few_images.py results/benchmarks/few_images.jsonl --data-dir DIR
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import machine
import torch
import torch.nn.functional as F

import nas
from nas.training.augment import Normaliser
from nas.training.data import Dataset, load_dataset
from nas.training.evaluate import evaluate
from nas.training.evaluator import TrainingEvaluator
from nas.training.parents import load_parent
from nas.training.recipe import load_recipe

PARENT = "efficientnet-lite0"
SIDE = 64
EPOCHS = {500: 30, 1_000: 30, 5_000: 12}
PARENT_EPOCHS = 15
COMMON = {"block": "inverted_residual", "padding": "same_upper"}
NETWORK = nas.Architecture.from_dict(
    {
        "name": "few",
        "input": {"channels": 3, "resolution": SIDE},
        "activation": "relu6",
        "stem": {"channels": 32, "stride": 2, "padding": "same_upper"},
        "stages": [
            {**COMMON, "channels": 16, "expansion": 1},
            {**COMMON, "channels": 24, "stride": 2, "expansion": 3},
            {**COMMON, "channels": 40, "stride": 2, "expansion": 3, "kernels": [5]},
            {**COMMON, "channels": 56, "repeats": 2, "stride": 2, "expansion": 2},
            {**COMMON, "channels": 72, "expansion": 2, "kernels": [5]},
            {**COMMON, "channels": 112, "stride": 2, "expansion": 2, "kernels": [5]},
            {**COMMON, "channels": 160, "expansion": 1, "keep_expansion": True},
        ],
        "head": {"channels": 320},
    }
)


def train(data: Dataset, arm: str, epochs: int, seed: int) -> float:
    """Train the small network; return its test accuracy."""
    recipe = load_recipe("train").for_images(len(data.train), epochs=epochs)
    parent = load_parent(PARENT) if arm == "inherited" else None
    trainer = TrainingEvaluator(data, recipe, parent=parent).trainer(NETWORK, seed)
    for _ in trainer.epochs():
        pass
    return trainer.evaluate("test").accuracy


def fine_tune(data: Dataset, seed: int) -> float:
    """Fine-tune the whole parent in a plain loop; return its test accuracy."""
    torch.manual_seed(seed)
    parent = load_parent(PARENT)
    data = replace(data.for_network(3, SIDE, "cpu"), mean=parent.mean, std=parent.std)
    network = nas.build(parent.architecture, 1000)
    network.load_state_dict(dict(parent.weights))
    network.classifier = torch.nn.Linear(1280, len(data.classes))
    steps = len(data.train) // 32 * PARENT_EPOCHS
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    normalise = Normaliser(data.mean, data.std, torch.device("cpu"))
    for _ in range(PARENT_EPOCHS):
        for batch in torch.randperm(len(data.train)).split(32):
            if len(batch) < 32:
                continue
            images = normalise(data.train.images[batch])
            images = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, images, images.flip(3))
            F.cross_entropy(network(images), data.train.labels[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return evaluate(network.eval(), data, "test").accuracy


def rows(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def report(file: Path) -> None:
    """Print a line per number of images and arm, and the paired gain."""
    print(f"test accuracy in %, mean (standard deviation); {NETWORK.name}: {nas.cost(NETWORK).params:,} parameters")
    done = {(row["images"], row["arm"], row["seed"]): float(str(row["accuracy"])) for row in rows(file)}
    for images in EPOCHS:
        for arm in ("fresh", "inherited", "parent"):
            found = [100 * value for (count, kind, _), value in done.items() if (count, kind) == (images, arm)]
            if found:
                spread = f"{statistics.stdev(found):.1f}" if len(found) > 1 else "-"
                print(f"{images:>6,} images  {arm:<10} {statistics.mean(found):5.1f} ({spread})  n = {len(found)}")
        gains = [
            100 * (value - done[images, "fresh", seed])
            for (count, kind, seed), value in done.items()
            if (count, kind) == (images, "inherited") and (images, "fresh", seed) in done
        ]
        if gains:
            each = ", ".join(f"{gain:+.1f}" for gain in gains)
            print(f"{images:>6,} images  inherited - fresh: {statistics.mean(gains):+.1f} points ({each})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--images", type=int, nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", nargs="+", default=["fresh", "inherited", "parent"])
    given = parser.parse_args()
    known = {(row["images"], row["arm"], row["seed"]) for row in rows(given.file)}
    for images in given.images:
        for seed in range(given.seeds):
            for arm in given.arms:
                if (images, arm, seed) in known:
                    continue
                data = load_dataset("cifar10", data_dir=given.data_dir, train_size=images, seed=seed)
                data = replace(data, validation=data.validation.take(torch.arange(100)))  # it decides nothing here
                started = time.perf_counter()
                accuracy = fine_tune(data, seed) if arm == "parent" else train(data, arm, EPOCHS[images], seed)
                row = {"images": images, "arm": arm, "seed": seed, "accuracy": accuracy}
                row |= {"seconds": round(time.perf_counter() - started), "machine": machine.describe()}
                with given.file.open("a") as out:
                    out.write(json.dumps(row) + "\n")
    report(given.file)


if __name__ == "__main__":
    main()
