"""The built-in quadruped, written as a user's own robot: a model file and a YAML file, equal to it to the bit."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import yaml

import metarl
from metarl.envs.batch import BatchedEnv
from metarl.envs.declared.entries import ObservationEntry
from metarl.envs.declared.rig import COMMANDS
from metarl.envs.family import TaskFamily
from metarl.envs.own_robot.declaration import DeclaredParameter
from metarl.envs.own_robot.family import robot
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.robots import quadruped as built_in
from metarl.envs.robots.quadruped_parameters import base, entries
from metarl.envs.robots.quadruped_robot import LEGS
from metarl.envs.robots.quadruped_settings import DT, QuadrupedSettings, QuadrupedTerrainSettings
from metarl.envs.robots.quadruped_terms import FALLS, OBSERVATION, PRIVILEGED, REWARDS

WIDE = {"kp": (20.0, 50.0), "kd": (0.3, 1.0), "joint_damping": (0.0, 0.1), "joint_friction": (0.0, 0.5)}
WIDE |= {"armature": (0.8, 1.2), "com_x": (-0.05, 0.05), "com_z": (0.0, 0.02)}
EDITS = """
from metarl.envs.robots import quadruped_parameters

def weak_joint(spec, value):
    quadruped_parameters.weaken(spec, value, strength=0.3)

def joint_friction(spec, value):
    quadruped_parameters.damp_as_friction(spec, value)
"""
"""What the language has no quantity for."""
TASKS, ENVS, STEPS = 5, 2, 50


@contextlib.contextmanager
def whole_numbers() -> Iterator[None]:
    """MJCF with all digits of its numbers; MuJoCo writes six, and has no public way to ask for more."""
    library = ctypes.CDLL(str(next(Path(mujoco.__file__).parent.glob("libmujoco*"))))
    digits = library._mjPRIVATE__get_xml_precision()
    library._mjPRIVATE__set_xml_precision(17)
    try:
        yield
    finally:
        library._mjPRIVATE__set_xml_precision(digits)


def parameter(said: DeclaredParameter) -> dict[str, Any]:
    function = None if said.function is None else f"edits.py:{said.name}"
    whole = dataclasses.asdict(dataclasses.replace(said, function=function))
    defaults = {f.name: f.default for f in dataclasses.fields(said)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in whole.items() if v != defaults[k] and k != "splits"}


def observed(said: ObservationEntry, noisy: bool) -> dict[str, Any]:
    return {"term": said.term, **({"noise": said.noise} if noisy and said.noise else {})}


def declaration(settings: QuadrupedSettings) -> dict[str, Any]:
    """The file that says what the settings say."""
    varied = {said.name for said in entries(settings)}
    noisy = "sensor_noise" in varied
    said: dict[str, Any] = {
        "robot": {"feet": [f"{leg}_foot" for leg in LEGS]},
        "control": {"dt": DT, "action_scale": settings.action_scale, "limit": built_in.ACTION_LIMIT},
        "episode": {
            "horizon": settings.horizon,
            "position_noise": built_in.RESET_JOINT,
            "velocity_noise": 0,
            "random_heading": True,
            "drop": built_in.RESET_HEIGHT,
        },
        "commands": {name: list(getattr(settings, name)) for name in COMMANDS if settings.command == "episode"},
        "contacts": {"trunk": ["trunk"]},
        "observation": {
            name: observed(term, noisy)
            for name, term in OBSERVATION.items()
            if name != "velocity" or settings.observe_velocity
        },
        "privileged": {name: observed(term, noisy) for name, term in PRIVILEGED.items()},
        "rewards_per": "second",
        "reward": {name: {"term": term.term, "weight": term.weight} for name, term in REWARDS.items()},
        "termination": {"tilt": FALLS.tilt, "contact": list(FALLS.contact)},
        "distribution": [parameter(entry) for entry in entries(settings)],
    }
    if "push_velocity" in varied:
        said["pushes"] = {"every": settings.push_interval}
    if settings.changes:
        gap = list(settings.change_gap)
        said["changes"] = {"parameters": list(settings.changing), "count": settings.changes, "gap": gap}
    if isinstance(settings, QuadrupedTerrainSettings):
        said["terrain"] = {
            "kinds": list(settings.kinds),
            "ood_kinds": list(settings.ood_kinds),
            "difficulty": [settings.difficulty_low, settings.difficulty_high],
            "height_scan": settings.height_scan,
            "around": settings.ground_around,
            "patch": built_in.TERRAIN_PATCH,
            "cell": built_in.TERRAIN_CELL,
        }
    return said


def in_python(settings: QuadrupedSettings) -> TaskFamily:
    """The family of the quadruped's specification and of a mapping that declares it."""
    with whole_numbers():
        return metarl.declare_robot(lambda: base(settings), declaration(settings))


def written(settings: QuadrupedSettings, folder: Path) -> TaskFamily:
    """The family of the quadruped's model and declaration, each in its file."""
    spec = base(settings)
    spec.compile()
    with whole_numbers():
        (folder / "quadruped.xml").write_text(spec.to_xml())
    (folder / "edits.py").write_text(EDITS)
    (folder / "quadruped.yaml").write_text(yaml.safe_dump(declaration(settings), sort_keys=False))
    return robot(RobotSettings(str(folder / "quadruped.xml"), str(folder / "quadruped.yaml")))


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
        QuadrupedTerrainSettings(height_scan=True, ground_around=4.0),
    ],
    ids=["default", "exact physics", "noise and pushes", "changes", "weak joint", "terrain"],
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
