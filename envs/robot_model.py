"""What is inferred about anyone's robot: base, feet, joints, home pose, control; and what must be asked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import mujoco
import numpy as np

from metarl.envs.family import Array
from metarl.envs.robot_actuators import (
    MEANINGS,
    SCALAR,
    Kind,
    add_actuators,
    find_drive,
    moved_joints,
    question,
    require_single_inputs,
    started,
)
from metarl.envs.robot_file import Control, Hints, near, one_of
from metarl.envs.robot_freeze import GROUND, compile_model, for_simulation
from metarl.envs.robot_source import read_model
from metarl.envs.robot_stance import actuators_text, suggested_gains
from metarl.envs.robot_structure import couplings, find_roots, follow, refit_keyframes, subtree

FOOT_NAMES = (r"foot|feet|toe|ankle|hoof|paw|sole", r"calf|shin|shank|lower")
"""What feet are called, likeliest first."""
STANDS_ON = rf"wheel|rotor|propeller|{'|'.join(FOOT_NAMES)}"
"""What bodies are called that a robot fixed to the world would not have."""
GRASPS_WITH = r"finger|thumb|distal|grip|hand|palm"
"""What the ends of a robot's limbs are called that are no feet though they are lowest."""
FOOT_HEIGHT = 0.1
"""Leaf bodies whose lowest point is within this share of the robot's height of the ground count as feet."""
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
    kinds: tuple[Kind, ...] = ()
    """[nu] what each control signal is."""
    moves: tuple[frozenset[str], ...] = ()
    """[nu] names of the joints that each actuator moves."""
    initial: dict[str, Array] = field(default_factory=dict)
    """MjData fields, besides positions and velocities, that an episode starts with."""
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
    visual = read_model(model)
    _name_all(visual)
    plain = compile_model(visual, model)
    require_single_inputs(plain)
    roots = find_roots(visual, plain, hints)
    added = _complete(visual, plain, roots[0], hints)
    spec, masses = for_simulation(visual, model)
    robot = Robot(visual.modelname, spec, visual, spec.compile(), geom_masses=masses)
    robot.bodies = tuple(b.name for root in roots for b in subtree(spec.body(root)))
    robot.base = hints.base or roots[0]
    for subject, value, source in added:
        robot.note(subject, value, source)
    others = f"; of the same robot: {', '.join(roots[1:])}" if roots[1:] else ""
    robot.note("base", f"{robot.base}{others}", "file" if hints.base else "inferred")
    decoration = len(visual.geoms) - len(spec.geoms)
    if decoration:
        robot.note("decoration", f"{decoration} geoms that touch nothing: kept for pictures only", "inferred")
    _find_joints(robot)
    key = _find_home(robot, hints)
    _find_control(robot, control, key)
    _find_feet(robot, hints)
    if not _ask_whether_it_walks(robot, model, hints, control):
        _ask_for_actuators(robot)
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


def unused(wanted: str, taken: set[str]) -> str:
    """The wanted name, or the first of wanted_2, wanted_3, ... that nothing has."""
    candidates = (wanted, *(f"{wanted}_{i}" for i in range(2, len(taken) + 3)))
    return next(c for c in candidates if c not in taken)


def _name_all(spec: mujoco.MjSpec) -> None:
    """Give what has no name one, so that regular expressions and edits can find it."""

    def name(element: mujoco.MjsElement, taken: set[str], wanted: str) -> None:
        if element.name:
            return
        element.name = unused(wanted, taken)
        taken.add(element.name)

    bodies, geoms, joints = ({e.name for e in kind} for kind in (spec.bodies, spec.geoms, spec.joints))
    actuators, tendons = {a.name for a in spec.actuators}, {t.name for t in spec.tendons}
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
    for tendon in spec.tendons:
        name(tendon, tendons, "tendon")


