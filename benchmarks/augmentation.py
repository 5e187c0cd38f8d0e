"""Test accuracy by the strength of the augmentation of photographs, for networks of several sizes.

Slices of EfficientNet-Lite0 with its ImageNet weights, trained on few images of CIFAR-10 enlarged to 96 pixels, each
image augmented as with `--augment photo`; strength 0 is `--augment small`. By these figures
`nas.training.photo.photo_strength` follows the network's size. A row is printed when all its seeds are trained.

    python benchmarks/augmentation.py --data-dir data --seeds 2
"""

import statistics
from dataclasses import replace

import machine
import torch
from few_images import FEW, PARENT

import nas
from nas.training import recipe as recipes
from nas.training.data import load_dataset
from nas.training.evaluator import TrainingEvaluator
from nas.training.parents import load_parent
from nas.training.recipe import RECIPES

NETWORKS = ((FEW, 0.35), (FEW, 1.0), (nas.load(PARENT), 0.5))
"""Of about 40,000, 170,000 and a million parameters: a network, and the width at which it is taken."""


def main() -> None:
    parser = machine.parser(__doc__)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0, 0.3, 1])
    parser.add_argument("--init", default=PARENT, help="whose weights they begin with; none: fresh ones")
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    say = machine.Output(given.out)
    data = load_dataset("cifar10", data_dir=given.data_dir, train_size=given.images)
    # test images enough for half a point; the validation part is not read for anything
    data = replace(data, validation=data.validation.take(torch.arange(100)), test=data.test.take(torch.arange(4000)))
    parent = None if given.init == "none" else load_parent(given.init)
    say("| params | strength | test accuracy, mean | by seed | training images right |\n|---|---|---|---|---|")
    for base, width in NETWORKS:
        size = {"channels": 3, "resolution": given.resolution}
        network = nas.Architecture.from_dict(base.to_dict() | {"width": width, "input": size})
        for strength in given.strengths:
            recipes.photo_strength = lambda params, strength=strength: strength
            recipe = RECIPES["train"].with_options(augment="photo" if strength else "small")
            recipe = recipe.for_images(len(data.train), epochs=given.epochs)
            found, fitted = [], []
            for seed in range(given.seeds):
                trainer = TrainingEvaluator(data, recipe, parent=parent).trainer(network, seed)
                for _ in trainer.epochs():
                    pass
                found.append(100 * trainer.evaluate("test").accuracy)
                fitted.append(100 * trainer.evaluate("train").accuracy)
            each = ", ".join(f"{value:.1f}" for value in found)
            figures = f"{statistics.mean(found):.1f}% | {each} | {statistics.mean(fitted):.0f}%"
            say(f"| {nas.cost(network).params:,} | {strength:g} | {figures} |")


if __name__ == "__main__":
    main()
