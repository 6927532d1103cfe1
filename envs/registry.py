"""Registry of families. Imports neither torch nor MuJoCo: a family's module is imported when the family is made."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple

from metarl.bounds import check
from metarl.envs.family_settings import FamilySettings
from metarl.envs.foreign.settings import EnvSettings
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.robots.ant_settings import (
    AntCrippledSettings,
    AntDirectionSettings,
    AntGoalSettings,
    AntLegsSettings,
    AntLimbsSettings,
    AntTerrainSettings,
    AntVelocitySettings,
)
from metarl.envs.robots.half_cheetah_settings import (
    HalfCheetahBodySettings,
    HalfCheetahDirectionSettings,
    HalfCheetahDisabledJointSettings,
    HalfCheetahDynamicsSettings,
    HalfCheetahLimbsSettings,
    HalfCheetahMassSettings,
    HalfCheetahTerrainSettings,
    HalfCheetahVelocitySettings,
)
from metarl.envs.robots.humanoid_settings import HumanoidDirectionSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.quadruped_body_settings import QuadrupedBodySettings
from metarl.envs.robots.quadruped_legs_settings import QuadrupedLegsSettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings, QuadrupedTerrainSettings
from metarl.envs.robots.walkers_settings import (
    HopperParametersSettings,
    Walker2dDynamicsSettings,
    Walker2dLimbsSettings,
    Walker2dParametersSettings,
    Walker2dTerrainSettings,
)

if TYPE_CHECKING:
    from metarl.envs.family import TaskFamily


class FamilyEntry(NamedTuple):
    """A registered family."""

    settings: type[FamilySettings]
    """Class of its settings."""
    make: str
    """Function that makes the family of its settings, as module:function."""
    copy: str = ""
    """Function that copies the files that its settings name, as module:function. Empty: they name none."""


FAMILIES: dict[str, FamilyEntry] = {
    "point_goal": FamilyEntry(PointGoalSettings, "metarl.envs.robots.point_goal:point_goal"),
    "half_cheetah_velocity": FamilyEntry(
        HalfCheetahVelocitySettings, "metarl.envs.robots.half_cheetah:half_cheetah_velocity"
    ),
    "half_cheetah_direction": FamilyEntry(
        HalfCheetahDirectionSettings, "metarl.envs.robots.half_cheetah:half_cheetah_direction"
    ),
    "half_cheetah_mass": FamilyEntry(HalfCheetahMassSettings, "metarl.envs.robots.half_cheetah:half_cheetah_mass"),
    "half_cheetah_dynamics": FamilyEntry(
        HalfCheetahDynamicsSettings, "metarl.envs.robots.half_cheetah:half_cheetah_dynamics"
    ),
    "half_cheetah_disabled_joint": FamilyEntry(
        HalfCheetahDisabledJointSettings, "metarl.envs.robots.half_cheetah:half_cheetah_disabled_joint"
    ),
    "half_cheetah_body": FamilyEntry(HalfCheetahBodySettings, "metarl.envs.robots.half_cheetah:half_cheetah_body"),
    "half_cheetah_limbs": FamilyEntry(HalfCheetahLimbsSettings, "metarl.envs.robots.half_cheetah:half_cheetah_limbs"),
    "half_cheetah_terrain": FamilyEntry(
        HalfCheetahTerrainSettings, "metarl.envs.robots.half_cheetah:half_cheetah_terrain"
    ),
    "ant_direction": FamilyEntry(AntDirectionSettings, "metarl.envs.robots.ant:ant_direction"),
    "ant_goal": FamilyEntry(AntGoalSettings, "metarl.envs.robots.ant:ant_goal"),
    "ant_velocity": FamilyEntry(AntVelocitySettings, "metarl.envs.robots.ant:ant_velocity"),
    "ant_crippled": FamilyEntry(AntCrippledSettings, "metarl.envs.robots.ant:ant_crippled"),
    "ant_limbs": FamilyEntry(AntLimbsSettings, "metarl.envs.robots.ant:ant_limbs"),
    "ant_legs": FamilyEntry(AntLegsSettings, "metarl.envs.robots.ant_legs:ant_legs"),
    "ant_terrain": FamilyEntry(AntTerrainSettings, "metarl.envs.robots.ant:ant_terrain"),
    "humanoid_direction": FamilyEntry(HumanoidDirectionSettings, "metarl.envs.robots.humanoid:humanoid_direction"),
    "hopper_parameters": FamilyEntry(HopperParametersSettings, "metarl.envs.robots.walkers:hopper_parameters"),
    "walker2d_parameters": FamilyEntry(Walker2dParametersSettings, "metarl.envs.robots.walkers:walker2d_parameters"),
    "walker2d_dynamics": FamilyEntry(Walker2dDynamicsSettings, "metarl.envs.robots.walkers:walker2d_dynamics"),
    "walker2d_limbs": FamilyEntry(Walker2dLimbsSettings, "metarl.envs.robots.walkers:walker2d_limbs"),
    "walker2d_terrain": FamilyEntry(Walker2dTerrainSettings, "metarl.envs.robots.walkers:walker2d_terrain"),
    "quadruped": FamilyEntry(QuadrupedSettings, "metarl.envs.robots.quadruped:quadruped"),
    "quadruped_body": FamilyEntry(QuadrupedBodySettings, "metarl.envs.robots.quadruped_body:quadruped_body"),
    "quadruped_legs": FamilyEntry(QuadrupedLegsSettings, "metarl.envs.robots.quadruped_legs:quadruped_legs"),
    "quadruped_terrain": FamilyEntry(QuadrupedTerrainSettings, "metarl.envs.robots.quadruped:quadruped_terrain"),
    "robot": FamilyEntry(
        RobotSettings, "metarl.envs.own_robot.family:robot", copy="metarl.envs.own_robot.family:copy_robot"
    ),
    "env": FamilyEntry(
        EnvSettings, "metarl.envs.foreign.family:foreign", copy="metarl.envs.foreign.family:copy_source"
    ),
}
"""Every family by name."""
FAMILY_SETTINGS: dict[str, type[FamilySettings]] = {name: entry.settings for name, entry in FAMILIES.items()}
"""Settings class of every family by name."""


def entry_of(settings: FamilySettings) -> FamilyEntry:
    """Return the registered family that has settings of this class; KeyError if there is none."""
    return {entry.settings: entry for entry in FAMILIES.values()}[type(settings)]


def keep_files(settings: FamilySettings, folder: Path) -> FamilySettings:
    """Copy the files that the settings name to a folder and return the settings that name the copies."""
    entry = entry_of(settings)
    return resolve_name(entry.copy)(settings, folder) if entry.copy else settings


def make_family(settings: FamilySettings) -> TaskFamily:
    """Return the family that the settings describe; ValueError if they describe none."""
    check(settings, "family")
    family = resolve_name(entry_of(settings).make)(settings)
    if not settings.faults:
        return family
    from metarl.envs.faults.with_faults import with_faults

    return with_faults(family, settings)
