"""Does a trained policy walk at the commanded speed?  What it does is measured by where the trunk goes.

    python -m benchmarks.quadruped RUN [--results results]

RUN: of the family quadruped. Commands forwards, sideways and turning, each on the neutral robot and on held-out robots,
10 s an episode; writes results/<agent>_quadruped_walk.json and .mp4. Speeds are those of the trunk's displacement in
its own heading over a second, from the third second on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.agents.threads import single_torch_thread
from metarl.envs.arrays import Array
from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.task import Task
from metarl.provenance import provenance
from metarl.reporting.figures import AFTER
from metarl.reporting.films import Clip, Pose, TaskRenderer, film
from metarl.runs.run import Run, load_run
from metarl.runs.trial import stream, streams

SECONDS, WARM_UP = 10.0, 2.0
COMMANDS = [(v, 0.0, 0.0) for v in (-1.0, -0.5, 0.0, 0.5, 1.0)]
COMMANDS += [(0.0, v, 0.0) for v in (-0.5, 0.5)] + [(0.0, 0.0, w) for w in (-1.0, 1.0)] + [(0.5, 0.0, 0.5)]
"""Forward and sideways velocity, m/s; yaw rate, rad/s."""
FILMED = [(1.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.5, 0.0, 0.5)]
NAMES = ("forward_velocity", "sideways_velocity", "yaw_rate")
ROBOTS = 20
"""Held-out robots, each given every command."""


def commanded(run: Run) -> TaskFamily:
    """The run's family with the command as part of the task, and episodes of 10 s."""
    settings = run.family.settings
    assert isinstance(settings, QuadrupedSettings)
    family = make_family(dataclasses.replace(settings, command="task", horizon=round(SECONDS / 0.02)))
    assert family.observation_names == run.family.observation_names
    return family


def walk(run: Run, family: TaskFamily, tasks: Sequence[Task]) -> tuple[Array, Array, float]:
    """An episode of each task by the policy's mean: qpos [T + 1, M, nq], time of the fall [M] (inf: none), and dt."""
    env = BatchedEnv(family, len(tasks), 1)
    env.set_tasks(tasks)
    observation, belief = env.reset(streams(1, "quadruped", 0, len(tasks))), run.agent.begin(len(tasks), 1, ())
    path, fell = [env.poses.copy()], np.full(len(tasks), math.inf)
    with torch.no_grad(), single_torch_thread():
        for t in range(family.horizon):
            action, belief = run.agent.act(belief, torch.from_numpy(observation), None)
            step = env.step(action.cpu().numpy())
            ended = torch.from_numpy(~env.active)
            belief = run.agent.observe(belief, torch.from_numpy(step.rewards), ended)
            observation = step.observations
            fell[step.terminated[:, 0]] = (t + 1) * env.dt
            path.append(env.poses.copy())
    return np.stack(path), fell, env.dt


def speeds(path: Array, dt: float) -> Array:
    """[M, 3] forward and sideways m/s in the heading at the start of each second, and yaw rate rad/s."""
    w, x, y, z = np.moveaxis(path[..., 3:7], -1, 0)
    yaw = np.unwrap(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)), axis=0)
    second, first = round(1 / dt), round(WARM_UP / dt)
    short = round(0.1 / dt)  # displacement over a tenth, in the heading in its middle: a second's curve is no straight
    moved = (path[short:, :, :2] - path[:-short, :, :2]) / (short * dt)
    heading = yaw[short // 2 : short // 2 + len(moved)]
    c, s = np.cos(heading), np.sin(heading)
    forward, sideways = c * moved[..., 0] + s * moved[..., 1], -s * moved[..., 0] + c * moved[..., 1]
    turning = (yaw[second:] - yaw[:-second]) / (second * dt)
    return np.stack([forward[first:].mean(0), sideways[first:].mean(0), turning[first:].mean(0)], axis=1)


def measure(run: Run) -> dict[str, Any]:
    """Speeds by command on the neutral robot, and their error on held-out robots."""
    family = commanded(run)
    neutral = [family.task(dict(zip(NAMES, command, strict=True))) for command in COMMANDS]
    path, fell, dt = walk(run, family, neutral)
    reached = speeds(path, dt)
    drawn = family.sample(ROBOTS, stream(1, "quadruped/robots"), "held_out")
    others = [
        family.task({**robot.values, **dict(zip(NAMES, command, strict=True))})
        for robot in drawn
        for command in COMMANDS
    ]
    their_path, their_fell, _ = walk(run, family, others)
    stood = np.isinf(their_fell)
    error = np.abs(speeds(their_path, dt) - np.tile(COMMANDS, (ROBOTS, 1)))[stood]
    return {
        "run": {"env_steps": run.env_steps, "iteration": run.iteration},
        "neutral_robot": [
            {
                "command": dict(zip(NAMES, command, strict=True)),
                "measured": {n: round(float(v), 3) for n, v in zip(NAMES, own, strict=True)},
                "fell": bool(np.isfinite(when)),
            }
            for command, own, when in zip(COMMANDS, reached, fell, strict=True)
        ],
        "mean_error_on_neutral_robot": _by_name(np.abs(reached - np.array(COMMANDS)).mean(0)),
        "held_out_robots": ROBOTS,
        "mean_error_on_held_out_robots": _by_name(error.mean(0)),
        "episodes_on_held_out_robots": len(others),
        "falls_on_held_out_robots": int((~stood).sum()),
        **provenance(run.config),
    }


def _by_name(values: Array) -> dict[str, float]:
    return {name: round(float(value), 3) for name, value in zip(NAMES, values, strict=True)}


def make_film(run: Run, path: Path) -> None:
    """The neutral robot under three commands, side by side."""
    family = commanded(run)
    tasks = [family.task(dict(zip(NAMES, command, strict=True))) for command in FILMED]
    paths, _, dt = walk(run, family, tasks)
    reached = speeds(paths, dt)
    clips = [
        Clip(f"asked {_say(command)};  did {_say(own)}", [Pose(qpos) for qpos in paths[:, m]], AFTER)
        for m, (command, own) in enumerate(zip(FILMED, reached, strict=True))
    ]
    with TaskRenderer(family, tasks[0]) as renderer:
        print(f"saved {film(renderer, dt, clips, [_heading(run)], path, 8.0)}")


def _say(command: Sequence[float]) -> str:
    return f"{command[0]:.1f}, {command[1]:.1f} m/s, {command[2]:.1f} rad/s"


def _heading(run: Run) -> str:
    return f"{run.config.agent_name} on quadruped, {run.env_steps / 1e6:.1f}M env steps of training"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Does a policy walk at the commanded speed?")
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    run = load_run(options.run)
    if run.config.family_name != "quadruped":
        parser.error(f"{options.run} is of the family {run.config.family_name}; give a run of quadruped")
    record = measure(run)
    for row in record["neutral_robot"]:
        command, own = (_say(list(row[key].values())) for key in ("command", "measured"))
        print(f"command {command}: measured {own}{', fell' if row['fell'] else ''}")
    for key, value in record.items():
        if "error" in key or "fall" in key:
            print(f"{key.replace('_', ' ')}: {value}")
    name = f"{run.config.agent_name}_quadruped_walk"
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    make_film(run, options.results / f"{name}.mp4")


if __name__ == "__main__":
    main()
