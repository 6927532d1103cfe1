"""Quadruped bodies against geometry, point masses, dynamic similarity and published figures."""

from __future__ import annotations

import dataclasses
import math

import mujoco
import numpy as np
import pytest

from metarl.cli.selection import parse_task
from metarl.deployment.watch import slider_range
from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.reveal import privileged_names
from metarl.envs.robots.quadruped_body import loads
from metarl.envs.robots.quadruped_body_laws import stretched
from metarl.envs.robots.quadruped_body_settings import QuadrupedBodySettings
from metarl.envs.robots.quadruped_robot import GO1, JOINTS, LEGS, Inertial
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.errors import UsageError

FAMILY = make_family(QuadrupedBodySettings())
PLAIN = QuadrupedSettings(
    payload_mass=(0.0, 0.0), friction=(0.8, 0.8), motor_strength=(1.0, 1.0), action_delay=(0.0, 0.0)
)
ROBOTS = ("a1", "go2", "mini_cheetah", "anymal_c", "spot")
MASSES = {"a1": 12.776, "go2": 15.097, "mini_cheetah": 9.0, "anymal_c": 44.965, "spot": 32.5}
"""kg: of A1, Go2 and ANYmal C the sums of their descriptions' links, of Mini Cheetah and Spot what their makers say."""


def drawn(seed: int) -> dict[str, float]:
    return dict(FAMILY.sample(1, np.random.default_rng(seed))[0].values)


def at(model: mujoco.MjModel, joints: np.ndarray) -> mujoco.MjData:
    """Data of a robot with its trunk at the origin and these joint angles, [12] rad."""
    data = mujoco.MjData(model)
    data.qpos[:] = [0, 0, 0, 1, 0, 0, 0, *joints]
    mujoco.mj_kinematics(model, data)
    return data


@pytest.mark.parametrize("physics", ["fast", "exact"])
def test_the_neutral_body_is_the_quadruped_to_rounding(physics: str):
    changed = {"physics": physics, "locked_joints": ("FR_calf",), "payload_mass": (0.0, 5.0)}
    ours, theirs = (
        make_family(dataclasses.replace(settings, **changed)) for settings in (QuadrupedBodySettings(), PLAIN)
    )
    values = {"payload_mass": 2.0, "locked_joint": float(JOINTS.index("FR_calf"))}
    for chosen in ({}, values):
        a, b = ours.compile(ours.task(chosen)), theirs.compile(theirs.task(chosen))
        compared = 0
        for name in dir(a):
            array = getattr(a, name)
            if isinstance(array, np.ndarray) and array.dtype.kind in "fiu":
                np.testing.assert_allclose(array, getattr(b, name), rtol=0, atol=1e-12, err_msg=name)
                compared += 1
        assert compared > 200


@pytest.mark.parametrize("seed", range(3))
def test_masses_are_volumes_by_densities(seed: int):
    values = drawn(seed)
    s = values["size"] ** 3
    box = values["trunk_length"] * values["trunk_width"] * values["trunk_height"]
    hip = math.pi * 0.046**2 * 0.04 * values["hip_offset"] / 0.08
    thigh = math.pi * 0.017**2 * values["thigh_length"]
    calf = math.pi * 0.008**2 * values["calf_length"]
    foot = (0.06 / 0.02**3) / (0.135862 / (0.008**2 * 0.75 * 0.213)) * 4 / 3 * math.pi * values["foot_radius"] ** 3
    model = FAMILY.compile(FAMILY.task(values))
    assert model.body("trunk").mass == pytest.approx(values["trunk_density"] * box * s)
    for leg in LEGS:
        for part, volume in (("hip", hip), ("thigh", thigh), ("calf", calf + foot)):
            mass = float(model.body(f"{leg}_{part}").mass[0])
            assert mass == pytest.approx(values[f"{part}_density"] * volume * s, rel=1e-9)


