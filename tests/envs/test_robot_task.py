"""What a robot is told, asked for and rewarded for, against plain MuJoCo and closed forms."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, ClassVar

import mujoco
import numpy as np
import pytest
import yaml

from metarl.envs.batch import BatchedEnv
from metarl.envs.declared.observations import OBSERVATIONS
from metarl.envs.declared.rewards import REWARDS
from metarl.envs.family import TaskFamily
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family
from tests.envs.own_robot.families import written

LEG = """<body name="{name}_thigh" pos="{x} {y} 0"><joint name="{name}_hip"/>
  <geom name="{name}_thigh" type="capsule" size=".02" fromto="0 0 0 0 0 -.15" mass=".3"/>
  <body name="{name}_foot" pos="0 0 -.15"><joint name="{name}_knee"/>
    <geom name="{name}_shin" type="capsule" size=".01" fromto="0 0 0 0 0 -.12" mass=".1" contype="0" conaffinity="0"/>
    <geom name="{name}_sole" type="sphere" size=".02" pos="0 0 -.13" mass=".05"/></body></body>"""
LEGS = {"fl": (0.15, 0.1), "fr": (0.15, -0.1), "rl": (-0.15, 0.1), "rr": (-0.15, -0.1)}
TABLE = f"""<mujoco model="table"><compiler angle="radian"/><option timestep=".005" integrator="implicitfast"/>
  <default><joint axis="0 1 0" range="-1 1" damping=".2" armature=".01"/>
    <position kp="60" kv="2" ctrlrange="-1 1" forcerange="-25 25"/></default>
  <worldbody><geom name="floor" type="plane" size="0 0 1"/><body name="trunk" pos="0 0 .3"><freejoint/>
    <geom name="trunk" type="box" size=".2 .1 .04" mass="4"/>
    {"".join(LEG.format(name=name, x=x, y=y) for name, (x, y) in LEGS.items())}</body>
    <body name="ball" pos="1 0 .1"><freejoint name="ball"/><geom name="ball" type="sphere" size=".1" mass=".5"/></body>
  </worldbody><actuator>
  {"".join(f'<position joint="{n}_{j}"/>' for n in LEGS for j in ("hip", "knee"))}
  </actuator></mujoco>"""
MASS = {
    "name": "m",
    "quantity": "mass",
    "target": "trunk",
    "operation": "scale",
    "distribution": "uniform",
    "range": [0.5, 2],
}


def family_of(folder: Path, *entries: dict[str, Any], model: str = TABLE, **said: Any) -> TaskFamily:
    file = folder / "task.yaml"
    declared = {"reward": {"alive": 1}, "distribution": [MASS, *entries], **said}
    file.write_text(yaml.safe_dump(declared, sort_keys=False))
    return make_family(RobotSettings(written(folder, model), str(file)))


def told(quantity: str, low: float, high: float) -> dict[str, Any]:
    return {"name": quantity, "quantity": quantity, "distribution": "uniform", "range": [low, high]}


def played(family: TaskFamily, steps: int, envs: int = 4, scale: float = 0.3, **values: float) -> BatchedEnv:
    """An env after some steps of random actions."""
    env = BatchedEnv(family, 1, envs, 1)
    env.set_tasks([family.task(values)])
    env.reset([np.random.default_rng(0)])
    rng = np.random.default_rng(1)
    for _ in range(steps):
        env.step(scale * rng.normal(size=(1, envs, family.action_size)))
    return env


def value(env: BatchedEnv, name: str) -> np.ndarray:
    """A reward term without its weight, of a cost its positive value."""
    term = env.family.rewards[name]
    return np.asarray(term.function(env.family.seen(env._state)))


def part(env: BatchedEnv, name: str) -> np.ndarray:
    return np.asarray(env.family.observation[name].function(env.family.seen(env._state)))


def test_every_term_has_a_sentence_and_is_made_for_some_robot(tmp_path):
    for kind in (*OBSERVATIONS.values(), *REWARDS.values()):
        assert kind.text.endswith("."), kind
    rewards = dict.fromkeys(REWARDS, 1) | {
        "base_height": {"weight": 1, "target": 0.3},
        "contact": {"weight": 1, "bodies": ["trunk"]},
        "contact_force": {"weight": 1, "above": 50},
        "velocity_limits": {"weight": 1, "limit": 1},
        "python": {"weight": 1, "function": "own.py:zero"},
    }
    (tmp_path / "own.py").write_text("def zero(state):\n    return 0 * state.qpos[:, 0]\n")
    observation: dict[str, Any] = dict.fromkeys(OBSERVATIONS)
    observation |= {"contacts": {"bodies": ["trunk"]}, "contact_forces": {"bodies": ["feet"]}}
    del observation["python"]  # see test_robot_hooks
    for name in ("guide_positions", "guide_velocities"):
        del observation[name]  # of a robot that does not float
    family = family_of(
        tmp_path,
        told("goal_x", 1, 2),
        reward=rewards,
        observation=observation,
        commands={"forward_velocity": [0, 1], "yaw_rate": [-1, 1]},
        goal={"effector": "fl_foot", "object": "ball", "orientation": [1, 0, 0, 0]},
        termination={"contact": ["trunk"]},
    )
    for name, term in family.observation.items():
        unit = OBSERVATIONS[name].unit
        assert unit == "any" or {element.unit or "1" for element in term.elements} <= set(unit.split(" or ")), name
    env = played(family, 30)
    assert all(np.isfinite(value(env, name)).all() for name in family.rewards)
    assert {name for name, term in family.rewards.items() if term.weight < 0} == {
        n for n, k in REWARDS.items() if k.cost
    }
    assert env.observations.shape[-1] == family.observation_size == len(set(family.observation_names))


class TestContacts:
    def test_they_are_mujocos(self, tmp_path):
        groups = {"legs": [".*_thigh"]}
        family = family_of(
            tmp_path,
            observation={
                "foot_contacts": None,
                "contacts": {"bodies": ["legs", "trunk"]},
                "contact_forces": {"bodies": ["feet"]},
            },
            contacts=groups,
        )
        env = BatchedEnv(family, 1, 1, 1)
        env.reset([np.random.default_rng(0)])
        model = family.compile(family.neutral())
        data, found = mujoco.MjData(model), 0
        bodies = [*(f"{n}_foot" for n in LEGS), *(f"{n}_thigh" for n in LEGS), "trunk"]
        rng = np.random.default_rng(2)
        for _ in range(150):
            env.step(rng.normal(size=(1, 1, 8)))
            batch = env.simulation.batch
            sensed = np.concatenate([part(env, "foot_contacts")[0], part(env, "contacts")[0]])
            # The sensors are of the last substep's start, so that a contact may be new or over now.
            data.qpos[:], data.qvel[:] = batch.qpos[0], batch.qvel[0]
            mujoco.mj_forward(model, data)
            now = {model.body(model.geom_bodyid[g]).name for c in data.contact for g in c.geom}
            agree = np.array([(b in now) == bool(s) for b, s in zip(bodies, sensed, strict=True)])
            found += int(agree.all())
        assert found > 120

    def test_net_force_of_a_robot_at_rest_is_its_weight(self, tmp_path):
        family = family_of(
            tmp_path,
            observation={"contact_forces": {"bodies": ["feet"]}},
            reward={"contact_force": {"weight": 1, "above": 5}},
        )
        env = played(family, 200, envs=1, scale=0.0)
        force = part(env, "contact_forces")[0].reshape(4, 3)
        model = family.compile(family.neutral())
        weight = model.body_subtreemass[model.body("trunk").id] * 9.81
        np.testing.assert_allclose(force.sum(axis=0), [0, 0, weight], atol=0.01 * weight)
        np.testing.assert_allclose(value(env, "contact_force")[0], (np.linalg.norm(force, axis=1) - 5).sum())

    def test_a_trunk_that_must_touch_nothing_ends_the_episode_when_it_does(self, tmp_path):
        family = family_of(tmp_path, termination={"contact": ["trunk"]}, reward={"alive": 1, "fall": 10})
        env = BatchedEnv(family, 1, 2, 1)
        env.reset([np.random.default_rng(0)])
        batch = env.simulation.batch
        batch.qpos[0, 3:7] = (0, 1, 0, 0)  # on its back
        batch.qpos[0, 2] = 0.03
        result = env.step(np.zeros((1, 2, 8)))
        assert result.terminated.ravel().tolist() == [True, False] and result.rewards.ravel().tolist() == [-9.0, 1.0]

    def test_a_geom_is_sensed_apart_from_the_rest_of_its_body(self, tmp_path):
        """A thigh that lies on the ground is no foot that stands on it, though both are of one body."""
        soles = [f"{name}_sole" for name in LEGS]
        solid = TABLE.replace(' contype="0" conaffinity="0"', "").replace(
            'size=".01" fromto="0 0 0 0 0 -.12"', 'size=".04" fromto="0 0 0 0 0 -.06"'
        )
        observation = {"foot_contacts": None, "contacts": {"bodies": ["shins", "fl_foot"]}}
        observation["contact_forces"] = {"bodies": ["feet"]}
        family = family_of(
            tmp_path,
            model=solid,
            robot={"feet": soles},
            contacts={"shins": [".*_shin"]},
            observation=observation,
            reward={"slip": 1},
        )
        env = BatchedEnv(family, 1, 1, 1)
        env.reset([np.random.default_rng(0)])
        model = family.compile(family.neutral())
        data, alone, stood = mujoco.MjData(model), 0, 0
        shins = [f"{name}_shin" for name in LEGS]
        for kneels in [False] * 30 + [True] * 60:
            if kneels and not alone:
                env.simulation.batch.qpos[0, 7:15] = np.tile([0.0, 1.5], 4)  # shins level and low
            data.qpos[:], data.qvel[:] = env.simulation.batch.qpos[0], env.simulation.batch.qvel[0]
            env.step(np.full((1, 1, 8), float(kneels)))
            sensed = np.concatenate([part(env, "foot_contacts")[0], part(env, "contacts")[0]]) > 0
            for _ in range(family.frame_skip):  # to the start of the last substep, whose contacts are sensed
                data.ctrl = env.simulation.batch.ctrl[0]
                mujoco.mj_step(model, data)
            now = {model.geom(g).name for c in data.contact for g in c.geom}
            expected = [*(geom in now for geom in (*soles, *shins)), bool(now & {"fl_sole", "fl_shin"})]
            assert sensed.tolist() == expected
            alone += sensed[4:8].any() and not sensed[:4].any()
            pushed = np.linalg.norm(part(env, "contact_forces")[0].reshape(4, 3), axis=1) > 0
            assert not (pushed & ~sensed[:4]).any()
            stood += pushed.all()
        assert alone and stood

    def test_patterns_are_the_bodies_that_they_match_in_full(self, tmp_path):
        def touched(*bodies: str) -> list[str]:
            family = family_of(tmp_path, observation={"contacts": {"bodies": list(bodies)}})
            return [element.name.removesuffix(" contact") for element in family.observation["contacts"].elements]

        thighs = [f"{name}_thigh" for name in LEGS]
        assert touched(".*_thigh") == thighs
        assert touched("trunk", "f[lr]_foot", "fl_.*") == ["trunk", "fl_foot", "fr_foot", "fl_thigh"]
        by_name, by_pattern = (
            family_of(
                tmp_path,
                reward={"contact": {"weight": 1, "bodies": bodies}},
                termination={"contact": bodies},
            )
            for bodies in (thighs, [".*_thigh"])
        )
        named, matched = (played(family, 40) for family in (by_name, by_pattern))
        assert by_name.rewards["contact"].weight < 0
        np.testing.assert_array_equal(value(named, "contact"), value(matched, "contact"))
        np.testing.assert_array_equal(named.active, matched.active)

    @pytest.mark.parametrize(
        ("said", "message"),
        [
            ({"contacts": {"legs": ["thighs"]}}, "contacts.legs: 'thighs' is no group, body or geom of it"),
            ({"termination": {"contact": ["trunks"]}}, "termination.contact: 'trunks' is no group, body or geom of it"),
            (
                {"reward": {"contact": {"weight": 1, "bodies": ["q.*"]}}},
                "'q.*' is no group, body or geom of it, and matches none; there are feet, trunk, fl_thigh",
            ),
            ({"termination": {"contact": ["*_foot"]}}, "bodies '*_foot' is no regular expression: nothing to repeat"),
            ({"reward": {"contact": 1}}, "reward.contact lacks bodies"),
            ({"reward": {"slip": {"weight": 1, "speed": 2}}}, "unknown key 'reward.slip.speed'"),
        ],
    )
    def test_wrong_ones_are_refused(self, said, message, tmp_path):
        with pytest.raises(ValueError, match=re.escape(message)):
            family_of(tmp_path, **said)


def test_feet_move_as_differences_of_their_places_say(tmp_path):
    family = family_of(tmp_path, reward={"slip": 1, "clearance": {"weight": 1, "target": 0.03}, "alive": 1})
    env = BatchedEnv(family, 1, 1, 1)
    env.reset([np.random.default_rng(0)])
    model = family.compile(family.neutral())
    data = mujoco.MjData(model)
    rng = np.random.default_rng(3)
    soles = [model.geom(f"{name}_sole").id for name in LEGS]
    for _ in range(40):
        before = env.simulation.batch.qpos[0].copy(), env.simulation.batch.qvel[0].copy()
        action = 0.5 * rng.normal(size=8)
        env.step(action[None, None])
        data.qpos[:], data.qvel[:], data.ctrl[:] = *before, family.command(action)
        mujoco.mj_step(model, data, nstep=family.frame_skip - 1)
        mujoco.mj_forward(model, data)  # where the last substep begins
        speeds, h = np.zeros((4, 2)), 1e-6
        places = data.geom_xpos[soles].copy()
        touching = {g for c in data.contact for g in c.geom}
        moved = data.qpos.copy()
        mujoco.mj_integratePos(model, moved, data.qvel, h)
        data.qpos[:] = moved
        mujoco.mj_kinematics(model, data)
        speeds = (data.geom_xpos[soles] - places)[:, :2] / h
        slips = sum(speeds[i] @ speeds[i] for i, g in enumerate(soles) if g in touching)
        np.testing.assert_allclose(value(env, "slip")[0], slips, rtol=1e-4, atol=1e-7)
        clearance = np.sum((places[:, 2] - 0.02 - 0.03) ** 2 * np.linalg.norm(speeds, axis=1))
        np.testing.assert_allclose(value(env, "clearance")[0], clearance, rtol=1e-3, atol=1e-8)


class TestCommands:
    def test_they_are_drawn_in_each_episode_and_observed(self, tmp_path):
        ranges = {"forward_velocity": [-1, 2], "yaw_rate": [0.5, 0.5]}
        family = family_of(tmp_path, commands=ranges, reward={"track_velocity": 1, "track_yaw": 1})
        env = played(family, 1, envs=2000)
        command = part(env, "command").copy()
        assert [e.name for e in family.observation["command"].elements] == [
            "command_forward_velocity",
            "command_yaw_rate",
        ]
        assert command[:, 0].min() > -1 and command[:, 0].max() < 2 and abs(command[:, 0].mean() - 0.5) < 0.1
        assert (command[:, 1] == 0.5).all()
        env.reset([np.random.default_rng(5)])
        assert not np.array_equal(part(env, "command"), command)

    @pytest.mark.thorough
    def test_some_ask_it_to_stand_and_they_come_anew(self, tmp_path):
        said = {"forward_velocity": [0.5, 1], "every": 0.2, "standing": 0.25}
        env = played(family_of(tmp_path, commands=said, reward={"track_velocity": 1}), 9, envs=2000)
        first = part(env, "command").copy()
        assert abs(np.mean(first == 0) - 0.25) < 0.05
        env.step(np.zeros((1, 2000, 8)))  # the tenth of 0.02 s
        second = part(env, "command")
        assert np.mean(first == second) < 0.15  # both stand

    def test_a_parameter_is_a_command_and_hidden_unless_it_is_asked_for(self, tmp_path):
        family = family_of(tmp_path, told("command_x", 0, 1), reward={"track_velocity": 1})
        assert "command" not in family.observation and "last_action" in family.observation
        env = played(family, 3, command_x=0.7)
        np.testing.assert_array_equal(env._state.memory["command"], np.full((4, 1), 0.7))
        velocity = env._state.qvel[:, :2]
        assert value(env, "track_velocity") == pytest.approx(
            np.exp(-((part(env, "base_angular_velocity")[:, 0] * 0 + _gap(env, velocity)) / 0.25)), rel=1e-6
        )

    @pytest.mark.parametrize(
        ("said", "message"),
        [
            (
                {"commands": {"forward_velocity": [1, 0]}, "reward": {"track_velocity": 1}},
                "is reversed; give low <= high",
            ),
            (
                {"commands": {"forward_velocity": [0, 1]}},
                "no reward term asks for commands.forward_velocity; add track_velocity",
            ),
            ({"commands": {"standing": 0.1}}, "commands draws nothing"),
            ({"commands": {"standing": 1, "yaw_rate": [0, 1]}, "reward": {"track_yaw": 1}}, "commands.standing is 1"),
        ],
    )
    def test_wrong_ones_are_refused(self, said, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            family_of(tmp_path, **said)

    def test_a_command_is_drawn_once(self, tmp_path):
        with pytest.raises(ValueError, match=r"commands.forward_velocity is 'command_x' \(command_x\) already"):
            family_of(
                tmp_path, told("command_x", 0, 1), commands={"forward_velocity": [0, 1]}, reward={"track_velocity": 1}
            )


def _gap(env: BatchedEnv, velocity: np.ndarray) -> np.ndarray:
    """Squared error of the velocity in the base's frame, by MuJoCo's own rotation."""
    gaps = []
    for quaternion, v in zip(env._state.qpos[:, 3:7], env._state.qvel[:, :3], strict=True):
        back, local = np.zeros(4), np.zeros(3)
        mujoco.mju_negQuat(back, quaternion)
        mujoco.mju_rotVecQuat(local, v.copy(), back)
        gaps.append((local[0] - 0.7) ** 2 + local[1] ** 2)
    return np.array(gaps)


class TestObservation:
    @pytest.mark.thorough
    def test_scale_and_clip_are_of_the_noisy_value(self, tmp_path):
        said = {"joint_positions": {"noise": 0.1, "scale": 4}, "joint_velocities": None}
        family = family_of(tmp_path, observation=said)
        assert str(family.elements[0]) == "fl_hip - home [0.25 rad]"
        env = played(family, 3, envs=3000)
        seen = env.observations[0]
        raw = part(env, "joint_positions")
        assert np.std(seen[:, :8] / 4 - raw) == pytest.approx(0.1, rel=0.03)
        np.testing.assert_allclose(seen[:, 8:], env._state.qvel[:, 6:14], rtol=1e-6)
        said["joint_positions"]["clip"] = 0.2
        clipped = played(family_of(tmp_path, observation=said), 3, envs=3000).observations[0]
        np.testing.assert_array_equal(clipped[:, :8], np.clip(seen[:, :8], -np.float32(0.2), np.float32(0.2)))

    def test_a_parameter_scales_the_noise(self, tmp_path):
        said = {"joint_positions": {"noise": 0.1}, "up": None}
        family = family_of(tmp_path, told("sensor_noise", 0, 2), observation=said)
        for factor in (0.0, 0.5, 2.0):
            env = played(family, 1, envs=2000, sensor_noise=factor)
            error = env.observations[0, :, :8] - part(env, "joint_positions")
            assert np.std(error) == pytest.approx(0.1 * factor, rel=0.05, abs=1e-7)
            np.testing.assert_allclose(env.observations[0, :, 8:], part(env, "up"), atol=1e-6)

    def test_a_history_holds_what_was_observed(self, tmp_path):
        said = {"joint_positions": {"noise": 0.1, "history": 3}, "base_angular_velocity": {"history": 2}}
        family = family_of(tmp_path, observation=said)
        assert family.observation_size == 8 * 3 + 3 * 2
        assert family.observation_names[8] == "fl_hip - home 1 steps ago [rad]"
        env = BatchedEnv(family, 1, 2, 1)
        seen = [env.reset([np.random.default_rng(0)])[0]]
        np.testing.assert_array_equal(seen[0][:, :8], seen[0][:, 16:24])
        rng = np.random.default_rng(1)
        for _ in range(5):
            seen.append(env.step(rng.normal(size=(1, 2, 8))).observations[0])
        for now, before, earlier in zip(seen[2:], seen[1:], seen, strict=False):
            np.testing.assert_array_equal(now[:, 8:16], before[:, :8])
            np.testing.assert_array_equal(now[:, 16:24], earlier[:, :8])
            np.testing.assert_array_equal(now[:, 27:30], before[:, 24:27])
        env.reset([np.random.default_rng(3)], np.array([[True, False]]))
        np.testing.assert_array_equal(env.observations[0, 1], seen[-1][1])  # whose episode goes on

    def test_history_and_faults_of_sensors_do_not_go_together(self, tmp_path):
        with pytest.raises(ValueError, match="encoder_offset changes what a sensor reports, and joint_positions"):
            family_of(
                tmp_path,
                observation={"joint_positions": {"history": 2}},
                faults={"kinds": ["encoder_offset"]},
            )

    def test_what_a_teacher_is_told_has_no_noise(self, tmp_path):
        family = family_of(tmp_path, privileged=["base_velocity", "foot_contacts"])
        assert [len(term.elements) for term in family.privileged.values()] == [3, 4]
        with pytest.raises(ValueError, match="a privileged term has neither noise"):
            family_of(tmp_path, privileged={"base_velocity": {"noise": 0.1}})


def test_a_delay_is_that_of_the_simulation_step(tmp_path):
    """Against plain MuJoCo that is given each signal so many steps later."""
    family = family_of(tmp_path, {**told("action_delay", 0, 0.03), "target": ".*", "operation": "set"})
    assert family.picture(family.task({"action_delay": 0.03})).compile().actuator_delay.max() == pytest.approx(0.03)
    for delay in (0.0, 0.01, 0.03):
        env = BatchedEnv(family, 1, 1, 1)
        env.set_tasks([family.task({"action_delay": delay})])
        env.reset([np.random.default_rng(0)])
        model = family_of(tmp_path).compile(family_of(tmp_path).neutral())
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = env.simulation.batch.qpos[0], env.simulation.batch.qvel[0]
        late = round(delay / model.opt.timestep)
        signals = [family.control.offset.copy()] * late
        rng = np.random.default_rng(4)
        for _ in range(20):
            action = rng.normal(size=8)
            env.step(action[None, None])
            for _ in range(family.frame_skip):
                signals.append(family.command(action))
                data.ctrl[:] = signals[len(signals) - 1 - late]
                mujoco.mj_step(model, data)
        np.testing.assert_allclose(env.simulation.batch.qpos[0], data.qpos, atol=1e-9)


def test_a_constant_delay_acts_too(tmp_path):
    slow, quick = family_of(tmp_path, control={"delay": 0.02}), family_of(tmp_path)
    np.testing.assert_allclose(slow.compile(slow.neutral()).actuator_delay, [0.02] * 8, rtol=1e-6)
    assert not np.allclose(*(played(f, 5).simulation.batch.qpos for f in (slow, quick)))


class TestPushes:
    def test_a_push_adds_its_velocity_when_it_is_due(self, tmp_path):
        still, pushed = (family_of(tmp_path, **said) for said in ({}, {"pushes": {"velocity": 0.8, "every": 0.1}}))
        a, b = played(still, 5, scale=0), played(pushed, 5, scale=0)
        np.testing.assert_array_equal(a.simulation.batch.qpos, b.simulation.batch.qpos)
        before = b.simulation.batch.qvel.copy()
        assert b.family.actuate is not None
        b.family.actuate(b._state)
        added = b.simulation.batch.qvel - before
        np.testing.assert_allclose(np.linalg.norm(added[:, :2], axis=1), 0.8)
        assert not added[:, 2:].any() and len({*added[:, 0]}) == 4

    def test_its_velocity_is_a_parameter(self, tmp_path):
        family = family_of(tmp_path, told("push_velocity", 0, 2), pushes={"every": 0.02})
        env = played(family, 1, push_velocity=1.5)
        before = env.simulation.batch.qvel.copy()
        assert family.actuate is not None
        family.actuate(env._state)
        np.testing.assert_allclose(np.linalg.norm((env.simulation.batch.qvel - before)[:, :2], axis=1), 1.5)

    def test_one_of_the_two_says_how_hard(self, tmp_path):
        with pytest.raises(ValueError, match="one of the two"):
            family_of(tmp_path, pushes={"every": 2})
        with pytest.raises(ValueError, match="say how often by pushes"):
            family_of(tmp_path, told("push_velocity", 0, 2))


GROUND = {"kinds": ["stairs_up", "rough"], "around": 3, "patch": 1.3, "height_scan": True}
ALONE = re.sub('<body name="ball".*?</body>', "", TABLE)


class TestTerrain:
    def test_heights_are_over_the_ground_that_rays_meet(self, tmp_path):
        family = family_of(
            tmp_path, terrain=GROUND, observation=["base_height", "up"], reward={"clearance": 1, "height": 1}
        )
        assert {"terrain_kind", "terrain_difficulty", "terrain_seed"} <= {p.name for p in family.parameters}
        env = BatchedEnv(family, 2, 6, 1)
        env.set_tasks(family.sample(2, np.random.default_rng(0)))
        env.reset([np.random.default_rng(i) for i in range(2)])
        batch, rng = env.simulation.batch, np.random.default_rng(1)
        batch.qpos[:, :2] = rng.uniform(-1.8, 1.8, (12, 2))
        batch.qpos[:, 2] = 1.0
        batch.forward()
        heights = part(env, "base_height")[:, 0]
        np.testing.assert_array_equal(value(env, "height"), heights)
        for s in range(12):
            model = family.compile(env.tasks[s // 6])
            data = mujoco.MjData(model)
            mujoco.mj_forward(model, data)
            only = np.zeros(mujoco.mjNGROUP, dtype=np.uint8)
            only[0] = 1
            hit = np.zeros(1, dtype=np.int32)
            start = np.array([*batch.qpos[s, :2], 3.0])
            model.geom_group[:] = 1
            model.geom_group[model.geom("floor").id] = 0
            far = mujoco.mj_ray(model, data, start, np.array([0.0, 0, -1]), only, 1, -1, hit, None)
            assert heights[s] == pytest.approx(1.0 - (3.0 - far), abs=5e-4)

    def test_it_is_learnt_on_and_drawn(self, tmp_path):
        family = family_of(tmp_path, terrain=GROUND)
        assert family.curriculum is not None and family.splits == ("train", "held_out", "ood")
        env = played(family, 20)
        assert np.isfinite(env.observations).all()

    def test_a_ground_that_is_not_level_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="terrain takes the place of one level floor"):
            family_of(tmp_path, {**told("slope", 0, 0.2), "operation": "set"}, model=ALONE, terrain=GROUND)

    def test_what_stands_beyond_the_flat_square_is_refused(self, tmp_path):
        """It would begin in the ground: the robot with any heading, and what lies about it."""
        message = r"{} reaches {}\d m from the start at home, .* write terrain: \{{patch: {}\}} or more"
        with pytest.raises(ValueError, match=message.format("[a-z_]+", r"0\.\d", r"0\.\d")):
            family_of(tmp_path, model=ALONE, terrain={**GROUND, "patch": 0.01})
        with pytest.raises(ValueError, match=message.format("ball", r"1\.\d", r"1\.\d")):
            family_of(tmp_path, terrain={**GROUND, "patch": 0.5})
        assert family_of(tmp_path, model=ALONE, terrain={**GROUND, "patch": 0.5}).curriculum is not None


def test_parameters_change_while_a_task_lasts(tmp_path):
    said = {"parameters": ["m"], "count": 2, "gap": [3, 5]}
    family = family_of(tmp_path, changes=said)
    task = family.sample(1, np.random.default_rng(0))[0]
    assert len(task.changes) == 2 and all(set(change.values) == {"m"} for change in task.changes)
    with pytest.raises(ValueError, match="has no parameter 'mm'; did you mean 'm'"):
        family_of(tmp_path, changes={"parameters": ["mm"]})


def test_a_target_is_reached_when_the_effector_is_there(tmp_path):
    family = family_of(
        tmp_path,
        told("goal_x", -1, 1),
        goal={"effector": "fl_foot", "position": [0, 0.1, 0.2]},
        reward={"reach": {"weight": 1, "width": 0.2}, "distance": 2},
        observation=["goal", "effector_position"],
    )
    env = played(family, 4, goal_x=0.4)
    gap = np.linalg.norm(env._state.xpos[:, 6 - 3] - [0.4, 0.1, 0.2], axis=1)
    body = family.compile(family.neutral()).body("fl_foot").id
    gap = np.linalg.norm(env._state.xpos[:, body] - [0.4, 0.1, 0.2], axis=1)
    np.testing.assert_allclose(value(env, "distance"), gap)
    np.testing.assert_allclose(value(env, "reach"), np.exp(-gap / 0.2))
    np.testing.assert_allclose(part(env, "goal"), np.tile([0.4, 0.1, 0.2], (4, 1)))
    assert family.success[0].measure == "distance_to_target"
    picture = family.picture(family.task({"goal_x": 0.4})).compile()
    assert any(np.allclose(place, [0.4, 0.1, 0.2]) for place in picture.geom_pos)
    with pytest.raises(ValueError, match="goal.effector: site or body 'hand' is not in the model"):
        family_of(tmp_path, goal={"effector": "hand"}, reward={"reach": 1})
    with pytest.raises(ValueError, match="goal_x is of a target; say what reaches for it by goal"):
        family_of(tmp_path, told("goal_x", -1, 1))


def test_starts_turn_about_the_vertical_and_drop(tmp_path):
    family = family_of(tmp_path, episode={"random_heading": True, "drop": 0.1, "position_noise": 0})
    model = family.compile(family.neutral())
    qpos, _ = family.reset(model, np.random.default_rng(0), 500)
    plain, _ = family_of(tmp_path, episode={"position_noise": 0}).reset(model, np.random.default_rng(0), 1)
    np.testing.assert_allclose(qpos[:, 2], plain[0, 2] + 0.1)
    assert not qpos[:, 4:6].any()  # upright
    yaw = 2 * np.arctan2(qpos[:, 6], qpos[:, 3])
    assert np.std(np.cos(yaw)) > 0.6 and np.std(np.sin(yaw)) > 0.6


def test_weights_count_a_step_or_a_second(tmp_path):
    a, b = (family_of(tmp_path, rewards_per=per) for per in ("step", "second"))
    assert a.rewards["alive"].weight == 1 and b.rewards["alive"].weight == pytest.approx(0.02)


def test_terms_of_actions_and_joints_by_hand(tmp_path):
    names = (
        "action_rate",
        "action_acceleration",
        "joint_acceleration",
        "joint_limits",
        "power",
        "torque",
        "torque_limits",
    )
    family = family_of(tmp_path, reward=dict.fromkeys(names, 1) | {"alive": 1})
    env = BatchedEnv(family, 1, 1, 1)
    env.reset([np.random.default_rng(0)])
    model = family.compile(family.neutral())
    actions, speeds, rng = [np.zeros(8), np.zeros(8)], [], np.random.default_rng(1)
    for _ in range(6):
        speeds.append(env._state.qvel[0, 6:14].copy())
        actions.append(0.9 * np.clip(rng.normal(size=8), -1, 1))
        env.step(actions[-1][None, None])
        a, b, c = actions[-3:]
        assert value(env, "action_rate")[0] == pytest.approx(np.sum((c - b) ** 2))
        assert value(env, "action_acceleration")[0] == pytest.approx(np.sum((c - 2 * b + a) ** 2))
        change = (env._state.qvel[0, 6:14] - speeds[-1]) / 0.02
        assert value(env, "joint_acceleration")[0] == pytest.approx(np.sum(change**2))
        force, speed = env._state.actuator_force[0], env._state.actuator_velocity[0]
        assert value(env, "torque")[0] == pytest.approx(np.sum(force**2))
        assert value(env, "power")[0] == pytest.approx(np.sum(np.abs(force * speed)))
        assert value(env, "torque_limits")[0] == pytest.approx(np.sum(np.clip(np.abs(force) - 0.8 * 25, 0, None)))
    q = env.simulation.batch.qpos[0, 7:15]
    assert value(env, "joint_limits")[0] == pytest.approx(np.sum(np.clip(np.abs(q) - 0.9, 0, None)))
    assert model.nu == 8 and math.isfinite(value(env, "alive")[0])


def test_forces_on_joints_include_the_gear(tmp_path):
    """As MuJoCo has them in qfrc_actuator, for motors of gear 5 and of gear -2."""
    text = re.sub(r'<motor joint="(\w+)" gear="5"', r'<motor joint="\1" gear="-2"', MOTORS, count=1)
    reward = {"torque": 1, "torque_limits": {"weight": 1, "share": 0.5}, "power": 1, "alive": 1}
    family = family_of(tmp_path, model=text, reward=reward, observation=["joint_forces", "joint_positions"])
    env, rng = BatchedEnv(family, 1, 1, 1), np.random.default_rng(1)
    env.reset([np.random.default_rng(0)])
    limits = np.array([3.0 * 2, *[3.0 * 5] * 7])
    for _ in range(4):
        seen = env.step(rng.uniform(-1, 1, (1, 1, 8))).observations[0, 0]
        compiled, data = env.simulation.batch.get_model(0), mujoco.MjData(env.simulation.batch.get_model(0))
        data.qpos[:], data.qvel[:], data.ctrl[:] = (getattr(env._state, k)[0] for k in ("qpos", "qvel", "ctrl"))
        mujoco.mj_forward(compiled, data)
        acting = data.qfrc_actuator[6:14]
        np.testing.assert_allclose(seen[:8], acting, rtol=1e-5)
        assert value(env, "torque")[0] == pytest.approx(np.sum(acting**2))
        assert value(env, "torque_limits")[0] == pytest.approx(np.sum(np.clip(np.abs(acting) - 0.5 * limits, 0, None)))


MOTORS = re.sub(r'<position joint="(\w+)"/>', r'<motor joint="\1" gear="5" ctrlrange="-3 3"/>', TABLE)


class TestActuatorsInPlaceOfMotors:
    SERVOS: ClassVar = {"kind": "position", "kp": 40, "kd": 1, "gains": {".*_knee": [60, 2]}, "forces": {".*_hip": 10}}

    def family(self, folder: Path, **servos: Any) -> TaskFamily:
        file = folder / "task.yaml"
        said = {"robot": {"actuators": self.SERVOS | servos}, "reward": {"alive": 1}, "distribution": [MASS]}
        file.write_text(yaml.safe_dump(said))
        return make_family(RobotSettings(written(folder, MOTORS), str(file)))

    def test_torques_are_those_of_pd_control_within_the_motors_limits(self, tmp_path):
        family = self.family(tmp_path, armatures={".*_knee": 0.02})
        model = family.compile(family.neutral())
        assert model.dof_armature[6:14].tolist() == [0.01, 0.02] * 4
        data, rng = mujoco.MjData(model), np.random.default_rng(0)
        for _ in range(20):
            data.qpos[7:15], data.qvel[6:14] = rng.uniform(-0.5, 0.5, 8), rng.normal(size=8)
            action = rng.uniform(-1, 1, 8)
            data.ctrl[:] = family.command(action)
            mujoco.mj_forward(model, data)
            kp, kd, most = np.array([40, 60] * 4), np.array([1, 2] * 4), np.array([10, 15] * 4)
            torque = np.clip(kp * (action - data.qpos[7:15]) - kd * data.qvel[6:14], -most, most)
            np.testing.assert_allclose(data.qfrc_actuator[6:14], torque)

    def test_torques_of_velocity_servos_are_those_of_their_law_within_the_motors_limits(self, tmp_path):
        """force = kd (speed asked for - speed), and an action of 1 asks for the largest speed."""
        servos = {"kind": "velocity", "kp": None, "kd": 3, "gains": {".*_knee": [0, 5]}, "speed": 8}
        family = self.family(tmp_path, **servos, speeds={".*_hip": 4})
        assert set(family.control.kinds) == {"velocity"} and set(family.control.units) == {"rad/s"}
        model = family.compile(family.neutral())
        data, rng = mujoco.MjData(model), np.random.default_rng(0)
        kd, most, fastest = np.array([3, 5] * 4), np.array([10, 15] * 4), np.array([4, 8] * 4)
        saturated = 0
        for _ in range(20):
            data.qpos[7:15], data.qvel[6:14] = rng.uniform(-0.5, 0.5, 8), rng.normal(size=8)
            action = rng.uniform(-1.5, 1.5, 8)
            data.ctrl[:] = family.command(action)
            mujoco.mj_forward(model, data)
            asked = fastest * np.clip(action, -1, 1)
            np.testing.assert_allclose(family.control.targets(data.ctrl), asked)
            torque = np.clip(kd * (asked - data.qvel[6:14]), -most, most)
            np.testing.assert_allclose(data.qfrc_actuator[6:14], torque)
            saturated += np.sum(np.abs(torque) == most)
        assert 10 < saturated < 150

    def test_motors_in_place_of_motors_are_weaker_and_slower(self, tmp_path):
        none = {"kp": None, "kd": 0, "gains": {}}
        family = self.family(tmp_path, kind="motor", **none, armatures={".*_knee": 0.02})
        model = family.compile(family.neutral())
        data = mujoco.MjData(model)
        data.ctrl[:] = family.command(np.full(8, -0.5))
        mujoco.mj_forward(model, data)
        np.testing.assert_allclose(data.qfrc_actuator[6:14], [-5, -7.5] * 4)
        assert model.dof_armature[6:14].tolist() == [0.01, 0.02] * 4

    @pytest.mark.parametrize(
        ("servos", "message"),
        [
            ({"kind": "velocity", "kp": None, "speed": 8}, "the velocity servo of 'fl_knee' needs .* no kp"),
            ({"kind": "velocity", "kp": None, "gains": {}}, "the velocity servo of 'fl_hip' needs .* speed > 0"),
            ({"kind": "velocity", "kp": None, "gains": {}, "kd": 0, "speed": 8}, "needs kd > 0"),
            ({"kind": "velocity", "speed": 8}, "robot.actuators.kp is for kind position, not velocity"),
            ({"speeds": {".*": 8}}, "robot.actuators.speeds is for kind velocity, not position"),
            ({"kind": "motor", "kp": None}, "robot.actuators.kd is for kind position or velocity, not motor"),
        ],
    )
    def test_what_another_kind_takes_is_refused(self, tmp_path, servos, message):
        with pytest.raises(ValueError, match=message):
            self.family(tmp_path, **servos)

    def test_a_limit_above_the_motors_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"robot.actuators.force is 16, above .* of joint 'fl_knee'"):
            self.family(tmp_path, forces={".*_knee": 16})

    def test_motors_of_no_single_joint_are_refused(self, tmp_path):
        model = MOTORS.replace("<motor joint", "<velocity kv='3' joint", 1).replace('gear="5" ', "", 1)
        file = tmp_path / "task.yaml"
        file.write_text(
            yaml.safe_dump({"robot": {"actuators": self.SERVOS}, "reward": {"alive": 1}, "distribution": [MASS]})
        )
        with pytest.raises(ValueError, match="is no torque motor of one joint"):
            make_family(RobotSettings(written(tmp_path, model), str(file)))
