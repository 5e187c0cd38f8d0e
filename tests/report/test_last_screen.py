"""The last screen of a search."""

import io
from pathlib import Path

from rich.console import Console
from studies import invented_run

from nas.screen import print_run
from nas.search.run import Run


def screen_of(run: Run) -> str:
    text = io.StringIO()
    print_run(Console(file=text, width=200), run, Path("report.html"))
    return text.getvalue()


def test_predicted_and_measured_latencies_have_columns_of_their_own(run: Run) -> None:
    lines = screen_of(run).splitlines()
    head = next(line for line in lines if "Network" in line)
    assert head.index("ms predicted") < head.index("ms measured")
    for rank, record in enumerate(run.front_records, 1):
        cells = lines[lines.index(head) + rank].split()
        assert f"{record.costs['latency']:.3g}" in cells
        assert f"{record.confirmed['latency_ms']:.3g}" in cells


def test_no_column_for_latencies_that_nobody_asked_for() -> None:
    run = invented_run(Path("results/sizes"), trials=12, objectives=("accuracy", "size"))
    assert " ms" not in screen_of(run)


def test_it_says_how_the_networks_asked_for_stand(run: Run) -> None:
    text = screen_of(run)
    for record in run.records:
        if record.origin and record.state == "complete":
            assert record.architecture.name in text
