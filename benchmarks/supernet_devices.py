"""What another device costs after a search with a supernet, and how good its front is.

`first`: a search with a supernet of its own, for accuracy and MACs. `second`: a search for accuracy and the bytes of
memory that activations need, which orders networks otherwise, as another device does; it takes over the first one's
supernet, the members judged and the networks trained (`--supernet RUN --trials N`). Its front is compared with what the
first search's networks give on that device without any further training, and with a search for that device from the
beginning (`--alone`). Hypervolume of validation accuracy and the logarithm of the memory, in the box of all networks
that were trained to the end. Seconds on the clock of a whole search, Ray's start and the test images included.

    python benchmarks/supernet_devices.py FOLDER --data-dir DIR

A search that is done in FOLDER is not begun again, and its time is that of the session that ended it.
"""

from __future__ import annotations

from pathlib import Path

import machine
import numpy as np
from timed_search import timed_search

import nas
from nas import pareto


def losses(run: nas.Run) -> np.ndarray:
    ended = [record for record in run.records if record.state == "complete"]
    return np.array([[-(record.accuracy or 0.0), np.log(record.costs["peak_memory"])] for record in ended])


def main() -> None:
    parser = machine.parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--space", default=str(Path(__file__).with_name("supernet_space.yaml")))
    parser.add_argument("--resolution", type=int, default=16)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--more", type=int, default=4, help="trials of the second device")
    parser.add_argument("--alone", action="store_true", help="also search for the second device from the beginning")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    say = machine.Output(options.out)
    side = options.resolution
    first, of_first = timed_search(
        options,
        "first",
        resolution=side,
        evaluator="supernet",
        objectives=("accuracy", "macs"),
        trials=options.trials,
    )
    device = {"resolution": side, "objectives": ("accuracy", "peak_memory")}
    second, of_second = timed_search(options, "second", supernet=first.path, trials=options.more, **device)
    found = {"first, as it is": losses(first), f"second, {options.more} more trained": losses(second)}
    if options.alone:
        alone, of_alone = timed_search(options, "alone", evaluator="supernet", trials=options.trials, **device)
        found["alone"] = losses(alone)
    everything = np.concatenate(list(found.values()))
    low, high = everything.min(axis=0), everything.max(axis=0)
    trusted = first.study.user_attrs.get("supernet_trusted")
    say(f"first: {options.trials} trials and a supernet (trusted: {trusted}), {of_first:.0f} s")
    say(f"second: {of_second:.0f} s, {100 * of_second / of_first:.1f} % of the first")
    if options.alone:
        say(f"alone: {of_alone:.0f} s")
    for name, points in found.items():
        volume = pareto.hypervolume((points - low) / (high - low), [1.1, 1.1])
        say(f"{name}: hypervolume {volume:.3f}, best {-100 * points[:, 0].min():.1f} %")


if __name__ == "__main__":
    main()
