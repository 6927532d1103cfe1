"""The YAML file of a robot: additions to its model, the task, and the distribution of tasks. It is read strictly."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from metarl.envs import code
from metarl.envs.declared.ends import Termination
from metarl.envs.declared.entries import CommandEntry, ObservationEntry, RewardEntry, said_of
from metarl.envs.declared.observations import OBSERVATIONS
from metarl.envs.declared.rewards import REWARDS
from metarl.envs.declared.rig import COMMANDS
from metarl.envs.faults.settings import FaultKind, FaultSettings
from metarl.envs.own_robot.declared_ranges import declared_in
from metarl.envs.own_robot.hooks import naming_functions
from metarl.envs.parameters import Choice, Distribution, LogUniform, Uniform
from metarl.envs.terrain.settings import TerrainKind
from metarl.envs.text import WHOLE, near, one_line, shown

Axis = Literal["x", "y", "z", "-x", "-y", "-z"]
Operation = Literal["set", "scale", "add"]


@dataclass(frozen=True)
class Actuators:
    """Actuators to add to a robot that has none, one per joint, or to put in place of its torque motors."""

    kind: Literal["position", "velocity", "motor"]
    """position: a servo that holds a joint position; velocity: one that holds a joint's speed, whose torque is
    kd x (speed asked for - speed); motor: the action is a torque (or a force)."""
    joints: str = ".*"
    """Regular expression over the names of the joints that get one."""
    kp: float | None = None
    """Stiffness of a position servo, N m/rad (N/m)."""
    kd: float = 0.0
    """Damping of a position servo, or gain of a velocity servo, N m s/rad (N s/m)."""
    gains: dict[str, tuple[float, float]] = field(default_factory=dict)
    """[kp, kd] by regular expression over joint names, where they are others than kp and kd; the first match counts.
    A velocity servo's kp is 0."""
    speed: float | None = None
    """Largest speed that a velocity servo is asked for, rad/s (m/s)."""
    speeds: dict[str, float] = field(default_factory=dict)
    """Largest speed by regular expression over joint names, where it is another than `speed`."""
    force: float | None = None
    """Largest torque (force), N m (N), at most the joint's limit in the model; not given: that limit."""
    forces: dict[str, float] = field(default_factory=dict)
    """Largest torque (force) by regular expression over joint names, where it is another than `force`."""
    armature: float | None = None
    """Inertia that the rotors add to each joint, kg m^2 (kg); not given: the model's."""
    armatures: dict[str, float] = field(default_factory=dict)
    """Inertia of the rotors by regular expression over joint names, where it is another than `armature`."""


@dataclass(frozen=True)
class Hints:
    """Facts about the robot that its model lacks or gets wrong."""

    base: str | None = None
    """Body whose motion is taken as the robot's."""
    feet: tuple[str, ...] | None = None
    """Bodies that it stands on, or single geoms of them, where the rest of the body is no foot."""
    floating: bool | None = None
    """true: add a free joint to a base that is fixed to the world."""
    keyframe: str | None = None
    """Keyframe that is the home pose."""
    pose: dict[str, float] = field(default_factory=dict)
    """Home position by regular expression over joint names, rad (m), on top of the keyframe or the model's."""
    height: float | None = None
    """Height of the first body that moves over the ground at home, m."""
    actuators: Actuators | None = None
    """Actuators to add to a robot that has none, or to put in place of its torque motors."""
    floor: bool | None = None
    """true: add a level floor at height 0; false: add none; not given: add one if the robot would fall without it."""
    exclude: tuple[tuple[str, str], ...] = ()
    """Pairs of bodies that do not collide, besides those that the model excludes; a URDF cannot exclude any."""
    self_collisions: bool = True
    """false: the robot's bodies touch its scene and not each other, which is quicker to simulate."""
    timestep: float | None = None
    """Simulation step, s, in place of the model's."""
    integrator: Literal["euler", "implicitfast", "implicit", "rk4"] | None = None
    """Integrator in place of the model's; implicitfast takes larger steps with stiff servos."""
    up: Axis | None = None
    """Axis of the base that points up at home; not given: z."""
    forward: Axis | None = None
    """Axis of the base that points forwards; not given: x, or the axis along the world's x at home if up is not z."""


