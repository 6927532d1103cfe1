"""Faults of sensors: they change what the policy observes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from metarl.envs.arrays import Array, like, none
from metarl.envs.faults.kinds import DRIFT, OFFSET, SCALE_ERROR
from metarl.envs.faults.parts import Anatomy, Part
from metarl.envs.faults.settings import FaultKind
from metarl.envs.faults.where import SEVERITY, Struck, struck
from metarl.envs.state import State

AGE, READ, BEGUN = "fault_age", "fault_read", "fault_begun"
"""Memory: control steps that a drift has lasted; the last readings of encoders that are not frozen; whether there are
any since the episode began."""


@dataclass(frozen=True, eq=False)
class SensorFaults:
    """Faults of the sensors of a family's observation, whose size is obs."""

    kinds: Mapping[FaultKind, Struck]
    """Elements of the observation by kind of fault."""
    offset: np.ndarray
    """Error of each element at severity 1, [obs], in its unit."""
    drift: np.ndarray
    """Growth of the error of each element at severity 1, [obs], in its unit per second."""
    positions: np.ndarray
    """Whether each element is a joint's position, [obs] bool."""
    places: tuple[tuple[int, int], ...]
    """Element, and index in qpos, of each joint's position."""

    @property
    def memory(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the arrays that the faults keep during an episode."""
        drifting = {AGE: ()} if "encoder_drift" in self.kinds else {}
        return drifting | ({READ: (len(self.offset),), BEGUN: ()} if "encoder_frozen" in self.kinds else {})

    def count(self, state: State, update: Callable[[State], None] | None) -> None:
        """Count the control steps of drifts, after the family's own update of the memory."""
        if update is not None:
            update(state)
        if "encoder_drift" in self.kinds:
            age = state.memory[AGE]
            age += 1
            age *= self.kinds["encoder_drift"].anywhere(state)

    def misread(self, seen: State, observation: Array) -> None:
        """Write what faulty sensors report to an observation, [S, obs] or with more columns after those."""
        reports: dict[FaultKind, Callable[[State, Array], Array]] = {
            "encoder_offset": self._offset,
            "encoder_scale": self._scaled,
            "encoder_drift": self._drifted,
            "encoder_frozen": self._frozen,
            "sensor_lost": lambda state, values: seen.xp.zeros_like(values),
        }
        values = observation[:, : len(self.offset)]
        for kind, at in self.kinds.items():
            mask = at.mask(seen)
            if kind == "encoder_frozen":
                self._keep(seen, values, mask)
            if not none(mask):
                values[...] = seen.xp.where(mask, reports[kind](seen, values), values)

    def _offset(self, state: State, values: Array) -> Array:
        return values + state.task[SEVERITY][:, None] * like(self.offset, values)

    def _scaled(self, state: State, values: Array) -> Array:
        """A position counts from the joint's zero, also where it is observed relative to home."""
        read = state.xp.asarray(values, copy=True)
        for element, place in self.places:
            if place < state.qpos.shape[1]:  # a robot of fewer legs lacks some
                read[:, element] = state.qpos[:, place]
        return values + SCALE_ERROR * state.task[SEVERITY][:, None] * read

    def _drifted(self, state: State, values: Array) -> Array:
        lasted = (state.task[SEVERITY] * state.memory[AGE] * state.dt)[:, None]
        return values + lasted * like(self.drift, values)

    def _keep(self, state: State, values: Array, mask: Array) -> None:
        """Keep the readings of encoders that are not frozen, and the first reading of an episode."""
        read, begun = state.memory[READ], state.memory[BEGUN]
        read[...] = state.xp.where(mask & (begun > 0)[:, None], read, values)
        begun[...] = state.xp.ones_like(begun)

    def _frozen(self, state: State, values: Array) -> Array:
        return state.memory[READ] * like(self.positions, values)


READINGS: dict[FaultKind, Callable[[Part], tuple[int, ...]]] = {
    "encoder_offset": lambda part: (part.position,),
    "encoder_scale": lambda part: (part.position, part.velocity),
    "encoder_drift": lambda part: (part.position,),
    "encoder_frozen": lambda part: (part.position, part.velocity),
    "sensor_lost": lambda part: part.elements,
}
"""Elements of the observation that a fault of a part's sensors changes, by its kind."""
ADDED: frozenset[FaultKind] = frozenset(("encoder_offset", "encoder_drift"))
"""Faults that add an error of the severity's sign."""


def sensor_faults(
    robot: Anatomy, kinds: tuple[FaultKind, ...], places: Mapping[str, tuple[Part, ...]]
) -> SensorFaults | None:
    """Return the faults of sensors among the kinds; None if there are none."""
    size, model = robot.family.observation_size, robot.model

    tables = struck(kinds, places, size, READINGS)
    if not tables:
        return None
    offset, drift, positions = np.zeros(size), np.zeros(size), np.zeros(size, dtype=bool)
    joints = [part for part in robot.parts.values() if part.position >= 0]
    for part in joints:
        unit = "m" if model.joint(part.joint).type[0] == 2 else "rad"
        offset[part.position], drift[part.position], positions[part.position] = OFFSET[unit], DRIFT[unit], True
    places_in_qpos = tuple((part.position, int(model.joint(part.joint).qposadr[0])) for part in joints)
    return SensorFaults(tables, offset, drift, positions, places_in_qpos)
