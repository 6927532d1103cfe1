"""Settings of the quadruped whose body differs from task to task."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.bounds import bounded
from metarl.envs.robots.quadruped_settings import QuadrupedSettings


@dataclass(frozen=True)
class QuadrupedBodySettings(QuadrupedSettings):
    """Quadruped whose size, legs, masses and motors vary; published robots are held out as split ood.

    Figures are those before the whole robot is scaled by `size`. The Go1's are in brackets.
    """

    size: tuple[float, float] = bounded((0.7, 1.6), above=0, pair=True)
    """Factor on the whole robot [1]: lengths x s, masses x s^3, torques and gains so that motions are similar."""
    trunk_length: tuple[float, float] = bounded((0.32, 0.5), above=0, pair=True)
    """Distance of the front hips from the rear hips, and length of the trunk, m [0.376]."""
    trunk_width: tuple[float, float] = bounded((0.07, 0.15), above=0, pair=True)
    """Distance of the left hips from the right hips, and width of the trunk, m [0.0935]."""
    trunk_height: tuple[float, float] = bounded((0.09, 0.14), above=0, pair=True)
    """Height of the trunk, m [0.114]."""
    trunk_density: tuple[float, float] = bounded((800.0, 1800.0), above=0, pair=True)
    """Mean density of the trunk's box, kg/m^3 [1387]."""
    com_x: tuple[float, float] = (-0.03, 0.03)
    hip_offset: tuple[float, float] = bounded((0.06, 0.12), above=0, pair=True)
    """Distance sideways from a hip to the plane of its leg, m [0.08]."""
    hip_density: tuple[float, float] = bounded((1800.0, 3600.0), above=0, pair=True)
    """Mean density of the hips' cylinders, kg/m^3 [2558]."""
    thigh_length: tuple[float, float] = bounded((0.18, 0.25), above=0, pair=True)
    """Length of the thighs, m [0.213]."""
    thigh_density: tuple[float, float] = bounded((3500.0, 6500.0), above=0, pair=True)
    """Mean density of the thighs, which carry the knees' motors, as cylinders between the joints, kg/m^3 [5217]."""
    calf_length: tuple[float, float] = bounded((0.18, 0.25), above=0, pair=True)
    """Length of the calves, from the knee to the middle of the foot, m [0.213]."""
    foot_radius: tuple[float, float] = bounded((0.015, 0.025), above=0, pair=True)
    """Radius of the feet, m [0.02]."""
    calf_density: tuple[float, float] = bounded((1500.0, 4200.0), above=0, pair=True)
    """Mean density of the calves as cylinders, kg/m^3 [3172]; that of a foot is 0.56 of it."""
    stance: tuple[float, float] = bounded((0.58, 0.8), above=0, below=1, pair=True)
    """Height of the hips over the feet at home, over the length of the straight leg [0.62]."""
    torque_limit: tuple[float, float] = bounded((15.0, 40.0), above=0, pair=True)
    """Torque limit of hips and thighs, N m [23.7]."""
    knee_torque_limit: tuple[float, float] = bounded((18.0, 50.0), above=0, pair=True)
    """Torque limit of the knees, N m [35.55]."""
    kp: tuple[float, float] = bounded((25.0, 50.0), above=0, pair=True)
    """Proportional gain of the joints, N m/rad [35]."""
    kd: tuple[float, float] = bounded((0.3, 1.0), above=0, pair=True)
    """Derivative gain of the joints, N m s/rad [0.5]."""
    armature: tuple[float, float] = bounded((0.5, 1.5), above=0, pair=True)
    """Factor on the rotors' inertia as the joints feel it [1]."""
    payload_mass: tuple[float, float] = (0.0, 0.0)
    friction: tuple[float, float] = (0.8, 0.8)
    motor_strength: tuple[float, float] = (1.0, 1.0)
    action_delay: tuple[float, float] = (0.0, 0.0)
