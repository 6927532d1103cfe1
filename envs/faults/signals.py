"""Faults of actuators' signals: reversed, dead band, stuck servo, slack. They act on what an action becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from metarl.envs.arrays import Array, like, none
from metarl.envs.control import Signals, asked, joint_of, unit_of_joint
from metarl.envs.efforts import force_limit_of, gear_on_joint
from metarl.envs.faults.edits import PLAY, servo
from metarl.envs.faults.parts import Anatomy, Part
from metarl.envs.faults.play import LEAST, crossed, followed, inertia_of_rotor
from metarl.envs.faults.settings import FaultKind
from metarl.envs.faults.where import SEVERITY, Struck, struck
from metarl.envs.state import State

ANGLE, HELD = "fault_angle", "fault_held"
"""Memory of stuck servos: the angle that each holds, and whether it holds one."""
REACHED = "fault_reached"
"""Memory of slack servos: the action that has come through to each."""
ROTOR, SPIN = "fault_rotor", "fault_rotor_speed"
"""Memory of slack motors: where the rotor of each is in its play, and how fast it crosses it."""


@dataclass(frozen=True, eq=False)
class SignalFaults:
    """Faults of the signals of a family's actuators."""

    kinds: Mapping[FaultKind, Struck]
    """Actuators by kind of fault."""
    control: Signals
    """The family's control signals."""
    reach: np.ndarray
    """Size of the largest action below and above 0, [2, act]."""
    addresses: np.ndarray
    """Place in qpos of each servo's joint, [act]; 0 for actuators that are no servos."""
    servos: np.ndarray
    """Whether each actuator is a servo, [act] bool."""
    play: np.ndarray
    """Play of each slack actuator at severity 1, [act]: a servo's in units of its action, a motor's in rad (m)."""
    seconds: Callable[[mujoco.MjModel], float]
    """Control step of a task's model, s."""

    @property
    def memory(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the arrays that the faults keep during an episode."""
        size = (len(self.addresses),)
        held = {ANGLE: size, HELD: size} if "stuck" in self.kinds else {}
        slack = (() if not self.servos.any() else (REACHED,)) + (() if self.servos.all() else (ROTOR, SPIN))
        return held | (dict.fromkeys(slack, size) if "slack" in self.kinds else {})

    def apply(self, state: State, actuate: Callable[[State], None] | None) -> None:
        """Write the control signals of faulty actuators, after the family's own effects of the action."""
        if actuate is not None:
            actuate(state)
        signals: dict[FaultKind, Callable[[State, Array], Array]] = {
            "reversed": self._reversed,
            "dead_band": self._beyond_band,
            "stuck": self._stuck,
            "slack": self._slack,
        }
        for kind, at in self.kinds.items():
            mask = at.mask(state)
            if kind in ("stuck", "slack") or not none(mask):  # these two remember sound steps
                count = state.ctrl.shape[1]
                faulty = signals[kind](state, mask)
                state.ctrl[...] = state.xp.where(mask[:, :count], faulty[:, :count], state.ctrl)

    def _reversed(self, state: State, mask: Array) -> Array:
        return self.control.of(-state.action)

    def _beyond_band(self, state: State, mask: Array) -> Array:
        xp, action = state.xp, state.action
        below, above = like(self.reach, action)
        beyond = xp.abs(action) - state.task[SEVERITY][:, None] * xp.where(action < 0, below, above)
        beyond *= beyond > 0
        return self.control.of(xp.where(action < 0, -beyond, beyond))

    def _stuck(self, state: State, mask: Array) -> Array:
        """Return signals that ask each joint for the angle that it had when its fault, or the episode, began."""
        xp, angle, held = state.xp, state.memory[ANGLE], state.memory[HELD]
        now = state.qpos[:, state.once(self.places)]
        angle[...] = xp.where(mask & (held > 0), angle, now)
        held[...] = xp.astype(mask, held.dtype)
        zero, size = (state.once(self.laws)[state.task_index, :, k] for k in (0, 1))
        return (angle - zero) / size

    def _slack(self, state: State, mask: Array) -> Array:
        """Return the signals of servos that follow with a play, and of motors whose rotors cross it first."""
        xp, half = state.xp, mask * state.task[SEVERITY][:, None] * like(self.play, state.action) / 2
        if self.servos.all():
            return self._followed(state, half)
        if not self.servos.any():
            return self._crossed(state, half)
        return xp.where(like(self.servos, state.action), self._followed(state, half), self._crossed(state, half))

    def _followed(self, state: State, half: Array) -> Array:
        """Return signals that follow the actions' once these use up half of the play, as of before the fault."""
        reached = state.memory[REACHED]
        reached[...] = followed(reached, state.action, half)
        return self.control.of(reached)

    def _crossed(self, state: State, half: Array) -> Array:
        """Return signals of torques by the share of the step in which the rotor drives its joint."""
        xp, place, speed = state.xp, state.memory[ROTOR], state.memory[SPIN]
        zero, size, inertia, most, step = (state.once(self.drives)[state.task_index, :, k] for k in range(5))
        torque = xp.clip(zero + size * self.control.of(state.action), -most, most)
        place[...] = xp.clip(place, -half, half)
        place[...], speed[...], share = crossed(place, speed, torque / inertia, half, step)
        return (share * torque - zero) / size

    def places(self, models: Sequence[mujoco.MjModel]) -> Array:
        """Return `addresses`, and 0 for joints that a robot of fewer legs lacks, [act]."""
        return np.where(self.addresses < models[0].nq, self.addresses, 0)

    def laws(self, models: Sequence[mujoco.MjModel]) -> Array:
        """Return the angle that signal 0 asks of each servo's joint and its change per signal, [K, act, 2].

        They are each model's own, as the robots of a family may have homes of their own.
        """
        places = [(i, kind) for i, kind in enumerate(self.control.kinds) if i < models[0].nu]
        laws = np.tile((0.0, 1.0), (len(models), len(self.control.kinds), 1))
        for law, model in zip(laws, models, strict=True):
            law[: len(places)] = [asked(model, i, kind, joint_of(model, i))[1:] for i, kind in places]
        return laws

    def drives(self, models: Sequence[mujoco.MjModel]) -> Array:
        """Return by what each motor's rotor crosses its play, [K, act, 5].

        Torque of signal 0 and its change per signal, N m (N); the rotor's inertia, kg m^2 (kg); the largest torque; and
        the seconds of a control step.
        """
        rest = np.ones((len(models), len(self.control.kinds), 3))
        for of_model, model in zip(rest, models, strict=True):
            of_model[:, 2] = self.seconds(model)
            for i in range(min(model.nu, len(of_model))):
                most = force_limit_of(model, i) * abs(gear_on_joint(model, i))
                of_model[i, :2] = inertia_of_rotor(model, i) + LEAST, most
        return np.concatenate([self.laws(models), rest], axis=-1)


def signal_faults(
    robot: Anatomy, kinds: tuple[FaultKind, ...], places: Mapping[str, tuple[Part, ...]]
) -> SignalFaults | None:
    """Return the faults of signals among the kinds; None if there are none."""
    family, model = robot.family, robot.model
    servos = [i < model.nu and servo(robot, i) for i in range(family.action_size)]

    def servos_of(part: Part) -> list[int]:
        return [i for i in part.actuators if servos[i]]

    tables = struck(
        kinds,
        places,
        family.action_size,
        {
            "reversed": lambda part: part.actuators,
            "dead_band": lambda part: part.actuators,
            "slack": lambda part: part.actuators,
            **({"stuck": servos_of} if any(servos) else {}),
        },
    )
    if not tables:
        return None
    control, addresses, play = family.control, np.zeros(len(servos), dtype=np.int64), np.zeros(len(servos))
    for i in np.flatnonzero(servos):
        addresses[i] = model.joint(control.joints[i]).qposadr[0]
        play[i] = PLAY[control.units[i]] / abs(control.gain[i] * control.size[i])
    for i in range(min(model.nu, len(servos))):
        joint = joint_of(model, i)
        if joint is not None and not servos[i]:
            play[i] = PLAY[unit_of_joint(model, joint)]
    reach = np.abs(np.stack([family.action_low, family.action_high]))
    return SignalFaults(tables, control, reach, addresses, np.array(servos), play, family.seconds)
