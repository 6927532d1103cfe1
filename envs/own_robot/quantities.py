"""What a robot's file can vary: the default of each quantity on each target, and how a value is written."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.own_robot import contacts as robot_contacts
from metarl.envs.own_robot import ground as robot_ground
from metarl.envs.own_robot.contacts import GROUND
from metarl.envs.own_robot.description import Robot, matching
from metarl.envs.own_robot.file import Entry, near
from metarl.envs.own_robot.freeze import make_explicit
from metarl.envs.own_robot.laws import force_limit, gear, servo, strength
from metarl.envs.own_robot.options import group_off, switched_off
from metarl.envs.own_robot.sites import Site, Write, attribute
from metarl.envs.own_robot.structure import loop_through
from metarl.envs.parameters import Law, Parameter

Kind = Literal["body", "geom", "joint", "actuator", "model", "command"]
PAYLOAD_RADIUS = 0.05  # m, of the solid sphere that a payload is
ROUND = (mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER)
LONG = ROUND[1:]


@dataclass(frozen=True)
class Quantity:
    """Something that can be varied on targets of one kind."""

    kind: Kind
    unit: str
    find: Callable[[Robot, str, Entry], Site | dict[str, Site]] = lambda *_: Site(0.0, lambda *_: None, ())
    """(robot, target, entry): where it is, or several places by name; ValueError if the target lacks it. May add to
    `robot.spec` what the edits need."""
    low: float = -math.inf
    """Values below this are impossible, and so is this one if `positive`."""
    positive: bool = False
    operations: tuple[str, ...] = ("set", "scale", "add")
    explicit: bool = False
    """Its body's inertia is given, not inferred from geoms."""
    inertial: bool = False
    """It acts on bodies that move alone."""
    needs: str = ""
    """What an option of the model must not switch off, of `robot_options.FLAGS`."""


def parameters(robot: Robot, entries: tuple[Entry, ...]) -> tuple[Parameter, ...]:
    """The parameters that the entries declare; `robot.spec` and `robot.model` are readied for their edits.

    ValueError names the entry and what is wrong with it.
    """
    result, taken = [], {}
    for ready in (_ready, lambda robot, entry: result.append(_parameter(robot, entry, taken))):
        for entry in entries:
            try:
                ready(robot, entry)
            except ValueError as error:
                raise ValueError(f"distribution ({entry.name}): {error}") from error
    robot.model = robot.spec.compile()
    return tuple(result)


def _ready(robot: Robot, entry: Entry) -> None:
    """Make explicit what other edits must find explicit, whatever their order."""
    if entry.quantity not in QUANTITIES:
        raise ValueError(f"unknown quantity {entry.quantity!r}{near(entry.quantity, QUANTITIES)}")
    if QUANTITIES[entry.quantity].explicit:
        for name in _targets(robot, entry, "body"):
            make_explicit(robot.spec.body(name), robot.model)


def _parameter(robot: Robot, entry: Entry, taken: dict[str, str]) -> Parameter:
    """taken: names of parameters by the slots that they hold, extended here."""
    quantity = QUANTITIES[entry.quantity]
    train, held_out, ood = entry.distributions()
    if quantity.kind == "command":
        _no_target(entry)
        if entry.operation not in (None, "set"):
            raise ValueError(f"operation {entry.operation!r} makes no sense for {entry.quantity}; leave it out")
        _hold(entry, (entry.quantity,), taken)
        law = Law(f"{entry.quantity} that the reward asks for")
        return Parameter(entry.name, quantity.unit, train, law, entry.neutral or 0.0, held_out=held_out, ood=ood)
    if entry.operation is None:
        raise ValueError(f"operation is missing; {entry.quantity} takes {', '.join(quantity.operations)}")
    if entry.operation not in quantity.operations:
        raise ValueError(
            f"operation {entry.operation!r} makes no sense for {entry.quantity}; "
            f"it takes {', '.join(quantity.operations)}"
        )
    targets = _targets(robot, entry, quantity.kind)
    _require_on(robot.model, quantity, entry, targets)
    if quantity.inertial:
        _require_moving(robot, entry, targets)
    sites: dict[str, Site] = {}
    for target in targets:
        found = quantity.find(robot, target, entry)
        sites |= {target: found} if isinstance(found, Site) else found
    for site in sites.values():
        _hold(entry, site.slots, taken)
    defaults = [site.default for site in sites.values()]
    scaled = entry.operation == "scale"
    if scaled and not any(defaults):
        raise ValueError(
            f"{entry.quantity} of {', '.join(targets)} is 0, and stays so whatever scales it; use add or set"
        )
    above = -math.inf
    if quantity.positive:
        above = -min(defaults) if entry.operation == "add" else quantity.low
    return Parameter(
        entry.name,
        "1" if scaled else quantity.unit,
        train,
        Law(f"{entry.operation} {entry.quantity} of {_some(targets)}", _edit(entry, quantity, sites)),
        _neutral(entry, sites),
        above=above,
        held_out=held_out,
        ood=ood,
    )


