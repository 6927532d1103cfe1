"""A first file for a robot at hand: its facts found by simulation, a walking or reaching task, sensible ranges."""

from __future__ import annotations

import copy
import dataclasses
import re

import mujoco
import numpy as np

from metarl.envs import mujoco_log
from metarl.envs.own_robot.actuators import irreplaceable
from metarl.envs.own_robot.check_run import Second, at_home, rest
from metarl.envs.own_robot.contacts import met_by_type, standing_on, touching
from metarl.envs.own_robot.declaration import Actuators, Control, Hints
from metarl.envs.own_robot.description import Robot, joints_to, penetrations, tolerance, turning_freely
from metarl.envs.own_robot.family import CONTROL_DT
from metarl.envs.own_robot.footing import falls
from metarl.envs.own_robot.model import driving, inspect_robot, leading, servable
from metarl.envs.own_robot.name_patterns import by_pattern
from metarl.envs.own_robot.pose import standing_height
from metarl.envs.own_robot.reach import Reach, find_reach
from metarl.envs.own_robot.stance import ARM_SAG, SAG, arm_gains, suggested_gains, wheel_servos, wheels
from metarl.envs.strict_yaml import quoted

STEP = 0.005
"""Simulation step of a robot that walks, s: shorter ones of a model are lengthened, with an implicit integrator."""
BENDS = (0.4, 0.8, 1.1)
"""Angles by which the first of two knees is bent, and the second back by twice as much, to find a pose, rad."""
STANCE = 2.0
"""Seconds for which a robot is to stand with action 0."""
STANDS = 0.25  # rad of tilt in that time
OFF_GROUND = 1e-3  # m; a robot nearer to where it touches the ground keeps its model's height
SINKS = 0.25  # share of its height that a standing robot may lose in that time
GO1_LOAD = 13.1 * 9.81 * 0.28
"""Weight times height of the Go1, N m: the cost of torques is as for it at the same share of that."""

MOTORS = """\
  - {name: motors, target: '.*', quantity: strength, operation: scale, distribution: uniform, range: [0.8, 1.1]}
"""
"""Entry of a distribution for the strength of all actuators."""


@dataclasses.dataclass(frozen=True)
class Found:
    """A robot that can be used, and what its file has to say of it."""

    robot: Robot
    hints: Hints
    stands: bool
    """Whether it stands for two seconds with action 0."""
    driven: bool
    """Whether the model has actuators of its own."""
    broken: bool
    """Whether the simulation breaks with action 0."""
    reach: Reach | None
    """What an arm reaches with, and where to; None for a robot that moves about, and if nothing of it moves."""


@mujoco_log.silent()
def first_file(model: str) -> tuple[str, Found]:
    """Return a commented file for the robot, and what was found. ValueError for what only its owner knows."""
    found = find(model)
    if found.robot.questions:
        raise ValueError(f"{model}: {found.robot.questions[0]}")
    text = _walking(found) if found.robot.mobility != "fixed" else _reaching(found)
    return f"{_robot(found)}{text}", found


def find(model: str) -> Found:
    """Answer the questions about a robot that a simulation answers, and look for a pose in which it stands."""
    found = _find(model, STEP)
    return _find(model, 0.0) if found.broken and found.hints.timestep is not None else found