@dataclass(frozen=True)
class Goal:
    """What is to be brought to a target."""

    effector: str
    """Site or body that reaches."""
    object: str | None = None
    """Body that it is to bring there; not given: the effector itself is."""
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The target in the world, m, in coordinates that no parameter (goal_x, goal_y, goal_z) is."""
    orientation: tuple[float, float, float, float] | None = None
    """Orientation of the target in the world as a quaternion w, x, y, z, before parameters of goal_roll, goal_pitch and
    goal_yaw turn it; not given: any, or with such a parameter the world's."""


@dataclass(frozen=True)
class OwnActuator:
    """A model of the actuators, such as a network that was trained on the robot's."""

    function: str
    """Your own function(state), file.py:function, which returns the control signals, [S, motors], before each
    simulation step. `state.action` is the action, `state.memory["actuator"]` its memory. Its code is run."""
    memory: int = 0
    """Numbers that it may keep for each robot, 0 when an episode starts."""


@dataclass(frozen=True)
class Control:
    """How the action acts."""

    dt: float | None = None
    """Control step, s: a multiple of the model's timestep. Not given: the multiple nearest to 0.02 s."""
    action_scale: float = 1.0
    """Factor on the action before it is clipped."""
    limit: float | None = None
    """Largest control signal of actuators that have no control range."""
    delay: float = 0.0
    """Time from an action to its effect, s, in simulation steps, besides the delays of the model's own actuators; the
    quantity action_delay varies the sum."""
    actuator: OwnActuator | None = None
    """A model of the actuators, whose control signals then follow from it, and not from the action alone."""


@dataclass(frozen=True)
class EpisodeRules:
    """Starts and length."""

    horizon: int = 200
    """Control steps."""
    position_noise: float = 0.02
    """Joints start at the home pose ± U(this), rad, within limits; of a limited slide: share of half its range."""
    velocity_noise: float = 0.05
    """Standard deviation of the joints' velocities at the start, rad/s; of a limited slide: half ranges a second."""
    random_heading: bool = False
    """Whether a floating base starts turned by any angle about the normal of its ground."""
    drop: float = 0.0
    """Height over home, along the normal of its ground, at which a floating base starts, m."""


@dataclass(frozen=True)
class Splits:
    """Values of the splits that are not trained on: two ends, or all values of a choice."""

    held_out: tuple[float, ...] | None = None
    """Values of held-out tasks; not given: values of the training range that training never draws, and of a choice, of
    which training draws all, the same."""
    ood: tuple[float, ...] | None = None
    """Values of out-of-distribution tasks."""