def _targets(robot: Robot, entry: Entry, kind: Kind) -> list[str]:
    if kind == "model":
        _no_target(entry)
        return ["the model"]
    names = {
        "body": list(robot.bodies),
        "geom": [g.name for g in robot.spec.geoms if g.name and not g.name.startswith("payload of ")],
        "joint": [j.name for b in robot.bodies for j in robot.spec.body(b).joints if j.type != 0],
        "actuator": [a.name for a in robot.spec.actuators],
    }[kind]
    if entry.target is None:
        raise ValueError(f"target is missing; {entry.quantity} needs a regular expression over {kind} names")
    return matching(entry.target, names, f"target: {kind} names")


def _require_moving(robot: Robot, entry: Entry, targets: list[str]) -> None:
    """ValueError if inertia is varied where nothing feels it: in bodies that are fixed to the world, all of them."""
    model = robot.model
    geoms = QUANTITIES[entry.quantity].kind == "geom"
    bodies = [int(model.geom(t).bodyid[0]) if geoms else model.body(t).id for t in targets]
    if not any(model.body_weldid[b] for b in bodies):
        fixed = ", ".join(dict.fromkeys(model.body(b).name for b in bodies))
        raise ValueError(
            f"{fixed} is fixed to the world: {entry.quantity} acts on nothing there; name a body that moves"
        )


def _require_on(model: mujoco.MjModel, quantity: Quantity, entry: Entry, targets: list[str]) -> None:
    """ValueError if an option of the model switches off what is varied, in all targets: nothing would feel it."""
    if quantity.needs and (flag := switched_off(model, quantity.needs)):
        raise ValueError(
            f"the model's options disable {flag}: {entry.quantity} acts on nothing; enable it in the model, or leave "
            "the entry out"
        )
    groups = [group_off(model, model.actuator(t).id) for t in targets] if quantity.kind == "actuator" else [None]
    if None not in groups:
        raise ValueError(
            f"the model's options disable actuators of group {groups[0]}: {entry.quantity} of {_some(targets)} acts on "
            "nothing; enable them in the model, or leave the entry out"
        )


def _no_target(entry: Entry) -> None:
    if entry.target is not None:
        raise ValueError(f"{entry.quantity} takes no target, got {entry.target!r}; leave it out")


def _hold(entry: Entry, slots: tuple[str, ...], taken: dict[str, str]) -> None:
    for slot in slots:
        if slot in taken:
            raise ValueError(f"{slot} is varied by {taken[slot]!r} already; let one parameter vary it")
    taken.update(dict.fromkeys(slots, entry.name))


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _neutral(entry: Entry, sites: dict[str, Site]) -> float:
    """The value at which nothing changes."""
    if entry.neutral is not None:
        return entry.neutral
    if entry.operation != "set":
        return 1.0 if entry.operation == "scale" else 0.0
    defaults = {name: site.default for name, site in sites.items()}
    low, high = min(defaults.values()), max(defaults.values())
    if not np.isclose(low, high, rtol=1e-9):
        few = ", ".join(f"{name} {value:g}" for name, value in list(defaults.items())[:6])
        raise ValueError(
            f"set gives all targets one {entry.quantity}, but their defaults differ ({few}); use scale or add, or say "
            f"which value is neutral, such as neutral: {np.median(list(defaults.values())):g}"
        )
    return low


