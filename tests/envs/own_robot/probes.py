"""What each quantity does to a robot, seen in plain MuJoCo: forces, contacts, inertia, in a fixed state.

A probe says what to write in the family's file, how to see what acts, and what is to be seen at a value of the
parameter. It is made from the model file as MuJoCo reads it, not from what metarl makes of it.
"""

from __future__ import annotations

import functools
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family
from tests.envs.own_robot.families import STILL
from tests.envs.own_robot.models import CASES, Case

# As numbers: NumPy's integers are equal to no enumerated value.
FREE, BALL, SLIDE, HINGE = (int(getattr(mujoco.mjtJoint, f"mjJNT_{n}")) for n in ("FREE", "BALL", "SLIDE", "HINGE"))
SCALAR = (SLIDE, HINGE)
PLANE, SPHERE, CAPSULE, CYLINDER, BOX, MESH = (
    int(getattr(mujoco.mjtGeom, f"mjGEOM_{n}")) for n in ("PLANE", "SPHERE", "CAPSULE", "CYLINDER", "BOX", "MESH")
)
ROUND = (SPHERE, CAPSULE, CYLINDER)
AFFINE, NO_BIAS = int(mujoco.mjtBias.mjBIAS_AFFINE), int(mujoco.mjtBias.mjBIAS_NONE)
FIXED, MUSCLE = int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtGain.mjGAIN_MUSCLE)
INTEGRATOR = int(mujoco.mjtDyn.mjDYN_INTEGRATOR)
SLIDER_CRANK = int(mujoco.mjtTrn.mjTRN_SLIDERCRANK)
LIMIT, DRY = int(mujoco.mjtConstraint.mjCNSTR_LIMIT_JOINT), int(mujoco.mjtConstraint.mjCNSTR_FRICTION_DOF)
EQUALITY, COUPLED = int(mujoco.mjtConstraint.mjCNSTR_EQUALITY), int(mujoco.mjtEq.mjEQ_JOINT)
FROM_GEOMS = mujoco.mjtInertiaFromGeom
Effect = Callable[[mujoco.MjModel], Array]


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where the models are written; it goes when Python does."""
    return tempfile.TemporaryDirectory()


@functools.cache
def path_of(name: str) -> Path:
    """The model file."""
    target = Path(_folder().name) / name
    target.mkdir()
    return CASES[name].write(target)


def reference_copy(name: str) -> mujoco.MjModel:
    """The robot as plain MuJoCo reads it, to be changed as one likes."""
    return CASES[name].reference(path_of(name))


reference_of = functools.cache(reference_copy)


def declare(case: Case, path: Path, *entries: dict[str, Any], **keys: Any) -> str:
    """Write a family's file beside the model; returns its path."""
    said = {"robot": dict(case.robot), "reward": {"alive": 1}, "episode": STILL, "distribution": list(entries), **keys}
    file = path.with_suffix(".yaml")
    file.write_text(json.dumps(said))  # which is YAML
    return str(file)


def family_of(name: str, *entries: dict[str, Any], **keys: Any) -> TaskFamily:
    path = path_of(name)
    return make_family(RobotSettings(str(path), declare(CASES[name], path, *entries or [nothing(name)], **keys)))


def entry(quantity: str, target: str | None, operation: str | None, low: float, high: float, **keys: Any) -> dict:
    """A parameter of the family's file, uniform between two values."""
    given = {"operation": operation, "target": target and re.escape(target)}
    return {
        "name": f"varied_{quantity}",
        "quantity": quantity,
        "distribution": "uniform",
        "range": [float(low), float(high)],
        **{k: v for k, v in given.items() if v is not None},
        **keys,
    }


def nothing(name: str) -> dict[str, Any]:
    """A parameter that edits nothing: it is always neutral."""
    model = reference_of(name)
    neutral = entry("mass", model.body(heaviest(model)).name, "scale", 1, 1)
    return {**neutral, "distribution": "choice", "range": [1.0]}


def robot_bodies(model: mujoco.MjModel) -> list[int]:
    """Those of the tree with the most joints."""
    roots = [int(model.body_rootid[b]) for b in model.jnt_bodyid]
    root = max(sorted(set(roots)), key=roots.count)
    return [b for b in range(1, model.nbody) if model.body_rootid[b] == root]


