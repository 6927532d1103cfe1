"""Infer base, feet, joints, home pose and control of a user's robot from its model, and collect open questions."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import mujoco
import numpy as np

from metarl.envs.control import SCALAR, joint_of
from metarl.envs.own_robot import contacts as robot_contacts
from metarl.envs.own_robot.actuators import (
    MEANINGS,
    add_actuators,
    find_drive,
    moved_joints,
    question,
    replace_motors,
    require_single_inputs,
    started,
    unlimited,
)
from metarl.envs.own_robot.contacts import GROUND
from metarl.envs.own_robot.declaration import Control, Hints, one_of
from metarl.envs.own_robot.description import Origin, Robot, penetrations, tolerance, unused
from metarl.envs.own_robot.footing import FOOT_HEIGHT, FOOT_NAMES, find_feet, find_floor, find_frame, riser
from metarl.envs.own_robot.freeze import compile_heard, for_simulation
from metarl.envs.own_robot.model_files import open_model
from metarl.envs.own_robot.options import require_batchable
from metarl.envs.own_robot.pose import find_home
from metarl.envs.own_robot.stance import actuators_text, arm_gains, suggested_gains, toppling, wheel_servos, wheels
from metarl.envs.own_robot.structure import couplings, find_roots, refit_keyframes, subtree

LONGEST_STEP = 0.05  # s, of the simulation
ROLLS_ON = "wheel|rotor|propeller"
"""Usual names of wheels and of the joints that they turn on."""
STANDS_ON = (ROLLS_ON, *FOOT_NAMES)
"""Usual names of bodies that a robot fixed to the world lacks, likeliest first."""
GRASPS_WITH = r"finger|thumb|distal|grip|hand|palm"
"""Usual names of ends of limbs that are not feet although they are lowest."""


def inspect_robot(model: str, hints: Hints, control: Control) -> Robot:
    """Read and complete a robot and infer its description; `questions` has open ones. ValueError if it is no robot."""
    source = open_model(model)
    visual = source.spec
    _name_all(visual)
    stepping = _set_stepping(visual, hints)
    plain, heard = compile_heard(visual, model)
    require_single_inputs(plain)
    require_batchable(plain)
    roots = find_roots(visual, plain, hints)
    added = _complete(visual, plain, roots[0], hints)
    spec, compiled, masses = for_simulation(visual, model)
    robot = Robot(visual.modelname, spec, visual, compiled, geom_masses=masses)
    robot.bodies = tuple(b.name for root in roots for b in subtree(spec.body(root)))
    robot.base = hints.base or roots[0]
    for subject, value in source.remarks:
        robot.note(subject, value, "model")
    for subject, value, whence in (*stepping, *added):
        robot.note(subject, value, whence)
    for text in heard:
        robot.note("MuJoCo warns", text, "model")
    others = f"; of the same robot: {', '.join(roots[1:])}" if roots[1:] else ""
    robot.note("base", f"{robot.base}{others}", "file" if hints.base else "inferred")
    decoration = len(visual.geoms) - len(spec.geoms)
    if decoration:
        robot.note("decoration", f"{decoration} geoms that touch nothing: kept for pictures only", "inferred")
    _find_joints(robot)
    find_floor(robot, hints)
    key = find_home(robot, hints)
    find_frame(robot, hints)
    _find_control(robot, control, key)
    find_feet(robot, hints)
    if not _ask_whether_it_walks(robot, model, hints, control):
        _ask_for_actuators(robot)
    _check_home(robot)
    return robot


def _name_all(spec: mujoco.MjSpec) -> None:
    """Name elements without a name, so that regular expressions and edits can find them."""

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
    pairs = {p.name for p in spec.pairs}
    for pair in spec.pairs:
        name(pair, pairs, robot_contacts.pair_name(pair.geomname1, pair.geomname2))


def _set_stepping(spec: mujoco.MjSpec, hints: Hints) -> list[tuple[str, str, Origin]]:
    """Set the simulation step and the integrator that the file asks for."""
    if hints.timestep is not None and not 0 < hints.timestep <= LONGEST_STEP:
        raise ValueError(f"robot.timestep is {hints.timestep:g} s; it must be above 0 and at most {LONGEST_STEP:g}")
    said: list[tuple[str, str, Origin]] = []
    if hints.timestep is not None:
        said.append(("timestep", f"{hints.timestep:g} s, in the model {spec.option.timestep:g} s", "file"))
        _keep_histories(spec, spec.option.timestep / hints.timestep)
        spec.option.timestep = hints.timestep
    if hints.integrator is not None:
        kind = mujoco.mjtIntegrator(int(spec.option.integrator)).name.removeprefix("mjINT_").lower()
        said.append(("integrator", f"{hints.integrator}, in the model {kind}", "file"))
        spec.option.integrator = getattr(mujoco.mjtIntegrator, f"mjINT_{hints.integrator.upper()}")
    return said


def _keep_histories(spec: mujoco.MjSpec, share: float) -> None:
    """Keep what delayed actuators and sensors remember as long as it was when a step is 1 / share times as long."""
    for element in (*spec.actuators, *spec.sensors):
        if element.nsample:
            element.nsample = max(element.nsample, math.ceil(element.nsample * share - 1e-9))


def _let_pass(spec: mujoco.MjSpec, model: mujoco.MjModel, bodies: list[mujoco.MjsBody]) -> tuple[str, str, Origin]:
    """Let the robot's bodies touch its scene and not each other."""
    own = {geom.name for body in bodies for geom in body.geoms}
    masks = {(int(model.geom(n).contype[0]), int(model.geom(n).conaffinity[0])) for n in own} - {(0, 0)}
    paired = [p.name for p in spec.pairs if p.geomname1 in own and p.geomname2 in own]
    if masks - {(1, 1)} or paired:
        what = f"<pair> {paired[0]}" if paired else "contype and conaffinity other than 1"
        raise ValueError(f"robot.self_collisions is false, but the model has {what}; leave it out, and edit the model")
    if missed := robot_contacts.met_by_type(model, own):
        raise ValueError(
            f"robot.self_collisions is false, but {missed[0]!r} touches {missed[1]!r} by its contype alone, and would "
            f"pass through it; leave it out, or give {missed[1]!r} contype 1 in the model"
        )
    for name in own:
        if spec.geom(name).contype:
            spec.geom(name).contype = 0
    return "self-collisions", "none: its bodies touch the scene alone", "file"


