"""Every family by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from metarl.envs.family import TaskFamily
from metarl.envs.own_robot import family as robot
from metarl.envs.robots import ant, ant_legs, half_cheetah, humanoid, point_goal, quadruped, walkers
from metarl.envs.settings import (
    AntCrippledSettings,
    AntDirectionSettings,
    AntGoalSettings,
    AntLegsSettings,
    AntLimbsSettings,
    AntTerrainSettings,
    AntVelocitySettings,
    FamilySettings,
    HalfCheetahBodySettings,
    HalfCheetahDirectionSettings,
    HalfCheetahDisabledJointSettings,
    HalfCheetahLimbsSettings,
    HalfCheetahMassSettings,
    HalfCheetahTerrainSettings,
    HalfCheetahVelocitySettings,
    HopperParametersSettings,
    HumanoidDirectionSettings,
    PointGoalSettings,
    QuadrupedSettings,
    QuadrupedTerrainSettings,
    RobotSettings,
    Walker2dLimbsSettings,
    Walker2dParametersSettings,
    Walker2dTerrainSettings,
)

FAMILIES: dict[type[FamilySettings], Callable[[Any], TaskFamily]] = {
    PointGoalSettings: point_goal.point_goal,
    HalfCheetahVelocitySettings: half_cheetah.half_cheetah_velocity,
    HalfCheetahDirectionSettings: half_cheetah.half_cheetah_direction,
    HalfCheetahMassSettings: half_cheetah.half_cheetah_mass,
    HalfCheetahDisabledJointSettings: half_cheetah.half_cheetah_disabled_joint,
    HalfCheetahBodySettings: half_cheetah.half_cheetah_body,
    HalfCheetahLimbsSettings: half_cheetah.half_cheetah_limbs,
    HalfCheetahTerrainSettings: half_cheetah.half_cheetah_terrain,
    AntDirectionSettings: ant.ant_direction,
    AntGoalSettings: ant.ant_goal,
    AntVelocitySettings: ant.ant_velocity,
    AntCrippledSettings: ant.ant_crippled,
    AntLimbsSettings: ant.ant_limbs,
    AntLegsSettings: ant_legs.ant_legs,
    AntTerrainSettings: ant.ant_terrain,
    HumanoidDirectionSettings: humanoid.humanoid_direction,
    HopperParametersSettings: walkers.hopper_parameters,
    Walker2dParametersSettings: walkers.walker2d_parameters,
    Walker2dLimbsSettings: walkers.walker2d_limbs,
    Walker2dTerrainSettings: walkers.walker2d_terrain,
    QuadrupedSettings: quadruped.quadruped,
    QuadrupedTerrainSettings: quadruped.quadruped_terrain,
    RobotSettings: robot.robot,
}


COPIES: dict[type[FamilySettings], Callable[[Any, Path], FamilySettings]] = {RobotSettings: robot.copy_robot}
"""How the files that a family is made of are copied, where there are any."""


def keep_files(settings: FamilySettings, folder: Path) -> FamilySettings:
    """Copy the files that the settings name under a folder; returns the settings that name the copies."""
    copy = COPIES.get(type(settings))
    return settings if copy is None else copy(settings, folder)


def make_family(settings: FamilySettings) -> TaskFamily:
    """The family that the settings describe; ValueError if they describe none."""
    return FAMILIES[type(settings)](settings)
