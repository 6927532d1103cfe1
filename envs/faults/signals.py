"""Faults of actuators' signals: reversed, dead band, stuck servo. They act on what the policy's action becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from metarl.envs.arrays import Array, like, none
from metarl.envs.control import Signals
from metarl.envs.faults.edits import servo
from metarl.envs.faults.parts import Anatomy, Part
from metarl.envs.faults.settings import FaultKind
from metarl.envs.faults.where import SEVERITY, Struck, struck
from metarl.envs.state import State

ANGLE, HELD = "fault_angle", "fault_held"
"""Memory of stuck servos: the angle that each holds, and whether it holds one."""


@dataclass(frozen=True, eq=False)
class SignalFaults:
    """Faults of the signals of a family's actuators."""

    kinds: Mapping[FaultKind, Struck]
    """Actuators by kind of fault."""
    control: Signals
    """The family's control signals."""
    half_range: np.ndarray
    """Half of the range of each action, [act]."""
    addresses: np.ndarray
    """Place in qpos of each servo's joint, [act]; 0 for actuators that are no servos."""

    @property
    def memory(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the arrays that the faults keep during an episode."""
        size = (len(self.addresses),)
        return {ANGLE: size, HELD: size} if "stuck" in self.kinds else {}

    def apply(self, state: State, actuate: Callable[[State], None] | None) -> None:
        """Write the control signals of faulty actuators, after the family's own effects of the action."""
        if actuate is not None:
            actuate(state)
        signals: dict[FaultKind, Callable[[State, Array], Array]] = {
            "reversed": self._reversed,
            "dead_band": self._beyond_band,
            "stuck": self._stuck,
        }
        for kind, at in self.kinds.items():
            mask = at.mask(state)
            if kind == "stuck" or not none(mask):
                count = state.ctrl.shape[1]
                faulty = signals[kind](state, mask)
                state.ctrl[...] = state.xp.where(mask[:, :count], faulty[:, :count], state.ctrl)

    def _reversed(self, state: State, mask: Array) -> Array:
        return self.control.of(-state.action)

    def _beyond_band(self, state: State, mask: Array) -> Array:
        xp, action = state.xp, state.action
        beyond = xp.abs(action) - state.task[SEVERITY][:, None] * like(self.half_range, action)
        beyond *= beyond > 0
        return self.control.of(xp.where(action < 0, -beyond, beyond))

    def _stuck(self, state: State, mask: Array) -> Array:
        """Return signals that ask each joint for the angle that it had when its fault, or the episode, began."""
        xp, angle, held = state.xp, state.memory[ANGLE], state.memory[HELD]
        now = state.qpos[:, like(self.addresses, state.qpos)]
        angle[...] = xp.where(mask & (held > 0), angle, now)
        held[...] = xp.astype(mask, held.dtype)
        return (angle - like(self.control.zero, angle)) / like(self.control.size, angle)


def signal_faults(
    robot: Anatomy, kinds: tuple[FaultKind, ...], places: Mapping[str, tuple[Part, ...]]
) -> SignalFaults | None:
    """Return the faults of signals among the kinds; None if there are none."""
    family, model = robot.family, robot.model
    servos = [i < model.nu and servo(robot, i) for i in range(family.action_size)]

    def stuck(part: Part) -> list[int]:
        return [i for i in part.actuators if servos[i]]

    tables = struck(
        kinds,
        places,
        family.action_size,
        {
            "reversed": lambda part: part.actuators,
            "dead_band": lambda part: part.actuators,
            **({"stuck": stuck} if any(servos) else {}),
        },
    )
    if not tables:
        return None
    joints = family.control.joints
    addresses = [
        int(model.joint(joint).qposadr[0]) if is_servo else 0 for joint, is_servo in zip(joints, servos, strict=True)
    ]
    return SignalFaults(
        tables, family.control, (family.action_high - family.action_low) / 2, np.array(addresses, dtype=np.int64)
    )
