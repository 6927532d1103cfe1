"""Task distributions as what a sweep varies: training ranges, the tasks that all trials are judged on, distances."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metarl.agents.agent import Agent
from metarl.config import EvaluationSettings
from metarl.envs.family import Task, TaskFamily
from metarl.envs.parameters import Choice, DiscRadius, Distribution, LogUniform, Parameter, Uniform
from metarl.envs.registry import make_family
from metarl.envs.sharded import ShardedEnv
from metarl.errors import UsageError, nearest, usage_errors
from metarl.evaluation.evaluate import evaluate_agent
from metarl.evaluation.outcomes import disturbance_of, exploring, mean_of_sound
from metarl.evaluation.results import EvaluationResult
from metarl.evaluation.statistics import Array
from metarl.runs.trial import run_trial, streams
from metarl.sweeps.file import Sweep

COMBINATIONS = 512
"""Of the family's factors, up to which all are looked at; of more, one factor at a time."""
CHUNK = 64
"""Tasks that are simulated at a time where many are evaluated."""


@dataclass(frozen=True)
class Yardstick:
    """What all trials of a sweep are judged by."""

    measure: str
    split: str
    """`wide`: the same tasks for all; else the split of each trial's own family."""
    wide: Mapping[str, Distribution]
    """Task parameters whose distribution replaces the trial's own; empty unless `wide`."""
    varied: tuple[str, ...]
    """Task parameters whose training distribution varies in the sweep."""

    def agrees(self, settings: EvaluationSettings) -> bool:
        """Whether these settings of a trial's evaluation ask for the same tasks, so that one evaluation serves both."""
        return self.split == settings.split

    def judge(self, agent: Agent, family: TaskFamily, settings: EvaluationSettings, threads: int) -> EvaluationResult:
        """The agent on these tasks. family, settings: the trial's own, of which all but the tasks is kept."""
        if self.split == "wide":
            family, settings = widened(family, self.wide), dataclasses.replace(settings, split="held_out")
        else:
            settings = dataclasses.replace(settings, split=self.split)
        return evaluate_agent(agent, family, settings, threads)

    def value(self, result: EvaluationResult) -> float:
        """The number that is maximised: a mean over tasks, for an IQM would leave out just the far ones."""
        summary = result.summary
        return (summary.mean if self.measure == "return" else summary.gain_mean)[-1].estimate

    def axis(self, parameter: Parameter) -> Distribution:
        """What a task parameter is drawn over: what trials are judged on, or training and what lies outside."""
        if parameter.name in self.wide:
            return self.wide[parameter.name]
        outside = [d for d in (parameter.held_out, parameter.ood) if d is not None]
        return hull([parameter.distribution, *outside])


def yardstick(sweep: Sweep) -> Yardstick:
    """How the trials of a sweep are judged; UsageError where its file asks for what the family does not have."""
    with usage_errors("base.family"):
        family = make_family(sweep.base.family)
    names = [p.name for p in family.parameters]
    for section, named in (("objective.ranges", sweep.ranges), ("report.parameters", sweep.report.parameters)):
        for name in named:
            if name not in names:
                raise UsageError(f"{section}: family {family.name!r} has no parameter {name!r}{nearest(name, names)}")
    varied = vary(sweep)
    wide: dict[str, Distribution] = dict(varied)
    for parameter in family.parameters:
        if parameter.name in sweep.ranges:
            if not parameter.continuous:
                raise UsageError(f"objective.ranges: {parameter.name} is one of {parameter.distribution.describe()}")
            wide[parameter.name] = _like(parameter.distribution, *sweep.ranges[parameter.name])
    asked = sweep.objective.tasks
    if asked == "wide" and not wide:
        raise UsageError(
            "objective.tasks is wide, but no factor varies a training range; say by objective.ranges what to judge on"
        )
    split = ("wide" if wide else "held_out") if asked == "auto" else asked
    if split == "wide":
        with usage_errors("objective.ranges"):
            widened(family, wide)
    else:
        with usage_errors("objective.tasks"):
            family.require_split(split)
    return Yardstick(sweep.objective.measure, split, wide if split == "wide" else {}, tuple(varied))


def vary(sweep: Sweep) -> dict[str, Distribution]:
    """Task parameters whose training distribution some factor changes, each over all it can be and what the family
    says lies outside of that."""
    factors = [factor for factor in sweep.factors if any(name.startswith("family.") for name in factor.settings)]
    choices = [[*itertools.product(*(d.extremes() for d in factor.dimensions.values()))] for factor in factors]
    if math.prod(map(len, choices)) <= COMBINATIONS:
        together = [(list(factors), list(values)) for values in itertools.product(*choices)]
    else:
        together = [([f], [values]) for f, several in zip(factors, choices, strict=True) for values in several]
    found: dict[str, list[Distribution]] = {}
    outside: dict[str, list[Distribution]] = {}
    for some, values in together:
        points = [dict(zip(f.dimensions, v, strict=True)) for f, v in zip(some, values, strict=True)]
        settings = {k: v for f, point in zip(some, points, strict=True) for k, v in f.values(point).items()}
        try:
            family = make_family(sweep.replaced(settings).family)
        except (ValueError, OverflowError):  # what cannot be is a failed trial, and no range
            continue
        for parameter in family.parameters:
            found.setdefault(parameter.name, []).append(parameter.distribution)
            if parameter.ood is not None:
                outside.setdefault(parameter.name, []).append(parameter.ood)
    return {name: hull([*ds, *outside.get(name, [])]) for name, ds in found.items() if any(d != ds[0] for d in ds)}


