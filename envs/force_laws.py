"""Force laws of actuators: what multiplies an actuator's force at every state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

Gain, Bias = mujoco.mjtGain, mujoco.mjtBias
AFFINE_TERMS = 3  # of gainprm and biasprm: constant, of the length, of the velocity


def force_law(model: mujoco.MjModel, i: int) -> Callable[[Any, float], None]:
    """Return a function (actuator, factor) that multiplies the force at every state; ValueError if there is none."""
    name, gain, bias = model.actuator(i).name, int(model.actuator_gaintype[i]), int(model.actuator_biastype[i])
    if gain == Gain.mjGAIN_MUSCLE:
        return _scaled(2, 3)  # the peak force; it is no longer derived from the scale
    if gain == Gain.mjGAIN_DCMOTOR:
        extras = np.r_[model.actuator_gainprm[i, 2:], model.actuator_biasprm[i], model.actuator_dynprm[i, 1:]]
        if np.any(extras) or model.actuator_gainprm[i, 0] <= 0:
            raise ValueError(
                f"actuator {name!r} is a DC motor with saturation, cogging, heating or friction, which strength "
                "cannot scale; vary force_limit, or leave them out of the model"
            )

        def scale_current(actuator: Any, factor: float) -> None:
            """Divide the resistance by the factor: it alone is in every term of torque = K (V - K w) / R."""
            actuator.gainprm[0] /= factor

        return scale_current
    if bias not in (Bias.mjBIAS_NONE, Bias.mjBIAS_AFFINE) or gain not in (Gain.mjGAIN_FIXED, Gain.mjGAIN_AFFINE):
        raise ValueError(
            f"actuator {name!r} has a force that strength cannot scale: {Gain(gain).name}, {Bias(bias).name}"
        )
    return _scaled(0, AFFINE_TERMS)


def _scaled(start: int, end: int) -> Callable[[Any, float], None]:
    def scale(actuator: Any, factor: float) -> None:
        for values in (actuator.gainprm, actuator.biasprm):
            values[start:end] = np.array(values[start:end]) * factor

    return scale