def _edit(entry: Entry, quantity: Quantity, sites: dict[str, Site]) -> Write:
    """Writes operation(default, value) on every target; ValueError names the target that would be impossible.

    A neutral value that the file chose among targets whose defaults differ leaves each its own.
    """
    differ = len({site.default for site in sites.values()}) > 1

    def edit(spec: mujoco.MjSpec, value: float) -> None:
        if differ and value == entry.neutral:
            return
        for target, site in sites.items():
            new = {"set": value, "scale": site.default * value, "add": site.default + value}[entry.operation or "set"]
            if new < quantity.low or (quantity.positive and new <= quantity.low):
                bound = "above" if quantity.positive else "at least"
                raise ValueError(
                    f"{entry.name} = {value:g} gives {target} the {entry.quantity} {new:g} {quantity.unit}; it must be "
                    f"{bound} {quantity.low:g}"
                )
            site.write(spec, new)

    return edit


def _scale_mass(spec: mujoco.MjSpec, name: str, mass: float, default: float, shares: dict[str, float]) -> None:
    body = spec.body(name)
    if shares:  # inertia follows, from the geoms' shapes as they are
        for geom, share in shares.items():
            spec.geom(geom).mass = share * mass / default
    else:
        body.mass = mass
        body.inertia = np.array(body.inertia) * (mass / default)


def _mass(robot: Robot, name: str, _: Entry) -> Site:
    default = float(robot.model.body(name).mass[0])
    if default <= 0:
        raise ValueError(f"body {name!r} has no mass")
    body = robot.spec.body(name)
    shares = {g.name: robot.geom_masses[g.name] for g in body.geoms if g.name in robot.geom_masses}
    explicit = bool(body.explicitinertial)
    slots = (f"mass of {name}", *(f"inertia_{a} of {name}" for a in "xyz"))
    return Site(
        default,
        lambda spec, value: _scale_mass(spec, name, value, default, {} if explicit else shares),
        slots if explicit else (*slots, *(f"density of {g}" for g in shares)),
    )


def _density(robot: Robot, name: str, _: Entry) -> Site:
    geom = robot.spec.geom(name)
    if name not in robot.geom_masses or geom.parent.explicitinertial:
        raise ValueError(
            f"geom {name!r} has no density: the inertia of its body {geom.parent.name!r} is given; vary mass instead"
        )
    return attribute(float(geom.density), "geom", name, "density")


def _inertia(axis: int) -> Callable[[Robot, str, Entry], Site]:
    def find(robot: Robot, name: str, _: Entry) -> Site:
        default = float(robot.model.body(name).inertia[axis])

        def write(spec: mujoco.MjSpec, value: float) -> None:
            spec.body(name).inertia[axis] = value

        return Site(default, write, (f"inertia_{'xyz'[axis]} of {name}",))

    return find


def _com(axis: int) -> Callable[[Robot, str, Entry], Site]:
    def find(robot: Robot, name: str, _: Entry) -> Site:
        def write(spec: mujoco.MjSpec, value: float) -> None:
            spec.body(name).ipos[axis] = value

        return Site(float(robot.model.body(name).ipos[axis]), write, (f"com_{'xyz'[axis]} of {name}",))

    return find


def _payload(robot: Robot, name: str, entry: Entry) -> Site:
    carried = f"payload of {name}"
    for spec in (robot.spec, robot.visual):
        robot_contacts.add_payload(spec, name, carried, entry.position, PAYLOAD_RADIUS)

    return Site(0.0, lambda spec, value: setattr(spec.geom(carried), "mass", value), (carried,))


