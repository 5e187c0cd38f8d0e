"""What do inherited weights bring on few images, and a teacher, beside fine-tuning the whole parent?

A network of at most 700 kB of fp32 (`few`, below; a member of `efficientnet_lite` but for its depth of one) and one of
a fifth of the parent's MACs and a sixth of its bytes (`fifth`) are trained on 500, 1,000 and 5,000 images of CIFAR-10
in 64 pixels, by `nas`'s recipe `train` shortened to a number of epochs, all arms with the same seeds (images, their
order, augmentation):

fresh      `few` from fresh weights
inherited  `few` from slices of EfficientNet-Lite0's ImageNet weights
norms      the same as it was before channels were chosen by what they bring on images, and weights made up for those
           left out: by norms of weights alone; measured by an earlier version
tuned      EfficientNet-Lite0 as a whole, fine-tuned by `nas`: the teacher of those that follow
teacher    `few` from slices of `tuned`, whose judgement is learned beside the labels (`nas train --teacher auto`)
imagenet   the same from slices of the ImageNet weights, the teacher's own training included in its seconds; measured
           by an earlier version
patient    as `teacher`, in more epochs (L. Beyer et al., "Knowledge distillation: A good teacher is patient and
           consistent", CVPR 2022)
photo      as `patient`, of images augmented as photographs
fifth      as `photo`, of the larger network
parent     EfficientNet-Lite0 as a whole, fine-tuned in a plain torch loop as users write it: a new classifier, AdamW at
           0.001 in one cycle, 15 epochs, batches of 32, mirrored images
fastai     the same network by the defaults of fastai's `vision_learner(...).fine_tune(30)` with `aug_transforms()`,
           written as a plain loop: its head, one epoch with a frozen body, then all of it with a hundredth of the
           head's learning rate for the body, Adam with cycled momentum, batches of 64. Left out: reflected borders

All 10,000 test images judge, after the last epoch. Seconds are those of the CPU (one thread); those that `tuned`
teaches take its own as well.

Every training is a line of the file as soon as it is done; where the file has some already, it goes on.

    python benchmarks/few_images.py results/benchmarks/few_images.jsonl --data-dir DIR
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import machine
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

import nas
from nas.network.build import Network
from nas.training.augment import Normaliser
from nas.training.checkpoint import load_trained
from nas.training.data import Dataset, load_dataset
from nas.training.evaluate import evaluate
from nas.training.evaluator import TrainingEvaluator
from nas.training.parents import load_parent
from nas.training.recipe import load_recipe
from nas.training.teachers import fine_tuned
from nas.training.weights import restored

PARENT = "efficientnet-lite0"
SIDE = 64
EPOCHS = {500: 30, 1_000: 30, 5_000: 12}
PATIENT_EPOCHS = {500: 100, 1_000: 100, 5_000: 30}
PARENT_EPOCHS, FASTAI_EPOCHS = 15, 30
COMMON = {"block": "inverted_residual", "padding": "same_upper"}
FEW = nas.Architecture.from_dict(
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
FIFTH = nas.Architecture.from_dict(
    {
        **FEW.to_dict(),
        "name": "fifth",
        "stem": {"channels": 24, "stride": 2, "padding": "same_upper"},
        "stages": [
            {**COMMON, "channels": 16, "expansion": 1},
            {**COMMON, "channels": 24, "stride": 2, "expansion": 2},
            {**COMMON, "channels": 40, "stride": 2, "expansion": 3, "kernels": [5]},
            {**COMMON, "channels": 80, "stride": 2, "expansion": 3},
            {**COMMON, "channels": 112, "expansion": 3, "kernels": [5]},
            {**COMMON, "channels": 160, "repeats": 2, "stride": 2, "expansion": 2, "kernels": [5]},
            {**COMMON, "channels": 240, "expansion": 2, "keep_expansion": True},
        ],
        "head": {"channels": 640},
    }
)
GAINS = {
    "inherited": ("fresh", "norms"),
    "tuned": ("parent",),
    "teacher": ("inherited", "imagenet", "parent"),
    "patient": ("teacher", "parent"),
    "photo": ("patient", "parent"),
    "fifth": ("photo", "parent"),
    "fastai": ("parent",),
}
"""Arms whose accuracies are subtracted, seed by seed."""


@dataclass(frozen=True)
class Job:
    """Images, seed, and the folder that holds the fine-tuned parents."""

    data: Dataset
    seed: int
    folder: Path

    @property
    def images(self) -> int:
        return len(self.data.train)

    def teacher(self) -> Path:
        """Return the parent as `nas` fine-tunes it, which is done once."""
        out = self.folder / f"{self.images}-{self.seed}" / "teacher"
        recipe = load_recipe("train").for_images(self.images)
        return fine_tuned(PARENT, self.data, recipe, resolution=SIDE, out=out, seed=self.seed, threads=1)[0]


def train(
    job: Job,
    network: nas.Architecture,
    *,
    inherits: bool = True,
    teacher: Path | None = None,
    epochs: Mapping[int, int] = EPOCHS,
    augment: str | None = None,
) -> float:
    """Train one of our networks, from slices of its teacher if it has one; return its test accuracy."""
    recipe = load_recipe("train").with_options(augment=augment).for_images(job.images, epochs=epochs[job.images])
    evaluator = TrainingEvaluator(job.data, recipe, parent=load_parent(teacher or PARENT) if inherits else None)
    trainer = evaluator.trainer(network, job.seed, teacher=teacher)
    for _ in trainer.epochs():
        pass
    return trainer.evaluate("test").accuracy


def tuned(job: Job) -> float:
    """Fine-tune the parent by `nas`; return its test accuracy."""
    saved = load_trained(job.teacher())
    network = restored(saved, PARENT)
    data = replace(job.data.for_network(3, SIDE, "cpu"), mean=saved.mean, std=saved.std)
    return evaluate(network, data, "test").accuracy


def whole_parent(data: Dataset, seed: int) -> tuple[Network, Dataset]:
    """Build the parent with its weights; return it with the data as it reads them."""
    torch.manual_seed(seed)
    parent = load_parent(PARENT)
    network = nas.build(parent.architecture, 1000)
    network.load_state_dict(dict(parent.weights))
    return network, replace(data.for_network(3, SIDE, "cpu"), mean=parent.mean, std=parent.std)


def fine_tune(job: Job) -> float:
    """Fine-tune the parent in a plain loop; return its test accuracy."""
    network, data = whole_parent(job.data, job.seed)
    network.classifier = nn.Linear(1280, len(data.classes))
    steps = len(data.train) // 32 * PARENT_EPOCHS
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    normalise = Normaliser(data.mean, data.std, torch.device("cpu"))
    for _ in range(PARENT_EPOCHS):
        for batch in full_batches(len(data.train), 32):
            images = normalise(data.train.images[batch])
            images = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, images, images.flip(3))
            F.cross_entropy(network(images), data.train.labels[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return evaluate(network.eval(), data, "test").accuracy


class ConcatPool(nn.Module):
    """The largest and the mean value of each channel: (N, C, H, W) -> (N, 2 C)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1)


