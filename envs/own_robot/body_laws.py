"""Sites of quantities of bodies and geoms: mass, inertia, centre of mass, payload, length, size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import mujoco
import numpy as np

from metarl.envs.links import (
    LONG,
    ROUND,
    direction_of,
    goes_on_in,
    scale_link,
    shapes_across,
    stretch_along,
    stretch_given,
)
from metarl.envs.own_robot import contacts as robot_contacts
from metarl.envs.own_robot.contacts import GROUND
from metarl.envs.own_robot.declaration import DeclaredParameter
from metarl.envs.own_robot.description import Robot, unused
from metarl.envs.own_robot.lengths import require_lengths
from metarl.envs.own_robot.sites import Find, Site, attribute
from metarl.envs.own_robot.structure import loop_through

ASKEW = 0.1
"""Largest angle between a link and the axis of its box that is taken as along it, rad."""
PAYLOAD_RADIUS = 0.05  # m, of the solid sphere that a payload is
LEAST_SIDE = 0.01  # m, of a cube in pictures


def _set_mass(spec: mujoco.MjSpec, name: str, mass: float, default: float, shares: dict[str, float]) -> None:
    body = spec.body(name)
    if shares:  # inertia follows, from the geoms' shapes as they are
        for geom, share in shares.items():
            spec.geom(geom).mass = share * mass / default
    else:
        body.mass = mass
        body.inertia = np.array(body.inertia) * (mass / default)


def _scale_mass(spec: mujoco.MjSpec, name: str, factor: float, shares: dict[str, float]) -> None:
    """Multiply the mass that earlier edits left, and the inertia."""
    body = spec.body(name)
    body.mass *= factor
    body.inertia, body.fullinertia = np.array(body.inertia) * factor, np.array(body.fullinertia) * factor
    for geom in map(spec.geom, shares):
        geom.mass *= factor
        geom.density *= factor


def body_mass(robot: Robot, name: str, _: DeclaredParameter) -> Site:
    """Find a body's mass; its inertia is scaled with it."""
    default = float(robot.model.body(name).mass[0])
    if default <= 0:
        raise ValueError(f"body {name!r} has no mass; leave it out of target")
    body = robot.spec.body(name)
    shares = {g.name: robot.geom_masses[g.name] for g in body.geoms if g.name in robot.geom_masses}
    explicit = bool(body.explicitinertial)
    slots = (f"mass of {name}", *(f"inertia_{a} of {name}" for a in "xyz"))
    return Site(
        default,
        lambda spec, value: _set_mass(spec, name, value, default, {} if explicit else shares),
        slots if explicit else (*slots, *(f"density of {g}" for g in shares)),
        read=lambda spec: default,
        follows=not explicit,
        multiply=lambda spec, factor: _scale_mass(spec, name, factor, {} if explicit else shares),
    )


def density(robot: Robot, name: str, _: DeclaredParameter) -> Site:
    """Find a geom's density, where the inertia of its body is inferred from geoms."""
    geom = robot.spec.geom(name)
    if name not in robot.geom_masses or geom.parent.explicitinertial:
        raise ValueError(
            f"geom {name!r} has no density: the inertia of its body {geom.parent.name!r} is given; vary mass instead"
        )
    return dataclasses.replace(attribute(float(geom.density), "geom", name, "density"), read=None)


def inertia(axis: int) -> Find:
    """Return a function that finds a body's moment of inertia about one of its principal axes."""

    def find(robot: Robot, name: str, _: DeclaredParameter) -> Site:
        default = float(robot.model.body(name).inertia[axis])

        def write(spec: mujoco.MjSpec, value: float) -> None:
            spec.body(name).inertia[axis] = value

        return Site(default, write, (f"inertia_{'xyz'[axis]} of {name}",))

    return find


def centre_of_mass(axis: int) -> Find:
    """Return a function that finds a body's centre of mass along one of its axes."""

    def find(robot: Robot, name: str, _: DeclaredParameter) -> Site:
        def write(spec: mujoco.MjSpec, value: float) -> None:
            spec.body(name).ipos[axis] = value

        def read(spec: mujoco.MjSpec) -> float:
            return float(spec.body(name).ipos[axis])

        return Site(float(robot.model.body(name).ipos[axis]), write, (f"com_{'xyz'[axis]} of {name}",), read)

    return find


def payload(robot: Robot, name: str, entry: DeclaredParameter) -> Site:
    """Add a sphere or a cube without mass to a body, whose mass is the payload."""
    taken = {element.name for element in (*robot.visual.bodies, *robot.visual.geoms)}
    carried = robot.payloads[name] = unused(f"payload of {name}", taken)
    for spec in (robot.spec, robot.visual):
        robot_contacts.add_payload(spec, name, carried, entry.position, PAYLOAD_RADIUS)
    if entry.stands_on is None:
        return Site(0.0, lambda spec, value: setattr(spec.geom(carried), "mass", value), (carried,))
    under = entry.stands_on
    _require_standing(robot, name, under, entry.payload_density)
    for spec in (robot.spec, robot.visual):
        spec.geom(carried).type = mujoco.mjtGeom.mjGEOM_BOX
        stand(spec, carried, under, 0.0, entry.payload_density)
    slots = (carried, f"pos[2] of {carried}")
    return Site(0.0, lambda spec, value: stand(spec, carried, under, value, entry.payload_density), slots)


