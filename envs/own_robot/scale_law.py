"""Site of the quantity scale: the size of a body and of all that it carries, a limb or a whole robot."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from metarl.envs.links import scale_body
from metarl.envs.own_robot.body_laws import given_slots, pivot_of, turning_joints
from metarl.envs.own_robot.contacts import GROUND
from metarl.envs.own_robot.declaration import DeclaredParameter
from metarl.envs.own_robot.description import Robot, unused
from metarl.envs.own_robot.lengths import require_lengths
from metarl.envs.own_robot.sites import Site
from metarl.envs.own_robot.structure import loop_through, subtree
from metarl.patterns import matched

SIZELESS = (*GROUND, mujoco.mjtGeom.mjGEOM_SDF)
"""Shapes whose size is not the geom's."""
MESH = (
    *("file", "content_type", "material", "scale", "refpos", "refquat", "inertia", "smoothnormal", "maxhullvert"),
    *("needsdf", "octree_maxdepth", "uservert", "usernormal", "usertexcoord", "userface", "userfacenormal"),
    "userfacetexcoord",
)
"""What a mesh is."""


def scale(robot: Robot, name: str, entry: DeclaredParameter) -> Site:
    """Find the size of a body and all that it carries: every length about its joint, at the density of each part.

    Angles, travel of slides, gains and limits stay. ValueError where other lengths would be wrong then.
    """
    parts = _parts(robot, name)
    for part in parts:
        if part != name and matched(entry.target or "", [part], "target"):
            raise ValueError(f"body {name!r} carries {part!r}, which it scales, too; let target match one of them")
        if loop := loop_through(robot.model, robot.model.body(part).id):
            raise ValueError(f"body {part!r} is part of a loop ({loop}), which another size would break")
    pivot_of(robot, name)
    for joint in turning_joints(robot.spec.body(name)):
        if joint.frame is not None:
            raise ValueError(f"joint {joint.name!r} of body {name!r} is in a <frame>; write it outside of it")
    geoms = [geom for part in parts for geom in robot.spec.body(part).geoms]
    for geom in geoms:
        if geom.type in SIZELESS:
            kind = geom.type.name.removeprefix("mjGEOM_").lower()
            raise ValueError(f"geom {geom.name!r} of body {geom.parent.name!r} is a {kind}: it has no size to scale")
    for spec in (robot.spec, robot.visual):
        _own_meshes(spec, name, parts)

    def write(spec: mujoco.MjSpec, value: float) -> None:
        joints = turning_joints(spec.body(name))
        pivot = np.array(joints[0].pos) if joints else np.zeros(3)
        meshes = {geom.meshname for part in parts for geom in spec.body(part).geoms if geom.meshname}
        for part in parts:
            scale_body(spec.body(part), pivot if part == name else np.zeros(3), value)
            for shell in _shells(spec, part):
                shell.density *= value  # its wall grows with it
        for mesh in map(spec.mesh, meshes):
            mesh.scale = np.array(mesh.scale) * value

    require_lengths(robot, name, write)
    slots = [slot for part in parts for slot in (f"scale of {part}", f"link_length of {part}", *given_slots(part))]
    shells = [f"density of {geom.name}" for part in parts for geom in _shells(robot.spec, part)]
    sizes = [f"size of {geom.name}" for geom in geoms]
    return Site(1.0, write, (*slots, *shells, *sizes), read=lambda spec: 1.0, multiply=write)


def _parts(robot: Robot, name: str) -> tuple[str, ...]:
    """Return a body and all that it carries, but payloads, which move with it and keep their size."""
    return tuple(body.name for body in subtree(robot.spec.body(name)) if body.name in robot.bodies)


def _shells(spec: mujoco.MjSpec, body: str) -> Iterator[mujoco.MjsGeom]:
    """Return the geoms of a body whose mass is that of their surface."""
    for geom in spec.body(body).geoms:
        mesh = spec.mesh(geom.meshname) if geom.meshname else None
        if geom.typeinertia == mujoco.mjtGeomInertia.mjINERTIA_SHELL or (
            mesh is not None and mesh.inertia == mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
        ):
            yield geom


def _own_meshes(spec: mujoco.MjSpec, name: str, parts: tuple[str, ...]) -> None:
    """Give bodies meshes of their own where geoms of others have the same ones."""
    own = [geom for part in parts for geom in spec.body(part).geoms if geom.meshname]
    others = {geom.meshname for geom in spec.geoms if geom.parent.name not in parts}
    for shared in {geom.meshname for geom in own} & others:
        of_its_own = unused(f"{shared} of {name}", {mesh.name for mesh in spec.meshes})
        copy = spec.add_mesh(name=of_its_own)
        for key in MESH:
            setattr(copy, key, getattr(spec.mesh(shared), key))
        for geom in own:
            if geom.meshname == shared:
                geom.meshname = of_its_own
