"""The next point of a search, drawn by Optuna's samplers so that it does not depend on which process draws it."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from metarl.runs.trial import stream
from metarl.sweeps.dimensions import Levels
from metarl.sweeps.sweep import Sweep


class NumberedPoints(BaseSampler):
    """Sampler whose point follows from the trial's number alone: a point of the grid, or a random one."""

    def __init__(self, sweep: Sweep):
        self._sweep = sweep

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return no dimensions: each one is sampled by itself."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return no values: each dimension is sampled by itself."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the value of one dimension."""
        dimension = self._sweep.dimensions[param_name]
        if self._sweep.method == "grid" and isinstance(dimension, Levels):
            point = next(itertools.islice(self._sweep.grid(), trial.number, None))
            return dimension.labels[dimension.values.index(point[param_name])]
        place = list(self._sweep.dimensions).index(param_name)
        seed = int(stream(self._sweep.seed, "sweep/random", trial.number, place).integers(2**31))
        return optuna.samplers.RandomSampler(seed).sample_independent(study, trial, param_name, param_distribution)


def sampler_of(sweep: Sweep, number: int) -> BaseSampler:
    """Return the sampler of the sweep's method, for the trial with this number."""
    if sweep.method != "tpe":
        return NumberedPoints(sweep)
    seed = int(stream(sweep.seed, "sweep/tpe", number).integers(2**31))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def suggest(trial: optuna.Trial, sweep: Sweep) -> dict[str, Any]:
    """Return the point of a trial; values that were suggested before its process died stay."""
    for name, dimension in sweep.dimensions.items():
        if isinstance(dimension, Levels):
            trial.suggest_categorical(name, dimension.labels)
        elif dimension.whole:
            trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
        else:
            trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    return sweep.point(trial.params)
