"""Published quadrupeds, as bodies of the Go1's builder.

Sources, read 2026. Numbers are facts; no file is copied.

- A1: Unitree's description, github.com/unitreerobotics/unitree_ros, `robots/a1_description/xacro/const.xacro`.
- Go2: the same, `robots/go2_description/xacro/const.xacro`.
- Mini Cheetah: MIT's model, github.com/mit-biomimetics/Cheetah-Software, `common/include/Dynamics/MiniCheetah.h`; the
  calf's length, the feet and the masses of both together, which the model lacks: MIT's description for learning,
  github.com/mit-biomimetics/ORCAgym, `resources/robots/mini_cheetah/urdf/mini_cheetah_simple.urdf`.
- ANYmal C: ANYbotics' description by way of MuJoCo Menagerie, github.com/google-deepmind/mujoco_menagerie,
  `anybotics_anymal_c/anymal_c.xml`, which welds what is fixed; its URDF is `anymal_c_simple_description`.
- Spot: MuJoCo Menagerie, `boston_dynamics_spot/spot.xml`; the robot's mass: Boston Dynamics' Spot SDK, "About Spot"
  (32.5 kg); motors: the Isaac Lab project, `isaaclab_assets/robots/spot.py`.
- The knees' angles at home: Menagerie's keyframes for A1, Go2 and Spot, legged_gym's `anymal_c_rough_config.py` and
  MIT's `mini_cheetah_config.py` (pkGym).

What is not theirs, as one policy has to drive all of them:

- Gains are the Go1's, scaled with the robot (35 N m/rad at its size). Training configurations have softer ones: 20
  N m/rad for A1 and Go2 (legged_gym, unitree_rl_gym), 80 for ANYmal C (legged_gym) and 60 for Spot (Isaac Lab), with
  which these bodies lean by up to 25 degrees at rest.
- Each distribution of mass is the Go1's, stretched (`quadruped_body_laws`), with the trunk's centre moved along it to
  the published place.
- All knees bend backwards, the rear ones of ANYmal too; at home each foot is below its hip; the trunk's box ends at
  the hips.
- Joint ranges are the Go1's, about the robot's home. Joint targets stay within 0.8 rad of home, which is within the
  robots' own ranges, but for the hips of ANYmal C (-0.72 to 0.49 rad) and Spot (0.785 rad).
- Joint damping and friction are the Go1's, scaled, and so are rotor inertias, of which only the Mini Cheetah's is
  published. Radii of hips, thighs and calves are the Go1's, scaled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from metarl.envs.robots.quadruped_body_laws import volumes
from metarl.envs.robots.quadruped_robot import GO1

CENTRE = GO1.trunk.mass * GO1.trunk.centre[0] / (GO1.trunk.mass + 4 * GO1.hip_rotor.mass)
"""Forwards from the middle of the Go1's trunk to its centre of mass, rotors included, m."""


@dataclass(frozen=True)
class Published:
    """Published figures of a quadruped. Masses are those of whole bodies, rotors included."""

    trunk: tuple[float, float, float]
    """Distance of front and rear hips, distance of left and right hips, height of the trunk, m."""
    centre: float
    """Forwards from the trunk's middle to its centre of mass, m."""
    hip_offset: float
    """Distance sideways from a hip to the plane of its leg, m."""
    thigh_length: float
    """Length from hip to knee, m."""
    calf_length: float
    """Length from the knee to the middle of the foot, m."""
    foot_radius: float
    """Radius of the foot, m."""
    masses: tuple[float, float, float, float]
    """Masses of the trunk, a hip, a thigh, and a calf with its foot, kg."""
    torque_limit: float
    """Torque limit of hips and thighs, N m."""
    knee_torque_limit: float
    """Torque limit of the knees, N m."""
    knee: float
    """Angle of the knees at home, rad; 0 is a straight leg."""
    armature: float | None = None
    """Inertia that a rotor adds to a hip, kg m^2; None: not published."""

    @property
    def mass(self) -> float:
        """Mass of the robot, kg."""
        trunk, *leg = self.masses
        return trunk + 4 * sum(leg)

    @property
    def stance(self) -> float:
        """Height of the hips over the middle of the feet at home, over the length of the straight leg."""
        thigh, calf = self.thigh_length, self.calf_length
        return math.sqrt(thigh**2 + calf**2 + 2 * thigh * calf * math.cos(self.knee)) / (thigh + calf)

    def values(self) -> dict[str, float]:
        """Return the parameters of the family `quadruped_body` that give this robot, by name.

        `size` is the length of its legs over that of the Go1's; the other figures are those of the robot scaled back.
        """
        size = (self.thigh_length + self.calf_length) / (GO1.thigh_length + GO1.calf_length)
        trunk_length, trunk_width, trunk_height = trunk = tuple(length / size for length in self.trunk)
        names = ("hip_offset", "thigh_length", "calf_length", "foot_radius")
        lengths = {name: getattr(self, name) / size for name in names}
        volume = volumes(trunk, *lengths.values())
        density = {
            f"{part}_density": mass / size**3 / volume[part]
            for part, mass in zip(("trunk", "hip", "thigh", "calf"), self.masses, strict=True)
        }
        return {
            "size": size,
            "trunk_length": trunk_length,
            "trunk_width": trunk_width,
            "trunk_height": trunk_height,
            **lengths,
            **density,
            "com_x": self.centre / size - CENTRE * trunk_length / GO1.trunk_size[0],
            "stance": self.stance,
            "torque_limit": self.torque_limit / size**4,
            "knee_torque_limit": self.knee_torque_limit / size**4,
            "kp": GO1.kp,
            "kd": GO1.kd,
            "armature": 1.0 if self.armature is None else self.armature / size**5 / GO1.armature[0],
        }