def _find(model: str, least_step: float) -> Found:
    """Return what is found of a robot. least_step: step, s, to which shorter ones of a model are lengthened."""
    hints, control = Hints(), Control(dt=None)
    robot = inspect_robot(model, hints, control)
    model_step = float(robot.model.opt.timestep)
    if any("is fixed to the world" in question for question in robot.questions):
        hints = dataclasses.replace(hints, floating=True)
        robot = inspect_robot(model, hints, control)
    if robot.mobility == "floating" and model_step < least_step:
        hints = dataclasses.replace(hints, timestep=least_step, integrator="implicitfast")
    if robot.mobility == "floating" and _plain_masks(robot):
        hints = dataclasses.replace(hints, self_collisions=False)
    best, driven = None, bool(robot.kinds)
    for pose in _poses(robot):
        tried = dataclasses.replace(hints, pose=pose)
        posed = inspect_robot(model, tried, control)
        height = standing_height(posed)
        if height is not None and abs(height - _height(posed)) > OFF_GROUND:
            tried = dataclasses.replace(tried, height=round(height, 4))
            posed = inspect_robot(model, tried, control)
        servos = _servos(posed)
        if servos is not None:
            tried = dataclasses.replace(tried, actuators=servos)
            if robot.model.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER:
                tried = dataclasses.replace(tried, integrator="implicitfast")
            posed = inspect_robot(model, tried, control)
        if pairs := _apart(posed):
            tried = dataclasses.replace(tried, exclude=pairs)
            posed = inspect_robot(model, tried, control)
        second = None if posed.questions else rest(posed, CONTROL_DT, STANCE)
        broken = second is not None and second.broken is not None
        stands = second is not None and _stands(posed, second)
        found = Found(posed, tried, stands, driven, broken, _reach(posed))
        if best is None or (found.stands and not best.stands) or (best.robot.questions and not posed.questions):
            best = found
        if best.stands:
            break
    assert best is not None
    return best


def _plain_masks(robot: Robot) -> bool:
    """Return whether all of the robot collides, or nothing, by MuJoCo's own masks, so that they can be edited."""
    if robot.spec.pairs or any((g.contype, g.conaffinity) not in ((0, 0), (1, 1)) for g in robot.geoms()):
        return False
    return met_by_type(robot.model, {geom.name for geom in robot.geoms()}) is None


def _poses(robot: Robot) -> list[dict[str, float]]:
    """Return poses to try: bent legs first where the model says no pose, as straight ones leave no way to go."""
    bent = [_bent(robot, bend) for bend in BENDS]
    own: list[dict[str, float]] = [{}]
    poses = own + bent if robot.key >= 0 or robot.mobility != "floating" else bent + own
    return [pose for i, pose in enumerate(poses) if pose not in poses[:i]]


def _apart(robot: Robot) -> tuple[tuple[str, str], ...]:
    """Return the pairs of the robot's bodies that are inside of each other at home, which cannot be meant to touch."""
    if robot.questions and not any("inside" in question for question in robot.questions):
        return ()
    own = {geom.name: robot.model.body(int(robot.model.geom(geom.name).bodyid[0])).name for geom in robot.geoms()}
    limit = tolerance(robot)
    deep = [pair for pair, depth in penetrations(robot.model, robot.home).items() if depth > limit]
    pairs = [(own[a], own[b]) for a, b in deep if a in own and b in own]
    return tuple(dict.fromkeys(pairs))


def _bent(robot: Robot, bend: float) -> dict[str, float]:
    """Return a pose with each leg bent at its last two joints about the base's y, so that the foot stays below.

    Empty if a leg has no two such joints, as one that reaches out to the side: the robot would stand askew.
    """
    pose: dict[str, float] = {}
    for joints in legs if len(legs := _legs(robot)) == len(robot.feet) else ():
        hip, knee = joints[-2:] if len(joints) == 2 else joints[-3:-1]
        signs = [np.sign(_about_y(robot, name)) for name in (hip, knee)]
        for bow in (1.0, -1.0):
            angles = {hip: signs[0] * bow * bend, knee: -signs[1] * bow * 2 * bend}
            if len(joints) > 2:
                angles[joints[-1]] = np.sign(_about_y(robot, joints[-1])) * bow * bend
            if all(_within(robot, name, angle) for name, angle in angles.items()):
                pose |= {name: round(float(angle), 3) for name, angle in angles.items()}
                break
    return pose


def _legs(robot: Robot) -> list[list[str]]:
    """Return the joints about the base's y of each leg that has two or more, those that carry no other foot."""
    chains = {foot: joints_to(robot, foot) for foot in robot.feet}
    others = {foot: {n for o, chain in chains.items() if o != foot for n in chain} for foot in chains}
    legs = [[n for n in chain if n not in others[foot] and _about_y(robot, n)] for foot, chain in chains.items()]
    return [joints for joints in legs if len(joints) >= 2]


