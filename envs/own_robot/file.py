"""The YAML file beside a robot: what its model does not say, the task, and the distribution. Read strictly."""

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

from metarl.envs.parameters import Choice, Distribution, LogUniform, Uniform
from metarl.envs.strict_yaml import read_yaml
from metarl.envs.text import WHOLE, one_line, shown

Axis = Literal["x", "y", "z", "-x", "-y", "-z"]


@dataclass(frozen=True)
class Actuators:
    """Actuators to add to a robot that has none, one a joint."""

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
    """Largest torque (force), N m (N), at most the model's limit of the joint; not given: that limit."""


@dataclass(frozen=True)
class Hints:
    """What the model does not say, or says otherwise than meant."""

    base: str | None = None
    """Body whose motion is the robot's."""
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
    """true: add a level floor at height 0; false: add none; not given: add one if the robot would fall without."""
    exclude: tuple[tuple[str, str], ...] = ()
    """Pairs of bodies that do not touch each other, besides those that the model excludes: a URDF cannot say so."""
    up: Axis | None = None
    """Axis of the base that points up at home, where it is not z."""
    forward: Axis | None = None
    """Axis of the base that points forwards; not given: x, or that along the world's x at home if up is not z."""


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
class Episode:
    """Starts and length."""

    horizon: int = 200
    """Control steps."""
    position_noise: float = 0.02
    """Joints start at the home pose ± U(this), rad, within limits; of a limited slide: share of half its range."""
    velocity_noise: float = 0.05
    """Standard deviation of the joints' velocities at the start, rad/s; of a limited slide: half ranges a second."""


@dataclass(frozen=True)
class Termination:
    """When an episode ends for good; without any bound: never."""

    height: tuple[float, float] | None = None
    """The base must stay within these heights over the ground, m."""
    tilt: float | None = None
    """Largest angle between the base's up and the world's, rad."""


@dataclass(frozen=True)
class Splits:
    """Values of other splits: two ends, or all values of a choice."""

    held_out: tuple[float, ...] | None = None
    """Of tasks to evaluate on; not given: the training range, at values that training never draws."""
    ood: tuple[float, ...] | None = None
    """Of out-of-distribution tasks."""


@dataclass(frozen=True)
class Entry:
    """One parameter of the distribution."""

    name: str
    """Its name in tasks, logs and reports."""
    quantity: str
    """What is varied."""
    distribution: Literal["uniform", "log_uniform", "choice"]
    """Of the training values."""
    range: tuple[float, ...]
    """Two ends; of a choice: all values."""
    operation: Literal["set", "scale", "add"] | None = None
    """What a value does to each target's default; always the default of the model, whatever came before."""
    target: str | None = None
    """Regular expression over the names of bodies, geoms, joints or actuators, whichever the quantity is of."""
    splits: Splits = field(default_factory=Splits)
    """Values of other splits."""
    neutral: float | None = None
    """Value at which the robot counts as unchanged, where the targets' defaults do not tell."""
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of a payload in its body's frame, m."""

    def distributions(self) -> tuple[Distribution, Distribution | None, Distribution | None]:
        """Of training, held-out and out-of-distribution tasks."""
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
class Declaration:
    """All that the file says."""

    distribution: tuple[Entry, ...]
    """The parameters of the tasks."""
    robot: Hints = field(default_factory=Hints)
    """What the model does not say."""
    control: Control = field(default_factory=Control)
    """How the action acts."""
    episode: Episode = field(default_factory=Episode)
    """Starts and length."""
    observation: tuple[str, ...] | None = None
    """Parts of the observation, in order; not given: what suits the base."""
    reward: dict[str, float] = field(default_factory=dict)
    """Weight of each term."""
    termination: Termination = field(default_factory=Termination)
    """When an episode ends for good."""


def read_declaration(path: str | Path) -> Declaration:
    """The file's content; ValueError names file, key and value of whatever is wrong."""
    try:
        data = read_yaml(Path(path))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    try:
        declaration = _read({} if data is None else data, Declaration, "")
        if not declaration.distribution:
            raise ValueError("distribution is empty; declare at least one parameter")
        names = [entry.name for entry in declaration.distribution]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"distribution: two parameters are named {shown(name)}")
        return declaration
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def near(name: str, valid: Iterable[str]) -> str:
    """What to say after a name that is none of the valid ones."""
    names = list(valid)
    close = difflib.get_close_matches(name[:80], names, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; there are {', '.join(names)}" if names else "; there are none"


def one_of(name: str, valid: list[str], what: str) -> str:
    """The name, if it is valid; otherwise ValueError names the nearest."""
    if name not in valid:
        raise ValueError(f"{what} {name!r} is not in the model{near(name, valid)}")
    return name


def _read(value: Any, annotation: Any, where: str) -> Any:
    """`value` as the annotated type; `where` is its dotted key."""
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
