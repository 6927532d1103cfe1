"""What is inferred about anyone's robot: base, feet, joints, home pose, control; and what must be asked."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import mujoco
import numpy as np

from metarl.envs.family import Array
from metarl.envs.robot_file import Actuators, Control, Hints, near
from metarl.envs.robot_source import open_model

FOOT_NAMES = (r"foot|feet|toe|ankle|hoof|paw|sole", r"calf|shin|shank|lower")
"""What feet are called, likeliest first."""
FOOT_HEIGHT = 0.1
"""Leaf bodies whose lowest point is within this share of the robot's height of the ground count as feet."""
SCALAR = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
GROUND = (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_HFIELD)
Source = Literal["model", "inferred", "file"]
Mobility = Literal["floating", "guided", "fixed"]


@dataclass(frozen=True)
class Finding:
    """What is known about the robot, and whence."""

    subject: str
    value: str
    source: Source


@dataclass
class Robot:
    """A robot ready to simulate, if `questions` is empty."""

    name: str
    spec: mujoco.MjSpec
    """For simulation: without decoration, each mass where an edit can reach it."""
    visual: mujoco.MjSpec
    """With decoration."""
    model: mujoco.MjModel
    """Of `spec`."""
    base: str = ""
    """Body whose motion is the robot's."""
    mobility: Mobility = "fixed"
    """floating: by a free joint; guided: by joints that nothing drives (planar robots); fixed to the world."""
    bodies: tuple[str, ...] = ()
    """Of the robot, without those of its scene."""
    feet: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()
    """Hinges and slides of the robot, without those that guide its base."""
    home: Array = field(default_factory=lambda: np.zeros(0))
    """[nq] home pose."""
    offset: Array = field(default_factory=lambda: np.zeros(0))
    """[nu] control signal of action 0."""
    gain: Array = field(default_factory=lambda: np.zeros(0))
    """[nu] change of the control signal that an action of 1 makes."""
    low: Array = field(default_factory=lambda: np.zeros(0))
    """[nu] lowest action."""
    high: Array = field(default_factory=lambda: np.zeros(0))
    """[nu] highest action."""
    kinds: tuple[str, ...] = ()
    """[nu] position, velocity or force."""
    geom_masses: dict[str, float] = field(default_factory=dict)
    """kg, of geoms whose density makes their body's mass."""
    findings: list[Finding] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    """What could not be inferred, each with what to write."""

    def geoms(self) -> Iterator[mujoco.MjsGeom]:
        """Of the robot, for simulation."""
        for name in self.bodies:
            yield from self.spec.body(name).geoms

    def note(self, subject: str, value: str, source: Source) -> None:
        self.findings.append(Finding(subject, value, source))


def inspect_robot(model: str, hints: Hints, control: Control) -> Robot:
    """Read, complete and understand a robot. ValueError if it is none; what must be asked is in `questions`."""
    source = open_model(model)
    visual = source.spec
    _name_all(visual)
    root = _root_body(visual, hints)
    added = _complete(visual, root, hints)
    spec, masses = _for_simulation(visual, model)
    robot = Robot(visual.modelname, spec, visual, spec.compile(), geom_masses=masses)
    robot.bodies = tuple(b.name for b in _subtree(spec.body(root)))
    robot.base = hints.base or root
    for subject, value in source.remarks:
        robot.note(subject, value, "model")
    for subject, value, whence in added:
        robot.note(subject, value, whence)
    if hints.base:
        robot.note("base", hints.base, "file")
    else:
        robot.note("base", root, "inferred")
    decoration = len(visual.geoms) - len(spec.geoms)
    if decoration:
        robot.note("decoration", f"{decoration} geoms that touch nothing: kept for pictures only", "inferred")
    _find_joints(robot)
    _find_home(robot, hints)
    _find_control(robot, control)
    _find_feet(robot, hints)
    _check_home(robot)
    return robot


def penetrations(model: mujoco.MjModel, qpos: Array) -> dict[tuple[str, str], float]:
    """Depth of each contact by the names of its geoms, m."""
    data = mujoco.MjData(model)
    data.qpos = qpos
    mujoco.mj_fwdPosition(model, data)
    depths: dict[tuple[str, str], float] = {}
    for contact in data.contact:
        pair = (model.geom(contact.geom[0]).name, model.geom(contact.geom[1]).name)
        if contact.dist < 0:
            depths[pair] = max(depths.get(pair, 0.0), -float(contact.dist))
    return depths