def heaviest(model: mujoco.MjModel) -> int:
    """Of the robot's bodies."""
    return max(robot_bodies(model), key=lambda b: (model.body_weldid[b] != 0) * model.body_mass[b])


def moments(model: mujoco.MjModel) -> Array:
    """[nu, nv] what each actuator pulls at, in a pose that is no special one."""
    data = mujoco.MjData(model)
    mujoco.mj_integratePos(model, data.qpos, np.full(model.nv, 0.3), 1.0)
    mujoco.mj_fwdPosition(model, data)
    dense = np.zeros((model.nu, model.nv))
    if model.nu:
        mujoco.mju_sparse2dense(dense, data.actuator_moment, data.moment_rownnz, data.moment_rowadr, data.moment_colind)
    return dense


def driven_dofs(model: mujoco.MjModel) -> list[int]:
    """Those that an actuator pulls at."""
    return np.flatnonzero(np.any(moments(model), axis=0)).tolist()


def moves(model: mujoco.MjModel) -> bool:
    """Whether the base floats, or has joints that nothing drives."""
    root = robot_bodies(model)[0]
    own = range(model.body_jntadr[root], model.body_jntadr[root] + model.body_jntnum[root])
    driven = driven_dofs(model)
    return any(model.jnt_type[j] == FREE or model.jnt_dofadr[j] not in driven for j in own)


@dataclass(frozen=True)
class Run:
    """A second of actions, as metarl steps it."""

    family: TaskFamily
    model: mujoco.MjModel
    """Of the neutral task."""
    actions: Array
    """[T, act]"""
    ctrl: Array
    """[T, nu] that was applied."""
    qpos: Array
    """[T + 1, nq] from the start on."""
    qvel: Array
    """[T + 1, nv]"""
    act: Array
    """[T + 1, na]"""

    def state(self, model: mujoco.MjModel, t: int) -> mujoco.MjData:
        """The state after t control steps, in a model; nothing derived yet."""
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:], data.act[:] = self.qpos[t], self.qvel[t], self.act[t]
        data.ctrl[:] = self.ctrl[max(t - 1, 0)]
        return data


def play(family: TaskFamily, actions: Array) -> Run:
    """Actions [T, act] as a policy gives them, from the start."""
    env = BatchedEnv(family, 1, 1, 1)
    batch, model = env.simulation.batch, family.compile(family.neutral())
    fields = [batch.qpos, batch.qvel, *([batch.act] if model.na else [])]
    env.reset([np.random.default_rng(0)])
    seen, ctrl = [[np.array(x[0]) for x in fields]], []
    for action in actions:
        env.step(action[None, None])
        ctrl.append(np.array(batch.ctrl[0]))
        seen.append([np.array(x[0]) for x in fields])
    columns = [np.array(c) for c in zip(*seen, strict=True)]
    act = columns[2] if model.na else np.zeros((len(seen), 0))
    return Run(family, model, actions, np.array(ctrl), columns[0], columns[1], act)


@functools.cache
def run_of(name: str) -> Run:
    """A second of random actions about the middle of their range, of the robot that no parameter edits."""
    family = family_of(name)
    middle, half = (family.action_high + family.action_low) / 2, (family.action_high - family.action_low) / 2
    steps = max(2, round(1.0 / family.dt))
    return play(family, middle + 0.4 * half * np.random.default_rng(7).uniform(-1, 1, (steps, family.action_size)))


@dataclass(frozen=True)
class Probe:
    """How to see that a quantity acts on a target, or that it must be refused."""

    entry: dict[str, Any]
    """What the family's file says."""
    effect: Effect | None = None
    """What acts, of a task's compiled model; None: the target lacks the quantity, and the file must be refused."""
    expected: Callable[[Array, float], Array] = lambda neutral, value: neutral * value
    """(effect of the neutral robot, value) -> effect at the value."""
    refusable: bool = False
    """Whether the file may be refused instead."""


