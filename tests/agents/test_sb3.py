"""The baselines of Stable-Baselines3 behind the Agent protocol, and the VecEnv that they learn from."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import PPO
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from metarl.agents.agent import Rollout
from metarl.agents.sb3.learner import global_randomness, standardise
from metarl.agents.sb3.ppo import Ppo
from metarl.agents.sb3.recurrent_ppo import RecurrentPpo, TrialsPolicy, slots_of_arrays
from metarl.agents.sb3.settings import PpoSettings, RecurrentPpoSettings
from metarl.agents.sb3.tuned import PpoBelief, of_task
from metarl.agents.slots import slots
from metarl.envs.adapters.vec_env import TaskVecEnv
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings, HalfCheetahVelocitySettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.walkers_settings import HopperParametersSettings
from metarl.envs.sharded import ShardedEnv
from metarl.runs.trial import run_trial, streams

CPU = torch.device("cpu")
POINT = make_family(PointGoalSettings(horizon=12))
SMALL = PpoSettings(hidden_sizes=(8,), steps=4)
RECURRENT = RecurrentPpoSettings(hidden_size=8, head_sizes=(8,))


def ppo(settings: PpoSettings = SMALL, seed: int = 0) -> Ppo:
    return Ppo(settings, POINT.observation_size, POINT.action_size, torch.Generator().manual_seed(seed), CPU)


def recurrent(seed: int = 0) -> RecurrentPpo:
    sizes = POINT.observation_size, POINT.action_size
    return RecurrentPpo(RECURRENT, *sizes, torch.Generator().manual_seed(seed), CPU)


def point_env(shots: int = 0) -> TaskVecEnv:
    env = TaskVecEnv(POINT, 3, 2, threads=1, shots=shots, slots=slots_of_arrays)
    env.set_tasks(POINT.sample(3, np.random.default_rng(0)))
    env.use(streams(1, "test", 0, 3))
    return env


def learned(agent: Ppo | RecurrentPpo, iterations: int = 1) -> dict[str, float]:
    env = point_env(2 if agent.slot_maker else 0)
    metrics = {}
    for key in range(iterations):
        metrics = agent.learn(env, env.trial_steps, torch.Generator().manual_seed(key))
    return metrics


@pytest.mark.parametrize("make", [ppo, recurrent])
class TestBoth:
    def test_its_actions_are_those_of_sb3(self, make):
        agent = make()
        learned(agent, 2)
        belief = agent.begin(3, 2, ())
        seen = torch.randn(3, 2, POINT.observation_size, generator=torch.Generator().manual_seed(1)).abs()
        actions, _ = agent.act(belief, seen, None)
        inputs = seen
        if agent.slot_maker:
            none = torch.zeros(3, 2)
            inputs = slots(seen, torch.zeros(3, 2, POINT.action_size), none, none + 1, none)
        wrapped = agent.model.get_vec_normalize_env()
        assert isinstance(wrapped, VecNormalize)
        normalised = wrapped.normalize_obs(inputs.flatten(0, 1).numpy())
        predicted = agent.model.policy.predict(normalised, deterministic=True)[0]
        np.testing.assert_allclose(actions.flatten(0, 1).clamp(*_bounds(agent)).numpy(), predicted, atol=1e-5)

    def test_the_same_generator_gives_the_same_policy_and_leaves_the_global_ones_alone(self, make):
        torch.manual_seed(7)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        first, second = make(), make()
        for agent in (first, second):
            learned(agent, 2)
        for name, tensor in first.model.policy.state_dict().items():
            torch.testing.assert_close(tensor, second.model.policy.state_dict()[name], rtol=0, atol=0)
        assert torch.equal(before[0], torch.get_rng_state())
        np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002

    def test_it_goes_on_from_its_state(self, make):
        whole, first, second = make(), make(), make(seed=5)
        for agent in (whole, first):
            learned(agent, 1)
        second.load_state_dict(first.state_dict())
        for agent in (whole, second):
            env = point_env(2 if agent.slot_maker else 0)
            agent.learn(env, env.trial_steps, torch.Generator().manual_seed(1))
        for name, tensor in whole.model.policy.state_dict().items():
            torch.testing.assert_close(tensor, second.model.policy.state_dict()[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(whole.input_moments.mean, second.input_moments.mean)

    def test_a_state_of_another_size_is_refused(self, make):
        state = make().state_dict()
        state["policy"]["log_std"] = torch.zeros(9)
        with pytest.raises(ValueError, match=r"log_std is \(2,\) here and \(9,\) in the state"):
            make().load_state_dict(state)


def _bounds(agent: Ppo | RecurrentPpo) -> tuple[torch.Tensor, torch.Tensor]:
    space = agent.model.policy.action_space
    return torch.as_tensor(space.low), torch.as_tensor(space.high)


def test_recurrent_ppo_reads_in_training_what_it_reads_in_a_trial(monkeypatch):
    """The slots of training, of actions far beyond the env's bounds, against those that acting and adapting make."""
    sizes = POINT.observation_size, POINT.action_size
    agent = RecurrentPpo(dataclasses.replace(RECURRENT, initial_std=3.0), *sizes, torch.Generator(), CPU)
    env, trained = point_env(2), []
    forward = agent.model.policy.forward

    def listen(slots_, *arguments, **keywords):
        results = forward(slots_, *arguments, **keywords)
        trained.append((agent.model.get_vec_normalize_env().unnormalize_obs(slots_.numpy()), results[0].detach()))
        return results

    monkeypatch.setattr(agent.model.policy, "forward", listen)
    agent.settings = dataclasses.replace(agent.settings, normalise_input=False)
    agent.learn(env, env.trial_steps, torch.Generator().manual_seed(0))
    assert max(actions.abs().max() for _, actions in trained) > 3
    belief, read = agent.begin(3, 2, ()), []
    monkeypatch.setattr(agent, "_standardise", lambda inputs: read.append(inputs) or inputs)
    reference = ShardedEnv(POINT, 3, 2, threads=1, at_once=1)
    reference.set_tasks(env.tasks)
    rngs = streams(1, "test", 0, 3)
    for shot in range(2):
        seen = reference.reset(rngs)
        for t in range(12):
            actions = trained[13 * shot + t][1].view(3, 2, -1)
            _, after = agent.act(belief, torch.from_numpy(seen), None)
            step = reference.step(actions.numpy())
            ended = torch.from_numpy(~reference.active)
            belief = agent.observe(
                dataclasses.replace(after, previous_action=actions), torch.from_numpy(step.rewards), ended
            )
            seen = step.observations
        blank = torch.zeros(12, 3, 2)
        final = torch.from_numpy(seen)
        rollout = Rollout(
            *(blank[..., None].expand(12, 3, 2, 2), blank[..., None], blank, blank > 1, blank > 1), blank < 1, final
        )
        if shot == 0:
            belief = agent.adapt(belief, rollout, ())
    assert len(read) == len(trained) == 25
    for ours, (theirs, _) in zip(read, trained, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


def test_recurrent_ppo_reads_sequences_at_once_as_sb3_does_step_by_step():
    """Where trials begin at their start, in some of them; and in the middle, which sb3-contrib allows."""
    generator = torch.Generator().manual_seed(0)
    lstm = torch.nn.LSTM(5, 4)
    features, states = torch.randn(3 * 7, 5, generator=generator), torch.randn(2, 1, 3, 4, generator=generator)
    for begins in ([(0, 0), (2, 0)], [(0, 0), (1, 4)], []):
        starts = torch.zeros(3, 7)
        for sequence, step in begins:
            starts[sequence, step] = 1.0
        given = (features, (states[0], states[1]), starts.flatten(), lstm)
        theirs, (hidden, cell) = RecurrentActorCriticPolicy._process_sequence(*given)
        ours, after = TrialsPolicy._process_sequence(*given)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(after, (hidden, cell))


def test_recurrent_ppo_learns_from_whole_sequences():
    """One call of each LSTM for a minibatch, however many trials begin in it."""
    agent, calls = recurrent(), []
    for lstm in (agent.model.policy.lstm_actor, agent.model.policy.lstm_critic):
        lstm.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    learned(agent)
    updates = [length for length in calls if length > 1]
    assert len(updates) == 2 * RECURRENT.epochs * RECURRENT.minibatches
    assert max(updates) == 25


def test_ppo_learns_the_point_task():
    agent = ppo(PpoSettings(hidden_sizes=(32,), lr=3e-3, steps=12))
    env = TaskVecEnv(POINT, 8, 16, threads=1)
    returns = []
    for key in range(12):
        env.set_tasks([POINT.task({"goal_x": 0.1, "goal_y": 0.1})] * 8)
        env.use(streams(1, "test", key, 8))
        agent.learn(env, env.trial_steps, torch.Generator().manual_seed(key))
        returns.append(np.mean([episode.total for episode in env.episodes]))
    assert np.mean(returns[-3:]) > returns[0] * 0.75  # returns are negative


def test_the_learning_rate_falls_as_asked():
    agent = ppo(dataclasses.replace(SMALL, lr=4e-3, lr_decay_updates=2, lr_end=2e-3))
    env = point_env()
    rates = [agent.learn(env, 12, torch.Generator().manual_seed(k))["lr"] for k in range(4)]
    assert rates == pytest.approx([4e-3, 3e-3, 2e-3, 2e-3])
    assert agent.model.policy.optimizer.param_groups[0]["lr"] == pytest.approx(2e-3)


class TestAdaptation:
    def trial(self, adaptation: str, adaptations: int = 1, agent: Ppo | None = None):
        settings = dataclasses.replace(SMALL, adaptation=adaptation)
        agent = agent or ppo(settings)
        env = ShardedEnv(POINT, 3, 2, threads=1)
        env.set_tasks(POINT.sample(3, np.random.default_rng(0)))
        return agent, run_trial(env, agent, streams(1, "test", 0, 3), adaptations)

    def test_domain_randomisation_makes_nothing_of_a_shot(self):
        agent, result = self.trial("none")
        before = result.trial.beliefs[0]
        assert result.trial.beliefs[1] == before == agent.begin(3, 2, ()) == PpoBelief()

    def test_a_fine_tuned_policy_is_ppos_on_that_shot(self):
        """Against SB3's own PPO.train on its own rollout buffer, filled with the same episode, in one minibatch."""
        one = dataclasses.replace(
            SMALL, adaptation="fine_tune", adaptation_minibatches=1, adaptation_epochs=3, normalise_reward=False
        )
        agent = ppo(one)
        learned(agent)
        _, result = self.trial("fine_tune", agent=agent)
        rollout, tuned = result.trial.rollouts[0], result.trial.beliefs[1].tuned["policy"]
        model = PPO(
            "MlpPolicy",
            point_env(),
            n_steps=12,
            batch_size=24,
            n_epochs=3,
            learning_rate=one.adaptation_lr,
            vf_coef=one.value_weight,
            max_grad_norm=one.max_gradient_norm,
            policy_kwargs={"net_arch": [8]},
            device="cpu",
        )
        model.n_envs = 2
        model._setup_model()
        model.policy.load_state_dict(agent.model.policy.state_dict())
        model.policy.optimizer.load_state_dict(copy.deepcopy(agent.model.policy.optimizer.state_dict()))
        x = standardise(rollout.observations[:, 1], agent.input_moments)
        final = standardise(rollout.final_observations[1], agent.input_moments)
        for t in range(12):
            with torch.no_grad():
                values, log_likelihoods, _ = model.policy.evaluate_actions(x[t], rollout.actions[t, 1])
            rewards = rollout.rewards[t, 1].numpy().copy()
            if t == 11:
                rewards += one.discount * model.policy.predict_values(final)[:, 0].detach().numpy()
            model.rollout_buffer.add(
                x[t].numpy(), rollout.actions[t, 1].numpy(), rewards, np.full(2, t == 0), values, log_likelihoods
            )
        model.rollout_buffer.compute_returns_and_advantage(torch.zeros(2), np.ones(2, dtype=bool))
        model.set_logger(agent.model.logger)
        model.train()
        for name, tensor in model.policy.state_dict().items():
            torch.testing.assert_close(tuned[name][1], tensor, rtol=1e-4, atol=1e-6)
            changed = not torch.equal(tensor, agent.model.policy.state_dict()[name])
            assert changed == result.trial.rollouts[0].valid.all()

    def test_stacked_policies_act_as_each_alone(self):
        agent, result = self.trial("fine_tune", 2)
        belief = result.trial.beliefs[2]
        seen = torch.rand(3, 2, POINT.observation_size)
        actions, _ = agent.act(belief, seen, None)
        for m in range(3):
            own = of_task(belief.tuned, m, agent.model.policy)
            x = standardise(seen[m], own.inputs)
            torch.testing.assert_close(actions[m], own.policy.get_distribution(x).distribution.mean)

    @pytest.mark.thorough
    def test_scratch_forgets_training_and_the_trained_policy_stays_as_it_was(self):
        trained = ppo(dataclasses.replace(SMALL, adaptation="scratch"))
        untrained = ppo(dataclasses.replace(SMALL, adaptation="scratch"))
        learned(trained)
        state = {k: v.clone() for k, v in trained.model.policy.state_dict().items()}
        results = [self.trial("scratch", agent=agent)[1] for agent in (trained, untrained)]
        ours, fresh = (torch.cat([r.actions for r in result.trial.rollouts]) for result in results)
        torch.testing.assert_close(ours, fresh, rtol=0, atol=0)
        assert all(torch.equal(state[k], v) for k, v in trained.model.policy.state_dict().items())
        inputs = results[0].trial.beliefs[1].tuned["inputs"]
        own = results[0].trial.rollouts[0].observations[:, 0].flatten(0, 1).double().numpy()
        np.testing.assert_allclose(inputs["mean"][0], own.mean(0), rtol=1e-3, atol=1e-4)


LATE = make_family(HalfCheetahMassSettings(horizon=6, changes=1, change_gap=(8, 9)))
LATE_TASK = LATE.sample(1, np.random.default_rng(0))[0]


def late_masses(rounds: int) -> list[float]:
    """Before each step of so many episodes in a row, of the task that changes in the second."""
    step, first, then = LATE_TASK.changes[0].step, LATE_TASK.values["mass_scale"], LATE_TASK.changes[0].values
    return [first if t <= step else then["mass_scale"] for t in range(6 * rounds)]


class TestVecEnv:
    def test_it_is_a_vec_env_that_sb3_trains_on(self):
        env = TaskVecEnv(make_family(HalfCheetahVelocitySettings(horizon=10)), 2, 3, threads=1)
        model = PPO("MlpPolicy", env, n_steps=25, batch_size=50, n_epochs=1, device="cpu").learn(150)
        assert model.num_timesteps == 150
        assert [info["l"] for info in model.ep_info_buffer or []] == [10] * 12

    def test_what_ends_is_told_as_sb3_expects(self):
        family = dataclasses.replace(
            make_family(HalfCheetahMassSettings(horizon=8)),
            terminate=lambda state: (state.steps == 3) & (np.arange(len(state.steps)) == 1),
        )
        env = TaskVecEnv(family, 2, 2, threads=1)
        env.use(streams(1, "test", 0, 2))
        reference = ShardedEnv(family, 2, 2, threads=1, at_once=1)
        assert (env.reset() == reference.reset(streams(1, "test", 0, 2)).reshape(4, -1)).all()
        rng = np.random.default_rng(0)
        for t in range(8):
            actions = rng.uniform(-1, 1, (4, family.action_size)).astype(np.float32)
            slots_, rewards, dones, infos = env.step(actions)
            result = reference.step(actions.reshape(2, 2, -1))
            still = [0, 2, 3]
            np.testing.assert_array_equal(rewards[still], result.rewards.reshape(-1)[still])
            if t in (2, 5):
                assert dones.tolist() == [False, True, False, False]
                assert not infos[1]["TimeLimit.truncated"] and infos[1]["episode"]["l"] == 3
                assert not np.array_equal(np.asarray(slots_)[1], infos[1]["terminal_observation"])
                if t == 2:  # the reference does not begin anew
                    np.testing.assert_array_equal(infos[1]["terminal_observation"], result.observations[0, 1])
            elif t == 7:
                assert dones.tolist() == [True, False, True, True]  # env 1 began anew twice, after 3 steps
                assert all(infos[i]["TimeLimit.truncated"] for i in still)
                np.testing.assert_array_equal(infos[3]["terminal_observation"], result.observations[1, 1])
            else:
                assert not dones.any() and infos == [{}] * 4
        assert [(e.task, e.steps) for e in env.episodes] == [(0, 3), (0, 3), (0, 8), (1, 8), (1, 8)]
        assert env.num_steps == 32

    def test_a_trial_is_one_episode_and_shows_how_each_of_its_own_ended(self):
        env = point_env(shots=2)
        size, act = POINT.observation_size, POINT.action_size
        slots_ = env.reset()
        assert slots_.shape == (6, size + act + 3) and env.trial_steps == 25
        assert (slots_[:, -3:] == [0, 1, 0]).all() and (slots_[:, size:-3] == 0).all()
        rng, total = np.random.default_rng(0), np.zeros(6)
        dones, infos = np.zeros(6, dtype=bool), []
        for t in range(25):
            actions = rng.uniform(-0.1, 0.1, (6, act)).astype(np.float32)
            before = slots_
            env.step_async(actions)
            slots_, rewards, dones, infos = env.step_wait()
            total += rewards
            if t == 11:  # the first episode is over: its last observation, action and reward
                np.testing.assert_array_equal(slots_[:, size:-3], actions)
                np.testing.assert_array_equal(slots_[:, -3], rewards)
                assert (slots_[:, -2:] == [0, 1]).all() and not dones.any()
            elif t == 12:  # the slot after it moves nothing
                assert (rewards == 0).all() and (slots_[:, -3:] == [0, 1, 0]).all() and not dones.any()
                assert not np.array_equal(slots_[:, :size], before[:, :size])
            elif t < 24:
                assert (slots_[:, -2:] == 0).all() and not dones.any()
        assert dones.all() and not any(info["TimeLimit.truncated"] for info in infos)
        np.testing.assert_allclose([info["episode"]["r"] for info in infos], total, rtol=1e-5)
        assert [e.shot for e in env.episodes] == [0] * 6 + [1] * 6
        by_shot = np.array([e.total for e in env.episodes]).reshape(2, 6).sum(0)
        np.testing.assert_allclose(by_shot, total, rtol=1e-5)

    def test_a_trial_that_begins_anew_finds_its_task_as_it_was_at_first(self):
        family = make_family(HalfCheetahMassSettings(horizon=6, changes=1, change_gap=(2, 3)))
        env = TaskVecEnv(family, 1, 1, threads=1)
        [task] = family.sample(1, np.random.default_rng(0))
        env.set_tasks([task])
        [parameter] = task.changes[0].values
        seen = []
        env.reset()
        for _ in range(12):
            seen.append(float(env._env.shards[0]._state.task[parameter][0]))
            env.step(np.zeros((1, family.action_size)))
        step = task.changes[0].step
        expected = [task.values[parameter]] * (step + 1) + [task.changes[0].values[parameter]] * (5 - step)
        assert seen == expected * 2

    @pytest.mark.parametrize("rounds", [1, 2, 3])
    def test_episodes_that_follow_on_each_other_in_the_time_of_a_task_meet_its_changes(self, rounds):
        env = TaskVecEnv(LATE, 1, 1, threads=1, rounds=rounds)
        env.set_tasks([LATE_TASK])
        env.reset()
        assert env.trial_steps == 6 * rounds
        seen, dones = [], []
        for _ in range(2 * env.trial_steps):
            seen.append(float(env._env.shards[0]._state.task["mass_scale"][0]))
            dones.append(bool(env.step(np.zeros((1, LATE.action_size)))[2][0]))
        assert seen == 2 * late_masses(rounds) and dones == ([False] * 5 + [True]) * 2 * rounds
        assert [(e.shot, e.steps) for e in env.episodes] == [(k, 6) for k in range(rounds)] * 2

    def test_a_robot_that_falls_in_a_trial_is_placed_anew(self):
        family = make_family(HopperParametersSettings(horizon=40))
        env = TaskVecEnv(family, 3, 2, threads=1, shots=2, slots=slots_of_arrays, lives=True)
        size, rng = family.observation_size, np.random.default_rng(0)
        env.use(streams(1, "test", 0, 3))
        env.set_tasks(family.sample(3, rng))
        env.reset()
        lives = 0
        for t in range(env.trial_steps):
            actions = rng.normal(0, 1, (6, family.action_size)).astype(np.float32)
            slots_, rewards, dones, _ = env.step(actions)
            slots_ = np.asarray(slots_)
            assert dones.all() == (t + 1 == env.trial_steps) and dones.any() == dones.all()
            fresh = slots_[:, -2] == 1
            if fresh.any() and t not in (40, 80):  # where the second episode begins, and the next trial
                lives += int(fresh.sum())
                np.testing.assert_array_equal(slots_[fresh, size:-3], actions[fresh])
                np.testing.assert_array_equal(slots_[fresh, -3], rewards[fresh])
                home = np.array([1.25, *[0.0] * (size - 1)])
                assert np.abs(slots_[fresh, :size] - home).max() <= 5e-3
        assert lives >= 6 and env.num_steps == 6 * 2 * 40
        assert [e.steps for e in env.episodes] == [40] * 12


def test_global_randomness_follows_from_the_generator_and_is_given_back():
    draws = []
    for seed in (1, 1, 2):
        with global_randomness(torch.Generator().manual_seed(seed)):
            draws.append((torch.rand(()).item(), np.random.rand()))  # noqa: NPY002
    assert draws[0] == draws[1] != draws[2]


def test_standardise_is_vec_normalizes():
    moments = RunningMeanStd(shape=(3,))
    data = np.random.default_rng(0).normal(2, 3, (50, 3))
    moments.update(data)
    ours = standardise(torch.as_tensor(data[:5]), moments).numpy()
    np.testing.assert_allclose(ours, (data[:5] - data.mean(0)) / data.std(0), rtol=1e-3)


def test_a_shot_that_mujoco_flagged_changes_nothing():
    agent, result = TestAdaptation().trial("fine_tune", 0)
    rollout = result.trial.rollouts[0]
    rollout.valid[:, 0] = False
    belief = agent.adapt(agent.begin(3, 2, ()), rollout, ())
    before = agent.model.policy.state_dict()
    same = [all(torch.equal(before[k], v[m]) for k, v in belief.tuned["policy"].items()) for m in range(3)]
    assert same == [True, False, False]
    assert not math.isnan(float(belief.actors.log_std.sum()))