def _link_length(robot: Robot, name: str, _: Entry) -> Site:
    """Everything of a link moves away from its joint by a factor; capsules and cylinders get as much longer."""
    body = robot.spec.body(name)
    if body.explicitinertial and body.mass > 0:
        raise ValueError(
            f"the inertia of body {name!r} is given, and would not follow its length; leave out <inertial>"
        )
    for geom in body.geoms:
        if geom.type not in ROUND:
            raise ValueError(f"geom {geom.name!r} of body {name!r} is no sphere, capsule or cylinder: it has no length")
    if loop := loop_through(robot.model, robot.model.body(name).id):
        raise ValueError(
            f"body {name!r} is part of a loop ({loop}), which another length of it would tear; vary no length there"
        )
    pivots = np.array([robot.model.joint(j.name).pos for j in body.joints]).reshape(-1, 3)
    if len(pivots) and np.ptp(pivots, axis=0).any():
        raise ValueError(f"the joints of body {name!r} are at different places: its length from them is no one number")
    pivot = pivots[0] if len(pivots) else np.zeros(3)

    def write(spec: mujoco.MjSpec, value: float) -> None:
        link, kept = spec.body(name), (1 - value) * pivot

        def moved(part: Any, place: Array) -> Array:
            """What is in a frame of the link moves with the frame."""
            return np.array(place) * value + (kept if part.frame is None else 0.0)

        for geom in link.geoms:
            if np.isfinite(geom.fromto[0]):
                geom.fromto = moved(geom, np.array(geom.fromto).reshape(2, 3)).ravel()
            else:
                geom.pos = moved(geom, geom.pos)
                if geom.type in LONG:
                    geom.size[1] *= value
        for part in (*link.bodies, *link.sites, *link.frames):
            part.pos = moved(part, part.pos)

    return Site(1.0, write, (f"link_length of {name}", *(f"size of {g.name}" for g in body.geoms)))


def _size(robot: Robot, name: str, _: Entry) -> Site:
    geom = robot.spec.geom(name)
    default = float(geom.size[0])
    if geom.type in GROUND or geom.type == mujoco.mjtGeom.mjGEOM_MESH or default <= 0:
        raise ValueError(f"geom {name!r} is a {geom.type.name.removeprefix('mjGEOM_').lower()}: it has no size to vary")

    def write(spec: mujoco.MjSpec, value: float) -> None:
        it, factor = spec.geom(name), value / default
        it.size = np.array(it.size) * factor
        if np.isfinite(it.fromto[0]):
            ends = np.array(it.fromto).reshape(2, 3)
            it.fromto = (ends.mean(axis=0) + factor * (ends - ends.mean(axis=0))).ravel()

    return Site(default, write, (f"size of {name}",))


def _radius(robot: Robot, name: str, _: Entry) -> Site:
    geom = robot.spec.geom(name)
    if geom.type not in ROUND:
        raise ValueError(f"geom {name!r} is no sphere, capsule or cylinder: it has no radius; vary size")
    return attribute(float(geom.size[0]), "geom", name, "size", 0)


FRICTIONS = {"friction": (0, 1), "torsional_friction": (2,), "rolling_friction": (3, 4)}
"""Elements of a contact's friction."""


