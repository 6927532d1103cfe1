"""Describe the simulation of a robot: what it did, what is wrong, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import mujoco
import numpy as np

from metarl.envs.declared.observations import OBSERVATIONS
from metarl.envs.efforts import group_off
from metarl.envs.family import TaskFamily
from metarl.envs.own_robot.check_run import LATE, Base, CheckRun, Second
from metarl.envs.own_robot.check_tasks import DRAWN, NEUTRAL, SECONDS, Amiss, Ended, Fate
from metarl.envs.own_robot.declaration import Declaration
from metarl.envs.own_robot.description import Robot, turning_freely
from metarl.envs.own_robot.footing import riser
from metarl.envs.own_robot.model import servos_for, soft_servos
from metarl.envs.own_robot.support import Support
from metarl.wording import number_of

FALLEN = 1.0  # rad of tilt
TIPS = 0.2  # rad of tilt in a second that is no stance
LOST = 0.5
"""Share of its height; a base that loses more has fallen."""
HOVERS = 0.02  # m above the ground
LIMP = 0.2
"""rad, or share of a slide's range; a joint further from home has left it."""
STILL = 1e-4  # rad (m); less is no motion
SINKS = 2.0
"""Largest depth in the ground, in units of the depth that counts as touching."""
NAMED = 4
"""Largest number of names in a cell or a line."""
FATES: dict[Fate, tuple[str, str]] = {
    "breaks": (
        "the simulation breaks",
        'narrow the range, or use a smaller <option timestep="..."/>',
    ),
    "ends": (
        "with action 0 an episode ends, as the neutral robot's does not,",
        "narrow the range, or suit termination and home to it",
    ),
}
"""What happens to a task, and what to do about it."""
WIDE = 10.0
"""Times the range of its joint; a position servo's control range that is wider was meant in degrees, as 57 times is."""
WARNINGS = {
    "INERTIA": "inertia near to singular",
    "CONTACTFULL": "too many contacts",
    "CNSTRFULL": "too many constraints",
    "BADQPOS": "a position that is not a number",
    "BADQVEL": "a velocity that is not a number",
    "BADQACC": "an acceleration that is huge or not a number",
    "BADCTRL": "a control signal that is not a number",
}
"""MuJoCo's warnings in words; others keep MuJoCo's name."""


def start_text(check: CheckRun) -> str:
    """Return where the robot starts, and the gravity."""
    gravity = f"gravity {check.gravity:.3g} m/s^2" if check.gravity else "no gravity"
    if check.gap is None:
        return f"At home: {gravity}."
    side = "above the ground" if check.gap >= 0 else "in the ground"
    where = "on the ground" if abs(check.gap) < STILL else f"{_length(abs(check.gap))} {side}"
    if check.support is not None and check.gravity:
        inside = "within" if check.support.margin >= 0 else "beyond"
        where += f", centre of mass {_length(abs(check.support.margin))} {inside} the edge of what it stands on"
    return f"At home: {where}, {gravity}."


def check_rows(robot: Robot, check: CheckRun) -> list[tuple[str, str, str]]:
    """Return a row for each quantity: its name, with action 0, and with random actions."""
    rows: dict[str, Callable[[Second], str]] = {}
    if check.zero.base is not None:
        rows["base above the ground" if robot.ground.names else "height of the base"] = lambda s: _heights(s.base)
        rows["base tilts by"] = lambda s: "" if s.base is None else _angle(s.base.tilt)
    if check.gap is not None:
        rows["deepest in the ground"] = lambda s: _length(s.sunk)
    rows["furthest from home"] = lambda s: _furthest(robot, s)
    rows["held by joint limits"] = lambda s: some(s.pressed)
    rows["at the force limit"] = lambda s: some(s.saturated)
    rows["MuJoCo's warnings"] = _warnings
    return [(what, text(check.zero), text(check.random)) for what, text in rows.items()]


