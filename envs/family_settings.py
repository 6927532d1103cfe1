"""Settings that families share.

Settings stand beside the families that they configure, in modules that import neither torch nor MuJoCo, so that
`metarl --help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.bounds import bounded, newer, unbounded
from metarl.envs.faults.settings import FaultSettings


@dataclass(frozen=True, kw_only=True)
class FamilySettings(FaultSettings):
    """Settings of every family."""

    horizon: int = bounded(200, at_least=1)
    """Steps an episode."""


@dataclass(frozen=True, kw_only=True)
class LocomotionSettings(FamilySettings):
    """Settings of robots that are rewarded for moving."""

    control_cost: float = bounded(0.05, at_least=0)
    """Weight of the squared action, after clipping."""
    action_scale: float = bounded(1.0, above=0)
    """Factor on the policy's action before it is clipped to [-1, 1]; MAML's and ProMP's code has 0.1."""
    privileged_feet: bool = newer(False, before=False)
    """Tell teachers and critics (`agent.privileged_critic`) which feet touch something and, on uneven ground, oracles
    too how high it is around each foot."""


@dataclass(frozen=True, kw_only=True)
class SurvivalSettings(FamilySettings):
    """Settings of robots that are rewarded for not falling."""

    survive: float = unbounded(1.0)
    """Reward of every step of the episode."""
    fall_cost: float = newer(0.0, before=0.0, at_least=0)
    """Subtracted from the reward of the step that ends in a fall. With `training.lives` a robot that falls is placed
    anew: without this cost, policies learn to leap and fall."""


@dataclass(frozen=True, kw_only=True)
class TargetVelocitySettings(FamilySettings):
    """Settings of families whose tasks are target velocities."""

    velocity_low: float = unbounded(0.0)
    """Lowest target velocity, m/s."""
    velocity_high: float = unbounded(3.0)
    """Highest target velocity, m/s."""


@dataclass(frozen=True, kw_only=True)
class VelocityCommandSettings(FamilySettings):
    """Settings of robots that follow velocity commands."""

    command: Literal["episode", "task"] = "episode"
    """episode: the velocity command is drawn at each start and observed; task: it is a parameter, and observed."""
    forward_velocity: tuple[float, float] = bounded((-1.0, 1.0), pair=True)
    """Commanded velocity forwards, m/s."""
    sideways_velocity: tuple[float, float] = bounded((-0.5, 0.5), pair=True)
    """Commanded velocity to the left, m/s."""
    yaw_rate: tuple[float, float] = bounded((-1.0, 1.0), pair=True)
    """Commanded rate of turning to the left, rad/s."""


@dataclass(frozen=True, kw_only=True)
class LimbSettings(FamilySettings):
    """Settings of families whose tasks are sizes of the limbs."""

    limbs: Literal["each", "alike"] = "each"
    """each: every limb has its own length and thickness; alike: limbs of one kind have one."""
    length_range: float = bounded(1.3, above=1)
    """Lengths are logU(1 / length_range, length_range) times the neutral ones."""
    thickness_range: float = bounded(1.3, above=1)
    """Radii are logU(1 / thickness_range, thickness_range) times the neutral ones."""


@dataclass(frozen=True, kw_only=True)
class DynamicsSettings(FamilySettings):
    """Settings of families whose tasks are scales of a whole robot's dynamics."""

    mass_range: float = bounded(2.0, above=1)
    """Masses and inertias are logU(1 / mass_range, mass_range) times the neutral ones."""
    damping_range: float = bounded(2.0, above=1)
    """Joint dampings are logU(1 / damping_range, damping_range) times the neutral ones."""
    torque_range: float = bounded(0.5, above=0, below=1)
    """Torques are U(1 - torque_range, 1 + torque_range) times the neutral ones."""
    friction_range: float = bounded(2.0, above=1)
    """Sliding frictions are logU(1 / friction_range, friction_range) times the neutral ones."""


@dataclass(frozen=True, kw_only=True)
class ChangeSettings(FamilySettings):
    """Settings of families whose tasks can change while they last."""

    changes: int = bounded(0, at_least=0)
    """Number of times that a task changes while it lasts: another mass, motor or leg is drawn. 0: never."""
    change_gap: tuple[int, int] = bounded((100, 300), at_least=1, pair=True)
    """Fewest and most control steps before each change, and between two."""