def _complete(spec: mujoco.MjSpec, plain: mujoco.MjModel, root: str, hints: Hints) -> list[tuple[str, str, Source]]:
    """Add what the robot lacks and the file or the world gives: free joint, floor, actuators.

    plain: compiled as the model is.
    """
    added: list[tuple[str, str, Source]] = []
    body = spec.body(root)
    free = any(j.type == mujoco.mjtJoint.mjJNT_FREE for j in body.joints)
    if hints.floating is not None and hints.floating != free:
        if not hints.floating or body.joints:
            has = "a free joint" if free else f"the joint {body.joints[0].name!r}"
            raise ValueError(f"robot.floating is {str(hints.floating).lower()}, but base {root!r} has {has}")
        body.add_freejoint(name=unused(f"{root}_free", {j.name for j in spec.joints}))
        refit_keyframes(spec, plain)
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
        followers = {plain.joint(c.follower).name for c in couplings(plain)}
        joints = [j for b in subtree(body) for j in b.joints if j.type in SCALAR and j.name not in followers]
        names = add_actuators(spec, plain, joints, hints.actuators)
        added.append(("actuators", f"{hints.actuators.kind} on {', '.join(names)}, added", "file"))
    return added


def _find_joints(robot: Robot) -> None:
    model = robot.model
    root = robot.spec.body(robot.bodies[0])
    robot.moves = moved_joints(model)
    driven = frozenset().union(*robot.moves)
    every = [j for name in robot.bodies for j in robot.spec.body(name).joints]
    if any(j.type == mujoco.mjtJoint.mjJNT_FREE for j in root.joints):
        robot.mobility, guides, how = "floating", set(), "free joint"
    else:
        guides = {j.name for j in root.joints if j.name not in driven} if model.nu else set()
        if not any(_carries(j) for j in root.joints if j.name in guides):
            guides = set()  # a pendulum's pivot
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
    followers = {model.joint(c.follower).name: c.words(model) for c in couplings(model)}
    if coupled := [f"{n} {followers[n]}" for n in robot.joints if n in followers]:
        robot.note("coupled joints", "; ".join(coupled), "model")
    passive = [n for n in robot.joints if n not in driven and n not in followers]
    if passive and model.nu:
        robot.note("passive joints", ", ".join(passive), "model")


def _find_home(robot: Robot, hints: Hints) -> int:
    """Set the home pose; returns the keyframe that it is of, or -1."""
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
    moved = _move_into_range(robot, set(robot.joints) - posed if at < 0 else set())
    if moved:
        said = f"{said}, with {', '.join(moved)} moved into range"
    if posed:
        said, source = f"{said}, with the file's {', '.join(n for n in robot.joints if n in posed)}", "file"
    led = _follow_at_home(robot, posed)
    if led:
        said = f"{said}, with {', '.join(led)} where couplings hold them"
    if robot.mobility == "floating":
        z = int(model.jnt_qposadr[model.body_jntadr[model.body(robot.bodies[0]).id]]) + 2
        if hints.height is not None:
            robot.home[z] = hints.height
        elif (at < 0 or hints.floating) and (depth := -_clearance(robot)) > 1e-3:
            robot.home[z] += depth
            said, source = f"{said}, lifted by {depth:.3g} m onto the ground", "inferred"
        said = f"{said}; base at {robot.home[z]:.4g} m"
    elif hints.height is not None:
        raise ValueError(f"robot.height is given, but base {robot.base!r} has no free joint to lift")
    robot.note("home pose", said, source)
    others = [repr(name) if name else "one without a name" for name in keys if name != chosen]
    if others:
        robot.note("other keyframes", f"{', '.join(others)}: not used; robot: {{keyframe: NAME}} takes one", "model")
    return at


def _carries(joint: mujoco.MjsJoint) -> bool:
    """Whether a joint of the root moves the robot about: a slide, or the upright hinge of a boom."""
    return joint.type == mujoco.mjtJoint.mjJNT_SLIDE or abs(joint.axis[2]) > 0.5


def _move_into_range(robot: Robot, movable: set[str]) -> list[str]:
    """Clip the home of joints that may be moved to their ranges, ask about the others; returns what was moved."""
    moved = []
    for name in robot.joints:
        joint = robot.model.joint(name)
        value, (low, high) = robot.home[joint.qposadr[0]], joint.range
        if not joint.limited[0] or low - 1e-6 <= value <= high + 1e-6:
            continue
        if name in movable:
            robot.home[joint.qposadr[0]] = np.clip(value, low, high)
            moved.append(name)
            continue
        robot.questions.append(
            f"home has joint {name!r} at {value:.4g}, outside of its range [{low:.4g}, {high:.4g}]; write robot: "
            f"{{pose: {{{name}: {np.clip(0.0, low, high):.4g}}}}}"
        )
    return moved


