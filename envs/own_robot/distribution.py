"""Parameters of a family as a robot's file declares them."""

from __future__ import annotations

import dataclasses
import math

import mujoco
import numpy as np

from metarl.envs.efforts import group_off
from metarl.envs.own_robot.actuators import started
from metarl.envs.own_robot.declaration import DeclaredParameter
from metarl.envs.own_robot.description import Robot, matching
from metarl.envs.own_robot.freeze import make_explicit
from metarl.envs.own_robot.options import switched_off
from metarl.envs.own_robot.quantities import QUANTITIES, Kind, Quantity
from metarl.envs.own_robot.sites import Site, Write
from metarl.envs.parameters import Law, Parameter
from metarl.envs.text import near
from metarl.patterns import matched

ONLY_OF = {
    "function": "python",
    "unit": "python",
    "stands_on": "payload",
    "position": "payload",
    "payload_density": "payload",
}
"""Quantity by the key that it alone takes."""


def parameters(robot: Robot, entries: tuple[DeclaredParameter, ...]) -> tuple[Parameter, ...]:
    """Return the declared parameters, and prepare `robot.spec` and `robot.model` for their edits.

    ValueError names the parameter and its mistake.
    """
    result, taken = [], {}
    for ready in (
        _ready,
        lambda robot, entry: result.append(_parameter(robot, entry, taken)),
        lambda robot, entry: _require_mass_alone(robot, entry, entries),
    ):
        for entry in entries:
            try:
                ready(robot, entry)
            except ValueError as error:
                raise ValueError(f"distribution ({entry.name}): {error}") from error
    robot.model = robot.spec.compile()
    robot.initial = started(robot.model, robot.drives, robot.key)
    return tuple(result)


def _ready(robot: Robot, entry: DeclaredParameter) -> None:
    """Make inertias explicit that edits of other parameters need so, whatever their order."""
    if entry.quantity not in QUANTITIES:
        raise ValueError(f"unknown quantity {entry.quantity!r}{near(entry.quantity, QUANTITIES)}")
    if wanted := QUANTITIES[entry.quantity].explicit:
        for name in _targets(robot, entry, "body"):
            for body in (robot.spec.body(name), robot.visual.body(name)):
                if wanted == "principal" or not body.explicitinertial:
                    make_explicit(body, robot.model)


def _require_mass_alone(robot: Robot, entry: DeclaredParameter, entries: tuple[DeclaredParameter, ...]) -> None:
    """Raise ValueError if an entry writes the mass of a body over what other entries make of it by its shapes."""
    if entry.quantity != "mass" or entry.operation not in ("set", "add"):
        return
    weighed = {name for name in _targets(robot, entry, "body") if not robot.spec.body(name).explicitinertial}
    for other in entries:
        if other.quantity == "link_length":
            shaped = set(_targets(robot, other, "body"))
        elif other.quantity in ("size", "radius"):
            geoms = [name for name in _targets(robot, other, "geom") if name in robot.geom_masses]
            shaped = {robot.spec.geom(name).parent.name for name in geoms}
        else:
            continue
        if both := sorted(weighed & shaped):
            raise ValueError(
                f"the mass of {both[0]} follows from its shapes, which {other.name!r} varies, and {entry.operation} "
                f"would write over it; use operation: scale, or leave {other.name!r} out"
            )


def _parameter(robot: Robot, entry: DeclaredParameter, taken: dict[str, str]) -> Parameter:
    """Return one parameter. taken: names of parameters by the slots that they hold; it is extended."""
    quantity = QUANTITIES[entry.quantity]
    _require_effective(entry)
    train, held_out, ood = entry.distributions()
    if quantity.kind == "told":
        law, neutral, above = _told(entry, quantity, taken), entry.neutral or 0.0, -math.inf
    else:
        entry = _with_operation(entry, quantity)
        sites = _sites(robot, entry, quantity)
        later = {target for target, site in sites.items() if _hold(entry, site, taken)}
        what = f"{entry.operation} {entry.quantity} of {_some(_targets(robot, entry, quantity.kind))}"
        words = entry.says or (what if entry.operation else str(entry.function))
        law, neutral = Law(words, _edit(entry, quantity, sites, later)), _neutral(entry, sites)
        above = _above(entry, quantity, sites)
    unit = _unit(entry, quantity)
    return Parameter(entry.name, unit, train, law, neutral, above=above, held_out=held_out, ood=ood)


