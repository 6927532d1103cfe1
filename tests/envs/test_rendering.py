"""Pictures, judged by where things must be in them."""

from __future__ import annotations

import sys

import gymnasium
import mujoco
import numpy as np
import pytest

import metarl  # noqa: F401  registers the families
from metarl.envs import rendering
from metarl.envs.adapters.gymnasium_adapter import FamilyEnv
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.rendering import Renderer, RenderingUnavailable
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from tests.sampling import sampled

POINT = make_family(PointGoalSettings())
CHEETAH = make_family(HalfCheetahMassSettings())
SIZE = (160, 120)
ROBOT = """
<mujoco>
  <worldbody>
    <geom type="plane" size="1 1 1"/>
    {world}
    <body name="crate" pos="9 9 1"><freejoint/><geom size=".1" mass="1"/></body>
    <body name="robot" pos="0 0 1">
      <freejoint/>
      {body}
      <geom type="capsule" size=".1 .4" rgba="1 0 0 1" quat=".7071068 0 .7071068 0" mass="5"/>
    </body>
  </worldbody>
</mujoco>
"""


def robot(world: str = "", body: str = "") -> mujoco.MjSpec:
    return mujoco.MjSpec.from_string(ROBOT.format(world=world, body=body))


def changed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pixels that differ by more than the eye misses, [H, W] bool."""
    return np.abs(a.astype(int) - b).max(axis=-1) > 25


def reddish(frame: np.ndarray) -> np.ndarray:
    """The robots' pixels, [H, W] bool: sky and ground have more blue than red."""
    return frame[..., 0] > frame[..., 2].astype(int) + 12