def _friction(quantity: str) -> Callable[[Robot, str, Entry], dict[str, Site]]:
    elements = FRICTIONS[quantity]
    least = robot_contacts.LEAST_DIMENSION[elements[0]]

    def find(robot: Robot, name: str, _: Entry) -> dict[str, Site]:
        """Of each contact of a geom with the scene: what acts there, not what the geom has."""
        if robot.model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_OVERRIDE:
            raise ValueError(
                "the model overrides the friction of all contacts (option flag override): nothing varies it"
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
        return {key: site for contact in acting for key, site in _of_contact(contact, elements).items()}

    return find


def _of_contact(contact: robot_contacts.Contact, elements: tuple[int, ...]) -> dict[str, Site]:
    """One place, or one for each direction of a pair whose frictions differ."""
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


def _joint(name_of: str, scalar: bool = False) -> Callable[[Robot, str, Entry], Site]:
    def find(robot: Robot, name: str, _: Entry) -> Site:
        if scalar:
            return attribute(float(getattr(robot.spec.joint(name), name_of)), "joint", name, name_of)
        default = float(getattr(robot.spec.joint(name), name_of)[0])

        def write(spec: mujoco.MjSpec, value: float) -> None:
            terms = getattr(spec.joint(name), name_of)  # a polynomial: the linear term, then higher ones
            terms[1:] = np.array(terms[1:]) * (value / default if default else 1.0)
            terms[0] = value

        return Site(default, write, (f"{name_of} of {name}",))

    return find


def _range(robot: Robot, name: str, _: Entry) -> Site:
    joint = robot.model.joint(name)
    if not joint.limited[0]:
        raise ValueError(f"joint {name!r} has no range")
    if robot.spec.joint(name).type == mujoco.mjtJoint.mjJNT_BALL:  # [0, largest angle], in the unit of its file
        unit = robot.spec.joint(name).range[1] / joint.range[1]

        def widen(spec: mujoco.MjSpec, value: float) -> None:
            spec.joint(name).range[1] = value * unit

        return Site(float(joint.range[1]), widen, (f"range of {name}",))
    default = float(np.ptp(joint.range)) / 2

    def write(spec: mujoco.MjSpec, value: float) -> None:
        ends = np.array(spec.joint(name).range)
        spec.joint(name).range = ends.mean() + (ends - ends.mean()) * value / default

    return Site(default, write, (f"range of {name}",))


def _gravity(robot: Robot, _: str, entry: Entry) -> Site:
    default = float(np.linalg.norm(robot.model.opt.gravity))
    if default == 0:
        raise ValueError("the model has no gravity")
    direction = np.array(robot.model.opt.gravity) / default
    return Site(default, lambda spec, value: setattr(spec.option, "gravity", direction * value), ("gravity",))


def _slope(robot: Robot, _: str, entry: Entry) -> Site:
    """The ground is turned as a whole, about the origin of its first plane."""
    planes, model = robot.ground.planes, robot.model
    if robot.mobility != "floating" or not planes:
        raise ValueError("a slope needs a floating base, which starts upright on it, and a plane for a floor")
    if others := robot.ground.fields + robot.ground.boxes:
        raise ValueError(
            f"a slope turns planes, and {', '.join(others)} would stay behind; vary no slope of this ground"
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


QUANTITIES: dict[str, Quantity] = {
    "mass": Quantity("body", "kg", _mass, 0.0, positive=True, inertial=True),
    "density": Quantity("geom", "kg/m^3", _density, 0.0, positive=True, inertial=True),
    "payload": Quantity("body", "kg", _payload, 0.0, operations=("set",), inertial=True),
    **{
        f"inertia_{a}": Quantity("body", "kg m^2", _inertia(i), 0.0, positive=True, explicit=True, inertial=True)
        for i, a in enumerate("xyz")
    },
    **{
        f"com_{a}": Quantity("body", "m", _com(i), operations=("set", "add"), explicit=True, inertial=True)
        for i, a in enumerate("xyz")
    },
    "link_length": Quantity("body", "1", _link_length, 0.0, positive=True, operations=("scale",)),
    "size": Quantity("geom", "m", _size, 0.0, positive=True),
    "radius": Quantity("geom", "m", _radius, 0.0, positive=True),
    "friction": Quantity("geom", "1", _friction("friction"), 0.0, needs="contact"),
    "torsional_friction": Quantity("geom", "m", _friction("torsional_friction"), 0.0, needs="contact"),
    "rolling_friction": Quantity("geom", "m", _friction("rolling_friction"), 0.0, needs="contact"),
    "damping": Quantity("joint", "N m s/rad", _joint("damping"), 0.0, needs="damper"),
    "stiffness": Quantity("joint", "N m/rad", _joint("stiffness"), 0.0, needs="spring"),
    "armature": Quantity("joint", "kg m^2", _joint("armature", scalar=True), 0.0),
    "friction_loss": Quantity("joint", "N m", _joint("frictionloss", scalar=True), 0.0, needs="frictionloss"),
    "range": Quantity("joint", "rad", _range, 0.0, positive=True, needs="limit"),
    "kp": Quantity("actuator", "N m/rad", servo("kp"), 0.0, positive=True, needs="actuation"),
    "kd": Quantity("actuator", "N m s/rad", servo("kd"), 0.0, needs="actuation"),
    "strength": Quantity("actuator", "1", strength, 0.0, operations=("scale",), needs="actuation"),
    "gear": Quantity("actuator", "1", gear, needs="actuation"),
    "force_limit": Quantity("actuator", "N m", force_limit, 0.0, positive=True, needs="actuation"),
    "gravity": Quantity("model", "m/s^2", _gravity, 0.0, needs="gravity"),
    "slope": Quantity("model", "rad", _slope, operations=("set", "add")),
    "command_x": Quantity("command", "m/s"),
    "command_y": Quantity("command", "m/s"),
    "command_yaw": Quantity("command", "rad/s"),
}
"""By name. A range is half of its width, about its middle, of a ball joint its largest angle; a slope rises along x."""