def _require_standing(robot: Robot, body: str, name: str, density: float) -> None:
    """Raise ValueError unless a cube of a density can stand on a geom of a body."""
    geom = robot.spec.geom(name)
    if geom is None or geom.parent.name != body or geom.type != mujoco.mjtGeom.mjGEOM_BOX:
        raise ValueError(f"stands_on is {name!r}, which is no box of body {body!r}; name one, or give a position alone")
    if density <= 0:
        raise ValueError(f"payload_density is {density:g} kg/m^3; it must be greater than 0")
    if not np.allclose(robot.model.geom(name).quat, (1, 0, 0, 0)):
        raise ValueError(f"stands_on is {name!r}, which is turned in its body; give the payload a position alone")


def stand(spec: mujoco.MjSpec, carried: str, under: str, mass: float, density: float) -> None:
    """Make a payload a solid cube of this mass, kg, and density, kg/m^3, on top of a box."""
    payload, box, side = spec.body(carried), spec.geom(under), (mass / density) ** (1 / 3)
    payload.explicitinertial, payload.ipos = True, (0.0, 0.0, 0.0)
    payload.mass, payload.inertia = mass, np.full(3, mass * side**2 / 6)
    payload.pos[2] = box.pos[2] + (2 * box.size[2] + side) / 2
    spec.geom(carried).size = np.full(3, max(side, LEAST_SIDE) / 2)


def payload_place(axis: int) -> Find:
    """Return a function that finds the place of a body's payload along one of the body's axes."""

    def find(robot: Robot, name: str, _: DeclaredParameter) -> Site:
        if name not in robot.payloads:
            raise ValueError(f"body {name!r} has no payload; list its entry of quantity payload before this one")
        carried = robot.payloads[name]
        return attribute(float(robot.spec.body(carried).pos[axis]), "body", carried, "pos", axis)

    return find


def link_length(robot: Robot, name: str, _: DeclaredParameter) -> Site:
    """Find a link's length: by a factor, its parts move away from its joint, and get longer along it.

    A given inertia is that of the material stretched at its density: `metarl.envs.links.stretched`.
    """
    body, model = robot.spec.body(name), robot.model
    if loop := loop_through(model, model.body(name).id):
        raise ValueError(
            f"body {name!r} is part of a loop ({loop}), which another length would break; do not vary length there"
        )
    pivot = pivot_of(robot, name)
    if rest := goes_on_in(model, model.body(name).id, pivot):
        raise ValueError(
            f"body {name!r} goes on in {rest!r}, which is fixed to it and would keep its length; write the parts of "
            f"{rest!r} into {name!r}, as MuJoCo does (<compiler fusestatic>)"
        )
    along = direction_of(model, model.body(name).id, pivot)
    across = shapes_across(model, model.body(name).id, along)
    boxes = {geom.name: _box_axis(robot, geom, along) for geom in body.geoms if geom.type not in ROUND}
    given = bool(body.explicitinertial) and body.mass > 0
    if given and along is None:
        raise ValueError(f"body {name!r} carries no other body and has its mass at its joint: it has no direction")
    for geom in body.geoms:
        _require_own_size(geom)

    def write(spec: mujoco.MjSpec, value: float) -> None:
        it = spec.body(name)
        scale_link(it, pivot, value, across)
        for geom, axis in boxes.items():
            spec.geom(geom).size[axis] *= value
        if given and along is not None:
            stretch_given(it, pivot, stretch_along(along, value))

    require_lengths(robot, name, write)
    slots = (f"link_length of {name}", *(f"size of {g.name}" for g in body.geoms))
    return Site(1.0, write, (*slots, *given_slots(name)) if given else slots)


def pivot_of(robot: Robot, name: str) -> np.ndarray:
    """Return the place of the joints that a body turns about in its frame, [3] m; without one, its origin."""
    turning = turning_joints(robot.spec.body(name))
    pivots = np.array([robot.model.joint(j.name).pos for j in turning]).reshape(-1, 3)
    if len(pivots) and np.ptp(pivots, axis=0).any():
        raise ValueError(f"the joints of body {name!r} are at different places: the length from them is not defined")
    return pivots[0] if len(pivots) else np.zeros(3)


def turning_joints(body: mujoco.MjsBody) -> list[mujoco.MjsJoint]:
    """Return the joints of a body that have a place: not its slides."""
    return [joint for joint in body.joints if joint.type != mujoco.mjtJoint.mjJNT_SLIDE]