def _complete(spec: mujoco.MjSpec, plain: mujoco.MjModel, root: str, hints: Hints) -> list[tuple[str, str, Origin]]:
    """Add a free joint and actuators if the robot lacks them and the file or the world asks for them.

    plain: the model, compiled as it is.
    """
    added: list[tuple[str, str, Origin]] = []
    body = spec.body(root)
    free = any(j.type == mujoco.mjtJoint.mjJNT_FREE for j in body.joints)
    if hints.floating is not None and hints.floating != free:
        if not hints.floating or body.joints:
            has = "a free joint" if free else f"the joint {body.joints[0].name!r}"
            raise ValueError(f"robot.floating is {str(hints.floating).lower()}, but base {root!r} has {has}")
        body.add_freejoint(name=unused(f"{root}_free", {j.name for j in spec.joints}))
        refit_keyframes(spec, plain)
        added.append(("free joint", f"added to {root}", "file"))
    if not hints.self_collisions:
        added.append(_let_pass(spec, plain, list(subtree(body))))
    for pair in hints.exclude:
        names = [b.name for b in spec.bodies]
        first, second = (one_of(name, names, "robot.exclude: body") for name in pair)
        spec.add_exclude(bodyname1=first, bodyname2=second)
        added.append(("excluded", f"{first} and {second} do not touch each other", "file"))
    if hints.actuators is not None:
        followers = {plain.joint(c.follower).name for c in couplings(plain)}
        joints = [j for b in subtree(body) for j in b.joints if j.type in SCALAR and j.name not in followers]
        motors = bool(spec.actuators)
        make = replace_motors if motors else add_actuators
        names = make(spec, plain, joints, hints.actuators)
        how = "in place of torque motors" if motors else "added"
        added.append(("actuators", f"{hints.actuators.kind} on {', '.join(names)}, {how}", "file"))
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
    if balls := [j.name for j in every if j.type == mujoco.mjtJoint.mjJNT_BALL and j.name not in guides]:
        robot.note("ball joints", f"{', '.join(balls)}: simulated, not observed", "model")
    followers = {model.joint(c.follower).name: c.words(model) for c in couplings(model)}
    if coupled := [f"{n} {followers[n]}" for n in robot.joints if n in followers]:
        robot.note("coupled joints", "; ".join(coupled), "model")
    passive = [n for n in robot.joints if n not in driven and n not in followers]
    if passive and model.nu:
        robot.note("passive joints", ", ".join(passive), "model")


