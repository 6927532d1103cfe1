"""A user's robot as a task family: a model, and a YAML file that declares the distribution of tasks."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from metarl.bounds import check
from metarl.envs import code, mujoco_log
from metarl.envs.arrays import Array
from metarl.envs.control import in_steps, read_signals
from metarl.envs.declared.base import Base
from metarl.envs.declared.ends import termination
from metarl.envs.declared.own_functions import own_function
from metarl.envs.declared.rig import Feet, Rig
from metarl.envs.declared.task import task_terms
from metarl.envs.family import TaskFamily
from metarl.envs.faults.parts import check_groups
from metarl.envs.faults.with_faults import with_faults
from metarl.envs.own_robot.actuator_laws import keep_signals
from metarl.envs.own_robot.actuators import started
from metarl.envs.own_robot.corners import reason, require_possible_together, values_to_check
from metarl.envs.own_robot.declaration import (
    Control,
    Declaration,
    DeclaredChanges,
    DeclaredFaults,
    DeclaredParameter,
    Hints,
    declaration_of,
    read_declaration,
)
from metarl.envs.own_robot.description import Robot, penetrations, tolerance
from metarl.envs.own_robot.distribution import parameters
from metarl.envs.own_robot.footing import riser
from metarl.envs.own_robot.freeze import compensation
from metarl.envs.own_robot.goal import show_goal
from metarl.envs.own_robot.ground import compose, geom_pose
from metarl.envs.own_robot.hooks import functions_in
from metarl.envs.own_robot.judged import judged
from metarl.envs.own_robot.model import inspect_robot
from metarl.envs.own_robot.model_files import copy_model
from metarl.envs.own_robot.quantities import COMMANDED
from metarl.envs.own_robot.ranges import with_ranges
from metarl.envs.own_robot.rig import base_of, rig_of
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.own_robot.start import start_near
from metarl.envs.own_robot.task import entries
from metarl.envs.own_robot.terrain import lay_ground
from metarl.envs.parameters import Parameter
from metarl.envs.state import State, in_pose
from metarl.envs.task import Changes
from metarl.envs.text import typed

Start = Callable[[mujoco.MjModel], Array]
DECLARED = "declared"
"""What messages call a declaration that is no file."""
CONTROL_DT = 0.02  # s, default control step
LENGTHS = {"scale", "link_length", "size", "radius"}
"""Quantities by which a robot's feet come to be higher or lower."""
PLACED = LENGTHS | {"slope"}
"""Quantities that move the ground or the robot's shape from where it stands."""
MOST_STEPS = 10_000  # of the simulation in a control step
LONGEST_DT = 1.0  # s


def copy_robot(settings: RobotSettings, folder: Path) -> RobotSettings:
    """Copy the robot and its declaration under a folder; returns the settings that name the copies."""
    model, declaration = settings.files
    copied = copy_model(model, folder)
    target, text = folder / Path(declaration).name, Path(declaration).read_bytes()
    functions = functions_in(declaration)
    for name, absolute in functions.items():  # code stays where it is
        text = re.sub(rf"(?<![\w./-]){re.escape(name)}(?!\w)".encode(), absolute.encode(), text)
    target.write_bytes(text)
    own = sorted({path for name in functions.values() if (path := code.file_of(name)) is not None})
    hooks = tuple(code.digest(file) for file in own)
    return dataclasses.replace(settings, model=str(copied), file=str(target), hooks=hooks)


@mujoco_log.silent()
def check_robot(model: str, declaration: str = "") -> tuple[Robot, TaskFamily | None]:
    """Return the description of a robot, and its family if no questions are open and a file declares one.

    ValueError names what is wrong, where, and what to do.
    """
    said = read_declaration(declaration) if declaration else None
    robot = _inspect(model, said, declaration)
    if said is None or robot.questions:
        return robot, None
    return robot, _family(robot, said, _Origin(model, declaration, RobotSettings(model, declaration)))


@mujoco_log.silent()
def robot(settings: RobotSettings) -> TaskFamily:
    """Return the family of a model and its declaration."""
    model, file = settings.files
    said = with_ranges(read_declaration(file), settings.ranges)
    _require_unchanged(settings, file)
    inspected = _inspect(model, said, file)
    if inspected.questions:
        number = len(inspected.questions)
        see = f"metarl robot check {typed(model)} --family {typed(file)} shows {'them all' if number > 1 else 'it'}"
        which = f"the first of {number} questions" if number > 1 else "a question"
        raise ValueError(f"{model}: {see}; {which}: {inspected.questions[0]}")
    return _family(inspected, said, _Origin(model, file, settings))


