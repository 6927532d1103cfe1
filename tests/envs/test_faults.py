"""Faults of actuators and joints: what they do to the simulation, against MuJoCo's own steps."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence

import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.faults.settings import FaultKind
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.robots.ant_settings import AntDirectionSettings, AntLegsSettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahDirectionSettings, HalfCheetahDynamicsSettings
from metarl.envs.robots.quadruped_body_settings import QuadrupedBodySettings
from metarl.envs.robots.quadruped_legs_settings import QuadrupedLegsSettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.sharded import ShardedEnv
from metarl.envs.task import Change, Task
from tests.sampling import sampled

HORIZON = 60
ALL_KINDS: tuple[FaultKind, ...] = typing.get_args(FaultKind)
UNABLE: dict[str, tuple[FaultKind, ...]] = {
    "point_goal": ("dead", "weak", "stuck", "saturated", "reversed", "dead_band", "delay", "slack"),
}
"""Faults that a family cannot have: a point has no actuators."""
PLAIN = {"payload_mass": (0.0, 0.0), "friction": (0.8, 0.8), "motor_strength": (1.0, 1.0), "action_delay": (0.0, 0.0)}
"""Settings of a quadruped whose tasks do not differ."""
SHIN = 1  # actuator of the cheetah's back shin


def cheetah(*faults: FaultKind, **rest) -> TaskFamily:
    return make_family(HalfCheetahDirectionSettings(faults=faults, horizon=HORIZON, **rest))


def quadruped(*faults: FaultKind, **rest) -> TaskFamily:
    return make_family(QuadrupedSettings(faults=faults, horizon=HORIZON, **PLAIN, **rest))


def fault(family: TaskFamily, place: str, severity: float = 1.0, kind: int = 1) -> dict[str, float]:
    """Values of a task whose fault is in a place."""
    places = next(p.names for p in family.parameters if p.name == "fault_place")
    return {"fault_kind": float(kind), "fault_place": float(places.index(place)), "fault_severity": severity}


SOUND = {"fault_kind": 0.0, "fault_place": 0.0, "fault_severity": 0.5}


def faulty(family: TaskFamily, place: str, severity: float = 1.0, onset: int = 0) -> Task:
    """A task whose fault begins at a step and lasts for good."""
    values = fault(family, place, severity)
    if onset == 0:
        return family.task(values)
    return family.own(Task(family.name, family.task({}).values, (Change(onset, values),)))


def env_of(family: TaskFamily, task: Task) -> BatchedEnv:
    env = BatchedEnv(family, 1, 1, threads=1)
    env.set_tasks([task])
    env.reset([np.random.default_rng(0)])
    return env


def random_actions(family: TaskFamily, steps: int, scale: float = 1.0) -> np.ndarray:
    """Actions as a policy gives them, [steps, act]."""
    drawn = np.random.default_rng(1).uniform(family.action_low, family.action_high, (steps, family.action_size))
    return scale * drawn / family.action_scale


def poses(env: BatchedEnv, actions: Sequence[np.ndarray]) -> np.ndarray:
    """Positions after each step, [steps, nq]."""
    result = []
    for action in actions:
        env.step(action[None, None])
        result.append(env.simulation.batch.qpos[0].copy())
    return np.stack(result)


def by_hand(
    env: BatchedEnv,
    model: mujoco.MjModel,
    actions: np.ndarray,
    signals: Callable[[int, np.ndarray, mujoco.MjData], None],
) -> np.ndarray:
    """Positions by mj_step from the env's start, [steps, nq]; signals: changes the control signals of a step."""
    family, data = env.family, mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = env.simulation.batch.qpos[0], env.simulation.batch.qvel[0]
    mujoco.mj_forward(model, data)
    result = []
    for t, action in enumerate(actions):
        ctrl = family.command(action)
        signals(t, ctrl, data)
        data.ctrl[:] = ctrl
        mujoco.mj_step(model, data, nstep=family.frame_skip)
        result.append(data.qpos.copy())
    return np.stack(result)


