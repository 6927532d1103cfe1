"""Returns of trained variants on a grid of tasks over one or two task parameters."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from metarl.agents.agent import Agent
from metarl.config import EvaluationSettings, read_run_config
from metarl.envs.family import TaskFamily
from metarl.envs.parameters import Parameter
from metarl.envs.sharded import ShardedEnv
from metarl.envs.task import Task
from metarl.evaluation.outcomes import disturbance_of, exploring, mean_of_sound
from metarl.evaluation.statistics import Array
from metarl.evaluation.sweep_result import TaskAxis, TaskMap, Variant
from metarl.files import write
from metarl.runs.run import load_run
from metarl.runs.trial import run_trial, streams
from metarl.sweeps.study import Study
from metarl.sweeps.task_axes import centre, task_axis, training_ranges
from metarl.sweeps.yardstick import Yardstick

MAP = "sweep_map.json"
"""File in a variant's folder with its returns on a grid of tasks."""
ROWS = 24
"""Most training ranges that a heat map over one parameter shows."""
CHUNK = 64
"""Tasks that are simulated at a time."""


def map_parameters(study: Study, stick: Yardstick, family: TaskFamily) -> list[Parameter]:
    """Return the one or two task parameters of the maps: those asked for, else those that vary, else the first."""
    named = study.sweep.report.parameters
    known = {p.name: p for p in family.parameters}
    if named:
        return [known[name] for name in named if name in known]
    order = sorted(family.parameters, key=lambda p: (p.name not in stick.varied, not p.continuous))
    return order[:2]


def axes_of(study: Study, stick: Yardstick, family: TaskFamily) -> tuple[TaskAxis, ...]:
    """Return the axes of the maps."""
    parameters = map_parameters(study, stick, family)
    return tuple(task_axis(p, stick.axis(p), study.sweep.report.grid) for p in parameters)


def mapped(study: Study, axes: Sequence[TaskAxis], ended: Sequence[Variant], best: Variant) -> list[Variant]:
    """Return the variants that get a map: over two parameters the best one or all, over one parameter all."""
    if len(axes) == 1 and len(ended) > ROWS:
        return sorted(ended, key=lambda variant: -(variant.objective or 0.0))[:ROWS]
    return list(ended) if study.sweep.report.maps == "all" or len(axes) == 1 else [best]


def kept_map(study: Study, variant: Variant, axes: Sequence[TaskAxis]) -> TaskMap | None:
    """Return the map over these axes that was saved in the variant's folder; None if there is none."""
    path = study.directory(variant.number) / MAP
    if not path.is_file():
        return None
    found = TaskMap.from_dict(json.loads(path.read_text(encoding="utf-8")))
    asked = (variant.number, tuple(axis.parameter for axis in axes), tuple(axis.cells for axis in axes))
    return found if (found.trial, found.parameters, found.grid) == asked else None


def evaluate_map(study: Study, variant: Variant, axes: Sequence[TaskAxis], threads: int) -> TaskMap:
    """Evaluate a variant on the grid of tasks. threads: of the simulation; 0: as its configuration says."""
    directory = study.directory(variant.number)
    run = load_run(directory)
    middle = centre(run.family)
    names, grid = tuple(axis.parameter for axis in axes), tuple(axis.cells for axis in axes)
    points = [dict(zip(names, values, strict=True)) for values in itertools.product(*grid)]
    tasks = [_possible(run.family, {**middle, **point}) for point in points]
    there = [task for task in tasks if task is not None]
    config = read_run_config(directory)
    before, after = np.full((2, len(points)), np.nan)
    chosen = [task is not None for task in tasks]
    found = returns_on(run.agent, run.family, there, config.evaluation, threads or config.training.threads)
    before[chosen], after[chosen] = found
    ranges = {name: tuple(span) for name, span in training_ranges(run.family).items()}
    values = [{**middle, **point} for point in points]
    return TaskMap.of(values, before, after, trial=variant.number, parameters=names, grid=grid, ranges=ranges)


def _possible(family: TaskFamily, values: Mapping[str, float]) -> Task | None:
    """Return the task with these values; None if the family has none, as not every joint can have every fault."""
    try:
        return family.task(values)
    except ValueError:
        return None


def task_maps(
    study: Study, axes: Sequence[TaskAxis], variants: Sequence[Variant], say: Callable[[str], None], threads: int
) -> tuple[TaskMap, ...]:
    """Return the map of each variant; one that is not saved in the variant's folder is evaluated and saved there."""
    maps = []
    for variant in variants:
        found = kept_map(study, variant, axes)
        if found is None:
            say(f"{variant.name}: evaluating on a grid of {np.prod([len(axis.cells) for axis in axes]):.0f} tasks")
            found = evaluate_map(study, variant, axes, threads)
            write(study.directory(variant.number) / MAP, json.dumps(found.to_dict()).encode())
        maps.append(found)
    return tuple(maps)


def returns_on(
    agent: Agent, family: TaskFamily, tasks: Sequence[Task], settings: EvaluationSettings, threads: int
) -> Array:
    """Return the returns [2, n] on n tasks before the first and after the last adaptation.

    Starts and noise follow from the first evaluation seed.
    """
    settings = exploring(agent, settings)
    disturbance = disturbance_of(family, settings, threads)
    rngs = streams(settings.seeds[0], "sweep/map", 0, len(tasks))
    parts = []
    for first in range(0, len(tasks), CHUNK):
        chunk = list(tasks[first : first + CHUNK])
        env = ShardedEnv(family, len(chunk), settings.envs_per_task, threads)
        env.set_tasks(chunk)
        own = rngs[first : first + CHUNK]
        result = run_trial(
            *(
                env,
                agent,
                own,
                settings.adaptations,
                settings.explore,
                disturbance,
                settings.reset_memory,
                settings.lives,
            ),
            explore_to_adapt=settings.explore_to_adapt,
        )
        parts.append(np.stack([mean_of_sound(result.returns[k]) for k in (0, -1)]))
    return np.concatenate(parts, axis=1)