@mujoco_log.silent()
def declare_robot(model: str | Path | Callable[[], mujoco.MjSpec], declared: Mapping[str, Any]) -> TaskFamily:
    """Return the family of your own robot, declared in Python: what `--robot` and `--family` are for files.

    model: MJCF or URDF file, file.py:function, or a function that returns an `MjSpec`. declared: a mapping with the
    keys of the YAML file (`metarl robot terms`), in which a function may stand where the file has file.py:function.
    ValueError for what is wrong, and with the first question about what cannot be inferred.
    """
    name = str(model) if isinstance(model, str | Path) else code.hold(model)
    shown = name if isinstance(model, str | Path) else getattr(model, "__name__", "model")
    try:
        said = declaration_of(declared)
    except ValueError as error:
        raise ValueError(f"{DECLARED}: {error}") from None
    inspected = _inspect(name, said, DECLARED)
    if inspected.questions:
        raise ValueError(f"{shown}: {inspected.questions[0]}")
    return _family(inspected, said, _Origin(shown, DECLARED, RobotSettings()))


def _require_unchanged(settings: RobotSettings, file: str) -> None:
    """Raise ValueError if a file of the user's functions is not one that a run was trained with."""
    for name in functions_in(file).values() if settings.hooks else ():
        path = code.file_of(name)
        if path is None or not path.is_file() or code.digest(path) not in settings.hooks:
            raise ValueError(f"{name} is not as the run was trained with it; restore its file, or train a new run")


def _inspect(model: str, said: Declaration | None, file: str) -> Robot:
    control = said.control if said else Control()
    try:
        robot = inspect_robot(model, said.robot if said else Hints(), control)
        _require_steps(robot.model.opt.timestep, CONTROL_DT if control.dt is None else control.dt)
        return robot
    except ValueError as error:
        raise ValueError(f"{file}: {error}" if str(error).startswith(("robot.", "control.")) else f"{error}") from error


@dataclass(frozen=True)
class _Origin:
    """Where a family comes from."""

    model: str
    file: str
    """What declares it, as messages name it."""
    settings: RobotSettings


def _family(robot: Robot, said: Declaration, origin: _Origin) -> TaskFamily:
    settings = origin.settings
    try:
        skip = _frame_skip(robot, said)
        horizon = said.episode.horizon if settings.horizon == -1 else settings.horizon
        _delay(robot, said.control.delay, horizon * skip * robot.model.opt.timestep)
        drawn = parameters(robot, said.distribution)
        named = {e.quantity: e.name for e in said.distribution}
        commands = {COMMANDED[quantity]: name for quantity, name in named.items() if quantity in COMMANDED}
        rig = rig_of(robot, said, skip * robot.model.opt.timestep, commands, named)
        start = _start(robot, sloped="slope" in named)
        if named.keys() & LENGTHS and rig.feet is not None:
            start = _standing(robot, rig.feet, start)
        ground = lay_ground(robot, rig, said.terrain)
        rig.fallen = termination(rig, said.termination)
        pushed = named.get("push_velocity")
        factor = named.get("sensor_noise", 1.0)
        terms = task_terms(rig, entries(robot, said, settings.observe, pushed), commands, pushed, factor)
        actuator = said.control.actuator
        kinds = robot.kinds if actuator is None else ["action"] * robot.model.nu
        if actuator is not None and actuator.memory:
            terms["memory"] = {**terms["memory"], "actuator": (actuator.memory,)}
        rig.sensors.add_to(robot.spec)
        robot.model = robot.spec.compile()
        noise = any(entry.noise for entry in (said.observation or {}).values())
        if "sensor_noise" in named and not noise:
            raise ValueError(f"{factor} is a factor on noise, and no term of the observation has any; give one noise")
        control = read_signals(robot.model, kinds, robot.offset, robot.gain, robot.home)
        if actuator is not None:  # its function makes the signals, so a command is the action
            control = dataclasses.replace(
                read_signals(robot.model, kinds, home=robot.home),
                ranges=np.tile((-np.inf, np.inf), (robot.model.nu, 1)),
            )
        family = TaskFamily(
            name="robot",
            description=f"{Path(origin.model).name} as {Path(origin.file).name} declares it",
            base=robot.spec.copy,
            parameters=drawn,
            **terms,
            changes=_changes(said.changes, said.distribution),
            reset=start_near(robot, said.episode, start),
            initial=robot.initial,
            held=lambda model: started(model, robot.drives, robot.key),
            action_low=robot.low,
            action_high=robot.high,
            horizon=horizon,
            frame_skip=skip,
            control=control,
            action_scale=said.control.action_scale,
            drive=None if actuator is None else own_function(actuator.function, (robot.model.nu,)),
            noise_factor=factor if noise else 0.0,
            noisy=noise or bool(said.commands.ranges()) or said.pushes is not None,
            **judged(robot, rig),
            decorate=show_goal(said.goal, named),
            settle=compensation(robot.model),
            visual=robot.visual.copy,
            groups=said.faults.groups,
            settings=settings,
        )
        _check_start(family, robot, rig, robot.model, robot.home)
        _require_free_feet(robot, rig, said.termination.contact)
        neutral, ends = _bytes(family.compile(family.neutral())), {}
        for p in family.parameters:
            if p.law.edit is not None:
                models = {value: _check_value(family, robot, rig, start, p, value) for value in _extremes(p)}
                _require_effect(p, models, neutral)
                ends[p.name] = list(models.values())
        require_possible_together(family, robot, ends)
        family = ground(family)
        return family if settings.faults else _with_faults(family, said.faults)
    except ValueError as error:
        raise ValueError(f"{origin.file}: {error}") from error


