"""Point goal against its closed form."""

from __future__ import annotations

import numpy as np

from metarl.envs.batch import BatchedEnv
from metarl.envs.registry import make_family
from metarl.envs.robots.point_goal_settings import PointGoalSettings


def test_position_is_the_sum_of_clipped_actions_and_reward_the_distance():
    family = make_family(PointGoalSettings())
    env = BatchedEnv(family, 2, 3, 1)
    goals = np.array([[0.4, -0.3], [-0.1, 0.2]])
    env.set_tasks([family.task({"goal_x": x, "goal_y": y}) for x, y in goals])
    assert not env.reset([np.random.default_rng(i) for i in range(2)]).any()
    rng, position = np.random.default_rng(0), np.zeros((2, 3, 2))
    for _ in range(20):
        action = rng.normal(0, 0.1, (2, 3, 2))
        step = env.step(action)
        position += np.clip(action, -0.1, 0.1)
        np.testing.assert_allclose(step.observations, position, atol=1e-6)
        np.testing.assert_allclose(step.rewards, -np.linalg.norm(position - goals[:, None], axis=-1), atol=1e-6)


def test_terminates_within_a_centimetre_on_both_axes_and_waits():
    family = make_family(PointGoalSettings())
    env = BatchedEnv(family, 1, 2, 1)
    env.set_tasks([family.task({"goal_x": 0.2, "goal_y": 0.05})])
    env.reset([np.random.default_rng(0)])
    env.step(np.array([[[0.1, 0.05], [0.1, 0.0]]]))
    step = env.step(np.array([[[0.095, 0.0], [0.095, 0.0]]]))
    assert step.terminated.tolist() == [[True, False]]  # the second is 5 cm off on y
    assert env.active.tolist() == [[False, True]]
    after = env.step(np.array([[[0.1, 0.1], [0.1, 0.1]]]))
    np.testing.assert_array_equal(after.observations[0, 0], step.observations[0, 0])
    assert after.rewards[0, 0] == 0 and after.rewards[0, 1] < 0