ROBOTS = {
    "a1": Published(
        trunk=(2 * 0.1805, 2 * 0.047, 0.114),
        centre=0.0,
        hip_offset=0.0838,
        thigh_length=0.2,
        calf_length=0.2,
        foot_radius=0.02,
        masses=(6.0, 0.595, 0.888, 0.151 + 0.06),
        torque_limit=33.5,
        knee_torque_limit=33.5,
        knee=1.8,
    ),
    "go2": Published(
        trunk=(2 * 0.1934, 2 * 0.0465, 0.114),
        centre=0.021112,
        hip_offset=0.0955,
        thigh_length=0.213,
        calf_length=0.213,
        foot_radius=0.02,
        masses=(6.921, 0.678, 1.152, 0.154 + 0.06),
        torque_limit=23.7,
        knee_torque_limit=35.55,
        knee=1.8,
    ),
    "mini_cheetah": Published(
        trunk=(2 * 0.19, 2 * 0.049, 2 * 0.05),
        centre=0.0,
        hip_offset=0.062,
        thigh_length=0.209,
        calf_length=0.22 - 0.024,  # the link's end less the place of the foot's ball
        foot_radius=0.0202,
        masses=(3.3 + 4 * 0.055, 0.54 + 0.055, 0.634 + 0.055, 0.064 + 0.01),  # a rotor has 0.055 kg
        torque_limit=3.0 * 6.0,  # of the motor, times the gear ratio
        knee_torque_limit=3.0 * 9.33,
        knee=1.597,
        armature=6.0**2 * 63e-6,
    ),
    "anymal_c": Published(
        trunk=(2 * (0.2999 + 0.0599), 2 * 0.104, 0.18),  # its thighs' axes lie outside of its hips'
        centre=0.0025,
        hip_offset=0.0838 + 0.1003 + 0.0131,  # from hip to thigh, to knee and to foot, all sideways
        thigh_length=0.285,
        calf_length=0.3275,  # 0.0880 m backwards and 0.3155 m down
        foot_radius=0.03,
        masses=(19.2035, 2.781, 3.071, 0.58842),
        torque_limit=80.0,
        knee_torque_limit=80.0,
        knee=0.8,
    ),
    "spot": Published(
        trunk=(2 * 0.29785, 2 * 0.055, 0.191),  # height: estimated by that of the sitting robot, 191 mm
        centre=0.0064,
        hip_offset=0.1108,
        thigh_length=0.321,  # 0.025 m forwards and 0.32 m down
        calf_length=0.3365,
        foot_radius=0.036,
        # Trunk: estimated as the robot's net weight less its legs'; Menagerie's model gives all of it to the trunk.
        masses=(32.5 - 4 * (1.68 + 2.34 + 0.35), 1.68, 2.34, 0.35),
        torque_limit=45.0,
        knee_torque_limit=106.0,  # at -1.8 rad; 113 at most, 37 with the knee quite bent
        knee=1.8,
    ),
}
"""Robots that the family `quadruped_body` holds out, by name."""
