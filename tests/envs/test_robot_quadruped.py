"""The built-in quadruped is the robot of a file that says the same, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.robots import quadruped as built_in
from metarl.envs.robots.quadruped_settings import QuadrupedSettings, QuadrupedTerrainSettings
from tests.envs.own_robot.quadruped_file import in_python, written

WIDE = {"kp": (20.0, 50.0), "kd": (0.3, 1.0), "joint_damping": (0.0, 0.1), "joint_friction": (0.0, 0.5)}
WIDE |= {"armature": (0.8, 1.2), "com_x": (-0.05, 0.05), "com_z": (0.0, 0.02)}
TASKS, ENVS, STEPS = 5, 2, 50


def episodes(family: TaskFamily, split: str) -> dict[str, np.ndarray]:
    """What some random steps give, in tasks of a split: everything that a learner or an evaluation is told."""
    tasks = family.sample(TASKS, np.random.default_rng(1), split)
    env = BatchedEnv(family, TASKS, ENVS, threads=1, measuring=True, telling=True)
    env.set_tasks(tasks)
    found = {"tasks": np.array([list(task.values.values()) for task in tasks])}
    found["starts"] = env.reset([np.random.default_rng(m) for m in range(TASKS)])
    actions, steps, told = np.random.default_rng(2), [], []
    for t in range(STEPS):
        steps.append(env.step(actions.uniform(-3, 3, (TASKS, ENVS, 12)).astype(np.float32)))
        told.append(np.array(env.privileged))
        ended = steps[-1].terminated | steps[-1].truncated
        if ended.any():
            env.reset([np.random.default_rng((m, t)) for m in range(TASKS)], ended)
    for name in ("observations", "rewards", "terminated", "truncated"):
        found[name] = np.stack([getattr(step, name) for step in steps])
    found["privileged"] = np.stack(told)
    found |= {f"reward of {name}": np.array(values) for name, values in env.terms.items()}
    measured = {name: values for name, values in env.measures.items() if name != "success"}  # within other bounds
    return found | {f"measure {name}": np.array(values) for name, values in measured.items()}


@pytest.mark.parametrize(
    "settings",
    [
        QuadrupedSettings(),
        QuadrupedSettings(physics="exact", command="task", **WIDE),
        QuadrupedSettings(sensor_noise=(0.5, 2.0), push_velocity=(0.0, 1.0), push_interval=0.3, observe_velocity=True),
        QuadrupedSettings(changes=2, change_gap=(10, 20), changing=("friction", "payload_mass")),
        QuadrupedSettings(weak_joints=("FR_calf", "RL_hip"), **WIDE),
        QuadrupedSettings(locked_joints=("FL_hip", "RR_calf")),
        QuadrupedTerrainSettings(height_scan=True, ground_around=4.0),
    ],
    ids=["default", "exact physics", "noise and pushes", "changes", "weak joint", "locked joint", "terrain"],
)
def test_the_quadruped_is_the_robot_of_a_file_to_the_bit(settings, tmp_path):
    terrain = isinstance(settings, QuadrupedTerrainSettings)
    known = (built_in.quadruped_terrain if terrain else built_in.quadruped)(settings)
    own = written(settings, tmp_path)
    split = "ood" if terrain else "train"
    expected, found = episodes(known, split), episodes(own, split)
    assert expected.keys() == found.keys()
    assert expected["terminated"].any()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    for task in known.sample(2, np.random.default_rng(3), split):
        ours, theirs = own.compile(own.task(task.values)), known.compile(task)
        for name in ("body_mass", "body_inertia", "body_ipos", "dof_damping", "dof_armature", "actuator_biasprm"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    np.testing.assert_array_equal([own.action_low, own.action_high], [known.action_low, known.action_high])


def test_declared_in_python_it_is_that_robot(tmp_path):
    expected, found = (
        episodes(f, "train") for f in (in_python(QuadrupedSettings()), written(QuadrupedSettings(), tmp_path))
    )
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_on_a_slope_it_is_that_robot_but_for_rounding(tmp_path):
    settings = QuadrupedSettings(slope=(-0.2, 0.2))
    expected = episodes(built_in.quadruped(settings), "train")
    found = episodes(written(settings, tmp_path), "train")
    for name in ("starts", "observations", "rewards", "terminated"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)  # float32
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-9, atol=1e-12, err_msg=name)