def _delay(robot: Robot, delay: float, episode: float) -> None:
    """Delay the effect of every action, s, by more than the model does. episode: length of one, s."""
    if delay < 0:
        raise ValueError(f"control.delay is {delay:g} s; it must not be negative")
    if delay and delay >= episode:
        raise ValueError(f"control.delay is {delay:g} s, and an episode lasts {episode:g} s; give seconds, below that")
    for name in [actuator.name for actuator in robot.spec.actuators] if delay else ():
        for spec in (robot.spec, robot.visual):
            spec.actuator(name).delay = in_steps(spec.actuator(name).delay + delay, spec.option.timestep)
        keep_signals(robot, name, float(robot.spec.actuator(name).delay))


def _changes(said: DeclaredChanges | None, distribution: Sequence[DeclaredParameter]) -> Changes | None:
    """ValueError for a quantity that would move ground or limbs through each other while the robot stands there."""
    if said is None:
        return None
    if not said.parameters:
        raise ValueError("changes.parameters is empty, so that nothing changes; name parameters, or leave changes out")
    for entry in distribution:
        if entry.name in said.parameters and entry.quantity in PLACED:
            raise ValueError(
                f"changes has {entry.name!r}, and {entry.quantity} cannot change under a robot that stands there: it "
                "would be in the ground; leave it out"
            )
    return Changes(said.parameters, said.count, said.gap)


def _with_faults(family: TaskFamily, said: DeclaredFaults) -> TaskFamily:
    """Return the family with the declared faults; ValueError names a wrong one as in the file."""
    try:
        check_groups(family)
        check(said.settings(), "faults")
        return with_faults(family, said.settings())
    except ValueError as error:
        raise ValueError(re.sub(r"(faults\.)?(?<!')\bfault_", "faults.", str(error))) from error


def _require_steps(timestep: float, dt: float) -> None:
    """Raise ValueError unless a control step has a reasonable number of simulation steps."""
    if not timestep > 0:
        raise ValueError(f"the model's timestep is {timestep:g} s; give one greater than 0 by <option timestep>")
    if dt > LONGEST_DT:
        raise ValueError(f"control.dt is {dt:g} s; a control step is at most {LONGEST_DT:g} s long: give seconds")
    if dt / timestep > MOST_STEPS:
        raise ValueError(
            f"control.dt is {dt:g} s, which is more than {MOST_STEPS:,} of the model's timestep of {timestep:g} s; "
            "use a smaller dt in the YAML, or a larger <option timestep>"
        )


def _frame_skip(robot: Robot, said: Declaration) -> int:
    timestep, dt = robot.model.opt.timestep, said.control.dt
    if dt is None:
        return max(1, round(CONTROL_DT / timestep))
    skip = round(dt / timestep)
    if skip < 1 or not np.isclose(skip * timestep, dt, rtol=1e-6):
        raise ValueError(
            f"control.dt is {dt:g} s, no multiple of the model's timestep {timestep:g} s; "
            f"write {max(1, skip) * timestep:g}"
        )
    return skip


def _start(robot: Robot, sloped: bool) -> Start:
    """Return a function that gives the home pose on a task's model, [nq]: on a slope, it turns with the ground."""
    at = base_of(dataclasses.replace(robot, base=robot.bodies[0])).qpos
    if not sloped or not robot.ground.planes or at < 0:
        return lambda model: robot.home
    floor = robot.ground.planes[0]
    origin, flat = geom_pose(robot.model, robot.model.geom(floor).id)
    back = np.zeros(4)
    mujoco.mju_negQuat(back, flat)

    def start(model: mujoco.MjModel) -> Array:
        turn, home = np.zeros(4), robot.home.copy()
        mujoco.mju_mulQuat(turn, geom_pose(model, model.geom(floor).id)[1], back)
        home[at : at + 3], home[at + 3 : at + 7] = compose(
            origin, turn, home[at : at + 3] - origin, home[at + 3 : at + 7]
        )
        return home

    return start


