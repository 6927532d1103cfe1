"""Print the report of `metarl env check`: what is inferred about a Gymnasium environment, and what an episode did."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time

import numpy as np
from rich.console import Console
from rich.text import Text

from metarl.cli.env_remarks import action_bounds, env_remarks, image_remarks, info_remarks, task_remarks
from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.foreign.family import GymFamily, opened
from metarl.envs.foreign.settings import EnvSettings
from metarl.envs.parameters import Split
from metarl.envs.registry import make_family
from metarl.envs.text import typed
from metarl.reporting.catalogue import parameter_rows, splits, table
from metarl.runs.trial import stream

EPISODES: tuple[Split, ...] = ("train", "held_out")
"""Splits that an episode is played of."""


def show_env(source: str, console: Console | None = None) -> None:
    """Print the report. ValueError for what makes it unusable."""
    console = console or Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    family = make_family(EnvSettings(source, processes=1))
    console.print(f"\n[bold]{source}[/bold]  {family.description}", highlight=False)
    console.print(table(("parameter", "unit", "tasks", "neutral", "law"), parameter_rows(family)))
    success = f"a success: {family.success_text()}" if family.success else "no success is defined"
    console.print(
        f"{family.observation_size} observations: {_few(family.observation_names)}\n"
        f"{family.action_size} actions from {_bounds(family.action_low)} to {_bounds(family.action_high)}, the "
        f"policy's times {family.action_scale:g}\n"
        f"{family.horizon} steps an episode, {family.dt:g} s each\n{success}\n{splits(family)}",
        highlight=False,
        markup=False,
    )
    if isinstance(family, GymFamily):
        with contextlib.closing(opened(family)) as env:
            infos = () if family.blueprint is None else family.blueprint.infos
            scaled = np.allclose([-family.action_low, family.action_high], family.action_scale)
            told = (
                env_remarks(env, scaled),
                image_remarks(env),
                info_remarks(env, infos, family.horizon),
                task_remarks(family),
            )
            for remark in itertools.chain(*told):
                console.print("[bold yellow]note:[/bold yellow]", Text(remark), highlight=False)
    console.print(table(("an episode of random actions", "steps", "return", "ended by", "steps/s"), _played(family)))
    console.print(f"Train on it with: metarl train --agent rl2 --env {typed(source)}", highlight=False, markup=False)


def _few(names: tuple[str, ...], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _bounds(values: np.ndarray) -> str:
    return f"{values[0]:g}" if (values == values[0]).all() else f"[{', '.join(f'{v:g}' for v in values)}]"


def _played(family: TaskFamily) -> list[tuple[str, ...]]:
    """Play an episode of each split with random actions; return a row for each."""
    env, rows = BatchedEnv(family, 1, 1, threads=1), []
    low, high = action_bounds(family)
    for split in EPISODES:
        rng = stream(0, f"check/{split}")
        env.set_tasks(family.sample(1, rng, split))
        env.reset([rng])
        total, steps, ended, began = 0.0, 0, "its length", time.perf_counter()
        while env.active[0, 0]:
            result = env.step(rng.uniform(low, high)[None, None] / family.action_scale)
            total, steps = total + float(result.rewards[0, 0]), steps + 1
            if result.faulted[0, 0]:
                ended = "a fault"
            elif result.terminated[0, 0]:
                ended = "a terminal state"
        rate = steps / (time.perf_counter() - began)
        values = ", ".join(f"{p.name} {p.words(env.tasks[0].values[p.name])}" for p in family.parameters)
        rows.append((f"{split.replace('_', '-')} task: {values}", str(steps), f"{total:.1f}", ended, f"{rate:,.0f}"))
    return rows
