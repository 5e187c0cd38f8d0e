"""Test accuracy by the strength of the augmentation of photographs, for networks of several sizes.

Structure E at several widths, trained on few images of CIFAR-10 enlarged to 48 pixels, each image augmented as with
`--augment photo`; strength 0 is `--augment small`. By these figures `nas.training.photo.photo_strength` follows the
network's size.

    python benchmarks/augmentation.py --data-dir data --seeds 2
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

import nas
from nas.training import recipe as recipes
from nas.training.data import load_dataset
from nas.training.recipe import RECIPES
from nas.training.session import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--resolution", type=int, default=48)
    parser.add_argument("--widths", type=float, nargs="+", default=[0.15, 0.35, 1.0])
    parser.add_argument("--strengths", type=float, nargs="+", default=[0, 0.3, 0.65, 1])
    parser.add_argument("--smoothing", type=float, default=0.1, help="of the labels")
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    data = load_dataset("cifar10", data_dir=given.data_dir, train_size=given.images)
    # test images enough for half a point; the validation part is not read for anything
    data = replace(data, validation=data.validation.take(torch.arange(200)), test=data.test.take(torch.arange(4000)))
    data = data.for_network(3, given.resolution)
    print("| params | strength | test accuracy, mean | lowest | highest | n |\n|---|---|---|---|---|---|")
    for width in given.widths:
        document = nas.load("han-e").to_dict() | {
            "width": width,
            "input": {"channels": 3, "resolution": given.resolution},
        }
        network = nas.Architecture.from_dict(document)
        for strength in given.strengths:
            recipes.photo_strength = lambda params, strength=strength: strength
            recipe = RECIPES["train"].with_augment("photo" if strength else "small")
            recipe = replace(recipe, label_smoothing=given.smoothing).for_images(len(data.train), epochs=given.epochs)
            with tempfile.TemporaryDirectory() as folder:
                found = [
                    100 * train(network, data, recipe, out=Path(folder, str(seed)), seed=seed, threads=1).test_accuracy
                    for seed in range(given.seeds)
                ]
            figures = " | ".join(f"{value:.1f}%" for value in (statistics.mean(found), min(found), max(found)))
            print(f"| {nas.cost(network).params:,} | {strength:g} | {figures} | {len(found)} |", flush=True)


if __name__ == "__main__":
    main()
