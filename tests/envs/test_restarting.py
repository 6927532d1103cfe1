"""Envs that start anew by themselves play what envs that are reset by hand play from the same starts."""

import dataclasses

import numpy as np
import pytest
import torch

import metarl
from metarl.envs.batch import BatchedEnv
from metarl.envs.registry import make_family
from metarl.envs.restarting import STARTS, RestartingEnv
from metarl.envs.reveal import reveal
from metarl.envs.robots.ant_settings import AntLegsSettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings, HalfCheetahVelocitySettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.robots.walkers_settings import HopperParametersSettings
from metarl.envs.task import Change, Changes, Task
from metarl.training.players import DevicePlayer, Size, VecEnvPlayer
from tests.envs.own_robot.families import arm, entry
from tests.envs.torch_simulation import TORCH

M, N = 3, 2
FAMILIES = {
    "half_cheetah_mass": HalfCheetahMassSettings(horizon=7),
    "hopper_parameters": HopperParametersSettings(horizon=60),  # it falls before
    "point_goal": PointGoalSettings(horizon=9, goal_range=0.05),  # it is reached before
    "quadruped": QuadrupedSettings(horizon=12, push_velocity=(0.5, 0.5), push_interval=0.1),
    "changes": HalfCheetahMassSettings(horizon=10, changes=1, change_gap=(3, 6)),
}


def tasks_of(family):
    return family.sample(M, np.random.default_rng(5))


def rngs():
    return [np.random.default_rng([7, m]) for m in range(M)]


def policy(observations):
    """Actions [..., act] that follow from what is observed."""
    drive = np.cos(3 * np.asarray(observations, dtype=np.float64).sum(axis=-1, keepdims=True) + np.arange(12))
    return drive.astype(np.float32)


def episodes_by_hand(family, size):
    """Of each start in turn, [rewards of each env's episode]; all its returns."""
    env = BatchedEnv(family, M, N, threads=1)
    env.set_tasks(tasks_of(family))
    generators, everything, played = rngs(), np.ones((M, N), dtype=bool), []
    for _ in range(STARTS):
        observations, rewards = env.reset(generators, everything, everything), [[] for _ in range(M * N)]
        while env.active.any():
            active = env.active.reshape(-1)
            step = env.step(policy(observations)[..., :size])
            observations = step.observations
            for i in np.flatnonzero(active):
                rewards[i].append(step.rewards.reshape(-1)[i])
        played.append(rewards)
    return played


@pytest.mark.parametrize("name", FAMILIES)
def test_every_episode_is_the_one_that_is_played_by_hand(name):
    family = make_family(FAMILIES[name])
    by_hand = episodes_by_hand(family, family.action_size)
    env = RestartingEnv(family, M, N, TORCH)
    env.set_tasks(tasks_of(family))
    simulation = env.batch.simulation
    env.use(rngs())
    observations = simulation.host(env.reset())
    running, played = [[] for _ in range(M * N)], [[] for _ in range(M * N)]
    for _ in range(2 * family.horizon + 3):
        actions = simulation.array(policy(observations)[..., : family.action_size])
        step = env.step(actions)
        rewards, ended = simulation.host(step.rewards), simulation.host(step.terminated | step.cut)
        observations = simulation.host(step.observations).copy()
        for i in range(M * N):
            running[i].append(rewards[i])
            if ended[i]:
                played[i].append(running[i])
                running[i] = []
    assert min(map(len, played)) >= 2
    for i in range(M * N):
        for k, episode in enumerate(played[i]):
            expected = by_hand[(STARTS - 1 + k) % STARTS][i]
            np.testing.assert_allclose(episode, expected, rtol=2e-5, atol=2e-6)
    [returns], terms = env.first_episodes()
    first = np.array([np.sum(episodes[0], dtype=np.float64) for episodes in played]).reshape(M, N)
    np.testing.assert_allclose(returns, first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sum(terms.values()), first, rtol=1e-4, atol=1e-5)
    assert env.num_steps == M * N * (2 * family.horizon + 3)


def test_what_was_seen_last_is_kept_and_the_next_episode_is_seen():
    family = make_family(HalfCheetahMassSettings(horizon=3))
    env = RestartingEnv(family, M, N, TORCH)
    env.use(rngs())
    first = env.reset().clone()
    env.step(torch.zeros(M * N, 6))
    env.step(torch.zeros(M * N, 6))
    step = env.step(torch.zeros(M * N, 6))
    assert step.cut.all()
    assert not step.terminated.any()
    assert (step.last_observations - step.observations).abs().max() > 0.1
    assert (step.observations[:, 1:] - first[:, 1:]).abs().max() < 1.5  # at rest but for the noise of the start
    assert not torch.equal(step.observations, first)


