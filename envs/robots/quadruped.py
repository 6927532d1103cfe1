"""Quadruped families: a Go1 that follows velocity commands; a task is its body, its motors and its ground.

Observation, reward terms, their weights and what is varied are those of quadruped practice (legged_gym: Rudin et al.,
CoRL 2022; RMA: Kumar et al., RSS 2021). The reward of a step is weight x term x 0.02 s, so weights are per second.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from metarl.envs import measures, noise
from metarl.envs.arrays import like, namespace, none, rows, write
from metarl.envs.control import read_signals
from metarl.envs.family import Array, Changes, Criterion, Measure, RewardTerm, State, TaskFamily
from metarl.envs.parameters import Choice, Law, Parameter, Uniform
from metarl.envs.robots.quadruped_robot import FOOT_CONTACTS, JOINTS, QuadrupedFigures, build
from metarl.envs.robots.quadruped_settings import QuadrupedSettings, QuadrupedTerrainSettings
from metarl.envs.terrain.kinds import Field
from metarl.envs.terrain.on_terrain import FREE, on_terrain

TIMESTEP = 0.005  # s
FRAME_SKIP = 4
DT = FRAME_SKIP * TIMESTEP  # s, a control step: 50 Hz
ACTION_LIMIT = 0.8  # rad from home; keeps every target within the joint ranges
RESET_JOINT = 0.05  # half-width of the uniform noise on the joints at the start, rad
RESET_HEIGHT = 0.02  # m, of the feet over the ground at the start, at home
FALL_TILT = math.radians(60)
TRACKING = 0.25  # (m/s)^2 and (rad/s)^2 in the kernels exp(-error^2 / TRACKING)
VELOCITY_TOLERANCE = 0.3  # m/s, the largest mean error of a success
AIR_TIME = 0.2  # s, of a swing that is neither rewarded nor penalised
STANDING = 0.1  # m/s and rad/s; commands below it ask for no steps
PAYLOAD_DENSITY = 2000.0  # kg/m^3, of the cube that a payload is
TERRAIN_PATCH = 0.9  # m, half the side of the flat start: the robot reaches .4 m from its middle
TERRAIN_CELL = 0.075  # m
NUM_FEET = len(FOOT_CONTACTS)
GO1 = QuadrupedFigures()
HOME_POSE = GO1.home_pose

COMMAND = ("forward_velocity", "sideways_velocity", "yaw_rate")
COMMAND_UNITS = ("m/s", "m/s", "rad/s")
COMMAND_STREAM, PUSH_STREAM, SENSOR_STREAM = range(3)

ELEMENTS: dict[str, tuple[str, ...]] = {
    "velocity": ("base_vx [m/s]", "base_vy [m/s]", "base_vz [m/s]"),
    "rate": ("base_wx [rad/s]", "base_wy [rad/s]", "base_wz [rad/s]"),
    "gravity": ("gravity_x [1]", "gravity_y [1]", "gravity_z [1]"),
    "command": ("command_vx [m/s]", "command_vy [m/s]", "command_wz [rad/s]"),
    "joints": tuple(f"{joint} [rad]" for joint in JOINTS),
    "joint_velocities": tuple(f"{joint}_velocity [rad/s]" for joint in JOINTS),
    "action": tuple(f"{joint}_action [rad]" for joint in JOINTS),
}
"""Elements of the observation by where they come from; joints relative to home."""
NOISE = {"velocity": 0.1, "rate": 0.2, "gravity": 0.05, "joints": 0.01, "joint_velocities": 1.5}
"""Half-widths of legged_gym's uniform noise, in the sensor's unit; ours is normal with the same standard deviation."""


def projected_gravity(state: State) -> Array:
    """The direction of gravity in the base's frame, [S, 3]."""
    w, x, y, z = rows(state.qpos[:, 3:7])
    return state.xp.stack([2 * (w * y - x * z), -2 * (w * x + y * z), 2 * (x * x + y * y) - 1], axis=1)