def fastai(job: Job) -> float:
    """Fine-tune the parent as fastai does; return its test accuracy."""
    network, data = whole_parent(job.data, job.seed)
    body = nn.Sequential(network.stem, network.blocks, network.head)
    head = nn.Sequential(
        ConcatPool(),
        nn.BatchNorm1d(2560),
        nn.Dropout(0.25),
        nn.Linear(2560, 512, bias=False),
        nn.ReLU(),
        nn.BatchNorm1d(512),
        nn.Dropout(0.5),
        nn.Linear(512, len(data.classes), bias=False),
    )
    for module in head:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    model = nn.Sequential(body, head)
    groups = []
    for part in (body, head):  # norms and biases are not decayed
        for flat in (True, False):
            own = [parameter for parameter in part.parameters() if (parameter.ndim < 2) is flat]
            groups.append({"params": own, "weight_decay": 0.0 if flat else 0.01, "of": part})
    optimizer = torch.optim.AdamW(groups, betas=(0.95, 0.99), eps=1e-5)
    augment = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.RandomAffine(10, scale=(1, 1.1), interpolation=InterpolationMode.BILINEAR)], 0.75),
            v2.RandomPerspective(0.2, p=0.75),
            v2.RandomApply([v2.ColorJitter(0.2, 0.2)], 0.75),
        ]
    )
    normalise = Normaliser(data.mean, data.std, torch.device("cpu"))

    def fit(epochs: int, rates: tuple[float, float], begins: float, divisor: float) -> None:
        """Train for one cycle; `begins`: the part of it in which the rate rises from the highest by the divisor."""
        steps, step = len(data.train) // 64 * epochs, 0
        for _ in range(epochs):
            model.train()
            for batch in full_batches(len(data.train), 64):
                rise = _cosine(1 / divisor, 1, 1e-5, part=step / steps, at=begins)
                momentum = _cosine(0.95, 0.85, 0.95, part=step / steps, at=begins)
                for group in optimizer.param_groups:
                    group["lr"] = rise * rates[group["of"] is head]
                    group["betas"] = momentum, 0.99
                images = normalise(torch.stack([augment(image) for image in data.train.images[batch]]))
                F.cross_entropy(model(images), data.train.labels[batch]).backward()
                optimizer.step()
                optimizer.zero_grad()
                step += 1

    for parameter in body.parameters():  # but norms, which fastai trains always
        parameter.requires_grad_(parameter.ndim < 2)
    fit(1, (2e-4, 2e-3), 0.99, 25)
    body.requires_grad_(True)
    fit(FASTAI_EPOCHS, (1e-5, 1e-3), 0.3, 5)
    return evaluate(model.eval(), data, "test").accuracy