def _carries(joint: mujoco.MjsJoint) -> bool:
    """Return whether a joint of the root moves the robot: a slide, or the vertical hinge of a boom."""
    return joint.type == mujoco.mjtJoint.mjJNT_SLIDE or abs(joint.axis[2]) > 0.5


def _find_control(robot: Robot, control: Control, key: int) -> None:
    """Set the control: a position servo's action is an offset from home, any other's a share of its control range."""
    model = robot.model
    if control.limit is not None and control.limit <= 0:
        raise ValueError(f"control.limit is {control.limit:g}; it must be greater than 0")
    data = mujoco.MjData(model)
    data.qpos = robot.home
    mujoco.mj_fwdPosition(model, data)
    drives = [find_drive(model, i, float(data.actuator_length[i]), control.limit) for i in range(model.nu)]
    if control.limit is not None and model.nu and model.actuator_ctrllimited.all():
        raise ValueError(
            f"control.limit is {control.limit:g}, and has no effect: each actuator has a control range in the model; "
            "leave it out, or change ctrlrange there"
        )
    for drive in drives:
        if drive.gain == 0:
            raise ValueError(
                f"no action moves actuator {drive.name!r}: its gear or its largest control signal is 0; give it "
                "another, or take it out"
            )
    asked = [unlimited(drives), *(question(model, i, drive, robot.home) for i, drive in enumerate(drives))]
    robot.questions += [text for text in asked if text is not None]
    robot.offset, robot.gain = (np.array([getattr(d, name) for d in drives]) for name in ("rest", "gain"))
    ends = [((d.bottom - d.rest) / d.gain, (d.top - d.rest) / d.gain) for d in drives]
    robot.low, robot.high = np.array([min(e) for e in ends]), np.array([max(e) for e in ends])
    robot.kinds = tuple(d.kind for d in drives)
    robot.drives, robot.key = tuple(drives), key
    robot.initial = started(model, drives, key)
    for kind in dict.fromkeys(robot.kinds):
        names = [d.name for d in drives if d.kind == kind]
        meaning = MEANINGS[kind] if control.actuator is None else "control.actuator makes their signals of the action"
        robot.note(f"{kind} control", f"{len(names)}: {', '.join(names)}; {meaning}", "inferred")
    if held := [d.name for d in drives if d.activation is not None]:
        robot.note("activations", f"{', '.join(held)} start with what holds home", "inferred")


def _ask_for_actuators(robot: Robot) -> None:
    if robot.model.nu:
        return
    servos = servos_for(robot) or _arm_servos(robot) or "{kind: position, kp: 40, kd: 1}"
    robot.questions.append(
        f"the model has no actuators; write in the YAML robot: {{actuators: {servos}}} (N m/rad, N m s/rad) or "
        "{kind: motor, force: 20} for torques, or add <actuator> to the model"
    )


def _arm_servos(robot: Robot) -> str:
    """Return the lines of a file that ask for servos strong enough for an arm; empty for what stands on feet."""
    if robot.feet or not robot.joints:
        return ""
    gains = arm_gains(robot.model, robot.home, servable(robot))
    return _servos_text(gains)


def _servos_text(gains: dict[str, tuple[float, float]]) -> str:
    """Return the lines of a file for position servos of gains kp, kd by joint; empty if one of them carries nothing."""
    return actuators_text(gains) if all(kp > 0 and kd > 0 for kp, kd in gains.values()) else ""


def servos_for(robot: Robot) -> str:
    """Return the lines of a file that ask for servos strong enough to carry the robot; empty if none are needed."""
    if any(kind != "force" for kind in robot.kinds) or not robot.feet or not robot.joints:
        return ""
    if radii := driving(robot):
        kd, speed = wheel_servos(robot.model, robot.home, radii)
        return f"{{kind: velocity, kd: {kd:g}, speed: {speed:g}}}"
    gains = suggested_gains(robot.model, robot.home, servable(robot), robot.feet)
    return _servos_text(gains)


