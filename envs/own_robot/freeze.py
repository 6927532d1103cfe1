"""The robot for simulation: values that MuJoCo's compiler derives are written out once, for the neutral robot.

The compiler derives masses from geoms, damping from a damping ratio, a muscle's force from the inertia that it moves.
If they were derived for each task, they would change with the task's other parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import mujoco
import numpy as np

from metarl.envs.mjcf import compile_quietly
from metarl.envs.own_robot.contacts import GROUND


def compile_model(spec: mujoco.MjSpec, what: str) -> mujoco.MjModel:
    """Compile a specification; ValueError in one line that begins with `what`."""
    try:
        return compile_quietly(spec)
    except ValueError as error:
        raise ValueError(f"{what} does not compile: {' '.join(str(error).split())}") from error


def compile_heard(spec: mujoco.MjSpec, what: str) -> tuple[mujoco.MjModel, list[str]]:
    """Compile a specification as `compile_model` does, and return MuJoCo's warnings, too, each a line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = compile_model(spec, what)
    return model, list(dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught))


def for_simulation(visual: mujoco.MjSpec, what: str) -> tuple[mujoco.MjSpec, mujoco.MjModel, dict[str, float]]:
    """Return the robot without decoration, its model, and the mass of each geom whose density makes its body's mass.

    visual: is changed in the same way, but for its decoration.

    Masses can be edited afterwards: no attribute scales them back (`settotalmass`), overwrites them
    (`inertiafromgeom`) or adjusts them (`balanceinertia`, `boundmass`). A body's inertia is explicit if the model gives
    it, and otherwise follows from its geoms, each by a density.
    """
    neutral = compile_model(visual, what)
    spec = visual.copy()
    if spec.compiler.inertiafromgeom == mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_TRUE:
        spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_AUTO
        for body in spec.bodies[1:]:
            body.explicitinertial, body.mass, body.inertia = False, 0.0, np.zeros(3)
            body.ipos, body.fullinertia = np.full(3, np.nan), np.full(6, np.nan)
    if not any(sensor.type == mujoco.mjtSensor.mjSENS_RANGEFINDER for sensor in spec.sensors):  # rays meet decoration
        spec.discard_visual()
    volumes = _volumes(spec)
    masses: dict[str, float] = {}
    for body in spec.bodies[1:]:
        compiled = neutral.body(body.name)
        moves = neutral.body_weldid[compiled.id] != 0  # the mass of a fixed heightfield has no effect
        if moves and not _explicit(spec, body):
            raw = {g.name: volumes[g.name] * g.density if np.isnan(g.mass) else float(g.mass) for g in body.geoms}
            raw = {name: mass for name, mass in raw.items() if mass > 0 and volumes[name] > 0}
            for geom in body.geoms:
                geom.mass = np.nan
                mass = raw.get(geom.name, 0.0) * float(compiled.mass[0]) / (sum(raw.values()) or 1.0)
                geom.density = mass / volumes[geom.name] if mass else 0.0
                if mass:
                    masses[geom.name] = mass
            body.explicitinertial = False
            continue
        make_explicit(body, neutral)
    _give_inertias(spec, visual, neutral)
    for edited in (spec, visual):
        compiler = edited.compiler
        compiler.settotalmass, compiler.boundmass, compiler.boundinertia, compiler.balanceinertia = -1, 0, 0, False
        compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_AUTO
        freeze_derived(edited, neutral)
    model = compile_model(spec, what)
    _require_same(model, neutral, what)
    return spec, model, masses


def _give_inertias(spec: mujoco.MjSpec, visual: mujoco.MjSpec, neutral: mujoco.MjModel) -> None:
    """Let the bodies of the robot for pictures have their inertias as those for simulation do: edits are of both."""
    simulated = {geom.name: geom for geom in spec.geoms}
    for body in visual.bodies[1:]:
        own = spec.body(body.name)
        if own.explicitinertial:
            make_explicit(body, neutral)
            continue
        body.explicitinertial, body.mass, body.inertia = False, own.mass, own.inertia
        body.ipos, body.fullinertia = own.ipos, own.fullinertia
        for geom in body.geoms:
            geom.mass = np.nan
            geom.density = simulated[geom.name].density if geom.name in simulated else 0.0


