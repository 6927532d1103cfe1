"""Sites of quantities of the scene: friction with it, gravity, slope of the ground."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import mujoco
import numpy as np

from metarl.envs.own_robot import contacts as robot_contacts
from metarl.envs.own_robot import ground as robot_ground
from metarl.envs.own_robot.declaration import DeclaredParameter
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.sites import Find, Site, attribute

FRICTIONS = {"friction": (0, 1), "torsional_friction": (2,), "rolling_friction": (3, 4)}
"""Elements of a contact's friction by quantity."""
ELEMENT_OF_GEOM = {0: 0, 2: 1, 3: 2}
"""Element of a geom's friction by the first one of a contact's."""


def friction(quantity: str) -> Find:
    """Return a function that finds a coefficient of friction in each contact of a geom with the scene."""
    elements = FRICTIONS[quantity]
    least = robot_contacts.LEAST_DIMENSION[elements[0]]

    def find(robot: Robot, name: str, _: DeclaredParameter) -> dict[str, Site]:
        if robot.model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_OVERRIDE:
            raise ValueError(
                "the model overrides the friction of all contacts (option flag override), so it cannot be varied"
            )
        contacts = robot_contacts.contacts_of(robot.model, robot.bodies, name)
        if not contacts:
            what = "nothing but the robot itself" if robot_contacts.collides(robot.model, name) else "nothing"
            raise ValueError(f"geom {name!r} collides with {what}: it has no friction with the ground or the scene")
        acting = [c for c in contacts if c.condim >= least]
        if not acting:
            other = next(g for g in contacts[0].geoms if g != name)
            raise ValueError(
                f"geom {name!r} has no {quantity}: its contact with {other!r} has condim {contacts[0].condim}, and "
                f"{quantity} acts from condim {least} on"
            )
        if robot_contacts.decides(robot.model, robot.bodies, name):
            return {name: _of_geom(robot, name, elements, acting)}
        for contact, spec in itertools.product(acting, (robot.spec, robot.visual)):
            contact.add_pair(spec)  # in every task, the neutral one too: worlds of the gpu simulator have equal pairs
        return {key: site for contact in acting for key, site in _of_contact(contact, elements).items()}

    return find


def _of_geom(robot: Robot, name: str, elements: tuple[int, ...], acting: list[robot_contacts.Contact]) -> Site:
    """Return the site of the friction of a geom whose own it is in each of these contacts."""
    index = ELEMENT_OF_GEOM[elements[0]]
    site = attribute(float(robot.model.geom(name).friction[index]), "geom", name, "friction", index)
    slots = tuple(f"friction {i} of {contact.name}" for contact in acting for i in elements)
    return dataclasses.replace(site, slots=slots)


def _of_contact(contact: robot_contacts.Contact, elements: tuple[int, ...]) -> dict[str, Site]:
    """Return the site of a contact's friction, or one per direction of a pair whose frictions differ."""
    alike = len({contact.friction[i] for i in elements}) == 1
    groups = {contact.name: elements} if alike else {f"{contact.name}, element {i}": (i,) for i in elements}
    return {
        key: Site(
            contact.friction[group[0]],
            functools.partial(contact.set_friction, elements=group),
            tuple(f"friction {i} of {contact.name}" for i in group),
        )
        for key, group in groups.items()
    }


def gravity(robot: Robot, _: str, entry: DeclaredParameter) -> Site:
    """Find the magnitude of gravity."""
    default = float(np.linalg.norm(robot.model.opt.gravity))
    if default == 0:
        raise ValueError("the model has no gravity")
    direction = np.array(robot.model.opt.gravity) / default
    return Site(default, lambda spec, value: setattr(spec.option, "gravity", direction * value), ("gravity",))


def slope(robot: Robot, _: str, entry: DeclaredParameter) -> Site:
    """Find the slope of the ground, which is turned as a whole about the origin of its first plane."""
    planes, model = robot.ground.planes, robot.model
    if robot.mobility != "floating" or not planes:
        raise ValueError("a slope needs a floating base, which starts upright on it, and a plane for a floor")
    solid = robot_contacts.meetings(model).any(axis=1) & ~robot_contacts.own_geoms(model, robot.bodies)
    if others := [name for g in np.flatnonzero(solid) if (name := model.geom(g).name) not in planes]:
        raise ValueError(
            f"a slope turns planes, and {', '.join(others)} would not turn with them; do not vary the slope "
            "of this scene"
        )
    pivot = robot_ground.geom_pose(model, model.geom(planes[0]).id)[0]
    frames = {plane: robot_ground.frame_of(robot.spec, model, plane) for plane in planes}
    robot.ground = dataclasses.replace(robot.ground, level=None)

    def write(spec: mujoco.MjSpec, value: float) -> None:
        turn = np.array([math.cos(value / 2), 0.0, -math.sin(value / 2), 0.0])
        for plane, frame in frames.items():
            place, quat = robot_ground.geom_pose(model, model.geom(plane).id)
            place, quat = robot_ground.compose(pivot, turn, place - pivot, quat)
            geom = spec.geom(plane)
            geom.pos, geom.quat = robot_ground.compose(*robot_ground.inverse(*frame), place, quat)
            geom.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT

    return Site(0.0, write, ("slope",))