def _extremes(p: Parameter) -> list[float]:
    """Return the values to check: the ends of every split's range, or all values of a choice."""
    return sorted({v for d in (p.distribution, p.held_out, p.ood) if d is not None for v in values_to_check(d)})


def _standing(robot: Robot, feet: Feet, start: Start) -> Start:
    """Return the start at which the lowest foot is as high as the neutral robot's, however long the legs are."""
    found = riser(robot)
    if found is None:
        return start
    at, rise = found

    def lowest(model: mujoco.MjModel) -> float:
        data = mujoco.MjData(model)
        data.qpos = robot.home
        mujoco.mj_kinematics(model, data)
        return float((data.geom_xpos[feet.geoms([model]), 2] - feet.soles([model])[0]).min())

    neutral = lowest(robot.model)

    def standing(model: mujoco.MjModel) -> Array:
        qpos = start(model).copy()
        up = neutral - lowest(model)
        if robot.mobility == "floating":
            qpos[at - 2 : at + 1] += up * robot.ground.normal(model)
        else:
            qpos[at] += up / rise
        return qpos

    return standing


def _require_free_feet(robot: Robot, rig: Rig, contact: Sequence[str]) -> None:
    """Raise ValueError if an episode ends where a foot touches something, on which the robot stands."""
    if robot.mobility == "fixed" or not robot.ground.names:
        return
    ending = rig.bodies_of(tuple(contact))
    feet = [foot for foot, part in zip(robot.feet, robot.foot_parts, strict=True) if {foot, part} & {*ending}]
    if feet:
        raise ValueError(
            f"termination.contact has {', '.join(feet[:4])}, on which the robot stands: every episode would end in its "
            "first steps; name the bodies that must touch nothing"
        )


def _check_start(
    family: TaskFamily, robot: Robot, rig: Rig, model: mujoco.MjModel, qpos: Array, where: str = ""
) -> None:
    """Raise ValueError if an episode would end when it starts."""
    if family.terminate is None:
        return
    _, state = in_pose(model, qpos)
    if family.terminate(state)[0]:
        at = "" if rig.base is None else _pose_text(rig.base, state)
        raise ValueError(f"{where}termination ends every episode at the home pose{at}; widen the bounds")


def _pose_text(base: Base, state: State) -> str:
    tilt = np.arccos(np.clip(-base.gravity(state)[0, 2], -1, 1))
    return f": the base is at {base.height(state)[0]:.3g} m, tilted by {tilt:.3g} rad"


def _require_effect(p: Parameter, models: dict[float, mujoco.MjModel], neutral: bytes) -> None:
    """Raise ValueError if no value of a parameter changes the model. models: by value. neutral: the neutral one."""
    changed = [model for value, model in models.items() if value != p.neutral]
    if changed and all(_bytes(model) == neutral for model in changed):
        raise ValueError(f"{p.name} ({p.law.description}) changes nothing in this robot; leave it out")


def _bytes(model: mujoco.MjModel) -> bytes:
    buffer = np.empty(mujoco.mj_sizeModel(model), dtype=np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()


def _check_value(
    family: TaskFamily, robot: Robot, rig: Rig, start: Start, p: Parameter, value: float
) -> mujoco.MjModel:
    """Return the neutral robot's model with the value; ValueError if it is impossible, or starts inside something."""
    try:
        model = family.compile(family.task({p.name: value}))
    except ValueError as error:
        if str(error).startswith(p.name):
            raise
        what = f"{p.name} = {value:g} ({p.law.description})"
        raise ValueError(f"{what} makes an impossible robot: {reason(error)}") from error
    qpos = start(model)
    depths = penetrations(model, qpos)
    (a, b), depth = max(depths.items(), key=lambda item: item[1], default=(("", ""), 0.0))
    if depth > tolerance(robot):
        raise ValueError(
            f"{p.name} = {value:g} ({p.law.description}): {b!r} starts {depth:.3g} m inside {a!r}; narrow the range, "
            "or raise the home pose by robot: {height: METRES}"
        )
    _check_start(family, robot, rig, model, qpos, f"{p.name} = {value:g} ({p.law.description}): ")
    for joint in robot.joints:
        position, bounds = qpos[model.joint(joint).qposadr[0]], model.joint(joint).range
        if model.joint(joint).limited[0] and not bounds[0] - 1e-6 <= position <= bounds[1] + 1e-6:
            raise ValueError(
                f"{p.name} = {value:g} ({p.law.description}): joint {joint!r} starts at {position:.3g}, outside of its "
                f"range [{bounds[0]:.3g}, {bounds[1]:.3g}]"
            )
    return model
