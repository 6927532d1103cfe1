"""Small robots that the tests of one's own robot share, and how a family is made of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mujoco
import numpy as np
import yaml

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family

Array = np.ndarray
HOME = 0.7
ARM = """<mujoco model="arm"><compiler angle="radian"/>{extra}
  <worldbody><body name="boom" pos="0 0 1"><joint name="lift" axis="0 -1 0" range="-2 2" damping=".1" {joint}/>
    <geom name="boom" type="capsule" size=".03" fromto="0 0 0 .5 0 0" mass=".4"/><site name="tip" pos=".5 0 0"/></body>
    <site name="high" pos=".1 0 1.6"/></worldbody>
  {tendon}<actuator>{actuator}</actuator>
  <keyframe><key name="home" qpos="{home}"/></keyframe></mujoco>"""
STILL = {"position_noise": 0, "velocity_noise": 0}


def entry(quantity: str, target: str | None, operation: str | None, ends: list[float], **keys: object) -> dict:
    """An entry of a distribution, named p."""
    given = {"target": target, "operation": operation, **keys}
    named = {k: v for k, v in given.items() if v is not None}
    return {"name": "p", "quantity": quantity, "distribution": "uniform", "range": ends, **named}


def arm(folder: Path, actuator: str, home: float = HOME, joint: str = "", tendon: str = "", extra: str = "") -> str:
    """A boom on a hinge that gravity pulls at, in a file; its keyframe is at `home` rad."""
    text = ARM.format(actuator=actuator, home=home, joint=joint, tendon=tendon, extra=extra)
    return written(folder, text)


def written(folder: Path, text: str, name: str = "robot.xml") -> str:
    """The path of a file with the text."""
    (folder / name).write_text(text)
    return str(folder / name)


def declared(folder: Path, *entries: Mapping, **keys: object) -> str:
    """The path of a declaration; without an entry gravity is varied."""
    said = {"reward": {"home_cost": 1}, "episode": STILL, **keys}
    said["distribution"] = list(entries) or [entry("gravity", None, "scale", [0.9, 1.1])]
    (folder / "family.yaml").write_text(yaml.safe_dump(said))
    return str(folder / "family.yaml")


def family_of(folder: Path, model: str, *entries: Mapping, **keys: object) -> TaskFamily:
    """The family of a robot's file."""
    return make_family(RobotSettings(model, declared(folder, *entries, **keys)))


def played(family: TaskFamily, actions: Array, n: int = 1, seed: int = 0) -> tuple[Array, BatchedEnv]:
    """Positions [T + 1, N, nq] while the neutral robot plays actions [T, act], and its env."""
    env = BatchedEnv(family, 1, n, threads=1)
    env.set_tasks([family.neutral()])
    env.reset([np.random.default_rng(seed)])
    path = [env.simulation.batch.bind("qpos").copy()]
    for action in actions:
        env.step(np.tile(action, (1, n, 1)))
        path.append(env.simulation.batch.bind("qpos").copy())
    return np.array(path), env


def at(family: TaskFamily, value: float) -> mujoco.MjModel:
    """The model of the task with the value."""
    return family.compile(family.task({"p": value}))
