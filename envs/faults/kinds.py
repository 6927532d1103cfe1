"""Kinds of faults: what each does to a part of the robot, and which parts it can act on.

Faults of dynamics are edits of the task's model; those of signals and sensors are in modules of that name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco

from metarl.envs.control import UNITS
from metarl.envs.efforts import group_off, limited_tendon, limits_in_model
from metarl.envs.faults.edits import (
    LONGEST_DELAY,
    PLAY,
    SHORTENING,
    delay,
    force_limit,
    jam,
    keep_signals,
    kill,
    limit_force,
    lock,
    saturate,
    servo,
    shorten,
    weaken,
)
from metarl.envs.faults.parts import Anatomy, Part
from metarl.envs.faults.play import inertia_of_rotor
from metarl.envs.faults.settings import FaultKind
from metarl.envs.force_laws import force_law
from metarl.envs.links import ROUND, given_lengths, goes_on_in, spans

OFFSET = {"rad": 0.5, "m": 0.05}  # of an encoder at severity 1
DRIFT = {"rad": 0.05, "m": 0.005}  # of an encoder at severity 1, per second
SCALE_ERROR = 0.5  # of an encoder at severity 1

Edit = Callable[[mujoco.MjSpec, Anatomy, Part, float], None]
"""(specification, robot, part, severity): the edit of a task's model."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault."""

    words: str
    """What the fault does, with the meaning of severities 0 and 1."""
    obstacle: Callable[[Anatomy, Part], str]
    """Return why a part cannot have the fault; empty if it can."""
    edit: Edit | None = None
    """Edit of the model of a task with the fault; None: the fault is one of signals."""
    prepare: Callable[[mujoco.MjSpec, Anatomy, Part], None] | None = None
    """Edit of every task's model, without effect on a sound robot; None: there is none."""
    signed: bool = False
    """Whether a severity below 0 is an error of the other sign."""
    graded: bool = True
    """Whether the severity has an effect."""


def needs_actuator(robot: Anatomy, part: Part) -> str:
    """Return why a part has no actuator in the model that acts; empty if it has."""
    model = robot.model
    groups = [group_off(model, i) for i in part.actuators if i < model.nu]
    if not groups:
        return "it has no actuator"
    if model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_ACTUATION):
        return "the model's options disable actuation"
    return "" if None in groups else f"the model's options disable actuators of group {groups[0]}"


def _each_actuator(check: Callable[[Anatomy, int], str]) -> Callable[[Anatomy, Part], str]:
    """Return an obstacle of parts by one of actuators."""

    def obstacle(robot: Anatomy, part: Part) -> str:
        there = [i for i in part.actuators if i < robot.model.nu]
        return needs_actuator(robot, part) or next(filter(None, (check(robot, i) for i in there)), "")

    return obstacle


def _no_force_law(robot: Anatomy, i: int) -> str:
    try:
        force_law(robot.model, i)
    except ValueError as error:
        return str(error)
    return _shared_tendon(robot, i)


def _shared_tendon(robot: Anatomy, i: int) -> str:
    """Return why the limit of an actuator's tendon cannot be lessened; empty if it can, or there is none."""
    model, tendon = robot.model, limited_tendon(robot.model, i)
    sharers = [] if tendon is None else [j for j in range(model.nu) if j != i and limited_tendon(model, j) == tendon]
    if not sharers:
        return ""
    return f"its tendon limits its force together with that of {model.actuator(sharers[0]).name!r}"


def _no_limit(robot: Anatomy, i: int) -> str:
    return "" if force_limit(robot, i) is not None else "its actuator has no force limit"


def _unlimited(robot: Anatomy, i: int) -> str:
    """Return why the limit of an actuator's force cannot be lessened alone; empty if it can.

    A limit that the model lacks must be the largest force at any speed, or it would change sound robots.
    """
    if not limits_in_model(robot.model, i) and robot.model.actuator_biastype[i] != mujoco.mjtBias.mjBIAS_NONE:
        return "its actuator has no force limit, and more force than its signal asks for; give it a forcerange"
    return _no_limit(robot, i) or _shared_tendon(robot, i)


def _no_signal(robot: Anatomy, i: int) -> str:
    """Return why a fault cannot change what an action becomes; empty if it can."""
    return "" if robot.family.drive is None else "a function (control.actuator) writes its signal, which cannot fail so"


def _not_reversible(robot: Anatomy, i: int) -> str:
    if robot.family.action_low[i] < 0 < robot.family.action_high[i]:
        return _no_signal(robot, i)
    return "its actions are of one sign, and have no opposite"


def _cannot_hold(robot: Anatomy, i: int) -> str:
    if servo(robot, i):
        return ""
    if not robot.family.control.joints[i]:
        return "its actuator drives no single joint"
    return _no_limit(robot, i) or _no_force_law(robot, i) or _no_friction(robot)


def _no_play(robot: Anatomy, i: int) -> str:
    """Return why an actuator cannot drive its joint with a play; empty if it can."""
    if servo(robot, i):
        return ""
    model, control = robot.model, robot.family.control
    if not control.joints[i]:
        return "its actuator drives no single joint"
    if control.units[i] not in UNITS["force"] or model.actuator_dyntype[i] != mujoco.mjtDyn.mjDYN_NONE:
        return "its actuator is neither a position servo nor a motor whose torque is its signal's at once"
    if not inertia_of_rotor(model, i):
        return "its motor's rotor has no inertia, by which it would take time to cross a play; give it an armature"
    return _no_signal(robot, i)