def _state(name: str, model: mujoco.MjModel, t: int = 0) -> mujoco.MjData:
    """A state of the neutral robot's run, in a task's model, with all positions derived."""
    data = run_of(name).state(model, t)
    mujoco.mj_fwdPosition(model, data)
    return data


def inertia(body: Any) -> Array:
    """[3, 3] kg m^2 about the centre, in the body's own axes."""
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, body.iquat)
    turn = turn.reshape(3, 3)
    return turn @ np.diag(body.inertia) @ turn.T


def _mass(name: str) -> Probe:
    model = reference_of(name)
    body = model.body(heaviest(model))

    def effect(m: mujoco.MjModel) -> Array:
        return np.array([m.body_subtreemass[0], *inertia(m.body(body.name)).ravel()])

    def expected(neutral: Array, value: float) -> Array:
        return np.array([neutral[0] + (value - 1) * body.mass[0], *neutral[1:] * value])

    return Probe(entry("mass", body.name, "scale", 0.7, 1.4), effect, expected)


def _from_geoms(name: str) -> Iterator[mujoco.MjsBody]:
    """Bodies of the robot that can move, whose inertia follows from their geoms, if these have names and touch things.

    Geoms that touch nothing only decorate: they are not simulated.
    """
    model, spec = reference_of(name), mujoco.MjSpec.from_file(str(path_of(name)))
    rule = spec.compiler.inertiafromgeom
    for b in robot_bodies(model):
        body = spec.body(model.body(b).name) if model.body_weldid[b] else None
        if body is None or not body.geoms or not all(g.name and (g.contype or g.conaffinity) for g in body.geoms):
            continue
        explicit = body.explicitinertial and rule != FROM_GEOMS.mjINERTIAFROMGEOM_TRUE
        if not explicit and rule != FROM_GEOMS.mjINERTIAFROMGEOM_FALSE:
            yield body


def _density(name: str) -> Probe | None:
    """Of a geom that alone makes its body's mass."""
    for body in _from_geoms(name):
        heavy = [g for g in body.geoms if (g.mass > 0 if np.isfinite(g.mass) else g.density > 0)]
        if len(heavy) == 1 and int(heavy[0].type) != MESH:

            def effect(m: mujoco.MjModel, chosen: str = body.name) -> Array:
                return np.array([m.body(chosen).mass[0], *inertia(m.body(chosen)).ravel()])

            return Probe(entry("density", heavy[0].name, "scale", 0.8, 1.3), effect)
    return None


def _payload(name: str) -> Probe:
    """Mass, and first moment less that of the payload's place."""
    model = reference_of(name)
    body, at = model.body(heaviest(model)).name, np.array([0.0, 0.0, 0.1])

    def effect(m: mujoco.MjModel) -> Array:
        data = _state(name, m)
        place = data.body(body).xpos + data.body(body).xmat.reshape(3, 3) @ at
        total = m.body_subtreemass[0]
        return np.array([total, *(data.subtree_com[0] * total - (total - model.body_subtreemass[0]) * place)])

    def expected(neutral: Array, value: float) -> Array:
        return np.array([neutral[0] + value, *neutral[1:]])

    return Probe(entry("payload", body, "set", 0, 2, position=at.tolist()), effect, expected)


def _principal(axis: int) -> Callable[[str], Probe]:
    def probe(name: str) -> Probe:
        model = reference_of(name)
        body = model.body(heaviest(model)).name

        def expected(neutral: Array, value: float) -> Array:
            return np.where(np.arange(3) == axis, value * neutral, neutral)

        said = entry(
            f"inertia_{'xyz'[axis]}", body, "scale", 0.9995, 1.0005
        )  # the longest axis of a rod allows no more
        return Probe(said, lambda m: m.body(body).inertia.copy(), expected)

    return probe


def _centre(axis: int) -> Callable[[str], Probe]:
    def probe(name: str) -> Probe:
        model = reference_of(name)
        body = model.body(heaviest(model)).name
        turn = _state(name, model).body(body).xmat.reshape(3, 3).copy()
        said = entry(f"com_{'xyz'[axis]}", body, "add", -0.01, 0.01)
        return Probe(said, lambda m: _state(name, m).body(body).xipos.copy(), lambda now, v: now + v * turn[:, axis])

    return probe