@dataclass(frozen=True)
class DeclaredParameter:
    """One parameter of the distribution."""

    name: str
    """Name in tasks, logs and reports."""
    quantity: str
    """Quantity that is varied."""
    distribution: Literal["uniform", "log_uniform", "choice"]
    """Distribution of the training values."""
    range: tuple[float, ...]
    """Two ends, or all values of a choice."""
    operation: Operation | None = None
    """How a value changes each target; not given: as its quantity alone can. What an entry varies, a later one can
    scale, and not set or add to."""
    target: str | None = None
    """Regular expression over the names of bodies, geoms, joints or actuators, depending on the quantity."""
    splits: Splits = field(default_factory=Splits)
    """Values of other splits."""
    neutral: float | None = None
    """Value at which the robot is unchanged: scale multiplies by value / neutral and add adds value - neutral. Needed
    where set finds targets whose defaults differ."""
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Position of a payload in its body's frame, m."""
    stands_on: str | None = None
    """Box of its body on whose top a payload stands as a cube; not given: it is a sphere at its position."""
    payload_density: float = 2000.0
    """Density of the cube, kg/m^3."""
    function: str | Callable[[Any, float], None] | None = None
    """Your own function(spec, value), file.py:function, which edits an MjSpec of the robot, for quantity python. Its
    code is run."""
    unit: str = "1"
    """Unit of the values of quantity python."""
    above: float | None = None
    """Bound that values must be greater than; not given: the quantity's own."""
    says: str = ""
    """What the parameter is, in your own words, for tables and reports; not given: operation, quantity and targets."""

    def distributions(self) -> tuple[Distribution, Distribution | None, Distribution | None]:
        """Return the distributions of training, held-out and out-of-distribution tasks."""
        held_out, ood = (None if r is None else self._of(r, "splits") for r in (self.splits.held_out, self.splits.ood))
        return self._of(self.range, "range"), held_out, ood

    def values(self) -> tuple[float, ...]:
        """Return all numbers of the ranges of all splits."""
        return (*self.range, *(self.splits.held_out or ()), *(self.splits.ood or ()))

    def _of(self, values: tuple[float, ...], key: str) -> Distribution:
        try:
            if self.distribution == "choice":
                return Choice(values)
            if len(values) != 2:
                raise ValueError(f"{self.distribution} takes two ends, got {list(values)}")
            return (Uniform if self.distribution == "uniform" else LogUniform)(*values)
        except ValueError as error:
            raise ValueError(f"{self.name!r}, {key}: {error}") from None


@dataclass(frozen=True)
class DeclaredFaults:
    """Faults that tasks may have, as `metarl.envs.faults.settings` explains them."""

    kinds: tuple[FaultKind, ...] = ()
    """Kinds of faults, of which a task has one."""
    share: float = 1.0
    """Share of tasks that have a fault."""
    places: tuple[str, ...] = ()
    """Joints, actuators, observation terms or groups that can fail, by name or regular expression such as .*_calf; one
    element of a term by name."""
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Joints or actuators that can fail together, as those of a leg, by name or regular expression, by their group."""
    held_out: tuple[str, ...] = ()
    """Places that fail in held-out tasks and never in training tasks; all, as by .*: training tasks have no fault."""
    severity: tuple[float, float] = (0.5, 1.0)
    """Least and largest severity, in [0, 1]; of an encoder's offset, scale and drift also from -1."""
    onset: tuple[int, int] = (0, 0)
    """Fewest and most control steps of a trial before the fault begins."""
    duration: tuple[int, int] = (0, 0)
    """Fewest and most control steps that the fault lasts; 0, 0: for good."""
    repeats: int = 0
    """How often the fault comes back, with a severity drawn anew."""
    pause: tuple[int, ...] = ()
    """Fewest and most control steps between two of its times; 0, 0: it jumps; not given: as long as a duration."""

    def settings(self) -> FaultSettings:
        """Return them as settings; ValueError for those of no fault."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("kinds", "groups")}
        without = DeclaredFaults()
        given = [name for name, value in values.items() if value != getattr(without, name)]
        if given and not self.kinds:
            raise ValueError(f"faults.{given[0]} is given without faults.kinds, so that no task has a fault; give both")
        return FaultSettings(faults=self.kinds, **{f"fault_{name}": value for name, value in values.items()})


@dataclass(frozen=True)
class DeclaredCommands:
    """Velocities that the robot is asked for, drawn in each episode."""

    forward_velocity: tuple[float, float] | None = None
    """Lowest and highest velocity forwards, m/s."""
    sideways_velocity: tuple[float, float] | None = None
    """Lowest and highest velocity to the left, m/s."""
    yaw_rate: tuple[float, float] | None = None
    """Lowest and highest rate of turning to the left, rad/s."""
    every: float = 0.0
    """Seconds after which they are drawn anew within an episode; 0: never."""
    standing: float = 0.0
    """Share of draws that ask the robot to stand."""

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return lowest and highest value by component."""
        return {name: ends for name in COMMANDS if (ends := getattr(self, name)) is not None}

    def entry(self) -> CommandEntry:
        """Return them as terms take them; ValueError for a wrong one."""
        for name, (low, high) in self.ranges().items():
            if low > high:
                raise ValueError(f"commands.{name} [{low:g}, {high:g}] is reversed; give low <= high")
        if not 0 <= self.standing < 1:
            raise ValueError(f"commands.standing is {self.standing:g}; it must be at least 0 and below 1")
        if self.every < 0:
            raise ValueError(f"commands.every is {self.every:g} s; it must not be negative")
        if not self.ranges() and (self.every or self.standing):
            raise ValueError("commands draws nothing; give forward_velocity, sideways_velocity or yaw_rate a range")
        return CommandEntry(self.ranges(), self.every, self.standing)


