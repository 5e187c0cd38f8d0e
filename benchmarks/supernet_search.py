"""A search with a supernet in the time of 12 trainings, beside 60 full trainings.

CIFAR-10 at 16x16 pixels, objectives accuracy and size, known-cost sampling, one trial at a time.

- `60 trained`: a search that trains 60 networks to the end, none stopped early; its first 12 are `12 trained`.
- `supernet`: ``nas search --evaluator supernet --hours``, given a fifth of the seconds that the search of 60 took; it
  trains its supernet, judges members by it and trains the best within them.

The arms take turns on one core. Fronts are confirmed as those of real_search.py: thinned to six networks, trained again
with new seeds, judged by the test images; rows go to ``FOLDER/confirmed.jsonl`` at once. A search that is done in
FOLDER is not begun again.

    python benchmarks/supernet_search.py FOLDER --data-dir DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import machine
import real_search
from real_search import Searched, Trained, trained_networks
from timed_search import timed_search

from nas.driver.options import Resources

PART = 5
"""The supernet has so many times less time than the full trainings."""


def search(options: argparse.Namespace, name: str, **asked: Any) -> tuple[list[Trained], float]:
    """Search, or open what is there: the networks trained to the end in turn, and the search's seconds."""
    one_at_a_time = Resources(max_concurrent=1)
    asked |= {"resolution": real_search.RESOLUTION, "objectives": ("accuracy", "size"), "keep": "none"}
    run, seconds = timed_search(options, name, resources=one_at_a_time, **asked)
    return trained_networks(run), seconds


def main() -> None:
    parser = machine.parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--space", default=str(Path(__file__).with_name("supernet_space.yaml")))
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--trials", type=int, default=60, help="networks that are trained in full")
    parser.add_argument("--seeds", type=int, default=3, help="searches of each arm")
    parser.add_argument("--judging-seeds", type=int, default=3, help="trainings of each network that is judged")
    parser.add_argument("--judging-epochs", type=int, help="of these trainings (default: --epochs)")
    parser.add_argument("--workers", type=int, default=2, help="judging trainings at once, of one thread each")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    say = machine.Output(options.out)
    first = options.trials // PART
    found: dict[str, list[list[Trained]]] = {f"{options.trials} trained": [], f"{first} trained": [], "supernet": []}
    for seed in range(options.seeds):
        trained, seconds = search(options, f"trained-{seed}", seed=seed, trials=options.trials, reduction=1)
        given = seconds / PART
        judged, took = search(
            options, f"supernet-{seed}", seed=seed, trials=options.trials, hours=given / 3600, evaluator="supernet"
        )
        own = f"a supernet and {len(judged)} trained in {took:.0f} of {given:.0f} s"
        say(f"seed {seed}: {len(trained)} trained in {seconds:.0f} s; {own}")
        for name, networks in zip(found, (trained, trained[:first], judged), strict=True):
            found[name].append(networks)
    searches = [Searched(name, networks) for name, each in found.items() for networks in each]
    real_search.judge(options, searches, say)


if __name__ == "__main__":
    main()
