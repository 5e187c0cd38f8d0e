"""The search's record: an Optuna study, written by the driver alone.

What a trial's state means:

COMPLETE  trained to the full budget; its values are those of the last epoch
PRUNED    stopped early, or never trained (over a limit, or the same network as another trial); see its reason
FAIL      NaN, out of memory, a dead worker: see its reason
RUNNING   being trained, or left over from a driver that died

Every trial carries user attributes: ``id``, ``name``, ``document`` (the architecture), ``costs`` (by objective),
``origin`` (``published`` or ``own``, where it was queued rather than proposed), ``beside`` (why it may not stand on the
front, though it was asked for by name: outside the space, over a limit),
``epoch:1``, ``epoch:2`` and so on (a mapping each), ``reason``, ``twin`` (the number of an earlier trial of the same
network), ``untrained`` (true where no worker ever had it: over a limit, a twin, taken from an earlier run) and, where
it was stopped, ``partial`` (epoch, budget and values reached); one taken from an earlier run has its ``accuracy``. What
is found out after the search about trials that are closed by then stands in the study's attribute ``confirmed``, by
trial number.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.architecture.document import Architecture
from nas.architecture.space import Space, Value
from nas.driver.objectives import Limit, Objective, over_limits
from nas.driver.sampler.whole_space import WholeSpaceSampler
from nas.driver.scheduler import Candidate

EPOCH = "epoch:"
SUPERNET_ACCURACY = "supernet_accuracy"
"""A trial's attribute: what the supernet said of the network before it was trained."""
MAX_UNTRAINED_IN_A_ROW = 300

Costs = Mapping[str, float]
CostFunction = Callable[[Architecture], Costs]
"""The known figures of a network by objective name: params, macs, size, peak_memory, latency."""


def _described(architecture: Architecture) -> dict[str, Any]:
    return {"id": architecture.id, "name": architecture.name, "document": architecture.to_dict()}


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return a space's parameters as Optuna knows them."""
    return {name: CategoricalDistribution(item.values) for name, item in space.parameters_by_name.items()}


def curve_of(attributes: Mapping[str, Any]) -> list[dict[str, float]]:
    """The epochs that a trial's attributes hold, in order."""
    epochs: list[dict[str, float]] = []
    while (epoch := attributes.get(f"{EPOCH}{len(epochs) + 1}")) is not None:
        epochs.append(epoch)
    return epochs


def of_what_ships(figures: Mapping[str, float]) -> dict[str, float]:
    """Return accuracies by name: those of int8 where there are such, as after a trial's last epoch, else of fp32."""
    names = ("accuracy", "balanced_accuracy")
    return {name: figures.get(f"int8_{name}", figures[name]) for name in names if name in figures}


def may_stand_on_front(trial: FrozenTrial) -> bool:
    """Check that a trial competes for the front: trained to the end, in the space and its limits, each network once."""
    return trial.state == TrialState.COMPLETE and not {"twin", "beside"} & trial.user_attrs.keys()