def _link_length(name: str) -> Probe | None:
    """Of a link of capsules and cylinders: where its geoms and its children are, and how long the geoms are."""
    model = reference_of(name)
    root, spans = model.body(robot_bodies(model)[0]).name, model.nwrap or np.any(model.actuator_trntype == SLIDER_CRANK)
    for body in _from_geoms(name):
        at_origin = all(int(j.type) in SCALAR and not np.any(j.pos) for j in body.joints)
        if body.name == root or not at_origin or any(int(g.type) not in ROUND[1:] for g in body.geoms):
            continue
        geoms, children = [g.name for g in body.geoms], [c.name for c in body.bodies if c.name]

        def effect(m: mujoco.MjModel, geoms=geoms, children=children) -> Array:
            lengths = [x for g in geoms for x in (*m.geom(g).pos, m.geom(g).size[1])]
            return np.array([*lengths, *(x for c in children for x in m.body(c).pos)])

        return Probe(entry("link_length", body.name, "scale", 0.9, 1.0), effect, refusable=bool(spans))
    return None


def _scale(name: str) -> Probe:
    """Of the whole robot: masses with the cube, inertias with the fifth power, places of joints and bodies with it."""
    model = reference_of(name)
    root = robot_bodies(model)[0]
    carried = len(robot_bodies(model)) - 1

    def effect(m: mujoco.MjModel) -> Array:
        first, *others = robot_bodies(m)
        mine = [b for b in m.jnt_bodyid.tolist() if b in others]
        places = [m.body_pos[b] for b in others] + [m.jnt_pos[j] for j in range(m.njnt) if m.jnt_bodyid[j] in mine]
        rows = [[m.body_mass[b], *inertia(m.body(b)).ravel()] for b in (first, *others)]
        return np.concatenate([np.ravel(rows), np.ravel(places)])

    def expected(neutral: Array, value: float) -> Array:
        powers = [3, *[5] * 9] * (carried + 1)
        return neutral * value ** np.array([*powers, *[1] * (len(neutral) - len(powers))])

    lengths = model.nwrap or np.any(model.actuator_trntype == SLIDER_CRANK) or set(map(int, model.eq_type)) - {COUPLED}
    said = entry("scale", model.body(root).name or f"body{root}", "scale", 0.9, 1.0)
    return Probe(said, effect, expected, refusable=bool(lengths))


def _shape(quantity: str, kinds: tuple[int, ...], numbers: int) -> Callable[[str], Probe | None]:
    """The first numbers of a geom's size."""

    def scaled(neutral: Array, value: float) -> Array:
        return np.where(np.arange(3) < numbers, value * neutral, neutral)

    def probe(name: str) -> Probe | None:
        model = reference_of(name)
        own = [model.geom(g) for g in range(model.ngeom) if model.geom_bodyid[g] in robot_bodies(model)]
        touching = [g.name for g in own if g.name and (g.contype[0] or g.conaffinity[0]) and int(g.type[0]) in kinds]
        if not touching:
            return None
        said = entry(quantity, touching[0], "scale", 0.9, 1.0)
        return Probe(said, lambda m: m.geom(touching[0]).size.copy(), scaled)

    return probe


@dataclass(frozen=True)
class Touch:
    """Contacts of a geom of the robot with something else, after t control steps of its run."""

    geom: str
    t: int
    condim: int
    friction: Array
    """[5]"""
    paired: bool
    """Whether a <pair> decides its friction."""


@functools.cache
def touches_of(name: str) -> tuple[Touch, ...]:
    """Of the geoms that have names, the first of each condim."""
    model, run = reference_of(name), run_of(name)
    bodies, found = robot_bodies(model), {}
    pairs = [{int(a), int(b)} for a, b in zip(model.pair_geom1, model.pair_geom2, strict=True)]
    for t in range(len(run.qpos)):
        for c in _state(name, model, t).contact:
            own = [int(g) for g in c.geom if model.geom_bodyid[g] in bodies]
            if len(own) == 1 and model.geom(own[0]).name:
                touch = Touch(model.geom(own[0]).name, t, int(c.dim), c.friction.copy(), set(map(int, c.geom)) in pairs)
                found.setdefault((touch.geom, touch.condim), touch)
    return tuple(found.values())


