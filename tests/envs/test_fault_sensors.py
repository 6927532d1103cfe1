"""Faults of sensors: they change the observation alone."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.faults.settings import FaultKind
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahDirectionSettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.task import Change, Task

ONSET, END, STEPS = 8, 20, 25
FAMILIES = {
    "half_cheetah_direction": ("bshin", "back_shin"),
    "quadruped": ("RL_thigh", "RL_thigh"),
    "robot": ("fl_hip", "fl_hip - home"),
}
"""Joint that fails, and the element of the observation that shows it."""
HOMES = {"quadruped": 0.9, "robot": 0.4}
"""Angle of the joint at home, rad, where that is what the element is relative to."""


def family_of(name: str, *faults: FaultKind, **rest) -> TaskFamily:
    return make_family(FAMILY_SETTINGS[name](faults=faults, horizon=STEPS, **rest))


def task_of(family: TaskFamily, severity: float, sound_values: dict[str, float]) -> Task:
    """A task whose only fault, in its only place, begins at ONSET and ends at END."""
    broken = {"fault_kind": 1.0, "fault_place": 1.0, "fault_severity": severity}
    values = family.task(sound_values).values
    sound = {name: values[name] for name in broken}
    return family.own(Task(family.name, values, (Change(ONSET, broken), Change(END, sound))))


def run(family: TaskFamily, task: Task) -> dict[str, np.ndarray]:
    """Observations, one before the first step and one after each, and poses and rewards of a task."""
    env = BatchedEnv(family, 1, 1, threads=1, measuring=True)
    env.set_tasks([task])
    observations, poses, rewards = [env.reset([np.random.default_rng(0)])[0, 0]], [], []
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        step = env.step(0.3 * rng.uniform(family.action_low, family.action_high, (1, 1, family.action_size)))
        observations.append(step.observations[0, 0])
        poses.append(env.simulation.batch.qpos[0].copy())
        rewards.append(step.rewards[0, 0])
    measures = np.array([value[0, 0] for value in env.measures.values()])
    return {
        "seen": np.stack(observations),
        "poses": np.stack(poses),
        "rewards": np.array(rewards),
        "measures": measures,
    }


def compare(name: str, kind: FaultKind, severity: float = 0.5, **rest) -> tuple[np.ndarray, np.ndarray, TaskFamily]:
    """Observations with a fault and of the sound robot; everything else is equal to the bit."""
    sound = family_of(name, **rest)
    faulty = family_of(name, kind, **{"fault_places": (FAMILIES[name][0],), **rest})
    values = dict(sound.neutral().values)
    one, other = run(faulty, task_of(faulty, severity, values)), run(sound, sound.task(values))
    for key in ("poses", "rewards", "measures"):
        np.testing.assert_array_equal(one[key], other[key])
    return one["seen"], other["seen"], faulty


def element(family: TaskFamily, name: str) -> int:
    return [e.name for e in family.elements].index(name)


@pytest.mark.parametrize("name", list(FAMILIES))
class TestEncoders:
    def changed(self, name: str, seen: np.ndarray, truth: np.ndarray, family: TaskFamily, *names: str) -> None:
        """Nothing but the named elements, during the fault, differs."""
        during = np.zeros(truth.shape, dtype=bool)
        during[ONSET + 1 : END + 1, [element(family, n) for n in names]] = True
        np.testing.assert_array_equal(seen[~during], truth[~during])
        assert (seen[during] != truth[during]).mean() > 0.9

    def test_an_offset_is_half_a_radian_at_the_worst(self, name: str):
        seen, truth, family = compare(name, "encoder_offset", severity=0.5)
        self.changed(name, seen, truth, family, FAMILIES[name][1])
        at = element(family, FAMILIES[name][1])
        np.testing.assert_allclose((seen - truth)[ONSET + 1 : END + 1, at], 0.25, atol=1e-6)

    @pytest.mark.parametrize("kind", ["encoder_offset", "encoder_scale", "encoder_drift"])
    def test_a_severity_below_0_is_the_same_error_of_the_other_sign(self, name: str, kind: FaultKind):
        errors = []
        for severity in (0.6, -0.6):
            seen, truth, _ = compare(name, kind, severity=severity, fault_severity=(-1.0, 1.0))
            errors.append(seen.astype(float) - truth)
        np.testing.assert_allclose(errors[0], -errors[1], atol=2e-6)
        assert np.abs(errors[0]).max() > 1e-3

    def test_a_scale_error_is_of_position_and_velocity(self, name: str):
        seen, truth, family = compare(name, "encoder_scale", severity=0.4)
        names = FAMILIES[name][1], f"{FAMILIES[name][1].removesuffix(' - home')}_velocity"
        self.changed(name, seen, truth, family, *names)
        during, home = slice(ONSET + 1, END + 1), HOMES.get(name, 0.0)
        for at, zero in zip((element(family, n) for n in names), (home, 0.0), strict=True):
            np.testing.assert_allclose(seen[during, at], 1.2 * truth[during, at] + 0.2 * zero, rtol=1e-5, atol=1e-6)

    def test_a_drift_grows_linearly_with_time(self, name: str):
        seen, truth, family = compare(name, "encoder_drift", severity=0.8)
        at = element(family, FAMILIES[name][1])
        lasted = np.arange(1, END - ONSET + 1) * family.dt
        np.testing.assert_allclose((seen - truth)[ONSET + 1 : END + 1, at], 0.04 * lasted, atol=1e-6)
        self.changed(name, seen, truth, family, FAMILIES[name][1])

    def test_a_frozen_encoder_repeats_its_last_reading(self, name: str):
        seen, truth, family = compare(name, "encoder_frozen")
        at = element(family, FAMILIES[name][1])
        velocity = element(family, f"{FAMILIES[name][1].removesuffix(' - home')}_velocity")
        np.testing.assert_array_equal(seen[ONSET + 1 : END + 1, at], np.full(END - ONSET, truth[ONSET, at]))
        assert not seen[ONSET + 1 : END + 1, velocity].any()
        self.changed(
            name, seen, truth, family, FAMILIES[name][1], f"{FAMILIES[name][1].removesuffix(' - home')}_velocity"
        )

    def test_a_lost_sensor_reads_zero(self, name: str):
        seen, truth, family = compare(name, "sensor_lost")
        names = FAMILIES[name][1], f"{FAMILIES[name][1].removesuffix(' - home')}_velocity"
        self.changed(name, seen, truth, family, *names)
        assert not seen[ONSET + 1 : END + 1, [element(family, n) for n in names]].any()


def test_a_whole_term_can_be_lost():
    seen, truth, family = compare("quadruped", "sensor_lost", fault_places=("gravity",))
    lost = [element(family, f"gravity_{axis}") for axis in "xyz"]
    assert not seen[ONSET + 1 : END + 1, lost].any()
    kept = [i for i in range(family.observation_size) if i not in lost]
    np.testing.assert_array_equal(seen[:, kept], truth[:, kept])


def test_one_element_of_a_term_can_be_lost():
    seen, truth, family = compare("quadruped", "sensor_lost", fault_places=("gravity_y",))
    at = element(family, "gravity_y")
    assert not seen[ONSET + 1 : END + 1, at].any()
    kept = [i for i in range(family.observation_size) if i != at]
    np.testing.assert_array_equal(seen[:, kept], truth[:, kept])


def test_noise_is_no_part_of_a_frozen_or_lost_reading():
    noisy = {"sensor_noise": (1.0, 1.0)}
    seen, truth, family = compare("quadruped", "encoder_frozen", **noisy)
    at = element(family, "RL_thigh")
    assert set(seen[ONSET + 1 : END + 1, at]) == {truth[ONSET, at]}
    lost, _, _ = compare("quadruped", "sensor_lost", **noisy)
    assert not lost[ONSET + 1 : END + 1, at].any()


def test_a_frozen_encoder_of_a_new_episode_repeats_its_first_reading():
    family = make_family(HalfCheetahDirectionSettings(faults=("encoder_frozen",), fault_places=("bshin",), horizon=5))
    env = BatchedEnv(family, 1, 2, threads=1)
    env.set_tasks([family.task({"fault_kind": 1.0, "fault_place": 1.0})])
    at = element(family, "back_shin")
    for episode in range(2):
        first = env.reset([np.random.default_rng(episode)])[0, :, at]
        np.testing.assert_array_equal(first, env.simulation.batch.qpos[:, 4].astype(np.float32))
        for _ in range(5):
            np.testing.assert_array_equal(env.step(np.ones((1, 2, 6))).observations[0, :, at], first)


def test_only_the_sensors_of_the_task_that_has_the_fault_err():
    family = make_family(QuadrupedSettings(faults=("encoder_offset",), fault_places=("FR_hip", "RL_calf")))
    env = BatchedEnv(family, 3, 2, threads=1)
    tasks = [
        family.task({"fault_kind": float(k > 0), "fault_place": float(k), "fault_severity": 1.0}) for k in range(3)
    ]
    env.set_tasks(tasks)
    seen = env.reset([np.random.default_rng(0) for _ in tasks])
    error = seen - seen[0]
    expected = np.zeros_like(error)
    expected[1, :, element(family, "FR_hip")] = expected[2, :, element(family, "RL_calf")] = 0.5
    np.testing.assert_allclose(error, expected, atol=1e-6)