def base_velocity(state: State) -> Array:
    """Linear velocity in the base's frame, [S, 3] m/s."""
    w, *axis = rows(state.qpos[:, 3:7])
    v = rows(state.qvel[:, :3])
    twist = _cross(axis, v)  # R^T v = v - 2 w (u x v) + 2 u x (u x v)
    turned = _cross(axis, twist)
    return state.xp.stack([v[i] + 2 * (turned[i] - w * twist[i]) for i in range(3)], axis=1)


def _cross(a: Any, b: Any) -> list[Array]:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def foot_contacts(state: State) -> Array:
    """[S, 4] bool."""
    return state.sensordata[:, :NUM_FEET] > 0


def from_home(state: State) -> Array:
    """Joint angles relative to home, [S, 12] rad."""
    return state.qpos[:, 7:] - like(HOME_POSE, state.qpos)


def velocity_gap(state: State) -> Array:
    """v_xy - v_xy* in the base's frame, [S, 2] m/s."""
    return base_velocity(state)[:, :2] - state.memory["command"][:, :2]


def velocity_error(state: State) -> Array:
    """|v_xy - v_xy*|, [S] m/s."""
    return state.xp.linalg.vector_norm(velocity_gap(state), axis=1)


def yaw_rate_error(state: State) -> Array:
    """|w_z - w_z*|, [S] rad/s."""
    return state.xp.abs(state.qvel[:, 5] - state.memory["command"][:, 2])


def velocity_tracking(state: State) -> Array:
    """exp(-|v_xy - v_xy*|^2 / .25), [S]."""
    return state.xp.exp(_square(velocity_gap(state)) / -TRACKING)


def yaw_tracking(state: State) -> Array:
    """exp(-(w_z - w_z*)^2 / .25), [S]."""
    return state.xp.exp((state.qvel[:, 5] - state.memory["command"][:, 2]) ** 2 / -TRACKING)


def path(state: State) -> Array:
    """Length of the trunk's way on the plane over the control step, by its velocity at the end, [S] m."""
    return state.xp.linalg.vector_norm(state.qvel[:, :2], axis=1) * DT


def vertical_velocity(state: State) -> Array:
    """v_z^2 in the base's frame, [S] m^2/s^2."""
    return base_velocity(state)[:, 2] ** 2


def tilt_rate(state: State) -> Array:
    """w_x^2 + w_y^2, [S] rad^2/s^2."""
    return _square(state.qvel[:, 3:5])


def tilt(state: State) -> Array:
    """Square of the sine of the angle between the base's axis and the vertical, [S]."""
    return _square(projected_gravity(state)[:, :2])


def torque(state: State) -> Array:
    """Sum of squared torques, [S] N^2 m^2."""
    return _square(state.actuator_force)


def joint_acceleration(state: State) -> Array:
    """Sum of squared changes of joint velocity over the control step, [S] rad^2/s^4."""
    return _square((state.qvel[:, 6:] - state.memory["joint_velocity"]) / DT)


def action_rate(state: State) -> Array:
    """Sum of squared changes of the joint targets, [S] rad^2."""
    return _square(state.memory["action_change"])


def pose(state: State) -> Array:
    """Sum of squared joint angles relative to home, [S] rad^2."""
    return _square(from_home(state))


def air_time(state: State) -> Array:
    """Sum over the feet that land of the time in the air beyond .2 s, while a command asks for steps, [S] s."""
    return state.memory["landing"]


def fallen(state: State) -> Array:
    """The trunk touches the ground or is tilted by more than 60 degrees, [S] bool."""
    return (state.sensordata[:, NUM_FEET] > 0) | (projected_gravity(state)[:, 2] > -math.cos(FALL_TILT))


def _square(x: Array) -> Array:
    return namespace(x).einsum("si,si->s", x, x)


SENSORS: dict[str, Callable[[State], Array]] = {
    "velocity": base_velocity,
    "rate": lambda state: state.qvel[:, 3:6],
    "gravity": projected_gravity,
    "command": lambda state: state.memory["command"],
    "joints": from_home,
    "joint_velocities": lambda state: state.qvel[:, 6:],
    "action": lambda state: state.action,
}