def _friction(quantity: str, condim: int, index: int) -> Callable[[str], Probe | None]:
    """Of all contacts of a geom with what is not the robot: what its value says, and all else of them as it was.

    The condim is the least at which a contact has this friction. Without one it has no effect.
    """

    def probe(name: str) -> Probe | None:
        model, touches = reference_of(name), touches_of(name)
        touch = next((x for x in touches if x.condim >= condim), None)
        if touch is None:
            could = max([0, *model.geom_condim, *model.pair_dim]) >= condim
            return None if could or not touches else Probe(entry(quantity, touches[0].geom, "set", 0.5, 1.5))
        neutral, bodies = float(touch.friction[index]), robot_bodies(model)
        scene = {model.body(b).name for b in range(model.nbody) if b not in bodies}

        def effect(m: mujoco.MjModel) -> Array:
            rows = []
            for c in _state(name, m, touch.t).contact:
                met = [m.body(m.geom_bodyid[g]).name in scene for g in c.geom]
                if touch.geom in (m.geom(g).name for g in c.geom) and any(met):
                    kept = np.delete(c.friction, [index, index + 1] if index in (0, 3) else [index])
                    rows.append((c.friction[index], c.dim, *kept, *c.solref, *c.solreffriction, *c.solimp, c.dist))
            return np.array(rows).reshape(len(rows), -1) if rows else np.zeros((0, 2))

        def expected(now: Array, value: float) -> Array:
            return np.column_stack([np.full(len(now), value), now[:, 1:]])

        said = entry(quantity, touch.geom, "set", 0.5 * neutral, 1.5 * neutral, neutral=neutral)
        return Probe(said, effect, expected, refusable=touch.paired)

    return probe


def driven_joint(model: mujoco.MjModel) -> int | None:
    """A hinge or slide of the robot that an actuator drives and that follows no other."""
    follows = {int(model.eq_obj1id[i]) for i in range(model.neq) if model.eq_type[i] == COUPLED}
    bodies = robot_bodies(model)
    for j in (int(model.dof_jntid[dof]) for dof in driven_dofs(model)):
        if model.jnt_type[j] in SCALAR and j not in follows and model.jnt_bodyid[j] in bodies:
            return j
    return None


def _of_joint(
    quantity: str, default: Callable[[mujoco.MjModel, int], float], effect: Callable[[str, int, mujoco.MjModel], float]
) -> Callable[[str], Probe | None]:
    """A quantity of a joint, in whose unit the effect is: scaled where the model has it, added where it has none."""

    def probe(name: str) -> Probe | None:
        model = reference_of(name)
        j = driven_joint(model)
        if j is None:
            return None
        neutral, joint = default(model, j), model.joint(j).name
        operation = ("scale", 0.5, 1.5) if neutral else ("add", 0.0, 0.4)

        def expected(now: Array, value: float) -> Array:
            return now + (neutral * (value - 1) if neutral else value)

        return Probe(entry(quantity, joint, *operation), lambda m: np.array([effect(name, j, m)]), expected)

    return probe


def _damping(name: str, j: int, m: mujoco.MjModel) -> float:
    """Torque against 1 rad/s, of the joint alone."""
    data = run_of(name).state(m, 0)
    data.qvel[:] = np.arange(m.nv) == m.jnt_dofadr[j]
    m.tendon_damping[:] = m.actuator_damping[:] = 0
    mujoco.mj_forward(m, data)
    return -float(data.qfrc_damper[m.jnt_dofadr[j]])


def _stiffness(name: str, j: int, m: mujoco.MjModel) -> float:
    """Torque at 1 rad below the spring's rest, of the joint alone."""
    data, address = run_of(name).state(m, 0), m.jnt_qposadr[j]
    data.qpos[address] = m.qpos_spring[address] - 1
    m.tendon_stiffness[:] = 0
    mujoco.mj_forward(m, data)
    return float(data.qfrc_spring[m.jnt_dofadr[j]])