@pytest.mark.usefixtures("graphics")
class TestPictures:
    def test_size_type_and_that_there_is_something_to_see(self):
        with Renderer(CHEETAH.picture(CHEETAH.neutral()), *SIZE) as renderer:
            frame = renderer.frame(renderer.model.qpos0)
        assert frame.shape == (120, 160, 3) and frame.dtype == np.uint8
        assert frame.std() > 15
        assert frame[:20].mean() > frame[-20:].mean() > 60  # the sky is brighter than the ground, neither is black

    def test_the_robot_moves_as_far_as_the_projection_says(self):
        with Renderer(robot('<camera pos="0 -4 1" xyaxes="1 0 0 0 0 1"/>'), *SIZE) as renderer:
            rest = renderer.model.qpos0
            moved = rest.copy()
            moved[7] += 0.5  # of the robot, along x; the crate's 7 come first
            before, again, after = (renderer.frame(q) for q in (rest, rest, moved))
        np.testing.assert_array_equal(before, again)
        places = [np.argwhere(reddish(frame)).mean(axis=0) for frame in (before, after)]  # row, column
        np.testing.assert_allclose(places[0], [59.5, 79.5], atol=1)
        pixels = 0.5 * 60 / (4 * np.tan(np.radians(45 / 2)))
        np.testing.assert_allclose(places[1] - places[0], [0, pixels], atol=1)

    def test_the_camera_follows(self):
        """24 m further on the picture is as it was: the squares of the ground have sides of 1 m."""
        with Renderer(CHEETAH.picture(CHEETAH.neutral()), *SIZE) as renderer:
            here, there, between = (renderer.model.qpos0.copy() for _ in range(3))
            there[0], between[0] = 24.0, 0.5
            a, b, c = (renderer.frame(q) for q in (here, there, between))
        assert changed(a, b).mean() < 0.01
        assert changed(a, c)[60:].mean() > changed(a, b)[60:].mean()

    def test_the_goal_is_where_the_projection_says(self):
        goal = {"goal_x": 0.3, "goal_y": 0.2}
        with Renderer(POINT.picture(POINT.task(goal)), 320, 240) as renderer:
            frame = renderer.frame(np.zeros(2)).astype(int)
        rows, columns = np.nonzero((frame[..., 1] > frame[..., 0] + 60) & (frame[..., 1] > frame[..., 2] + 20))
        pixels_per_m = 120 / ((1.6 + 0.018) * np.tan(np.radians(45 / 2)))
        assert columns.mean() == pytest.approx(160 + 0.3 * pixels_per_m, abs=1.5)
        assert rows.mean() == pytest.approx(120 - 0.2 * pixels_per_m, abs=1.5)

    def test_a_task_looks_like_its_model(self):
        """Limbs of twice the radius cover about twice the pixels."""
        covered = []
        for mass in (0.5, 1.0):
            with Renderer(CHEETAH.picture(CHEETAH.task({"mass_scale": mass})), *SIZE) as renderer:
                covered.append(reddish(renderer.frame(renderer.model.qpos0)).sum())
        assert 1.5 < covered[1] / covered[0] < 2.5

    @pytest.mark.parametrize("name", sampled([name for name in FAMILY_SETTINGS if name != "env"], 4))
    def test_the_robot_is_to_be_seen_in_every_split_of_every_family(self, name: str):
        """Against the same picture with every moving body's geoms transparent."""
        family = make_family(FAMILY_SETTINGS[name]())
        for split in family.splits:
            task = family.sample(1, np.random.default_rng(7), split)[0]
            qpos, _ = family.reset(family.compile(task), np.random.default_rng(0), 1)
            with Renderer(family.picture(task), *SIZE) as renderer:
                seen = renderer.frame(qpos[0])
                renderer.model.geom_rgba[renderer.model.geom_bodyid > 0, 3] = 0
                empty = renderer.frame(qpos[0])
            covered = changed(seen, empty)
            assert seen.std() > 5 and 5 <= covered.sum() < 0.4 * covered.size
            rows, columns = np.nonzero(covered)
            assert 20 < columns.mean() < 140 and 20 < rows.mean() < 110  # not cut off
            if family.edits_model:
                assert empty[-30:].std() > 2  # the ground is not plain

    def test_terrain_is_seen(self):
        """Stairs that rise ahead change the picture above the horizon on its right, not over the flat start."""
        family = make_family(FAMILY_SETTINGS["half_cheetah_terrain"]())
        hidden = []
        for kind in (0.0, 2.0):  # flat, stairs up
            task = family.task({"terrain_kind": kind, "terrain_difficulty": 1.0})
            with Renderer(family.picture(task), *SIZE) as renderer:
                renderer.model.geom_rgba[renderer.model.geom_bodyid > 0, 3] = 0
                hidden.append(renderer.frame(renderer.model.qpos0).astype(int))
        higher = changed(*hidden)[:28]  # above the flat ground's horizon
        assert higher[:, 110:].sum() > 3 * higher[:, :50].sum()  # they rise ahead, on the right

    def test_a_closed_renderer_says_so(self):
        renderer = Renderer(robot(), *SIZE)
        renderer.close()
        renderer.close()
        with pytest.raises(RuntimeError, match="the renderer is closed; make another one"):
            renderer.frame(np.zeros(14))

    def test_gymnasium_renders_what_is_simulated(self):
        env = gymnasium.make("metarl/PointGoal-v0", render_mode="rgb_array", width=160, height=120)
        assert env.metadata["render_fps"] == 10
        env.reset(seed=0, options={"task": {"goal_x": 0.3, "goal_y": 0.3}})
        first = env.render()
        assert first.shape == (120, 160, 3)
        env.step(np.array([-0.1, 0.0], dtype=np.float32))
        moved = np.argwhere(changed(first, env.render()))
        assert len(moved) and moved[:, 1].max() < 90 and abs(moved[:, 0].mean() - 60) < 5  # to the left, by a little
        env.reset(options={"task": {"goal_x": -0.3, "goal_y": 0.3}})
        assert changed(first, env.render())[:, :75].any()  # the goal is on the other side
        env.close()

    def test_gymnasium_without_a_render_mode_and_before_a_reset(self):
        assert FamilyEnv("point_goal").render() is None
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) before render\(\)"):
            FamilyEnv("point_goal", render_mode="rgb_array").render()
        with pytest.raises(ValueError, match="render_mode is 'human'; it must be 'rgb_array' or None"):
            FamilyEnv("point_goal", render_mode="human")


