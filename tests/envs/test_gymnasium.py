"""Every family through Gymnasium, judged by Gymnasium's and SB3's checkers and by the batch itself."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import metarl  # noqa: F401  registers the families
from metarl.envs.adapters.gymnasium_adapter import FamilyEnv, FamilyVectorEnv, gymnasium_id
from metarl.envs.registry import FAMILY_SETTINGS
from metarl.envs.task import Task
from tests.sampling import sampled

FAMILY_NAMES = list(FAMILY_SETTINGS)
CHEETAH = "metarl/HalfCheetahVelocity-v0"


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_passes_gymnasiums_and_sb3s_checkers(name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on unbounded observations and on actions that are not in [-1, 1]
        check_env(gymnasium.make(gymnasium_id(name)).unwrapped, skip_render_check=True)  # see test_rendering
        sb3_check_env(gymnasium.make(gymnasium_id(name)).unwrapped)


def test_a_seed_repeats_an_episode_of_a_task_that_changes():
    env = gymnasium.make("metarl/HalfCheetahMass-v0", changes=1, change_gap=(5, 5), horizon=20).unwrapped
    first = [env.reset(seed=1)[0]] + [env.step(np.full(6, 0.5))[0] for _ in range(20)]
    env.reset(options={"task": env.task})
    for _ in range(2):
        again = [env.reset(seed=1)[0]] + [env.step(np.full(6, 0.5))[0] for _ in range(20)]
        fixed = [env.reset(seed=1)[0]] + [env.step(np.full(6, 0.5))[0] for _ in range(20)]
        np.testing.assert_array_equal(again, fixed)
    assert np.isfinite(first).all()


@pytest.mark.parametrize("name", sampled([name for name in FAMILY_NAMES if name != "env"], 3))
def test_vector_env_is_the_batch_and_equals_single_envs(name: str):
    envs = gymnasium.make_vec(gymnasium_id(name), num_envs=3)
    assert isinstance(envs.unwrapped, FamilyVectorEnv)
    observations, _ = envs.reset(seed=0)
    assert observations.shape == (3, *envs.single_observation_space.shape)
    singles = [gymnasium.make(gymnasium_id(name)).unwrapped for _ in range(3)]
    vector = envs.unwrapped._env
    for shard, indices in zip(vector.shards, vector.indices, strict=True):
        for sim, i in enumerate(indices):
            singles[i].reset(options={"task": envs.unwrapped.tasks[i]})
            batch = singles[i]._env.shards[0].simulation.batch
            batch.qpos[0], batch.qvel[0] = shard.simulation.batch.qpos[sim], shard.simulation.batch.qvel[sim]
            state = singles[i]._env.shards[0]._state
            state.keys[0] = shard._state.keys[sim]
            for memory, values in shard._state.memory.items():
                state.memory[memory][0] = values[sim]
            batch.forward()
    rng = np.random.default_rng(0)
    for _ in range(10):
        low, high = envs.single_action_space.low, envs.single_action_space.high
        actions = 0.2 * rng.uniform(low, high, envs.action_space.shape)  # small, so that none falls
        observations, rewards, *_ = envs.step(actions)
        for i, single in enumerate(singles):
            observation, reward, *_ = single.step(actions[i])
            np.testing.assert_array_equal(observations[i], observation)
            assert rewards[i] == pytest.approx(reward, abs=1e-6)


def test_task_is_named_kept_and_reported():
    env = gymnasium.make(CHEETAH)
    _, info = env.reset(seed=0, options={"task": {"target_velocity": 1.5}})
    assert info["task"] == {"target_velocity": 1.5}
    for seed in (None, 3):
        assert env.reset(seed=seed)[1]["task"] == {"target_velocity": 1.5}


def test_a_fault_that_comes_on_the_way_is_in_the_task_from_its_step_on():
    fault = {"faults": ("dead",), "fault_onset": (3, 3), "fault_duration": (2, 2), "fault_severity": (1.0, 1.0)}
    env = gymnasium.make("metarl/HalfCheetahMass-v0", horizon=8, **fault)
    for seed in (0, None):  # again in every episode
        kinds = [env.reset(seed=seed)[1]["task"]["fault_kind"]]
        kinds += [env.step(np.zeros(6, dtype=np.float32))[4]["task"]["fault_kind"] for _ in range(7)]
        assert kinds == [0.0] * 4 + [1.0] * 2 + [0.0] * 2  # the first is the reset: the fourth step has it


def test_task_follows_the_seed_and_stays_over_resets_without_one():
    env = gymnasium.make(CHEETAH)
    first = env.reset(seed=1)[1]["task"]
    assert env.reset()[1]["task"] == first
    assert env.reset(seed=2)[1]["task"] != first
    assert env.reset(seed=1)[1]["task"] == first


def test_reward_terms_are_reported_and_sum_to_the_reward():
    env = gymnasium.make(CHEETAH)
    env.reset(seed=0)
    for _ in range(5):
        _, reward, _, _, info = env.step(env.action_space.sample())
        assert info["reward/velocity"] + info["reward/control"] == pytest.approx(reward, abs=1e-5)


def test_settings_are_keyword_arguments():
    env = gymnasium.make(CHEETAH, velocity_low=5.0, velocity_high=6.0, horizon=3)
    _, info = env.reset(seed=0)
    assert 5.0 <= info["task"]["target_velocity"] <= 6.0
    assert [env.step(np.zeros(6, dtype=np.float32))[3] for _ in range(3)] == [False, False, True]


def test_step_after_the_end_asks_for_a_reset():
    env = FamilyEnv("point_goal", horizon=1)
    env.reset(seed=0)
    env.step(np.zeros(2))
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(np.zeros(2))


def test_vector_env_keeps_final_observations_and_starts_anew_in_the_same_step():
    envs = gymnasium.make_vec("metarl/PointGoal-v0", num_envs=2, horizon=4)
    goals = [{"goal_x": 0.1, "goal_y": 0.1}, {"goal_x": 0.4, "goal_y": 0.4}]
    envs.reset(seed=0, options={"tasks": goals})
    actions = np.full((2, 2), 0.1, dtype=np.float32)
    observations, _, terminated, truncated, infos = envs.step(actions)
    assert terminated.tolist() == [True, False] and not truncated.any()
    np.testing.assert_allclose(infos["final_obs"][0], [0.1, 0.1], atol=1e-6)
    assert infos["_final_obs"].tolist() == [True, False]
    assert observations[0].tolist() == [0.0, 0.0]
    assert [dict(t.values) for t in envs.unwrapped.tasks] == goals


def test_vector_env_follows_its_seed_and_takes_one_task_for_all():
    envs = gymnasium.make_vec(CHEETAH, num_envs=3)
    observations, tasks = [], []
    for seed in (1, 2, 1):
        observations.append(envs.reset(seed=seed)[0])
        tasks.append(envs.unwrapped.tasks)
    np.testing.assert_array_equal(observations[0], observations[2])
    assert tasks[0] == tasks[2] != tasks[1] and not np.array_equal(observations[0], observations[1])
    envs.reset(options={"task": {"target_velocity": 1.5}})
    assert [dict(t.values) for t in envs.unwrapped.tasks] == [{"target_velocity": 1.5}] * 3


def test_a_list_of_seeds_gives_each_env_what_one_alone_has_by_it():
    envs, alone = gymnasium.make_vec(CHEETAH, num_envs=3), gymnasium.make(CHEETAH)
    before, _ = envs.reset(seed=[4, 5, 6])
    tasks = envs.unwrapped.tasks
    for seed, observation, task in zip((4, 5, 6), before, tasks, strict=True):
        np.testing.assert_array_equal(alone.reset(seed=seed)[0], observation)
        assert alone.unwrapped.task == task
    observations, _ = envs.reset(seed=[4, None, 7])
    np.testing.assert_array_equal(observations[0], before[0])
    assert not np.array_equal(observations[1], before[1]) and not np.array_equal(observations[2], before[2])
    assert envs.unwrapped.tasks[:2] == tasks[:2] and envs.unwrapped.tasks[2] != tasks[2]
    with pytest.raises(ValueError, match="one seed, or one for each of 3 envs; got 2"):
        envs.reset(seed=[1, 2])
    envs.reset(options={"task": {"target_velocity": 1.5}})
    envs.reset(seed=[1, 2, 3])
    assert [dict(t.values) for t in envs.unwrapped.tasks] == [{"target_velocity": 1.5}] * 3


def test_vector_env_asks_for_its_first_reset():
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        gymnasium.make_vec("metarl/PointGoal-v0", num_envs=2).unwrapped.step(np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"target_velocty": 1.0}, "did you mean 'target_velocity'"),
        (Task("half_cheetah_speed", {"target_velocity": 1.0}), "is of family 'half_cheetah_speed', not of"),
        (1.0, r"a task is a Task or values by name, such as \{'target_velocity': 0.0\}; got 1.0"),
    ],
)
def test_what_is_no_task_of_the_family_is_refused(task, message: str):
    with pytest.raises(ValueError, match=message):
        gymnasium.make(CHEETAH).reset(options={"task": task})


def test_an_option_that_reset_does_not_know_is_refused():
    """A forgotten bracket would run the whole test on another task."""
    for env in (FamilyEnv("half_cheetah_velocity"), FamilyVectorEnv("half_cheetah_velocity", 2)):
        for options in ({"target_velocity": 1.5}, {"taks": {"target_velocity": 1.5}}):
            with pytest.raises(ValueError, match="reset takes options={'task': {...}}"):
                env.reset(seed=1, options=options)