def tolerance(robot: Robot) -> float:
    """Depth that the contact solver forgives, m: 2 % of the robot's size."""
    ids = [robot.model.geom(g.name).id for g in robot.geoms()]
    data = mujoco.MjData(robot.model)
    data.qpos = robot.home
    mujoco.mj_kinematics(robot.model, data)
    if not ids:
        return 1e-3
    reach, radius = data.geom_xpos[ids], robot.model.geom_rbound[ids, None]
    return max(1e-3, 0.02 * float(np.max((reach + radius).max(axis=0) - (reach - radius).min(axis=0))))


def one_of(name: str, valid: list[str], what: str) -> str:
    """The name, if it is valid; otherwise ValueError names the nearest."""
    if name not in valid:
        raise ValueError(f"{what} {name!r} is not in the model{near(name, valid)}")
    return name


def _name_all(spec: mujoco.MjSpec) -> None:
    """Give what has no name one, so that regular expressions and edits can find it."""

    def name(element: mujoco.MjsElement, taken: set[str], wanted: str) -> None:
        if element.name:
            return
        candidates = (wanted, *(f"{wanted}_{i}" for i in range(2, 10_000)))
        element.name = next(c for c in candidates if c not in taken)
        taken.add(element.name)

    bodies, geoms, joints = ({e.name for e in kind} for kind in (spec.bodies, spec.geoms, spec.joints))
    actuators = {a.name for a in spec.actuators}
    for i, body in enumerate(spec.bodies[1:], start=1):
        name(body, bodies, f"body{i}")
    for body in spec.bodies:
        for geom in body.geoms:
            ground = body is spec.bodies[0] and geom.type in GROUND
            name(geom, geoms, "floor" if ground else f"{body.name}_geom")
        for joint in body.joints:
            name(joint, joints, f"{body.name}_joint")
    for actuator in spec.actuators:
        name(actuator, actuators, actuator.target or "actuator")


def _subtree(body: mujoco.MjsBody) -> Iterator[mujoco.MjsBody]:
    yield body
    for child in body.bodies:
        yield from _subtree(child)


def _root_body(spec: mujoco.MjSpec, hints: Hints) -> str:
    """The body on the world that carries the robot: the one of the hinted base, or that with the most joints."""
    roots = list(spec.worldbody.bodies)
    trees = {root.name: list(_subtree(root)) for root in roots}
    if hints.base is not None:
        one_of(hints.base, [b.name for tree in trees.values() for b in tree], "robot.base: body")
        return next(root for root, tree in trees.items() if any(b.name == hints.base for b in tree))
    sizes = {r: sum(j.type != mujoco.mjtJoint.mjJNT_FREE for b in t for j in b.joints) for r, t in trees.items()}
    if max(sizes.values(), default=0) == 0:
        raise ValueError("the model has no joints: there is nothing to control")
    largest = [root for root, size in sizes.items() if size == max(sizes.values())]
    if len(largest) > 1:
        raise ValueError(
            f"{', '.join(largest)} could each be the robot's base; write robot: {{base: {largest[0]}}} (or another)"
        )
    return largest[0]


def _complete(spec: mujoco.MjSpec, root: str, hints: Hints) -> list[tuple[str, str, Source]]:
    """Add what the robot lacks and the file or the world gives: free joint, floor, actuators."""
    added: list[tuple[str, str, Source]] = []
    body = spec.body(root)
    free = any(j.type == mujoco.mjtJoint.mjJNT_FREE for j in body.joints)
    if hints.floating is not None and hints.floating != free:
        if not hints.floating or body.joints:
            has = "a free joint" if free else f"the joint {body.joints[0].name!r}"
            raise ValueError(f"robot.floating is {str(hints.floating).lower()}, but base {root!r} has {has}")
        body.add_freejoint(name=f"{root}_free")
        added.append(("free joint", f"added to {root}", "file"))
        free = True
    grounds = [g.name for g in spec.worldbody.geoms if g.contype or g.conaffinity]
    if not grounds and (free or body.joints):
        name = "floor" if all(g.name != "floor" for g in spec.geoms) else "metarl_floor"
        spec.worldbody.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1), rgba=(0.8, 0.85, 0.9, 1))
        added.append(("floor", f"{name}, a plane at height 0, added", "inferred"))
    else:
        added.append(("floor", ", ".join(grounds) or "none, the base is fixed", "model"))
    if hints.actuators is not None:
        if spec.actuators:
            raise ValueError(f"robot.actuators is given, but the model has {len(spec.actuators)}; leave it out")
        names = _add_actuators(spec, body, hints.actuators)
        added.append(("actuators", f"{hints.actuators.kind} on {', '.join(names)}, added", "file"))
    return added


