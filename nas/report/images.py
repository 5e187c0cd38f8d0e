"""Images of a data set, and how a network judges them, as sections of a page."""

from html import escape
from typing import Any

from nas.driver.run import Run
from nas.driver.run_file import DATA_FILE
from nas.files import read_text
from nas.report.points import shown_name
from nas.report.scatter import HEATMAP, Figure
from nas.training.facts import Summary, read_summary
from nas.training.per_class import Judgement, read_judgement
from nas.units import counted, percent

_MOST_BYTES = 20_000_000
_MOST_CLASSES = 60
"""More of them would make the page slow, and nobody reads them."""
_MOST_NUMBERS = 25
"""With more classes the cells of a confusion matrix are too small for their numbers."""


def run_sections(run: Run) -> tuple[Summary | None, str, Judgement | None]:
    """Read a run's records of its images: the data set, and a network with its judgement of the test images.

    The network is the first of the front whose judgement is known.

    Raises:
        UserError: a file is damaged.
    """
    file = run.path / DATA_FILE
    summary = read_summary(read_text(file, most=_MOST_BYTES), str(file)) if file.is_file() else None
    for record in run.front_records:
        if (judgement := read_judged(run, record.number)) is not None:
            return summary, shown_name(run, record), judgement
    return summary, "", None


def read_judged(run: Run, number: int) -> Judgement | None:
    """Read how a trial's network judges the test images; None where it did not.

    Raises:
        UserError: the file is damaged.
    """
    file = run.judgement_file(number)
    return read_judgement(read_text(file, most=_MOST_BYTES), str(file)) if file.is_file() else None


def judgement_section(judgement: Judgement) -> dict[str, Any]:
    """Describe a judgement as a section of a page shows it."""
    images, shown = judgement["images"], hardest(judgement)
    classes = [judgement["classes"][index] for index in shown]
    return {
        # no line breaks before the unit
        "accuracy": percent(judgement["accuracy"], images).replace(" ", "\u00a0"),
        "balanced": percent(judgement["balanced_accuracy"], images).replace(" ", "\u00a0"),
        "images": counted(images, "image"),
        "all_classes": len(judgement["classes"]),
        "classes": [
            {
                "name": item["name"],
                "images": f"{item['images']:,}",
                "recall": percent(item["recall"], item["images"]),
                "precision": percent(item["precision"], item["images"]),
            }
            for item in classes
        ],
        "mistakes": [
            {**mistake, "probability": f"{100 * mistake['probability']:.0f} %"} for mistake in judgement["mistakes"]
        ],
    }


def hardest(judgement: Judgement) -> list[int]:
    """The classes that a page shows, in their order: all, or of very many those of the most mistakes."""
    counts = judgement["confusion"]
    given = [sum(column) for column in zip(*counts, strict=True)]
    mistakes = [sum(row) + given[index] - 2 * row[index] for index, row in enumerate(counts)]
    return sorted(sorted(range(len(counts)), key=lambda index: -mistakes[index])[:_MOST_CLASSES])


def confusion_figure(judgement: Judgement) -> Figure:
    """Draw the confusion matrix: a row per class, coloured by the shares of its images."""
    shown = hardest(judgement)
    names = [escape(judgement["classes"][index]["name"]) for index in shown]
    totals = [sum(judgement["confusion"][index]) or 1 for index in shown]
    counts = [[judgement["confusion"][row][column] for column in shown] for row in shown]
    shares = [[count / total for count in row] for row, total in zip(counts, totals, strict=True)]
    few = len(names) <= _MOST_NUMBERS
    side = max(180, len(names) * (30 if few else 10))
    axis = {"type": "category", "showgrid": False, "fixedrange": True, "nticks": 40}
    return {
        "data": [
            {
                **HEATMAP,
                "z": shares,
                "x": names,
                "y": names,
                "text": [[f"{count:,}" if count and few else "" for count in row] for row in counts],
                "customdata": counts,
                "hovertemplate": "%{y} taken for %{x}: %{customdata:,} (%{z:.1%})<extra></extra>",
                "zmax": 1,
                "xgap": 1,
                "ygap": 1,
            }
        ],
        "layout": {
            "xaxis": {**axis, "side": "top", "title": {"text": "Predicted"}},
            "yaxis": {**axis, "autorange": "reversed", "title": {"text": "Class"}},
            "height": 130 + side,
            "margin": {"l": 140, "r": 16, "t": 110, "b": 10},
            "least_width": 160 + side,
        },
    }
