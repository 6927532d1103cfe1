"""Structure of a robot: trees of bodies, loops, joints that follow others, and keyframes after an edit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.control import SCALAR
from metarl.envs.own_robot.actuators import actuated_bodies
from metarl.envs.own_robot.declaration import Hints, one_of
from metarl.envs.own_robot.options import switched_off
from metarl.envs.strict_yaml import quoted

FREE = mujoco.mjtJoint.mjJNT_FREE


@dataclass(frozen=True)
class Coupling:
    """A joint that follows another by MuJoCo's joint equality, q = q0 + polynomial(leader - leader0)."""

    follower: int
    leader: int
    """Index of the leading joint; -1: none, the follower is held at a constant."""
    coefficients: Array
    """Coefficients of the polynomial, the constant first, [5]."""

    def words(self, model: mujoco.MjModel) -> str:
        """Describe the coupling in words."""
        if self.leader < 0:
            return f"held at {self.coefficients[0]:.4g}"
        slope = f" x {self.coefficients[1]:.4g}" if not np.any(self.coefficients[2:]) else ", by a polynomial"
        return f"follows {model.joint(self.leader).name}{slope}"


def subtree(body: mujoco.MjsBody) -> Iterator[mujoco.MjsBody]:
    """Return the body and all that it carries, depth first."""
    yield body
    for child in body.bodies:
        yield from subtree(child)


def find_roots(spec: mujoco.MjSpec, model: mujoco.MjModel, hints: Hints) -> list[str]:
    """Find the bodies on the world that carry the robot: that of its base first, then others that actuators act on.

    ValueError if none has a joint, or if the base is ambiguous.
    """
    trees = {root.name: [j for b in subtree(root) for j in b.joints] for root in spec.worldbody.bodies}
    sizes = {root: sum(j.type != FREE for j in joints) for root, joints in trees.items()}
    moved = {model.body(r).name for r in _moved_roots(model)}
    actuated = [root for root, size in sizes.items() if root in moved and size]
    if max(sizes.values(), default=0) == 0 and hints.base is None:
        actuated = [root for root, joints in trees.items() if root in moved and joints]  # thrusters on a free body
        if not actuated:
            raise ValueError("the model has no joints: there is nothing to control")
    root = _base_root(spec, actuated or [r for r, size in sizes.items() if size], sizes, hints)
    others = [r for r in actuated if r != root]
    for other in others:
        if any(j.type == FREE for j in trees[other]):
            raise ValueError(
                f"{other!r} floats and has actuators, as {root!r} has: one policy drives one floating robot; leave one "
                f"of them out of the model, or write robot: {{base: {quoted(other)}}} if {root!r} is fixed to the world"
            )
    return [root, *others]


def _moved_roots(model: mujoco.MjModel) -> set[int]:
    """Return the roots of the trees that actuators act on, directly or by an equality (a loop, a coupled joint)."""
    roots = {int(model.body_rootid[b]) for b in actuated_bodies(model)}
    of = {mujoco.mjtObj.mjOBJ_BODY: np.arange(model.nbody), mujoco.mjtObj.mjOBJ_SITE: model.site_bodyid}
    ties = []
    for e in np.flatnonzero(model.eq_active0):
        kind, ends = int(model.eq_type[e]), [int(i) for i in (model.eq_obj1id[e], model.eq_obj2id[e]) if i >= 0]
        if kind == mujoco.mjtEq.mjEQ_JOINT:
            ties.append({int(model.body_rootid[model.jnt_bodyid[i]]) for i in ends})
        elif kind in (mujoco.mjtEq.mjEQ_CONNECT, mujoco.mjtEq.mjEQ_WELD):
            bodies = of[mujoco.mjtObj(int(model.eq_objtype[e]))]
            ties.append({int(model.body_rootid[bodies[i]]) for i in ends} - {0})
    for _ in ties:
        roots = roots.union(*(tie for tie in ties if tie & roots))
    return roots


def _base_root(spec: mujoco.MjSpec, candidates: list[str], sizes: dict[str, int], hints: Hints) -> str:
    """Return the root of the hinted base's tree, or of the tree with the most joints."""
    if hints.base is not None:
        bodies = {b.name: root.name for root in spec.worldbody.bodies for b in subtree(root)}
        return bodies[one_of(hints.base, list(bodies), "robot.base: body")]
    largest = [root for root in candidates if sizes[root] == max(sizes[r] for r in candidates)]
    floating = [root for root in largest if any(j.type == FREE for j in spec.body(root).joints)]
    if len(floating or largest) > 1 and (floating or not spec.actuators):
        names = floating or largest
        raise ValueError(
            f"{', '.join(names)} could each be the robot's base; write robot: {{base: {quoted(names[0])}}} (or another)"
        )
    return (floating or largest)[0]


