"""Check a run's files before anything relies on them: a run's folder may come from somebody else.

Optuna reads a journal without looking at what is in it, and nothing in a file is sure to have the type that it was
written with. What is not mentioned here is not used, or checked where it is (the architecture, the settings).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NotRequired

from optuna.trial import FrozenTrial, TrialState
from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from nas.architecture.space import Space
from nas.driver.objectives import Objective
from nas.driver.study import curve_of
from nas.errors import UserError, first_mistake

_STRICT = ConfigDict(strict=True)
_Share = Annotated[float, Field(ge=0, le=1)]
_Amount = Annotated[FiniteFloat, Field(ge=0)]
_Count = Annotated[int, Field(ge=1)]
_Epochs = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]


@with_config(_STRICT)
class _Epoch(TypedDict):
    epoch: Annotated[int, Field(ge=1)]
    accuracy: _Share
    balanced_accuracy: NotRequired[_Share]
    int8_accuracy: NotRequired[_Share]
    int8_balanced_accuracy: NotRequired[_Share]
    train_accuracy: _Share
    loss: float
    seconds: _Amount
    seconds_train: _Amount
    seconds_eval: _Amount


@with_config(_STRICT)
class _Trial(TypedDict):
    costs: NotRequired[dict[str, _Amount]]
    origin: NotRequired[str]
    beside: NotRequired[str]
    reason: NotRequired[str]
    twin: NotRequired[int]
    untrained: NotRequired[bool]
    accuracy: NotRequired[_Share]
    balanced_accuracy: NotRequired[_Share]
    int8_accuracy: NotRequired[_Share]
    int8_balanced_accuracy: NotRequired[_Share]
    supernet_accuracy: NotRequired[_Share]


@with_config(_STRICT)
class _Confirmed(TypedDict):
    test_accuracy: NotRequired[_Share | None]
    test_balanced_accuracy: NotRequired[_Share | None]
    fp32_test_accuracy: NotRequired[_Share | None]
    file_bytes: NotRequired[_Count]
    memory_bytes: NotRequired[_Count | None]
    test_hits: NotRequired[Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$")]]
    latency_ms: NotRequired[_Amount | None]
    latency_low_ms: NotRequired[_Amount | None]
    latency_high_ms: NotRequired[_Amount | None]
    latency_noisy: NotRequired[str | None]
    repeats: NotRequired[dict[_Epochs, dict[str, _Share]]]
    failed: NotRequired[dict[_Epochs, dict[str, str]]]


@with_config(_STRICT)
class _Environment(TypedDict):
    started: NotRequired[str]
    device: NotRequired[str]
    workers: NotRequired[int]
    cpu: NotRequired[str]
    cores: NotRequired[int | None]
    platform: NotRequired[str]
    python: NotRequired[str]
    versions: NotRequired[dict[str, str]]


@with_config(_STRICT)
class _Data(TypedDict):
    train: NotRequired[_Count]
    validation: NotRequired[_Count]
    test: NotRequired[_Count]
    classes: NotRequired[_Count]
    resolution: NotRequired[_Count]
    own_validation: NotRequired[bool]
    images: NotRequired[dict[str, Any]]


@with_config(_STRICT)
class _RunFile(TypedDict):
    study: str
    storage: NotRequired[str | None]
    environment: NotRequired[_Environment]
    data: NotRequired[_Data]
    not_repeatable: NotRequired[list[str]]


_EPOCH, _TRIAL, _CONFIRMED = TypeAdapter(_Epoch), TypeAdapter(_Trial), TypeAdapter(dict[str, _Confirmed])
_RUN_FILE = TypeAdapter(_RunFile)
_PARAMETERS = TypeAdapter(dict[str, str | int | float | bool], config=_STRICT)
_VALUES = TypeAdapter(list[FiniteFloat], config=_STRICT)


def check_run_file(document: Mapping[str, Any], where: str) -> None:
    """Check ``run.yaml`` but for its settings.

    Raises:
        UserError: a field is missing or of another type.
    """
    _check(_RUN_FILE, {name: document[name] for name in _RunFile.__annotations__ if name in document}, where)


def check_trial(trial: FrozenTrial, objectives: Sequence[Objective], space: Space, where: str) -> None:
    """Check what a study holds of a trial but for its document.

    Raises:
        UserError: something is missing or of another type, there is not one value per objective, or a parameter is not
            the space's.
    """
    attributes = trial.user_attrs
    _check(_TRIAL, {name: attributes[name] for name in _Trial.__annotations__ if name in attributes}, where)
    for number, epoch in enumerate(curve_of(attributes), 1):
        _check(_EPOCH, epoch, f"{where}: epoch {number}")
        if epoch["epoch"] != number:
            raise UserError(f"{where}: epoch {number}: calls itself {epoch['epoch']}")
    for name, value in _check(_PARAMETERS, trial.params, where).items():
        if name not in space.parameters_by_name or value not in space.parameters_by_name[name].values:
            raise UserError(f"{where}: damaged: {name} is {value!r}, which the run's space does not have")
    if trial.state != TrialState.COMPLETE:
        return
    # What is not known of a network beside the front stands as infinity.
    values = [value for value in trial.values if value != math.inf] if "beside" in attributes else trial.values
    _check(_VALUES, values, where)
    if len(trial.values) != len(objectives):
        raise UserError(f"{where}: damaged: not one value for each of {len(objectives)} objectives")
    known = {"params", *(objective.name for objective in objectives if objective.known)}
    known = {"params"} if "beside" in attributes else known
    if missing := known - attributes.get("costs", {}).keys():
        raise UserError(f"{where}: damaged: its costs lack {', '.join(sorted(missing))}")


def check_confirmed(value: Any, where: str) -> None:
    """Check what was found out after the search, by trial number.

    Raises:
        UserError: something in it is of another type.
    """
    _check(_CONFIRMED, value, where)


def _check(adapter: TypeAdapter[Any], value: Any, where: str) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        path, mistake = first_mistake(error)
        raise UserError(f"{where}: damaged: {f'{path}: ' if path else ''}{mistake}") from error
