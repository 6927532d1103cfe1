"""A policy on a robot: the same actions as in evaluation, and every wrong call named."""

import dataclasses
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from metarl.agents.registry import AGENT_SETTINGS
from metarl.config import EvaluationSettings, RunConfig
from metarl.deployment import export
from metarl.envs.adapters.gymnasium_adapter import gymnasium_id
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.walkers_settings import HopperParametersSettings
from metarl.envs.sharded import ShardedEnv
from metarl.envs.task import Task
from metarl.runs.controller import OutOfRange
from metarl.runs.run import Run, build
from metarl.runs.trial import TrialResult, run_trial, streams
from tests.small_agents import small_agent

HOPPER, POINT = HopperParametersSettings(horizon=40), PointGoalSettings(horizon=12)


def make_run(name: str = "maml", family=POINT, envs: int = 1, adaptations: int = 2, **settings) -> Run:
    """An untrained run; settings: of the agent, for the agents that have them."""
    evaluation = EvaluationSettings(envs_per_task=envs, adaptations=adaptations)
    config = RunConfig(agent=small_agent(name, **settings), family=family, evaluation=evaluation)
    return Run(Path("run"), config, *build(config, "cpu"), 0, 0)


def evaluated(run: Run, task: Task, rng: np.random.Generator, explore: bool, lives: bool = False) -> TrialResult:
    settings = run.config.evaluation
    env = ShardedEnv(run.family, 1, settings.envs_per_task, threads=1)
    env.set_tasks([task])
    return run_trial(env, run.agent, [rng], settings.adaptations, explore, lives=lives)


def play(controller, env: gymnasium.Env) -> tuple[np.ndarray, bool]:
    """The actions of an episode, and whether the robot adapted after it."""
    observation, _ = env.reset()
    actions = []
    while not controller.episode_over:
        actions.append(controller.act(observation))
        observation, reward, terminated, truncated, _ = env.step(actions[-1])
        controller.observe(float(reward), terminated, truncated)
    return np.array(actions), controller.end_episode(observation)


def shots(rollout) -> list[np.ndarray]:
    """The actions of each episode of a shot of one task."""
    return [rollout.actions[rollout.valid[:, 0, n], 0, n].numpy() for n in range(rollout.valid.shape[2])]


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("name", list(AGENT_SETTINGS))
def test_in_a_gymnasium_env_it_acts_as_evaluation_does(name, explore):
    """Episodes that fall at different times, starts and noise from one generator: bit for bit."""
    run = make_run(name, HOPPER)
    task = run.family.sample(1, np.random.default_rng(0), "held_out")[0]
    env = gymnasium.make(gymnasium_id(run.family.name), horizon=40).unwrapped
    env.reset(seed=5, options={"task": task})
    env._rng = np.random.default_rng(7)
    controller = run.start(explore="always" if explore else "never", rng=env._rng)
    trial = evaluated(run, task, np.random.default_rng(7), explore).trial
    for k, rollout in enumerate(trial.rollouts):
        actions, adapted = play(controller, env)
        np.testing.assert_array_equal(actions, shots(rollout)[0])
        assert adapted == (k < 2)
        assert len(actions) < 40 or not explore
        if not explore:  # evaluation draws the noise that it does not use, for the sake of the next starts
            env._rng.standard_normal((40, 1, run.family.action_size), dtype=np.float32)


