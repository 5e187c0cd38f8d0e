"""A run's folder: what stands in it, writing it, and opening it again.

::

    run.yaml            what was asked for and on what machine; enough to run it again
    study.journal       the Optuna study: the record (unless --storage names a database)
    trials.csv          one row per trial
    front/01-<id>.yaml  the networks of the front, most accurate first; loadable as they are
    checkpoints/<n>.pt  weights of the front and of the published networks, by trial number
    data.json           what the images are like, for the report
    judged/<n>.json     how these networks judge the test images, class by class, for the report
    report.html
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import optuna
import pandas as pd

from nas.architecture.document import Architecture
from nas.driver.belief import Belief, believe
from nas.driver.objectives import OBJECTIVES, Objective, parse_limit, trained_for
from nas.driver.prepare import LATENCY_FILE, cost_function
from nas.driver.record import CELLS, COLUMNS, WHOLE, Record, read_records
from nas.driver.run_file import read_run_file
from nas.driver.settings import Settings
from nas.driver.storage import STUDY_FILE, open_storage
from nas.errors import UserError, printable
from nas.files import remove_unfinished, write_atomic
from nas.latency import Prediction, load_table
from nas.latency.layers import segments
from nas.units import counted, int8_percent, percent


class Run:
    """A run on disk, finished or not. Open one with :meth:`open`.

    Attributes:
        path: its folder.
        settings: what was asked for.
        environment: machine and versions of the process that began it.
        data: images per part (``train``, ``validation``, ``test``), ``classes``, ``resolution`` (side in pixels)
            and ``own_validation``, of a folder also ``images``, its fingerprint; empty in a run of an older nas.
        records: all trials, in order.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        environment: Mapping[str, Any],
        study: optuna.Study,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.settings = settings
        self.environment = environment
        self.data = data or {}
        self.study = study
        self.records = read_records(study, settings, str(path))

    @classmethod
    def open(cls, path: "str | Path | Run") -> "Run":
        """Open a run's folder; a run that is open already is returned as it is.

        Raises:
            UserError: there is no run, or its files are not what they should be.
        """
        if isinstance(path, Run):
            return path
        path = Path(path)
        document = read_run_file(path)
        settings = Settings.from_dict(document.get("settings"), str(path / "run.yaml"))
        storage = document.get("storage")
        if storage is None and not (path / STUDY_FILE).is_file():
            raise UserError(f"{path}: the run's record {STUDY_FILE} is missing")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            study = optuna.load_study(study_name=document["study"], storage=open_storage(path, storage, create=False))
        except KeyError as error:
            raise UserError(f"{path}: its study does not stand in {storage or STUDY_FILE}") from error
        return cls(path, settings, document.get("environment", {}), study, document.get("data"))

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return self.settings.parsed_objectives

    @property
    def is_exhausted(self) -> bool:
        """Return whether the search ended before its budget because the space held no more networks to train."""
        return self.study.user_attrs.get("exhausted") is True

    @property
    def sessions(self) -> list[float]:
        """Return when its drivers began to train, in POSIX seconds; empty in runs of older versions."""
        known = self.study.user_attrs.get("sessions")
        return [float(at) for at in known if isinstance(at, int | float)] if isinstance(known, list) else []

    @property
    def is_tested(self) -> bool:
        """Return whether what is found out at the end (test accuracy) is known of the whole front."""
        return all(
            "test_accuracy" in record.confirmed for record in self.records if record.on_front and not record.untrained
        )

    @property
    def front_records(self) -> list[Record]:
        """The front, most accurate first."""
        judged = trained_for(self.objectives)
        return sorted(
            (record for record in self.records if record.on_front),
            key=lambda record: (-(record.value(judged) or 0), record.costs["params"]),
        )

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial, in the columns of ``trials.csv``."""
        images = self.data.get("validation")
        rows = [
            [*(cell(record) for cell in CELLS.values()), *self.belief.cells(record, images)] for record in self.records
        ]
        return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(WHOLE, "Int64"))

    @cached_property
    def belief(self) -> Belief:
        """What can be believed of the accuracies, beyond what was observed."""
        return believe(
            self.records, self.settings.open_space(), self.objectives, self.data.get("validation"), self.settings.seed
        )

    @property
    def front(self) -> pd.DataFrame:
        """The rows of the front, most accurate first."""
        order = [record.number for record in self.front_records]
        return self.trials.set_index("trial", drop=False).loc[order].reset_index(drop=True)

    def best(self, limit: Mapping[str, str] | None = None, *, latency_table: str | Path | None = None) -> Record:
        """The most accurate network that was trained to the end, of those that may stand on the front.

        Args:
            limit: largest values by objective, such as ``{"size": "1MB", "latency": "5ms"}``.
            latency_table: to predict latencies from where the search knew none; default the run's or its settings'.

        Raises:
            UserError: no network keeps the limits, or nothing tells a limited figure.
        """
        if limit is not None and not isinstance(limit, Mapping):
            raise UserError(f'limit {limit!r}: give a mapping, such as {{"size": "1MB", "latency": "5ms"}}')
        aliases = self.settings.parsed_target.aliases
        limits = [parse_limit(f"{name}<={value}", aliases) for name, value in (limit or {}).items()]
        ended = [record for record in self.records if record.state == "complete" and not record.beside]
        costs = {record.number: record.costs for record in ended}
        names = [item.objective.name for item in limits]
        unknown = any("latency" not in known for known in costs.values())
        if "latency" in names and (latency_table is not None or unknown):
            costs = self._with_latencies(ended, latency_table)
        for name in names:
            if ended and not any(name in known for known in costs.values()):
                raise UserError(f"{self.path}: {name} is known of none of its networks")
        kept = [
            record
            for record in ended
            if all(name in costs[record.number] for name in names)
            and all(item.excess(costs[record.number]) <= 0 for item in limits)
        ]
        if not kept:
            shown = ", ".join(map(str, limits)) or "none was trained to the end"
            raise UserError(f"{self.path}: no network keeps the limits ({shown})")
        judged = trained_for(self.objectives)
        return max(kept, key=lambda record: (record.value(judged) or 0, -record.costs["params"]))

    def _with_latencies(self, records: Sequence[Record], file: str | Path | None) -> dict[int, Mapping[str, float]]:
        """Costs by trial number, with latencies predicted from the table given, else the run's or its settings'.

        Raises:
            UserError: no latency is known and there is no table, or the table cannot be used.
        """
        own = [self.path / LATENCY_FILE, *map(Path, filter(None, [self.settings.latency_table]))]
        path = Path(file) if file is not None else next((place for place in own if place.is_file()), None)
        if path is None and any("latency" in record.costs for record in records):
            return {record.number: record.costs for record in records}
        if path is None:
            raise UserError(
                f"{self.path}: the search knew no latencies; calibrate the device (nas latency calibrate --space "
                f"{self.settings.space.get('name', 'SPACE')}) and give its file as latency_table"
            )
        table = load_table(path)
        table.check(num_classes=self.data.get("classes"))

        def predict(architecture: Architecture) -> Prediction | None:
            known = all(map(table.knows, segments(architecture, table.num_classes)))
            return table.predict(architecture) if known else None

        predicted = cost_function(table.num_classes, predict, self.settings.parsed_target)
        searched = {record.number: record.costs if file is None else {} for record in records}
        return {record.number: {**predicted(record.architecture), **searched[record.number]} for record in records}

    def __repr__(self) -> str:
        trained, front = sum(record.was_trained for record in self.records), self.front_records
        best = (
            f", the most accurate {percent(front[0].accuracy, self.data.get('validation'))} in validation"
            if front
            else ""
        )
        return (
            f"<Run {self.path}: {self.settings.space.get('name', 'space')} on {self.settings.dataset}, {trained} of "
            f"{counted(self.settings.trials, 'trial')} done, {len(front)} on the front{best}>"
        )

    def _repr_html_(self) -> str:
        """The front as a table, for notebooks."""
        hidden = ["trial", "state", "epochs", "seconds", "on_front", "reason"]
        return f"<p>{escape(repr(self))}</p>{self.front.drop(columns=hidden).to_html(index=False)}"

    def _accuracy(self, objective: Objective, record: Record) -> str:
        fp32 = record.reached.get(objective.name) if record.fp32_accuracy is not None else None
        return int8_percent(record.value(objective), fp32, self.data.get("validation"))

    def measured_over_limits(self, record: Record) -> str:
        """Return which limits a network breaks by what was measured of its file; empty where it keeps them."""
        limits = [limit for limit in self.settings.parsed_limits if limit.objective.name in record.measured]
        broken = [limit for limit in limits if limit.excess(record.measured) > 0]
        return ", ".join(f"{limit.text}: {limit.show(record.measured)} measured" for limit in broken)

    def front_file(self, rank: int, record: Record) -> Path:
        """Return where a member of the front is written; `rank` counts from 1."""
        return self.path / "front" / f"{rank:02d}-{record.architecture.id}.yaml"

    def judgement_file(self, number: int) -> Path:
        """Return where it stands how a trial's network judges the test images, once it did."""
        return self.path / "judged" / f"{number}.json"

    def checkpoint(self, record: Record) -> Path:
        """Return where a trial's weights are, if they are kept."""
        return self.path / "checkpoints" / f"{record.number}.pt"

    def write_tables(self) -> None:
        """Write ``trials.csv`` and the front's files; files of networks that are on the front no more go."""
        folder = self.path / "front"
        folder.mkdir(exist_ok=True)
        for place in (self.path, folder):
            remove_unfinished(place)
        write_atomic(self.path / "trials.csv", self.trials.to_csv(index=False))
        files = {}
        for rank, record in enumerate(self.front_records, 1):
            figures = ", ".join(
                f"{objective.name} {objective.show(value) if objective.known else self._accuracy(objective, record)}"
                for objective in self.objectives
                if (value := record.value(objective)) is not None
            )
            figures += "".join(
                f"; {name} measured: {OBJECTIVES[name].show(value)}" for name, value in record.measured.items()
            )
            heading = f"# {printable(f'trial {record.number} of a search on {self.settings.dataset}: {figures}')}\n"
            files[self.front_file(rank, record)] = heading + record.architecture.to_yaml()
        for file, text in files.items():
            write_atomic(file, text)
        for file in folder.glob("*.yaml"):
            if file not in files:
                file.unlink()