def _told(entry: DeclaredParameter, quantity: Quantity, taken: dict[str, str]) -> Law:
    """Return the law of a value that only terms are told."""
    _no_target(entry)
    if entry.operation not in (None, "set"):
        raise ValueError(f"operation {entry.operation!r} makes no sense for {entry.quantity}; leave it out")
    if (least := min(entry.values())) < quantity.low:
        raise ValueError(f"{entry.quantity} of {least:g} {quantity.unit} is below {quantity.low:g}")
    _hold(entry, Site(0.0, _nothing, (entry.quantity,)), taken)
    return Law(entry.says or quantity.says)


def _with_operation(entry: DeclaredParameter, quantity: Quantity) -> DeclaredParameter:
    """Return the entry with its operation, or the only one of its quantity; ValueError if it is missing or wrong."""
    if entry.operation is None and len(quantity.operations) == 1:
        return dataclasses.replace(entry, operation=quantity.operations[0])
    takes = f"it takes {', '.join(quantity.operations)}" if quantity.operations else "leave it out"
    if entry.operation is None and quantity.operations:
        raise ValueError(f"operation is missing; {entry.quantity} takes {', '.join(quantity.operations)}")
    if entry.operation is not None and entry.operation not in quantity.operations:
        raise ValueError(f"operation {entry.operation!r} makes no sense for {entry.quantity}; {takes}")
    return entry


def _sites(robot: Robot, entry: DeclaredParameter, quantity: Quantity) -> dict[str, Site]:
    """Return the sites of an entry by target; ValueError where it has no effect."""
    targets = _targets(robot, entry, quantity.kind)
    _require_on(robot.model, quantity, entry, targets)
    if quantity.inertial:
        _require_moving(robot, entry, targets)
    if entry.quantity == "mass":
        targets = _with_mass(robot, entry, targets)
    sites: dict[str, Site] = {}
    for target in targets:
        found = quantity.find(robot, target, entry)
        sites |= {target: found} if isinstance(found, Site) else found
    if entry.operation == "scale" and not any(site.default for site in sites.values()):
        raise ValueError(f"{entry.quantity} of {', '.join(targets)} is 0, which no factor changes; use add or set")
    return sites


def _above(entry: DeclaredParameter, quantity: Quantity, sites: dict[str, Site]) -> float:
    """Return the bound that values must be greater than."""
    if entry.above is not None:
        return entry.above
    if not quantity.positive:
        return -math.inf
    least = min(site.default for site in sites.values())
    return (entry.neutral or 0.0) - least if entry.operation == "add" else quantity.low


def _unit(entry: DeclaredParameter, quantity: Quantity) -> str:
    if entry.operation == "scale" and entry.neutral in (None, 1.0):
        return "1"
    return entry.unit if entry.quantity == "python" else quantity.unit


def _require_effective(entry: DeclaredParameter) -> None:
    """Raise ValueError for a key that would be ignored."""
    given = {f.name for f in dataclasses.fields(entry) if getattr(entry, f.name) != f.default}
    for key, quantity in ONLY_OF.items():
        if key in given and entry.quantity != quantity:
            raise ValueError(f"{key} is for quantity {quantity}, not for {entry.quantity}; leave it out")
    if "position" in given and entry.stands_on is not None:
        raise ValueError(f"position is ignored where the payload stands on {entry.stands_on}; leave one of the two out")
    if "payload_density" in given and entry.stands_on is None:
        raise ValueError("payload_density is that of a cube; say on which box it stands (stands_on), or leave it out")


def _targets(robot: Robot, entry: DeclaredParameter, kind: Kind) -> list[str]:
    if kind == "model":
        _no_target(entry)
        return ["the model"]
    names = {
        "body": list(robot.bodies),
        "geom": [g.name for g in robot.spec.geoms if g.name and g.name not in robot.payloads.values()],
        "joint": [j.name for b in robot.bodies for j in robot.spec.body(b).joints if j.type != 0],
        "actuator": [a.name for a in robot.spec.actuators],
    }[kind]
    if entry.target is None:
        raise ValueError(f"target is missing; {entry.quantity} needs a regular expression over {kind} names")
    if kind == "body" and not matched(entry.target, names, "target"):  # a thing of the scene
        payloads = robot.payloads.values()
        names += [b.name for b in robot.spec.bodies[1:] if b.name not in names and b.name not in payloads]
    return matching(entry.target, names, f"target: {kind} names")