REWARDS: dict[str, tuple[Callable[[State], Array], float]] = {
    "velocity": (velocity_tracking, 1.0),
    "yaw_rate": (yaw_tracking, 0.5),
    "vertical_velocity": (vertical_velocity, -2.0),
    "tilt_rate": (tilt_rate, -0.05),
    "tilt": (tilt, -1.0),
    "torque": (torque, -1e-4),
    "joint_acceleration": (joint_acceleration, -2.5e-7),
    "action_rate": (action_rate, -0.1),
    "pose": (pose, -0.2),
    "air_time": (air_time, 1.0),
    "fall": (fallen, -50.0),
}
"""Terms and their weights, 1/s; a fall lasts one control step."""


def observe(state: State, sensors: tuple[str, ...], deviations: Array | None) -> Array:
    """The sensors in that order, [S, obs]; deviations [obs]: of each element's noise, before the task's factor."""
    observation = state.xp.concat([SENSORS[sensor](state) for sensor in sensors], axis=1)
    if deviations is not None:
        scale = state.task["sensor_noise"][:, None] * like(deviations, observation)
        observation += scale * noise.normal(state.keys, state.steps, SENSOR_STREAM, len(deviations))
    return observation


def begin(state: State, chosen: Array, low: Array, high: Array, drawn: bool) -> None:
    """Command of the episode: U(low, high), [3] each, or the task's."""
    command = state.memory["command"]
    if drawn:
        low, high = like(low, command), like(high, command)
        write(command, low + (high - low) * noise.uniform(state.keys, 0, COMMAND_STREAM, len(COMMAND)), where=chosen)
    else:
        for i, name in enumerate(COMMAND):
            write(command[:, i], state.task[name] if name in state.task else low[i], where=chosen)


def actuate(state: State, push_every: int) -> None:
    """Remember the joint targets; every push_every control steps (0: never) the trunk gets a push."""
    xp, memory = state.xp, state.memory
    memory["action_change"][...] = state.action - memory["action"]
    memory["action"][...] = state.action
    memory["joint_velocity"][...] = state.qvel[:, 6:]
    if push_every:
        due = (state.steps % push_every == 0) & (state.steps > 0)
        if not none(due):
            angle = 2 * np.pi * noise.uniform(state.keys, state.steps, PUSH_STREAM, 1)
            push = state.task["push_velocity"][:, None] * xp.concat([xp.cos(angle), xp.sin(angle)], axis=1)
            write(state.qvel[:, :2], state.qvel[:, :2] + push, where=due)


def update(state: State) -> None:
    """How long each foot has been in the air, and what the landings of this step earn."""
    air, contacts = state.memory["air_time"], foot_contacts(state)
    xp = namespace(air)
    landed = contacts & (air > 0)
    asked = xp.max(xp.abs(state.memory["command"]), axis=1) > STANDING
    state.memory["landing"][...] = xp.sum((air - AIR_TIME) * landed, axis=1) * asked
    air += DT
    air *= ~contacts


