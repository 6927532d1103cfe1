"""The built-in quadruped, written as a user's own robot: a model file and a YAML file, or Python."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mujoco
import yaml

import metarl
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
from metarl.envs.robots.quadruped_terms import FALLS, REWARDS, observation, privileged

EDITS = """
from metarl.envs.robots import quadruped_parameters

def weak_joint(spec, value):
    quadruped_parameters.weaken(spec, value, strength=0.3)

def locked_joint(spec, value):
    quadruped_parameters.lock(spec, value)

def joint_friction(spec, value):
    quadruped_parameters.damp_as_friction(spec, value)
"""
"""What the language has no quantity for."""


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
            for name, term in observation().items()
            if name != "velocity" or settings.observe_velocity
        },
        "privileged": {name: observed(term, noisy) for name, term in privileged().items()},
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
