"""docs/method.md gives the numbers that the code has."""

import inspect
import re

from pages import METHOD, ROOT, named, prose, section, snippets, table

import nas
from nas.costs.analytic import cost
from nas.costs.profile import profile
from nas.driver.settings import Settings
from nas.driver.stopping import FEWEST_STEPS, first_rung, rungs
from nas.training.recipe import RECIPES


def test_figures_are_those_of_the_benchmarks() -> None:
    quoted = [snippet for snippet in snippets("docs/method.md") if snippet.language == "text"]
    assert quoted
    printed = (ROOT / "results" / "benchmarks" / "search_quality.txt").read_text()
    for snippet in quoted:
        blocks = [block.splitlines() for block in snippet.code.strip().split("\n\n")]
        for name, *lines in blocks:
            own = printed[printed.index(f"{name}: ") :]
            for line in lines:
                assert line in own.split("wrote")[0], line


def test_docstrings_are_quoted_as_they_stand() -> None:
    quotes = re.findall(r"\"([^\"]+)\"\s*(?:\([^)]*\)\"?)?:?\s*docstring\s+in\s+`([^`]+)`", prose("docs/method.md"))
    assert len(quotes) == 2
    for quote, file in quotes:
        assert flat(quote).lower() in flat((ROOT / file).read_text()).lower()


def flat(text: str) -> str:
    return " ".join(text.split())


def test_numbers_of_the_method() -> None:
    from nas.driver.sampler.known_cost import STARTUP_TRIALS
    from nas.driver.sampler.surrogate import _MODEL_POINTS
    from nas.driver.trial_scheduler import TrialScheduler
    from nas.latency import calibration, fitting, measuring, summary, timing
    from nas.latency.calibration import BUDGET_SECONDS
    from nas.latency.table import LATER
    from nas.training.data import _VALIDATION_FLOOR

    text = flat(METHOD)
    assert "Until eight trials" in text and STARTUP_TRIALS == 8
    assert f"at most {_MODEL_POINTS} trials" in text
    assert (
        "Five broken ones in a row" in text
        and inspect.signature(TrialScheduler).parameters["max_failures"].default == 5
    )
    assert "at least ten rounds" in text and measuring.ROUNDS == 10
    assert "eight runs to warm up and five that are timed" in text and (timing.WARM_UP_RUNS, measuring.RUNS) == (8, 5)
    assert f"up to {measuring.GROUP} together" in text and f"groups of {calibration.GROUP}" in text
    assert f"the {timing.QUANTILE:.0%} quantile" in text and summary.FEWEST == 5 and "fewer than five visits" in text
    assert f"wider than {summary.WIDEST:.0%}" in text and f"with a deviation of {LATER:.0%}" in text
    assert "count three times as much" in text and fitting.WHOLE_WEIGHT == 3
    assert f"the first {calibration.GROUP} networks are timed in any case" in text
    assert f"up to {calibration.NETWORKS} networks" in text and f"about {BUDGET_SECONDS:g} seconds" in text
    assert f"{Settings(space={}).validation_fraction:.0%} of them" in text and f"below {_VALIDATION_FLOOR:,}" in text
    search = RECIPES["search"]
    assert rungs(search.epochs, first_rung(63)) == (1, 2, 4)
    assert f"at least {FEWEST_STEPS} steps" in text


def test_counts_are_described() -> None:
    described = named(table(section(METHOD, "Counts"), "figure"), "figure")
    assert set(described) == set(cost(nas.load("han-e"))._fields)
    assert "own_macs" in profile(nas.load("han-e"))["thop"]
