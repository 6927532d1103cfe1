"""Contacts between geoms and their friction, and the floors and payloads that are added to a robot.

A contact takes friction, dimension and softness from a `<pair>` if the model has one for the two geoms, and otherwise
from MuJoCo's mix of both geoms' values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from metarl.envs.added import plain
from metarl.envs.arrays import Array
from metarl.envs.own_robot.options import switched_off

GROUND = (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_HFIELD)
"""Shapes that only a ground has."""
LEAST_DIMENSION = (3, 3, 4, 6, 6)
"""Least `condim` at which sliding (twice), torsional and rolling (twice) friction act in a contact."""


def add_floor(spec: mujoco.MjSpec, name: str, masks: Sequence[tuple[int, int]]) -> None:
    """Add a plane at height 0 that collides with every geom of these (contype, conaffinity)."""
    contype = conaffinity = 1
    for kind, affinity in masks:
        if not (kind & conaffinity or affinity & contype):
            conaffinity, contype = conaffinity | kind, contype | (0 if kind else affinity)
    plain(
        spec.worldbody.add_geom(),
        name=name,
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=(0, 0, 1),
        rgba=(0.8, 0.85, 0.9, 1),
        contype=contype,
        conaffinity=conaffinity,
    )


def add_payload(spec: mujoco.MjSpec, carrier: str, name: str, position: Sequence[float], radius: float) -> None:
    """Add a solid sphere without mass and contacts, in a body of its own on the carrier."""
    body = spec.body(carrier).add_body(name=name, pos=position)
    low, high = spec.compiler.inertiagrouprange  # a geom outside of these groups has no mass
    plain(
        body.add_geom(),
        name=name,
        size=(radius, 0, 0),
        mass=0,
        contype=0,
        conaffinity=0,
        rgba=(0.9, 0.1, 0.1, 1),
        group=min(max(0, low), high),
    )


def meetings(model: mujoco.MjModel) -> Array:
    """Return which geoms can touch each other, [ngeom, ngeom] bool."""
    meet = _meet_by_mask(model)
    welded = model.body_weldid[model.geom_bodyid]
    for a, b in zip(model.pair_geom1, model.pair_geom2, strict=True):
        meet[a, b] = meet[b, a] = welded[a] != 0 or welded[b] != 0
    if switched_off(model, "contact"):
        meet[:] = False
    return meet


def _meet_by_mask(model: mujoco.MjModel) -> Array:
    """Return which geoms collide by their bit masks, but not within a body, with its parent, or if excluded."""
    kind, affinity, body = model.geom_contype, model.geom_conaffinity, model.geom_bodyid
    meet = (kind[:, None] & affinity) != 0
    meet |= meet.T
    welded = model.body_weldid[body]
    meet &= welded[:, None] != welded
    if not model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_FILTERPARENT:
        carrier = model.body_weldid[model.body_parentid[welded]]
        child = (welded[:, None] == carrier) & (welded[:, None] != 0) & (welded != 0)
        meet &= ~(child | child.T)
    for signature in model.exclude_signature:
        apart = (body[:, None] == signature >> 16) & (body == signature & 0xFFFF)
        meet &= ~(apart | apart.T)
    flat = np.isin(model.geom_type, GROUND)
    return meet & ~(flat[:, None] & flat)


def met_by_type(model: mujoco.MjModel, own: Collection[str]) -> tuple[str, str] | None:
    """Return a geom of the robot, and one of the scene that it touches by its own contype alone; None: there is none.

    own: names of the robot's geoms, whose masks are those of MuJoCo, 1 and 1, where they collide.
    """
    ids = np.isin(np.arange(model.ngeom), [model.geom(name).id for name in own])
    met = _meet_by_mask(model) & ids[:, None] & ~ids & ((model.geom_contype & 1) == 0)
    found = np.argwhere(met)
    return (model.geom(int(found[0, 0])).name, model.geom(int(found[0, 1])).name) if len(found) else None


def own_geoms(model: mujoco.MjModel, bodies: Collection[str]) -> Array:
    """Return which geoms belong to these bodies, [ngeom] bool."""
    ids = [model.body(name).id for name in bodies]
    return np.isin(model.geom_bodyid, ids)


def standing_on(model: mujoco.MjModel, bodies: Collection[str]) -> Array:
    """Return which geoms of the robot can touch which fixed geoms of the scene, [ngeom, ngeom] bool."""
    own = own_geoms(model, bodies)
    fixed = (model.body_weldid[model.geom_bodyid] == 0) & ~own
    return meetings(model) & own[:, None] & fixed


def touching(model: mujoco.MjModel, bodies: Collection[str]) -> set[str]:
    """Return the names of the robot's geoms that can touch a ground, or could if there were one."""
    on = standing_on(model, bodies)
    if on.any():
        chosen = on.any(axis=1)
    else:
        chosen = own_geoms(model, bodies) & ((model.geom_contype != 0) | (model.geom_conaffinity != 0))
    return {model.geom(i).name for i in np.flatnonzero(chosen)}