def test_pictures_leave_the_robot_as_it_is():
    """Furnishing adds to what is seen and to nothing else, and the family's own models know nothing of it."""
    task = CHEETAH.task({"mass_scale": 1.4})
    model = CHEETAH.compile(task)
    seen = rendering.furnish(CHEETAH.picture(task), *SIZE)
    for name in ("nq", "nv", "nu"):
        assert getattr(model, name) == getattr(seen, name)
    for name in ("body_mass", "body_inertia", "dof_damping", "geom_friction"):
        np.testing.assert_array_equal(getattr(model, name), getattr(seen, name))
    assert CHEETAH.compile(task).nlight == model.nlight < seen.nlight


@pytest.mark.parametrize(
    ("world", "body", "kind", "name"),
    [
        ('<camera name="a"/>', '<camera name="b"/><camera name="c" mode="track"/>', "fixed", "c"),
        ('<camera name="a"/>', '<camera name="b"/>', "fixed", "a"),
        ("", '<camera name="b"/>', "tracking", None),
        ("", "", "tracking", None),
    ],
)
def test_the_models_own_camera_goes_first(world: str, body: str, kind: str, name: str | None):
    model = robot(world, body).compile()
    chosen = rendering.camera(model)
    assert chosen.type == getattr(mujoco.mjtCamera, f"mjCAMERA_{kind.upper()}")
    if name:
        assert model.camera(chosen.fixedcamid).name == name
    else:
        assert model.body(chosen.trackbodyid).name == "robot"  # not the lighter crate
        sphere = np.linalg.norm([0.5, 0.1, 0.1])
        assert chosen.distance > sphere / np.sin(np.radians(model.vis.global_.fovy / 2))


def test_bounds_are_those_of_the_capsule_that_lies_along_x():
    low, high = rendering.bounds(robot().compile())
    np.testing.assert_allclose([low, high], [[-0.5, -0.1, 0.9], [0.5, 0.1, 1.1]], atol=1e-6)


def test_a_robot_without_ground_is_given_one_below_it():
    seen = rendering.furnish(POINT.picture(POINT.neutral()), *SIZE)
    planes = np.flatnonzero(seen.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)
    assert len(planes) == 1
    assert seen.geom_pos[planes[0], 2] == pytest.approx(-0.02) and not seen.geom_contype[planes[0]]


def test_what_a_picture_adds_takes_nothing_of_default_classes():
    wild = """<default>
        <geom type="box" contype="1" group="5" euler="1 2 3" condim="6" margin=".1" mass="3" priority="2"/>
        <light active="false" castshadow="false" ambient="1 1 1" attenuation="9 9 9" pos="1 2 3"/>
        <material specular="1" reflectance="1" emission="1" shininess="0" rgba="1 0 0 .1"/></default>"""
    models = []
    for default in ("", wild):
        spec = mujoco.MjSpec.from_string(
            f"<mujoco>{default}<worldbody><body name='b' pos='0 0 1'><geom name='g' type='sphere' euler='0 0 0' "
            "size='.1'/></body></worldbody></mujoco>"
        )
        models.append(rendering.furnish(spec, 64, 64))
    ours, theirs = models
    for prefix, kind in (("light_", "metarl_sun"), ("mat_", "metarl_ground"), ("geom_", None)):
        row = 0 if kind is None else getattr(ours, {"light_": "light", "mat_": "mat"}[prefix])(kind).id
        names = [n for n in dir(ours) if n.startswith(prefix) and isinstance(getattr(ours, n), np.ndarray)]
        assert len(names) > 8
        for name in names:
            np.testing.assert_array_equal(getattr(ours, name)[row], getattr(theirs, name)[row], err_msg=name)


def test_nothing_to_look_at_is_refused():
    with pytest.raises(ValueError, match="no body but the world"):
        rendering.root_body(mujoco.MjModel.from_xml_string("<mujoco/>"))
    with pytest.raises(ValueError, match="at least 1 pixel wide and high, got 0 x 5"):
        Renderer(robot(), 0, 5)


def test_no_renderer_says_what_to_install_and_set(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setitem(sys.modules, "mujoco.osmesa", None)
    with pytest.raises(RenderingUnavailable, match=r"osmesa fails here \(.*\); install EGL .*MUJOCO_GL=osmesa"):
        Renderer(robot(), *SIZE)
