"""Print the report of `metarl robot check`: what is inferred about a robot, what its file declares, what is wrong."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from metarl.cli.check_remarks import (
    check_rows,
    distribution_remarks,
    end_remarks,
    observation_remarks,
    remarks,
    reward_remarks,
    start_text,
    task_remarks,
    tasks_text,
)
from metarl.envs.family import TaskFamily
from metarl.envs.own_robot.check_run import run_check
from metarl.envs.own_robot.check_tasks import check_tasks, neutral_end
from metarl.envs.own_robot.declaration import read_declaration
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.family import CONTROL_DT, check_robot
from metarl.envs.strict_yaml import quoted
from metarl.envs.text import escaped, typed
from metarl.reporting.catalogue import parameter_rows, splits, table

STARTER = """\
The robot can be used. Declare its reward and what varies, for example

  reward: {{{reward}}}
  distribution:
    - {{name: mass, target: {body}, quantity: mass, operation: scale,
       distribution: uniform, range: [0.5, 1.5]}}

in my_family.yaml, then run: metarl robot check {model} --family my_family.yaml"""


def show_check(model: str, declaration: str = "", console: Console | None = None) -> bool:
    """Print the report and return whether the robot can be used. ValueError for a mistake in the model or the file."""
    console = console or Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    robot, family = check_robot(model, declaration)
    console.print(f"\n[bold]{escape(escaped(model))}[/bold]", highlight=False, soft_wrap=True)
    console.print(table(("property", "value", "source"), [(f.subject, f.value, f.source) for f in robot.findings]))
    console.print(table(("body", "mass, kg", "geoms"), body_rows(robot)))
    if robot.model.nu:
        console.print(table(("actuator", "kind", "control range", "action"), actuator_rows(robot)))
    for question in robot.questions:
        console.print(f"[bold red]to do:[/bold red] {question}", highlight=False, markup=True)
    if not robot.questions:
        dt, scale = (CONTROL_DT, 1.0) if family is None else (family.dt, family.action_scale)
        show_check_run(robot, dt, console, scale)
    if family is not None:
        show_family(family, console)
        said = read_declaration(declaration)
        told = [*observation_remarks(said), *reward_remarks(said, robot), *distribution_remarks(said, family)]
        if not robot.questions:
            count, found = check_tasks(family)
            console.print(tasks_text(count), highlight=False)
            told += [*end_remarks(neutral_end(family)), *task_remarks(family, found)]
        show_remarks(told, console)
        command = f"metarl train --robot {typed(model)} --family {typed(declaration)}"
        console.print(f"Train on it with: {command}", highlight=False, markup=False, soft_wrap=True)
    elif not robot.questions:
        fixed = robot.mobility == "fixed"
        reward = "home_cost: 1, control_cost: 0.05" if fixed else "forward_velocity: 1, control_cost: 0.05"
        heavy = [name for name in robot.bodies if robot.model.body(name).mass[0] > 0]
        body = robot.base if robot.base in heavy else heavy[0]
        starter = STARTER.format(reward=reward, body=quoted(re.escape(body)), model=typed(model))
        console.print(starter, highlight=False, markup=False, soft_wrap=True)
    return not robot.questions


def show_check_run(robot: Robot, dt: float, console: Console, action_scale: float = 1.0) -> None:
    """Simulate the robot and print what it did. dt: control step, s. action_scale: see `run_check`."""
    check = run_check(robot, dt, action_scale=action_scale)
    rows = [[escape(escaped(cell)) for cell in row] for row in check_rows(robot, check)]
    console.print(start_text(check), highlight=False, markup=False)
    console.print(table(("one second from home", "with action 0", "with random actions"), rows))
    show_remarks(remarks(robot, check), console)
    console.print()


def show_remarks(said: Sequence[str], console: Console) -> None:
    """Print a note for each remark."""
    for remark in said:
        console.print("[bold yellow]note:[/bold yellow]", Text(escaped(remark)), highlight=False)


def body_rows(robot: Robot) -> list[tuple[str, ...]]:
    """Return a row for each body: the names that a target can match."""
    return [
        (name, f"{robot.model.body(name).mass[0]:.4g}", ", ".join(g.name for g in robot.spec.body(name).geoms))
        for name in robot.bodies
    ]


def actuator_rows(robot: Robot) -> list[tuple[str, ...]]:
    """Return a row for each actuator, with the ranges of its control signals and actions."""

    def span(low: float, high: float) -> str:
        return "not given" if np.isnan(low) else f"{low:.4g} .. {high:.4g}"

    ends = (robot.offset + robot.gain * bound for bound in (robot.low, robot.high))
    rows = zip(robot.kinds, *ends, robot.low, robot.high, strict=True)
    return [
        (robot.model.actuator(i).name, kind, span(bottom, top), span(low, high))
        for i, (kind, bottom, top, low, high) in enumerate(rows)
    ]


def show_family(family: TaskFamily, console: Console) -> None:
    """Print the parameters, observations, actions and rewards that a robot's file declares."""
    console.print(table(("parameter", "unit", "tasks", "neutral", "law"), parameter_rows(family)))
    rewards = ", ".join(f"{term.weight:+g} {name}" for name, term in family.rewards.items())
    console.print(
        f"{family.observation_size} observations: {', '.join(family.observation_names)}\n"
        f"{family.action_size} actions; {family.horizon} steps an episode, each of {family.frame_skip} simulation "
        f"steps; an episode {'can end' if family.terminate else 'never ends'} early\n"
        f"reward: {rewards}\n"
        f"{splits(family)}",
        highlight=False,
        markup=False,
    )
