"""Runs to report, and a real browser to look at the pages with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsers import Browser, chromium_with
from studies import invented_run, trained_run

from nas.architecture import catalogue
from nas.architecture.document import Architecture
from nas.driver.run import Run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained_run(tmp_path_factory.mktemp("runs") / "trained")


@pytest.fixture(scope="session")
def run() -> Run:
    """60 trials, a few of them failed, with latencies and the front confirmed; accuracies invented."""
    return invented_run(
        Path("results/example"), trials=60, fails=lambda number: "out of memory" if number % 17 == 16 else None
    )


@pytest.fixture(scope="session")
def queued_run() -> Run:
    """With a network of the user's own, `mine`, trained beside the published ones."""
    base = catalogue.load("han-e").with_input(channels=1, resolution=8)
    mine = Architecture.from_dict({**base.to_dict(), "name": "mine", "width": 0.5})
    return invented_run(Path("results/queued"), trials=40, own=[mine])


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium_with(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