def reset(model: mujoco.MjModel, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """At rest and near the home pose a little over the ground, upright on it, with any heading."""
    yaw = rng.uniform(-np.pi, np.pi, n)
    joints = rng.uniform(-RESET_JOINT, RESET_JOINT, (n, len(JOINTS)))
    joints[:, model.eq_obj1id[model.eq_active0 == 1] - 1] = 0.0  # joint 0 is the trunk's
    qpos = np.tile(model.key("home").qpos, (n, 1))
    ground, up = model.geom("floor").quat, np.zeros(3)
    mujoco.mju_rotVecQuat(up, np.array([0.0, 0.0, 1.0]), ground)
    qpos[:, :3] = (qpos[0, 2] + RESET_HEIGHT) * up
    w, x, y, z = ground
    c, s = np.cos(yaw / 2), np.sin(yaw / 2)
    qpos[:, 3:7] = np.stack([w * c - z * s, x * c + y * s, y * c - x * s, z * c + w * s], axis=1)
    qpos[:, 7:] += joints
    return qpos, np.zeros((n, model.nv))


def set_payload_mass(spec: mujoco.MjSpec, mass: float) -> None:
    """A solid cube of that mass in kg, standing on the trunk."""
    payload, side = spec.body("payload"), (mass / PAYLOAD_DENSITY) ** (1 / 3)
    payload.mass = mass
    payload.inertia = np.full(3, mass * side**2 / 6)
    payload.pos[2] = (GO1.trunk_size[2] + side) / 2
    payload.geoms[0].size = np.full(3, max(side, 0.01) / 2)


def set_payload_place(spec: mujoco.MjSpec, place: float, axis: int) -> None:
    """Place on the trunk's x or y axis, m."""
    spec.body("payload").pos[axis] = place


def set_friction(spec: mujoco.MjSpec, friction: float) -> None:
    """Of the robot, whose geoms have priority over the ground's."""
    for geom in spec.body("trunk").find_all("geom"):
        geom.friction[0] = friction


def scale_motor(motor: mujoco.MjsActuator, gains: float = 1.0, damping: float = 1.0, limit: float = 1.0) -> None:
    """Multiply the proportional and the derivative gain and the torque limit."""
    motor.gainprm[0] *= gains
    motor.biasprm[:3] *= (gains, gains, damping)
    motor.forcerange *= limit


def scale_motors(spec: mujoco.MjSpec, value: float, per: float, **which: bool) -> None:
    """Scale what is named (gains, damping, limit) of all motors by value / per."""
    for motor in spec.actuators:
        scale_motor(motor, **{name: value / per for name, chosen in which.items() if chosen})


def weaken(spec: mujoco.MjSpec, joint: float, strength: float) -> None:
    """Multiply all that the motor of joint number `joint` gives by strength; -1: of none."""
    if (chosen := joint_number(joint)) >= 0:
        scale_motor(spec.actuators[chosen], strength, strength, strength)


def lock(spec: mujoco.MjSpec, joint: float) -> None:
    """Hold joint number `joint` at home; -1: none."""
    if (chosen := joint_number(joint)) >= 0:
        spec.equality(JOINTS[chosen]).active = True


def joint_number(value: float) -> int:
    """The index among JOINTS, or -1; ValueError for any other number."""
    if value != int(value) or not -1 <= value < len(JOINTS):
        raise ValueError(f"there is no joint number {value:g}; give 0 to {len(JOINTS) - 1}, or -1 for none")
    return int(value)


def set_joint_damping(spec: mujoco.MjSpec, damping: float) -> None:
    """Of every joint, besides kd, N m s/rad."""
    for name in JOINTS:
        spec.joint(name).damping[0] = damping


def set_joint_friction(spec: mujoco.MjSpec, loss: float) -> None:
    """Friction loss of every joint, N m."""
    for name in JOINTS:
        spec.joint(name).frictionloss = loss


def scale_armature(spec: mujoco.MjSpec, factor: float) -> None:
    """Multiply the rotors' inertia as every joint feels it."""
    for name in JOINTS:
        spec.joint(name).armature *= factor


def move_centre(spec: mujoco.MjSpec, displacement: float, axis: int) -> None:
    """Of the trunk's mass, m."""
    spec.body("trunk").ipos[axis] += displacement


def set_delay(spec: mujoco.MjSpec, delay: float, longest: float) -> None:
    """From control signal to torque, s; MuJoCo keeps as many old signals as `longest` asks for."""
    if delay > longest + 1e-9:
        raise ValueError(f"action_delay {delay:g} s is longer than the family's longest, {longest:g} s")
    for motor in spec.actuators:
        motor.delay = delay


def set_slope(spec: mujoco.MjSpec, angle: float) -> None:
    """Turn the ground about y so that it rises along x by that angle, rad."""
    spec.geom("floor").quat = (math.cos(angle / 2), 0.0, -math.sin(angle / 2), 0.0)


def base(settings: QuadrupedSettings) -> mujoco.MjSpec:
    """The Go1, with the payload's body, the locks and the memory of delayed signals where the settings need them."""
    spec = build(GO1, TIMESTEP)
    if any(settings.payload_mass):
        payload = spec.body("trunk").add_body(name="payload", explicitinertial=True, ipos=(0, 0, 0))
        payload.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, contype=0, conaffinity=0, size=(0.01,) * 3, rgba=(0.8, 0.5, 0.2, 1)
        )
        set_payload_mass(spec, 0.0)
    for name in JOINTS if settings.locked_joints else ():
        spec.add_equality(
            name=name,
            type=mujoco.mjtEq.mjEQ_JOINT,
            objtype=mujoco.mjtObj.mjOBJ_JOINT,
            name1=name,
            active=False,
            data=[HOME_POSE[JOINTS.index(name)]] + [0.0] * 11,
            solref=(2 * TIMESTEP, 1.0),
            solimp=(0.999, 0.9999, 0.001, 0.5, 2.0),
        )
    longest = max(settings.action_delay)
    for motor in spec.actuators if longest > 0 else ():
        motor.nsample = math.ceil(longest / TIMESTEP - 1e-9)
    return spec


