"""Families whose tasks have faults: `with_faults(family, settings)`, for built-in robots and one's own."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.family import TaskFamily
from metarl.envs.faults.kinds import KINDS
from metarl.envs.faults.parts import Anatomy, anatomy
from metarl.envs.faults.places import Places, obstacle, open_places, places_of
from metarl.envs.faults.sensors import ADDED, READINGS, SensorFaults, sensor_faults
from metarl.envs.faults.settings import FaultKind, FaultSettings
from metarl.envs.faults.signals import signal_faults
from metarl.envs.faults.where import KIND, NONE, NOWHERE, PLACE, SEVERITY
from metarl.envs.parameters import Choice, Law, Parameter, Split, Uniform
from metarl.envs.state import State
from metarl.envs.task import Change, Task

FAULTY = (0.84, 0.37, 0.0, 1.0)
"""Colour of the body that a faulty joint moves: Okabe and Ito's vermilion."""
Open = Mapping[FaultKind, Mapping[str, tuple[float, ...]]]
"""Values of `fault_place` by kind of fault and by split, `train` or `held_out`. A kind without a value of training
happens in held-out tasks only."""


@dataclass(frozen=True, eq=False)
class Faults:
    """The faults of a family; see `metarl.envs.family.FaultModel`."""

    settings: FaultSettings
    robot: Anatomy
    places: Places
    open: Open
    severity: Parameter
    """Parameter of the severity."""
    sensors: SensorFaults | None
    """Faults of sensors; None: there are none."""
    _joints: dict[tuple[float, ...], frozenset[str]] = field(default_factory=dict)
    """Joints of the robot of each layout that was drawn so far."""

    @property
    def timed(self) -> bool:
        return any(self.settings.fault_onset) or any(self.settings.fault_duration)

    @property
    def onset(self) -> tuple[int, int]:
        return self.settings.fault_onset

    @property
    def idle(self) -> frozenset[str]:
        return frozenset(() if any(KINDS[kind].graded for kind in self.settings.faults) else (SEVERITY,))

    @property
    def errors(self) -> Mapping[int, str]:
        places = list(self.places.values())
        return {
            element: kind
            for kind in ADDED & set(self.settings.faults)
            for values in self.open[kind].values()
            for value in values
            for part in places[int(value) - 1]
            for element in READINGS[kind](part)
        }

    def with_parameters(self, parameters: Sequence[Parameter]) -> Faults:
        return dataclasses.replace(self, severity=next(p for p in parameters if p.name == SEVERITY))

    def typical(self) -> Mapping[str, float]:
        kind = (_trained(self.open) or self.settings.faults)[0]
        there = self.open[kind]["train"] or self.open[kind]["held_out"]
        return {
            KIND: 1.0 + self.settings.faults.index(kind),
            PLACE: there[0],
            SEVERITY: self.severity.distribution.quantile(0.5),
        }

    def complete(self, task: Task, rng: np.random.Generator, split: Split) -> Task:
        """Draw place and times of the fault whose kind and severity were drawn, and write them into the task."""
        number, wanted = round(task.values[KIND]), self.settings
        sound = {KIND: 0.0, PLACE: 0.0, SEVERITY: self.severity.neutral}
        if number == 0:
            return dataclasses.replace(task, values={**task.values, **sound})
        places = self.open[wanted.faults[number - 1]]["train" if split == "train" else "held_out"]
        if self.robot.family.layout:
            places = self._there(places, tuple(task.values[name] for name in sorted(self.robot.family.layout)))
            if not places:
                return dataclasses.replace(task, values={**task.values, **sound})
        fault = {KIND: float(number), PLACE: places[int(rng.integers(len(places)))], SEVERITY: task.values[SEVERITY]}
        step = int(rng.integers(*wanted.fault_onset, endpoint=True))
        first, changes = (sound, [Change(step, fault)]) if step else (fault, [])
        for again in range(wanted.fault_repeats + 1 if any(wanted.fault_duration) else 0):
            if again:
                shortest, longest = wanted.fault_pause or wanted.fault_duration
                pause = int(rng.integers(shortest, longest, endpoint=True))
                if not pause:
                    changes.pop()  # it is never sound between the two
                step += pause
                changes.append(Change(step, {**fault, SEVERITY: self.severity.sample(rng, split)}))
            step += int(rng.integers(*wanted.fault_duration, endpoint=True))
            changes.append(Change(step, sound))
        merged = sorted((*task.changes, *changes), key=lambda change: change.step)
        return dataclasses.replace(task, values={**task.values, **first}, changes=tuple(merged))

    def _there(self, places: Sequence[float], layout: tuple[float, ...]) -> Sequence[float]:
        """Return those of the places that a robot of a layout has, some part of each; layout: values in order of their
        names."""
        if layout not in self._joints:
            named = dict(zip(sorted(self.robot.family.layout), layout, strict=True))
            self._joints[layout] = frozenset(joint.name for joint in self.robot.family.base(**named).joints)
        joints, parts = self._joints[layout], list(self.places.values())
        return [p for p in places if any(not part.joint or part.joint in joints for part in parts[int(p) - 1])]

    def shown(self, task: Task) -> Mapping[str, float]:
        if task.values[KIND]:
            return task.values
        later = next((change.values for change in task.changes if change.values.get(KIND)), {})
        return {**task.values, **{name: later[name] for name in (KIND, PLACE, SEVERITY) if name in later}}

    def check(self, values: Mapping[str, float]) -> None:
        kind = _number(KIND, values.get(KIND, 0.0), (NONE, *self.settings.faults))
        place = _number(PLACE, values.get(PLACE, 0.0), (NOWHERE, *self.places))
        kinds = self.settings.faults
        signed = any(KINDS[name].signed for name in (kinds[kind - 1 : kind] if kind else kinds))
        if not -float(signed) <= values.get(SEVERITY, 0.0) <= 1:
            raise ValueError(f"{SEVERITY} is {values[SEVERITY]:g}; it must be from {-1 if signed else 0} to 1")
        if kind and place:
            name = self.settings.faults[kind - 1]
            if reason := obstacle(self.robot, name, list(self.places.values())[place - 1]):
                raise ValueError(f"{list(self.places)[place - 1]} cannot have the fault {name}: {reason}")

    def edit(
        self,
        spec: mujoco.MjSpec,
        values: Mapping[str, float],
        before: Callable[[mujoco.MjSpec, Mapping[str, float]], None] | None,
    ) -> None:
        """Edit a task's model by its fault, after the family's own joint edit `before`."""
        if before is not None:
            before(spec, values)
        kind, place = round(values[KIND]), round(values[PLACE])
        if kind and place and (edit := KINDS[self.settings.faults[kind - 1]].edit) is not None:
            for part in list(self.places.values())[place - 1]:
                edit(spec, self.robot, part, values[SEVERITY])

    def said(self, values: Mapping[str, float]) -> tuple[str, frozenset[str]]:
        kind, place = round(values.get(KIND, 0.0)), round(values.get(PLACE, 0.0))
        text = "no fault"
        if kind and place:
            where, what = list(self.places)[place - 1], self.settings.faults[kind - 1]
            degree = f" ({values[SEVERITY]:.3g})" if KINDS[what].graded else ""
            text = f"{where} {what.replace('_', ' ')}{degree}"
        return text, frozenset((KIND, PLACE, SEVERITY))

    def mark(self, spec: mujoco.MjSpec, values: Mapping[str, float]) -> None:
        kind, place = round(values[KIND]), round(values[PLACE])
        for part in list(self.places.values())[place - 1] if kind and place else ():
            if part.joint:
                for geom in spec.joint(part.joint).parent.geoms:
                    geom.rgba, geom.material = FAULTY, ""

    def prepare(self, base: Callable[..., mujoco.MjSpec], **layout: Any) -> mujoco.MjSpec:
        """Return the neutral robot, ready for the edits of every fault."""
        spec = base(**layout)
        parts = dict.fromkeys(part for parts in self.places.values() for part in parts)
        for kind in self.settings.faults:
            if (prepare := KINDS[kind].prepare) is not None:
                for part in parts:
                    prepare(spec, self.robot, part)
        return spec

    def misread(self, seen: State, observation: Array) -> None:
        if self.sensors is not None:
            self.sensors.misread(seen, observation)

    @property
    def words(self) -> tuple[str, ...]:
        wanted, names = self.settings, list(self.places)
        whose = "tasks have" if _trained(self.open) else "held-out tasks, and no training task, have"
        lines = [f"{wanted.fault_share:.0%} of {whose} one fault; it {_when(wanted)}"]
        for kind in wanted.faults:
            train, held_out = ([names[int(i) - 1] for i in self.open[kind][split]] for split in ("train", "held_out"))
            where = [f"at {', '.join(train)}"] if train else []
            where += [f"held out: {', '.join(held_out)}"] if held_out != train else []
            lines.append("; ".join([f"{kind}: {KINDS[kind].words}", *where]))
        return tuple(lines)


