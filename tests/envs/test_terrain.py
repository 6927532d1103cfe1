"""Grounds against rays, contacts and closed forms; robots on them."""

from __future__ import annotations

import math
from typing import get_args

import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.control import read_signals
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahTerrainSettings
from metarl.envs.robots.walkers_settings import Walker2dTerrainSettings
from metarl.envs.terms import ObservationTerm, RewardTerm, elements
from metarl.envs.terrain import kinds as terrain
from metarl.envs.terrain.kinds import Field
from metarl.envs.terrain.on_terrain import EDGE, FREE, SCAN_X, SCAN_Y, Ground, on_terrain
from metarl.envs.terrain.settings import TerrainKind, TerrainSettings

STRIP = Field(ahead=12.0, behind=4.0, half_width=0.5, patch=1.0, strip=True)
SQUARE = Field(ahead=4.0, behind=4.0, half_width=4.0, patch=1.0)
FIELDS = pytest.mark.parametrize("field", [STRIP, SQUARE], ids=["strip", "square"])
EVERY_KIND = pytest.mark.parametrize("kind", list(terrain.KINDS))
FRICTION = (1.3, 0.02, 0.003)
CHEETAH = make_family(HalfCheetahTerrainSettings())


class TestFilled:
    @FIELDS
    def test_gaps_and_voids_are_filled_to_their_rims_and_nothing_else_is(self, field: Field):
        for kind in terrain.KINDS:
            for difficulty in (0.1, 1.0):
                ground = heights(kind, difficulty, field)
                found = terrain.filled(ground.reshape(1, -1), field).reshape(ground.shape)
                pit = (ground <= -terrain.DEPTH + 1e-9) & (kind in ("gaps", "stepping_stones"))
                np.testing.assert_array_equal(found[~pit], ground[~pit])
                pit &= (field.x < field.ahead - EDGE) & (field.x > EDGE - field.behind)
                pit &= field.strip | (np.abs(field.y) < field.half_width - EDGE)
                assert np.abs(found[pit]).max(initial=0.0) <= terrain.STONE_JITTER * difficulty + 1e-9

    @pytest.mark.parametrize("kind", ["gaps", "stepping_stones"])
    def test_a_robot_over_a_gap_has_not_fallen(self, kind: str):
        family = make_family(Walker2dTerrainSettings())
        env = BatchedEnv(family, 1, 1, threads=1)
        env.set_tasks([family.task({"terrain_kind": terrain.number(kind), "terrain_difficulty": 0.5})])
        env.reset([np.random.default_rng(0)])
        start = env.simulation.batch.qpos.copy()
        for x in np.linspace(1.5, 9.0, 60):
            env.simulation.batch.qpos[:] = start
            env.simulation.batch.qpos[:, 0], env.simulation.batch.qvel[:] = x, 0.0
            assert family.terminate is not None and not family.terminate(family.seen(env._state)).any()
            height = float(family.seen(env._state).qpos[0, 1])
            assert abs(height - start[0, 1]) < 0.2


def heights(kind: str, difficulty: float, field: Field, seed: float = 0.25) -> np.ndarray:
    return terrain.heights(terrain.number(kind), difficulty, seed, field)


def box_spec() -> mujoco.MjSpec:
    """A floor and a box that may fall on it."""
    spec = mujoco.MjSpec()
    floor = spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1), pos=(0, 0, 0.5))
    floor.friction, floor.contype, floor.conaffinity, floor.condim = FRICTION, 2, 1, 4
    body = spec.worldbody.add_body(name="box", pos=(0, 0, 1.0))
    body.add_freejoint()
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.15, 0.1, 0.02), mass=1)
    return spec