def _about_y(robot: Robot, name: str) -> float:
    """Return the component of a hinge's axis along the base's y at home; 0 if it is less than 0.8."""
    data = mujoco.MjData(robot.model)
    data.qpos = robot.home
    mujoco.mj_kinematics(robot.model, data)
    turn = data.body(robot.base).xmat.reshape(3, 3) @ robot.axes
    along = float(turn[:, 1] @ data.joint(name).xaxis)
    hinge = robot.model.joint(name).type[0] == int(mujoco.mjtJoint.mjJNT_HINGE)
    return along if hinge and abs(along) > 0.8 else 0.0


def _within(robot: Robot, name: str, angle: float) -> bool:
    joint = robot.model.joint(name)
    return not joint.limited[0] or joint.range[0] + 0.05 <= angle <= joint.range[1] - 0.05


def _servos(robot: Robot) -> Actuators | None:
    """Return servos that carry the robot, or turn its wheels, in place of torque motors; None if it has others."""
    if any(kind != "force" for kind in robot.kinds) or not robot.joints or irreplaceable(robot.model):
        return None
    if radii := driving(robot):
        kd, speed = wheel_servos(robot.model, robot.home, radii)
        return Actuators("velocity", kd=kd, speed=speed)
    if robot.feet:
        gains = suggested_gains(robot.model, robot.home, servable(robot), robot.feet)
    else:
        gains = arm_gains(robot.model, robot.home, servable(robot))
    if not gains or any(kp <= 0 or kd <= 0 for kp, kd in gains.values()):
        return None
    return Actuators("position", gains={re.escape(name): gain for name, gain in gains.items()})


def _stands(robot: Robot, second: Second) -> bool:
    """Return whether the robot stays up with action 0, or has nothing to fall from."""
    if second.broken is not None:
        return False
    base = second.base
    return base is None or not falls(robot) or (base.tilt < STANDS and base.end > (1 - SINKS) * base.start)


def _reach(robot: Robot) -> Reach | None:
    return find_reach(robot) if robot.mobility == "fixed" else None


def _robot(found: Found) -> str:
    """Return the lines of the file about the robot itself."""
    robot, hints = found.robot, found.hints
    lines = ["# Written by `metarl robot init`; edit it. `metarl robot terms` lists all that it can say.", "robot:"]
    lines.append(f"  base: {quoted(robot.base)}")
    if hints.floating is not None:
        lines.append("  floating: true  # the model is fixed to the world")
    model = robot.model
    carriers = {name: joints_to(robot, model.body(int(model.joint(name).bodyid[0])).name) for name in robot.joints}
    if hints.pose:
        pose = by_pattern(hints.pose, robot.joints, carriers).items()
        lines.append(f"  pose: {{{', '.join(f'{quoted(name)}: {angle:g}' for name, angle in pose)}}}  # rad, home")
    if hints.height is not None:
        lines.append(f"  height: {hints.height:g}  # m, base over the ground at home, which its lowest geom touches")
    if hints.timestep is not None:
        lines.append(f"  timestep: {hints.timestep:g}  # s; longer than the model's, which the integrator allows for")
        lines.append(f"  integrator: {hints.integrator}")
    elif hints.integrator is not None:
        lines.append(f"  integrator: {hints.integrator}  # the model's is not stable with stiff servos on light links")
    if not hints.self_collisions:
        lines.append("  self_collisions: false  # quicker; leave it out if its legs may hit each other")
    if robot.feet:
        lines.append(f"  feet: [{', '.join(map(quoted, robot.feet))}]")
    if hints.exclude:
        pairs = ", ".join(f"[{quoted(a)}, {quoted(b)}]" for a, b in hints.exclude)
        lines.append(f"  exclude: [{pairs}]  # they are inside of each other at home, and do not collide")
    motors = "in place of torque motors" if found.driven else "the model has none"
    if hints.actuators is not None and hints.actuators.kind == "velocity":
        lines.append(f"  actuators:  # {motors}: velocity control of its wheels")
        lines.append("    kind: velocity")
        lines.append(f"    kd: {hints.actuators.kd:g}  # N m s/rad, torque by how far the speed is from that asked for")
        lines.append(f"    speed: {hints.actuators.speed:g}  # rad/s, asked for by an action of 1")
    elif hints.actuators is not None:
        sag = SAG if robot.feet else ARM_SAG
        lines.append(
            f"  actuators:  # {motors}: PD control that carries the load on each joint with a sag of {sag:g} rad"
        )
        lines.append("    kind: position")
        lines.append("    gains:  # kp, N m/rad, and kd, N m s/rad")
        each = {
            name: hints.actuators.gains[re.escape(name)]
            for name in leading(robot)
            if re.escape(name) in hints.actuators.gains
        }
        if rolling := [name for name in wheels(model, robot.home, robot.feet) if name in each]:
            lines.append(
                f"    # {', '.join(rolling)}: wheels, which these servos hold; to drive, give the model, as MJCF,"
            )
            lines.append(
                "    # <velocity> actuators for its wheels and <position> ones for the rest, in place of these"
            )
        gains = by_pattern(each, tuple(each), carriers)
        lines += [f"      {quoted(name)}: [{kp:g}, {kd:g}]" for name, (kp, kd) in gains.items()]
    return "\n".join(lines) + "\n"