@dataclass(frozen=True)
class Contact:
    """Contact parameters of two geoms that can touch."""

    name: str
    """Name of its pair, which may have to be added: `add_pair`."""
    geoms: tuple[str, str]
    condim: int
    friction: tuple[float, ...]
    """Coefficients of sliding (twice), torsional and rolling (twice) friction."""
    solref: tuple[float, ...]
    solreffriction: tuple[float, ...]
    solimp: tuple[float, ...]
    margin: float
    gap: float
    adhesion: float

    def add_pair(self, spec: mujoco.MjSpec) -> None:
        """Add the contact's pair to a model unless it has it: the contact acts as before, and its friction can vary."""
        if spec.pair(self.name) is None:
            given = dataclasses.asdict(self)
            first, second = given.pop("geoms")
            plain(spec.add_pair(), geomname1=first, geomname2=second, **given)

    def set_friction(self, spec: mujoco.MjSpec, value: float, *, elements: Sequence[int]) -> None:
        """Set these elements of the friction of its pair to a value."""
        pair = spec.pair(self.name)
        for i in elements:
            pair.friction[i] = value


def collides(model: mujoco.MjModel, geom: str) -> bool:
    """Return whether a geom can touch anything."""
    return bool(meetings(model)[model.geom(geom).id].any())


def decides(model: mujoco.MjModel, bodies: Collection[str], geom: str) -> bool:
    """Return whether a geom's own friction is that of all its contacts, none of which is with the robot's bodies.

    It has priority in each, and no pair stands for one.
    """
    i, others = model.geom(geom).id, meetings(model)[model.geom(geom).id]
    if (others & own_geoms(model, bodies)).any() or np.isin(i, np.r_[model.pair_geom1, model.pair_geom2]):
        return False
    return bool(np.all(model.geom_priority[i] > model.geom_priority[others]))


def contacts_of(model: mujoco.MjModel, bodies: Collection[str], geom: str) -> list[Contact]:
    """Return the contacts of a geom: a robot's with everything but the robot, any other's with everything."""
    own, meet = own_geoms(model, bodies), meetings(model)
    i = model.geom(geom).id
    others = np.flatnonzero(meet[i] & ~own if own[i] else meet[i])
    found = []
    for j in others:
        first, second = (i, int(j)) if own[i] or (not own[j] and i > j) else (int(j), i)
        pairs = [k for k in range(model.npair) if {int(model.pair_geom1[k]), int(model.pair_geom2[k])} == {i, int(j)}]
        found += [_of_pair(model, k, first, second) for k in pairs] or [_mixed(model, first, second)]
    return found


def _of_pair(model: mujoco.MjModel, k: int, first: int, second: int) -> Contact:
    return Contact(
        name=model.pair(k).name,
        geoms=(model.geom(first).name, model.geom(second).name),
        condim=int(model.pair_dim[k]),
        friction=_floats(model.pair_friction[k]),
        solref=_floats(model.pair_solref[k]),
        solreffriction=_floats(model.pair_solreffriction[k]),
        solimp=_floats(model.pair_solimp[k]),
        margin=float(model.pair_margin[k]),
        gap=float(model.pair_gap[k]),
        adhesion=float(model.pair_adhesion[k]),
    )


def _mixed(model: mujoco.MjModel, first: int, second: int) -> Contact:
    """Combine the parameters of two geoms as MuJoCo's collisions do: the higher priority decides, and equals mix.

    The compiler mixes differently when it completes a pair: it takes the larger margin, collisions take the sum.
    """
    both = sorted((first, second), key=lambda g: model.geom_type[g])
    deciding = [g for g in both if model.geom_priority[g] == max(model.geom_priority[both])]
    slide, spin, roll = _floats(model.geom_friction[deciding].max(axis=0))
    names = model.geom(first).name, model.geom(second).name
    weights = _mix(model.geom_solmix[deciding])
    solref = model.geom_solref[deciding]
    return Contact(
        name=pair_name(*names),
        geoms=names,
        condim=int(model.geom_condim[deciding].max()),
        friction=(slide, slide, spin, roll, roll),
        solref=_floats(_weigh(weights, solref) if (solref[:, 0] > 0).all() else solref.min(axis=0)),
        solreffriction=(0.0,) * mujoco.mjNREF,
        solimp=_floats(_weigh(weights, model.geom_solimp[deciding])),
        margin=float(model.geom_margin[both].sum()),
        gap=float(model.geom_gap[both].sum()),
        adhesion=float(model.geom_adhesion[deciding].sum()),
    )


def _mix(solmix: Array) -> Array:
    """Return the weights of one or two geoms by their `solmix`, [1 or 2]."""
    solmix = np.where(solmix < mujoco.mjMINVAL, 0.0, solmix)
    if not solmix.any():
        return np.full(len(solmix), 1 / len(solmix))
    first = solmix[0] / solmix.sum()
    return np.array([first, 1 - first])[: len(solmix)]


def _weigh(weights: Array, rows: Array) -> Array:
    return sum((w * row for w, row in zip(weights, rows, strict=True)), np.zeros(rows.shape[1]))


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(map(float, values))


def pair_name(first: str, second: str) -> str:
    """Return the name of the pair of two geoms."""
    return f"{first} on {second}"
