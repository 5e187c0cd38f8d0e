"""What a search leaves and how it decides, as recorded: what a refactoring of the driver has to leave as it is.

`python tests/driver/test_run_contract.py` records the decisions again, where a change is meant.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest
from test_trial_scheduler import open_scheduler, trials
from test_trial_scheduler import run as train_all

import nas
from nas.driver.objectives import parse_limit

FILE = Path(__file__).with_name("recorded_decisions.json")
SEARCHES = {
    "known-cost": {"sampler": "known-cost", "trials": 18},
    "known-cost, a limit": {"sampler": "known-cost", "trials": 12, "limits": (parse_limit("size<=12kB"),)},
    "known-cost, a queue": {"sampler": "known-cost", "trials": 12, "queue": ("mobilenetv2-cifar", "han-e")},
    "tpe": {"sampler": "tpe", "trials": 12},
    "random, the whole space": {"sampler": "random", "trials": 60},
}


def decisions(folder, space, *, queue=(), **options):
    """Each trial's network and end, of a search with one worker and invented accuracies."""
    queue = [nas.load(name).with_input(channels=1, resolution=8) for name in queue]
    with open_scheduler(folder, space, queue=queue, **options) as scheduler:
        train_all(scheduler)
        return [
            [trial.user_attrs["id"], trial.state.name, *map(trial.user_attrs.get, ("reason", "beside"))]
            for trial in trials(scheduler)
        ]


@pytest.mark.parametrize("search", SEARCHES)
def test_a_seeded_search_decides_as_recorded(search, tmp_path, small_space):
    assert decisions(tmp_path, small_space, **SEARCHES[search]) == json.loads(FILE.read_text())[search]


if __name__ == "__main__":
    from conftest import SMALL

    found = {}
    for name, options in SEARCHES.items():
        with tempfile.TemporaryDirectory() as place:
            found[name] = decisions(Path(place), nas.Space(SMALL), **options)
    rows = {name: ",\n  ".join(map(json.dumps, part)) for name, part in found.items()}
    FILE.write_text("{" + ",".join(f"\n {json.dumps(name)}: [\n  {part}\n ]" for name, part in rows.items()) + "\n}\n")
    sys.exit(0)
