"""What an oracle sees: the task's parameters, and nothing else that the family does not show."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.reveal import reveal
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.envs.sharded import ShardedEnv
from metarl.runs.trial import streams


@pytest.mark.parametrize("name", list(FAMILY_SETTINGS))
def test_observations_are_the_familys_and_the_parameters(name: str):
    family = make_family(FAMILY_SETTINGS[name](horizon=3))
    tasks = family.sample(2, np.random.default_rng(0))
    seen = []
    for own in (family, reveal(family)):
        env = ShardedEnv(own, 2, 2, threads=1)
        env.set_tasks(tasks)
        env.reset(streams(1, "test", 0, 2))
        seen.append(env.step(np.full((2, 2, family.action_size), 0.1)).observations)
    size = family.observation_size
    np.testing.assert_array_equal(seen[0], seen[1][..., :size])
    values = [[task.values[p.name] for p in family.parameters] for task in tasks]
    np.testing.assert_allclose(seen[1][:, 0, size:], values, rtol=1e-6)
    assert len(reveal(family).observation_names) == seen[1].shape[-1]


def test_of_a_task_that_changes_it_is_the_value_at_the_time():
    family = make_family(HalfCheetahMassSettings(horizon=6, changes=1, change_gap=(2, 3)))
    [task] = family.sample(1, np.random.default_rng(0))
    env = BatchedEnv(reveal(family), 1, 1, threads=1)
    env.set_tasks([task])
    seen = [env.reset(streams(1, "test", 0, 1))[0, 0, -1]]
    seen += [env.step(np.zeros((1, 1, family.action_size))).observations[0, 0, -1] for _ in range(6)]
    [change] = task.changes
    [name] = change.values
    expected = [task.values[name]] * (change.step + 1) + [change.values[name]] * (6 - change.step)
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