def with_faults(family: TaskFamily, settings: FaultSettings) -> TaskFamily:
    """Return the family with the faults that the settings ask for; the family itself if they ask for none.

    ValueError for settings that contradict each other, and for what cannot fail in this robot.
    """
    if not settings.faults:
        return family
    _require_consistent(family, settings)
    robot = anatomy(family)
    places, held_out = places_of(robot, settings)
    open_to: Open = {kind: open_places(robot, kind, places, held_out, settings) for kind in settings.faults}
    varied = _parameters(settings, places, frozenset().union(*held_out.values()), open_to)
    sensors = sensor_faults(robot, settings.faults, places)
    signals = signal_faults(robot, settings.faults, places)
    faults = Faults(settings, robot, places, open_to, varied[-1], sensors)
    hooks: dict[str, Any] = {"memory": {**family.memory}}
    if any(KINDS[kind].edit is not None for kind in settings.faults):
        hooks["edit"] = functools.partial(faults.edit, before=family.edit)
    if any(KINDS[kind].prepare is not None for kind in settings.faults):
        hooks["base"] = functools.partial(faults.prepare, family.base)
        if family.visual is not None:
            hooks["visual"] = functools.partial(faults.prepare, family.visual)
    if signals is not None:
        hooks["actuate"] = functools.partial(signals.apply, actuate=family.actuate)
        hooks["memory"] |= signals.memory
    if sensors is not None:
        hooks["memory"] |= sensors.memory
        if sensors.memory:
            hooks["update"] = functools.partial(sensors.count, update=family.update)
    faulty = dataclasses.replace(family, parameters=(*family.parameters, *varied), faults=faults, **hooks)
    if family.held is None or "base" not in hooks:
        return faulty
    return dataclasses.replace(faulty, initial=family.held(faulty.compile(faulty.neutral())))


