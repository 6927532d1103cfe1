"""One suite over every family."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import Task, TaskFamily
from metarl.envs.registry import FAMILIES, make_family
from metarl.envs.settings import FAMILY_SETTINGS

FAMILY_NAMES = list(FAMILY_SETTINGS)
REFERENCES = {"half_cheetah_terrain": {"terrain_kind": 4.0, "terrain_difficulty": 0.5}}
"""Values beside which every parameter has an effect, where the neutral ones are not: flat ground has no difficulty."""
PUSHES = {"half_cheetah_terrain": 8.0}
"""m/s, velocity along x at which an episode starts, where the task's effect is some way off."""


def family_of(name: str) -> TaskFamily:
    return make_family(FAMILY_SETTINGS[name]())


def rollout(
    family: TaskFamily, tasks: list[Task], steps: int, seed: int = 0, threads: int = 1, push: float = 0.0
) -> tuple[np.ndarray, ...]:
    """Observations [steps + 1, M, obs] and rewards [steps, M] of the tasks under the same actions and starts."""
    env = BatchedEnv(family, len(tasks), 1, threads)
    env.set_tasks(tasks)
    observations, rewards = [env.reset([np.random.default_rng(seed) for _ in tasks])], []
    env.batch.qvel[:, 0] += push
    rng = np.random.default_rng(seed + 1)
    for _ in range(steps):
        action = rng.uniform(family.action_low, family.action_high)
        step = env.step(np.broadcast_to(action, (len(tasks), 1, family.action_size)))
        observations.append(step.observations)
        rewards.append(step.rewards)
    return np.stack(observations)[:, :, 0], np.stack(rewards)[:, :, 0]


def test_every_family_is_registered():
    assert set(FAMILIES) == set(FAMILY_SETTINGS.values())