def laid(ground: np.ndarray, field: Field) -> tuple[mujoco.MjModel, mujoco.MjData]:
    spec = box_spec()
    terrain.lay(spec, ground, field)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def by_ray(model: mujoco.MjModel, data: mujoco.MjData, x: np.ndarray, y: np.ndarray, robot: int = 1) -> np.ndarray:
    """Height of the ground below (x, y) over the floor at .5 m, by a ray from above that does not see the robot."""
    geomid, top = np.zeros(1, dtype=np.int32), 90.0
    result = []
    for a, b in zip(x, y, strict=True):
        distance = mujoco.mj_ray(model, data, [a, b, top], [0, 0, -1], None, True, robot, geomid)
        assert geomid[0] == model.geom("floor").id
        result.append(top - distance - 0.5)
    return np.array(result)


def along_x(kind: str, difficulty: float, x: np.ndarray, field: Field = STRIP) -> np.ndarray:
    return by_ray(*laid(heights(kind, difficulty, field), field), x, np.zeros_like(x))


def test_kinds_are_those_of_the_settings():
    assert get_args(TerrainKind) == tuple(terrain.KINDS)


@EVERY_KIND
@FIELDS
class TestEveryKind:
    def test_same_values_same_ground(self, kind: str, field: Field):
        first, again = heights(kind, 0.6, field), heights(kind, 0.6, field)
        np.testing.assert_array_equal(first, again)
        assert first.shape == field.shape and np.isfinite(first).all()
        random = kind not in ("flat", "stairs_up", "stairs_down")
        seeds = [heights(kind, 0.6, field, seed) for seed in (0.0, 1.0, 2.0, 3.0, 0.5, 7.0)]
        assert any(not np.array_equal(first, other) for other in seeds) == random

    def test_the_start_is_flat_and_at_the_floor(self, kind: str, field: Field):
        start = np.maximum(np.abs(field.x), np.abs(field.y)) <= field.patch
        for difficulty in (0.0, 0.5, 1.0):
            ground = heights(kind, difficulty, field)
            assert not ground[start].any()
            assert kind == "flat" or difficulty == 0 or ground[~start].any()

    def test_difficulty_is_monotone(self, kind: str, field: Field):
        grounds = [heights(kind, d, field) for d in (0.0, 0.25, 0.5, 0.75, 1.0)]
        if kind == "gaps":  # the field's end may cut the farther of wider gaps off
            spread = [openings(ground[field.shape[0] // 2], field.x[0]).max(initial=0.0) for ground in grounds]
        else:
            spread = [np.abs(ground).mean() for ground in grounds]
        assert spread == sorted(spread)
        assert (spread[-1] > spread[0]) == (kind != "flat")

    def test_heights_that_are_observed_are_those_that_rays_meet(self, kind: str, field: Field):
        ground = heights(kind, 0.7, field)
        model, data = laid(ground, field)
        rng = np.random.default_rng(0)
        x = rng.uniform(-field.behind, field.ahead, 300)
        y = rng.uniform(-field.half_width, field.half_width, 300)
        compiled = terrain.compiled_heights([model, model], field)
        np.testing.assert_allclose(compiled[0].reshape(field.shape), ground, atol=1e-4)
        observed = terrain.height_at(compiled, np.ones(300, dtype=int), x, y, field)
        np.testing.assert_allclose(observed, by_ray(model, data, x, y), atol=2e-4)

    def test_a_task_takes_less_than_200_kb(self, kind: str, field: Field):
        assert mujoco.mj_sizeModel(laid(heights(kind, 1.0, field), field)[0]) < 200e3


def test_a_wide_ground_of_16_m_takes_less_than_200_kb_in_cells_of_10_cm():
    field = Field(ahead=8.0, behind=8.0, half_width=8.0, patch=1.0, cell=0.1)
    assert mujoco.mj_sizeModel(laid(heights("rough", 1.0, field), field)[0]) < 200e3


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("kind", "sign"), [("stairs_up", 1), ("stairs_down", -1)])
def test_stairs_by_rays(kind: str, sign: int, difficulty: float):
    stairs = np.arange(1, 20)
    treads = STRIP.patch + 0.3 * stairs - 0.1
    step = 0.05 + 0.18 * difficulty
    np.testing.assert_allclose(along_x(kind, difficulty, treads), sign * step * stairs, atol=1e-5)
    edges = STRIP.patch + 0.3 * stairs[:-1, None] + np.array([-1e-4, 0.05 + 1e-4])  # before and after a riser
    rise = np.diff(along_x(kind, difficulty, edges.ravel()).reshape(-1, 2))
    np.testing.assert_allclose(rise, sign * step, atol=1e-3)


@pytest.mark.parametrize("difficulty", [0.25, 1.0])
def test_slope_by_rays_and_by_the_normal_of_a_box_at_rest(difficulty: float):
    expected = 0.4 * difficulty
    signs = set()
    for seed in (0.0, 1.0, 2.0, 3.0, 4.0):
        model, data = laid(heights("slope", difficulty, STRIP, seed), STRIP)
        low, high = by_ray(model, data, np.array([2.0, 11.0]), np.zeros(2))
        signs.add(float(np.sign(high - low)))
        assert math.atan(abs(high - low) / 9.0) == pytest.approx(expected, abs=1e-5)
    assert signs == {-1.0, 1.0}
    angle = math.atan2(high - low, 9.0)
    data.qpos[:3] = (5.0, 0.0, 0.5 + low + 3.0 * math.tan(angle) + 0.03 / math.cos(angle))
    data.qpos[3:] = (math.cos(angle / 2), 0, -math.sin(angle / 2), 0)
    mujoco.mj_step(model, data, 500)
    assert np.abs(data.qvel).max() < 0.02 and data.ncon > 0  # friction 1.3 holds what tan(.4) = .42 pulls
    for contact in data.contact:
        normal = contact.frame[:3] * np.sign(contact.frame[2])
        np.testing.assert_allclose(normal, (-math.sin(angle), 0, math.cos(angle)), atol=2e-3)


def openings(ground: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Widths of the stretches along x that lie below the surface."""
    below = np.flatnonzero(np.diff(np.concatenate([[0], (ground < -0.2).astype(int), [0]])))
    return (below[1::2] - below[::2]) * (x[1] - x[0])


@pytest.mark.parametrize("difficulty", [0.2, 0.5, 1.0])
def test_gaps_by_rays(difficulty: float):
    x = np.arange(STRIP.patch, STRIP.ahead - 1.1, 0.005)
    ground = along_x("gaps", difficulty, x)
    assert ground.min() == pytest.approx(-1.0, abs=1e-5) and ground.max() == pytest.approx(0.0, abs=1e-5)
    widths = openings(ground, x)
    walls = 0.2 * 2 * STRIP.cell  # each wall leans by a cell over 1 m of depth
    assert len(widths) >= 2
    np.testing.assert_allclose(widths[:-1], difficulty - walls, atol=0.011)


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_stepping_stones_by_rays(difficulty: float):
    x = np.arange(STRIP.patch + 0.6, STRIP.ahead - 0.6, 0.005)
    ground = along_x("stepping_stones", difficulty, x)
    assert ground.min() == pytest.approx(-1.0, abs=1e-5)
    assert 0 <= ground.max() <= 0.1 * difficulty + 1e-6
    widths = openings(ground, x)[1:-1]
    assert len(widths) > 10
    np.testing.assert_allclose(widths, 0.1 + 0.2 * difficulty, atol=0.04)


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_rough_waves_and_obstacles_have_the_published_sizes(difficulty: float):
    far = np.maximum(np.abs(SQUARE.x), np.abs(SQUARE.y)) > SQUARE.patch + terrain.FADE
    rough = heights("rough", difficulty, SQUARE)[far]
    assert np.ptp(rough) == pytest.approx(0.02 + 0.08 * difficulty, rel=0.02)
    knots = heights("rough", 1.0, SQUARE)[::4, ::4]
    assert knots[np.abs(knots) > 0].std() == pytest.approx(0.1 / math.sqrt(12), rel=0.1)
    assert np.abs(heights("waves", difficulty, SQUARE)[far]).max() == pytest.approx(0.2 * difficulty, rel=0.02)
    tops = np.unique(heights("obstacles", difficulty, SQUARE))
    np.testing.assert_allclose(tops, [0, 0.025 + 0.1 * difficulty, 0.05 + 0.2 * difficulty])
    assert 0.05 < np.mean(heights("obstacles", difficulty, SQUARE)[far] > 0) < 0.35


def test_the_ground_has_the_floors_contacts_and_flat_ground_is_the_floor():
    plane, _ = laid(heights("flat", 1.0, STRIP), STRIP)
    uneven, _ = laid(heights("rough", 1.0, STRIP), STRIP)
    floor = plane.geom("floor").id
    assert plane.geom_type[floor] == mujoco.mjtGeom.mjGEOM_PLANE and plane.nhfield == 0
    assert uneven.geom_type[floor] == mujoco.mjtGeom.mjGEOM_HFIELD
    for field in [
        "friction",
        "contype",
        "conaffinity",
        "condim",
        "priority",
        "solmix",
        "solref",
        "solimp",
        "margin",
        "gap",
        "bodyid",
        "group",
        "rgba",
    ]:
        np.testing.assert_array_equal(getattr(plane, f"geom_{field}"), getattr(uneven, f"geom_{field}"), field)
    np.testing.assert_array_equal(uneven.geom_friction[floor], FRICTION)


def test_ground_without_a_floor_is_refused():
    with pytest.raises(ValueError, match="no geom 'ground' to put the ground in place of"):
        terrain.lay(box_spec(), heights("rough", 1.0, STRIP), STRIP, floor="ground")


@EVERY_KIND
@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_no_start_touches_the_ground(kind: str, difficulty: float):
    values = {"terrain_kind": terrain.number(kind), "terrain_difficulty": difficulty, "terrain_seed": 0.3}
    model = CHEETAH.compile(CHEETAH.task(values))
    data = mujoco.MjData(model)
    for qpos, qvel in zip(*CHEETAH.reset(model, np.random.default_rng(0), 150), strict=True):
        data.qpos, data.qvel = qpos, qvel
        mujoco.mj_forward(model, data)
        assert data.ncon == 0
        reach = np.abs(data.geom_xpos[1:, 0]) + model.geom_rbound[1:]
        assert reach.max() < 1.5  # within the flat start


def test_mixes_keep_their_proportions_and_ood_kinds_apart():
    settings = HalfCheetahTerrainSettings(kinds=("rough", "flat", "waves"), proportions=(5.0, 3.0, 2.0))
    family = make_family(settings)
    for split in ("train", "held_out"):
        drawn = np.array([t.values["terrain_kind"] for t in family.sample(4000, np.random.default_rng(0), split)])
        for kind, share in zip(settings.kinds, (0.5, 0.3, 0.2), strict=True):
            assert np.mean(drawn == terrain.number(kind)) == pytest.approx(share, abs=0.035)
    unseen = family.sample(1000, np.random.default_rng(0), "ood")
    assert {terrain.kind_name(t.values["terrain_kind"]) for t in unseen} == {"stepping_stones", "gaps"}
    held_out = {t.values["terrain_seed"] for t in family.sample(1000, np.random.default_rng(0), "held_out")}
    train = {t.values["terrain_seed"] for t in family.sample(1000, np.random.default_rng(0), "train")}
    assert not train & {t.values["terrain_seed"] for t in unseen} and not train & held_out
    with pytest.raises(ValueError, match="has no split 'ood'"):
        make_family(HalfCheetahTerrainSettings(ood_kinds=())).sample(1, np.random.default_rng(0), "ood")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ("flat", "gaps")}, "gaps is both in kinds and in ood_kinds"),
        ({"kinds": ("flat", "flat")}, "named twice in flat, flat"),
        ({"kinds": ()}, "at least one value"),
        ({"kinds": ("flat", "rough"), "proportions": (1.0,)}, "one weight greater than 0 for each of its 2 values"),
        ({"difficulty_high": 1.5}, "difficulty_high is 1.5; it must be at most 1"),
        ({"difficulty_low": 0.5, "difficulty_high": 0.5}, "difficulty_low < difficulty_high"),
        ({"promote_at": 0.0}, "demote_at <= promote_at"),
        ({"ground_behind": 1.0}, "start patch within its ends"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        make_family(HalfCheetahTerrainSettings(**settings))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"terrain_kind": 1.5}, "no kind of ground has the number 1.5; they are 0 flat, 1 slope"),
        ({"terrain_kind": 9.0}, "no kind of ground has the number 9"),
        ({"terrain_difficulty": 1.1}, r"difficulty of a ground lies in \[0, 1\], got 1.1"),
    ],
)
def test_values_that_are_no_ground_are_refused(values: dict, message: str):
    with pytest.raises(ValueError, match=message):
        CHEETAH.compile(CHEETAH.task(values))


def stairs_task(**more: float):
    return CHEETAH.task({"terrain_kind": terrain.number("stairs_up"), "terrain_difficulty": 1.0, **more})


def test_height_is_observed_over_the_ground_and_the_place_is_not():
    env = BatchedEnv(CHEETAH, 2, 3, 1)
    env.set_tasks([CHEETAH.neutral(), stairs_task()])
    env.reset([np.random.default_rng(i) for i in range(2)])
    env.simulation.batch.qpos[:, 0] = np.tile([0.0, 2.0, 4.3], 2)
    env.simulation.batch.qpos[:, 1] = np.tile([2.0, 2.0, 4.5], 2)
    env.simulation.batch.forward()
    observed = CHEETAH.observe(CHEETAH.seen(env._state))
    # Stairs of .23 m, .3 m deep, from 1.5 m on: the fifth at 2.0 is the second, 4.3 lies on the tenth.
    np.testing.assert_allclose(observed[:, 0], [2, 2, 4.5, 2, 2 - 2 * 0.23, 4.5 - 10 * 0.23], atol=2e-4)
    np.testing.assert_array_equal(
        observed[:, 1:], np.concatenate([env.simulation.batch.qpos[:, 2:], env.simulation.batch.qvel], axis=1)
    )


@pytest.mark.parametrize(("x", "cut"), [(80 - EDGE - 0.2, False), (80 - EDGE + 0.2, True), (EDGE - 20.2, True)])
def test_an_episode_is_cut_before_the_ground_ends(x: float, cut: bool):
    env = BatchedEnv(CHEETAH, 1, 1, 1)
    env.reset([np.random.default_rng(0)])
    env.simulation.batch.qpos[0, 0] = x
    env.simulation.batch.qvel[:] = 0
    step = env.step(np.zeros((1, 1, 6)))
    assert step.truncated[0, 0] == cut and not step.terminated[0, 0]


def box_family(settings: TerrainSettings) -> TaskFamily:
    """A box on a free joint: falls, and is gone where it is lower than .01 m over the ground."""

    def reset(model, rng, n):
        return np.tile(model.qpos0, (n, 1)), np.zeros((n, model.nv))

    robot = TaskFamily(
        name="box",
        description="a box",
        base=box_spec,
        parameters=(),
        observation={"height": ObservationTerm(lambda state: state.qpos[:, 2:3], elements("m", "z"))},
        rewards={"height": RewardTerm(lambda state: state.qpos[:, 2] - 0.5)},
        reset=reset,
        action_low=np.zeros(0),
        action_high=np.zeros(0),
        horizon=10,
        frame_skip=1,
        control=read_signals(box_spec().compile(), "force"),
        terminate=lambda state: state.qpos[:, 2] < 0.51,
    )
    return on_terrain(robot, settings, ground=Ground(SQUARE, FREE), lift=0.2)


def test_a_free_robots_scan_turns_with_it_and_is_what_rays_meet():
    family = box_family(TerrainSettings(height_scan=True))
    env = BatchedEnv(family, 2, 4, 1)
    kinds = ("rough", "obstacles")
    env.set_tasks([family.task({"terrain_kind": terrain.number(k), "terrain_difficulty": 1.0}) for k in kinds])
    env.reset([np.random.default_rng(i) for i in range(2)])
    rng = np.random.default_rng(1)
    yaw, tilt = rng.uniform(-3, 3, 8), 0.2
    env.simulation.batch.qpos[:, :2] = rng.uniform(-2.5, 2.5, (8, 2))
    for qpos, angle in zip(env.simulation.batch.qpos, yaw, strict=True):
        mujoco.mju_mulQuat(
            qpos[3:7], [math.cos(angle / 2), 0, 0, math.sin(angle / 2)], [math.cos(tilt / 2), 0, math.sin(tilt / 2), 0]
        )
    env.simulation.batch.forward()
    observed = family.observe(family.seen(env._state))
    assert observed.shape == (8, 1 + len(SCAN_X) * len(SCAN_Y)) and len(family.observation_names) == observed.shape[1]
    for s in range(8):
        model, data = family.compile(env.tasks[s // 4]), mujoco.MjData(family.compile(env.tasks[s // 4]))
        mujoco.mj_forward(model, data)
        ahead, left = (c.ravel() for c in np.meshgrid(SCAN_X, SCAN_Y, indexing="ij"))
        x = env.simulation.batch.qpos[s, 0] + math.cos(yaw[s]) * ahead - math.sin(yaw[s]) * left
        y = env.simulation.batch.qpos[s, 1] + math.sin(yaw[s]) * ahead + math.cos(yaw[s]) * left
        under = by_ray(model, data, env.simulation.batch.qpos[s, :1], env.simulation.batch.qpos[s, 1:2])[0]
        np.testing.assert_allclose(observed[s, 1:], by_ray(model, data, x, y) - under, atol=5e-4)


def test_termination_and_rewards_of_a_free_robot_see_its_height_over_the_ground():
    family = box_family(TerrainSettings())
    env = BatchedEnv(family, 1, 2, 1)
    env.set_tasks([family.task({"terrain_kind": terrain.number("stairs_up"), "terrain_difficulty": 1.0})])
    env.reset([np.random.default_rng(0)])
    env.simulation.batch.qpos[:, 0] = 1.0 + 0.3 * 4 - 0.1  # on the fourth stair, .92 m up
    env.simulation.batch.qpos[:, 2] = 0.5 + 0.92 + np.array([0.5, -0.1])
    step = env.step(np.zeros((1, 2, 0)))
    np.testing.assert_array_equal(step.terminated[0], [False, True])
    assert step.rewards[0, 0] == pytest.approx(0.5, abs=1e-3)


def test_the_scan_of_a_planar_robot_sees_the_stairs_ahead():
    family = make_family(HalfCheetahTerrainSettings(height_scan=True))
    env = BatchedEnv(family, 1, 1, 1)
    env.set_tasks([family.task(stairs_task().values)])
    env.reset([np.random.default_rng(0)])
    env.simulation.batch.qpos[0, 0] = 1.4
    env.simulation.batch.forward()
    expected = 0.23 * np.ceil(np.maximum(1.4 + SCAN_X - 1.5, 0) / 0.3 - 1e-6)
    np.testing.assert_allclose(family.observe(family.seen(env._state))[0, 17:], expected, atol=5e-4)


def test_flat_terrain_is_the_cheetah_on_its_own_floor_bit_for_bit():
    model = CHEETAH.compile(CHEETAH.task({"terrain_kind": 0.0, "terrain_difficulty": 0.7, "terrain_seed": 0.2}))
    floor = CHEETAH.base().compile()
    ours, theirs = mujoco.MjData(model), mujoco.MjData(floor)
    rng = np.random.default_rng(0)
    for _ in range(200):
        ours.ctrl[:] = theirs.ctrl[:] = rng.uniform(-1, 1, 6)
        mujoco.mj_step(model, ours)
        mujoco.mj_step(floor, theirs)
    np.testing.assert_array_equal(ours.qpos, theirs.qpos)