def _cosine(first: float, middle: float, last: float, *, part: float, at: float) -> float:
    """Go from the first value to the middle one, which is reached `at` a part of the way, and to the last."""
    start, end, done = (first, middle, part / at) if part < at else (middle, last, (part - at) / (1 - at))
    return start + (end - start) * (1 - math.cos(math.pi * done)) / 2


def full_batches(count: int, size: int) -> list[Tensor]:
    """Return the indices of an epoch's batches, in random order; what is left over is dropped."""
    return [batch for batch in torch.randperm(count).split(size) if len(batch) == size]


ARMS: dict[str, Callable[[Job], float]] = {
    "fresh": lambda job: train(job, FEW, inherits=False),
    "inherited": lambda job: train(job, FEW),
    "tuned": tuned,
    "teacher": lambda job: train(job, FEW, teacher=job.teacher()),
    "patient": lambda job: train(job, FEW, teacher=job.teacher(), epochs=PATIENT_EPOCHS),
    "photo": lambda job: train(job, FEW, teacher=job.teacher(), epochs=PATIENT_EPOCHS, augment="photo"),
    "fifth": lambda job: train(job, FIFTH, teacher=job.teacher(), epochs=PATIENT_EPOCHS, augment="photo"),
    "parent": fine_tune,
    "fastai": fastai,
}
EARLIER = ("norms", "imagenet", "fifth-imagenet")
"""Arms of earlier versions that the file holds."""


def rows(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def report(file: Path) -> None:
    """Print the networks, and a line per number of images and arm, with the gains over other arms of the same seeds."""
    whole = nas.load(PARENT).with_input(resolution=SIDE)
    parent = nas.cost(whole)
    for network in (FEW, FIFTH, whole):
        own = nas.cost(network)
        part = f"1/{parent.size_bytes / own.size_bytes:.1f} of the parent's, {own.macs / 1e6:.1f} million MACs, "
        part += f"1/{parent.macs / own.macs:.1f} of the parent's"
        print(f"{network.name}: {own.params:,} parameters, {own.size_bytes:,} bytes, {part}")
    print("test accuracy in %, mean (standard deviation)")
    done = {(row["images"], row["arm"], row["seed"]): 100 * float(str(row["accuracy"])) for row in rows(file)}
    seconds = {(row["images"], row["arm"], row["seed"]): row.get("cpu_seconds") for row in rows(file)}
    for images in EPOCHS:
        for arm in (*ARMS, *EARLIER):
            found = {seed: value for (count, kind, seed), value in done.items() if (count, kind) == (images, arm)}
            if not found:
                continue
            spread = f"{statistics.stdev(found.values()):.1f}" if len(found) > 1 else "-"
            took = [
                float(str(value)) for key, value in seconds.items() if key[:2] == (images, arm) and value is not None
            ]
            cpu = f"  {statistics.median(took):.0f} s of the CPU" if took else ""
            mean = f"{statistics.mean(found.values()):5.1f} ({spread})  n = {len(found)}"
            print(f"{images:>6,} images  {arm:<10} {mean}{cpu}")
            for other in GAINS.get(arm, ()):
                gains = [
                    value - done[images, other, seed] for seed, value in found.items() if (images, other, seed) in done
                ]
                if gains:
                    each = ", ".join(f"{gain:+.1f}" for gain in gains)
                    print(f"{'':15} {arm} - {other}: {statistics.mean(gains):+.1f} points ({each})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--images", type=int, nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--teachers", type=Path, default=Path(tempfile.gettempdir(), "few_images_teachers"))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = {(row["images"], row["arm"], row["seed"]) for row in rows(given.file)}
    for images in given.images:
        for seed in range(given.seeds):
            for arm in given.arms:
                if (images, arm, seed) in known:
                    continue
                data = load_dataset("cifar10", data_dir=given.data_dir, train_size=images, seed=seed)
                data = replace(data, validation=data.validation.take(torch.arange(100)))  # it decides nothing here
                job = Job(data, seed, given.teachers)
                wall, cpu = time.perf_counter(), time.process_time()
                row = {"images": images, "arm": arm, "seed": seed, "accuracy": ARMS[arm](job)}
                row |= {"seconds": round(time.perf_counter() - wall), "cpu_seconds": round(time.process_time() - cpu)}
                row |= {"machine": machine.describe()}
                with given.file.open("a") as out:
                    out.write(json.dumps(row) + "\n")
    report(given.file)


if __name__ == "__main__":
    main()