def driving(robot: Robot) -> dict[str, float]:
    """Return the radius, m, of each wheel by its joint, of a robot that moves by wheels alone; empty for any other."""
    found = wheels(robot.model, robot.home, robot.feet)
    return found if {*found} == {*servable(robot)} else {}


def soft_servos(robot: Robot) -> dict[str, float]:
    """Return the least stiffness, N m/rad, of each joint whose position servo is softer than what topples about it."""
    model, soft = robot.model, {}
    if not robot.feet:
        return soft
    stiffness = {model.joint(j).name: 0.0 for i in range(model.nu) if (j := joint_of(model, i)) is not None}
    for i, kind in enumerate(robot.kinds):
        if kind == "position" and (j := joint_of(model, i)) is not None:
            stiffness[model.joint(j).name] -= float(model.actuator_biasprm[i, 1] * model.actuator_gear[i, 0] ** 2)
    joints = tuple(name for name in leading(robot) if stiffness.get(name, 0.0) > 0)
    least = toppling(model, robot.home, joints, robot.feet)
    return {n: float(k) for n, k in zip(joints, least, strict=True) if stiffness[n] < k}


def servable(robot: Robot) -> tuple[str, ...]:
    """Return the joints that follow no other and get a servo: all, or those that motors drive where there are any."""
    driven = frozenset().union(*robot.moves) if robot.kinds else frozenset(robot.joints)
    return tuple(name for name in leading(robot) if name in driven)


def leading(robot: Robot) -> tuple[str, ...]:
    """Return the robot's joints that follow no other."""
    followers = {robot.model.joint(c.follower).name for c in couplings(robot.model)}
    return tuple(name for name in robot.joints if name not in followers)


def _ask_whether_it_walks(robot: Robot, model: str, hints: Hints, control: Control) -> bool:
    """Ask about a legged or wheeled robot that is fixed to the world, as every URDF without a joint there is.

    Returns whether it was asked; the question also names what else such a robot lacks.
    """
    if robot.mobility != "fixed" or hints.floating is not None or robot.spec.body(robot.bodies[0]).joints:
        return False
    ends = [list(subtree(robot.spec.body(name))) for name in robot.bodies if _limb(robot, name)]
    ends = [end for end in ends if end[0].joints and not any(body.joints for body in end[1:])]
    named = (
        [b.name for pattern in STANDS_ON for b in end if re.search(pattern, b.name, re.IGNORECASE)]
        or [end[0].name for joint in end[0].joints if re.search(ROLLS_ON, joint.name, re.IGNORECASE)]
        for end in ends
    )
    feet = [names[0] for names in named if names]
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
        if servos := servos_for(floating):
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
    """Return the lowest ends of limbs of two joints or more, if they are apart and well below the base."""
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
    """Return the joints between a body and the world."""
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
        own = {g.name for g in robot.geoms()}
        of_scene = [pair for pair, _ in deep if not own.issuperset(pair)]
        apart = [pair for pair, _ in deep if robot.mobility == "fixed" or own.issuperset(pair)]
        ways = [
            *(["robot: {height: METRES} to raise the base"] if of_scene and riser(robot) is not None else []),
            *(["robot: {pose: {JOINT: RADIANS}} for another pose"] if robot.joints else []),
            *_ways_apart(robot, apart),
        ]
        robot.questions.append(f"at the home pose {pairs}; write {', or '.join(ways)}")


def _ways_apart(robot: Robot, pairs: list[tuple[str, str]]) -> list[str]:
    """Say how to keep geoms from touching; an exclusion does not where the model has a `<pair>`."""
    model = robot.model
    named = [{model.geom(a).name, model.geom(b).name} for a, b in zip(model.pair_geom1, model.pair_geom2, strict=True)]
    bodies = [tuple(model.body(int(model.geom(g).bodyid[0])).name for g in p) for p in pairs if set(p) not in named]
    if not bodies:
        return []
    each = ", ".join(f"[{', '.join(map(json.dumps, both))}]" for both in dict.fromkeys(bodies))
    return [f"robot: {{exclude: [{each}]}} if they are not to touch"]