def _require_consistent(family: TaskFamily, settings: FaultSettings) -> None:
    """Raise ValueError for settings that are wrong together, or that the family cannot take."""
    if family.faults is not None:
        raise ValueError(f"family {family.name!r} has faults already; give them once")
    repeated = [kind for kind in settings.faults if settings.faults.count(kind) > 1]
    if repeated:
        raise ValueError(f"faults has {repeated[0]!r} more than once; list it once")
    if settings.fault_repeats and not any(settings.fault_duration):
        raise ValueError(
            f"fault_repeats is {settings.fault_repeats}, but the fault lasts for good; give a fault_duration"
        )
    if settings.fault_duration[1] and not settings.fault_duration[0]:
        raise ValueError(
            f"fault_duration is {list(settings.fault_duration)}; give at least 1 step, or 0, 0 for a fault for good"
        )
    pause = settings.fault_pause
    if pause and (len(pause) != 2 or pause[0] > pause[1]):
        raise ValueError(f"fault_pause is {list(pause)}; it must be two numbers, the first at most the second, or none")
    if pause and not settings.fault_repeats:
        raise ValueError(f"fault_pause is {list(pause)}, but the fault does not come back; give fault_repeats")
    unsigned = [kind for kind in settings.faults if not KINDS[kind].signed]
    if settings.fault_severity[0] < 0 and unsigned:
        signed = ", ".join(kind for kind in KINDS if KINDS[kind].signed)
        raise ValueError(
            f"fault_severity begins at {settings.fault_severity[0]:g}, and the severity of {unsigned[0]!r} is from 0 "
            f"to 1; below 0 it is an error of the other sign, of {signed} alone"
        )
    past = [name for name, term in family.observation.items() if term.history > 1]
    if past and (of_sensors := [kind for kind in settings.faults if kind in READINGS]):
        raise ValueError(
            f"{of_sensors[0]} changes what a sensor reports, and {past[0]} is observed with its history, whose values "
            "would stay right; leave out one of them, and let the agent remember"
        )
    for name in (KIND, PLACE, SEVERITY):
        if any(p.name == name for p in family.parameters):
            raise ValueError(f"the family has a parameter {name!r}, as its faults do; give it another name")