def _add_actuators(spec: mujoco.MjSpec, root: mujoco.MjsBody, wanted: Actuators) -> list[str]:
    guides = {j.name for j in root.joints if j.type == mujoco.mjtJoint.mjJNT_FREE}
    joints = [j for b in _subtree(root) for j in b.joints if j.type in SCALAR and j.name not in guides]
    chosen = [j for j in joints if re.fullmatch(wanted.joints, j.name)]
    if not chosen:
        raise ValueError(
            f"robot.actuators.joints {wanted.joints!r} matches no joint{near(wanted.joints, [j.name for j in joints])}"
        )
    if wanted.kind == "position" and (wanted.kp is None or wanted.kp <= 0):
        raise ValueError("robot.actuators: a position servo needs kp > 0, its stiffness in N m/rad")
    for joint in chosen:
        actuator = spec.add_actuator(
            name=joint.name, target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT, ctrllimited=True
        )
        force = wanted.force or float(joint.actfrcrange[1])
        if wanted.kind == "position":
            actuator.set_to_position(kp=wanted.kp, kv=wanted.kd)
            limited = joint.range[0] < joint.range[1]
            low, high = joint.range if limited else (-np.pi, np.pi)
            if joint.compiler.degree and limited and joint.type == mujoco.mjtJoint.mjJNT_HINGE:
                low, high = np.radians((low, high))
            actuator.ctrlrange = (low, high)
            if force > 0:
                actuator.forcelimited, actuator.forcerange = True, (-force, force)
        elif force > 0:
            actuator.set_to_motor()
            actuator.ctrlrange = (-force, force)
        else:
            raise ValueError(
                f"robot.actuators: the model has no force limit for joint {joint.name!r}; write "
                "actuators: {kind: motor, force: NEWTON_METRES}"
            )
    return [j.name for j in chosen]


def _compile(spec: mujoco.MjSpec, what: str) -> mujoco.MjModel:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "compiler attribute 'settotalmass'")
            return spec.compile()
    except ValueError as error:
        raise ValueError(f"{what} does not compile: {' '.join(str(error).split())}") from error


def _for_simulation(visual: mujoco.MjSpec, what: str) -> tuple[mujoco.MjSpec, dict[str, float]]:
    """The robot without decoration, and the mass of each geom whose density makes its body's mass.

    Masses are where an edit can reach them, and nothing scales them back (`settotalmass`), overwrites them
    (`inertiafromgeom`) or mends them in silence (`balanceinertia`, `boundmass`): a body's inertia is explicit if the
    model gives it, and otherwise follows from its geoms, each by a density.
    """
    neutral = _compile(visual, what)
    spec = visual.copy()
    if spec.compiler.inertiafromgeom == mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_TRUE:
        spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_AUTO
        for body in spec.bodies[1:]:
            body.explicitinertial = False
    spec.discard_visual()
    volumes = _volumes(spec)
    masses: dict[str, float] = {}
    for body in spec.bodies[1:]:
        compiled = neutral.body(body.name)
        if not _explicit(spec, body):
            raw = {g.name: volumes[g.name] * g.density if np.isnan(g.mass) else float(g.mass) for g in body.geoms}
            raw = {name: mass for name, mass in raw.items() if mass > 0 and volumes[name] > 0}
            for geom in body.geoms:
                geom.mass = np.nan
                mass = raw.get(geom.name, 0.0) * float(compiled.mass[0]) / (sum(raw.values()) or 1.0)
                geom.density = mass / volumes[geom.name] if mass else 0.0
                if mass:
                    masses[geom.name] = mass
            body.explicitinertial = False
            continue
        make_explicit(body, neutral)
    compiler = spec.compiler
    compiler.settotalmass, compiler.boundmass, compiler.boundinertia, compiler.balanceinertia = -1, 0, 0, False
    compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_AUTO
    model = _compile(spec, what)
    for name in ("body_mass", "body_inertia", "body_ipos"):
        if not np.allclose(getattr(model, name), getattr(neutral, name), rtol=1e-6, atol=1e-9):
            body = int(np.argmax(np.abs(getattr(model, name) - getattr(neutral, name)).reshape(model.nbody, -1).max(1)))
            raise ValueError(
                f"the inertia of body {model.body(body).name!r} in {what} cannot be taken apart into its geoms; give "
                "the body an <inertial>"
            )
    return spec, masses


