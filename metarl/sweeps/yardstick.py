"""The tasks that the variants of a sweep are judged on, and the number that is maximised."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metarl.agents.agent import Agent
from metarl.config import EvaluationSettings
from metarl.envs.family import TaskFamily
from metarl.envs.parameters import Choice, DiscRadius, Distribution, LogUniform, Parameter, Uniform
from metarl.envs.registry import make_family
from metarl.errors import UsageError, nearest, usage_errors
from metarl.evaluation.evaluate import evaluate_agent
from metarl.evaluation.results import EvaluationResult
from metarl.sweeps.dimensions import Factor
from metarl.sweeps.sweep import Sweep

COMBINATIONS = 512
"""Largest number of combinations of the family's factors that are all looked at; above it, one factor at a time."""

Looked = tuple[Mapping[str, tuple[Any, ...]], tuple[Parameter, ...]]
"""The values of some factors' dimensions, by the factor's name, and the family's parameters there."""


@dataclass(frozen=True)
class Yardstick:
    """The measure and the tasks by which the variants of a sweep are judged."""

    measure: str
    """return or gain."""
    split: str
    """`wide`: the same tasks for all; else a split of each variant's own family."""
    wide: Mapping[str, Distribution]
    """Distributions of task parameters that replace the variant's own; empty unless `wide`."""
    varied: tuple[str, ...]
    """Names of the task parameters whose training distribution varies in the sweep."""
    unshared: tuple[str, ...] = ()
    """Settings of the family that vary and are no training range, or decide what parameters the tasks have: each
    variant is judged with its own."""

    def agrees(self, settings: EvaluationSettings) -> bool:
        """Return whether a variant's evaluation settings ask for the same tasks, so that one evaluation serves both."""
        return self.split == settings.split

    def judge(self, agent: Agent, family: TaskFamily, settings: EvaluationSettings, threads: int) -> EvaluationResult:
        """Evaluate an agent on these tasks. family, settings: the variant's own; all but the tasks is kept."""
        if self.split == "wide":
            family, settings = widened(family, self.wide), dataclasses.replace(settings, split="held_out")
        else:
            settings = dataclasses.replace(settings, split=self.split)
        return evaluate_agent(agent, family, settings, threads)

    def value(self, result: EvaluationResult) -> float:
        """Return the objective: a mean over tasks, as an IQM would leave out just the distant ones."""
        summary = result.summary
        return (summary.mean if self.measure == "return" else summary.gain_mean)[-1].estimate

    def axis(self, parameter: Parameter) -> Distribution:
        """Return the distribution of a task parameter over all tasks: those to judge on, or training and beyond."""
        if parameter.name in self.wide:
            return self.wide[parameter.name]
        outside = [d for d in (parameter.held_out, parameter.ood) if d is not None]
        return hull([parameter.distribution, *outside])


def yardstick(sweep: Sweep) -> Yardstick:
    """Return how the variants of a sweep are judged; UsageError for what the family does not have."""
    with usage_errors("base.family"):
        family = make_family(sweep.base.family)
    names = [p.name for p in family.parameters]
    for section, named in (("objective.ranges", sweep.ranges), ("report.parameters", sweep.report.parameters)):
        for name in named:
            if name not in names:
                raise UsageError(f"{section}: family {family.name!r} has no parameter {name!r}{nearest(name, names)}")
    looked = _look(sweep)
    varied = vary(looked)
    wide: dict[str, Distribution] = dict(varied)
    for parameter in family.parameters:
        if parameter.name in sweep.ranges:
            if not parameter.continuous:
                raise UsageError(f"objective.ranges: {parameter.name} is one of {parameter.distribution.describe()}")
            wide[parameter.name] = _like(parameter.distribution, *sweep.ranges[parameter.name])
    asked = sweep.objective.tasks
    if asked == "wide" and not wide:
        raise UsageError(
            "objective.tasks is wide, but no factor varies a training range; add the ranges to judge on as "
            "objective.ranges"
        )
    split = ("wide" if wide else "held_out") if asked == "auto" else asked
    if split == "wide":
        with usage_errors("objective.ranges"):
            widened(family, wide)
    else:
        with usage_errors("objective.tasks"):
            family.require_split(split)
    own = unshared(sweep, looked)
    return Yardstick(sweep.objective.measure, split, wide if split == "wide" else {}, tuple(varied), own)


