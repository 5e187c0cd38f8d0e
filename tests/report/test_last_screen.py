"""The last screen of a search."""

import copy
import io
from dataclasses import replace
from pathlib import Path

from studies import invented_run

from nas.console import print_run, print_trained
from nas.driver.run import Run
from nas.report.points import shown_name
from nas.terminal import Terminal
from nas.training.session import Trained


def screen_of(run: Run, width: int = 200) -> str:
    text = io.StringIO()
    print_run(Terminal(file=text, width=width), run, Path("report.html"))
    return text.getvalue()


def column(run: Run, title: str) -> list[str]:
    """The cells under a title, by rank."""
    lines = screen_of(run).splitlines()
    head = next(line for line in lines if "Network" in line)
    ends = head.index(title) + len(title)
    return [lines[lines.index(head) + rank][:ends].split()[-1] for rank in range(1, len(run.front_records) + 1)]


def in_ms(latency: float) -> str:
    """Three digits of a latency between 0.1 and 10 ms."""
    return f"{latency:.2f}" if latency >= 1 else f"{latency:.3f}"


def test_latencies_are_called_measured_or_predicted(run: Run) -> None:
    measured = [in_ms(record.confirmed["latency_ms"]) for record in run.front_records]
    predicted = [in_ms(record.costs["latency"]) for record in run.front_records]
    assert column(run, "ms, measured") == measured
    assert "predicted" not in screen_of(run)
    some, none = copy.copy(run), copy.copy(run)
    first = run.front_records[0].number
    some.records = [replace(r, confirmed={}) if r.number == first else r for r in run.records]
    assert column(some, "ms, measured") == ["-", *measured[1:]]
    assert column(some, "ms, predicted") == predicted
    none.records = [replace(record, confirmed={}) for record in run.records]
    assert column(none, "ms, predicted") == predicted
    assert "measured" not in screen_of(none)


def test_names_and_titles_are_whole_in_80_columns(run: Run) -> None:
    text = screen_of(run, width=80)
    table = text[text.index("of them found by this search:") :]
    assert {"Network", "Validation", "Test", "Size", "measured", "Belongs", "Source"} <= set(table.split())
    for record in run.front_records:
        assert shown_name(run, record) in table.split()


def test_no_column_for_latencies_that_nobody_asked_for() -> None:
    run = invented_run(Path("results/sizes"), trials=12, objectives=("accuracy", "size"))
    assert " ms" not in screen_of(run)


def test_it_says_how_the_networks_asked_for_stand(run: Run) -> None:
    text = screen_of(run)
    for record in run.records:
        if record.origin and record.state == "complete":
            assert record.architecture.name in text


def test_a_training_for_a_target_is_exported_for_it() -> None:
    for name, option in (("litert-int8", " --target litert-int8"), ("torch", "")):
        text = io.StringIO()
        shipped = {"name": name, "int8": False, "file_bytes": 81_000, "memory_bytes": 5_000}
        weights = Path("best/model.safetensors")
        print_trained(Terminal(file=text), Trained(weights, weights, 0.5, 0.4, 100, 100, 2, shipped=shipped))
        assert f"nas export best/model.safetensors{option}\n" in text.getvalue()
        assert f"On {name}: 81.00 kB, memory 5.00 kB\n" in text.getvalue()


def test_balanced_accuracy_is_shown_where_it_was_searched_for(run: Run) -> None:
    assert "Balanced" not in screen_of(run)
    balanced = copy.copy(run)
    balanced.settings = replace(run.settings, objectives=("balanced_accuracy", "size"))
    balanced.records = [replace(record, balanced_accuracy=0.5 + record.number / 1000) for record in run.records]
    assert balanced.front_records == sorted(balanced.front_records, key=lambda record: -record.number)
    lines = [line for line in screen_of(balanced).splitlines() if line.rstrip().endswith(("found", "published"))]
    for rank, record in enumerate(balanced.front_records, 1):
        assert f"{50 + record.number / 10:.0f} %" in next(line for line in lines if line.split()[0] == str(rank))
