"""A quadruped from a table of figures, which are those of Unitree's Go1 unless told otherwise.

Figures: Unitree's own description of the Go1, `go1_description` of github.com/unitreerobotics/unitree_ros
(`xacro/const.xacro`, `xacro/leg.xacro`, `urdf/go1.urdf`, read 2026): kinematics, the collision shapes, mass, centre and
inertia of every link and of the 12 motor rotors (13.099 kg together; Unitree's own note there says 12.84 kg, its data
sheet about 12 kg), joint ranges, torque and speed limits, joint damping and friction. The gear ratio of the GO-M8010-6
motor, 6.33, is that of Unitree's motor SDK; the knee has a further 35.55 / 23.7 = 1.5. Gains and home pose are those
that RL practice uses on this robot (Kp 35, Kd .5: MuJoCo Playground; hip .1, thigh .8 to 1, calf -1.5 to -1.8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from metarl.envs.declared.sensors import add_contact_sensor
from metarl.envs.robots.quadruped_settings import DT

FRAME_SKIP = 4
TIMESTEP = DT / FRAME_SKIP  # s

Vector = tuple[float, float, float]

LEGS = ("FR", "FL", "RR", "RL")
"""Front and rear, right and left, in Unitree's order."""
LEG_JOINTS = ("hip", "thigh", "calf")
MORE_LEGS = (*LEGS, "MR", "ML")
"""The legs of a robot with a third pair, in the middle of the trunk. A robot of n legs has the first n."""


def joints_of(legs: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the actuated joints of these legs, in the order of actions and observations."""
    return tuple(f"{leg}_{joint}" for leg in legs for joint in LEG_JOINTS)


def foot_contacts(legs: Sequence[str]) -> tuple[str, ...]:
    """Return the names of sensors that are 1 where a foot touches the ground and 0 elsewhere."""
    return tuple(f"{leg}_contact" for leg in legs)


JOINTS = joints_of(LEGS)
"""Names of the Go1's actuated joints."""
TRUNK_CONTACT = "trunk_contact"
"""Sensor of the number of contacts of the trunk and the hips with the ground."""


@dataclass(frozen=True)
class Inertial:
    """Mass, centre and inertia of a link of the front left leg, or of the trunk, in the frame of its body."""

    mass: float
    """Mass, kg."""
    centre: Vector
    """Position of the centre of mass, m."""
    inertia: tuple[float, float, float, float, float, float]
    """Moments of inertia xx, yy, zz, xy, xz, yz about the centre, kg m^2."""

    @property
    def tensor(self) -> np.ndarray:
        """Inertia about the centre, [3, 3] kg m^2."""
        xx, yy, zz, xy, xz, yz = self.inertia
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])

    def mirrored(self, x: float = 1.0, y: float = 1.0) -> Inertial:
        """Return the mirror image, with the signs x and y (1 or -1) of those axes; 0: symmetric about 0 on the axis."""
        sign = np.array([x, y, 1.0])
        products = np.outer(sign, sign)
        np.fill_diagonal(products, 1.0)
        return inertial(self.mass, sign * self.centre, self.tensor * products)


def inertial(mass: float, centre: np.ndarray, tensor: np.ndarray) -> Inertial:
    """Return an Inertial from arrays: centre [3] m, tensor [3, 3] kg m^2 about it."""
    x, y, z = map(float, centre)
    rows, columns = (0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)
    xx, yy, zz, xy, xz, yz = map(float, tensor[rows, columns])
    return Inertial(mass, (x, y, z), (xx, yy, zz, xy, xz, yz))


def combine(*parts: Inertial) -> Inertial:
    """Combine parts into one rigid body (parallel axis theorem)."""
    mass = sum(p.mass for p in parts)
    centre = sum((p.mass * np.array(p.centre) for p in parts), np.zeros(3)) / mass
    tensor = np.zeros((3, 3))
    for part in parts:
        offset = np.array(part.centre) - centre
        tensor += part.tensor + part.mass * (offset @ offset * np.eye(3) - np.outer(offset, offset))
    return inertial(mass, centre, tensor)


def rotor(place: Vector, axis: int) -> Inertial:
    """Return a motor's rotor at `place` m that turns about `axis` (0: x, 1: y)."""
    xx, yy, zz = (1.11842e-4 if i == axis else 5.9647e-5 for i in range(3))
    return Inertial(0.089, place, (xx, yy, zz, 0.0, 0.0, 0.0))