def _armature(name: str, j: int, m: mujoco.MjModel) -> float:
    """Inertia that the joint feels."""
    data, full, dof = _state(name, m), np.zeros((m.nv, m.nv)), m.jnt_dofadr[j]
    mujoco.mj_fullM(m, data, full)
    return float(full[dof, dof])


def _friction_loss(name: str, j: int, m: mujoco.MjModel) -> float:
    """Of the joint's friction constraint, 0 where there is none."""
    data = run_of(name).state(m, 0)
    mujoco.mj_forward(m, data)
    rows = (data.efc_type == DRY) & (data.efc_id == m.jnt_dofadr[j])
    return float(data.efc_frictionloss[rows].sum())


def _range(name: str) -> Probe | None:
    """How far a joint that is beyond its limit by a fifth of half its range violates the limit's constraint."""
    model = reference_of(name)
    j = driven_joint(model)
    if j is None:
        return None
    said = entry("range", model.joint(j).name, "scale", 0.9, 1.1)
    if not model.jnt_limited[j]:
        return Probe(said)
    middle, half, address = model.jnt_range[j].mean(), np.ptp(model.jnt_range[j]) / 2, model.jnt_qposadr[j]
    if abs(run_of(name).qpos[0, address] - middle) > 0.85 * half:
        return None  # home would be out of range

    def effect(m: mujoco.MjModel) -> Array:
        data = run_of(name).state(m, 0)
        data.qpos[address] = middle + 1.2 * half
        mujoco.mj_forward(m, data)
        return data.efc_pos[(data.efc_type == LIMIT) & (data.efc_id == j)]

    return Probe(said, effect, lambda now, value: now + half * (value - 1))


def actuator_name(model: mujoco.MjModel, i: int) -> str | None:
    """Its own name, or that of the joint that it drives; None if it has neither."""
    if model.actuator(i).name:
        return model.actuator(i).name
    return model.joint(model.actuator_trnid[i, 0]).name if model.actuator_trntype[i] == 0 else None


def is_affine(model: mujoco.MjModel, i: int) -> bool:
    """Whether its force falls with the position, whatever its signal means."""
    return model.actuator_biastype[i] == AFFINE and bool(model.actuator_biasprm[i, 1] < 0)


def is_servo(model: mujoco.MjModel, i: int) -> bool:
    """Whether its force is kp (signal - position) - kd velocity, and the signal may be filtered."""
    gain = model.actuator_gainprm[i, 0]
    direct = model.actuator_dyntype[i] != INTEGRATOR and model.actuator_biasprm[i, 0] == 0
    return direct and is_affine(model, i) and bool(np.isclose(gain, -model.actuator_biasprm[i, 1]))


def is_speed_servo(model: mujoco.MjModel, i: int) -> bool:
    """Whether its force is kd (signal - velocity)."""
    gain, bias = model.actuator_gainprm[i, 0], model.actuator_biasprm[i, :3]
    return model.actuator_biastype[i] == AFFINE and gain > 0 and bool(np.allclose(bias, (0, 0, -gain)))


def _force(name: str, m: mujoco.MjModel, signal: float, i: int = 0, velocity: float = 0.0, t: int = 0) -> float:
    """Of an actuator, its limits aside, where all joints move at a velocity. Clears the limits of the model."""
    data = run_of(name).state(m, t)
    m.actuator_ctrllimited[:] = m.actuator_forcelimited[:] = m.actuator_actlimited[:] = 0
    data.qvel[:] = velocity
    target, at = (data.ctrl, i) if m.actuator_actadr[i] < 0 else (data.act, m.actuator_actadr[i])
    target[at] = signal
    mujoco.mj_forward(m, data)
    return float(data.actuator_force[i])


def _gathered(name: str, m: mujoco.MjModel, i: int = 0) -> float:
    """Velocity of an actuator whose joints all move at 1 rad/s (m/s)."""
    data = run_of(name).state(m, 0)
    data.qvel[:] = 1
    mujoco.mj_forward(m, data)
    return float(data.actuator_velocity[i])


