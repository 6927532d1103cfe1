"""One suite over every family."""

from __future__ import annotations

import dataclasses
import re

import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.family_settings import SurvivalSettings
from metarl.envs.parameters import Choice
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.sharded import ShardedEnv
from metarl.envs.state import State
from metarl.envs.task import Task
from metarl.envs.terms import Measure, RewardTerm
from tests.sampling import sampled

FAMILY_NAMES = [name for name in FAMILY_SETTINGS if name != "env"]  # which has no MuJoCo model: see test_foreign
PUBLISHED_CONSTANTS = {
    "half_cheetah_mass": r"^torso_y \[m\]$",  # the cheetah moves in the x-z plane; RoML publishes it all the same
    "ant_goal": "^(world|torso|stub_.|upper_leg_.)_contact",  # of bodies that touch nothing here
    "ant_legs": r"(hip|ankle)_[56]|_is_there",  # of the neutral ant's four legs
    "quadruped": "^command_",  # lasts an episode
    "quadruped_terrain": "^command_",
    "quadruped_body": "^command_",
    "quadruped_legs": "^(command_|M[RL]_)|_is_there",
    "humanoid_direction": r"_mass \[kg\]$|_contact_",
}
"""What Gymnasium or a paper observes though it is constant, or is in a short rollout, as a pattern of names."""


SHOWN_WITHOUT_UNIT = {"robot": ("up", "last_action")}
"""Terms of pure numbers whose names bear no unit."""
ROUGH = {"terrain_kind": 4.0, "terrain_difficulty": 0.5}
"""Values beside which every parameter has an effect, where the neutral ones are not: flat ground has no difficulty."""
PUSHES = {"half_cheetah_terrain": 8.0, "walker2d_terrain": 8.0, "ant_terrain": 8.0, "quadruped_terrain": 4.0}
"""m/s, velocity along x at which an episode starts, where the task's effect is some way off."""


def family_of(name: str) -> TaskFamily:
    return make_family(FAMILY_SETTINGS[name]())


def alike(family: TaskFamily, count: int) -> list[Task]:
    """Tasks whose models have the neutral layout."""
    layout = family.layout_of(family.neutral())
    return [family.task({**task.values, **layout}) for task in family.sample(count, np.random.default_rng(0))]


def rollout(
    family: TaskFamily, tasks: list[Task], steps: int, seed: int = 0, threads: int = 1, push: float = 0.0
) -> tuple[np.ndarray, ...]:
    """Observations [steps + 1, M, obs] and rewards [steps, M] of the tasks under the same actions and starts."""
    env = ShardedEnv(family, len(tasks), 1, threads, at_once=1)
    env.set_tasks(tasks)
    observations, rewards = [env.reset([np.random.default_rng(seed) for _ in tasks])], []
    for shard in env.shards:
        shard.simulation.batch.qvel[:, 0] += push
    rng = np.random.default_rng(seed + 1)
    for _ in range(steps):
        action = rng.uniform(family.action_low, family.action_high)
        step = env.step(np.broadcast_to(action, (len(tasks), 1, family.action_size)))
        observations.append(step.observations)
        rewards.append(step.rewards)
    return np.stack(observations)[:, :, 0], np.stack(rewards)[:, :, 0]


