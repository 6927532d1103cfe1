"""What every agent must do, whatever it is: a new one joins by its registration.

More that is asked of every agent is beside what it is about: export (test_export.py), a controller on a robot
(test_controller.py), memory reset (test_memory_reset.py), runs that are killed (test_runs.py), every family
(test_evaluation.py).
"""

from __future__ import annotations

import copy
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents import beliefs
from metarl.agents.agent import Agent, Rollout
from metarl.agents.moments import Moments
from metarl.agents.registry import AGENTS, make_agent
from metarl.agents.sb3.learner import Sb3Agent
from metarl.agents.threads import single_torch_thread
from metarl.agents.trial_ppo.settings import TrialPpoBlock
from metarl.config import RunConfig, TrainingSettings
from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.reveal import privileged_names
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings, HalfCheetahVelocitySettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.sharded import ShardedEnv
from metarl.runs.run import Run, build
from metarl.runs.trial import AgentGenerators, collect, run_trial, streams
from metarl.training.world import Outcome, TrainingWorld
from tests.agents.shots import (
    ACTION,
    CPU,
    ENVS,
    HORIZON,
    OBSERVATION,
    TASKS,
    after,
    assert_close,
    begun,
    draw,
    flat,
    generators,
    make,
    rollout,
)
from tests.metarl.test_controller import HOPPER, make_run
from tests.sampling import sampled
from tests.small_agents import PRIVILEGED, VARIANTS, small_agent

NAMES = [*AGENTS, *VARIANTS]
SEEN = draw(TASKS, ENVS, OBSERVATION, seed=7)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
EXACT = {"rtol": 0.0, "atol": 0.0}
HALF_CHEETAH = HalfCheetahVelocitySettings(horizon=12)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are tiny, and threads that wait for a busy core cost more than they give."""
    with single_torch_thread():
        yield


def actions(agent: Agent, belief: Any, seen: Tensor = SEEN) -> Tensor:
    return agent.act(belief, seen, None)[0]


def numbers(belief: Any) -> list[Tensor]:
    """The floating-point tensors of a belief."""
    return [x for x in flat(beliefs.saved(belief)).values() if isinstance(x, Tensor) and x.is_floating_point()]


def play(agent: Agent, belief: Any, shot: Rollout) -> Any:
    """The belief after the steps of a shot, before adaptation, by the agent's own actions."""
    for t in range(HORIZON):
        _, belief = agent.act(belief, shot.observations[t], None)
        belief = agent.observe(belief, shot.rewards[t], shot.truncated[t])
    return belief