def no_link(robot: Anatomy, part: Part) -> str:
    """Return why a part moves no link that can be shorter; empty if it does."""
    model = robot.model
    if not part.joint:
        return "it is no hinge and no slide"
    body = int(model.joint(part.joint).bodyid[0])
    shapes, loops = set(map(int, ROUND)), {int(mujoco.mjtEq.mjEQ_CONNECT), int(mujoco.mjtEq.mjEQ_WELD)}
    if not shapes.issuperset(model.geom_type[model.geom_bodyid == body].tolist()):
        return "its link has parts that are no spheres, capsules or cylinders"
    if loops.intersection(model.eq_type.tolist()):
        return "the model has a loop"
    if rest := goes_on_in(model, body, model.joint(part.joint).pos):
        return f"its link goes on in {rest!r}, which is fixed to it and would keep its length"
    spec = robot.family.spec(robot.neutral)
    if any(geom.meshname for geom in spec.joint(part.joint).parent.geoms):
        return "its link has parts that are fitted to meshes"
    if not spans(model):
        return ""
    shorten(spec, robot, part, 1.0)
    return given_lengths(model, spec.compile(), model.qpos0)


def _no_friction(robot: Anatomy) -> str:
    off = mujoco.mjtDisableBit.mjDSBL_FRICTIONLOSS | mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
    return "the model switches friction loss off" if robot.model.opt.disableflags & int(off) else ""


def no_joint(robot: Anatomy, part: Part) -> str:
    """Return why a part is no joint that can be held; empty if it is one."""
    return _no_friction(robot) if part.joint else "it is no hinge and no slide"


def no_encoder(robot: Anatomy, part: Part) -> str:
    """Return why a part has no encoder; empty if it has one."""
    return "" if part.position >= 0 else "the observation does not have its position"


def no_sensor(robot: Anatomy, part: Part) -> str:
    """Return why a part has no sensors; empty if it has some."""
    return "" if part.elements else "the observation has nothing of it"


KINDS: dict[FaultKind, Kind] = {
    "dead": Kind("actuator without force; severity has no effect", _each_actuator(_no_force_law), kill, graded=False),
    "weak": Kind(
        "actuator's force and its limit x (1 - severity): 0 as strong as ever, 1 without force",
        _each_actuator(_no_force_law),
        weaken,
    ),
    "stuck": Kind(
        "actuator holds the angle of its joint with its own force, and ignores its signal; severity has no effect",
        _each_actuator(_cannot_hold),
        jam,
        graded=False,
    ),
    "saturated": Kind(
        "actuator's force limit x (1 - severity): 0 as ever, 1 without force",
        _each_actuator(_unlimited),
        saturate,
        limit_force,
    ),
    "reversed": Kind(
        "actuator does the opposite of its action; severity has no effect",
        _each_actuator(_not_reversible),
        graded=False,
    ),
    "dead_band": Kind(
        "actuator's action counts as far as it exceeds severity x the largest of its sign: 0 as ever, 1 never moved",
        _each_actuator(_no_signal),
    ),
    "locked": Kind(
        "joint is held where it is, whatever acts on it; severity has no effect", no_joint, lock, graded=False
    ),
    "encoder_offset": Kind(
        f"encoder reads severity x {OFFSET['rad']:g} rad ({OFFSET['m']:g} m) too much: 0 none, 1 all of it, -1 as much "
        "too little",
        no_encoder,
        signed=True,
    ),
    "encoder_scale": Kind(
        f"encoder reads position and velocity x (1 + {SCALE_ERROR:g} severity): 0 true, 1 half as much again, -1 "
        "half of it",
        no_encoder,
        signed=True,
    ),
    "encoder_drift": Kind(
        f"encoder's error grows by severity x {DRIFT['rad']:g} rad/s ({DRIFT['m']:g} m/s), since the fault, an "
        "episode or a life began: 0 never, 1 at that rate, -1 downwards",
        no_encoder,
        signed=True,
    ),
    "encoder_frozen": Kind(
        "encoder repeats the position that it last read, and velocity 0; severity has no effect",
        no_encoder,
        graded=False,
    ),
    "sensor_lost": Kind(
        "sensors of the joint, of the term, or of one element of it, read 0; severity has no effect",
        no_sensor,
        graded=False,
    ),
    "delay": Kind(
        f"actuator's signals come severity x {LONGEST_DELAY * 1000:g} ms later: 0 as ever, 1 by all of it",
        needs_actuator,
        delay,
        keep_signals,
    ),
    "slack": Kind(
        f"joint has a play of severity x {PLAY['rad']:g} rad ({PLAY['m']:g} m), with which a servo follows, and "
        "which a motor's rotor crosses before it drives the joint: 0 none, 1 all of it",
        _each_actuator(_no_play),
    ),
    "short_leg": Kind(
        f"link that the joint moves is shorter by severity x {SHORTENING:.0%}: 0 as long as ever, 1 by all of it",
        no_link,
        shorten,
    ),
}
"""Every kind by name."""