def _follow_at_home(robot: Robot, posed: set[str]) -> list[str]:
    """Put joints that follow others where these take them at home; returns which were elsewhere."""
    model, before = robot.model, robot.home.copy()
    chain = couplings(model)
    follow(model, chain, robot.home)
    led = [
        model.joint(c.follower).name
        for c in chain
        if not np.isclose(*(q[model.jnt_qposadr[c.follower]] for q in (before, robot.home)), atol=1e-6)
    ]
    for name in led:
        if name in posed:
            robot.questions.append(
                f"robot.pose puts joint {name!r} elsewhere than its coupling holds it; leave it out, and pose the "
                "joint that it follows"
            )
    return led


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


def _find_control(robot: Robot, control: Control, key: int) -> None:
    """A position servo's action is an offset from the home pose, any other's a share of its control range."""
    model = robot.model
    data = mujoco.MjData(model)
    data.qpos = robot.home
    mujoco.mj_fwdPosition(model, data)
    drives = [find_drive(model, i, float(data.actuator_length[i]), control.limit) for i in range(model.nu)]
    robot.questions += [q for i, drive in enumerate(drives) if (q := question(model, i, drive, robot.home))]
    robot.offset, robot.gain = (np.array([getattr(d, name) for d in drives]) for name in ("rest", "gain"))
    ends = [((d.bottom - d.rest) / d.gain, (d.top - d.rest) / d.gain) for d in drives]
    robot.low, robot.high = np.array([min(e) for e in ends]), np.array([max(e) for e in ends])
    robot.kinds = tuple(d.kind for d in drives)
    robot.initial = started(model, drives, key)
    for kind in dict.fromkeys(robot.kinds):
        names = [d.name for d in drives if d.kind == kind]
        robot.note(f"{kind} control", f"{len(names)}: {', '.join(names)}; {MEANINGS[kind]}", "inferred")
    if held := [d.name for d in drives if d.activation is not None]:
        robot.note("activations", f"{', '.join(held)} start with what holds home", "inferred")


def _find_feet(robot: Robot, hints: Hints) -> None:
    if hints.feet is not None:
        robot.feet = tuple(one_of(name, list(robot.bodies), "robot.feet: body") for name in hints.feet)
        robot.note("feet", ", ".join(robot.feet) or "none", "file")
        return
    if robot.mobility == "fixed":
        robot.note("feet", "none, the base is fixed", "inferred")
        return
    robot.feet, how = _likely_feet(robot)
    robot.note("feet", f"{', '.join(robot.feet) or 'none'} ({how})", "inferred")


def _likely_feet(robot: Robot) -> tuple[tuple[str, ...], str]:
    """Bodies that the robot may stand on, and how they were told."""
    touching, leaves = _leaves(robot)
    for pattern in FOOT_NAMES:
        named = [name for name in leaves if re.search(pattern, " ".join([name, *touching[name]]), re.IGNORECASE)]
        if named:
            return tuple(named), "leaf bodies, by name"
    data = mujoco.MjData(robot.model)
    data.qpos = robot.home
    mujoco.mj_kinematics(robot.model, data)
    bottom = {
        name: min(data.geom(g).xpos[2] - robot.model.geom(g).rbound[0] for g in touching[name]) for name in leaves
    }
    lowest = min(bottom.values(), default=0.0)
    reach = FOOT_HEIGHT * max(float(data.body(robot.base).xpos[2]) - lowest, 0.0)
    return tuple(name for name, z in bottom.items() if z <= lowest + reach), "lowest leaf bodies at home"


def _leaves(robot: Robot) -> tuple[dict[str, list[str]], list[str]]:
    """(geoms that touch something, by body; bodies that have some and carry none that has)."""
    bodies = [robot.spec.body(name) for name in robot.bodies]
    touching = {b.name: [g.name for g in b.geoms if g.contype or g.conaffinity] for b in bodies}
    ends = [b.name for b in bodies if touching[b.name] and not any(touching[c.name] for c in list(subtree(b))[1:])]
    return touching, ends


