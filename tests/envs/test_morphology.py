"""Resized limbs against closed forms and MuJoCo's own distances."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest

from metarl.envs.locomotion import gymnasium_model
from metarl.envs.registry import make_family
from metarl.envs.robots.ant_settings import AntLimbsSettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahBodySettings, HalfCheetahLimbsSettings
from metarl.envs.robots.morphology import geometric_spec, lowest
from metarl.envs.robots.walkers_settings import Walker2dLimbsSettings

LIMBS: list[Any] = [AntLimbsSettings(), HalfCheetahLimbsSettings(), Walker2dLimbsSettings()]


def posed(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data


def clearance(model: mujoco.MjModel) -> float:
    """Smallest distance of the robot from the floor by MuJoCo's own collision functions, m."""
    data, floor = posed(model), model.geom("floor").id
    geoms = [g for g in range(model.ngeom) if g != floor]
    return min(mujoco.mj_geomDistance(model, data, floor, g, 10.0, None) for g in geoms)


def tips(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> np.ndarray:
    """Both ends of a capsule's axis, [2, 3] m."""
    axis = data.geom_xmat[geom].reshape(3, 3)[:, 2] * model.geom_size[geom, 1]
    return data.geom_xpos[geom] + np.stack([-axis, axis])


def capsule(density: float, radius: float, half_length: float) -> tuple[float, float, float]:
    """Mass, moment of inertia across the axis and about it, of a cylinder with two hemispheres."""
    cylinder = density * np.pi * radius**2 * 2 * half_length
    sphere = density * 4 / 3 * np.pi * radius**3
    about = cylinder * radius**2 / 2 + sphere * 2 / 5 * radius**2
    across = cylinder * (radius**2 / 4 + half_length**2 / 3)
    across += sphere * (2 / 5 * radius**2 + half_length**2 + 3 / 4 * half_length * radius)
    return cylinder + sphere, across, about


@pytest.mark.parametrize("settings", LIMBS, ids=lambda s: type(s).__name__)
def test_a_limbs_length_moves_what_it_carries_by_as_much_and_nothing_else(settings: Any):
    family = make_family(settings)
    neutral = family.compile(family.neutral())
    before = posed(neutral)
    for parameter in family.parameters:
        name, _, quantity = parameter.name.rpartition("_")
        if quantity != "length":
            continue
        joint = neutral.joint(name if settings is LIMBS[0] or settings is LIMBS[1] else f"{name}_joint")
        limb, factor = int(neutral.jnt_bodyid[joint.id]), 1.2
        model = family.compile(family.task({parameter.name: factor}))
        after = posed(model)
        rise = after.xpos[1] - before.xpos[1]
        np.testing.assert_allclose(rise[:2], 0, atol=1e-12)
        moved = after.geom_xpos - before.geom_xpos - rise
        carried = [b for b in range(neutral.nbody) if neutral.body_parentid[b] == limb]
        pivot = before.xanchor[joint.id]
        for geom in range(neutral.ngeom):
            body = int(neutral.geom_bodyid[geom])
            if body == limb:
                expected = (factor - 1) * (before.geom_xpos[geom] - pivot)
                lengths = [np.ptp(tips(m, d, geom), axis=0) for m, d in ((neutral, before), (model, after))]
                np.testing.assert_allclose(lengths[1], factor * lengths[0], atol=1e-12)
            elif carried and _below(neutral, body, limb):
                distal = before.xanchor[neutral.body_jntadr[carried[0]]]
                expected = (factor - 1) * (distal - pivot)  # the foot, by as much
            elif body == 0:
                expected = -rise
            else:
                expected = np.zeros(3)
            np.testing.assert_allclose(moved[geom], expected, atol=1e-12, err_msg=f"{parameter.name} {geom}")


def _below(model: mujoco.MjModel, body: int, ancestor: int) -> bool:
    while body not in (0, ancestor):
        body = int(model.body_parentid[body])
    return body == ancestor


@pytest.mark.parametrize("settings", LIMBS, ids=lambda s: type(s).__name__)
def test_masses_and_inertias_are_those_of_capsules_of_the_neutral_density(settings: Any):
    family = make_family(settings)
    neutral = family.compile(family.neutral())
    values = {p.name: v for p, v in zip(family.parameters, np.linspace(0.8, 1.25, 40), strict=False)}
    model = family.compile(family.task(values))
    checked = 0
    for body in range(1, model.nbody):
        if model.body_geomnum[body] != 1 or model.geom_type[model.body_geomadr[body]] != mujoco.mjtGeom.mjGEOM_CAPSULE:
            continue
        geom = model.body_geomadr[body]
        density = neutral.body_mass[body] / capsule(1.0, *neutral.geom_size[geom, :2])[0]
        mass, across, about = capsule(density, *model.geom_size[geom, :2])
        assert model.body_mass[body] == pytest.approx(mass, rel=1e-9)
        np.testing.assert_allclose(sorted(model.body_inertia[body]), sorted([across, across, about]), rtol=1e-9)
        checked += 1
    assert checked >= 6 and model.body_subtreemass[0] != pytest.approx(neutral.body_subtreemass[0])


@pytest.mark.parametrize("settings", LIMBS, ids=lambda s: type(s).__name__)
def test_thickness_is_the_radius(settings: Any):
    family = make_family(settings)
    neutral = family.compile(family.neutral())
    for parameter in family.parameters:
        if not parameter.name.endswith("_thickness"):
            continue
        model = family.compile(family.task({parameter.name: 1.25}))
        ratio = model.geom_size[:, 0] / neutral.geom_size[:, 0]
        assert sorted(set(np.round(ratio, 12))) == [1.0, 1.25] and (ratio > 1).sum() == 1
        np.testing.assert_array_equal(model.geom_size[:, 1], neutral.geom_size[:, 1])


@pytest.mark.parametrize("settings", [*LIMBS, HalfCheetahBodySettings()], ids=lambda s: type(s).__name__)
def test_no_robot_starts_in_the_ground_or_above_it(settings: Any):
    family = make_family(settings)
    expected = clearance(family.compile(family.neutral()))
    for task in family.sample(10, np.random.default_rng(0), "ood"):
        assert clearance(family.compile(task)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["ant", "half_cheetah", "walker2d_v5"])
def test_lowest_point_is_mujocos(name: str):
    spec = geometric_spec(gymnasium_model(name))
    assert lowest(spec) == pytest.approx(clearance(spec.compile()), abs=1e-9)


def test_walkers_height_reading_is_its_height():
    family = make_family(Walker2dLimbsSettings(limbs="alike"))
    model = family.compile(family.task({"leg_length": 1.3}))
    data = posed(model)
    assert data.qpos[1] == pytest.approx(data.body("torso").xpos[2])
    assert data.qpos[1] == pytest.approx(1.25 + 0.3 * 0.5)  # the shank is half a metre


def test_limbs_that_are_alike_share_their_parameters():
    family = make_family(AntLimbsSettings(limbs="alike"))
    names = [p.name for p in family.parameters]
    assert names == ["upper_leg_length", "lower_leg_length", "upper_leg_thickness", "lower_leg_thickness"]
    model = family.compile(family.task({"lower_leg_length": 1.5}))
    feet = [model.geom(f"{name}_ankle_geom").size[1] for name in ("left", "right", "third", "fourth")]
    np.testing.assert_allclose(feet, 1.5 * np.hypot(0.4, 0.4) / 2)


def test_a_body_parts_size_is_its_capsules_radius_and_length():
    family = make_family(HalfCheetahBodySettings())
    neutral, model = family.compile(family.neutral()), family.compile(family.task({"thigh_size": 1.2}))
    for name in ("bthigh", "fthigh"):
        np.testing.assert_allclose(model.geom(name).size[:2], 1.2 * neutral.geom(name).size[:2])
        assert model.body(name).mass[0] == pytest.approx(1.2**3 * neutral.body(name).mass[0])
        np.testing.assert_allclose(model.body(name).inertia, 1.2**5 * neutral.body(name).inertia)