def remarks(robot: Robot, check: CheckRun) -> list[str]:
    """Return what is wrong or worth knowing, and how to mend it, the worst first."""
    return [
        *_broken(check),
        *_start(robot, check),
        *_wide(robot),
        *_idle(robot, check),
        *_at_zero(robot, check),
        *_at_random(robot, check),
    ]


def observation_remarks(said: Declaration) -> list[str]:
    """Return a remark on what a file observes and no robot measures, and what to do about it."""
    unknown = [name for name, entry in (said.observation or {}).items() if not OBSERVATIONS[entry.term].measured]
    if not unknown:
        return []
    return [
        f"{some(unknown)} in observation {_are(unknown)} not measured by a robot's own sensors: have the robot "
        "estimate what the policy reads, or list it under privileged"
    ]


def reward_remarks(said: Declaration, robot: Robot) -> list[str]:
    """Return a remark on a reward for being home that counts how far wheels have turned."""
    wheels = turning_freely(robot)
    if not wheels or not any(entry.term == "home_cost" for entry in (said.reward or {}).values()):
        return []
    return [f"home_cost counts how far {some(wheels)} {_have(wheels)} turned, and so punishes driving: leave it out"]


def distribution_remarks(said: Declaration, family: TaskFamily) -> list[str]:
    """Return a remark on quantities whose value in the model no task has, as where a factor was meant."""
    found = []
    for entry in said.distribution:
        p = next((p for p in family.parameters if p.name == entry.name), None)
        if p is None or p.law.edit is None or entry.operation != "set" or entry.neutral is not None:
            continue
        low, high = min(entry.values()), max(entry.values())
        if not low <= p.neutral <= high:
            found.append(
                f"{entry.name} is {p.words(p.neutral)} in the model, and tasks set it to {p.words(low)} to "
                f"{p.words(high)}: if a factor is meant, write operation: scale"
            )
    return found


def tasks_text(count: int) -> str:
    """Return what was simulated besides the neutral robot."""
    return (
        f"{number_of(count, 'task')} of training, at the ends of ranges and drawn, simulated for {SECONDS:g} s with "
        "action 0 and with random actions"
    )


def end_remarks(ended: Ended | None) -> list[str]:
    """Return a remark on episodes of the neutral robot that end with action 0: when, and by which bound."""
    if ended is None:
        return []
    bounds = " and ".join(f"termination.{key}" for key in ended.bounds) or "termination"
    touching = f" ({some(ended.touching)})" if ended.touching else ""
    return [
        f"with action 0 {ended.count} of {NEUTRAL} episodes of the neutral robot end within {SECONDS:g} s, the first "
        f"after {ended.after:.2g} s, by {bounds}{touching}: suit termination or the home pose, unless a policy is to "
        "prevent it"
    ]


def task_remarks(family: TaskFamily, found: Sequence[Amiss]) -> list[str]:
    """Return a remark on each thing that goes wrong: at which ends of ranges, and in how many of the tasks drawn."""
    said = []
    for fate, (what, remedy) in FATES.items():
        own, places = [amiss for amiss in found if amiss.fate == fate], []
        for p in family.parameters:
            values = [f"{p.words(a.task.values[p.name])} (after {a.after:.2g} s)" for a in own if a.parameter is p]
            places += [f"where {p.name} alone is {' or '.join(values)}"] if values else []
        if drawn := [amiss for amiss in own if amiss.parameter is None]:
            values = [f"{p.name} {p.words(drawn[0].task.values[p.name])}" for p in family.parameters if not p.nuisance]
            example = "" if places else f", as with {', '.join(values)}"
            places.append(f"in {len(drawn)} of {DRAWN} tasks drawn{example}")
        if places:
            said.append(f"{what} {some(places)}: {remedy}")
    return said


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names) or "none" if more <= 1 else f"{', '.join(names[:NAMED])} and {more} more"