def test_a_flagged_simulation_counts_for_nothing():
    family = make_family(HalfCheetahMassSettings(horizon=5))
    env = RestartingEnv(family, M, N, TORCH)
    env.use(rngs())
    env.reset()
    actions = torch.zeros(M * N, 6)
    env.step(actions)
    env.batch.simulation.bind("qpos")[2, 3] = torch.nan
    step = env.step(actions)
    assert step.cut.tolist() == [False, False, True, False, False, False]
    assert step.observations.isfinite().all()
    for _ in range(5):
        env.step(actions)
    [returns], _ = env.first_episodes()
    assert np.isnan(returns).reshape(-1).tolist() == [False, False, True, False, False, False]
    assert env.num_steps == 7 * M * N - 2
    assert env.num_faults == 1


@pytest.mark.parametrize("name", ["hopper_parameters", "half_cheetah_mass"])
def test_the_record_of_tasks_that_change_is_that_of_the_player_on_the_cpu(name):
    """Where episodes end early, a round is played several times, and its first play counts on both."""
    drawn = make_family(dataclasses.replace(FAMILIES[name], horizon=40))
    names = tuple(parameter.name for parameter in drawn.parameters)

    def reset(model, rng, n):  # the same in each episode: the two players go through starts in another order
        start = [np.repeat(values[:1], n, axis=0) for values in drawn.reset(model, np.random.default_rng(3), n)]
        return tuple(start)

    family = dataclasses.replace(drawn, reset=reset, changes=Changes(names, 2, (35, 40)))
    size = Size(tasks=M, envs_per_task=N, shots=3, threads=1, lives=False)
    cpu, device = VecEnvPlayer(family, size, None), DevicePlayer(family, size, TORCH)
    simulation = device.env.batch.simulation
    for player in (cpu, device):
        player.begin(tasks_of(family), lambda name: rngs())
    seen, shown = cpu.env.reset(), simulation.host(device.env.reset())
    assert np.isnan(device.played().returns).all()
    advance = device.env.repeat(lambda actions: device.env.step(actions) and None)
    for _ in range(cpu.env.trial_steps):
        np.testing.assert_allclose(shown, np.asarray(seen), rtol=1e-4, atol=1e-4)
        actions = policy(seen)[..., : family.action_size]
        seen, *_ = cpu.env.step(actions)
        advance(simulation.array(actions))
        shown = simulation.host(device.env.batch.results.observations)
    ours, theirs = device.played(), cpu.played()
    assert ours.returns.shape == (3, M)
    assert len(cpu.env.episodes) > 3 * M * N + 3 or name == "half_cheetah_mass"
    assert np.ptp(theirs.returns, axis=0).min() > 1e-3  # the tasks change
    np.testing.assert_allclose(ours.returns, theirs.returns, rtol=1e-5, atol=1e-5)
    for term, values in theirs.terms.items():
        np.testing.assert_allclose(np.sort(ours.terms[term]), np.sort(values), rtol=1e-5, atol=1e-5)
    assert ours.env_steps == theirs.env_steps


def test_a_flagged_episode_is_left_out_of_its_own_round_alone():
    family = make_family(HalfCheetahMassSettings(horizon=4, changes=1))
    env = RestartingEnv(family, M, N, TORCH, rounds=2)
    env.use(rngs())
    env.reset()
    actions = torch.zeros(M * N, 6)
    for _ in range(5):
        env.step(actions)
    env.batch.simulation.bind("qpos")[2, 3] = torch.nan
    for _ in range(3):
        env.step(actions)
    returns, terms = env.first_episodes()
    flagged = [False, False, True, False, False, False]
    assert np.isnan(returns).reshape(2, -1).tolist() == [[False] * 6, flagged]
    assert all(np.isnan(sums).reshape(-1).tolist() == flagged for sums in terms.values())
    env.reset()
    assert np.isnan(env.first_episodes()[0]).all()


def test_tasks_of_several_layouts_are_refused():
    with pytest.raises(ValueError, match="several layouts.*simulator cpu"):
        RestartingEnv(make_family(AntLegsSettings()), M, N, TORCH)


def cheetah(**settings):
    return make_family(HalfCheetahMassSettings(horizon=6, **settings))


def walker(folder):
    """A quadruped that is told its task's command."""
    return make_family(QuadrupedSettings(horizon=6, command="task", changes=1, changing=("forward_velocity",)))


