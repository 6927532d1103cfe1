"""Every family by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from metarl.envs import half_cheetah, point_goal, robot
from metarl.envs.family import TaskFamily
from metarl.envs.settings import (
    FamilySettings,
    HalfCheetahDirectionSettings,
    HalfCheetahMassSettings,
    HalfCheetahVelocitySettings,
    PointGoalSettings,
    RobotSettings,
)

FAMILIES: dict[type[FamilySettings], Callable[[Any], TaskFamily]] = {
    PointGoalSettings: point_goal.point_goal,
    HalfCheetahVelocitySettings: half_cheetah.half_cheetah_velocity,
    HalfCheetahDirectionSettings: half_cheetah.half_cheetah_direction,
    HalfCheetahMassSettings: half_cheetah.half_cheetah_mass,
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