@pytest.mark.parametrize("name", NAMES)
class TestBelief:
    def test_it_changes_with_data(self, name: str):
        """A shot, and what is different in it, changes the actions of an agent that adapts, and of no other."""
        agent = make(name)
        first, one, other = begun(agent), after(agent, shots=[rollout(0)]), after(agent, shots=[rollout(10)])
        pairs = [(actions(agent, a), actions(agent, b)) for a, b in ((first, one), (one, other))]
        assert [torch.equal(*pair) for pair in pairs] == [not agent.facts.adapts] * 2

    def test_it_changes_with_data_alone(self, name: str):
        """The same data gives the same belief to the bit, and a belief is a value: no call changes one it was given."""
        agent, shot = make(name), rollout(0)
        belief = begun(agent)
        before = copy.deepcopy(beliefs.saved(belief))
        assert_close(begun(agent), belief, **EXACT)
        played = play(agent, belief, shot)
        assert_close(play(agent, belief, shot), played, **EXACT)
        reached = agent.adapt(played, shot, generators(1))
        actions(agent, reached)
        assert_close(agent.adapt(play(agent, belief, shot), shot, generators(1)), reached, **EXACT)
        for leaf, value in flat(before).items():
            torch.testing.assert_close(flat(beliefs.saved(belief))[leaf], value, **EXACT)
        if not agent.facts.belief_per_env:  # it is the same all through an episode
            assert_close(played, belief, **EXACT)

    def test_of_a_shot_without_a_sound_env_nothing_is_learned(self, name: str):
        agent = make(name)
        if agent.facts.belief_per_env or agent.facts.samples_belief:
            pytest.skip("a memory reads what it met, and a posterior is drawn from again")
        shot = rollout(0)
        shot.valid[:] = False
        torch.testing.assert_close(actions(agent, after(agent, shots=[shot])), actions(agent, begun(agent)), **CLOSE)

    def test_tasks_and_envs_at_once_are_those_one_by_one(self, name: str):
        """The [M, N] batch, in what it learns and in how it acts. Only a memory learns from each env by itself."""
        agent = make(name)
        whole = actions(agent, after(agent))
        for m in range(TASKS):
            task = slice(m, m + 1)
            belief = after(agent, task)
            torch.testing.assert_close(actions(agent, belief, SEEN[task]), whole[task], **CLOSE)
            for n in range(ENVS):
                env = slice(n, n + 1)
                belief = after(agent, task, env) if agent.facts.belief_per_env else belief
                torch.testing.assert_close(actions(agent, belief, SEEN[task, env]), whole[task, env], **CLOSE)

    def test_what_a_task_gives_no_other_task_learns_from(self, name: str):
        """Other data of task 0 changes its actions alone; of envs with a belief of their own, those of env 0 alone."""
        agent, other = make(name), rollout(0)
        for data in (other.observations, other.actions, other.rewards):
            data[:, 0, 0] = draw(*data[:, 0, 0].shape, seed=99) * 3.0
        ours, theirs = (actions(agent, after(agent, shots=[shot])) for shot in (rollout(0), other))
        torch.testing.assert_close(ours[1:], theirs[1:], rtol=1e-6, atol=1e-7)
        if agent.facts.belief_per_env:
            torch.testing.assert_close(ours[0, 1:], theirs[0, 1:], rtol=1e-6, atol=1e-7)
        assert torch.equal(ours[0, 0], theirs[0, 0]) is not agent.facts.adapts

    def test_every_tensor_has_a_task_axis(self, name: str):
        agent = make(name)
        tensors = [x for x in flat(beliefs.saved(after(agent))).values() if isinstance(x, Tensor)]
        assert bool(tensors) is agent.facts.adapts
        assert {len(x) for x in tensors} <= {TASKS}

    def test_shards_joined_in_any_order_are_the_whole(self, name: str):
        agent = make(name)
        parts = [after(agent, tasks) for tasks in (slice(3, 4), slice(0, 1), slice(1, 3))]
        joined = beliefs.join(parts, torch.tensor([1, 2, 3, 0]))
        whole = after(agent)
        assert_close(joined, whole, **CLOSE)
        torch.testing.assert_close(actions(agent, joined), actions(agent, whole), **CLOSE)
        assert any(not torch.equal(x[0], x[1]) for x in numbers(joined)) is agent.facts.adapts

    def test_a_file_gives_it_back_to_the_bit(self, name: str):
        agent = make(name)
        belief, file = after(agent), io.BytesIO()
        torch.save(beliefs.saved(belief), file)
        file.seek(0)
        loaded = beliefs.load(agent, torch.load(file, weights_only=True))
        assert_close(loaded, belief, **EXACT)
        assert torch.equal(actions(agent, loaded), actions(agent, belief))
        assert torch.equal(actions(agent, loaded), actions(agent, begun(agent))) is not agent.facts.adapts
        shot = rollout(50)
        first, second = (agent.adapt(play(agent, b, shot), shot, generators(3)) for b in (loaded, belief))
        assert_close(first, second, **EXACT)

    def test_what_was_saved_is_not_changed_by_going_on(self, name: str):
        agent = make(name)
        state = beliefs.saved(after(agent))
        before = copy.deepcopy(state)
        agent.adapt(beliefs.load(agent, state), rollout(50), generators(3))
        for leaf, x in flat(state).items():
            torch.testing.assert_close(x, flat(before)[leaf], **EXACT)

    def test_a_state_that_does_not_fit_is_refused(self, name: str):
        agent = make(name)
        state = beliefs.saved(after(agent))
        with pytest.raises(ValueError, match="the belief holds .*other"):
            beliefs.load(agent, state | {"other": 1})
        with pytest.raises(ValueError, match="the belief holds list, not "):
            beliefs.load(agent, [])
        if agent.facts.adapts:
            with pytest.raises(ValueError, match="the belief holds nothing, not "):
                beliefs.load(agent, {})