def unchanged(t: int, ctrl: np.ndarray, data: mujoco.MjData) -> None:
    """Leave the signals as they are."""


def test_a_dead_actuator_moves_its_joint_as_no_signal_does():
    family = cheetah("dead")
    actions = random_actions(family, HORIZON)
    env = env_of(family, faulty(family, "bshin"))

    def silent(t: int, ctrl: np.ndarray, data: mujoco.MjData) -> None:
        ctrl[SHIN] = 0.0

    expected = by_hand(env, cheetah().compile(cheetah().neutral()), actions, silent)
    np.testing.assert_array_equal(poses(env, actions), expected)


@pytest.mark.parametrize(("kind", "severity"), [("dead", 0.5), ("weak", 0.75), ("weak", 1.0)])
def test_a_weak_servo_equals_one_whose_gains_are_scaled_by_hand(kind: FaultKind, severity: float):
    family, factor = quadruped(kind), 0.25 if severity == 0.75 else 0.0
    model = quadruped().compile(quadruped().neutral())
    i = model.actuator("FR_calf").id
    for values in (model.actuator_gainprm, model.actuator_biasprm, model.actuator_forcerange):
        values[i] *= factor
    model.actuator_forcelimited[i] = factor > 0
    actions = random_actions(family, 30)
    env = env_of(family, faulty(family, "FR_calf", severity))
    expected = by_hand(env, model, actions, unchanged)
    np.testing.assert_array_equal(poses(env, actions), expected)
    assert env.num_faults == 0


def test_a_saturated_motor_equals_clipped_signals():
    family = cheetah("saturated")
    actions = random_actions(family, HORIZON)
    env = env_of(family, faulty(family, "bshin", 0.75))

    def clip(t: int, ctrl: np.ndarray, data: mujoco.MjData) -> None:
        ctrl[SHIN] = np.clip(ctrl[SHIN], -0.25, 0.25)

    expected = by_hand(env, cheetah().compile(cheetah().neutral()), actions, clip)
    np.testing.assert_allclose(poses(env, actions), expected, atol=1e-9)


def test_a_reversed_actuator_does_as_the_opposite_action_does():
    family, sound = quadruped("reversed"), quadruped()
    actions = random_actions(family, 30)
    opposite = actions.copy()
    opposite[:, 2] *= -1  # FR_calf
    turned = poses(env_of(family, faulty(family, "FR_calf")), actions)
    np.testing.assert_array_equal(turned, poses(env_of(sound, sound.neutral()), opposite))
    assert not np.array_equal(turned, poses(env_of(sound, sound.neutral()), actions))


def test_a_dead_band_swallows_small_actions_and_lessens_large_ones():
    family = cheetah("dead_band")
    env = env_of(family, faulty(family, "bshin", 0.25))
    for action, signal in [(0.2, 0.0), (-0.2, 0.0), (0.75, 0.5), (-1.0, -0.75), (3.0, 0.75), (0.0, 0.0)]:
        env.step(np.full((1, 1, 6), action))
        expected = np.full(6, np.clip(action, -1, 1))
        expected[SHIN] = signal
        np.testing.assert_allclose(env.simulation.batch.ctrl[0], expected, atol=1e-15)


@pytest.mark.parametrize("onset", [0, 10])
def test_a_stuck_servo_asks_for_the_angle_that_it_had_when_the_fault_began(onset: int):
    family = quadruped("stuck")
    actions = random_actions(family, 40, scale=0.5)
    env = env_of(family, faulty(family, "FR_thigh", onset=onset))
    angle = {}

    def hold(t: int, ctrl: np.ndarray, data: mujoco.MjData) -> None:
        if t == onset:
            angle["kept"] = data.qpos[7 + 1]
        if t >= onset:
            ctrl[1] = angle["kept"] - 0.9  # home of a thigh

    expected = by_hand(env, quadruped().compile(quadruped().neutral()), actions, hold)
    np.testing.assert_allclose(poses(env, actions), expected, rtol=0, atol=1e-9)


