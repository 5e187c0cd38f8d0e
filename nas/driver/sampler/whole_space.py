"""What all samplers of a search have in common."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class WholeSpaceSampler(BaseSampler):
    """Proposes all parameters of a space together; what is queued has them already."""

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self.space = dict(space)

    @abstractmethod
    def is_spent(self, study: Study) -> bool:
        """Tell whether every allowed choice of parameters is some trial's: the next proposal would be a repeat."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {} if "fixed_params" in trial.system_attrs else dict(self.space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise NotImplementedError(f"{param_name} is no parameter of the space")
