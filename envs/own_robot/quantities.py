"""Quantities that a robot's file can vary, and their bounds and units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from metarl.envs.own_robot.actuator_laws import action_delay, force_limit, gear, servo, strength
from metarl.envs.own_robot.body_laws import (
    body_mass,
    centre_of_mass,
    density,
    inertia,
    link_length,
    payload,
    payload_place,
    radius,
    size,
)
from metarl.envs.own_robot.declaration import DeclaredParameter, Operation
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.joint_laws import joint_attribute, joint_range
from metarl.envs.own_robot.own_edits import own_edit
from metarl.envs.own_robot.scale_law import scale
from metarl.envs.own_robot.scene_laws import friction, gravity, slope
from metarl.envs.own_robot.sites import Find, Site

Kind = Literal["body", "geom", "joint", "actuator", "model", "told"]


def _nowhere(robot: Robot, target: str, declared: DeclaredParameter) -> Site:
    """Return a site that changes no model."""
    return Site(0.0, lambda spec, value: None, ())


@dataclass(frozen=True)
class Quantity:
    """A quantity that can be varied on targets of one kind."""

    kind: Kind
    unit: str
    find: Find = _nowhere
    """Find the quantity on a target; nowhere for what only terms are told."""
    low: float = -math.inf
    """Least possible value; if `positive`, values must be greater."""
    positive: bool = False
    operations: tuple[Operation, ...] = ("set", "scale", "add")
    explicit: Literal["", "given", "principal"] = ""
    """Whether its body's inertia has to be given, not inferred from geoms, and about principal axes."""
    inertial: bool = False
    """Whether it acts on moving bodies alone."""
    says: str = ""
    """What it is."""
    needs: str = ""
    """Key of `options.FLAGS` whose effect the model's options must not switch off; empty: none."""


QUANTITIES: dict[str, Quantity] = {
    "mass": Quantity("body", "kg", body_mass, 0.0, positive=True, inertial=True, says="mass; inertia follows"),
    "density": Quantity("geom", "kg/m^3", density, 0.0, positive=True, inertial=True, says="density; mass follows"),
    "payload": Quantity(
        *("body", "kg", payload, 0.0),
        operations=("set",),
        inertial=True,
        says="sphere of 5 cm radius at `position` in the body's frame, or cube on the box `stands_on`",
    ),
    **{
        f"payload_{a}": Quantity(
            "body", "m", payload_place(i), operations=("set", "add"), says=f"{a} of its payload's place in its frame"
        )
        for i, a in enumerate("xyz")
    },
    **{
        f"inertia_{a}": Quantity(
            *("body", "kg m^2", inertia(i), 0.0),
            positive=True,
            explicit="principal",
            inertial=True,
            says=f"moment of inertia about the {a} axis of its principal frame",
        )
        for i, a in enumerate("xyz")
    },
    **{
        f"com_{a}": Quantity(
            *("body", "m", centre_of_mass(i)),
            operations=("set", "add"),
            explicit="given",
            inertial=True,
            says=f"{a} of the centre of mass in the body's frame",
        )
        for i, a in enumerate("xyz")
    },
    "link_length": Quantity(
        *("body", "1", link_length, 0.0),
        positive=True,
        operations=("scale",),
        says="length away from its joint; what it carries moves with its end, a given inertia is stretched with it",
    ),
    "scale": Quantity(
        *("body", "1", scale, 0.0),
        positive=True,
        operations=("scale",),
        says="all lengths of the body and of what it carries, about its joint, at their density; gains and limits stay",
    ),
    "size": Quantity("geom", "m", size, 0.0, positive=True, says="all its sizes; a given inertia follows"),
    "radius": Quantity(
        "geom", "m", radius, 0.0, positive=True, says="radius of a sphere, capsule or cylinder; a given inertia follows"
    ),
    "friction": Quantity(
        "geom", "1", friction("friction"), 0.0, needs="contact", says="sliding, with ground and scene"
    ),
    "torsional_friction": Quantity(
        "geom", "m", friction("torsional_friction"), 0.0, needs="contact", says="about the contact's normal"
    ),
    "rolling_friction": Quantity("geom", "m", friction("rolling_friction"), 0.0, needs="contact", says="rolling"),
    "damping": Quantity("joint", "N m s/rad", joint_attribute("damping"), 0.0, needs="damper", says="damping"),
    "stiffness": Quantity("joint", "N m/rad", joint_attribute("stiffness"), 0.0, needs="spring", says="spring"),
    "armature": Quantity("joint", "kg m^2", joint_attribute("armature", scalar=True), 0.0, says="inertia of rotors"),
    "friction_loss": Quantity(
        "joint", "N m", joint_attribute("frictionloss", scalar=True), 0.0, needs="frictionloss", says="dry friction"
    ),
    "range": Quantity(
        *("joint", "rad", joint_range, 0.0),
        positive=True,
        needs="limit",
        says="half the range's width, about its middle; of a ball joint its largest angle",
    ),
    "kp": Quantity("actuator", "N m/rad", servo("kp"), 0.0, positive=True, needs="actuation", says="servo's stiffness"),
    "kd": Quantity("actuator", "N m s/rad", servo("kd"), 0.0, needs="actuation", says="servo's damping"),
    "strength": Quantity(
        *("actuator", "1", strength, 0.0),
        operations=("scale",),
        needs="actuation",
        says="its force and every limit of it",
    ),
    "gear": Quantity("actuator", "1", gear, needs="actuation", says="gear ratio"),
    "force_limit": Quantity(
        "actuator", "N m", force_limit, 0.0, positive=True, needs="actuation", says="lowest limit of its force"
    ),
    "action_delay": Quantity(
        *("actuator", "s", action_delay, 0.0),
        operations=("set", "add"),
        needs="actuation",
        says="time from a control signal to its force, in simulation steps",
    ),
    "gravity": Quantity("model", "m/s^2", gravity, 0.0, needs="gravity", says="its magnitude"),
    "slope": Quantity("model", "rad", slope, operations=("set", "add"), says="angle at which the ground rises along x"),
    "python": Quantity(
        "model", "any", own_edit, operations=(), says="what your own function(spec, value) edits. Its code is run."
    ),
    "command_x": Quantity("told", "m/s", says="command_x that the reward asks for"),
    "command_y": Quantity("told", "m/s", says="command_y that the reward asks for"),
    "command_yaw": Quantity("told", "rad/s", says="command_yaw that the reward asks for"),
    **{f"goal_{a}": Quantity("told", "m", says=f"{a} of the target in the world") for a in "xyz"},
    **{
        f"goal_{turn}": Quantity("told", "rad", says=f"angle by which the target is turned about the world's {a} axis")
        for turn, a in (("roll", "x"), ("pitch", "y"), ("yaw", "z"))
    },
    "sensor_noise": Quantity("told", "1", low=0.0, says="factor on the noise of the observation's terms"),
    "push_velocity": Quantity("told", "m/s", low=0.0, says="velocity that a push adds to the base"),
}
"""By name."""
COMMANDED = {"command_x": "forward_velocity", "command_y": "sideways_velocity", "command_yaw": "yaw_rate"}
"""Component of the command by the quantity that is it."""
