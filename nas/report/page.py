"""A run as one HTML file that opens offline."""

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from nas.architecture.reported import Printed
from nas.driver.final_evaluation import to_evaluate
from nas.driver.run import Run
from nas.driver.search import is_finished
from nas.files import write_file
from nas.report import effort, gain, importance, reliability, schedules
from nas.report.figures import Sources, run_figures
from nas.report.images import confusion_figure, judgement_section, run_sections
from nas.report.points import Point, command, points_data, shorten
from nas.report.scatter import Figure, axes_of, regions
from nas.report.summary import ENDED, filled_columns, front_rows, summary
from nas.training.data import FOLDER_PREFIX, Dataset, PartName
from nas.training.facts import summarise
from nas.training.per_class import Judgement, with_pictures
from nas.units import QUANTITIES, counted

REPORT_FILE = "report.html"

MOST_ROWS = 8
"""A longer front is folded: the plot should not be pages away."""


def write_report(run: Run, path: Path | None = None, *, printed: Sequence[Printed] = ()) -> Path:
    """Write a run's report.

    Args:
        run: finished or not.
        path: the file; default ``report.html`` in the run's folder.
        printed: what papers print of networks on the run's data set.

    Returns:
        The file's path.

    Raises:
        UserError: it cannot be written.
    """
    path = path or run.path / REPORT_FILE
    write_file(path, render_page(run, printed))
    return path


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
        images=summarise(document, pictures),
        judgements={},
        footer="Written by nas data.",
    )
    write_file(path, page)


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
    sections = {
        part: judgement_section(with_pictures(judgement, data.part(part))) for part, judgement in judgements.items()
    }
    page = render(
        "images.html.j2",
        page_data([], [], figures, []),
        title=f"{name} on {Path(dataset).name if dataset.startswith(FOLDER_PREFIX) else dataset}",
        subtitle=dataset,
        images=None,
        judgements=sections,
        footer="Written by nas evaluate.",
    )
    write_file(path, page)


def render_page(run: Run, printed: Sequence[Printed] = ()) -> str:
    """Render the report's HTML."""
    sources = Sources(run, printed)
    points, keys = sources.points, sources.keys
    figures = run_figures(sources)
    data_set, judge, judgement = run_sections(run)
    if judgement is not None:
        figures["confusion_test"] = confusion_figure(judgement)
    data = page_data([run], points, figures, [regions(points)])
    rows = front_rows(run)
    indices = {point.number: index for index, point in enumerate(points)}
    settings, environment = run.settings, run.environment
    started = environment.get("started", "")[:16].replace("T", " ")
    return render(
        "page.html.j2",
        data,
        title=f"{settings.space.get('name', 'space')} on {settings.dataset}",
        subtitle=" · ".join(
            filter(None, ("Architecture search", started, reliability.images_line(run), str(run.path)))
        ),
        status=status(run),
        gained=[together(sentence) for sentence in gain.sentences(run)],
        summary=together(summary(run)),
        columns=filled_columns(rows, ("memory", "latency", "distance")),
        int8=settings.target if settings.parsed_target.int8 else "",
        over_limits=[together(sentence) for sentence in reliability.over_limits(run)],
        front=[(row, indices[row["number"]], points[indices[row["number"]]].kind) for row in rows],
        quantities=[(key, QUANTITIES[key].title) for key in keys],
        axes=sources.axes,
        most_rows=MOST_ROWS,
        any_rungs=bool(settings.rungs),
        any_queued=any(point.kind in ("own", "published") for point in points),
        figures=set(figures),
        schedules=[_schedule_row(points[index], index) for index in schedules.drawn(points)],
        images={part: f"{run.data[part]:,}" for part in ("validation", "test") if part in run.data},
        verdict=together(schedules.verdict(points)),
        expansions=data["expansions"],
        importance_note=importance.note(run, sources.importances),
        time_sentence=together(effort.time_sentence(effort.time_spent(run))),
        endings=effort.ending_rows(run),
        data_set=data_set,
        judge=judge,
        judgement=judgement and judgement_section(judgement),
        reliability=[together(sentence) for sentence in reliability.sentences(run)],
        facts=reliability.facts(run),
        footer=f"Written by nas {environment.get('versions', {}).get('nas', '')}.",
    )