@dataclass(frozen=True)
class DeclaredPushes:
    """Pushes of a floating base, in random horizontal directions."""

    velocity: float | None = None
    """Velocity that a push adds, m/s; not given: the parameter of quantity push_velocity says it."""
    every: float = 5.0
    """Seconds between pushes."""


@dataclass(frozen=True)
class DeclaredChanges:
    """Parameters that change while a task lasts."""

    parameters: tuple[str, ...]
    """Names of the parameters that are drawn anew at each change."""
    count: int = 1
    """Changes a task."""
    gap: tuple[int, int] = (100, 300)
    """Fewest and most control steps before each change, and between two."""


@dataclass(frozen=True)
class DeclaredTerrain:
    """Ground in place of a level floor, which differs from task to task."""

    kinds: tuple[TerrainKind, ...] = ("flat", "slope", "stairs_up", "stairs_down", "rough", "waves", "obstacles")
    """Kinds of ground of training tasks and of held-out tasks."""
    proportions: tuple[float, ...] = ()
    """Relative frequency of each of the kinds; not given: all are equally frequent."""
    ood_kinds: tuple[TerrainKind, ...] = ("stepping_stones", "gaps")
    """Kinds of ground of out-of-distribution tasks, never trained on."""
    difficulty: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest difficulty, in [0, 1]."""
    height_scan: bool = False
    """Whether the heights of the ground around the robot are observed."""
    around: float = 6.5
    """Length of the ground on all sides of the start, m; an episode is cut a metre before its end."""
    patch: float = 0.9
    """Half the side of the flat square at the start, m; what stands on the floor at home stands on it."""
    cell: float = 0.075
    """Distance of the ground's grid points, m."""
    promote_at: float = 4.0
    """Curriculum: mean return at which a kind of ground goes up a level."""
    demote_at: float = 2.0
    """Curriculum: mean return below which it goes down a level."""


def _observations(value: Any, where: str) -> dict[str, ObservationEntry] | None:
    """Read terms of an observation: a list of names, or a mapping of names to what is said of each."""
    if value is None:
        return None
    if isinstance(value, list):
        entries: dict[str, Any] = {}
        for i, entry in enumerate(value):
            name, said = next(iter(entry.items())) if isinstance(entry, Mapping) and len(entry) == 1 else (entry, None)
            name = _read(name, str, f"{where}[{i}]")
            if name in entries:
                raise ValueError(f"{where} has {name!r} more than once; list it once")
            entries[name] = said
        value = entries
    _require_mapping(value, where)
    if not value:
        raise ValueError(f"{where} is empty; choose from {', '.join(OBSERVATIONS)}")
    return {str(name): _observation(said, str(name), f"{where}.{name}") for name, said in value.items()}