@pytest.mark.parametrize("name", NAMES)
class TestPolicy:
    def test_it_is_given_back_by_its_state(self, name: str):
        """To an agent that was made with other parameters, through a file."""
        if name == "scratch":
            pytest.skip("it acts by the policy that it was made with")
        agent, file = make(name), io.BytesIO()
        torch.save(agent.state_dict(), file)
        file.seek(0)
        twin = make(name, seed=9)
        assert not torch.equal(actions(twin, begun(twin)), actions(agent, begun(agent)))
        twin.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(actions(twin, begun(twin)), actions(agent, begun(agent)))
        assert torch.equal(actions(twin, after(twin)), actions(agent, after(agent)))

    def test_acting_asks_nothing_of_the_global_generators(self, name: str):
        before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        after(make(name))
        assert torch.equal(torch.random.get_rng_state(), before)
        assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002

    def test_observations_that_are_read_as_they_are_are_not_clipped(self, name: str):
        settings = small_agent(name)
        if not hasattr(settings, "normalise_input"):
            pytest.skip("this agent has no normaliser")
        settings = dataclasses.replace(settings, normalise_input=False)
        generator = torch.Generator().manual_seed(0)
        agent: Any = make_agent(settings, OBSERVATION, ACTION, generator, CPU, privileged=PRIVILEGED)
        at = torch.arange(OBSERVATION) == 0
        near, far = (actions(agent, begun(agent), torch.where(at, value, SEEN)) for value in (10.5, 11.5))
        assert not torch.equal(near, far)
        if getattr(agent, "reads_reward", False):
            acted = agent.act(begun(agent), SEEN, None)[1]
            ended = torch.zeros(TASKS, ENVS, dtype=torch.bool)
            told = (agent.observe(acted, torch.full((TASKS, ENVS), reward), ended) for reward in (20.0, 30.0))
            near, far = (numbers(agent.act(belief, SEEN, None)[1].memory) for belief in told)
            assert not all(map(torch.equal, near, far))

    def test_with_noise_it_acts_about_its_mean_and_without_a_gradient(self, name: str):
        agent = make(name)
        belief, noise = after(agent), draw(TASKS, ENVS, ACTION, seed=3)
        mean, noisy, other = (agent.act(belief, SEEN, z)[0] for z in (None, noise, -noise))
        for action in (mean, noisy, other):
            assert action.shape == (TASKS, ENVS, ACTION) and action.dtype == torch.float32
            assert action.isfinite().all() and not action.requires_grad
        assert ((noisy - mean).sign() == noise.sign()).all() and ((other - mean).sign() == -noise.sign()).all()

    @pytest.mark.filterwarnings("ignore::metarl.runs.controller.OutOfRange")
    @pytest.mark.parametrize("scale", [1.0, 1e4])
    def test_on_a_robot_its_commands_are_within_the_motors_bounds(self, name: str, scale: float):
        """Whatever the robot observes, and after adaptation to it."""
        run = make_run(name, HOPPER)
        family, rng = run.family, np.random.default_rng(0)
        low, high = family.control.ranges.T
        assert np.isfinite(high - low).all()
        robot = run.start(explore="always", rng=0)
        for _ in range(3):
            for _ in range(family.horizon):
                action = robot.act(scale * rng.normal(size=family.observation_size))
                assert action.shape == (family.action_size,) and action.dtype == np.float32
                assert np.isfinite(action).all()
                command = robot.command(action)
                assert (low <= command).all() and (command <= high).all()
                robot.observe(float(scale * rng.normal()), False, False)
            robot.end_episode(scale * rng.normal(size=family.observation_size))


def make_in(family: TaskFamily, name: str, threads: int = 1) -> tuple[ShardedEnv, Any]:
    """An env of three tasks, two envs each, as in training, and an agent for it."""
    sizes, told = (family.observation_size, family.action_size), privileged_names(family)
    agent = make_agent(small_agent(name), *sizes, torch.Generator().manual_seed(0), CPU, privileged=told)
    env = ShardedEnv(family, 3, 2, threads, at_once=2, telling=agent.facts.informed)
    env.set_tasks(family.sample(3, np.random.default_rng(0)))
    return env, agent


def tensors(state) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state.double()]
    if isinstance(state, dict):
        return [t for v in state.values() for t in tensors(v)]
    return [t for v in state for t in tensors(v)] if isinstance(state, list | tuple) else []