def make_explicit(body: mujoco.MjsBody, model: mujoco.MjModel) -> None:
    """Write a body's compiled mass and inertia into its specification."""
    compiled = model.body(body.name)
    body.explicitinertial = True
    body.mass, body.ipos, body.iquat, body.inertia = compiled.mass[0], compiled.ipos, compiled.iquat, compiled.inertia
    body.fullinertia = np.full(6, np.nan)
    body.ialt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT


def _explicit(spec: mujoco.MjSpec, body: mujoco.MjsBody) -> bool:
    given = spec.compiler.inertiafromgeom == mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_FALSE
    return given or bool(body.explicitinertial) or not body.geoms


def _volumes(spec: mujoco.MjSpec) -> dict[str, float]:
    """What MuJoCo makes of each geom at density 1, kg: it alone knows of meshes and shells."""
    volumes = {g.name: 0.0 for g in spec.geoms}
    low, high = spec.compiler.inertiagrouprange
    for k in range(max((len(b.geoms) for b in spec.bodies[1:]), default=0)):
        alone = spec.copy()
        compiler = alone.compiler
        compiler.settotalmass, compiler.boundmass, compiler.boundinertia, compiler.balanceinertia = -1, 1e-14, 1e-14, 1
        compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_TRUE
        chosen = {}
        for body in alone.bodies[1:]:
            for i, geom in enumerate(body.geoms):
                geom.density, geom.mass = 1.0, np.nan if i == k else 0.0
                if i == k and low <= geom.group <= high and geom.type not in GROUND:
                    chosen[body.name] = geom.name
        model = alone.compile()
        for body, geom in chosen.items():
            volumes[geom] = float(model.body(body).mass[0])
    return volumes


def _find_joints(robot: Robot) -> None:
    model = robot.model
    root = robot.spec.body(robot.bodies[0])
    driven = {model.joint(i).name for i in model.actuator_trnid[model.actuator_trntype == 0, 0]}
    every = [j for name in robot.bodies for j in robot.spec.body(name).joints]
    if any(j.type == mujoco.mjtJoint.mjJNT_FREE for j in root.joints):
        robot.mobility, guides, how = "floating", set(), "free joint"
    else:
        guides = {j.name for j in root.joints if j.name not in driven} if model.nu else set()
        robot.mobility = "guided" if guides else "fixed"
        how = (
            f"guided by {', '.join(j.name for j in root.joints if j.name in guides)}"
            if guides
            else "fixed to the world"
        )
    robot.note("mobility", how, "model")
    robot.joints = tuple(j.name for j in every if j.type in SCALAR and j.name not in guides)
    limited = [n for n in robot.joints if model.joint(n).limited[0]]
    free = [n for n in robot.joints if n not in limited]
    ranges = ", ".join(f"{n} [{model.joint(n).range[0]:.3g}, {model.joint(n).range[1]:.3g}]" for n in limited)
    robot.note("joints", f"{len(robot.joints)}: {', '.join(robot.joints)}", "model")
    limits = [text for text in (ranges, f"none: {', '.join(free)}" if free else "") if text]
    robot.note("joint limits, rad (m)", "; ".join(limits), "model")
    if balls := [j.name for j in every if j.type == mujoco.mjtJoint.mjJNT_BALL]:
        robot.note("ball joints", f"{', '.join(balls)}: simulated, not observed", "model")
    passive = [n for n in robot.joints if n not in driven]
    if passive and model.nu:
        robot.note("passive joints", ", ".join(passive), "model")
    if not model.nu:
        robot.questions.append(
            "the model has no actuators; write in the YAML\n"
            "  robot: {actuators: {kind: position, kp: 40, kd: 1}}    # N m/rad, N m s/rad\n"
            "or {kind: motor, force: 20} for torques, or add <actuator> to the model"
        )