HIP_ROTOR = rotor((0.11215, 0.04675, 0.0), axis=0)
THIGH_ROTOR = rotor((0.0, -0.00015, 0.0), axis=1)
CALF_ROTOR = rotor((0.0, -0.03235, 0.0), axis=1)


@dataclass(frozen=True)
class QuadrupedFigures:
    """Figures of a quadruped whose legs are a hip (about x), a thigh and a calf (about y). Defaults: Go1."""

    trunk_size: Vector = (0.3762, 0.0935, 0.114)
    """Length, width and height of the trunk's box, m."""
    hip_place: tuple[float, float] = (0.1881, 0.04675)
    """Forwards and sideways from the trunk's origin to a hip joint, m."""
    hip_offset: float = 0.08
    """Sideways from the hip joint to the thigh joint, m."""
    thigh_length: float = 0.213
    """Length from the thigh joint to the knee, m."""
    calf_length: float = 0.213
    """Length from the knee to the centre of the foot, m."""
    hip_radius: float = 0.046
    """Radius of the hip's cylinder, m."""
    hip_width: float = 0.04
    """Length of the hip's cylinder, m."""
    thigh_radius: float = 0.017
    """Radius of the thigh's capsule, m."""
    calf_radius: float = 0.008
    """Radius of the calf's capsule, m."""
    foot_radius: float = 0.02
    """Radius of the foot, m."""

    trunk: Inertial = Inertial(
        5.204,
        (0.0223, 0.002, -0.0005),
        (0.0168128557, 0.063009565, 0.0716547275, -0.0002296769, -0.0002945293, -0.0000418731),
    )
    hip: Inertial = Inertial(
        0.591,
        (-0.005657, -0.008752, -0.000102),
        (0.000334008405, 0.000619101213, 0.00040057614, -0.000010826066, 0.000001290732, 0.000001643194),
    )
    thigh: Inertial = Inertial(
        0.92,
        (-0.003342, -0.018054, -0.033451),
        (0.004431760472, 0.004485671726, 0.000740309489, 0.000057496807, -0.000218457134, 0.000572001265),
    )
    calf: Inertial = Inertial(
        0.135862,
        (0.006197, 0.001408, -0.116695),
        (0.001088793059, 0.001100428748, 0.000024787446, -0.000000255679, 0.000007117814, 0.000002077264),
    )
    foot_mass: float = 0.06
    """Mass of the foot, a solid sphere, kg."""
    hip_rotor: Inertial = HIP_ROTOR
    """Rotor of the hip's motor, in the trunk."""
    thigh_rotor: Inertial = THIGH_ROTOR
    """Rotor of the thigh's motor, in the hip."""
    calf_rotor: Inertial = CALF_ROTOR
    """Rotor of the calf's motor, in the thigh."""
    gear: Vector = (6.33, 6.33, 9.495)
    """Gear ratio of hip, thigh and calf: a rotor of inertia I adds gear^2 I to its joint."""

    joint_low: Vector = (-0.863, -0.686, -2.818)
    """Lowest angle of hip, thigh and calf, rad; hips turn outwards as far as inwards."""
    joint_high: Vector = (0.863, 4.501, -0.888)
    """Highest angle of hip, thigh and calf, rad."""
    torque_limit: Vector = (23.7, 23.7, 35.55)
    """Torque limit of hip, thigh and calf, N m."""
    joint_damping: float = 0.01
    """Damping of the joints, besides the derivative gain, N m s/rad."""
    joint_friction: float = 0.2
    """Friction loss of the joints, N m."""
    kp: float = 35.0
    """Proportional gain, N m/rad."""
    kd: float = 0.5
    """Derivative gain, N m s/rad."""
    home: Vector = (0.0, 0.9, -1.8)
    """Angle of hip, thigh and calf in the pose that actions are relative to, rad."""
    friction: float = 0.8
    """Coefficient of sliding friction with the ground."""

    def __post_init__(self) -> None:
        for joint, low, home, high in zip(LEG_JOINTS, self.joint_low, self.home, self.joint_high, strict=True):
            if not low <= home <= high:
                raise ValueError(f"home of the {joint} is {home:g} rad, outside its range [{low:g}, {high:g}]")

    @property
    def armature(self) -> Vector:
        """Inertia that the rotors add to hip, thigh and calf joint, kg m^2."""
        axial = (self.hip_rotor.inertia[0], self.thigh_rotor.inertia[1], self.calf_rotor.inertia[1])
        hip, thigh, calf = (gear**2 * inertia for gear, inertia in zip(self.gear, axial, strict=True))
        return hip, thigh, calf

    @property
    def home_pose(self) -> np.ndarray:
        """Home angles in the order of JOINTS, [12] rad."""
        return np.tile(self.home, len(LEGS))

    @property
    def home_height(self) -> float:
        """Height of the trunk's origin over level ground in the home pose, with the feet just touching, m."""
        hip, thigh, calf = self.home
        leg = self.thigh_length * math.cos(thigh) + self.calf_length * math.cos(thigh + calf)
        return leg * math.cos(hip) + self.foot_radius

    @property
    def foot(self) -> Inertial:
        spherical = 0.4 * self.foot_mass * self.foot_radius**2
        return Inertial(self.foot_mass, (0.0, 0.0, -self.calf_length), (spherical, spherical, spherical, 0.0, 0.0, 0.0))


