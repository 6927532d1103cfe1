"""Offscreen pictures of robots: one look for every family, and a camera that follows the robot.

MuJoCo chooses a graphics library by MUJOCO_GL when it is first imported. Here it is chosen when a renderer is made, so
that EGL renders without a display in a process that imported MuJoCo long before.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Self

import mujoco
import numpy as np

from metarl.envs.added import plain
from metarl.envs.arrays import Array

BACKENDS = ("egl", "osmesa", "glfw", "cgl")
"""Values of MUJOCO_GL: EGL (no display needed), OSMesa (in software), GLFW (a display), CGL (macOS)."""
REMEDY = (
    "install EGL with a driver (Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri; with an NVIDIA GPU its driver "
    "brings EGL) and unset MUJOCO_GL, or install OSMesa (libosmesa6) and set MUJOCO_GL=osmesa, or set MUJOCO_GL=glfw "
    "where there is a display"
)

GROUND = ((0.88, 0.90, 0.92), (0.75, 0.79, 0.83))  # colours of the squares
GROUND_LINES = (0.66, 0.70, 0.75)
SKY = ((0.96, 0.97, 0.99), (0.66, 0.77, 0.88))  # at the horizon, at the zenith
SUN = (-0.35, 0.55, -1.0)  # direction in which the light falls
AZIMUTH, ELEVATION = 115.0, -16.0  # degrees, of the free camera
MARGIN = 1.35  # of the free camera's distance over that at which the robot fills the picture
SHADOW_SIZE = 2048  # pixels


class RenderingUnavailable(RuntimeError):
    """This machine has no library that renders offscreen; the message says what to install or set."""


def backend() -> str:
    """Return the graphics library that MUJOCO_GL names, or this platform's own."""
    named = os.environ.get("MUJOCO_GL", "").lower().strip()
    if named in BACKENDS:
        return named
    return {"darwin": "cgl", "win32": "glfw"}.get(sys.platform, "egl")


def open_context(width: int, height: int) -> Any:
    """Open a current OpenGL context without a window; RenderingUnavailable if that is not possible."""
    name = backend()
    try:
        context = importlib.import_module(f"mujoco.{name}").GLContext(width, height)
        context.make_current()
    except Exception as error:  # ImportError, AttributeError, RuntimeError, GLError: as each library fails
        raise _unavailable(name, error) from error
    return context


def _unavailable(name: str, error: Exception) -> RenderingUnavailable:
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return RenderingUnavailable(f"no offscreen renderer: {name} fails here ({said}); {REMEDY}")


class Renderer:
    """Renderer of one task's robot in any pose."""

    def __init__(self, spec: mujoco.MjSpec, width: int = 480, height: int = 360):
        """spec: `TaskFamily.picture` of a task; it is changed. width, height: pixels."""
        self._context: Any = None
        self._buffer: Any = None
        if min(width, height) < 1:
            raise ValueError(f"a picture is at least 1 pixel wide and high, got {width} x {height}")
        self.width, self.height = width, height
        self.model = furnish(spec, width, height)
        self._data = mujoco.MjData(self.model)
        self._camera = camera(self.model)
        self._scene = mujoco.MjvScene(self.model, maxgeom=10_000)
        self._options = mujoco.MjvOption()
        self._context = open_context(width, height)
        try:
            self._buffer = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._buffer)
        except mujoco.FatalError as error:  # a context without the functions that MuJoCo needs
            self.close()
            raise _unavailable(backend(), error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def frame(self, qpos: Array) -> Array:
        """Return a picture of the robot at generalised positions [nq], [height, width, 3] uint8, the top row first."""
        if self._buffer is None:
            raise RuntimeError("the renderer is closed; make another one")
        self._data.qpos[:] = qpos
        mujoco.mj_fwdPosition(self.model, self._data)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self.model, self._data, self._options, None, self._camera, everything, self._scene)
        self._context.make_current()
        whole = mujoco.MjrRect(0, 0, self.width, self.height)
        pixels = np.empty((self.height, self.width, 3), dtype=np.uint8)
        mujoco.mjr_render(whole, self._scene, self._buffer)
        mujoco.mjr_readPixels(pixels, None, whole, self._buffer)
        return pixels[::-1].copy()  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Free the resources of the graphics library."""
        if self._buffer is not None:
            self._context.make_current()
            self._buffer.free()
            self._buffer = None
        if self._context is not None:
            self._context.free()
            self._context = None


def furnish(spec: mujoco.MjSpec, width: int, height: int) -> mujoco.MjModel:
    """Compile a specification with the light, the sky and the ground that all pictures share.

    The ground's squares have sides of a power of ten in metres, the one nearest to the robot's size.
    """
    bare = spec.compile()
    low, high = bounds(bare)
    size = float(np.max(high - low))
    seen = max(size, _camera_distance(bare) / 2)  # m, a camera that stands far off sees more than the robot
    spec.visual.global_.offwidth, spec.visual.global_.offheight = width, height
    spec.visual.quality.shadowsize = SHADOW_SIZE
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.40] * 3, [0.15] * 3
    spec.visual.headlight.specular = [0.05] * 3
    spec.visual.rgba.haze = [*SKY[0], 1]
    spec.stat.extent, spec.stat.center = 2 * seen, (low + high) / 2
    _light(spec, bare.body(root_body(bare)).name, seen)
    _sky(spec)
    _ground(spec, size, float(low[2]))
    return spec.compile()


def root_body(model: mujoco.MjModel) -> int:
    """Return the moving body on the world that carries the most mass."""
    children = np.flatnonzero(model.body_parentid == 0)[1:]  # the world is its own parent
    moving = [b for b in children if model.body_dofnum[b]] or list(children)
    if not moving:
        raise ValueError("the model has no body but the world: there is nothing to look at")
    return int(max(moving, key=lambda b: model.body_subtreemass[b]))


def bounds(model: mujoco.MjModel) -> tuple[Array, Array]:
    """Return the lowest and highest corner [3] m of the box around the robot's geoms in the model's own pose."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    robot = np.flatnonzero(model.body_rootid[model.geom_bodyid] == root_body(model))
    if not robot.size:
        return data.xpos[root_body(model)] - 0.5, data.xpos[root_body(model)] + 0.5
    centre, half = model.geom_aabb[robot, :3], model.geom_aabb[robot, 3:]  # [g, 3] in each geom's frame
    rotation = data.geom_xmat[robot].reshape(-1, 3, 3)
    middle = data.geom_xpos[robot] + np.einsum("gij,gj->gi", rotation, centre)
    reach = np.einsum("gij,gj->gi", np.abs(rotation), half)
    return (middle - reach).min(axis=0), (middle + reach).max(axis=0)