def _observation(value: Any, name: str, where: str) -> ObservationEntry:
    said = {} if value is None else value
    _require_mapping(said, where)
    term = _read(said.get("term", name), str, f"{where}.term")
    if term not in OBSERVATIONS:
        raise ValueError(f"{where}: there is no term {term!r}{near(term, OBSERVATIONS)}")
    common, own = said_of(ObservationEntry), OBSERVATIONS[term].types
    given = {key: _read(v, _type_of(key, common | own, where), f"{where}.{key}") for key, v in said.items()}
    entry = ObservationEntry(
        **{"term": term, **{key: v for key, v in given.items() if key in common}},
        settings={key: v for key, v in given.items() if key not in common},
    )
    if entry.noise < 0 or entry.scale <= 0 or entry.clip <= 0 or entry.history < 1:
        raise ValueError(f"{where}: noise must not be negative, scale and clip be above 0, and history be at least 1")
    return entry


def _rewards(value: Any, where: str) -> dict[str, RewardEntry]:
    """Read terms of the reward: a weight each, or what is said of each."""
    _require_mapping(value, where)
    return {str(name): _reward(said, str(name), f"{where}.{name}") for name, said in value.items()}


def _reward(value: Any, name: str, where: str) -> RewardEntry:
    said = dict(value) if isinstance(value, Mapping) else {"weight": value}
    term = _read(said.get("term", name), str, f"{where}.term")
    if term not in REWARDS:
        raise ValueError(f"{where}: there is no term {term!r}{near(term, REWARDS)}")
    if "weight" not in said:
        raise ValueError(f"{where} lacks weight")
    types = said_of(RewardEntry) | REWARDS[term].types
    given = {key: _read(v, _type_of(key, types, where), f"{where}.{key}") for key, v in said.items()}
    weight = given.pop("weight")
    given.pop("term", None)
    if weight <= 0:
        raise ValueError(f"{where} is {weight:g}; a weight must be positive (costs and errors are subtracted anyway)")
    return RewardEntry(term, weight, given)


def _type_of(key: str, types: Mapping[str, Any], where: str) -> Any:
    if key not in types:
        raise ValueError(f"unknown key {shown(f'{where}.{key}')}{near(key, types)}")
    return types[key]