GO1 = QuadrupedFigures()


def build(figures: QuadrupedFigures = GO1, timestep: float = TIMESTEP, legs: Sequence[str] = LEGS) -> mujoco.MjSpec:
    """Return the robot on flat ground; timestep in s. legs: the first 3 to 6 of MORE_LEGS.

    A leg without its pair is in the middle between left and right. The trunk is the same for any number of legs.

    A control signal is the target of a joint relative to its home, rad: the torque kp (home + ctrl - q) - kd dq/dt,
    within the torque limits, is computed in every simulation step. Robot geoms collide with the ground and with nothing
    else, and have priority over it: their friction is that of the contact.
    """
    spec = mujoco.MjSpec()
    spec.modelname = "quadruped"
    spec.compiler.degree = False
    spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_FALSE
    spec.option.timestep = timestep
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC  # 40 % slower than pyramids, but feet do not creep
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_ISLAND  # one robot is one island
    spec.worldbody.add_light(pos=(0, 0, 4), dir=(0, 0, -1), type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    spec.worldbody.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 0.05), conaffinity=0, rgba=(0.5, 0.55, 0.6, 1)
    )
    trunk = _add_body(
        spec.worldbody,
        "trunk",
        (0, 0, figures.home_height),
        combine(figures.trunk, *(figures.hip_rotor.mirrored(x, y) for x, y in (_signs(leg, legs) for leg in legs))),
    )
    trunk.add_freejoint(name="root")
    _add_geom(trunk, figures, "trunk", mujoco.mjtGeom.mjGEOM_BOX, size=np.array(figures.trunk_size) / 2)
    for leg in legs:
        _add_leg(spec, trunk, figures, leg, _signs(leg, legs))
    for name, leg in zip(foot_contacts(legs), legs, strict=True):
        add_contact_sensor(spec, name, mujoco.mjtObj.mjOBJ_GEOM, f"{leg}_foot")
    add_contact_sensor(spec, TRUNK_CONTACT, mujoco.mjtObj.mjOBJ_BODY, "trunk")
    home = (0.0, 0.0, figures.home_height, 1.0, 0.0, 0.0, 0.0, *figures.home * len(legs))
    spec.add_key(name="home", qpos=home)
    return spec


PLACE = {"F": 1.0, "R": -1.0, "M": 0.0}
"""Place of a pair of legs along the trunk, of the way from its middle to the front hips."""


def _signs(leg: str, legs: Sequence[str]) -> tuple[float, float]:
    """Return (front 1, middle 0 or rear -1; left 1, right -1 or, without its pair, 0)."""
    paired = sum(other[0] == leg[0] for other in legs) == 2
    return PLACE[leg[0]], ((1.0 if leg[1] == "L" else -1.0) if paired else 0.0)


def _add_body(parent: mujoco.MjsBody, name: str, place: Vector, inertia: Inertial) -> mujoco.MjsBody:
    body = parent.add_body(name=name, pos=place)
    body.explicitinertial = True
    body.mass, body.ipos, body.fullinertia = inertia.mass, inertia.centre, inertia.inertia
    return body