def _broken(check: CheckRun) -> Iterator[str]:
    for second, action in ((check.zero, "action 0"), (check.random, "random actions")):
        if second.broken is not None:
            yield (
                f"with {action} the simulation breaks after {second.broken:.2g} s ({_warnings(second)}): use a "
                'smaller <option timestep="..."/>, softer gains, or armature and damping for light joints'
            )
        elif second.warnings:
            yield f"with {action} MuJoCo warns of {_warnings(second)}: mend it, episodes with warnings are left out"


def _start(robot: Robot, check: CheckRun) -> Iterator[str]:
    if not check.gravity:
        yield 'there is no gravity: write <option gravity="0 0 -9.81"/>, unless this is intended'
    if check.gap is not None and check.gap > HOVERS and check.gravity:
        base = check.zero.base if riser(robot) is not None else None
        height = f"{base.start - check.gap:.4f}".rstrip("0").rstrip(".") if base else ""
        lower = f"; robot: {{height: {height}}} puts it on the ground" if base else ""
        yield f"home is {_length(check.gap)} above the ground: each episode starts with a fall{lower}"


def _wide(robot: Robot) -> Iterator[str]:
    """Yield a remark on position servos whose control range is in degrees, as far as one can tell."""
    for i, (kind, moved) in enumerate(zip(robot.kinds, robot.moves, strict=True)):
        joints = [robot.model.joint(name) for name in sorted(moved)]
        if kind != "position" or len(joints) != 1 or joints[0].type[0] != int(mujoco.mjtJoint.mjJNT_HINGE):
            continue
        servo, joint = (float(np.ptp(ends)) for ends in ((robot.low[i], robot.high[i]), joints[0].range))
        if joints[0].limited[0] and joint > 0 and WIDE * joint < servo < np.inf:
            yield (
                f"control range of {robot.model.actuator(i).name} spans {_angle(servo)}, {servo / joint:.2g} times the "
                f"range of joint {joints[0].name}: degrees? MuJoCo reads ctrlrange in radians, whatever "
                "<compiler angle> says"
            )


def _idle(robot: Robot, check: CheckRun) -> Iterator[str]:
    groups = {name: group_off(robot.model, robot.model.actuator(name).id) for name in check.idle}
    off = [name for name, group in groups.items() if group is not None]
    late = [name for name in check.idle if robot.spec.actuator(name).delay > LATE]
    if off:
        yield (
            f"{some(off)} {_move(off)} no joint, as the model's options disable actuators of group {groups[off[0]]}: "
            "enable them in the model (<option actuatorgroupdisable>), or leave them out"
        )
    elif late:
        yield (
            f"{some(late)} {_move(late)} no joint within a second, as what {_are(late)} asked acts "
            f"{robot.spec.actuator(late[0]).delay:g} s later: check control: {{delay: SECONDS}}"
        )
    elif check.idle:
        yield (
            f"{some(check.idle)} {_move(check.idle)} no joint at home: check gear, gain, control range, and the "
            "joint or tendon"
        )


def unsteady(robot: Robot, support: Support | None) -> Iterator[str]:
    """Yield why a robot that rests in its home pose does not stand there with action 0, as far as its model tells."""
    if support is not None and support.narrow:
        yield (
            f"what it stands on is a line or a point, {_length(support.width)} wide under a centre of mass at "
            f"{support.centre[2]:.2g} m: no servo keeps it upright, it must balance by moving"
        )
    elif support is not None and support.margin < 0:
        yield (
            f"its centre of mass is {_length(-support.margin)} beyond the edge of what it stands on: choose another "
            "robot: {pose: ...}"
        )
    if soft := soft_servos(robot):
        least = ", ".join(f"{name} to {needed:.2g}" for name, needed in list(soft.items())[:NAMED])
        yield f"servos are softer than the weight above them, which topples: raise kp of {least} N m/rad and more"


