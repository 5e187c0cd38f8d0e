"""Images of a data set, and how a network judges them: pages of their own, and sections of a run's report."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from nas.report.page import page_data, render, write_page
from nas.report.scatter import Figure
from nas.training.data import FOLDER_PREFIX, Dataset, PartName
from nas.training.facts import fact_rows
from nas.training.per_class import Judgement
from nas.training.pictures import picture
from nas.units import counted, percent

_MOST_NUMBERS = 25
"""With more classes the cells of a confusion matrix are too small for their numbers."""


def write_data_page(path: Path, document: Mapping[str, Any], pictures: Mapping[str, str]) -> None:
    """Write a page of a data set's facts and of images of its classes.

    Raises:
        UserError: it cannot be written.
    """
    name = document["dataset"]
    page = render(
        "images.html.j2",
        {},
        title=Path(name).name if name.startswith(FOLDER_PREFIX) else name,
        subtitle=name,
        images=data_section(document, pictures),
        judgements={},
        footer="Written by nas data.",
    )
    write_page(path, page)


def write_judgement_page(path: Path, name: str, data: Dataset, judgements: Mapping[PartName, Judgement]) -> None:
    """Write a page of how a network judges the parts of a data set.

    Args:
        path: the page.
        name: of the network.
        data: the data set in its format, to show its mistakes.
        judgements: by part.

    Raises:
        UserError: it cannot be written.
    """
    figures = {f"confusion_{part}": confusion_figure(judgement) for part, judgement in judgements.items()}
    dataset = data.name
    sections = {}
    for part, judgement in judgements.items():
        images = data.part(part).images
        pictures = [picture(images[mistake["index"], None]) for mistake in judgement["mistakes"]]
        sections[part] = judgement_section(judgement, pictures)
    page = render(
        "images.html.j2",
        page_data([], [], figures, []),
        title=f"{name} on {Path(dataset).name if dataset.startswith(FOLDER_PREFIX) else dataset}",
        subtitle=dataset,
        images=None,
        judgements=sections,
        footer="Written by nas evaluate.",
    )
    write_page(path, page)


def data_section(document: Mapping[str, Any], pictures: Mapping[str, str]) -> dict[str, Any]:
    """Describe a data set as a section of a page shows it."""
    return {
        "rows": fact_rows(document),
        "classes": [{**item, "picture": pictures.get(item["name"], "")} for item in document["classes"]],
        "notes": document["notes"],
        "side": document["resolution"],
    }


def judgement_section(judgement: Judgement, pictures: Sequence[str]) -> dict[str, Any]:
    """Describe a judgement as a section of a page shows it, with pictures of its mistakes."""
    images = judgement["images"]
    return {
        "accuracy": percent(judgement["accuracy"], images),
        "balanced": percent(judgement["balanced_accuracy"], images),
        "images": counted(images, "image"),
        "classes": [
            {
                "name": item["name"],
                "images": f"{item['images']:,}",
                "recall": percent(item["recall"], item["images"]),
                "precision": percent(item["precision"], item["images"]),
            }
            for item in judgement["classes"]
        ],
        "mistakes": [
            {**mistake, "probability": f"{100 * mistake['probability']:.0f} %", "picture": drawn}
            for mistake, drawn in zip(judgement["mistakes"], pictures, strict=True)
        ],
    }


def confusion_figure(judgement: Judgement) -> Figure:
    """Draw the confusion matrix: a row per class, coloured by the shares of its images."""
    names = [escape(item["name"]) for item in judgement["classes"]]
    counts = judgement["confusion"]
    shares = [[count / (sum(row) or 1) for count in row] for row in counts]
    few = len(names) <= _MOST_NUMBERS
    side = max(180, len(names) * (30 if few else 10))
    axis = {"type": "category", "showgrid": False, "fixedrange": True, "nticks": 40}
    return {
        "data": [
            {
                "type": "heatmap",
                "z": shares,
                "x": names,
                "y": names,
                "text": [[f"{count:,}" if count and few else "" for count in row] for row in counts],
                "customdata": counts,
                "texttemplate": "%{text}",
                "textfont": {"color": "var(--ink)"},
                "hovertemplate": "%{y} taken for %{x}: %{customdata:,} (%{z:.1%})<extra></extra>",
                "colorscale": [[0, "var(--heat-none)"], [1, "var(--heat)"]],
                "zmin": 0,
                "zmax": 1,
                "showscale": False,
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
