"""Effects that a model's options switch off."""

from __future__ import annotations

import mujoco

Disable = mujoco.mjtDisableBit
CONSTRAINTS = ("contact", "limit", "equality", "frictionloss")
"""Keys of `FLAGS` that the flag `constraint` switches off, too."""
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
    """Return the flag of `<option>` that switches off the effect of a key of `FLAGS`; None if it is on."""
    if model.opt.disableflags & FLAGS[what]:
        return what
    return "constraint" if what in CONSTRAINTS and model.opt.disableflags & Disable.mjDSBL_CONSTRAINT else None


def require_batchable(model: mujoco.MjModel) -> None:
    """Raise ValueError for an option that needs data besides a simulation's state, which a batch does not keep."""
    for name, bit in (("sleep", mujoco.mjtEnableBit.mjENBL_SLEEP), ("ipc", mujoco.mjtEnableBit.mjENBL_IPC)):
        if model.opt.enableflags & bit:
            raise ValueError(
                f'the model enables {name} (<option><flag {name}="enable"/>), which needs data besides the state '
                "of a simulation, and cannot run in a batch; remove it from the model"
            )