def _ask_for_actuators(robot: Robot) -> None:
    if robot.model.nu:
        return
    servos = _servos_for(robot) or "{kind: position, kp: 40, kd: 1}"
    robot.questions.append(
        f"the model has no actuators; write in the YAML robot: {{actuators: {servos}}} (N m/rad, N m s/rad) or "
        "{kind: motor, force: 20} for torques, or add <actuator> to the model"
    )


def _servos_for(robot: Robot) -> str:
    """Position servos that carry the robot on its feet, as its file asks for them; empty if none are needed."""
    if robot.model.nu or not robot.feet or not robot.joints:
        return ""
    gains = suggested_gains(robot.model, robot.home, _leading(robot), robot.feet)
    return actuators_text(gains) if all(kp > 0 and kd > 0 for kp, kd in gains.values()) else ""


def _leading(robot: Robot) -> tuple[str, ...]:
    """The robot's joints that follow no other."""
    followers = {robot.model.joint(c.follower).name for c in couplings(robot.model)}
    return tuple(name for name in robot.joints if name not in followers)


def _ask_whether_it_walks(robot: Robot, model: str, hints: Hints, control: Control) -> bool:
    """Ask about a legged or wheeled robot that is fixed to the world: URDF cannot say that it is not.

    Returns whether it was asked; what such a robot lacks besides is part of the question.
    """
    if robot.mobility != "fixed" or hints.floating is not None or robot.spec.body(robot.bodies[0]).joints:
        return False
    ends = [list(subtree(robot.spec.body(name))) for name in robot.bodies if _limb(robot, name)]
    ends = [end for end in ends if end[0].joints and not any(body.joints for body in end[1:])]
    feet = [b for end in ends if (b := next((b.name for b in end if re.search(STANDS_ON, b.name, re.I)), None))]
    if len(feet) < 2:
        feet = _standing_ends(robot, [end[0].name for end in ends])
    if len(feet) < 2:
        return False
    proposal = "floating: true"
    try:
        floating = inspect_robot(model, dataclasses.replace(hints, floating=True), control)
        z = int(floating.model.jnt_qposadr[floating.model.body_jntadr[floating.model.body(floating.bodies[0]).id]]) + 2
        if floating.feet:
            proposal = f"{proposal}, height: {floating.home[z]:.3g}"
        if servos := _servos_for(floating):
            proposal = f"{proposal}, actuators: {servos}"
    except ValueError:  # it has something else to ask, once it floats
        pass
    robot.questions.insert(
        0,
        f"base {robot.base!r} is fixed to the world, but {', '.join(feet)} look like what it stands on; if it moves "
        f"about, write robot: {{{proposal}}}, and if it is mounted, robot: {{floating: false}}",
    )
    return True


def _standing_ends(robot: Robot, ends: list[str]) -> list[str]:
    """Ends of limbs of two joints or more, apart from each other, that are lowest, below the base by half of all."""
    data = mujoco.MjData(robot.model)
    data.qpos = robot.home
    mujoco.mj_kinematics(robot.model, data)
    heights = {name: float(data.body(name).xipos[2]) for name in robot.bodies}
    lowest, height = min(heights.values()), float(np.ptp(list(heights.values())))
    if heights[robot.bodies[0]] < lowest + height / 2:
        return []
    low = [name for name in ends if heights[name] <= lowest + FOOT_HEIGHT * height]
    if any(re.search(GRASPS_WITH, name, re.IGNORECASE) for name in low):
        return []
    limbs = {name: _limb(robot, name) for name in low}
    return [n for n in low if len(limbs[n]) > 1 and all(limbs[n].isdisjoint(limbs[m]) for m in low if m != n)]


def _limb(robot: Robot, name: str) -> set[int]:
    """Joints between a body and the world."""
    model, body, joints = robot.model, robot.model.body(name).id, set()
    while body:
        first = int(model.body_jntadr[body])
        joints |= set(range(first, first + int(model.body_jntnum[body])))
        body = int(model.body_parentid[body])
    return joints


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