@pytest.mark.parametrize("name", list(AGENT_SETTINGS))
def test_a_robot_that_is_put_back_on_its_feet_remembers_as_in_an_episode_of_several_lives(name, monkeypatch):
    """Told what an evaluation with lives observed, it acts and adapts as that did."""
    run = make_run(name, HOPPER, adaptations=1)
    env = ShardedEnv(run.family, 1, 1, threads=1)
    env.set_tasks(run.family.sample(1, np.random.default_rng(0)))
    trial = run_trial(env, run.agent, [np.random.default_rng(3)], 1, explore=True, lives=True).trial
    adapt, taken = run.agent.adapt, []
    monkeypatch.setattr(run.agent, "adapt", lambda *given: taken.append(given[1]) or adapt(*given))
    rng = np.random.default_rng(3)
    controller = run.start(explore="always", rng=rng)
    for rollout in trial.rollouts:
        env.reset([rng])  # the starts are drawn before the noise
        falls = rollout.new_lives()[:, 0, 0]
        assert falls.any()
        for t in range(HOPPER.horizon):
            action = controller.act(rollout.observations[t, 0, 0].numpy())
            np.testing.assert_array_equal(action, rollout.actions[t, 0, 0])
            reward = float(rollout.rewards[t, 0, 0])
            if falls[t]:
                controller.fall(reward, rollout.next_observations[t, 0, 0].numpy())
            else:
                controller.observe(reward, bool(rollout.terminated[t, 0, 0]), bool(rollout.truncated[t, 0, 0]))
        assert controller.episode_over
        controller.end_episode(rollout.final_observations[0, 0].numpy())
    for given, rollout in zip(taken, trial.rollouts, strict=False):  # evaluation adapts to all but the last
        for field in ("observations", "rewards", "terminated", "truncated", "valid", "next_observations"):
            np.testing.assert_array_equal(getattr(given, field), getattr(rollout, field), err_msg=field)
    assert bool(taken) == run.agent.facts.adapts


def test_a_fall_at_the_horizon_ends_the_episode_while_the_agent_adapts():
    run = make_run("rl2", HOPPER, adaptations=1)
    controller = run.start()
    seen = np.zeros(run.family.observation_size)
    for _ in range(HOPPER.horizon):
        controller.act(seen)
        controller.fall(-1.0, seen)
    assert controller.episode_over and controller.end_episode(seen)
    with pytest.raises(RuntimeError, match=r"fall\(\) is not due, act\(\) is"):
        controller.fall(0.0, seen)
    for _ in range(HOPPER.horizon + 1):  # it adapts no more, and goes on for as long as it is asked to
        controller.act(seen)
        controller.fall(-1.0, seen)
    assert not controller.episode_over


@pytest.mark.parametrize("name", [n for n in AGENT_SETTINGS if not make_run(n).agent.facts.belief_per_env])
def test_what_evaluation_plays_at_once_it_plays_one_after_another(name):
    run = make_run(name, POINT, envs=3)
    task = run.family.sample(1, np.random.default_rng(0), "held_out")[0]
    env = gymnasium.make(gymnasium_id(run.family.name), horizon=12).unwrapped
    env.reset(options={"task": task})
    controller = run.start(explore="always", rng=7)
    result = evaluated(run, task, np.random.default_rng(7), explore=True)
    for k, rollout in enumerate(result.trial.rollouts):
        for n, expected in enumerate(shots(rollout)):
            actions, adapted = play(controller, env)
            np.testing.assert_allclose(actions, expected, rtol=1e-4, atol=1e-5)
            assert adapted == (k < 2 and n == 2)


def test_after_the_last_adaptation_it_acts_by_the_mean_from_the_belief_it_reached():
    run = make_run("rl2", POINT, adaptations=1)
    env = gymnasium.make(gymnasium_id(run.family.name), horizon=12)
    controller = run.start(rng=3)
    (first, adapted), (second, again), (third, _) = (play(controller, env) for _ in range(3))
    assert (adapted, again, controller.adapted, controller.learning) == (True, False, 1, False)
    np.testing.assert_array_equal(second, third)  # the point starts where it did
    assert not np.array_equal(first, second)
    mean, _ = run.agent.act(controller.shot_belief, torch.zeros(1, 1, 2), None)
    np.testing.assert_array_equal(controller.act([0.0, 0.0]), mean[0, 0].numpy())


def test_an_adapted_robot_may_go_on_longer_than_an_episode_of_training():
    controller = make_run(adaptations=0).start()
    for _ in range(30):
        controller.act([0.0, 0.0])
        controller.observe(0.0, False, False)
    assert not controller.episode_over


def test_one_that_adapts_is_told_to_end_an_episode_of_full_length():
    controller = make_run().start()
    for _ in range(12):
        assert not controller.episode_over
        controller.act([0.0, 0.0])
        controller.observe(0.0, False, False)
    assert controller.episode_over
    with pytest.raises(RuntimeError, match=r"the episode has the 12 steps .*; call end_episode\(observation\)"):
        controller.act([0.0, 0.0])
    assert controller.end_episode() and not controller.episode_over


