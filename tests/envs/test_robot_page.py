"""The examples of docs/robots.md: each is a file of a robot, or a part of one, and makes a family that is played."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.foreign.settings import EnvSettings
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family
from tests.envs.own_robot.families import entry, written

PAGE = (Path(__file__).parents[2] / "docs" / "robots.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)

LEG = """<body name="{name}_hip" pos="{x} {y} 0"><joint name="{name}_hip_joint" axis="1 0 0" range="-.8 .8"/>
  <geom size=".04" mass=".7"/>
  <body name="{name}_thigh" pos="0 {out} 0"><joint name="{name}_thigh_joint" axis="0 1 0" range="-1 4"/>
    <geom type="capsule" size=".015" fromto="0 0 -.04 0 0 -.16" mass="1"/>
    <body name="{name}_calf" pos="0 0 -.2"><joint name="{name}_calf_joint" axis="0 1 0" range="-2.7 -.9"/>
      <geom type="capsule" size=".01" fromto="0 0 -.04 0 0 -.16" mass=".15"/>
      <body name="{name}_foot" pos="0 0 -.2"><geom name="{name}_foot_geom_2" size=".02" mass=".06"/></body>
    </body></body></body>"""
LEGS = {"FR": (0.18, -0.05), "FL": (0.18, 0.05), "RR": (-0.18, -0.05), "RL": (-0.18, 0.05)}
QUADRUPED = f"""<mujoco model="a1"><compiler angle="radian"/><worldbody><body name="base"><body name="trunk">
  <geom type="box" size=".13 .09 .05" mass="5"/><body name="imu_link"><geom size=".005" mass=".001"/></body>
  {"".join(LEG.format(name=n, x=x, y=y, out=0.08 if y > 0 else -0.08) for n, (x, y) in LEGS.items())}
  </body></body></worldbody></mujoco>"""
"""A1 in small: its bodies and joints, fixed to the world and without actuators, as its URDF comes."""

SHANK = """<body name="{side}_thigh" pos="0 {y} 0"><joint name="{side}_hip" axis="0 1 0" range="-1 1"/>
  <geom type="capsule" size=".03" fromto="0 0 0 0 0 -.3" mass="1"/>
  <body name="{side}_shank" pos="0 0 -.3"><joint name="{side}_knee" axis="0 1 0" range="-1 1"/>
    <geom type="capsule" size=".02" fromto="0 0 -.06 0 0 -.3" mass=".5"/></body></body>"""
HANGING = f"""<mujoco model="legs"><compiler angle="radian"/><worldbody><body name="pelvis" pos="0 0 1">
  <geom type="box" size=".05 .05 .05"/>{SHANK.format(side="left", y=0.15)}{SHANK.format(side="right", y=-0.15)}</body>
  </worldbody><actuator>{
    "".join(
        f'<position joint="{side}_{joint}" kp="40" kv="2" ctrlrange="-1 1"/>'
        for side in ("left", "right")
        for joint in ("hip", "knee")
    )
}</actuator></mujoco>"""
ARM = """<mujoco model="arm"><compiler angle="radian"/><worldbody><body name="upper" pos="0 0 1">
  <joint name="shoulder" axis="0 1 0" range="-2 2" damping=".1"/>
  <geom type="capsule" size=".03" fromto=".05 0 0 .3 0 0" mass=".5"/>
  <body name="lower" pos=".35 0 0"><joint name="elbow" axis="0 1 0" range="-2 2" damping=".1"/>
    <geom type="capsule" size=".02" fromto=".05 0 0 .3 0 0" mass=".3"/><site name="tip" pos=".3 0 0"/></body></body>
  </worldbody><actuator><motor joint="shoulder" ctrlrange="-5 5"/><motor joint="elbow" ctrlrange="-5 5"/></actuator>
  </mujoco>"""

GRAVITY = entry("gravity", None, "scale", [0.9, 1.1])
LOAD = {**entry("mass", "trunk", "scale", [0.9, 1.1]), "name": "load"}
WHOLE = next(yaml.safe_load(block) for block in BLOCKS if block.startswith("# Written by `metarl robot init`"))
ROBOTS: dict[str, tuple[str, dict[str, Any]]] = {
    "commands": (QUADRUPED, {"robot": WHOLE["robot"], "distribution": [LOAD]}),
    "faults": (HANGING, {"robot": {"floating": False}, "reward": {"home_cost": 1}}),
    "observation": (ARM, {"distribution": [GRAVITY]}),
    "robot": (QUADRUPED, {}),
}
"""A robot for each example, by the example's first key, and what the file has besides it."""


def family_of(block: str, folder: Path) -> TaskFamily:
    """The family of an example, merged with what its robot needs besides."""
    model, others = ROBOTS[next(iter(yaml.safe_load(block)))]
    for name, text in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, re.M | re.S):
        written(folder, text, name)
    file = written(folder, f"{yaml.safe_dump(others) if others else ''}\n{block}", "robot.yaml")
    return make_family(RobotSettings(written(folder, model), file))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: next(iter(yaml.safe_load(block))))
def test_an_example_makes_a_task_that_can_be_played(block, tmp_path):
    family = family_of(block, tmp_path)
    assert set(yaml.safe_load(block).get("reward", ())) <= set(family.rewards)
    env = BatchedEnv(family, 1, 2, threads=1)
    env.reset([np.random.default_rng(0)])
    for _ in range(3):
        result = env.step(np.zeros((1, 2, family.action_size)))
        assert np.isfinite(env.observations).all() and np.isfinite(result.rewards).all()


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("  track_yaw: {weight: 0.5, width: 0.25}\n", "", "no reward term asks for commands.yaw_rate"),
        ("bodies: [.*_thigh]", "bodies: [.*_tigh]", "is no group, body or geom of it"),
    ],
)
def test_an_example_that_the_language_refuses_is_noticed(right, wrong, said, tmp_path):
    block = next(block for block in BLOCKS if right in block)
    with pytest.raises(ValueError, match=said):
        family_of(block.replace(right, wrong), tmp_path)


def test_the_example_in_python_makes_a_task_that_can_be_played(tmp_path):
    found = re.search(r"^```python\n# (swinger\.py)\n(.*?)^```$", PAGE, re.M | re.S)
    assert found is not None
    file = written(tmp_path, found[2], found[1])
    env = BatchedEnv(make_family(EnvSettings(f"{file}:tasks")), 1, 2, threads=1)
    env.reset([np.random.default_rng(0)])
    rewards = env.step(np.zeros((1, 2, 1))).rewards
    np.testing.assert_allclose(rewards[0], -np.cos(env.simulation.batch.qpos[:, 0]), atol=1e-6)
