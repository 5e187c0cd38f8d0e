"""Today's usual training loop, plain and fair: what ours is measured against.

torchvision's transforms on PIL images, sample by sample, in the worker processes of a DataLoader; fp32, NCHW, SGD with
Nesterov momentum; one synchronisation per step for the running loss, as in PyTorch's own tutorials.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from nas.training.data import Dataset as OurDataset
from nas.training.data import Images
from nas.training.recipe import Recipe


class PilImages(Dataset[tuple[Tensor, int]]):
    """The same images as ours, as PIL images with torchvision's transforms, as `torchvision.datasets.CIFAR10`."""

    def __init__(self, part: Images, transform: transforms.Compose) -> None:
        self._arrays = part.images.cpu().permute(0, 2, 3, 1).contiguous().numpy()
        self._labels = part.labels.tolist()
        self._transform = transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        array = self._arrays[index]
        picture = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])
        return self._transform(picture), self._labels[index]


class PlainLoop:
    """Trains a network the usual way, with the learning rates of a recipe of ours."""

    def __init__(
        self, network: nn.Module, dataset: OurDataset, recipe: Recipe, *, device: str, workers: int, seed: int = 0
    ) -> None:
        augmentation = recipe.augmentation(resolution=dataset.resolution, flip_safe=dataset.flip_safe)
        padding_mode = "reflect" if augmentation.pad_mode == "reflect" else "constant"
        steps: list[object] = [
            transforms.RandomCrop(dataset.resolution, padding=augmentation.pad, padding_mode=padding_mode)
        ]
        if augmentation.flip != "none":
            steps.append(transforms.RandomHorizontalFlip())
        steps += [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
        self.network = network.to(device)
        self.recipe = recipe
        self.device = device
        self.epoch = 0
        self.loader = DataLoader(
            PilImages(dataset.train, transforms.Compose(steps)),
            batch_size=min(recipe.batch_size, len(dataset.train)),
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.startswith("cuda"),
            generator=torch.Generator().manual_seed(seed),
        )
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.optimizer == "nag",
            weight_decay=recipe.weight_decay,
        )

    def run_epoch(self) -> float:
        """Trains one epoch; returns its mean loss."""
        self.network.train()
        running = 0.0
        for step, (images, labels) in enumerate(self.loader):
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate(self.epoch + step / len(self.loader))
            images = images.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            self.optimizer.zero_grad()
            loss = self.loss(self.network(images), labels)
            loss.backward()
            self.optimizer.step()
            running += loss.item()
        self.epoch += 1
        return running / len(self.loader)
