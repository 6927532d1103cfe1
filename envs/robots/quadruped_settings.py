"""Settings of the quadruped's families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.bounds import bounded, newer
from metarl.envs.family_settings import ChangeSettings, VelocityCommandSettings
from metarl.envs.terrain.settings import TerrainSettings

DT = 0.02  # s, a control step: 50 Hz


@dataclass(frozen=True)
class QuadrupedSettings(VelocityCommandSettings, ChangeSettings):
    """Quadruped (Unitree Go1) that follows velocity commands while its body, motors and ground vary.

    A quantity whose range has equal ends has that value in every task.
    """

    payload_mass: tuple[float, float] = bounded((0.0, 5.0), at_least=0, pair=True)
    """Mass on the trunk's back, kg; 0 without."""
    payload_x: tuple[float, float] = bounded((-0.15, 0.15), pair=True)
    """Place of the payload forwards of the trunk's middle, m."""
    payload_y: tuple[float, float] = bounded((-0.05, 0.05), pair=True)
    """Place of the payload to the left of the trunk's middle, m."""
    friction: tuple[float, float] = bounded((0.3, 1.25), at_least=0, pair=True)
    """Coefficient of sliding friction with the ground; 0.8 is neutral."""
    motor_strength: tuple[float, float] = bounded((0.7, 1.1), at_least=0, pair=True)
    """Factor on torque limits and gains of all motors."""
    kp: tuple[float, float] = bounded((35.0, 35.0), above=0, pair=True)
    """Proportional gain of the joints, N m/rad; 20 to 50 are usual."""
    kd: tuple[float, float] = bounded((0.5, 0.5), at_least=0, pair=True)
    """Derivative gain of the joints, N m s/rad; 0.3 to 1 are usual."""
    joint_damping: tuple[float, float] = bounded((0.01, 0.01), at_least=0, pair=True)
    """Damping of the joints besides kd, N m s/rad; to 0.1."""
    joint_friction: tuple[float, float] = bounded((0.2, 0.2), at_least=0, pair=True)
    """Friction loss of the joints, N m; 0 to 0.5."""
    armature: tuple[float, float] = bounded((1.0, 1.0), at_least=0, pair=True)
    """Factor on the rotors' inertia as the joints feel it; 0.8 to 1.2."""
    com_x: tuple[float, float] = bounded((0.0, 0.0), pair=True)
    """Displacement forwards of the trunk's centre of mass, m; to 0.05."""
    com_y: tuple[float, float] = bounded((0.0, 0.0), pair=True)
    """Displacement to the left of the trunk's centre of mass, m; to 0.05."""
    com_z: tuple[float, float] = bounded((0.0, 0.0), pair=True)
    """Displacement upwards of the trunk's centre of mass, m; to 0.05."""
    action_delay: tuple[float, float] = bounded((0.0, 0.02), at_least=0, pair=True)
    """Delay from an action to its effect, s, in steps of the simulation (0.005 s); to 0.04."""
    sensor_noise: tuple[float, float] = bounded((0.0, 0.0), at_least=0, pair=True)
    """Factor on the usual standard deviation of each sensor's noise (1: that of legged_gym)."""
    push_velocity: tuple[float, float] = bounded((0.0, 0.0), at_least=0, pair=True)
    """Horizontal velocity that a push adds to the trunk, m/s, in a random direction; to 1."""
    push_interval: float = bounded(2.0, at_least=DT)
    """Time between pushes, s."""
    weak_joints: tuple[str, ...] = ()
    """Joints (FR_hip, FR_thigh, FR_calf, FL_..., RR_..., RL_...) of which one, or none, is weak in a task."""
    weak_strength: float = bounded(0.3, at_least=0)
    """Factor on torque limit and gains of the weak joint."""
    locked_joints: tuple[str, ...] = ()
    """Joints of which one, or none, is locked at its home angle in a task."""
    slope: tuple[float, float] = bounded((0.0, 0.0), pair=True)
    """Angle at which the ground rises along x, rad; episodes start with any heading. To 0.4."""
    observe_velocity: bool = False
    """Observe the base's linear velocity too, for which a robot has no sensor."""
    action_scale: float = bounded(0.25, above=0)
    """Radians from home that an action of 1 asks of a joint; clipped to 0.8 rad."""
    horizon: int = 250
    """Steps an episode, 0.02 s each; 1000 is usual where nothing adapts."""
    changes: int = 0
    """Number of times that the parameters of `changing` change while a task lasts. 0: never."""
    changing: tuple[str, ...] = ("payload_mass",)
    """Parameters that change: payload_mass for a payload that is dropped, friction for another ground, and so on."""
    change_gap: tuple[int, int] = (125, 375)
    physics: Literal["fast", "exact"] = newer("fast", before="exact")
    """exact: contacts are solved to convergence, and joints have friction loss. fast: about twice as fast on a CPU;
    contacts are solved approximately and joint friction is damping, with an error of the time step's order."""


@dataclass(frozen=True)
class QuadrupedTerrainSettings(QuadrupedSettings, TerrainSettings):
    """Quadruped that follows velocity commands on ground that it has to find out about."""

    promote_at: float = 4.0
    demote_at: float = 2.0
    ground_around: float = bounded(6.5, above=0)
    """Length of the ground on all four sides of the start, metres; an episode is cut a metre before its end."""