@dataclass(frozen=True)
class Declaration:
    """Content of the file."""

    distribution: tuple[DeclaredParameter, ...] = ()
    """The parameters of the tasks."""
    robot: Hints = field(default_factory=Hints)
    """Facts that the model lacks or gets wrong."""
    control: Control = field(default_factory=Control)
    """How the action acts."""
    episode: EpisodeRules = field(default_factory=EpisodeRules)
    """Starts and length."""
    commands: DeclaredCommands = field(default_factory=DeclaredCommands)
    """Velocities that the robot is asked for, drawn in each episode."""
    goal: Goal | None = None
    """What is to be brought to a target."""
    contacts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Bodies or geoms by the name of a group: names, or regular expressions in full; `feet` is one by itself."""
    observation: Annotated[Mapping[str, ObservationEntry] | None, _observations] = None
    """Terms of the observation, in order; not given: those that suit the base."""
    privileged: Annotated[Mapping[str, ObservationEntry] | None, _observations] = None
    """Terms, with neither noise, scale, clip nor history, that teachers and critics (`agent.privileged_critic`) are
    trained with, and the policy on the robot does not have."""
    reward: Annotated[Mapping[str, RewardEntry], _rewards] = field(default_factory=dict)
    """Weight of each term, or its weight and its settings."""
    rewards_per: Literal["step", "second"] = "step"
    """Whether weights count a control step or a second."""
    termination: Termination = field(default_factory=Termination)
    """When an episode ends for good."""
    pushes: DeclaredPushes | None = None
    """Pushes of the base."""
    terrain: DeclaredTerrain | None = None
    """Ground in place of the floor."""
    changes: DeclaredChanges | None = None
    """Parameters that change while a task lasts."""
    faults: DeclaredFaults = field(default_factory=DeclaredFaults)
    """Faults that tasks may have; the setting `faults` replaces them."""


def read_declaration(path: str | Path) -> Declaration:
    """Read the file; ValueError names file, key and value of a mistake."""
    data = declared_in(path)
    for place in naming_functions(data):
        place["function"] = code.placed(place["function"], Path(path).parent)
    try:
        return _declared({} if data is None else data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def declaration_of(said: Mapping[str, Any]) -> Declaration:
    """Return what a mapping with the keys of the file declares, in which a function may stand for its name."""
    return _declared(_plain(said))


def _plain(value: Any) -> Any:
    """Return a value as YAML has it: mappings, lists and scalars, and functions by a name that this process knows."""
    if isinstance(value, Mapping):
        return {key: _plain(of_key) for key, of_key in value.items()}
    if isinstance(value, tuple | list | np.ndarray):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    return code.hold(value) if callable(value) else value


def _declared(data: Any) -> Declaration:
    declaration = _read(data, Declaration, "")
    if not declaration.distribution and not declaration.faults.kinds and declaration.terrain is None:
        raise ValueError("distribution is empty; declare at least one parameter, terrain, or faults")
    names = [entry.name for entry in declaration.distribution]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"distribution: two parameters are named {shown(name)}")
    return declaration


def one_of(name: str, valid: list[str], what: str) -> str:
    """Return the name if it is valid; otherwise raise ValueError with the nearest."""
    if name not in valid:
        raise ValueError(f"{what} {name!r} is not in the model{near(name, valid)}")
    return name


def _read(value: Any, annotation: Any, where: str) -> Any:
    """Convert `value` to the annotated type; `where` is its dotted key."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return arguments[1](value, where)
    if origin in (types.UnionType, typing.Union):  # X | None
        if value is None and dataclasses.is_dataclass(arguments[0]):
            raise ValueError(
                f"{where} is empty; write {where.rpartition('.')[2]}: {{}} for its defaults, or leave it out"
            )
        return None if value is None else _read(value, arguments[0], where)
    if dataclasses.is_dataclass(annotation):
        return _build(typing.cast(type, annotation), value, where)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where} is {shown(value)}{near(str(value), arguments)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} is {shown(value)}; it must be a list")
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise ValueError(f"{where} is {shown(value)}; it must have {len(arguments)} entries")
        return tuple(_read(entry, arguments[0], f"{where}[{i}]") for i, entry in enumerate(value))
    if origin is dict:
        _require_mapping(value, where)
        return {_read(k, str, where): _read(v, arguments[1], f"{where}.{k}") for k, v in value.items()}
    return _scalar(value, annotation, where)


def _build(cls: type, value: Any, where: str) -> Any:
    _require_mapping(value, where or "the file")
    kinds = typing.get_type_hints(cls, include_extras=True)
    for key in value:
        if key not in kinds:
            raise ValueError(f"unknown key {shown(f'{where}.{key}'.lstrip('.'))}{near(str(key), kinds)}")
    label = f"{where} ({one_line(str(value['name']), 60)})" if "name" in value and "name" in kinds else where
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is f.default_factory is dataclasses.MISSING and f.name not in value
    ]
    if missing:
        raise ValueError(f"{label or 'the file'} lacks {', '.join(missing)}")
    return cls(**{key: _read(v, kinds[key], f"{label}.{key}".lstrip(".")) for key, v in value.items()})


def _scalar(value: Any, kind: type, where: str) -> Any:
    if kind in (int, float) and isinstance(value, str):  # YAML 1.1 reads 1e5 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind is int and type(value) is int and not -WHOLE <= value < WHOLE:
        raise ValueError(f"{where} is {shown(value)}; it must fit in 64 bits")
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        expected = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}[kind]
        raise ValueError(f"{where} is {shown(value)}; it must be {expected}")
    return value


def _require_mapping(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is {shown(value)}; it must be a mapping of names to values")