def test_a_stretched_inertia_is_that_of_stretched_points():
    rng = np.random.default_rng(0)
    points, masses, factors = rng.normal(size=(50, 3)), rng.uniform(0.1, 1.0, 50), np.array([1.3, 0.6, 2.1])

    def of_points(points: np.ndarray, masses: np.ndarray) -> Inertial:
        centre = masses @ points / masses.sum()
        x, y, z = (points - centre).T
        diagonal = (masses @ (y**2 + z**2), masses @ (x**2 + z**2), masses @ (x**2 + y**2))
        return Inertial(masses.sum(), tuple(centre), (*diagonal, *(-masses @ p for p in (x * y, x * z, y * z))))

    found = stretched(of_points(points, masses), factors.tolist())
    expected = of_points(points * factors, masses * factors.prod())  # the density stays, the volume grows
    assert found.mass == pytest.approx(expected.mass)
    np.testing.assert_allclose(found.centre, expected.centre)
    np.testing.assert_allclose(found.inertia, expected.inertia)


def test_a_longer_calf_with_a_larger_foot_moves_its_centre_as_two_bodies_do():
    model = FAMILY.compile(FAMILY.task({"calf_length": 0.25, "foot_radius": 0.03}))
    long, foot = 0.135862 * 0.25 / 0.213, 0.06 * 1.5**3
    assert model.body("FL_calf").mass == pytest.approx(long + foot)
    centre = (long * -0.116695 * 0.25 / 0.213 + foot * -0.25) / (long + foot)
    assert model.body("FL_calf").ipos[2] == pytest.approx(centre)