def test_a_new_episode_holds_the_angle_that_it_starts_with():
    family = quadruped("stuck")
    env = env_of(family, faulty(family, "FR_thigh"))
    for _ in range(2):
        env.reset([np.random.default_rng(5)])
        start = env.simulation.batch.qpos[0, 8]
        env.step(np.zeros((1, 1, 12)))
        assert env.simulation.batch.ctrl[0, 1] == pytest.approx(start - 0.9)
        env.reset([np.random.default_rng(6)])
        assert env.simulation.batch.qpos[0, 8] != start
        env.step(np.zeros((1, 1, 12)))
        assert env.simulation.batch.ctrl[0, 1] == pytest.approx(env._state.memory["fault_angle"][0, 1] - 0.9)


def test_a_stuck_servo_of_a_robot_with_another_home_holds_its_angle_too():
    family = make_family(QuadrupedBodySettings(faults=("stuck",), horizon=HORIZON))
    spot = {**family.task_named("spot").values, **fault(family, "FR_thigh")}
    env = env_of(family, family.task(spot))
    start = env.simulation.batch.qpos[0, 8]
    env.step(np.zeros((1, 1, 12)))
    model = env.simulation.batch.get_model(0)
    target = env.simulation.batch.ctrl[0, 1] - model.actuator_biasprm[1, 0] / model.actuator_biasprm[1, 1]
    assert target == pytest.approx(start) and abs(model.key("home").qpos[8] - 0.9) > 0.01


def test_a_stuck_motor_holds_its_joint_with_its_own_force():
    family = cheetah("stuck")
    env = env_of(family, faulty(family, "fthigh", onset=20))
    path = poses(env, random_actions(family, HORIZON))[:, 6]
    assert np.ptp(path[:20]) > 0.1 and np.abs(path[20:] - path[19]).max() < 1e-2


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
def test_a_stuck_motor_that_is_stronger_or_weaker_holds_with_its_own_force(scale: float):
    family = make_family(HalfCheetahDynamicsSettings(faults=("stuck",)))
    sound, stuck = (family.compile(family.task({"torque_scale": scale, **v})) for v in (SOUND, fault(family, "bshin")))
    motor = sound.actuator("bshin")
    most = abs(motor.gear[0]) * np.abs(motor.ctrlrange).max()
    joint = sound.joint("bshin").dofadr[0]
    assert stuck.dof_frictionloss[joint] - sound.dof_frictionloss[joint] == pytest.approx(most)


@pytest.mark.parametrize("kind", ["stuck", "dead", "encoder_offset", "delay"])
@pytest.mark.parametrize("settings", [QuadrupedLegsSettings, AntLegsSettings])
def test_faults_are_of_legs_that_the_robot_has(kind: FaultKind, settings):
    family = make_family(settings(faults=(kind,), horizon=4))
    names = next(p.names for p in family.parameters if p.name == "fault_place")
    tasks = family.sample(60, np.random.default_rng(0))
    for task in tasks:
        model = family.compile(task)
        place = names[round(task.values["fault_place"])]
        assert task.values["fault_kind"] == 1 and mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, place) >= 0
    legs = {task.values["legs"]: task for task in tasks}
    for task in [*legs.values(), *(family.task({"legs": number}) for number in legs)]:
        env = ShardedEnv(family, 1, 1, 1)
        env.set_tasks([task])
        env.reset([np.random.default_rng(0)])
        for action in random_actions(family, 4):
            assert np.isfinite(env.step(np.tile(action, (1, 1, 1))).observations).all()