def _at_zero(robot: Robot, check: CheckRun) -> Iterator[str]:
    second = check.zero
    yield from _sinks(check, second, "with action 0")
    if fell := _fell(second.base):
        servos = servos_for(robot)
        how = f": write robot: {{actuators: {servos}}}, which carries its load" if servos else " with this home pose"
        yield f"with action 0 it falls: {fell}; a policy has to hold it up, or position servos{how}"
    if check.gravity and second.base is not None and second.base.tilt > TIPS:
        yield from unsteady(robot, check.support)
    if check.chatters:
        yield (
            "with action 0 servos chatter: their damping is too large for Euler's method at this step; write robot: "
            "{integrator: implicitfast}"
        )
        return
    limp = sorted((n for n in second.moved if _left_home(robot, n, second)), key=lambda n: -second.moved[n])
    if limp:
        servos = [n for n in limp if _held_by_servo(robot, n)]
        what = (
            "servos give way under the load: raise kp or their force limit, or leave it to the policy"
            if servos
            else "no servo holds them, as is normal for motors and passive joints"
        )
        named = [f"{n} by {_distance(robot, n, second)}" for n in limp]
        yield f"with action 0 joints leave home, {some(named)}; {what}"
    if second.saturated:
        yield (
            f"with action 0 {some(second.saturated)} {_are(second.saturated)} already at the force limit: raise the "
            "limit, or choose a home pose that needs less force"
        )


def _at_random(robot: Robot, check: CheckRun) -> Iterator[str]:
    second = check.random
    if second.broken is None and max(second.moved.values(), default=0.0) < STILL:
        yield "random actions move no joint: check control ranges, gears, friction loss and equalities"
    yield from _sinks(check, second, "with random actions")


def _sinks(check: CheckRun, second: Second, when: str) -> Iterator[str]:
    if check.gap is not None and second.sunk > SINKS * check.tolerance:
        yield (
            f"{when} it is {_length(second.sunk)} in the ground: check the softness of contacts (solref), the "
            "timestep, what collides (contype, conaffinity), and the size of actions (control: {action_scale: 0.3})"
        )


def _fell(base: Base | None) -> str:
    """Return how the robot fell; empty if it did not."""
    if base is None:
        return ""
    if base.tilt > FALLEN:
        return f"it tilts by {_angle(base.tilt)}"
    down = base.start > STILL and base.end < (1 - LOST) * base.start
    return f"it comes down from {_heights(base)}" if down else ""


def _left_home(robot: Robot, name: str, second: Second) -> bool:
    joint = robot.model.joint(name)
    slides = joint.type[0] == int(mujoco.mjtJoint.mjJNT_SLIDE)
    span = float(joint.range[1] - joint.range[0]) if joint.limited[0] else 1.0
    return second.moved[name] > LIMP * (span if slides else 1.0)


def _held_by_servo(robot: Robot, name: str) -> bool:
    return any(name in moved and kind == "position" for moved, kind in zip(robot.moves, robot.kinds, strict=True))


def _furthest(robot: Robot, second: Second) -> str:
    if max(second.moved.values(), default=0.0) < STILL:
        return "nothing moves"
    name = max(second.moved, key=lambda n: second.moved[n])
    return f"{name} by {_distance(robot, name, second)}"


def _distance(robot: Robot, name: str, second: Second) -> str:
    slides = robot.model.joint(name).type[0] == int(mujoco.mjtJoint.mjJNT_SLIDE)
    return _length(second.moved[name]) if slides else _angle(second.moved[name])


def _heights(base: Base | None) -> str:
    return "" if base is None else f"{base.start:.3g} m to {base.end:.3g} m"


def _angle(radians: float) -> str:
    return "0 rad" if radians < STILL else f"{radians:.2g} rad"


def _length(metres: float) -> str:
    if abs(metres) < STILL:
        return "0 m"
    return f"{1000 * metres:.2g} mm" if abs(metres) < 0.01 else f"{metres:.2g} m"


def _warnings(second: Second) -> str:
    return ", ".join(WARNINGS.get(name, name) for name in second.warnings) or "none"


def _move(names: Sequence[str]) -> str:
    return "moves" if len(names) == 1 else "move"


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