@pytest.mark.parametrize("seed", range(3))
def test_feet_are_where_forward_kinematics_has_them(seed: int):
    values = drawn(seed)
    s, model = values["size"], FAMILY.compile(FAMILY.task(values))
    joints = np.array([0.0, 0.9, -1.8]) + np.random.default_rng(seed).uniform(-0.5, 0.5, (4, 3))
    data = at(model, joints.reshape(-1))
    for leg, (hip, thigh, calf) in zip(LEGS, joints, strict=True):
        x, y = (1 if leg[0] == "F" else -1), (1 if leg[1] == "L" else -1)
        forward = -values["thigh_length"] * math.sin(thigh) - values["calf_length"] * math.sin(thigh + calf)
        down = values["thigh_length"] * math.cos(thigh) + values["calf_length"] * math.cos(thigh + calf)
        side = y * values["hip_offset"]
        expected = (
            x * values["trunk_length"] / 2 + forward,
            y * values["trunk_width"] / 2 + side * math.cos(hip) + down * math.sin(hip),
            side * math.sin(hip) - down * math.cos(hip),
        )
        np.testing.assert_allclose(data.geom(f"{leg}_foot").xpos, s * np.array(expected), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_at_home_feet_are_below_the_hips_and_touch_the_ground(seed: int):
    values = drawn(seed)
    model = FAMILY.compile(FAMILY.task(values))
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_kinematics(model, data)
    leg = values["stance"] * (values["thigh_length"] + values["calf_length"])
    assert data.qpos[2] == pytest.approx(values["size"] * (leg + values["foot_radius"]))
    for name in LEGS:
        hip, foot = data.body(f"{name}_hip").xpos, data.geom(f"{name}_foot").xpos
        assert foot[0] == pytest.approx(hip[0])
        assert foot[2] == pytest.approx(model.geom(f"{name}_foot").size[0])
    home = model.key_qpos[0, 7:]
    assert (model.jnt_range[1:, 0] < home - 0.8).all() and (home + 0.8 < model.jnt_range[1:, 1]).all()
    force = mujoco.MjData(model)
    force.qpos[:] = model.key_qpos[0]
    mujoco.mj_forward(model, force)
    np.testing.assert_allclose(force.actuator_force, 0.0, atol=1e-9)  # action 0 asks for home


def test_a_scaled_robot_moves_like_the_small_one_in_its_own_time():
    """In flight, whose only times are gravity's and the robot's, motions are the same in s^1/2 of the time."""
    size, steps = 1.5, 200
    paths = []
    for s in (1.0, size):
        model = FAMILY.compile(FAMILY.task({"size": s}))
        model.opt.timestep *= math.sqrt(s)
        data = mujoco.MjData(model)
        mujoco.mj_resetDataKeyframe(model, data, 0)
        data.qpos[2] = 100 * s
        rng = np.random.default_rng(0)
        path = []
        for k in range(steps):
            if k % 20 == 0:
                data.ctrl[:] = rng.uniform(-0.3, 0.3, 12)
            mujoco.mj_step(model, data)
            path.append([*data.qpos[:3] / s, *data.qpos[3:], *data.qvel[6:] * math.sqrt(s)])
        paths.append(np.array(path))
    assert np.ptp(paths[0][:, 7:19], axis=0).min() > 0.1
    np.testing.assert_allclose(paths[1], paths[0], rtol=1e-7, atol=1e-7)


def test_loads_scale_as_torques_do():
    one, other = (FAMILY.compile(FAMILY.task({"size": s})) for s in (1.0, 1.4))
    np.testing.assert_allclose(loads([one, other]), loads([one]) * np.array([1.0, 1.4**4]))
    np.testing.assert_allclose(other.actuator_forcerange, one.actuator_forcerange * 1.4**4)


@pytest.mark.parametrize("name", ROBOTS)
def test_a_named_robot_has_its_published_figures(name: str):
    model = FAMILY.compile(FAMILY.task_named(name))
    assert model.body_mass.sum() == pytest.approx(MASSES[name], rel=0.05)
    trunk, legs, masses, limits, knee = {
        "a1": ((0.361, 0.094, 0.0), (0.0838, 0.2, 0.2, 0.02), (6.0, 0.595, 0.888, 0.211), (33.5, 33.5), 1.8),
        "go2": (
            (0.3868, 0.093, 0.0211),
            (0.0955, 0.213, 0.213, 0.02),
            (6.921, 0.678, 1.152, 0.214),
            (23.7, 35.55),
            1.8,
        ),
        "mini_cheetah": (
            (0.38, 0.098, 0.0),
            (0.062, 0.209, 0.196, 0.0202),
            (3.52, 0.595, 0.689, 0.074),
            (18.0, 27.99),
            1.597,
        ),
        "anymal_c": (
            (0.7196, 0.208, 0.0025),
            (0.1972, 0.285, 0.3275, 0.03),
            (19.2035, 2.781, 3.071, 0.58842),
            (80.0, 80.0),
            0.8,
        ),
        "spot": (
            (0.5957, 0.11, 0.0064),
            (0.1108, 0.321, 0.3365, 0.036),
            (15.02, 1.68, 2.34, 0.35),
            (45.0, 106.0),
            1.8,
        ),
    }[name]
    np.testing.assert_allclose(2 * model.body("FL_hip").pos[:2], trunk[:2])
    assert model.body("trunk").ipos[0] == pytest.approx(trunk[2], abs=1e-4)
    built = (
        model.body("FL_thigh").pos[1],
        -model.body("FL_calf").pos[2],
        -model.geom("FL_foot").pos[2],
        model.geom("FL_foot").size[0],
    )
    np.testing.assert_allclose(built, legs)
    links = [model.body(link).mass[0] for link in ("trunk", "FL_hip", "FL_thigh", "FL_calf")]
    np.testing.assert_allclose(links, masses, rtol=1e-4)
    np.testing.assert_allclose(model.actuator_forcerange[:3, 1], [limits[0], limits[0], limits[1]])
    assert model.key_qpos[0, 9] == pytest.approx(-knee)


@pytest.mark.parametrize("physics", ["fast", "exact"])
def test_named_robots_hold_their_home_pose(physics: str):
    family = make_family(QuadrupedBodySettings(physics=physics))
    env = BatchedEnv(family, len(ROBOTS), 2, 1)
    env.set_tasks([family.task_named(name) for name in ROBOTS])
    start = env.reset([np.random.default_rng(i) for i in range(len(ROBOTS))])
    joints = [i for i, name in enumerate(family.observation_names) if name.removesuffix(" [rad]") in JOINTS]
    assert np.abs(start[..., joints]).max() <= 0.05 + 1e-6  # relative to their own homes
    for _ in range(250):
        assert not env.step(np.zeros((len(ROBOTS), 2, 12))).terminated.any()
    homes = np.repeat([family.compile(task).key_qpos[0, 2] for task in env.tasks], 2)
    batch = env.simulation.batch
    assert (batch.qpos[:, 2] > 0.75 * homes).all()
    assert (batch.sensordata[:, :4] > 0).all() and (batch.sensordata[:, 4] == 0).all()
    assert (1 - 2 * (batch.qpos[:, 4] ** 2 + batch.qpos[:, 5] ** 2) > math.cos(math.radians(15))).all()


def test_split_ood_is_the_named_robots_in_turn():
    tasks = FAMILY.sample(12, np.random.default_rng(0), "ood")
    assert [FAMILY.name_of(task.values) for task in tasks] == [*ROBOTS, *ROBOTS, *ROBOTS[:2]]
    for split in ("train", "held_out"):
        assert not any(FAMILY.name_of(t.values) for t in FAMILY.sample(50, np.random.default_rng(0), split))
    windy = make_family(QuadrupedBodySettings(payload_mass=(0.0, 3.0)))
    loaded = windy.sample(10, np.random.default_rng(0), "ood")
    assert len({task.values["payload_mass"] for task in loaded}) == 10
    assert {windy.name_of(task.values) for task in loaded} == set(ROBOTS)


def test_tasks_are_chosen_by_name():
    assert parse_task(FAMILY, "spot") == FAMILY.task_named("spot")
    assert parse_task(FAMILY, '{"size": 1.2}') == FAMILY.task({"size": 1.2})
    with pytest.raises(UsageError, match="no task named 'spott'; did you mean 'spot'."):
        parse_task(FAMILY, "spott")
    plain = make_family(PLAIN)
    with pytest.raises(ValueError, match="family 'quadruped' has no task named 'spot'; there are none"):
        plain.task_named("spot")
    with pytest.raises(ValueError, match="has no parameter 'wings'"):
        dataclasses.replace(FAMILY, named={"bird": {"wings": 2.0}})
    for parameter in FAMILY.parameters:
        low, high = slider_range(FAMILY, parameter)
        assert all(low <= values[parameter.name] <= high for values in FAMILY.named.values())


def test_the_policy_sees_what_the_quadruped_sees_and_a_teacher_the_body_too():
    plain = make_family(PLAIN)
    assert FAMILY.observation_names == plain.observation_names
    assert FAMILY.action_scale == plain.action_scale
    assert {f"task_{p.name}" for p in FAMILY.parameters} <= set(privileged_names(FAMILY))
    assert {"task_size", "task_thigh_length", "task_kp"} <= set(privileged_names(FAMILY))


def test_a_locked_joint_and_a_payload_fit_the_body():
    family = make_family(
        QuadrupedBodySettings(payload_mass=(0.0, 5.0), locked_joints=("FR_calf",), thigh_length=(0.15, 0.3))
    )
    chosen = {"trunk_height": 0.2, "size": 1.2, "thigh_length": 0.3, "payload_mass": 2.0}
    model = family.compile(family.task({**chosen, "locked_joint": float(JOINTS.index("FR_calf"))}))
    payload = model.body("payload of trunk")
    half = model.geom(int(payload.geomadr[0])).size[2]
    assert payload.pos[2] - half == pytest.approx(1.2 * 0.2 / 2)  # on top of the trunk
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    locks = data.efc_type[: data.nefc] == mujoco.mjtConstraint.mjCNSTR_EQUALITY
    np.testing.assert_allclose(data.efc_pos[: data.nefc][locks], 0.0, atol=1e-12)
    assert model.key_qpos[0, 9] != pytest.approx(GO1.home[2])


def test_a_body_that_cannot_stand_or_changes_is_refused():
    family = make_family(QuadrupedBodySettings(thigh_length=(0.05, 0.06)))
    with pytest.raises(ValueError, match="a thigh of 0.05 m and a calf of 0.4 m cannot stand at 0.6"):
        family.compile(family.task({"thigh_length": 0.05, "calf_length": 0.4}))
    with pytest.raises(ValueError, match="changing has size; a body stays the same"):
        make_family(QuadrupedBodySettings(changes=1, changing=("size",)))
    assert changed(make_family(QuadrupedBodySettings(changes=1, changing=("kp",))))


def changed(family: TaskFamily) -> bool:
    return all(task.changes for task in family.sample(2, np.random.default_rng(0)))