def test_a_delay_of_whole_steps_is_of_as_many_late_in_an_episode():
    """MuJoCo's time is a sum of steps, whose rounding may make a delay a step longer."""
    family = make_family(HalfCheetahDirectionSettings(faults=("delay",), horizon=400))
    env, plain = env_of(family, faulty(family, "bshin", 5 / 6)), cheetah()
    model = plain.compile(plain.neutral())
    data, before = mujoco.MjData(model), 0.0
    data.qpos, data.qvel = env.simulation.batch.qpos[0], env.simulation.batch.qvel[0]
    mujoco.mj_forward(model, data)
    for action in random_actions(family, 400):
        data.ctrl = action
        data.ctrl[SHIN], before = before, action[SHIN]
        mujoco.mj_step(model, data, nstep=5)
        env.step(action[None, None])
        np.testing.assert_array_equal(env.simulation.batch.qpos[0], data.qpos)


def test_a_sensor_that_is_held_out_fails_in_no_training_task_by_another_name():
    settings = {"faults": ("sensor_lost",), "fault_places": (".*",), "fault_held_out": ("FR_calf",)}
    family = make_family(QuadrupedSettings(**settings))
    names = next(p.names for p in family.parameters if p.name == "fault_place")
    train, apart = ({names[round(t.values["fault_place"])] for t in family.sample(300, np.random.default_rng(0), s)}
                    for s in ("train", "held_out"))  # fmt: skip
    assert apart == {"FR_calf", "joints", "joint_velocities"} and not train & apart and "FR_hip" in train


@pytest.mark.parametrize(
    ("family", "joint", "place"),
    [
        (cheetah("locked"), 4, "bshin"),
        (quadruped("locked", physics="fast"), 8, "FR_thigh"),
        (quadruped("locked", physics="exact"), 8, "FR_thigh"),
        (make_family(AntDirectionSettings(faults=("locked",), horizon=HORIZON)), 8, "ankle_1"),
    ],
)
def test_a_locked_joint_stays_within_a_thousandth_of_a_radian(family: TaskFamily, joint: int, place: str):
    env = env_of(family, faulty(family, place, onset=10))
    path = poses(env, random_actions(family, 50, scale=0.6))[:, joint]
    assert np.ptp(path[:10]) > 0.01 and abs(path[10] - path[9]) < 0.03  # a joint that moves stops
    assert np.abs(path[11:] - path[10]).max() < 1e-3


@pytest.mark.parametrize("place", ["FR_calf", "FR"])
def test_a_group_fails_as_a_whole(place: str):
    family = quadruped("dead", fault_places=("FR", "FR_calf"))
    model = family.compile(family.task(fault(family, place)))
    dead = [model.actuator(i).name for i in range(model.nu) if model.actuator_gainprm[i, 0] == 0]
    assert dead == (["FR_hip", "FR_thigh", "FR_calf"] if place == "FR" else ["FR_calf"])


def test_a_delay_that_jumps_gives_the_signal_of_one_control_step_before():
    family = cheetah("delay")
    env = env_of(family, faulty(family, "bshin", severity=5 / 6, onset=10))  # 50 ms, a control step
    actions = random_actions(family, 30)

    def late(t: int, ctrl: np.ndarray, data: mujoco.MjData) -> None:
        if t >= 10:
            ctrl[SHIN] = family.command(actions[t - 1])[SHIN]

    expected = by_hand(env, cheetah().compile(cheetah().neutral()), actions, late)
    np.testing.assert_array_equal(poses(env, actions), expected)


def test_recovery_is_to_the_bit():
    def saved(model: mujoco.MjModel) -> bytes:
        buffer = np.empty(mujoco.mj_sizeModel(model), dtype=np.uint8)
        mujoco.mj_saveModel(model, None, buffer)
        return buffer.tobytes()

    for kind in ("dead", "weak", "saturated", "locked", "stuck", "delay", "short_leg"):
        for family in (cheetah(kind), quadruped(kind)):
            place = "bshin" if family.name.startswith("half") else "FR_calf"
            changes = (Change(5, fault(family, place)), Change(10, SOUND))
            task = family.own(Task(family.name, family.neutral().values, changes))
            before, during, after = (saved(family.compile(stage)) for stage in family.stages(task))
            assert before == after == saved(family.compile(family.neutral()))
            assert (before == during) == (kind == "stuck" and family.name == "quadruped")  # a servo's fault is a signal