def camera(model: mujoco.MjModel) -> mujoco.MjvCamera:
    """Return the model's tracking camera, else its camera that is fixed in the world, else a free one that follows."""
    modes = mujoco.mjtCamLight
    tracking = np.isin(model.cam_mode, (modes.mjCAMLIGHT_TRACK, modes.mjCAMLIGHT_TRACKCOM))
    standing = (model.cam_mode == modes.mjCAMLIGHT_FIXED) & (model.cam_bodyid == 0)
    result = mujoco.MjvCamera()
    for own in (tracking, standing):
        if own.any():
            result.type, result.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, int(np.argmax(own))
            return result
    low, high = bounds(model)
    radius = float(np.linalg.norm(high - low)) / 2
    result.type, result.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, root_body(model)
    result.distance = MARGIN * radius / np.sin(np.radians(model.vis.global_.fovy) / 2)
    result.azimuth, result.elevation = AZIMUTH, ELEVATION
    result.lookat[:] = (low + high) / 2
    return result


def follow(spec: mujoco.MjSpec, distance: float, azimuth: float, elevation: float, ahead: float = 0.0) -> None:
    """Replace the robot's cameras by one that follows the first body of the world.

    distance: m. azimuth, elevation: of the direction of sight, degrees; azimuth 90 sees x to the right. ahead: along x
    from the robot to the middle of the picture, m.
    """
    for camera in tuple(spec.cameras):
        spec.delete(camera)
    a, e = np.radians([azimuth, elevation])
    sight = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
    (cz, cx), (sz, sx) = (f([a / 2 - np.pi / 4, e / 2 + np.pi / 4]) for f in (np.cos, np.sin))  # turns about z, x
    plain(
        spec.worldbody.bodies[0].add_camera(),
        name="metarl_view",
        mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM,
        pos=np.array([ahead, 0.0, 0.0]) - distance * sight,
        quat=(cz * cx, cz * sx, sz * sx, sz * cx),
    )


def _camera_distance(model: mujoco.MjModel) -> float:
    """Return the distance from the camera to the robot in the model's own pose, m."""
    chosen = camera(model)
    if chosen.type != mujoco.mjtCamera.mjCAMERA_FIXED:
        return float(chosen.distance)
    data = mujoco.MjData(model)
    mujoco.mj_fwdPosition(model, data)
    return float(np.linalg.norm(data.cam_xpos[chosen.fixedcamid] - data.xpos[root_body(model)]))


def _light(spec: mujoco.MjSpec, root: str, size: float) -> None:
    for light in spec.lights:
        light.active = False
    sun = np.array(SUN) / np.linalg.norm(SUN)
    plain(
        spec.body(root).add_light(),
        name="metarl_sun",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM,
        pos=-3 * size * sun,
        dir=sun,
        diffuse=(0.5, 0.5, 0.5),
        specular=(0.15, 0.15, 0.15),
        castshadow=True,
    )


def _sky(spec: mujoco.MjSpec) -> None:
    for texture in spec.textures:
        if texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            spec.delete(texture)
    spec.add_texture(
        name="metarl_sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=SKY[0],
        rgb2=SKY[1],
        width=128,
        height=768,
    )


def _ground(spec: mujoco.MjSpec, size: float, lowest: float) -> None:
    """Draw squares on the ground, plane or terrain, and add a plane under a robot without ground."""
    spec.add_texture(
        name="metarl_ground",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        mark=mujoco.mjtMark.mjMARK_EDGE,
        rgb1=GROUND[0],
        rgb2=GROUND[1],
        markrgb=GROUND_LINES,
        width=256,
        height=256,
    )
    squares = 10 ** round(float(np.log10(size)))  # m
    material = plain(
        spec.add_material(), name="metarl_ground", texuniform=True, texrepeat=[0.5 / squares] * 2, specular=0.1
    )
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "metarl_ground"
    plane, terrain = mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_HFIELD
    grounds = [geom for geom in spec.geoms if geom.type in (plane, terrain)]
    for geom in grounds or [plain(spec.worldbody.add_geom(), type=plane, pos=(0, 0, lowest), contype=0, conaffinity=0)]:
        geom.material, geom.rgba = "metarl_ground", (1, 1, 1, 1)
        if geom.type == plane:
            geom.size = (0, 0, 1)  # drawn without end, as MuJoCo collides with it