def _require_same(model: mujoco.MjModel, neutral: mujoco.MjModel, what: str) -> None:
    """Raise ValueError if a body's inertia differs from the model's."""
    for name in ("body_mass", "body_inertia", "body_ipos"):
        if not np.allclose(getattr(model, name), getattr(neutral, name), rtol=1e-6, atol=1e-9):
            body = int(np.argmax(np.abs(getattr(model, name) - getattr(neutral, name)).reshape(model.nbody, -1).max(1)))
            raise ValueError(
                f"the inertia of body {model.body(body).name!r} in {what} does not follow from its geoms, or "
                "is raised by the compiler's boundmass or boundinertia; give the body an <inertial> without them"
            )


def freeze_derived(spec: mujoco.MjSpec, model: mujoco.MjModel) -> None:
    """Write values that the compiler derived for actuators, joints and tendons into their specification.

    dampratio becomes damping, springdamper stiffness and damping; ranges inherited from a joint, length ranges and a
    muscle's peak force (scale / acc0) become numbers; so does the rest length of a tendon's spring.
    """
    for actuator in spec.actuators:
        i = model.actuator(actuator.name).id
        actuator.gainprm, actuator.biasprm = model.actuator_gainprm[i], model.actuator_biasprm[i]
        actuator.inheritrange = 0.0
        if model.actuator_ctrlnum[i] == 1:
            actuator.ctrlrange = model.actuator_ctrlrange[model.actuator_ctrladr[i]]
        actuator.actrange, actuator.lengthrange = model.actuator_actrange[i], model.actuator_lengthrange[i]
        if model.actuator_gaintype[i] == mujoco.mjtGain.mjGAIN_MUSCLE and model.actuator_gainprm[i, 2] < 0:
            force = model.actuator_gainprm[i, 3] / max(1e-15, model.actuator_acc0[i])
            actuator.gainprm[2] = actuator.biasprm[2] = force
    for joint in spec.joints:
        if np.any(joint.springdamper > 0):
            compiled = model.joint(joint.name)
            joint.stiffness[0], joint.damping[0] = compiled.stiffness[0], compiled.damping[0]
            joint.springdamper = (0.0, 0.0)
    for tendon in spec.tendons:
        tendon.springlength = model.tendon_lengthspring[model.tendon(tendon.name).id]


def compensation(model: mujoco.MjModel) -> Callable[[mujoco.MjSpec], None] | None:
    """Return an edit that keeps every body's gravity compensation at the force of the neutral robot; None without any.

    MuJoCo defines it as a share of the body's weight: without the edit, a heavier body would be carried as well, and
    less gravity be no relief.
    """
    weighty = np.flatnonzero((model.body_gravcomp != 0) & (model.body_mass > 0))
    carried = {model.body(b).name: float(model.body_mass[b]) for b in weighty}
    gravity = float(np.linalg.norm(model.opt.gravity))
    if not carried:
        return None

    def keep(spec: mujoco.MjSpec) -> None:
        compiled = spec.compile()
        now = float(np.linalg.norm(compiled.opt.gravity))
        for name, mass in carried.items():
            spec.body(name).gravcomp *= mass / float(compiled.body(name).mass[0]) * (gravity / now if now else 1.0)

    return keep


def make_explicit(body: mujoco.MjsBody, model: mujoco.MjModel) -> None:
    """Write a body's compiled mass and inertia into its specification."""
    compiled = model.body(body.name)
    body.explicitinertial = True
    body.mass, body.ipos, body.iquat, body.inertia = compiled.mass[0], compiled.ipos, compiled.iquat, compiled.inertia
    body.fullinertia = np.full(6, np.nan)
    body.ialt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT


def _explicit(spec: mujoco.MjSpec, body: mujoco.MjsBody) -> bool:
    given = spec.compiler.inertiafromgeom == mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_FALSE
    return given or bool(body.explicitinertial) or not body.geoms


def _volumes(spec: mujoco.MjSpec) -> dict[str, float]:
    """Return MuJoCo's mass of each geom at density 1, kg, meshes and shells included."""
    volumes = {g.name: 0.0 for g in spec.geoms}
    low, high = spec.compiler.inertiagrouprange
    for k in range(max((len(b.geoms) for b in spec.bodies[1:]), default=0)):
        alone = spec.copy()
        compiler = alone.compiler
        compiler.settotalmass, compiler.boundmass, compiler.boundinertia, compiler.balanceinertia = -1, 1e-14, 1e-14, 1
        compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_TRUE
        chosen = {}
        for body in alone.bodies[1:]:
            for i, geom in enumerate(body.geoms):
                geom.density, geom.mass = 1.0, np.nan if i == k else 0.0
                if i == k and low <= geom.group <= high and geom.type not in GROUND:
                    chosen[body.name] = geom.name
        model = alone.compile()
        for body, geom in chosen.items():
            volumes[geom] = float(model.body(body).mass[0])
    return volumes