def hull(distributions: Sequence[Distribution]) -> Distribution:
    """The distribution of their kind over all that any of them reaches."""
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
    """The family with other distributions of some parameters; ValueError for values that are not physical."""
    parameters = tuple(
        dataclasses.replace(p, distribution=wide[p.name], held_out=None, ood=None) if p.name in wide else p
        for p in family.parameters
    )
    return dataclasses.replace(family, parameters=parameters)


def training_ranges(family: TaskFamily) -> dict[str, list[float]]:
    """Of each parameter the lowest and the highest training value; of a choice all of them."""
    return {
        p.name: list(p.distribution.values)
        if isinstance(p.distribution, Choice)
        else [p.distribution.low, p.distribution.high]
        for p in family.parameters
    }


def distances(
    values: Mapping[str, Array], ranges: Mapping[str, Sequence[float]], axes: Mapping[str, Distribution]
) -> Array:
    """Distance [n] of tasks from a training range: 0 inside, 1 for the width of all that is judged on.

    d = sqrt(sum_p (max(low_p - v_p, v_p - high_p, 0) / w_p)^2),  w_p the width of the axis of p, in the logarithm where
    it is log-uniform. A value of a choice that was not trained on counts as 1. Of one parameter that is no choice, what
    lies below the range has a negative distance.
    """
    total = np.zeros(len(next(iter(values.values()))))
    for name, axis in axes.items():
        v = np.asarray(values[name], dtype=float)
        if isinstance(axis, Choice):
            total += ~np.isin(v, ranges[name])
            continue
        low, high, width = ranges[name][0], ranges[name][1], axis.high - axis.low
        if isinstance(axis, LogUniform):
            v, low, high, width = np.log(v), math.log(low), math.log(high), math.log(axis.high / axis.low)
        total += (np.maximum(np.maximum(low - v, v - high), 0.0) / width) ** 2
    distance = np.sqrt(total)
    [name, *others] = axes
    if others or isinstance(axes[name], Choice):
        return distance
    return np.where(np.asarray(values[name]) < ranges[name][0], -distance, distance)


def edges(axis: Distribution, count: int) -> list[float]:
    """Borders of so many equal cells of an axis, in the logarithm where it is log-uniform; of a choice around each."""
    if isinstance(axis, Choice):
        return [i - 0.5 for i in range(len(axis.values) + 1)]
    if isinstance(axis, LogUniform):
        return [float(v) for v in np.geomspace(axis.low, axis.high, count + 1)]
    return [float(v) for v in np.linspace(axis.low, axis.high, count + 1)]


def cells(axis: Distribution, count: int) -> list[float]:
    """The value in the middle of each cell of an axis; of a choice its values."""
    if isinstance(axis, Choice):
        return sorted(axis.values)
    borders = np.array(edges(axis, count))
    if isinstance(axis, LogUniform):
        return [float(v) for v in np.sqrt(borders[1:] * borders[:-1])]
    return [float(v) for v in (borders[1:] + borders[:-1]) / 2]


def centre(family: TaskFamily) -> dict[str, float]:
    """The middle of each continuous parameter's training range; the neutral value of the others."""
    return {p.name: p.distribution.quantile(0.5) if p.continuous else p.neutral for p in family.parameters}


def returns_on(
    agent: Agent, family: TaskFamily, tasks: Sequence[Task], settings: EvaluationSettings, threads: int
) -> Array:
    """Returns [2, n] before the first and after the last adaptation on given tasks, starts and noise by the first
    evaluation seed."""
    settings = exploring(agent, settings)
    disturbance = disturbance_of(family, settings, threads)
    rngs = streams(settings.seeds[0], "sweep/map", 0, len(tasks))
    parts = []
    for first in range(0, len(tasks), CHUNK):
        chunk = list(tasks[first : first + CHUNK])
        env = ShardedEnv(family, len(chunk), settings.envs_per_task, threads)
        env.set_tasks(chunk)
        own = rngs[first : first + CHUNK]
        result = run_trial(env, agent, own, settings.adaptations, settings.explore, disturbance)
        parts.append(np.stack([mean_of_sound(result.returns[k]) for k in (0, -1)]))
    return np.concatenate(parts, axis=1)