def _with_mass(robot: Robot, entry: DeclaredParameter, targets: list[str]) -> list[str]:
    """Return the targets that have a mass, which a factor changes alone; ValueError where the others would get one."""
    found = [name for name in targets if robot.model.body(name).mass[0] > 0]
    if found and (entry.operation == "scale" or len(found) == len(targets)):
        return found
    empty = ", ".join(name for name in targets if name not in found)
    raise ValueError(f"{empty} has no mass; " + (f"name others: target: {'|'.join(found)}" if found else "name others"))


def _require_moving(robot: Robot, entry: DeclaredParameter, targets: list[str]) -> None:
    """Raise ValueError if inertia is varied in bodies that are all fixed to the world, where it has no effect."""
    model = robot.model
    geoms = QUANTITIES[entry.quantity].kind == "geom"
    bodies = [int(model.geom(t).bodyid[0]) if geoms else model.body(t).id for t in targets]
    if not any(model.body_weldid[b] for b in bodies):
        fixed = ", ".join(dict.fromkeys(model.body(b).name for b in bodies))
        raise ValueError(f"{fixed} is fixed to the world: {entry.quantity} has no effect there; name a body that moves")


def _require_on(model: mujoco.MjModel, quantity: Quantity, entry: DeclaredParameter, targets: list[str]) -> None:
    """Raise ValueError if an option of the model switches off the quantity in all targets."""
    if quantity.needs and (flag := switched_off(model, quantity.needs)):
        raise ValueError(
            f"the model's options disable {flag}: {entry.quantity} has no effect; enable it in the model, or leave "
            "the entry out"
        )
    groups = [group_off(model, model.actuator(t).id) for t in targets] if quantity.kind == "actuator" else [None]
    if None not in groups:
        raise ValueError(
            f"the model's options disable actuators of group {groups[0]}: {entry.quantity} of {_some(targets)} has "
            "no effect; enable them in the model, or leave the entry out"
        )


def _no_target(entry: DeclaredParameter) -> None:
    if entry.target is not None:
        raise ValueError(f"{entry.quantity} takes no target, got {entry.target!r}; leave it out")


def _nothing(spec: mujoco.MjSpec, value: float) -> None:
    """Edit nothing: the value is told to terms alone."""


def _hold(entry: DeclaredParameter, site: Site, taken: dict[str, str]) -> bool:
    """Note that an entry varies a site; return whether an earlier one does. ValueError if they cannot go together."""
    held = [slot for slot in site.slots if slot in taken]
    if held and (site.read is None or entry.operation != "scale"):
        raise ValueError(
            f"{held[0]} is varied by {taken[held[0]]!r} already; let one parameter vary it"
            + (", or scale it here" if site.read is not None else "")
        )
    taken.update(dict.fromkeys(site.slots, entry.name))
    return bool(held)


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _neutral(entry: DeclaredParameter, sites: dict[str, Site]) -> float:
    """Return the value at which nothing changes."""
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


def _edit(entry: DeclaredParameter, quantity: Quantity, sites: dict[str, Site], later: set[str]) -> Write:
    """Return an edit that writes operation(default, value) on every target; it raises ValueError for an impossible one.

    later: targets that earlier parameters vary, too. A neutral value that the file chose among targets whose defaults
    differ leaves each its own.
    """
    differ = len({site.default for site in sites.values()}) > 1
    factors = entry.operation == "scale"
    unchanged = (1.0 if factors else 0.0) if entry.neutral is None else entry.neutral
    if factors and unchanged == 0:
        raise ValueError("neutral is 0, and scale multiplies by value / neutral; give another, or use add or set")

    def edit(spec: mujoco.MjSpec, value: float) -> None:
        if differ and value == entry.neutral:
            return
        for target, site in sites.items():
            onwards = factors and (target in later or unchanged != 1.0 or site.follows)
            before = site.default if site.read is None or (factors and not onwards) else site.read(spec)
            change = value / unchanged if factors else value - unchanged
            new = {"set": value, "scale": before * change, "add": before + change}[entry.operation or "set"]
            _require_possible(entry, quantity, target, value, new)
            if onwards and site.multiply is not None:
                site.multiply(spec, change)
            else:
                site.write(spec, new)

    return edit


def _require_possible(entry: DeclaredParameter, quantity: Quantity, target: str, value: float, new: float) -> None:
    if new < quantity.low or (quantity.positive and new <= quantity.low):
        bound = "above" if quantity.positive else "at least"
        raise ValueError(
            f"{entry.name} = {value:g} gives {target} the {entry.quantity} {new:g} {quantity.unit}; it must be "
            f"{bound} {quantity.low:g}"
        )