def _parameters(
    settings: FaultSettings, places: Places, held_out: frozenset[str], open_to: Open
) -> tuple[Parameter, Parameter, Parameter]:
    """Return kind, place and severity of a task's fault."""
    low, high = settings.fault_severity
    numbers = {kind: float(i) for i, kind in enumerate(settings.faults, start=1)}
    trained = _trained(open_to)
    kinds, all_kinds = (_kinds([numbers[k] for k in own], settings.fault_share) for own in (trained, numbers))
    values = {name: float(i) for i, name in enumerate(places, start=1)}
    apart = Choice(tuple(value for name, value in values.items() if name in held_out)) if held_out else None
    return (
        Parameter(
            KIND,
            "1",
            kinds,
            Law("kind of fault", joint=True),
            0.0,
            held_out=all_kinds if all_kinds != kinds else None,
            names=(NONE, *settings.faults),
            overlaps=True,  # places keep the tasks apart
        ),
        Parameter(
            PLACE,
            "1",
            Choice(tuple(value for name, value in values.items() if name not in held_out) or (0.0,)),
            Law("where it is", joint=True),
            1.0,
            held_out=apart,
            names=(NOWHERE, *places),
        ),
        Parameter(
            SEVERITY,
            "1",
            Choice((low,)) if low == high else Uniform(low, high),
            Law("as its kind says; without effect while there is no fault", joint=True),
            low,
        ),
    )


def _trained(open_to: Open) -> list[FaultKind]:
    """Return the kinds of faults that training tasks have."""
    return [kind for kind, places in open_to.items() if places["train"]]


def _kinds(numbers: Sequence[float], share: float) -> Choice:
    """Return the distribution of `fault_kind`: one of the numbers in a share of the tasks, 0 in the others."""
    if not numbers:
        return Choice((0.0,))
    if share == 1:
        return Choice(tuple(numbers))
    return Choice((0.0, *numbers), (1 - share, *(share / len(numbers) for _ in numbers)))


def _number(name: str, value: float, names: tuple[str, ...]) -> int:
    """Return a category's number; ValueError if there is none of that value."""
    if value != int(value) or not 0 <= value < len(names):
        known = ", ".join(f"{i} {known}" for i, known in enumerate(names))
        raise ValueError(f"{name} is {value:g}; it must be one of {known}")
    return int(value)


def _when(settings: FaultSettings) -> str:
    """Return when a fault begins and ends, in words."""

    def steps(ends: tuple[int, int]) -> str:
        low, high = ends
        return f"{low}" if low == high else f"{low} to {high}"

    begins = (
        f"begins after {steps(settings.fault_onset)} control steps"
        if any(settings.fault_onset)
        else "is there from the start"
    )
    if not any(settings.fault_duration):
        return f"{begins} and lasts for good"
    again = f", and comes back {settings.fault_repeats} times" if settings.fault_repeats else ""
    if settings.fault_pause:
        low, high = settings.fault_pause
        again += f", {f'after {steps((low, high))} more' if high else 'at once'}"
    return f"{begins}, lasts {steps(settings.fault_duration)}{again}"
