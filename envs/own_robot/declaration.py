"""The YAML file of a robot: additions to its model, the task, and the distribution of tasks. It is read strictly."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from metarl.envs.faults.settings import FaultKind, FaultSettings
from metarl.envs.parameters import Choice, Distribution, LogUniform, Uniform
from metarl.envs.strict_yaml import read_yaml
from metarl.envs.text import WHOLE, one_line, shown

Axis = Literal["x", "y", "z", "-x", "-y", "-z"]


@dataclass(frozen=True)
class Actuators:
    """Actuators to add to a robot that has none, one per joint."""

    kind: Literal["position", "motor"]
    """position: a servo that holds a joint position; motor: the action is a torque (or a force)."""
    joints: str = ".*"
    """Regular expression over the names of the joints that get one."""
    kp: float | None = None
    """Stiffness of a position servo, N m/rad (N/m)."""
    kd: float = 0.0
    """Damping of a position servo, N m s/rad (N s/m)."""
    gains: dict[str, tuple[float, float]] = field(default_factory=dict)
    """[kp, kd] by regular expression over joint names, where they are others than kp and kd; the first match counts."""
    force: float | None = None
    """Largest torque (force), N m (N), at most the joint's limit in the model; not given: that limit."""


@dataclass(frozen=True)
class Hints:
    """Facts about the robot that its model lacks or gets wrong."""

    base: str | None = None
    """Body whose motion is taken as the robot's."""
    feet: tuple[str, ...] | None = None
    """Bodies that it stands on."""
    floating: bool | None = None
    """true: add a free joint to a base that is fixed to the world."""
    keyframe: str | None = None
    """Keyframe that is the home pose."""
    pose: dict[str, float] = field(default_factory=dict)
    """Home position by regular expression over joint names, rad (m), on top of the keyframe or the model's."""
    height: float | None = None
    """Height of the base over the ground at home, m."""
    actuators: Actuators | None = None
    """Actuators to add to a robot that has none."""
    floor: bool | None = None
    """true: add a level floor at height 0; false: add none; not given: add one if the robot would fall without it."""
    exclude: tuple[tuple[str, str], ...] = ()
    """Pairs of bodies that do not collide, besides those that the model excludes; a URDF cannot exclude any."""
    up: Axis | None = None
    """Axis of the base that points up at home; not given: z."""
    forward: Axis | None = None
    """Axis of the base that points forwards; not given: x, or the axis along the world's x at home if up is not z."""


@dataclass(frozen=True)
class Control:
    """How the action acts."""

    dt: float | None = None
    """Control step, s: a multiple of the model's timestep. Not given: the multiple nearest to 0.02 s."""
    action_scale: float = 1.0
    """Factor on the action before it is clipped."""
    limit: float | None = None
    """Largest control signal of actuators that have no control range."""


@dataclass(frozen=True)
class EpisodeRules:
    """Starts and length."""

    horizon: int = 200
    """Control steps."""
    position_noise: float = 0.02
    """Joints start at the home pose ± U(this), rad, within limits; of a limited slide: share of half its range."""
    velocity_noise: float = 0.05
    """Standard deviation of the joints' velocities at the start, rad/s; of a limited slide: half ranges a second."""


@dataclass(frozen=True)
class Termination:
    """Bounds outside of which an episode ends for good; without any: it never does."""

    height: tuple[float, float] | None = None
    """Lowest and highest height of the base over the ground, m."""
    tilt: float | None = None
    """Largest angle between the base's up and the world's, rad."""


@dataclass(frozen=True)
class Splits:
    """Values of the splits that are not trained on: two ends, or all values of a choice."""

    held_out: tuple[float, ...] | None = None
    """Values of held-out tasks; not given: values of the training range that training never draws."""
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
    operation: Literal["set", "scale", "add"] | None = None
    """How a value changes each target's default in the model, which no other parameter changes."""
    target: str | None = None
    """Regular expression over the names of bodies, geoms, joints or actuators, depending on the quantity."""
    splits: Splits = field(default_factory=Splits)
    """Values of other splits."""
    neutral: float | None = None
    """Value at which the robot is unchanged; needed where the targets' defaults differ."""
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Position of a payload in its body's frame, m."""

    def distributions(self) -> tuple[Distribution, Distribution | None, Distribution | None]:
        """Return the distributions of training, held-out and out-of-distribution tasks."""
        held_out, ood = (None if r is None else self._of(r, "splits") for r in (self.splits.held_out, self.splits.ood))
        return self._of(self.range, "range"), held_out, ood

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
    """Joints, actuators, observation terms or groups that can fail, by name or by pattern such as *_calf."""
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Joints or actuators that can fail together, by the name of the group, as those of a leg."""
    held_out: tuple[str, ...] = ()
    """Places that fail in held-out tasks and never in training tasks."""
    severity: tuple[float, float] = (0.5, 1.0)
    """Least and largest severity, in [0, 1]."""
    onset: tuple[int, int] = (0, 0)
    """Fewest and most control steps of a trial before the fault begins."""
    duration: tuple[int, int] = (0, 0)
    """Fewest and most control steps that the fault lasts; 0, 0: for good."""
    repeats: int = 0
    """How often the fault comes back."""

    def settings(self) -> FaultSettings:
        """Return them as settings."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("kinds", "groups")}
        return FaultSettings(faults=self.kinds, **{f"fault_{name}": value for name, value in values.items()})


@dataclass(frozen=True)
class Declaration:
    """Content of the file."""

    distribution: tuple[DeclaredParameter, ...]
    """The parameters of the tasks."""
    robot: Hints = field(default_factory=Hints)
    """Facts that the model lacks or gets wrong."""
    control: Control = field(default_factory=Control)
    """How the action acts."""
    episode: EpisodeRules = field(default_factory=EpisodeRules)
    """Starts and length."""
    observation: tuple[str, ...] | None = None
    """Terms of the observation, in order; not given: those that suit the base."""
    reward: dict[str, float] = field(default_factory=dict)
    """Weight of each term."""
    termination: Termination = field(default_factory=Termination)
    """When an episode ends for good."""
    faults: DeclaredFaults = field(default_factory=DeclaredFaults)
    """Faults that tasks may have; the setting `faults` replaces them."""


def read_declaration(path: str | Path) -> Declaration:
    """Read the file; ValueError names file, key and value of a mistake."""
    try:
        data = read_yaml(Path(path))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    try:
        declaration = _read({} if data is None else data, Declaration, "")
        if not declaration.distribution and not declaration.faults.kinds:
            raise ValueError("distribution is empty; declare at least one parameter, or faults")
        names = [entry.name for entry in declaration.distribution]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"distribution: two parameters are named {shown(name)}")
        return declaration
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def near(name: str, valid: Iterable[str]) -> str:
    """Return the end of a message about a name that is not valid: the nearest names, or all."""
    names = list(valid)
    close = difflib.get_close_matches(name[:80], names, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; there are {', '.join(names)}" if names else "; there are none"


def one_of(name: str, valid: list[str], what: str) -> str:
    """Return the name if it is valid; otherwise raise ValueError with the nearest."""
    if name not in valid:
        raise ValueError(f"{what} {name!r} is not in the model{near(name, valid)}")
    return name


def _read(value: Any, annotation: Any, where: str) -> Any:
    """Convert `value` to the annotated type; `where` is its dotted key."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):  # X | None
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
    kinds = typing.get_type_hints(cls)
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