class SearchStudy:
    """Asks for networks, and writes down what became of them.

    Args:
        study: the Optuna study.
        space: what is searched.
        objectives: in the order of the study's values.
        limits: proposals that break one are recorded but never trained; what was queued is trained beside the front.
        costs: the known figures of a network.
        objection: why a network cannot be trained at all, or None.
        batch: makes what is written within it one write, where the storage can.
    """

    def __init__(
        self,
        study: optuna.Study,
        *,
        space: Space,
        objectives: Sequence[Objective],
        limits: Sequence[Limit],
        costs: CostFunction,
        objection: Callable[[Architecture], str | None] = lambda architecture: None,
        batch: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.study = study
        self.space = space
        self.objectives = tuple(objectives)
        self.limits = tuple(limits)
        self.costs = costs
        self.objection = objection
        self.batch = batch
        self.distributions = distributions(space)
        self._open: dict[int, Trial] = {}
        self._curves: dict[int, list[dict[str, float]]] = {}
        self._costs: dict[int, Costs] = {}
        self._by_id: dict[str, int] = {}
        for trial in study.get_trials(deepcopy=False):
            if "id" in trial.user_attrs and trial.state != TrialState.WAITING:
                self._by_id.setdefault(trial.user_attrs["id"], trial.number)

    def enqueue(self, architecture: Architecture, origin: str = "published", **attributes: Any) -> bool:
        """Queue a network (``published`` or ``own``) to be trained before any proposal; False where it is known.

        One of no origin is the search's own; `attributes` are kept with its trial.

        One outside the space or over a limit is trained beside the search: it never stands on the front, and no
        sampler takes it for a point of the front.
        """
        if any(t.user_attrs.get("id") == architecture.id for t in self.study.get_trials(deepcopy=False)):
            return False
        parameters = self.space.parameters(architecture) if self.space.contains(architecture) else {}
        attributes = {**_described(architecture), **attributes, **({"origin": origin} if origin else {})}
        self.study.enqueue_trial(parameters, user_attrs=attributes)
        return True

    def import_trial(
        self, architecture: Architecture, figures: Mapping[str, float], source: str, origin: str = ""
    ) -> int | None:
        """Enter a network that an earlier run trained to the end under the same conditions.

        Args:
            architecture: the network; one that the space does not contain teaches the sampler nothing.
            figures: what it reached there: its accuracy, and its balanced accuracy where that is known; on an int8
                target those of int8 too.
            source: the run, for people.
            origin: what it was there; see :meth:`enqueue`.

        Returns:
            The trial's number, or None where the network is known already.
        """
        if architecture.id in self._by_id:
            return None
        costs = self.costs(architecture)
        inside = self.space.contains(architecture)
        attributes: dict[str, Any] = {
            **_described(architecture),
            "costs": dict(costs),
            **figures,
            "reason": f"taken from {source}",
            "untrained": True,
        }
        if origin:
            attributes["origin"] = origin
        if beside := self.why_beside(architecture, costs, origin):
            attributes["beside"] = beside
        self.study.add_trial(
            optuna.trial.create_trial(
                values=self.values(costs, figures),
                params=self.space.parameters(architecture) if inside else {},
                distributions=self.distributions if inside else {},
                user_attrs=attributes,
                constraints=self.excesses(costs),
            )
        )
        number = len(self.study.get_trials(deepcopy=False)) - 1
        self._by_id[architecture.id] = number
        return number

    def reopen(self) -> list[Candidate]:
        """The trials that a driver which is no more left RUNNING, to be trained on."""
        candidates = []
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            trial = Trial(self.study, frozen._trial_id)
            if "costs" not in frozen.user_attrs:  # it died between asking and describing
                self._pass_over(trial, TrialState.FAIL, "the driver died before the network was known")
                continue
            architecture = Architecture.from_dict(frozen.user_attrs["document"], f"trial {frozen.number}")
            self._open[frozen.number] = trial
            self._costs[frozen.number] = frozen.user_attrs["costs"]
            self._curves[frozen.number] = curve_of(frozen.user_attrs)
            self._by_id[architecture.id] = frozen.number
            candidates.append(Candidate(frozen.number, architecture))
        return candidates

    def propose(self) -> Candidate | None:
        """The next network worth training, or None where the space holds no more.

        What was queued and breaks a limit or is known already is written down and passed over.
        """
        for _ in range(MAX_UNTRAINED_IN_A_ROW):
            if self._is_spent():
                return None
            with self.batch():
                trial = self._ask()
                architecture = self._describe(trial)
                costs = self.costs(architecture)
                trial.set_user_attr("costs", dict(costs))
                if not self._is_passed_over(trial, architecture, costs):
                    self._costs[trial.number] = costs
                    self._by_id[architecture.id] = trial.number
                    self._open[trial.number] = trial
                    self._curves[trial.number] = []
                    return Candidate(trial.number, architecture)
        return None

    def _is_spent(self) -> bool:
        """Tell whether nothing is queued and the space holds no more, before a trial exists, which would stay."""
        if self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return False
        if not self.distributions:
            return self.space.architecture({}).id in self._by_id
        sampler = self.study.sampler
        return isinstance(sampler, WholeSpaceSampler) and sampler.is_spent(self.study)

    def record_epoch(self, number: int, epoch: Mapping[str, float]) -> None:
        """Write down the next epoch of a running trial."""
        curve = self._curves[number]
        curve.append(dict(epoch))
        # An attribute per epoch: rewriting the whole curve every time would let the record grow with its square.
        self._open[number].set_user_attr(f"{EPOCH}{len(curve)}", curve[-1])

    def last_values(self, number: int) -> list[float]:
        """A running trial's objective values at its last epoch in the record."""
        return self.values(self._costs[number], self._curves[number][-1])

    def why_beside(self, architecture: Architecture, costs: Costs, origin: str) -> str:
        """Why a network may be trained but not stand on the front, such as ``over the limit size<=1MB``; else empty.

        Args:
            origin: see :meth:`enqueue`. What an earlier run found elsewhere is none of those asked for by name: only
                the limits count. A space without choices has no outside.
        """
        outside = bool(origin and self.distributions) and not self.space.contains(architecture)
        unknown = [o.name for o in self.objectives if o.known and o.name not in costs]
        said = ["outside the space"] if outside else []
        said += [f"its {name} is not known" for name in unknown]
        return ", ".join([*said, *filter(None, [over_limits(self.limits, costs)])])

    def values(self, costs: Costs, trained: Mapping[str, float]) -> list[float]:
        """Return a trial's objective values from its known figures and those that training gave."""
        # A cost that is not known is no better than any other: such a network stands beside the front.
        reached = of_what_ships(trained)
        return [costs.get(o.name, math.inf) if o.known else reached[o.name] for o in self.objectives]

    def complete(self, number: int) -> None:
        """Close a trial that was trained to the full budget, with the values of its last epoch."""
        values = self.last_values(number)
        self._curves.pop(number)
        self.study.tell(self._open.pop(number), values)

    def stop(self, number: int, reason: str, budget: int) -> None:
        """Close a trial that was stopped early; `budget` is how many epochs it would have had."""
        curve = self._curves[number]
        partial = {"epoch": len(curve), "budget": budget, "values": self.last_values(number)}
        with self.batch():
            self._open[number].set_user_attr("partial", partial)
            self._close(number, TrialState.PRUNED, reason)

    def pass_over(self, number: int, reason: str) -> None:
        """Close a proposal that is not begun."""
        self._curves.pop(number)
        self._pass_over(self._open.pop(number), TrialState.PRUNED, reason)

    def fail(self, number: int, reason: str) -> None:
        """Close a trial that broke."""
        self._close(number, TrialState.FAIL, reason)

    def running(self) -> list[int]:
        """Numbers of the trials handed out and not closed yet."""
        return list(self._open)

    def epochs_done(self, number: int) -> int:
        """Count the recorded epochs of a running trial."""
        return len(self._curves[number])

    def is_queued(self, number: int) -> bool:
        """Return whether a trial was queued, and not proposed."""
        return "fixed_params" in self._frozen(number).system_attrs

    def origin(self, number: int) -> str:
        """Return whether a trial was queued by name, ``published`` or ``own``; empty where it is the search's own."""
        return str(self._frozen(number).user_attrs.get("origin", ""))

    def is_beside(self, number: int) -> bool:
        """Return whether a trial stands beside the search, never on its front; see :meth:`why_beside`."""
        return "beside" in self._frozen(number).user_attrs

    def _ask(self) -> Trial:
        # Waiting trials (the queue) come before proposals; a waiting one outside the space has no parameters at all,
        # and asking it for some would make it a proposal with a published network's name.
        waiting = next(iter(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))), None)
        outside = waiting is not None and not waiting.system_attrs.get("fixed_params")
        return self.study.ask({} if outside and self.distributions else self.distributions)

    def _describe(self, trial: Trial) -> Architecture:
        document = trial.user_attrs.get("document")
        if document is not None:
            architecture = Architecture.from_dict(document, f"trial {trial.number}")
        else:
            parameters: dict[str, Value] = trial.params
            architecture = self.space.architecture(parameters)
            architecture = architecture.model_copy(update={"name": f"{self.space.name[:80]}-{architecture.id}"})
            trial.set_user_attr("name", architecture.name)
            trial.set_user_attr("document", architecture.to_dict())
        trial.set_user_attr("id", architecture.id)
        return architecture

    def _is_passed_over(self, trial: Trial, architecture: Architecture, costs: Costs) -> bool:
        """Close a trial that is not worth training, with the reason."""
        for name, excess in self.excesses(costs).items():
            trial.set_constraint(name, excess)
        origin = trial.user_attrs.get("origin", "")
        if not origin and (broken := over_limits(self.limits, costs)):
            return self._pass_over(trial, TrialState.PRUNED, broken)
        if origin and (beside := self.why_beside(architecture, costs, origin)):
            trial.set_user_attr("beside", beside)
        if (reason := self.objection(architecture)) is not None:
            return self._pass_over(trial, TrialState.FAIL, reason)
        if (number := self._by_id.get(architecture.id)) is None:
            return False
        twin = self._frozen(number)
        trial.set_user_attr("twin", number)
        if "partial" in twin.user_attrs and twin.state != TrialState.COMPLETE:
            trial.set_user_attr("partial", twin.user_attrs["partial"])
        state = twin.state if twin.state in (TrialState.COMPLETE, TrialState.FAIL) else TrialState.PRUNED
        values = twin.values if state == TrialState.COMPLETE else None
        return self._pass_over(trial, state, f"same network as trial {number}", values)

    def excesses(self, costs: Costs) -> dict[str, float]:
        """Return how far costs break each limit, as a trial's constraints."""
        return {str(limit): limit.excess(costs) for limit in self.limits if limit.objective.name in costs}

    def _pass_over(
        self, trial: Trial, state: TrialState, reason: str, values: Sequence[float] | None = None
    ) -> Literal[True]:
        trial.set_user_attr("reason", reason)
        trial.set_user_attr("untrained", True)
        self.study.tell(trial, values, state=state)
        return True

    def _close(self, number: int, state: TrialState, reason: str) -> None:
        trial = self._open.pop(number)
        self._curves.pop(number, None)
        with self.batch():
            trial.set_user_attr("reason", reason)
            self.study.tell(trial, state=state)

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]