def vary(looked: Sequence[Looked]) -> dict[str, Distribution]:
    """Return the task parameters whose training distribution some factor changes.

    Each has a distribution over all its training ranges, and over what the family calls out of distribution. One whose
    values have other names in some variants, such as the kinds of faults, is none of them.
    """
    found: dict[str, list[Parameter]] = {}
    for parameter in itertools.chain.from_iterable(parameters for _, parameters in looked):
        found.setdefault(parameter.name, []).append(parameter)
    return {
        name: hull([*(p.distribution for p in several), *(p.ood for p in several if p.ood is not None)])
        for name, several in found.items()
        if any(p.distribution != several[0].distribution for p in several) and len({p.names for p in several}) == 1
    }


def unshared(sweep: Sweep, looked: Sequence[Looked]) -> tuple[str, ...]:
    """Return the settings of the family that some factor changes without changing a training range, or which decide
    what parameters the tasks have."""
    names: list[str] = []
    for factor in _of_family(sweep):
        alike: dict[str, list[dict[tuple[str, tuple[str, ...]], Distribution]]] = {}
        for values, parameters in looked:
            if factor.name in values and parameters:
                others = repr({name: own for name, own in values.items() if name != factor.name})
                alike.setdefault(others, []).append({(p.name, p.names): p.distribution for p in parameters})
        pairs = [(several[0], own) for several in alike.values() for own in several]
        if pairs and (any(a.keys() != b.keys() for a, b in pairs) or all(a == b for a, b in pairs)):
            names += [name for name in factor.settings if name.startswith("family.")]
    return tuple(names)


def _look(sweep: Sweep) -> list[Looked]:
    """Return the parameters of all variants of the family, or, where they are many, of one factor at a time."""
    factors = _of_family(sweep)
    choices = [_extremes(factor) for factor in factors]
    if math.prod(map(len, choices)) <= COMBINATIONS:
        together = [[*zip(factors, values, strict=True)] for values in itertools.product(*choices)]
    else:
        together = [[(factor, values)] for factor, several in zip(factors, choices, strict=True) for values in several]
    return [({factor.name: own for factor, own in values}, _parameters(sweep, values)) for values in together]


def _of_family(sweep: Sweep) -> list[Factor]:
    return [factor for factor in sweep.factors if any(name.startswith("family.") for name in factor.settings)]


def _extremes(factor: Factor) -> list[tuple[Any, ...]]:
    """Return the combinations of the ends of a factor's dimensions."""
    return [*itertools.product(*(d.extremes() for d in factor.dimensions.values()))]


def _parameters(sweep: Sweep, values: Sequence[tuple[Factor, tuple[Any, ...]]]) -> tuple[Parameter, ...]:
    """Return the family's parameters where the factors have these values; none for an invalid variant, which fails."""
    points = [(factor, dict(zip(factor.dimensions, own, strict=True))) for factor, own in values]
    settings = {k: v for factor, point in points for k, v in factor.values(point).items()}
    try:
        return make_family(sweep.replaced(settings).family).parameters
    except (ValueError, OverflowError):
        return ()


def hull(distributions: Sequence[Distribution]) -> Distribution:
    """Return the distribution of the same kind over the union of all ranges."""
    if all(isinstance(d, Choice) for d in distributions):
        return Choice(tuple(sorted({v for d in distributions if isinstance(d, Choice) for v in d.values})))
    low, high = min(d.low for d in distributions), max(d.high for d in distributions)
    return _like(distributions[0], low, high)


def _like(kind: Distribution, low: float, high: float) -> Distribution:
    if isinstance(kind, LogUniform) and low > 0:
        return LogUniform(low, high)
    if isinstance(kind, DiscRadius) and low == 0:
        return DiscRadius(high)
    return Uniform(low, high)


def widened(family: TaskFamily, wide: Mapping[str, Distribution]) -> TaskFamily:
    """Return the family with other distributions of some parameters; ValueError for values that are not physical."""
    parameters = tuple(
        dataclasses.replace(p, distribution=wide[p.name], held_out=None, ood=None) if p.name in wide else p
        for p in family.parameters
    )
    faults = family.faults and family.faults.with_parameters(parameters)
    return dataclasses.replace(family, parameters=parameters, faults=faults)