@pytest.mark.parametrize("name", sampled(FAMILY_NAMES, 3))
class TestEveryFamily:
    def test_name_is_its_key(self, name: str):
        assert family_of(name).name == name

    def test_deterministic_by_seed(self, name: str):
        family = family_of(name)
        tasks = family.sample(3, np.random.default_rng(5))
        assert tasks == family.sample(3, np.random.default_rng(5))
        for a, b in zip(rollout(family, tasks, 20), rollout(family, tasks, 20), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_a_new_env_observes_what_one_in_use_does(self, name: str):
        family = family_of(name)
        env = ShardedEnv(family, 2, 2, 1)
        env.set_tasks(family.sample(2, np.random.default_rng(5)))
        action = np.full((2, 2, family.action_size), 0.05)
        episodes = []
        for _ in range(2):
            first = env.reset([np.random.default_rng(i) for i in range(2)])
            step = env.step(action)
            episodes.append((first, step.observations, step.rewards))
        for new, used in zip(*episodes, strict=True):
            np.testing.assert_array_equal(new, used)

    def test_finite_for_1000_random_steps_on_every_split(self, name: str):
        family = family_of(name)
        rng = np.random.default_rng(0)
        tasks = [task for split in family.splits for task in family.sample(1, rng, split)]
        env = ShardedEnv(family, len(tasks), 1, 1)
        env.set_tasks(tasks)
        rngs = [np.random.default_rng(i) for i in range(len(tasks))]
        env.reset(rngs)
        for _ in range(1000):
            step = env.step(rng.uniform(family.action_low, family.action_high, (len(tasks), 1, family.action_size)))
            assert np.isfinite(step.observations).all() and np.isfinite(step.rewards).all()
            if not env.active.all():
                env.reset(rngs, ~env.active)
        assert env.num_faults == 0

    def test_matches_its_declared_sizes(self, name: str):
        family = family_of(name)
        env = ShardedEnv(family, 2, 3, 1)
        env.set_tasks(family.sample(2, np.random.default_rng(0)))
        observation = env.reset([np.random.default_rng(i) for i in range(2)])
        assert observation.shape == (2, 3, family.observation_size) and observation.dtype == np.float32
        step = env.step(np.zeros((2, 3, family.action_size)))
        assert step.observations.shape == (2, 3, family.observation_size) and step.observations.dtype == np.float32
        assert step.rewards.shape == (2, 3) and step.rewards.dtype == np.float32
        for flags in (step.terminated, step.truncated, step.faulted):
            assert flags.shape == (2, 3) and flags.dtype == bool

    def test_observation_is_its_terms_one_after_another(self, name: str):
        family = family_of(name)
        assert family.observation_size == sum(len(term.elements) for term in family.observation.values())
        assert len(set(family.observation_names)) == family.observation_size
        assert all(element.name == element.name.strip() != "" for element in family.elements)
        for part, term in family.observation.items():
            assert part in SHOWN_WITHOUT_UNIT.get(name, ()) or all(element.unit for element in term.elements)
        env = BatchedEnv(family, 2, 3, 1)
        env.set_tasks(alike(family, 2))
        env.reset([np.random.default_rng(i) for i in range(2)])
        env.step(np.full((2, 3, family.action_size), 0.05))
        seen = family.seen(env._state)
        whole, start = dataclasses.replace(family, noise_factor=0.0).observe(seen), 0
        for term in family.observation.values():
            values, end = np.asarray(term.function(seen)), start + len(term.elements)
            assert values.shape == (6, len(term.elements))
            np.testing.assert_array_equal(values, whole[:, start:end])
            start = end

    def test_noise_is_on_the_terms_that_declare_it(self, name: str):
        settings = FAMILY_SETTINGS[name]
        noisy = {"sensor_noise": (0.5, 1.5)} if hasattr(settings, "sensor_noise") else {}
        family = make_family(settings(**noisy))
        env = BatchedEnv(family, 2, 500, 1)
        env.set_tasks(alike(family, 2))
        env.reset([np.random.default_rng(i) for i in range(2)])
        seen = family.seen(env._state)
        added = family.observe(seen) - dataclasses.replace(family, noise_factor=0.0).observe(seen)
        assert bool(family.noise_factor) == any(term.noise for term in family.observation.values())
        if not family.noise_factor:
            assert not added.any()
            return
        declared = np.concatenate([np.full(len(term.elements), term.noise) for term in family.observation.values()])
        factors = np.array([task.values[family.noise_factor] for task in env.tasks])
        spread = added.reshape(2, 500, -1).std(axis=1)
        np.testing.assert_allclose(spread, factors[:, None] * declared, rtol=0.15)  # nearly 5 standard errors

    def test_no_observation_element_is_constant(self, name: str):
        family = dataclasses.replace(family_of(name), terminate=None)
        observations, _ = rollout(family, [family.neutral()], 100)
        spread = np.ptp(observations[:, 0], axis=0)
        constant = [n for n, s in zip(family.observation_names, spread, strict=True) if s == 0]
        assert all(re.search(PUBLISHED_CONSTANTS.get(name, "$^"), n) for n in constant), constant

    def test_what_step_returns_is_not_shared_memory(self, name: str):
        family = family_of(name)
        env = BatchedEnv(family, 1, 2, 1)
        env.reset([np.random.default_rng(0)])
        first = env.step(np.full((1, 2, family.action_size), 0.05))
        kept = [np.copy(x) for x in first]
        env.step(np.full((1, 2, family.action_size), -0.03))
        for now, before in zip(first, kept, strict=True):
            np.testing.assert_array_equal(now, before)

    def test_every_parameter_has_the_effect_that_it_claims(self, name: str):
        family = dataclasses.replace(family_of(name), terminate=None)  # some show in a fall only: a torso's friction
        changed, plain = [], family.neutral()
        if name.startswith("quadruped"):  # a payload's place matters where there is a payload
            plain = family.sample(1, np.random.default_rng(6))[0]
        if name.endswith("_terrain"):
            plain = family.task({**plain.values, **ROUGH})
        for p in family.parameters:
            chosen = p.distribution
            values = chosen.values if isinstance(chosen, Choice) else (chosen.quantile(0.05), chosen.quantile(0.95))
            changed += [(p, family.task({**plain.values, p.name: v})) for v in values if v != plain.values[p.name]]
        tasks = [plain, *(task for _, task in changed)]
        observations, rewards = rollout(family, tasks, 150, push=PUSHES.get(name, 0.0))
        shown = {p.name: [False, False] for p in family.parameters}
        for i, (p, _) in enumerate(changed, start=1):
            # the robot's size shows in the height at which it starts, and which parts it has are observed
            if family.settle is None and changed[i - 1][0].name not in family.layout:
                np.testing.assert_array_equal(observations[0, 0], observations[0, i])
            shown[p.name][0] |= not np.array_equal(observations[:, 0], observations[:, i])
            shown[p.name][1] |= not np.array_equal(rewards[:, 0], rewards[:, i])
        moves = {p.name: p.law.edit is not None or p.law.joint or p.name in family.layout for p in family.parameters}
        assert shown == {name: [moved, True] for name, moved in moves.items()}

    def test_splits_are_disjoint_in_every_parameter_that_says_so(self, name: str):
        family = family_of(name)
        count = max(2000, 20_000 // len(family.parameters))
        train = family.sample(count, np.random.default_rng(0), "train")
        held_out = family.sample(count, np.random.default_rng(0), "held_out")
        for p in family.parameters:
            seen, unseen = ({t.values[p.name] for t in tasks} for tasks in (train, held_out))
            assert p.disjoint == (not seen & unseen)
            if p.continuous:
                assert len(seen) > count - 10
            for values, split in ((seen, "train"), (unseen, "held_out")):
                assert min(values) >= p.of_split(split).low and max(values) <= p.of_split(split).high
        assert family.disjoint_splits == (name not in ("half_cheetah_direction", "ant_direction"))

    def test_ood_tasks_lie_outside_of_training(self, name: str):
        family = family_of(name)
        if "ood" not in family.splits:
            assert all(p.ood is None for p in family.parameters)
            with pytest.raises(ValueError, match=f"family '{name}' has no split 'ood'.*choose train or held_out"):
                family.sample(1, np.random.default_rng(0), "ood")
            return
        tasks = family.sample(4000, np.random.default_rng(0), "ood")
        assert tasks == family.sample(4000, np.random.default_rng(0), "ood")
        if family.named:
            assert [family.name_of(task.values) for task in tasks[: len(family.named)]] == list(family.named)
            return
        for p in family.parameters:
            values = np.array([task.values[p.name] for task in tasks])
            if p.ood is None:
                assert (values >= p.distribution.low).all() and (values < p.distribution.high).all()
                continue
            assert ((values < p.distribution.low) | (values >= p.distribution.high)).all()
            if isinstance(p.ood, Choice):
                assert set(values) == set(p.ood.values)
                continue
            assert values.min() >= p.ood.low and values.max() < p.ood.high
            spread = (p.ood.quantile(0.1), p.ood.quantile(0.9))
            assert values.min() < spread[0] and values.max() > spread[1]  # both sides, where there are two

    def test_both_splits_follow_the_distribution(self, name: str):
        family = family_of(name)
        for split in ("train", "held_out"):
            tasks = family.sample(4000, np.random.default_rng(1), split)
            for p in family.parameters:
                distribution = p.of_split(split)
                below = np.mean([t.values[p.name] <= distribution.quantile(0.25) for t in tasks])
                choices = distribution.values if isinstance(distribution, Choice) else ()
                expected = np.mean(np.array(choices) <= distribution.quantile(0.25)) if choices else 0.25
                assert abs(below - expected) < 0.04  # 5 standard errors

    def test_task_survives_json_bit_for_bit(self, name: str):
        family = family_of(name)
        for split in family.splits:
            for task in family.sample(20, np.random.default_rng(2), split):
                again = Task.from_json(task.to_json())
                assert again == task and again.id == task.id

    def test_same_task_id_gives_the_same_model_after_save_and_load(self, name: str, tmp_path):
        family = family_of(name)
        task = family.sample(1, np.random.default_rng(3))[0]
        (tmp_path / "task.json").write_text(task.to_json())
        again = Task.from_json((tmp_path / "task.json").read_text())
        paths = [tmp_path / "a.mjb", tmp_path / "b.mjb"]
        for model, path in zip((family.compile(task), family_of(name).compile(again)), paths, strict=True):
            mujoco.mj_saveModel(model, str(path))
        assert paths[0].read_bytes() == paths[1].read_bytes()

    @pytest.mark.parametrize("threads", [1, 2])
    def test_batch_equals_one_model_and_mj_step_a_task(self, name: str, threads: int):
        family = dataclasses.replace(family_of(name), terminate=None)
        tasks = family.sample(3, np.random.default_rng(4))
        env = ShardedEnv(family, 3, 2, threads, at_once=1)
        env.set_tasks(tasks)
        for shard in env.shards:
            shard.simulation.batch.bind("xpos")  # a derived field is current only if it was bound before the call
        env.reset([np.random.default_rng(i) for i in range(3)])
        sims = [(shard.simulation.batch, sim) for shard in env.shards for sim in range(shard.simulation.batch.nsim)]
        singles = []
        for (batch, sim), task in zip(
            sims, [env.tasks[m] for m in np.concatenate(env.indices) for _ in range(2)], strict=True
        ):
            model = family.compile(task)
            data = mujoco.MjData(model)
            data.qpos, data.qvel = batch.qpos[sim], batch.qvel[sim]
            mujoco.mj_forward(model, data)
            singles.append((model, data))
        rng = np.random.default_rng(9)
        for _ in range(25):
            action = rng.uniform(-1.5, 1.5, (3, 2, family.action_size)) * family.action_high
            env.step(action)
            applied = np.clip(family.action_scale * action, family.action_low, family.action_high)
            applied = applied[np.concatenate(env.indices)].reshape(6, -1)
            for (batch, sim), (model, data), own in zip(sims, singles, applied, strict=True):
                if name == "point_goal":
                    data.qvel[:] = own / model.opt.timestep
                else:
                    data.ctrl[:] = own[: model.nu]
                mujoco.mj_step(model, data, family.frame_skip)
                np.testing.assert_array_equal(batch.qpos[sim], data.qpos)
                np.testing.assert_array_equal(batch.qvel[sim], data.qvel)
                np.testing.assert_array_equal(batch.xpos[sim], data.xpos)

    def test_truncates_at_the_horizon_and_holds_the_last_observation(self, name: str):
        family = make_family(FAMILY_SETTINGS[name](horizon=5))
        env = BatchedEnv(family, 2, 1, 1)
        env.reset([np.random.default_rng(i) for i in range(2)])
        action = np.full((2, 1, family.action_size), 0.02)
        steps = [env.step(action) for _ in range(7)]
        if name == "point_goal":  # the neutral goal is the start: the episode terminates
            assert steps[4].terminated.any() or steps[4].truncated.all()
        else:
            assert [bool(s.truncated.all()) for s in steps] == [False] * 4 + [True] + [False] * 2
        np.testing.assert_array_equal(steps[4].observations, steps[6].observations)
        assert not steps[5].rewards.any() and not env.active.any()

    def test_unknown_parameter_names_the_nearest(self, name: str):
        family = family_of(name)
        wrong = family.parameters[0].name + "s"
        with pytest.raises(ValueError, match=f"did you mean '{family.parameters[0].name}'"):
            family.task({wrong: 1.0})
        with pytest.raises(ValueError, match="greater than 0" if family.parameters[0].above == 0 else "must be finite"):
            family.task({family.parameters[0].name: float("nan")})


SURVIVORS = [name for name, made in FAMILY_SETTINGS.items() if issubclass(made, SurvivalSettings)]


@pytest.mark.parametrize("name", SURVIVORS)
def test_a_fall_costs_what_its_setting_says_once(name: str):
    without = family_of(name)
    dear = make_family(FAMILY_SETTINGS[name](fall_cost=7.0))  # pyright: ignore[reportCallIssue]
    tasks = alike(without, 4)
    rewards, fallen = [], []
    for family in (without, dear):
        env = BatchedEnv(family, len(tasks), 3)
        env.set_tasks(tasks)
        env.reset([np.random.default_rng(i) for i in range(len(tasks))])
        env.simulation.batch.qvel[:, 2] += 8.0  # thrown into the air, or over
        steps = [env.step(np.ones((len(tasks), 3, family.action_size))) for _ in range(200)]
        rewards.append(np.sum([step.rewards for step in steps], axis=0))
        fallen.append(np.any([step.terminated for step in steps], axis=0))
    assert fallen[0].any()
    np.testing.assert_array_equal(*fallen)
    np.testing.assert_allclose(rewards[0] - rewards[1], np.where(fallen[0], 7.0, 0.0), atol=1e-3)


def test_noise_needs_a_parameter_and_keys():
    family = family_of("quadruped")
    with pytest.raises(ValueError, match="has no parameter 'noise'"):
        dataclasses.replace(family, noise_factor="noise")
    with pytest.raises(ValueError, match="observations with noise need noisy=True"):
        dataclasses.replace(family, noise_factor="friction", noisy=False)


def test_a_view_is_what_terms_measures_and_ends_are_functions_of():
    def raised(state: State) -> State:
        return State(lambda name: state.qpos + 10 if name == "qpos" else getattr(state, name))

    plain = dataclasses.replace(
        family_of("half_cheetah_direction"),
        rewards={"height": RewardTerm(lambda state: state.qpos[:, 1])},
        measures={"height": Measure(lambda state: state.qpos[:, 1], "m", "last")},
        success=(),
        terminate=lambda state: state.qpos[:, 1] > 5,
    )
    results = []
    for family in (plain, dataclasses.replace(plain, view=raised)):
        env = BatchedEnv(family, 1, 2, 1, measuring=True)
        start = env.reset([np.random.default_rng(0)])
        results.append((start, env.step(np.zeros((1, 2, 6))), env.measures["height"], env.poses.copy()))
    (start, step, measured, poses), (start_raised, step_raised, measured_raised, poses_raised) = results
    np.testing.assert_array_equal(poses, poses_raised)
    np.testing.assert_allclose(start_raised[..., :8], start[..., :8] + 10, atol=1e-5)
    np.testing.assert_allclose(step_raised.rewards, step.rewards + 10, atol=1e-5)
    np.testing.assert_allclose(measured_raised, measured + 10)
    assert step_raised.terminated.all() and not step.terminated.any()