def _add_geom(body: mujoco.MjsBody, figures: QuadrupedFigures, name: str, kind: mujoco.mjtGeom, **rest) -> None:
    body.add_geom(
        **{
            "name": name,
            "type": kind,
            "contype": 0,
            "conaffinity": 1,
            "condim": 3,
            "priority": 1,
            "friction": (figures.friction, 0.005, 0.0001),
            "rgba": (0.25, 0.27, 0.3, 1),
            **rest,
        }
    )


def _add_leg(
    spec: mujoco.MjSpec, trunk: mujoco.MjsBody, figures: QuadrupedFigures, leg: str, signs: tuple[float, float]
) -> None:
    """Add hip, thigh and calf with their joints and servos. signs: as `_signs` returns them."""
    hip = _add_hip(trunk, figures, leg, signs)
    thigh = _add_thigh(hip, figures, leg, signs[1])
    for i, body in enumerate((hip, thigh, _add_calf(thigh, figures, leg))):
        body.add_joint(
            name=f"{leg}_{LEG_JOINTS[i]}",
            axis=(1, 0, 0) if LEG_JOINTS[i] == "hip" else (0, 1, 0),
            limited=True,
            range=(figures.joint_low[i], figures.joint_high[i]),
            damping=[figures.joint_damping, 0.0, 0.0],
            frictionloss=figures.joint_friction,
            armature=figures.armature[i],
        )
        _add_servo(spec, figures, leg, i)


def _add_hip(trunk: mujoco.MjsBody, figures: QuadrupedFigures, leg: str, signs: tuple[float, float]) -> mujoco.MjsBody:
    x, y = signs
    hip = _add_body(
        trunk,
        f"{leg}_hip",
        (x * figures.hip_place[0], y * figures.hip_place[1], 0.0),
        combine(figures.hip.mirrored(x, y), figures.thigh_rotor.mirrored(y=y)),
    )
    half = (y or 1.0) * figures.hip_width / 2
    _add_geom(
        hip,
        figures,
        f"{leg}_hip",
        mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=(figures.hip_radius, 0, 0),
        fromto=(0, -half, 0, 0, half, 0),
        conaffinity=0,
    )
    return hip


def _add_thigh(hip: mujoco.MjsBody, figures: QuadrupedFigures, leg: str, y: float) -> mujoco.MjsBody:
    thigh = _add_body(
        hip,
        f"{leg}_thigh",
        (0.0, y * figures.hip_offset, 0.0),
        combine(figures.thigh.mirrored(y=y), figures.calf_rotor.mirrored(y=y)),
    )
    _add_geom(
        thigh,
        figures,
        f"{leg}_thigh",
        mujoco.mjtGeom.mjGEOM_CAPSULE,
        size=(figures.thigh_radius, 0, 0),
        fromto=(0, 0, 0, 0, 0, -figures.thigh_length),
    )
    return thigh


def _add_calf(thigh: mujoco.MjsBody, figures: QuadrupedFigures, leg: str) -> mujoco.MjsBody:
    """Add the calf with its foot."""
    calf = _add_body(thigh, f"{leg}_calf", (0.0, 0.0, -figures.thigh_length), combine(figures.calf, figures.foot))
    _add_geom(
        calf,
        figures,
        f"{leg}_calf",
        mujoco.mjtGeom.mjGEOM_CAPSULE,
        size=(figures.calf_radius, 0, 0),
        fromto=(0, 0, 0, 0, 0, -figures.calf_length),
    )
    _add_geom(
        calf,
        figures,
        f"{leg}_foot",
        mujoco.mjtGeom.mjGEOM_SPHERE,
        size=(figures.foot_radius, 0, 0),
        pos=(0, 0, -figures.calf_length),
        rgba=(0.1, 0.1, 0.1, 1),
    )
    return calf


def _add_servo(spec: mujoco.MjSpec, figures: QuadrupedFigures, leg: str, i: int) -> None:
    limit = figures.torque_limit[i]
    spec.add_actuator(
        name=f"{leg}_{LEG_JOINTS[i]}",
        target=f"{leg}_{LEG_JOINTS[i]}",
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        gainprm=[figures.kp] + [0.0] * 9,
        biasprm=[figures.kp * figures.home[i], -figures.kp, -figures.kd] + [0.0] * 7,
        forcelimited=True,
        forcerange=(-limit, limit),
    )