@pytest.mark.parametrize("name", FAMILY_NAMES)
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
        env = BatchedEnv(family, 2, 2, 1)
        env.set_tasks(family.sample(2, np.random.default_rng(5)))
        action = np.full((2, 2, family.action_size), 0.05)
        episodes = []
        for _ in range(2):
            first = env.reset([np.random.default_rng(i) for i in range(2)])
            step = env.step(action)
            episodes.append((first, step.observations, step.rewards))
        for new, used in zip(*episodes, strict=True):
            np.testing.assert_array_equal(new, used)

    def test_finite_for_1000_random_steps(self, name: str):
        family = family_of(name)
        env = BatchedEnv(family, 4, 1, 1)
        rng = np.random.default_rng(0)
        rngs = [np.random.default_rng(i) for i in range(4)]
        env.set_tasks(family.sample(4, rng))
        env.reset(rngs)
        for _ in range(1000):
            step = env.step(rng.uniform(family.action_low, family.action_high, (4, 1, family.action_size)))
            assert np.isfinite(step.observations).all() and np.isfinite(step.rewards).all()
            if not env.active.all():
                env.reset(rngs, ~env.active)
        assert env.num_faults == 0

    def test_matches_its_declared_sizes(self, name: str):
        family = family_of(name)
        env = BatchedEnv(family, 2, 3, 1)
        env.set_tasks(family.sample(2, np.random.default_rng(0)))
        observation = env.reset([np.random.default_rng(i) for i in range(2)])
        assert observation.shape == (2, 3, family.observation_size) and observation.dtype == np.float32
        step = env.step(np.zeros((2, 3, family.action_size)))
        assert step.observations.shape == (2, 3, family.observation_size) and step.observations.dtype == np.float32
        assert step.rewards.shape == (2, 3) and step.rewards.dtype == np.float32
        for flags in (step.terminated, step.truncated, step.faulted):
            assert flags.shape == (2, 3) and flags.dtype == bool

    def test_no_observation_element_is_constant(self, name: str):
        observations, _ = rollout(family_of(name), [family_of(name).neutral()], 60)
        constant = [
            n
            for n, spread in zip(family_of(name).observation_names, np.ptp(observations[:, 0], axis=0), strict=True)
            if spread == 0
        ]
        # The cheetah moves in the x-z plane; RoML publishes the torso's y all the same.
        assert constant == (["torso_y [m]"] if name == "half_cheetah_mass" else [])

    def test_what_step_returns_is_not_shared_memory(self, name: str):
        family = family_of(name)
        env = BatchedEnv(family, 1, 2, 1)
        env.reset([np.random.default_rng(0)])
        first = env.step(np.full((1, 2, family.action_size), 0.05))
        kept = [np.copy(x) for x in first]
        env.step(np.full((1, 2, family.action_size), -0.03))
        for now, before in zip(first, kept, strict=True):
            np.testing.assert_array_equal(now, before)

    def test_every_parameter_has_an_effect_but_not_on_the_first_observation(self, name: str):
        family = family_of(name)
        reference = family.task(REFERENCES.get(name, {}))
        for parameter in family.parameters:
            for value in (parameter.distribution.low, parameter.distribution.high):
                if value == reference.values[parameter.name]:
                    continue
                other = family.task({**reference.values, parameter.name: value})
                observations, rewards = rollout(family, [reference, other], 30, push=PUSHES.get(name, 0.0))
                np.testing.assert_array_equal(observations[0, 0], observations[0, 1])
                edits = parameter.law.edit is not None or parameter.law.joint
                assert np.array_equal(observations[:, 0], observations[:, 1]) != edits
                assert not np.array_equal(rewards[:, 0], rewards[:, 1])

    def test_splits_are_disjoint_in_every_continuous_parameter(self, name: str):
        family = family_of(name)
        train = family.sample(20_000, np.random.default_rng(0), "train")
        held_out = family.sample(20_000, np.random.default_rng(0), "held_out")
        for parameter in family.parameters:
            seen = {t.values[parameter.name] for t in train}
            unseen = {t.values[parameter.name] for t in held_out}
            if parameter.continuous:
                assert not seen & unseen
                assert len(seen) > 19_990
            assert min(seen | unseen) >= parameter.distribution.low
            assert max(seen | unseen) <= parameter.distribution.high
        assert family.disjoint_splits == (name != "half_cheetah_direction")

    def test_both_splits_follow_the_distribution(self, name: str):
        family = family_of(name)
        for split in ("train", "held_out"):
            tasks = family.sample(4000, np.random.default_rng(1), split)
            for p in family.parameters:
                quarter = p.distribution.quantile(0.25)
                below = np.mean([t.values[p.name] <= quarter for t in tasks])
                expected = 0.25 if p.continuous else np.mean(np.array(p.distribution.values) <= quarter)
                assert abs(below - expected) < 0.04  # 5 standard errors

    def test_task_survives_json_bit_for_bit(self, name: str):
        family = family_of(name)
        for task in family.sample(50, np.random.default_rng(2)):
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
        family = family_of(name)
        tasks = family.sample(3, np.random.default_rng(4))
        env = BatchedEnv(family, 3, 2, threads)
        env.set_tasks(tasks)
        env.batch.bind("xpos")  # a derived field is current only if it was bound before the call
        env.reset([np.random.default_rng(i) for i in range(3)])
        models = [family.compile(task) for task in tasks for _ in range(2)]
        singles = [mujoco.MjData(model) for model in models]
        for i, (model, data) in enumerate(zip(models, singles, strict=True)):
            data.qpos, data.qvel = env.batch.qpos[i], env.batch.qvel[i]
            mujoco.mj_forward(model, data)
        rng = np.random.default_rng(9)
        for _ in range(25):
            action = rng.uniform(-1.5, 1.5, (3, 2, family.action_size)) * family.action_high
            env.step(action)
            for i, (model, data) in enumerate(zip(models, singles, strict=True)):
                applied = np.clip(action.reshape(6, -1)[i], family.action_low, family.action_high)
                if name == "point_goal":
                    data.qvel[:] = applied / model.opt.timestep
                else:
                    data.ctrl[:] = applied
                mujoco.mj_step(model, data, family.frame_skip)
                np.testing.assert_array_equal(env.batch.qpos[i], data.qpos)
                np.testing.assert_array_equal(env.batch.qvel[i], data.qvel)
                np.testing.assert_array_equal(env.batch.xpos[i], data.xpos)

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

    def test_settings_out_of_range_are_refused_by_name(self, name: str):
        with pytest.raises(ValueError, match="horizon must be at least 1 step, got 0"):
            make_family(FAMILY_SETTINGS[name](horizon=0))

    def test_unknown_parameter_names_the_nearest(self, name: str):
        family = family_of(name)
        wrong = family.parameters[0].name + "s"
        with pytest.raises(ValueError, match=f"did you mean '{family.parameters[0].name}'"):
            family.task({wrong: 1.0})
        with pytest.raises(ValueError, match="must be finite" if name != "half_cheetah_mass" else "greater than 0"):
            family.task({family.parameters[0].name: float("nan")})