def _dt(robot: Robot) -> float:
    """Return the multiple of the model's timestep nearest to 0.02 s."""
    step = float(robot.model.opt.timestep)
    return float(f"{max(1, round(CONTROL_DT / step)) * step:.6g}")


def _walking(found: Found) -> str:
    robot = found.robot
    height = _height(robot)
    load = float(robot.model.body_subtreemass[robot.model.body(robot.bodies[0]).id]) * 9.81 * max(height, 0.05)
    torque = float(f"{1e-4 * (GO1_LOAD / load) ** 2:.2g}")
    speed = float(f"{min(1.0, max(0.2, np.sqrt(9.81 * height) * 0.6)):.1g}")  # of a trot: Froude number about 0.4
    trunk = _trunk(found)
    heavy = max((b for b in robot.bodies if not joints_to(robot, b)), key=lambda b: float(robot.model.body(b).mass[0]))
    position = all(kind == "position" for kind in robot.kinds)
    floats = robot.mobility == "floating"
    feet = f"^(?:{'|'.join(map(re.escape, _foot_geoms(robot)))})$" if robot.feet else ""
    scale = "  action_scale: 0.25  # rad from home that an action of 1 asks for\n" if position else ""
    wheels = turning_freely(robot)
    sideways = "" if wheels else "  sideways_velocity: [-0.3, 0.3]\n"
    turning = f"{sideways}  yaw_rate: [-0.5, 0.5]  # rad/s\n" if floats else ""
    steps = "  air_time: 1\n  slip: 0.05\n" if floats and robot.feet and not wheels else ""
    home = "" if wheels else "  home_cost: 0.2\n"
    angles = "" if set(wheels) >= {*robot.joints} else "  joint_positions: {noise: 0.006}\n"
    base = "  track_yaw: 0.5\n  vertical_velocity: 2\n  tilt_rate: 0.05\n  tilt: 1\n" if floats else "  alive: 0.5\n"
    bounds = ", contact: [trunk]" if trunk else f", height: [{0.5 * height:.2g}, {2 * height:.2g}]"
    end = f"termination: {{tilt: 1.0{bounds}}}\n" if floats else ""
    fall = "  fall: 50\n" if floats else ""
    grip = (
        f"  - {{name: grip, target: {quoted(feet)}, quantity: friction, operation: set, distribution: uniform, "
        "range: [0.4, 1.2], neutral: 1}\n"
        if robot.feet and floats and standing_on(robot.model, robot.bodies).any()
        else ""
    )
    sensors = (
        "  base_angular_velocity: {noise: 0.1}\n  projected_gravity: {noise: 0.03}\n"
        if floats
        else "  guide_positions: {noise: 0.01}\n  guide_velocities: {noise: 0.05}\n"
    )
    contacts = f"contacts:\n  trunk: [{', '.join(quoted(re.escape(name)) for name in trunk)}]\n" if trunk else ""
    heading = ", random_heading: true" if floats else ""
    return f"""control:
  dt: {_dt(robot):g}  # s, a control step
{scale}episode: {{horizon: 250{heading}}}
commands:  # m/s, drawn in each episode, and observed
  forward_velocity: [{-speed / 2:g}, {speed:g}]
{turning}{contacts}observation:  # with the usual noise of such sensors
{sensors}  command:
{angles}  joint_velocities: {{noise: 0.9}}
  last_action:
privileged: [{"base_velocity, " if floats else ""}{"foot_contacts" if robot.feet else "joint_forces"}]
rewards_per: second
reward:
  track_velocity: 1
{base}  torque: {torque:g}
  joint_acceleration: 2.5e-7
  action_rate: 0.1
{home}{steps}{fall}{end}distribution:
  - {{name: mass, target: {quoted(re.escape(heavy))}, quantity: mass, operation: scale,
     distribution: uniform, range: [0.8, 1.3]}}
{grip}{MOTORS}"""


