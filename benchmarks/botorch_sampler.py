"""BoTorch's expected hypervolume improvement with exact costs as an Optuna sampler: a rival that knows the costs.

The error is a Gaussian process with a categorical kernel (`MixedSingleTaskGP`, hyperparameters by BoTorch's priors),
the costs are deterministic models, and `qLogNoisyExpectedHypervolumeImprovement` (Ament et al. 2023) chooses among
unseen mutants and crossovers of the front and random networks, as many as ours looks at, drawn the same way.

Needs `pip install botorch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models import MixedSingleTaskGP, ModelList
from botorch.models.deterministic import GenericDeterministicModel
from botorch.sampling.index_sampler import IndexSampler
from botorch.sampling.list_sampler import ListSampler
from botorch.sampling.normal import SobolQMCNormalSampler
from gpytorch.mlls import ExactMarginalLogLikelihood
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas import pareto
from nas.driver.sampler.candidates import draw
from nas.driver.sampler.encoding import Encoding

STARTUP, CANDIDATES, SAMPLES = 8, 512, 64
Params = Mapping[str, Any]


class BoTorchSampler(BaseSampler):
    """Minimises an unknown objective (the first) and known ones.

    Args:
        known: Objective index -> exact value of parameters, of all but the first.
    """

    def __init__(
        self, known: Mapping[int, Callable[[Any], float]], search_space: Mapping[str, BaseDistribution], seed: int
    ) -> None:
        self._known = known
        self._space = dict(search_space)
        self._encoding = Encoding.of(search_space)
        self._seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise NotImplementedError

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        rng = np.random.default_rng([self._seed, trial.number])
        torch.manual_seed(1_000 * self._seed + trial.number)
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        rows = self._encoding.stack([row for t in done if (row := self._encoding.encode(t.params)) is not None])
        values = np.reshape([t.values for t in done], (len(done), 1 + len(self._known)))
        parents = rows[pareto.front_mask(values)] if len(rows) else rows
        pool = np.unique(draw(self._encoding, parents, CANDIDATES, rng), axis=0)
        seen = {row.tobytes() for row in rows}
        pool = self._encoding.stack([row for row in rng.permutation(pool) if row.tobytes() not in seen])
        chosen = pool[0] if len(done) < STARTUP else pool[int(np.argmax(self._scores(rows, values, pool)))]
        return self._encoding.decode(chosen)

    def _costs(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        params = [self._encoding.decode(row) for row in rows]
        return np.array([[function(each) for _, function in sorted(self._known.items())] for each in params])

    def _scores(
        self, rows: NDArray[np.float64], values: NDArray[np.float64], pool: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        seen, candidates = torch.from_numpy(rows), torch.from_numpy(pool)
        gp = MixedSingleTaskGP(seen, -torch.from_numpy(values[:, :1]), cat_dims=list(range(rows.shape[1])))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(gp.likelihood, gp))
        known = {row.tobytes(): -cost for row, cost in zip(pool, self._costs(pool), strict=True)}
        known |= {row.tobytes(): -cost for row, cost in zip(rows, values[:, 1:], strict=True)}

        def costs(points: torch.Tensor) -> torch.Tensor:
            flat = points.detach().reshape(-1, points.shape[-1]).numpy()
            found = torch.from_numpy(np.array([known[row.tobytes()] for row in flat]))
            return found.reshape(*points.shape[:-1], -1)

        exact = GenericDeterministicModel(costs, num_outputs=values.shape[1] - 1)
        front = values[pareto.front_mask(values)]
        reference = front.max(axis=0) + 0.1 * np.ptp(front, axis=0)
        shape = torch.Size([SAMPLES])
        acquisition = qLogNoisyExpectedHypervolumeImprovement(
            ModelList(gp, exact),
            ref_point=-torch.from_numpy(reference),
            X_baseline=seen,
            sampler=ListSampler(SobolQMCNormalSampler(shape, seed=0), IndexSampler(shape, seed=0)),
            prune_baseline=True,
            cache_root=False,
        )
        with torch.no_grad():
            return np.concatenate([acquisition(part[:, None, :]).numpy() for part in candidates.split(128)])