def _schedule_row(point: Point, index: int) -> dict[str, Any]:
    places = [f"no. {point.rank} on the front"] if point.rank else []
    kinds = {"found": [], "own": ["your own"]}.get(point.kind, [point.kind])
    return {
        "point": index,
        "name": point.name,
        "kind": point.kind,
        "note": ", ".join([*kinds, *places, *([ENDED[point.state]] if point.state in ("stopped", "failed") else [])]),
        "size": point.show("size"),
        "accuracy": point.show("accuracy") if point.state in ("complete", "printed") else "–",
    }


def status(run: Run) -> str:
    """Say how far a run is that is not finished; empty for one that is."""
    if is_finished(run, run.settings):
        return ""
    done = sum(record.was_trained for record in run.records)
    running = sum(record.state == "running" for record in run.records)
    now = f", {running} in training" if running else ""
    moment = datetime.datetime.now().strftime("%Y-%m-%d %H:%M")
    share = f"{done} of {counted(run.settings.trials, 'trial')} done{now}"
    read = sum("test_accuracy" in record.confirmed for record in run.front_records)
    settings = run.settings
    if is_finished(run, replace(settings, confirm=0)):  # such as a search whose time was over
        networks, epochs = to_evaluate(run), settings.epochs_of_confirmation
        confirmed = sum(record.repeats(epochs) >= settings.confirm for record in networks)
        front, seeds = counted(len(networks), "network"), counted(settings.confirm, "further seed")
        return f"Not finished on {moment}: {share}, {confirmed} of {front} confirmed by {seeds}."
    front = counted(len(run.front_records), "network")
    tests = f"has been read for {read} of {front} of the front" if read else "has not been read"
    return f"Not finished on {moment}: {share}. The test set {tests}."


def page_data(
    runs: Sequence[Run], points: Sequence[Point], figures: Mapping[str, Any], run_regions: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Collect the data that the page's script reads."""
    # The colours span what was trained; a printed network of another family may lie outside.
    drawn = [point.architecture for point in points if point.architecture is not None and point.kind != "printed"]
    expansions = [
        t for architecture in drawn for stage in architecture.stages if (t := getattr(stage, "expansion", None))
    ]
    axes = axes_of(points)
    quantities = {
        key: {
            "title": QUANTITIES[key].title,
            "axis": axis.title,
            "log": axis.is_log,
            "factor": axis.factor,
            "ticks": axis.ticks,
        }
        for key, axis in axes.items()
    }
    return {
        "points": points_data(points),
        "quantities": quantities,
        "regions": run_regions,
        "expansions": [min(expansions, default=1), max(expansions, default=1)],
        "runs": [{"name": run.path.name, "command": command(run, "NETWORK")} for run in runs],
        "figures": {name: _without_hover(figure) for name, figure in figures.items()},
    }


def _without_hover(figure: Figure) -> Figure:
    """Leave out the hover texts of networks: the page shows a card of its own for those."""
    traces = [
        {key: value for key, value in trace.items() if "meta" not in trace or key not in ("hovertext", "hovertemplate")}
        for trace in figure["data"]
    ]
    return {**figure, "data": traces}


def render(template: str, data: Mapping[str, Any], **context: Any) -> str:
    """Fill a template of this package with the data, the style, plotly and the script."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read), autoescape=True, trim_blocks=False, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(template).render(
        data=embed(data),
        style=Markup(_read("style.css")),
        script=Markup(_read("report.js")),
        plotly=Markup(_plotly()),
        **context,
    )


def together(text: str) -> str:
    """Tie numbers to their units, so that no line breaks between them."""
    return re.sub(r"(\d) (%|[kMG]?B|ms|s|min|h|points)(?!\w)", "\\1\u00a0\\2", text)


def embed(data: Any) -> Markup:
    """Write JSON to stand in a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(_rounded(data), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return shorten(value)
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _read(name: str) -> str:
    return (resources.files("nas.report") / name).read_text(encoding="utf-8")


def _plotly() -> str:
    """Read the plotly.js that comes with plotly; it holds no ``</script>``."""
    return (resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