def _servo(quantity: str) -> Callable[[str], Probe | None]:
    """Force by a change of the signal, and by a change of velocity."""

    def probe(name: str) -> Probe | None:
        model = reference_of(name)
        i = next((i for i in range(model.nu) if is_servo(model, i)), None)
        of_speed = next((k for k in range(model.nu) if is_speed_servo(model, k)), None) if quantity == "kd" else None
        if i is None and of_speed is not None and (actuator := actuator_name(model, of_speed)) is not None:

            def forces(m: mujoco.MjModel) -> Array:
                still = _force(name, m, 0.1, of_speed)
                return np.array([_force(name, m, 0.3, of_speed) - still, _force(name, m, 0.1, of_speed, 0.5) - still])

            return Probe(entry("kd", actuator, "scale", 0.6, 1.5), forces, lambda now, v: now * v)
        if i is None:
            actuator = actuator_name(model, 0)
            affine = any(is_affine(model, k) for k in range(model.nu))
            return None if affine or actuator is None else Probe(entry(quantity, actuator, "add", 1, 2))
        kd, actuator = -float(model.actuator_biasprm[i, 2]), actuator_name(model, i)
        if actuator is None:
            return None

        def effect(m: mujoco.MjModel) -> Array:
            still = _force(name, m, 0.1, i)
            return np.array([_force(name, m, 0.3, i) - still, _force(name, m, 0.1, i, 0.5) - still])

        if quantity == "kp":
            return Probe(entry("kp", actuator, "scale", 0.6, 1.5), effect, lambda now, v: now * (v, 1))
        if kd:
            return Probe(entry("kd", actuator, "scale", 0.6, 1.5), effect, lambda now, v: now * (1, v))
        speed = 0.5 * _gathered(name, model, i)
        return Probe(entry("kd", actuator, "add", 0, 1), effect, lambda now, v: now - (0, v * speed))

    return probe


def _at_full(name: str, m: mujoco.MjModel) -> Array:
    """[nv] what the first actuator brings to the joints at the end of its control range."""
    data = run_of(name).state(m, 0)
    top = float(m.actuator_ctrlrange[0, 1]) if m.actuator_ctrllimited[0] else 1e3
    data.ctrl[0] = top
    if m.actuator_actadr[0] >= 0:
        data.act[m.actuator_actadr[0]] = top
    m.actuator_gainprm[1:] = m.actuator_biasprm[1:] = 0
    m.jnt_actgravcomp[:] = 0
    mujoco.mj_forward(m, data)
    return data.qfrc_actuator + data.qfrc_adhesion if hasattr(data, "qfrc_adhesion") else data.qfrc_actuator.copy()


def _strength(name: str) -> Probe | None:
    """What reaches the joints at the end of the control range, where limits act; and the force where they do not."""
    actuator, middle = actuator_name(reference_of(name), 0), len(run_of(name).ctrl) // 2
    if actuator is None:
        return None
    signal = 0.4 * float(reference_of(name).actuator_ctrlrange[0, 1] or 1.0)

    def effect(m: mujoco.MjModel) -> Array:
        return np.array([*_at_full(name, m), _force(name, m, signal, 0, 0.1, middle)])

    return Probe(entry("strength", actuator, "scale", 0.7, 1.3), effect)


def _gear(name: str) -> Probe | None:
    """What an actuator gathers of velocities. Where its force is one of the motion, it may be refused."""
    model = reference_of(name)
    actuator = actuator_name(model, 0)
    if actuator is None or is_affine(model, 0):
        return None
    plain = model.actuator_gaintype[0] == FIXED and model.actuator_biastype[0] == NO_BIAS
    said = entry("gear", actuator, "scale", 0.7, 1.3)
    return Probe(said, lambda m: np.array([_gathered(name, m)]), refusable=not plain)


def _force_limit(name: str) -> Probe | None:
    """What reaches the joints at the end of the control range, where a limit acts."""
    model = reference_of(name)
    actuator, dofs = actuator_name(model, 0), np.flatnonzero(moments(model)[0])
    if actuator is None:
        return None
    said = entry("force_limit", actuator, "scale", 0.7, 1.2)
    if not model.actuator_forcelimited[0] and not np.any(model.jnt_actfrclimited[model.dof_jntid[dofs]]):
        return Probe(said)
    unlimited = reference_copy(name)
    unlimited.actuator_forcelimited[:] = unlimited.jnt_actfrclimited[:] = 0
    free, bound = _at_full(name, unlimited), _at_full(name, reference_copy(name))
    if not np.all(np.abs(free[dofs]) > 1.25 * np.abs(bound[dofs])):
        return None  # no limit is reached
    return Probe(said, lambda m: _at_full(name, m))