def _find_home(robot: Robot, hints: Hints) -> None:
    model = robot.model
    keys = [model.key(i).name for i in range(model.nkey)]
    if hints.keyframe is not None:
        chosen, source = one_of(hints.keyframe, keys, "robot.keyframe: keyframe"), "file"
    else:
        chosen = "home" if "home" in keys else keys[0] if len(keys) == 1 else None
        source = "model" if chosen is not None else "inferred"
    at = keys.index(chosen) if chosen is not None else -1
    robot.home = (model.qpos0 if at < 0 else model.key_qpos[at]).copy()
    said = "the model's default pose" if chosen is None else f"keyframe {chosen!r}" if chosen else "the keyframe"
    for pattern, value in hints.pose.items():
        names = matching(pattern, list(robot.joints), "robot.pose: joints")
        for name in names:
            robot.home[model.joint(name).qposadr[0]] = value
    posed = {name for pattern in hints.pose for name in robot.joints if re.fullmatch(pattern, name)}
    moved = []
    for name in robot.joints:
        joint = model.joint(name)
        value = robot.home[joint.qposadr[0]]
        if joint.limited[0] and not joint.range[0] - 1e-6 <= value <= joint.range[1] + 1e-6:
            if at < 0 and name not in posed:
                robot.home[joint.qposadr[0]] = np.clip(value, *joint.range)
                moved.append(name)
                continue
            robot.questions.append(
                f"home has joint {name!r} at {value:.4g}, outside of its range [{joint.range[0]:.4g}, "
                f"{joint.range[1]:.4g}]; write robot: {{pose: {{{name}: {np.clip(0.0, *joint.range):.4g}}}}}"
            )
    if moved:
        said = f"{said}, with {', '.join(moved)} moved into range"
    if posed:
        said, source = f"{said}, with the file's {', '.join(n for n in robot.joints if n in posed)}", "file"
    if robot.mobility == "floating":
        z = int(model.jnt_qposadr[model.body_jntadr[model.body(robot.bodies[0]).id]]) + 2
        if hints.height is not None:
            robot.home[z] = hints.height
        elif at < 0 and (depth := -_clearance(robot)) > 1e-3:
            robot.home[z] += depth
            said, source = f"{said}, lifted by {depth:.3g} m onto the ground", "inferred"
        said = f"{said}; base at {robot.home[z]:.4g} m"
    elif hints.height is not None:
        raise ValueError(f"robot.height is given, but base {robot.base!r} has no free joint to lift")
    robot.note("home pose", said, source)


def matching(pattern: str, names: list[str], what: str) -> list[str]:
    """The names that a regular expression matches as a whole; ValueError with the nearest if there are none."""
    try:
        found = [name for name in names if re.fullmatch(pattern, name)]
    except re.error as error:
        raise ValueError(f"{what} {pattern!r} is no regular expression: {error}") from None
    if not found:
        raise ValueError(f"{what} {pattern!r} matches nothing in the model{near(pattern, names)}")
    return found


def _clearance(robot: Robot) -> float:
    """Smallest distance between the robot at home and a floor that is a plane, m; 0 where there is none."""
    model = robot.model
    data = mujoco.MjData(model)
    data.qpos = robot.home
    mujoco.mj_kinematics(model, data)
    planes = [i for i in range(model.ngeom) if model.geom_bodyid[i] == 0 and model.geom_type[i] == GROUND[0]]
    own = [model.geom(g.name).id for g in robot.geoms() if g.contype or g.conaffinity]
    found = [mujoco.mj_geomDistance(model, data, p, g, 100.0, None) for p in planes for g in own]
    return min(found, default=0.0)


