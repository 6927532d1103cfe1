"""MJCF files as specifications that a task's parameters can edit."""

from __future__ import annotations

import warnings

import mujoco


def read_spec(path: str) -> mujoco.MjSpec:
    """Read an MJCF file without textures and materials, 96 % of a task's memory and 90 % of its compilation."""
    spec = mujoco.MjSpec.from_file(path)
    for geom in (spec.default.geom, *spec.geoms):
        geom.material = ""
    for element in (*spec.materials, *spec.textures):
        spec.delete(element)
    return spec


def compile_quietly(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """Compile a specification without MuJoCo's warning about `settotalmass`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "compiler attribute 'settotalmass'")
        return spec.compile()


def compile_neutral(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """Compile a robot before any task edits it, which scales its masses to `settotalmass`, and clear that attribute.

    The compiler would scale every edited robot back to that mass. It scales before it derives dampings from ratios, so
    that scaling the compiled model is not the same.
    """
    model = compile_quietly(spec)
    spec.compiler.settotalmass = -1
    return model


def load_spec(path: str) -> mujoco.MjSpec:
    """Read an MJCF file as a specification whose masses and inertias are set body by body.

    `settotalmass` would scale every edited robot back to its neutral mass, and `inertiafromgeom` would overwrite
    inertias set by hand: the neutral values are compiled once, written into the bodies, and both are cleared.
    """
    spec = read_spec(path)
    neutral = compile_neutral(spec)
    spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_FALSE
    for body in spec.bodies[1:]:
        compiled = neutral.body(body.id)
        body.explicitinertial = True
        body.mass = compiled.mass[0]
        body.ipos = compiled.ipos
        body.iquat = compiled.iquat
        body.inertia = compiled.inertia
    return spec