@pytest.mark.parametrize("name", sampled(NAMES, 3))
class TestTrial:
    def test_a_trial_is_reproduced_by_its_generators(self, name: str):
        returns = []
        for _ in range(2):
            env, agent = make_in(make_family(HalfCheetahVelocitySettings(horizon=15)), name)
            trial = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=2).trial
            returns.append(torch.stack([r.episode_returns() for r in trial.rollouts]))
        assert returns[0].shape == (3, 3, 2)
        torch.testing.assert_close(*returns, rtol=0, atol=0)

    def test_a_tasks_trial_does_not_depend_on_the_tasks_beside_it(self, name: str):
        family = make_family(HalfCheetahMassSettings(horizon=10))
        env, agent = make_in(family, name)
        together = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=1).trial
        alone_env = ShardedEnv(family, 1, 2, 1, telling=agent.facts.informed)
        alone_env.set_tasks(env.tasks[1:2])
        alone = run_trial(alone_env, agent, streams(1, "test", 0, 3)[1:2], adaptations=1).trial
        torch.testing.assert_close(
            alone.rollouts[0].actions[:, 0], together.rollouts[0].actions[:, 1], rtol=1e-4, atol=1e-4
        )

    def test_the_model_is_the_same_for_the_whole_trial(self, name: str):
        env, agent = make_in(make_family(HalfCheetahMassSettings(horizon=5)), name)
        batches = [shard.simulation.batch for shard in env.shards]
        masses = [[batch.get_model(i).body_mass.copy() for i in range(batch.nsim)] for batch in batches]
        tasks = env.tasks
        run_trial(env, agent, streams(1, "test", 0, 3), adaptations=2)
        assert env.tasks == tasks
        for batch, before in zip(batches, masses, strict=True):
            for i, mass in enumerate(before):
                np.testing.assert_array_equal(batch.get_model(i).body_mass, mass)

    def test_without_exploration_the_actions_follow_from_the_observations(self, name: str):
        env, agent = make_in(make_family(PointGoalSettings(horizon=6)), name)
        rollout = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=0, explore=False).trial.rollouts[0]
        torch.testing.assert_close(rollout.actions[:, :, 0], rollout.actions[:, :, 1])  # all start at the same place

    def test_with_noise_or_without_every_shot_starts_alike(self, name: str):
        env, agent = make_in(make_family(HalfCheetahMassSettings(horizon=4)), name)
        silent, noisy = (
            run_trial(env, agent, streams(1, "test", 0, 3), adaptations=2, explore=explore).trial.rollouts
            for explore in (False, True)
        )
        for ours, theirs in zip(silent, noisy, strict=True):
            torch.testing.assert_close(ours.observations[0], theirs.observations[0], rtol=0, atol=0)
        assert not torch.equal(silent[0].actions, noisy[0].actions)
        assert not torch.equal(silent[0].observations[0], silent[1].observations[0])


def trained(
    name: str, folder: Path, device: str = "cpu", family: Any = HALF_CHEETAH, **more: Any
) -> tuple[Run, list[Outcome]]:
    """A run after two iterations on the same tasks, and their outcomes. more: settings of the agent."""
    training = TrainingSettings(tasks=3, envs_per_task=2, adaptations=1, threads=1)
    config = RunConfig(dataclasses.replace(small_agent(name), **more), family, training)
    run = Run(folder, config, *build(config, device), 0, 0)
    world, tasks = TrainingWorld(run), run.family.sample(3, np.random.default_rng(0))
    return run, [world.iterate(tasks, key) for key in range(2)]


READERS = [name for name in NAMES if issubclass(AGENTS[VARIANTS.get(name, (name, {}))[0]].settings, TrialPpoBlock)]
"""Agents that learn from whole trials by PPO."""
OF_POLICY = {"observation_moments", "reward_moments", "policy_moments"}
"""Moments of what a policy reads."""


@pytest.mark.parametrize("name", READERS)
class TestTrainingOnWholeTrials:
    def test_what_only_training_reads_is_standardised_where_the_policy_reads_what_it_is_given(self, name, tmp_path):
        run, _ = trained(name, tmp_path, normalise_input=False)
        agent: Any = run.agent
        moments = {name: part for name, part in agent.network.named_modules() if isinstance(part, Moments)}
        assert all(moments[part].count > 0 for part in moments if part not in OF_POLICY)
        assert agent.observation_moments(begun(agent)) is None
        seen = draw(TASKS, ENVS, run.family.observation_size, seed=7)
        before = actions(agent, begun(agent), seen)
        for part in OF_POLICY & moments.keys():
            moments[part].mean += 1.0
        assert torch.equal(actions(agent, begun(agent), seen), before)

    def test_its_noise_is_not_caught_at_its_least(self, name: str, tmp_path: Path):
        if name == "distilled":
            pytest.skip("its first updates leave the noise as it is")
        run, _ = trained(name, tmp_path, initial_std=0.5, min_std=1.0, entropy_weight=100.0)
        agent: Any = run.agent
        assert (agent.log_std() > 0.0).all()