def _find_control(robot: Robot, control: Control) -> None:
    """A position servo's action is an offset from the home pose, any other's a share of its control range."""
    model = robot.model
    data = mujoco.MjData(model)
    data.qpos = robot.home
    mujoco.mj_fwdPosition(model, data)
    offset, gain, low, high, kinds = ([] for _ in range(5))
    for i in range(model.nu):
        actuator = model.actuator(i)
        stiffness, bias = float(actuator.gainprm[0]), actuator.biasprm
        kind = (
            "position" if bias[1] < 0 and np.isclose(bias[1], -stiffness)
            else "velocity" if bias[2] < 0 and np.isclose(bias[2], -stiffness)
            else "force"
        )  # fmt: skip
        rest = float(data.actuator_length[i]) if kind == "position" else 0.0
        bottom, top = actuator.ctrlrange if actuator.ctrllimited[0] else (np.nan, np.nan)
        if np.isnan(bottom) and control.limit is not None:
            bottom, top = -control.limit, control.limit
        if np.isnan(bottom) and kind == "position":
            bottom, top = rest - np.pi, rest + np.pi
        if np.isnan(bottom):
            robot.questions.append(
                f"actuator {actuator.name!r} has no control range; give it a ctrlrange in the model, or write "
                "control: {limit: 1.0} in the YAML"
            )
            bottom, top = -1.0, 1.0
        unit = 1.0 if kind == "position" else max(abs(bottom), abs(top))
        for values, value in zip(
            (offset, gain, low, high, kinds),
            (rest, unit, (bottom - rest) / unit, (top - rest) / unit, kind),
            strict=True,
        ):
            values.append(value)
    robot.offset, robot.gain, robot.low, robot.high = map(np.array, (offset, gain, low, high))
    robot.kinds = tuple(kinds)
    meanings = {
        "position": "action = offset from the home pose, rad (m)",
        "velocity": "action = share of the largest speed",
        "force": "action = share of the largest force",
    }
    for kind in dict.fromkeys(kinds):
        names = [model.actuator(i).name for i in range(model.nu) if kinds[i] == kind]
        robot.note(f"{kind} control", f"{len(names)}: {', '.join(names)}; {meanings[kind]}", "inferred")


def _find_feet(robot: Robot, hints: Hints) -> None:
    if hints.feet is not None:
        robot.feet = tuple(one_of(name, list(robot.bodies), "robot.feet: body") for name in hints.feet)
        robot.note("feet", ", ".join(robot.feet) or "none", "file")
        return
    if robot.mobility == "fixed":
        robot.note("feet", "none, the base is fixed", "inferred")
        return
    bodies = [robot.spec.body(name) for name in robot.bodies]
    touching = {b.name: [g.name for g in b.geoms if g.contype or g.conaffinity] for b in bodies}
    leaves = [b for b in bodies if touching[b.name] and not any(touching[c.name] for c in list(_subtree(b))[1:])]
    for pattern in FOOT_NAMES:
        named = [b.name for b in leaves if re.search(pattern, " ".join([b.name, *touching[b.name]]), re.IGNORECASE)]
        if named:
            robot.feet = tuple(named)
            robot.note("feet", f"{', '.join(named)} (leaf bodies, by name)", "inferred")
            return
    data = mujoco.MjData(robot.model)
    data.qpos = robot.home
    mujoco.mj_kinematics(robot.model, data)
    bottom = {
        b.name: min(data.geom(g).xpos[2] - robot.model.geom(g).rbound[0] for g in touching[b.name]) for b in leaves
    }
    lowest = min(bottom.values(), default=0.0)
    reach = FOOT_HEIGHT * max(float(data.body(robot.base).xpos[2]) - lowest, 0.0)
    robot.feet = tuple(name for name, z in bottom.items() if z <= lowest + reach)
    robot.note("feet", f"{', '.join(robot.feet) or 'none'} (lowest leaf bodies at home)", "inferred")


def _check_home(robot: Robot) -> None:
    depths = penetrations(robot.model, robot.home)
    limit = tolerance(robot)
    deep = sorted(((pair, depth) for pair, depth in depths.items() if depth > limit), key=lambda d: -d[1])
    if deep:
        pairs = ", ".join(f"{b!r} is {depth:.3g} m inside {a!r}" for (a, b), depth in deep)
        robot.questions.append(
            f"at the home pose {pairs}; write robot: {{height: METRES}} to raise the base, robot: {{pose: {{JOINT: "
            "RADIANS}} for another pose, or <exclude> the pair in the model"
        )