def given_slots(name: str) -> tuple[str, ...]:
    """Return the slots of a body's given inertia."""
    return (f"mass of {name}", *(f"{what}_{axis} of {name}" for what in ("inertia", "com") for axis in "xyz"))


def _box_axis(robot: Robot, geom: mujoco.MjsGeom, along: np.ndarray | None) -> int:
    """Return the axis of a box that lies along its link; ValueError for another shape, or a box that lies askew."""
    name, body = geom.name, geom.parent.name
    if geom.type != mujoco.mjtGeom.mjGEOM_BOX or along is None:
        raise ValueError(f"geom {name!r} of body {body!r} is no sphere, capsule, cylinder or box: it has no length")
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, robot.model.geom(name).quat)
    shares = np.abs(along @ turn.reshape(3, 3))
    if shares.max() < np.cos(ASKEW):
        raise ValueError(f"geom {name!r} of body {body!r} is a box askew to the link: its length is not defined")
    return int(np.argmax(shares))


def _require_own_size(geom: mujoco.MjsGeom) -> None:
    """Raise ValueError for a shape that MuJoCo fits to a mesh, whose size and place no edit of its own changes."""
    if geom.meshname and geom.type != mujoco.mjtGeom.mjGEOM_MESH:
        raise ValueError(
            f"geom {geom.name!r} of body {geom.parent.name!r} is fitted to the mesh {geom.meshname!r}, which gives it "
            "its size; vary scale, or write the size that MuJoCo compiles into the model"
        )


def size(robot: Robot, name: str, _: DeclaredParameter) -> Site:
    """Find a geom's first size; the others and the length are scaled with it, and a given inertia follows."""
    geom = robot.spec.geom(name)
    default = float(geom.size[0])
    _require_own_size(geom)
    if geom.type in GROUND or geom.type == mujoco.mjtGeom.mjGEOM_MESH or default <= 0:
        raise ValueError(f"geom {name!r} is a {geom.type.name.removeprefix('mjGEOM_').lower()}: it has no size to vary")
    follow, slots = _following(robot, geom)

    def write(spec: mujoco.MjSpec, value: float) -> None:
        it, factor = spec.geom(name), value / default
        it.size = np.array(it.size) * factor
        if np.isfinite(it.fromto[0]):
            ends = np.array(it.fromto).reshape(2, 3)
            it.fromto = (ends.mean(axis=0) + factor * (ends - ends.mean(axis=0))).ravel()
        follow(spec, factor * np.eye(3))

    require_lengths(robot, geom.parent.name, lambda spec, factor: write(spec, factor * default))
    return Site(default, write, (f"size of {name}", *slots))


def radius(robot: Robot, name: str, _: DeclaredParameter) -> Site:
    """Find the radius of a sphere, capsule or cylinder; a given inertia follows."""
    geom = robot.spec.geom(name)
    if geom.type not in ROUND:
        raise ValueError(f"geom {name!r} is no sphere, capsule or cylinder: it has no radius; vary size")
    _require_own_size(geom)
    site, turn = attribute(float(geom.size[0]), "geom", name, "size", 0), np.zeros(9)
    follow, slots = _following(robot, geom)
    mujoco.mju_quat2Mat(turn, robot.model.geom(name).quat)
    axis = turn.reshape(3, 3)[:, 2]

    def write(spec: mujoco.MjSpec, value: float) -> None:
        across = value / float(spec.geom(name).size[0])
        site.write(spec, value)
        grown = across * np.eye(3)
        follow(spec, grown if geom.type not in LONG else grown @ stretch_along(axis, 1 / across))

    require_lengths(robot, geom.parent.name, lambda spec, factor: write(spec, factor * site.default))
    return Site(site.default, write, (*site.slots, *slots), None if slots else site.read)


def _following(
    robot: Robot, geom: mujoco.MjsGeom
) -> tuple[Callable[[mujoco.MjSpec, np.ndarray], None], tuple[str, ...]]:
    """Return what stretches a given inertia with the one shape of its body, and the slots that it takes.

    It does nothing where the inertia follows from the geoms. ValueError if the body has other shapes: nobody knows
    which share of a given inertia is that of which.
    """
    body = geom.parent
    fixed_to_world = robot.model.body_weldid[robot.model.body(body.name).id] == 0
    if not body.explicitinertial or body.mass <= 0 or fixed_to_world:
        return lambda spec, by: None, ()
    if others := [other.name for other in body.geoms if other.name != geom.name]:
        raise ValueError(
            f"the inertia of body {body.name!r} is given, and {geom.name!r} is not its one shape ({others[0]!r} is "
            "another): what of the inertia is its own is not known; vary link_length, or leave the <inertial> out"
        )
    fixed = robot.model.geom(geom.name).pos.copy()
    return lambda spec, by: stretch_given(spec.body(body.name), fixed, by), given_slots(body.name)
