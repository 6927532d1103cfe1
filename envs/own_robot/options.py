"""What a model's options switch off: nothing of that kind acts, whatever the model says of it elsewhere."""

from __future__ import annotations

import mujoco

Disable = mujoco.mjtDisableBit
CONSTRAINTS = ("contact", "limit", "equality", "frictionloss")
"""What goes with the flag `constraint`, too."""
FLAGS = {
    "contact": Disable.mjDSBL_CONTACT,
    "limit": Disable.mjDSBL_LIMIT,
    "equality": Disable.mjDSBL_EQUALITY,
    "frictionloss": Disable.mjDSBL_FRICTIONLOSS,
    "spring": Disable.mjDSBL_SPRING,
    "damper": Disable.mjDSBL_DAMPER,
    "gravity": Disable.mjDSBL_GRAVITY,
    "actuation": Disable.mjDSBL_ACTUATION,
}


def switched_off(model: mujoco.MjModel, what: str) -> str | None:
    """The flag of `<option>` that switches off what a key of `FLAGS` names; None if it acts."""
    if model.opt.disableflags & FLAGS[what]:
        return what
    return "constraint" if what in CONSTRAINTS and model.opt.disableflags & Disable.mjDSBL_CONSTRAINT else None


def group_off(model: mujoco.MjModel, actuator: int) -> int | None:
    """The group of an actuator that `<option>` switches off; None if it acts."""
    group = int(model.actuator_group[actuator])
    return group if 0 <= group < 31 and model.opt.disableactuator & (1 << group) else None


def require_batchable(model: mujoco.MjModel) -> None:
    """ValueError if an option keeps more than a simulation's state, which no batch of simulations has."""
    for name, bit in (("sleep", mujoco.mjtEnableBit.mjENBL_SLEEP), ("ipc", mujoco.mjtEnableBit.mjENBL_IPC)):
        if model.opt.enableflags & bit:
            raise ValueError(
                f'the model enables {name} (<option><flag {name}="enable"/>), by which a simulation depends on more '
                "than its state: many of them in a batch cannot have it; take it out of the model"
            )