def _reaching(found: Found) -> str:
    reach = found.reach
    if reach is None:
        return _holding(found)
    moves = [i for i in range(3) if reach.low[i] < reach.high[i]]
    axes = "".join(
        f"  - {{name: goal_{'xyz'[i]}, quantity: goal_{'xyz'[i]}, distribution: uniform, "
        f"range: [{reach.low[i]:g}, {reach.high[i]:g}]}}\n"
        for i in moves
    )
    rest = ", ".join(f"{0 if i in moves else reach.low[i]:g}" for i in range(3))
    position = "" if len(moves) == 3 else f", position: [{rest}]"
    return f"""{_arm_control(found)}
goal: {{effector: {quoted(reach.effector)}{position}}}  # it is to reach a target that differs from task to task
observation: [joint_positions, joint_velocities, last_action, effector_position]  # add goal to tell it the target
reward:
  reach: {{weight: 1, width: 0.1}}
  distance: 1
  action_rate: 0.01
distribution:  # m, where random positions of its joints took {reach.effector}
{axes}"""


def _holding(found: Found) -> str:
    """Return the task of a robot whose joints move no site and no body's origin: it is to hold its home pose."""
    return f"""{_arm_control(found)}
# Its joints move no site and no body's origin, so it has no goal; add a <site> where it is to reach, and
# goal: {{effector: SITE}}.
observation: [joint_positions, joint_velocities, last_action]
reward:
  home_cost: 1
  action_rate: 0.01
distribution:
{MOTORS}"""


def _arm_control(found: Found) -> str:
    return f"""control:
  dt: {_dt(found.robot):g}  # s, a control step
  action_scale: 0.5
episode: {{horizon: 150}}"""


def _height(robot: Robot) -> float:
    data = mujoco.MjData(robot.model)
    data.qpos = robot.home
    mujoco.mj_kinematics(robot.model, data)
    return robot.ground.height_in(robot.model, data.body(robot.base).xpos)


def _trunk(found: Found) -> list[str]:
    """Return the bodies, or single geoms of them, that are fixed to the base and could touch something, but do not.

    Of a body that touches something at home, or where it comes to stand, they are its other geoms.
    """
    robot, met = found.robot, _met(found)
    trunk: list[str] = []
    for name in robot.bodies:
        solid = [geom.name for geom in robot.spec.body(name).geoms if geom.contype or geom.conaffinity]
        if joints_to(robot, name) or name in robot.feet or not solid:
            continue
        apart = [geom for geom in solid if geom not in met and geom not in robot.bodies]
        trunk += apart if met & {*solid} else [name]
    return trunk


def _met(found: Found) -> set[str]:
    """Return the geoms that touch something at home or nearly do, and where the robot stands after a while."""
    model, data = copy.copy(found.robot.model), at_home(found.robot)
    model.geom_margin += OFF_GROUND
    model.pair_margin += OFF_GROUND
    met: set[int] = set()
    for seconds in (0.0, STANCE) if found.stands else (0.0,):
        mujoco.mj_step(found.robot.model, data, nstep=round(seconds / model.opt.timestep))
        mujoco.mj_forward(model, data)
        met |= {int(g) for contact in data.contact for g in contact.geom}
    return {model.geom(g).name for g in met}


def _foot_geoms(robot: Robot) -> list[str]:
    """Return the geoms of the feet that can touch something."""
    solid = touching(robot.model, robot.bodies)
    return [g.name for foot in robot.feet for g in robot.spec.body(foot).geoms if g.name in solid]