def pull(state):
    """Force of gravity at the hinge, N m, which is computed where an episode starts, [S, 1]."""
    return state.qfrc_bias[:, :1]


def boom(folder):
    """An arm that observes a history with noise, and what a simulation derives from the state."""
    return metarl.declare_robot(
        arm(folder, '<motor name="lift" joint="lift" ctrlrange="-1 1"/>'),
        {
            "reward": {"home_cost": 1},
            "observation": [
                {"pull": {"term": "python", "function": pull, "unit": "N m"}},
                {"joint_positions": {"noise": 0.1, "history": 3}},
            ],
            "distribution": [
                {**entry("sensor_noise", None, None, [0.1, 5]), "name": "noise"},
                {**entry("gravity", None, "scale", [0.1, 2]), "name": "weight"},
            ],
            "episode": {"horizon": 6},
            "changes": {"parameters": ["noise", "weight"], "count": 1, "gap": [4, 4]},
        },
    )


FOLLOWING = {
    "mass": (lambda folder: cheetah(changes=1), {"mass_scale": 0.6}, {"mass_scale": 1.9}),
    "encoder": (
        lambda folder: cheetah(faults=("encoder_offset",)),
        {"fault_kind": 0.0, "fault_place": 0.0},
        {"fault_kind": 1.0, "fault_place": 1.0},
    ),
    "command": (walker, {"forward_velocity": -0.5}, {"forward_velocity": 0.9}),
    "history": (boom, {"noise": 0.1, "weight": 0.2}, {"noise": 5.0, "weight": 1.8}),
}
"""By what it is: a family, values of a task, and what they become after 4 steps."""


@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("what", FOLLOWING)
def test_episodes_that_follow_on_each_other_in_the_time_of_a_task_are_those_of_a_trial(what, rounds, tmp_path):
    """What an oracle is told, and what the task makes of an observation, from the first one of an episode on."""
    make, values, change = FOLLOWING[what]
    family = reveal(make(tmp_path))
    task = family.own(Task(family.name, {**family.neutral().values, **values}, (Change(4, change),)))
    env, batch = RestartingEnv(family, 1, 1, TORCH, rounds=rounds), BatchedEnv(family, 1, 1, threads=1)
    assert env.trial_steps == 6 * rounds
    for each in (env, batch):
        each.set_tasks([task])
    env.use(rngs()[:1])
    still = np.zeros((1, 1, family.action_size))
    seen = [env.batch.simulation.host(env.reset())[0].copy()]
    advance = env.repeat(lambda actions: env.step(actions) and None)
    for _ in range(3 * env.trial_steps - 1):
        advance(torch.zeros(1, family.action_size))
        seen.append(env.batch.simulation.host(env.batch.results.observations)[0].copy())
    expected, generators, everything = [], rngs()[:1], np.ones((1, 1), dtype=bool)
    starts = -(-STARTS // rounds) * rounds
    for k in range(starts + 3 * rounds):  # the last of the starts that are kept comes first, then they begin anew
        if k == starts:
            generators = rngs()[:1]
        observations = batch.reset(generators, everything, np.full((1, 1), (k + 1) % rounds == 0))
        for _ in range(6):
            expected.append(observations[0, 0])
            observations = batch.step(still).observations
    expected = expected[6 * (starts - 1) :][: len(seen)]
    np.testing.assert_allclose(seen, expected, rtol=1e-3, atol=1e-3)
    assert rounds == 1 or np.ptp(expected[::6], axis=0).max() > 0.2


def test_what_is_recorded_is_recorded_anew_where_tasks_have_another_number_of_changes():
    """A recording refers to the stages of the tasks that it was made with, which others may replace."""
    settings = HalfCheetahVelocitySettings(
        horizon=20,
        faults=("encoder_offset", "reversed"),
        fault_share=0.5,
        fault_onset=(3, 8),
        fault_duration=(3, 6),
    )
    family = make_family(settings)
    drawn = [family.sample(4, np.random.default_rng(seed)) for seed in range(4)]
    assert not family.edits_model and len({sum(len(family.stages(task)) for task in tasks) for tasks in drawn}) > 1
    env = RestartingEnv(family, 4, 2, TORCH, rounds=1)
    advance = env.repeat(lambda actions: env.step(actions) and None)
    for tasks in drawn:  # a Crossing says where a replayed step would read what is no longer used
        env.set_tasks(tasks)
        env.use([np.random.default_rng(m) for m in range(4)])
        env.reset()
        for _ in range(6):
            advance(torch.zeros(8, family.action_size))