def test_slack_holds_back_what_moves_by_less_than_the_play():
    family = quadruped("slack")
    env = env_of(family, faulty(family, "FR_thigh", severity=0.5))  # a play of 0.1 rad
    asked = [0.03, 0.2, 0.25, 0.18, 0.1, -0.3, -0.22]
    expected = [0.0, 0.15, 0.2, 0.2, 0.15, -0.25, -0.25]
    for rad, signal in zip(asked, expected, strict=True):
        env.step(np.full((1, 1, 12), rad) / family.action_scale)
        np.testing.assert_allclose(env.simulation.batch.ctrl[0], np.where(np.arange(12) == 1, signal, rad), atol=1e-12)


def test_slack_that_begins_later_begins_at_the_last_action():
    family = quadruped("slack")
    env = env_of(family, faulty(family, "FR_thigh", severity=1.0, onset=2))
    for rad, signal in [(0.3, 0.3), (0.35, 0.35), (0.3, 0.35), (0.2, 0.3)]:
        env.step(np.full((1, 1, 12), rad) / family.action_scale)
        assert env.simulation.batch.ctrl[0, 1] == pytest.approx(signal)


@pytest.mark.parametrize(
    ("family", "joint", "end"),
    [
        (quadruped("short_leg"), "RL_calf", "RL_foot"),
        (make_family(AntDirectionSettings(faults=("short_leg",))), "ankle_1", None),
        (cheetah("short_leg"), "bshin", "bfoot"),
    ],
)
def test_a_short_link_ends_nearer_to_its_joint_and_is_lighter(family: TaskFamily, joint: str, end: str | None):
    sound, short = family.compile(family.neutral()), family.compile(family.task(fault(family, joint, severity=0.5)))
    body = int(sound.joint(joint).bodyid[0])
    np.testing.assert_allclose(short.body_mass[body], 0.8 * sound.body_mass[body])
    others = np.arange(sound.nbody) != body
    np.testing.assert_array_equal(short.body_mass[others], sound.body_mass[others])

    def reach(model: mujoco.MjModel) -> float:
        """Distance from the joint to the end of the link."""
        if end is None:  # the far end of a capsule
            [g] = np.flatnonzero(model.geom_bodyid == body)
            turn = np.zeros(9)
            mujoco.mju_quat2Mat(turn, model.geom_quat[g])
            tips = model.geom_pos[g] + np.outer((1, -1), model.geom_size[g, 1] * turn.reshape(3, 3)[:, 2])
            return float(np.linalg.norm(tips - model.joint(joint).pos, axis=1).max())
        place = model.geom(end).pos if family.name == "quadruped" else model.body(end).pos
        return float(np.linalg.norm(place - model.joint(joint).pos))

    assert reach(short) == pytest.approx(0.8 * reach(sound))


@pytest.mark.parametrize("name", sampled([name for name in FAMILY_SETTINGS if name != "env"], 3))
def test_every_family_simulates_every_fault_that_it_can_have(name: str):
    unable = UNABLE.get(name, ())
    supported = [kind for kind in ALL_KINDS if kind not in unable]
    for kind in ALL_KINDS:
        settings = FAMILY_SETTINGS[name](faults=(kind,), horizon=20)
        if kind in unable:
            with pytest.raises(ValueError, match=f"{kind}.*; what can fail: {', '.join(supported)}$"):
                make_family(settings)
            continue
        family = make_family(settings)
        env = ShardedEnv(family, 2, 1, 1)
        env.set_tasks(family.sample(2, np.random.default_rng(0)))
        env.reset([np.random.default_rng(i) for i in range(2)])
        for action in random_actions(family, 20):
            assert np.isfinite(env.step(np.tile(action, (2, 1, 1))).observations).all()
        assert env.num_faults == 0