def test_a_discarded_episode_leaves_nothing_behind():
    beliefs = []
    for discard in (False, True):
        controller = make_run(envs=2, adaptations=1).start(explore="never")
        for episode in range(2):
            if discard and episode == 1:
                controller.act([9.0, 9.0])
                controller.observe(-99.0, False, False)
                controller.discard_episode()
            for t in range(4):
                controller.act([0.1 * t, episode])
                controller.observe(-t, t == 3, False)
            controller.end_episode([1.0, 1.0])
        beliefs.append(controller.shot_belief.parameters)
    torch.testing.assert_close(*beliefs, rtol=0, atol=0)


def test_an_episode_that_has_ended_is_not_discarded_in_silence():
    controller = make_run(envs=2, adaptations=1).start()
    controller.discard_episode()
    controller.act([0.0, 0.0])
    controller.observe(0.0, True, False)
    controller.end_episode()
    with pytest.raises(RuntimeError, match=r"discards an episode before end_episode\(\) has ended it"):
        controller.discard_episode()
    with pytest.raises(ValueError, match="is nan"):  # the next episode has begun, with a sensor that failed
        controller.act([np.nan, 0.0])
    controller.discard_episode()


@pytest.mark.parametrize("reward", [np.nan, np.inf, 1e39, None, "1", [0.0, 1.0], np.ma.masked])
def test_a_reward_that_cannot_be_changes_nothing(reward):
    """A call with the right one goes on where it was, also after a fall."""
    actions = []
    for wrong in (False, True):
        controller = make_run("rl2", adaptations=1).start(explore="never")
        controller.act([0.0, 0.0])
        if wrong:
            with pytest.raises(ValueError, match="the reward"):
                controller.fall(reward, [0.5, 0.0])
            with pytest.raises(ValueError, match="the reward"):
                controller.observe(reward, False, False)
        controller.observe(-1.0, False, False)
        actions.append(controller.act([0.1, 0.0]))
        controller.observe(-1.0, True, False)
        controller.end_episode([0.2, 0.0])
        actions.append(controller.act([0.1, 0.0]))
    np.testing.assert_array_equal(actions[:2], actions[2:])


def test_calls_in_the_wrong_order_say_which_one_is_due():
    controller = make_run().start()
    with pytest.raises(RuntimeError, match=r"observe\(\) is not due, act\(\) is: .*; call act\(observation\)"):
        controller.observe(0.0, False, False)
    with pytest.raises(RuntimeError, match=r"at least one step; call act\(observation\) first"):
        controller.end_episode()
    controller.act([0.0, 0.0])
    for call in (lambda: controller.act([0.0, 0.0]), controller.end_episode):
        with pytest.raises(RuntimeError, match=r"has not been recorded; call observe\(reward, terminated, truncated\)"):
            call()
    controller.observe(0.0, True, False)
    with pytest.raises(RuntimeError, match=r"act\(\) is not due, end_episode\(\) is: the episode is over"):
        controller.act([0.0, 0.0])


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ([0.0], r"has shape \(1,\); the policy reads 2 channels, shape \(2,\): x \[m\], y \[m\]"),
        ([[0.0, 0.0]], r"has shape \(1, 2\)"),
        ([0.0, np.nan], r"observation 1, 'y \[m\]', is nan; give a finite number, or .* discard_episode"),
        ([-np.inf, 0.0], r"observation 0, 'x \[m\]', is -inf"),
        ([1e39, 0.0], r"observation 0, 'x \[m\]', is inf"),
        (np.ma.masked_array([0.1, 0.2], mask=[False, True]), "the observation has masked values"),
        (["0.1", "0.2"], r"the observation is \['0.1', '0.2'\]; give real numbers"),
        ([0.1, 0.2j], "give real numbers"),
        ([0.1, None], "give real numbers"),
    ],
)
def test_an_observation_that_cannot_be_is_refused_by_channel(observation, message):
    controller = make_run().start()
    with pytest.raises(ValueError, match=message):
        controller.act(observation)
    controller.act([0.0, 0.0])  # nothing has happened
    with pytest.raises(ValueError, match="the reward of step 0 is nan"):
        controller.observe(np.nan, False, False)