def _gravity(name: str) -> Probe | None:
    """The load on the joints of a robot at rest, in a pose that is no special one."""

    def effect(m: mujoco.MjModel) -> Array:
        data = run_of(name).state(m, 0)
        mujoco.mj_integratePos(m, data.qpos, np.full(m.nv, 0.3), 1.0)
        data.qvel[:] = 0
        mujoco.mj_forward(m, data)
        return data.qfrc_bias.copy()

    model, said = reference_copy(name), entry("gravity", None, "scale", 0.5, 1.2)
    if not np.any(model.opt.gravity):
        return Probe(said)
    return Probe(said, effect) if np.abs(effect(model)).max() > 1e-9 else None


def _slope(name: str) -> Probe | None:
    """The normal of the ground leans back against x."""
    model = reference_of(name)
    planes = [g for g in range(model.ngeom) if model.geom_type[g] == PLANE]
    said = entry("slope", None, "set", -0.2, 0.2)
    root = robot_bodies(model)[0]
    if not planes or model.jnt_type[model.body_jntadr[root]] != FREE:
        return Probe(said)

    def effect(m: mujoco.MjModel) -> Array:
        data = mujoco.MjData(m)
        mujoco.mj_kinematics(m, data)
        plane = next(g for g in range(m.ngeom) if m.geom_type[g] == PLANE)
        return data.geom_xmat[plane].reshape(3, 3)[:, 2]

    def expected(now: Array, value: float) -> Array:
        c, s = np.cos(value), np.sin(value)
        return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) @ now

    return Probe(said, effect, expected, refusable=bool(model.geom_bodyid[planes[0]]))


PROBES: dict[str, Callable[[str], Probe | None]] = {
    "mass": _mass,
    "density": _density,
    "payload": _payload,
    **{f"inertia_{a}": _principal(i) for i, a in enumerate("xyz")},
    **{f"com_{a}": _centre(i) for i, a in enumerate("xyz")},
    "link_length": _link_length,
    "scale": _scale,
    "size": _shape("size", (*ROUND, BOX), 3),
    "radius": _shape("radius", ROUND, 1),
    "friction": _friction("friction", 3, 0),
    "torsional_friction": _friction("torsional_friction", 4, 2),
    "rolling_friction": _friction("rolling_friction", 6, 3),
    "damping": _of_joint("damping", lambda m, j: float(m.dof_damping[m.jnt_dofadr[j]]), _damping),
    "stiffness": _of_joint("stiffness", lambda m, j: float(m.jnt_stiffness[j]), _stiffness),
    "armature": _of_joint("armature", lambda m, j: float(m.dof_armature[m.jnt_dofadr[j]]), _armature),
    "friction_loss": _of_joint(
        "friction_loss", lambda m, j: float(m.dof_frictionloss[m.jnt_dofadr[j]]), _friction_loss
    ),
    "range": _range,
    "kp": _servo("kp"),
    "kd": _servo("kd"),
    "strength": _strength,
    "gear": _gear,
    "force_limit": _force_limit,
    "gravity": _gravity,
    "slope": _slope,
}
"""By quantity: (case) -> its probe; None where nothing is known of what it does there."""
TOGETHER = (
    (
        *("mass", "payload", "friction", "torsional_friction", "rolling_friction", "damping", "stiffness", "armature"),
        *("friction_loss", "range", "kp", "kd", "force_limit", "gear", "gravity", "slope"),
    ),
    ("inertia_x", "inertia_y", "inertia_z", "com_x", "com_y", "com_z", "strength", "size"),
    ("density", "radius"),
    ("link_length",),
    ("scale",),
)
"""Quantities that do not take hold of the same thing, so that one family can vary them all."""