def couplings(model: mujoco.MjModel) -> list[Coupling]:
    """Return the couplings of hinges and slides that are active at the start, each follower after its leader."""
    if switched_off(model, "equality"):
        return []
    found = [
        Coupling(int(model.eq_obj1id[e]), int(model.eq_obj2id[e]), model.eq_data[e, :5].copy())
        for e in range(model.neq)
        if model.eq_type[e] == mujoco.mjtEq.mjEQ_JOINT and model.eq_active0[e]
    ]
    found = [c for c in found if int(model.jnt_type[c.follower]) in SCALAR]
    ordered: list[Coupling] = []
    while found:
        waiting = {c.follower for c in found}
        ready = [c for c in found if c.leader not in waiting] or found  # a circle is left as it is written
        ordered += ready
        found = [c for c in found if c not in ready]
    return ordered


def follow(model: mujoco.MjModel, chain: list[Coupling], qpos: Array, qvel: Array | None = None) -> None:
    """Move followers as their leaders ask, in place; qpos [..., nq], qvel [..., nv]."""
    for c in chain:
        at, dof = model.jnt_qposadr[c.follower], model.jnt_dofadr[c.follower]
        if c.leader < 0:
            qpos[..., at] = model.qpos0[at] + c.coefficients[0]
            if qvel is not None:
                qvel[..., dof] = 0.0
            continue
        lead, lead_dof = model.jnt_qposadr[c.leader], model.jnt_dofadr[c.leader]
        powers = np.polynomial.Polynomial(c.coefficients)
        moved = qpos[..., lead] - model.qpos0[lead]
        qpos[..., at] = model.qpos0[at] + powers(moved)
        if qvel is not None:
            qvel[..., dof] = powers.deriv()(moved) * qvel[..., lead_dof]


def held_joints(model: mujoco.MjModel, qpos: Array) -> set[int]:
    """Return the joints that loops hold: those that a connect, weld or tendon equality constrains at a pose."""
    data = mujoco.MjData(model)
    data.qpos = qpos
    mujoco.mj_fwdPosition(model, data)
    rows = [
        r
        for r in range(data.nefc)
        if data.efc_type[r] == mujoco.mjtConstraint.mjCNSTR_EQUALITY
        and model.eq_type[data.efc_id[r]] != mujoco.mjtEq.mjEQ_JOINT
    ]
    if not rows:
        return set()
    jacobian = np.zeros((data.nefc, model.nv))
    if mujoco.mj_isSparse(model):
        mujoco.mju_sparse2dense(jacobian, data.efc_J, data.efc_J_rownnz, data.efc_J_rowadr, data.efc_J_colind)
    else:
        jacobian = data.efc_J.reshape(data.nefc, model.nv)
    return {int(j) for j in model.dof_jntid[np.any(np.abs(jacobian[rows]) > 1e-9, axis=0)]}


def loop_through(model: mujoco.MjModel, body: int) -> str | None:
    """Describe a connect or weld that closes a loop through a body; None if no loop goes through it."""

    def above(end: int) -> list[int]:
        """Yield the bodies from a body up to the world."""
        line = [end]
        while line[-1]:
            line.append(int(model.body_parentid[line[-1]]))
        return line

    for e in np.flatnonzero(model.eq_active0):
        kind = int(model.eq_type[e])
        if kind not in (mujoco.mjtEq.mjEQ_CONNECT, mujoco.mjtEq.mjEQ_WELD) or switched_off(model, "equality"):
            continue
        first, second = (above(end) for end in _bodies_of(model, int(e)))
        ring = set(first) ^ set(second) | {next(b for b in first if b in second)}
        if body in ring:
            ends = " and ".join(model.body(line[0]).name for line in (first, second))
            return f"a {mujoco.mjtEq(kind).name.removeprefix('mjEQ_').lower()} of {ends}"
    return None


def _bodies_of(model: mujoco.MjModel, equality: int) -> tuple[int, int]:
    """Return the two bodies of a connect or weld."""
    ends = int(model.eq_obj1id[equality]), int(model.eq_obj2id[equality])
    if int(model.eq_objtype[equality]) == mujoco.mjtObj.mjOBJ_SITE:
        return int(model.site_bodyid[ends[0]]), int(model.site_bodyid[ends[1]])
    return max(ends[0], 0), max(ends[1], 0)


def refit_keyframes(spec: mujoco.MjSpec, before: mujoco.MjModel) -> None:
    """Adapt every keyframe to the joints' new addresses; a new joint is at its default.

    before: the model for which the keyframes were written.
    """
    if not before.nkey:
        return
    bare = spec.copy()
    for key in list(bare.keys):
        bare.delete(key)
    after = bare.compile()
    for k, key in enumerate(spec.keys):
        qpos, qvel = after.qpos0.copy(), np.zeros(after.nv)
        for j in range(before.njnt):
            new = after.joint(before.joint(j).name)
            for values, kept, at, place in (
                (qpos, before.key_qpos[k], before.jnt_qposadr[j], new.qposadr[0]),
                (qvel, before.key_qvel[k], before.jnt_dofadr[j], new.dofadr[0]),
            ):
                size = len(new.qpos0) if values is qpos else len(new.damping)
                values[place : place + size] = kept[at : at + size]
        key.qpos, key.qvel = qpos, qvel