@pytest.mark.parametrize("name", list(AGENT_SETTINGS))
def test_a_channel_that_training_never_came_near_is_warned_of_once(name, monkeypatch):
    run = make_run(name)
    moments = run.agent.observation_moments(run.agent.begin(1, 1, [torch.Generator()]))
    if moments is None:
        pytest.skip("this agent keeps no moments")
    seen = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.1])
    moments.update(seen)
    monkeypatch.setattr(run.agent, "observation_moments", lambda belief: moments)
    controller = run.start(explore="never")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        controller.act([8.0, 0.8])  # 8 standard deviations
    controller.observe(0.0, False, False)
    with pytest.warns(OutOfRange, match=r"observation 1, 'y \[m\]', is 2, 19 standard deviations") as caught:
        controller.act([8.0, 2.0])
    assert len(caught) == 1
    controller.observe(0.0, False, False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        controller.act([0.0, 3.0])


def test_a_policy_from_scratch_is_checked_by_what_it_has_seen_itself():
    """Training saw observations about (100, 100), the robot's are about (5, 5)."""
    run = make_run("ppo", POINT, adaptations=1)
    run.config = dataclasses.replace(run.config, agent=dataclasses.replace(run.config.agent, adaptation="scratch"))
    run.family, run.agent = build(run.config, "cpu")
    run.agent.input_moments.update(np.full((1000, 2), 100.0) + np.random.default_rng(0).normal(size=(1000, 2)))
    controller, seen = run.start(explore="never"), np.random.default_rng(1).normal(5.0, 0.1, size=(8, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is known yet
        for t, observation in enumerate(seen):
            controller.act(observation)
            controller.observe(-1.0, t == 7, False)
    assert controller.end_episode()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        controller.act([5.0, 5.0])
    controller.observe(0.0, False, False)
    with pytest.warns(OutOfRange, match=r"from the mean of training \([45]"):
        controller.act([100.0, 5.0])
    belief = controller.shot_belief
    about = export.describe_policy(run, run.agent.deployable(belief), belief)["observation"]
    np.testing.assert_allclose(about["mean"], seen.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(about["std"], seen.std(axis=0), rtol=0.5)


def test_a_robot_whose_agent_does_not_adapt_acts_by_the_mean_at_once():
    run = make_run("ppo", POINT, adaptations=3)
    run.config = dataclasses.replace(run.config, agent=dataclasses.replace(run.config.agent, adaptation="none"))
    run.family, run.agent = build(run.config, "cpu")
    controller = run.start(rng=1)
    assert controller.adaptations == 0
    mean, _ = run.agent.act(controller.belief, torch.zeros(1, 1, 2), None)
    np.testing.assert_array_equal(controller.act([0.0, 0.0]), mean[0, 0].numpy())


@pytest.mark.parametrize("name", list(AGENT_SETTINGS))
def test_an_agent_that_has_seen_nothing_warns_of_nothing(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_run(name).start().act([1e6, 0.0])


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="so a shot is 1 episode"):
        make_run("rl2").start(episodes_per_shot=2)
    with pytest.raises(ValueError, match="adaptations is -1"):
        make_run().start(adaptations=-1)
    with pytest.raises(ValueError, match="episodes_per_shot is 0"):
        make_run().start(episodes_per_shot=0)
    assert make_run("rl2", envs=20).start().episodes_per_shot == 1
    assert make_run("maml", envs=20).start().episodes_per_shot == 20


def test_commands_are_what_the_env_applies():
    run = make_run(family=HopperParametersSettings(horizon=40, action_scale=2.0))
    scale, low, high = run.family.action_scale, run.family.action_low, run.family.action_high
    np.testing.assert_array_equal(run.start().command(high * 3 / scale), high)
    np.testing.assert_allclose(run.start().command(low / 2 / scale), low / 2)


@pytest.mark.thorough
def test_nothing_grows_with_the_episode():
    import tracemalloc

    controller = make_run("rl2", POINT, adaptations=0).start()

    def steps(count: int) -> int:
        for _ in range(count):
            controller.act([0.0, 0.0])
            controller.observe(0.0, False, False)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = steps(500)
        assert steps(2000) - before < 10 * 2000  # bytes; a tensor a step would be a hundred
    finally:
        tracemalloc.stop()


def test_streams_of_evaluation_serve_a_robot():
    run = make_run()
    first, second = (run.start(rng=streams(1, "evaluation/episodes", 0, 1)[0]).act([0.0, 0.0]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, run.start(rng=1).act([0.0, 0.0]))