def _vary(
    name: str, unit: str, span: tuple[float, ...], neutral: float, law: Law, least: float = -math.inf
) -> tuple[Parameter, ...]:
    """The parameter, if its range asks for one: none where the quantity is neutral in every task."""
    if len(span) != 2:
        raise ValueError(f"{name} must be a range of two numbers, low and high; got {list(span)}")
    low, high = span
    if low < least:
        raise ValueError(f"{name} must not be below {least:g} {unit}, got {low:g}")
    if low == high == neutral:
        return ()
    try:
        distribution = Choice((low,)) if low == high else Uniform(low, high)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return (Parameter(name, unit, distribution, law, low if low == high else neutral),)


def _one_of(name: str, joints: tuple[str, ...], law: Law) -> tuple[Parameter, ...]:
    """The parameter that one of the joints, or none, is chosen by."""
    for joint in joints:
        if joint not in JOINTS:
            raise ValueError(f"{name}s has {joint!r}, which is no joint; the joints are {', '.join(JOINTS)}")
    if not joints:
        return ()
    return (Parameter(name, "index", Choice((-1.0, *(float(JOINTS.index(j)) for j in joints))), law, neutral=-1.0),)


def parameters(settings: QuadrupedSettings) -> tuple[Parameter, ...]:
    """What the settings vary."""
    partial, longest = functools.partial, max(settings.action_delay)
    has_payload = any(settings.payload_mass)
    varied = (
        *_vary("payload_mass", "kg", settings.payload_mass, 0.0, Law("cube on the back", set_payload_mass), 0.0),
        *(
            p
            for axis, name in enumerate(("payload_x", "payload_y"))
            for p in _vary(
                name,
                "m",
                getattr(settings, name) if has_payload else (0.0, 0.0),
                0.0,
                Law("place of the payload on the trunk", partial(set_payload_place, axis=axis)),
            )
        ),
        *_vary("friction", "1", settings.friction, GO1.friction, Law("with the ground", set_friction), 0.0),
        *_vary(
            "motor_strength",
            "1",
            settings.motor_strength,
            1.0,
            Law(
                "torque limits and gains x value", partial(scale_motors, per=1.0, gains=True, damping=True, limit=True)
            ),
            0.0,
        ),
        *_vary("kp", "N m/rad", settings.kp, GO1.kp, Law("gain", partial(scale_motors, per=GO1.kp, gains=True)), 0.0),
        *_vary(
            "kd", "N m s/rad", settings.kd, GO1.kd, Law("gain", partial(scale_motors, per=GO1.kd, damping=True)), 0.0
        ),
        *_vary(
            "joint_damping",
            "N m s/rad",
            settings.joint_damping,
            GO1.joint_damping,
            Law("of every joint, besides kd", set_joint_damping),
            0.0,
        ),
        *_vary(
            "joint_friction",
            "N m",
            settings.joint_friction,
            GO1.joint_friction,
            Law("friction loss of every joint", set_joint_friction),
            0.0,
        ),
        *_vary(
            "armature",
            "1",
            settings.armature,
            1.0,
            Law("rotor inertia of every joint x value", scale_armature),
            0.0,
        ),
        *(
            p
            for axis, name in enumerate(("com_x", "com_y", "com_z"))
            for p in _vary(
                name,
                "m",
                getattr(settings, name),
                0.0,
                Law("displaces the trunk's centre of mass", partial(move_centre, axis=axis)),
            )
        ),
        *_vary(
            "action_delay",
            "s",
            settings.action_delay,
            0.0,
            Law("from action to torque", partial(set_delay, longest=longest)),
            0.0,
        ),
        *_vary("slope", "rad", settings.slope, 0.0, Law("ground rises along x", set_slope)),
        *_one_of(
            "weak_joint",
            settings.weak_joints,
            Law(
                f"motor of one joint, or none (-1), x {settings.weak_strength:g}",
                partial(weaken, strength=settings.weak_strength),
            ),
        ),
        *_one_of("locked_joint", settings.locked_joints, Law("one joint, or none (-1), held at home", lock)),
        *_vary("sensor_noise", "1", settings.sensor_noise, 0.0, Law("factor on the sensors' noise"), 0.0),
        *_vary("push_velocity", "m/s", settings.push_velocity, 0.0, Law("kick to the trunk at intervals"), 0.0),
    )
    commands = tuple(
        _vary(name, unit, getattr(settings, name), 0.0, Law("command, observed"))
        for name, unit in zip(COMMAND, COMMAND_UNITS, strict=True)
    )  # made in either case, so that a wrong range is refused
    return varied + sum(commands, ()) if settings.command == "task" else varied


