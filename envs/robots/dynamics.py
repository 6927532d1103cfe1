"""Scales of a whole robot's dynamics: mass, damping, torque, friction."""

from __future__ import annotations

from collections.abc import Callable

import mujoco

from metarl.envs.family_settings import DynamicsSettings
from metarl.envs.parameters import Law, LogUniform, Parameter, Uniform, beyond, outside_scale


def scale_masses(spec: mujoco.MjSpec, factor: float) -> None:
    """Multiply every body's mass and inertia: the same shapes of another density."""
    for body in spec.bodies[1:]:
        body.mass *= factor
        body.inertia *= factor


def scale_dampings(spec: mujoco.MjSpec, factor: float) -> None:
    """Multiply every joint's viscous damping."""
    for joint in spec.joints:
        joint.damping *= factor


def scale_torques(spec: mujoco.MjSpec, factor: float) -> None:
    """Multiply the torque that every motor gives at the same action."""
    for actuator in spec.actuators:
        actuator.gear *= factor


def scale_frictions(spec: mujoco.MjSpec, factor: float) -> None:
    """Multiply every geom's sliding friction, the floor's too: a contact has the larger one of its two geoms."""
    for geom in spec.geoms:
        geom.friction[0] *= factor


def dynamics_parameters(settings: DynamicsSettings) -> tuple[Parameter, ...]:
    """Return one factor each on the masses, dampings, torques and frictions of the whole robot."""

    def scale(name: str, high: float, text: str, edit: Callable[[mujoco.MjSpec, float], None]) -> Parameter:
        law = Law(f"{text} x value", edit)
        return Parameter(name, "1", LogUniform(1 / high, high), law, 1.0, above=0.0, ood=outside_scale(high))

    torques = (1 - settings.torque_range, 1 + settings.torque_range)
    return (
        scale("mass_scale", settings.mass_range, "masses and inertias", scale_masses),
        scale("damping_scale", settings.damping_range, "dampings", scale_dampings),
        Parameter(
            name="torque_scale",
            unit="1",
            distribution=Uniform(*torques),
            law=Law("torques x value", scale_torques),
            neutral=1.0,
            above=0.0,
            ood=beyond(*torques),
        ),
        scale("friction_scale", settings.friction_range, "sliding frictions", scale_frictions),
    )
