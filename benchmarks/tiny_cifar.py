"""CIFAR-10 on a microcontroller: int8 test accuracy of one network within 100 kB of flash and 64 kB of arena.

The goal is 85 %, the mark of MLPerf Tiny's ResNet-8 (Banbury et al. 2021: 78,000 parameters, 12.5 million MACs). The
network is one of the space `micro`, with as many weights and MACs as the limits leave room for. It is trained by
`nas train`, quantised, fine-tuned as int8 computes where that loses over 0.5 points, and measured by TensorFlow Lite
Micro's interpreter. Needs the extra `litert`.

    python benchmarks/tiny_cifar.py --data-dir DIR --device cuda    # on a GPU; not measured: no GPU so far
    python benchmarks/tiny_cifar.py --data-dir DIR --hours 1                     # as far as a CPU gets in that time

A call that was interrupted goes on where it was, with the same `--folder`.
"""

from __future__ import annotations

import time
from pathlib import Path

from machine import Output, parser

import nas
from nas.architecture.catalogue import load_space
from nas.targets import TARGETS

FLASH, ARENA, MARK = 100_000, 64_000, 0.85
NETWORK = nas.Architecture.from_dict(
    {
        "name": "tiny-cifar",
        "input": {"channels": 3, "resolution": 32},
        "stem": {"channels": 16, "stride": 1},
        "stages": [
            {"block": "inverted_residual", "channels": 12, "expansion": 1},
            {"block": "inverted_residual", "channels": 32, "repeats": 4, "stride": 2, "expansion": 1},
            {"block": "inverted_residual", "channels": 64, "repeats": 3, "stride": 2, "expansion": 2},
            {"block": "inverted_residual", "channels": 80, "expansion": 2},
        ],
    }
)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--data-dir", type=Path)
    arguments.add_argument("--epochs", type=int, help="default: the recipe's, 200")
    arguments.add_argument("--hours", type=float, help="end the training within this time: fewer epochs")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--folder", type=Path, default=Path("results/tiny-cifar"), help="of the training")
    given = arguments.parse_args()
    target = TARGETS["tflite-micro"]
    target.require()
    out = Output(given.out)
    assert load_space("micro").contains(NETWORK)
    counted, flash, arena = nas.cost(NETWORK, 10), target.size(NETWORK, 10), target.memory(NETWORK, 10)
    out(f"{counted.params:,} parameters, {counted.macs:,} MACs; predicted {flash:,} bytes of flash, {arena:,} of arena")
    started = time.perf_counter()
    trained = nas.train(
        NETWORK,
        dataset="cifar10",
        data_dir=given.data_dir,
        epochs=given.epochs,
        hours=given.hours,
        seed=given.seed,
        device=given.device,
        threads=given.threads,
        target=target.name,
        out=given.folder,
        resume=(given.folder / "checkpoint.pt").exists(),
        on_epoch=lambda epoch, epochs: print(
            f"epoch {epoch.epoch} of {epochs}: {epoch.validation_accuracy:.2%}", flush=True
        ),
    )
    shipped = trained.shipped
    assert shipped is not None, "what ships could not be made"
    minutes = (time.perf_counter() - started) / 60
    out(f"{trained.epochs} epochs, {minutes:.0f} minutes of this call, seed {given.seed}")
    out(
        f"test accuracy on {trained.test_images:,} images: fp32 {trained.test_accuracy:.2%}, "
        f"int8 {shipped['test_accuracy']:.2%}"
    )
    fits = shipped["file_bytes"] <= FLASH and shipped["memory_bytes"] <= ARENA
    out(
        f"measured: {shipped['file_bytes']:,} bytes of flash (limit {FLASH:,}), {shipped['memory_bytes']:,} of arena "
        f"(limit {ARENA:,}): {'within both' if fits else 'NOT within both'}"
    )
    reached = fits and shipped["test_accuracy"] >= MARK
    out(f"goal of {MARK:.0%} in int8 within both limits: {'reached' if reached else 'not reached'}, n = 1")


if __name__ == "__main__":
    main()