def quadruped(settings: QuadrupedSettings) -> TaskFamily:
    """The family that the settings describe."""
    varied = parameters(settings)
    names = {p.name for p in varied}
    sensors = tuple(sensor for sensor in ELEMENTS if sensor != "velocity" or settings.observe_velocity)
    deviations = np.concatenate(
        [np.full(len(ELEMENTS[sensor]), NOISE.get(sensor, 0.0) / math.sqrt(3)) for sensor in sensors]
    )
    push_every = round(settings.push_interval / DT)
    if push_every < 1:
        raise ValueError(f"push_interval must be at least {DT:g} s, got {settings.push_interval:g}")
    command = np.array([getattr(settings, name) for name in COMMAND])
    robot = build(GO1, TIMESTEP).compile()
    return TaskFamily(
        name="quadruped",
        description="quadruped (Go1) that follows velocity commands, whatever its load, motors and ground",
        base=base(settings).copy,
        parameters=varied,
        changes=Changes.of(settings, *settings.changing),
        observe=functools.partial(observe, sensors=sensors, deviations=deviations if "sensor_noise" in names else None),
        observation_names=tuple(element for sensor in sensors for element in ELEMENTS[sensor]),
        rewards={name: RewardTerm(function, weight * DT) for name, (function, weight) in REWARDS.items()},
        reset=reset,
        action_low=np.full(len(JOINTS), -ACTION_LIMIT),
        action_high=np.full(len(JOINTS), ACTION_LIMIT),
        horizon=settings.horizon,
        frame_skip=FRAME_SKIP,
        control=read_signals(robot, "position from home", home=robot.key("home").qpos),
        action_scale=settings.action_scale,
        terminate=fallen,
        measures={
            "velocity_error": Measure(velocity_error, "m/s", "mean"),
            "yaw_rate_error": Measure(yaw_rate_error, "rad/s", "mean"),
            **measures.falls(fallen),
            **measures.energy(path),
        },
        success=(Criterion("velocity_error", high=VELOCITY_TOLERANCE), Criterion("falls", high=0)),
        actuate=functools.partial(actuate, push_every=push_every if "push_velocity" in names else 0),
        memory={
            "command": (3,),
            "action": (len(JOINTS),),
            "action_change": (len(JOINTS),),
            "joint_velocity": (len(JOINTS),),
            "air_time": (NUM_FEET,),
            "landing": (),
        },
        begin=functools.partial(begin, low=command[:, 0], high=command[:, 1], drawn=settings.command == "episode"),
        update=update,
        noisy=True,
        settings=settings,
    )


def quadruped_terrain(settings: QuadrupedTerrainSettings) -> TaskFamily:
    """The quadruped on uneven ground."""
    if any(settings.slope):
        raise ValueError(f"slope is {list(settings.slope)}; on terrain, slopes are a kind of ground: leave it at 0, 0")
    around = settings.ground_around
    return dataclasses.replace(
        on_terrain(
            quadruped(settings),
            settings,
            field=Field(around, around, around, TERRAIN_PATCH, cell=TERRAIN_CELL),
            root=FREE,
            lift=0.0,
        ),
        name="quadruped_terrain",
        description="quadruped (Go1) that follows velocity commands on ground that it has to find out about",
    )