@pytest.mark.parametrize("name", sampled(NAMES, 3))
class TestTraining:
    def test_an_update_changes_the_agent_and_reports_finite_numbers(self, name: str, tmp_path: Path):
        run, outcomes = trained(name, tmp_path)
        _, new = build(run.config, "cpu")
        before, after = (torch.cat([p.flatten() for p in tensors(a.state_dict())]) for a in (new, run.agent))
        assert before.shape != after.shape or not torch.equal(before, after)
        for outcome in outcomes:
            assert outcome.metrics and all(np.isfinite(value) for value in outcome.metrics.values())

    def test_what_was_saved_is_not_changed_by_learning_on(self, name: str, tmp_path: Path):
        run, _ = trained(name, tmp_path)
        saved = run.agent.state_dict()
        _, other = build(run.config, "cpu")
        other.load_state_dict(saved)
        before = [tensor.clone() for tensor in tensors(saved)]
        tasks = run.family.sample(3, np.random.default_rng(0))
        for agent in (run.agent, other):
            run.agent = agent
            TrainingWorld(run).iterate(tasks, 2)
        for kept, now in zip(before, tensors(saved), strict=True):
            assert torch.equal(kept, now)

    def test_the_same_seed_trains_the_same_agent(self, name: str, tmp_path: Path):
        (one, first), (two, second) = (trained(name, tmp_path / folder) for folder in "ab")
        for ours, theirs in zip(first, second, strict=True):
            assert ours.metrics == theirs.metrics
            np.testing.assert_array_equal(ours.returns, theirs.returns)
        for ours, theirs in zip(tensors(one.agent.state_dict()), tensors(two.agent.state_dict()), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
class TestOnCuda:
    def test_it_acts_and_adapts_as_on_the_cpu(self, name: str):
        """From the same shots."""
        results = []
        for device in (CPU, torch.device("cuda")):
            agent, shots = make(name, device=device), [rollout(0), rollout(10)]
            shots = [shot.map(lambda _, x, device=device: x.to(device)) for shot in shots]
            before, reached = begun(agent), after(agent, shots=shots)
            results.append([actions(agent, belief, SEEN.to(device)).cpu() for belief in (before, reached)])
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4)

    def test_it_learns_as_on_the_cpu(self, name: str, tmp_path: Path):
        """The first iteration is played by the policies that were drawn, the second by those that learned from it."""
        runs = [trained(name, tmp_path / device, device, PointGoalSettings(horizon=12)) for device in ("cpu", "cuda")]
        assert all(np.isfinite(list(outcome.metrics.values())).all() for _, outcomes in runs for outcome in outcomes)
        if not isinstance(runs[0][0].agent, Sb3Agent):  # the noise of its actions is that of its device
            ours, theirs = ([outcome.returns for outcome in outcomes] for _, outcomes in runs)
            np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", sampled(NAMES, 3))
def test_the_shards_trial_is_that_of_one_batch(name: str):
    family = make_family(HalfCheetahVelocitySettings(horizon=12))
    results = []
    for threads in (1, 2, 4):
        env, agent = make_in(family, name, threads=threads)
        assert [shard.num_tasks for shard in env.shards] == [2, 1] and env.workers == min(threads, 2)
        results.append(run_trial(env, agent, streams(1, "test", 0, 3), adaptations=2))
    assert len(env.tasks) == 3 and [task for shard in env.shards for task in shard.tasks] == env.tasks
    whole = BatchedEnv(family, 3, 2, 2, telling=agent.facts.informed)
    whole.set_tasks(env.tasks)
    rngs = streams(1, "test", 0, 3)
    belief = agent.begin(3, 2, AgentGenerators(rngs, 0))
    for k in range(3):
        assert_close(results[0].trial.beliefs[k], belief, rtol=1e-4, atol=1e-4)
        shot = collect(whole, agent, belief, rngs)
        for result in results:
            rollout = result.trial.rollouts[k]
            for name_, data in vars(shot.rollout).items():
                torch.testing.assert_close(getattr(rollout, name_), data, rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(
                    getattr(rollout, name_), getattr(results[0].trial.rollouts[k], name_), rtol=0, atol=0
                )
            for term, sums in shot.reward_terms.items():
                np.testing.assert_allclose(result.reward_terms[k][term], sums, rtol=1e-4, atol=1e-4)
        belief = agent.adapt(shot.belief, shot.rollout, AgentGenerators(rngs, k + 1))
