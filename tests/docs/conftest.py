"""A folder in which what the pages show can run."""

from pathlib import Path

import pytest
import runs
import yaml
from pages import PAGES, snippets

import nas
from nas.driver.run import Run
from nas.driver.settings import Settings
from nas.training.checkpoint import save_checkpoint
from nas.training.recipe import Recipe

SMALL = {
    "name": "small",
    "input": {"channels": 1, "resolution": 8},
    "stem": {"channels": 8},
    "stages": [{"block": "inverted_residual", "channels": 8, "expansion": {"choice": [1, 2, 3, 4]}}],
}


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the snippets read: a run, a training, and the YAML of the pages. Accuracies are invented."""
    folder = tmp_path_factory.mktemp("docs")
    for snippet in (snippet for page in PAGES for snippet in snippets(page) if snippet.language == "yaml"):
        (folder / f"{yaml.safe_load(snippet.code)['name']}.yaml").write_text(snippet.code)
    invented_run(folder / "results" / "first")
    small = nas.Space(SMALL).sample(0)
    nas.train(small, recipe="search", epochs=3, train_size=60, out=folder / "results" / "best")
    return folder


def invented_run(out: Path) -> None:
    settings = Settings(space=SMALL, objectives=("accuracy", "size"), recipe=Recipe(epochs=1).to_dict(), trials=3)
    search = runs.begin(out, settings)
    for accuracy in (0.5, 0.7, 0.6):
        candidate = search.propose()
        assert candidate is not None
        search.record_epoch(candidate.number, runs.epoch(1, accuracy))
        search.complete(candidate.number)
        weights = runs.checkpoint_of(candidate.architecture, settings, epochs=1, accuracy=accuracy)
        save_checkpoint(out / "checkpoints" / f"{candidate.number}.pt", weights)
    Run.open(out).write_tables()
