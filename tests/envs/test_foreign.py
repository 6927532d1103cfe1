"""Environments of other authors as task families: their physics, tasks and faults, in any number of processes."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv, SimulationFault
from metarl.envs.foreign.family import GymFamily
from metarl.envs.foreign.settings import EnvSettings
from metarl.envs.foreign.simulation import LOADED
from metarl.envs.foreign.tasks import GymTasks, Info, category, quantity
from metarl.envs.registry import make_family
from metarl.envs.reveal import reveal
from metarl.envs.sharded import ShardedEnv

HEAD = "import gymnasium\nimport numpy as np\nimport metarl\nfrom gymnasium.spaces import Box, Dict, Discrete\n"
CHEETAH = """
class Velocity(gymnasium.Wrapper):
    def set_task(self, task):
        self.target = task["target_velocity"]
    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, -abs(info["x_velocity"] - self.target), terminated, truncated, info
def tasks():
    return metarl.GymTasks(
        make=lambda: Velocity(gymnasium.make("HalfCheetah-v5")),
        parameters=(metarl.quantity("target_velocity", 0, 3, "m/s"),),
        horizon=30,
        measures={"speed": metarl.Info("x_velocity", "m/s", "mean")},
    )
"""
COUNTER = """
class Counter(gymnasium.Env):
    '''Counts its steps from the task's start, given by options; what goes wrong is part of the task.'''
    observation_space, action_space = Box(-np.inf, np.inf, (2,)), Box(-2.0, 2.0, (1,))
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.task, self.count = options, options["start"]
        return np.array([self.count, self.np_random.uniform()], dtype=np.float32), {}
    def step(self, action):
        self.count += 1
        wrong = self.task["wrong"]
        if wrong == "raises" and self.count > self.task["start"] + 2:
            raise OSError("the arm is not connected")
        seen = np.nan if wrong == "nan" and self.count > self.task["start"] + 2 else self.count
        info = {"half": self.count / 2, "reached": self.count >= 5}
        return np.array([seen, 0], dtype=np.float32), float(action[0]), wrong == "ends" and self.count >= 3, False, info
def tasks():
    return metarl.GymTasks(
        make=Counter,
        parameters=(
            metarl.quantity("start", 0, 3, ood=(10, 12)),
            metarl.category("wrong", ["nothing", "raises", "nan", "ends"]),
        ),
        horizon=6, dt=0.1, success=metarl.Info("reached"), measures={"half": metarl.Info("half", "m", "max")},
    )
"""
KINDS = """
class Sized(gymnasium.Env):
    def __init__(self, size, actions):
        self.observation_space = Dict({"joint": Box(-1, 1, (size,)), "hidden": Box(-1, 1, (1,))})
        self.action_space = Box(-np.ones(actions), np.ones(actions), dtype=np.float32)
    def set_task(self, task):
        self.value = task[1]
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.seen(), {}
    def seen(self):
        return {"joint": np.full(self.observation_space["joint"].shape, self.value), "hidden": np.zeros(1)}
    def step(self, action):
        assert action.shape == self.action_space.shape
        return self.seen(), 1.0, False, False, {}
SIZES = {"small": (2, 1), "large": (3, 2), "new": (1, 1)}
def tasks():
    return metarl.GymTasks(
        make=lambda kind: Sized(*SIZES[kind]),
        kind=lambda task: task[0],
        tasks={"train": [("small", 0.1), ("large", 0.2), ("small", 0.3)], "held_out": [("new", 0.4)]},
        observe=("joint",), horizon=3, dt=0.05,
    )
"""


def written(folder: Path, text: str, name: str = "own.py") -> str:
    (folder / name).write_text(HEAD + textwrap.dedent(text))
    return f"{folder / name}:tasks"


def family_of(folder: Path, text: str, **settings) -> GymFamily:
    family = make_family(EnvSettings(written(folder, text), processes=1, **settings))
    assert isinstance(family, GymFamily)
    return family


def rngs(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(m) for m in range(count)]


def played(family, tasks, envs: int = 1, steps: int | None = None):
    """Return observations and rewards [T, M, N, ...] of the same actions, the flags of the last step, and the env."""
    env = ShardedEnv(family, len(tasks), envs, measuring=True)
    env.set_tasks(tasks)
    observations, rewards, step = [env.reset(rngs(len(tasks)))], [], None
    actions = np.random.default_rng(9).uniform(-1, 1, (family.horizon, len(tasks), envs, family.action_size))
    for action in actions[: steps or family.horizon]:
        step = env.step(action)
        observations.append(step.observations)
        rewards.append(step.rewards)
    return np.array(observations), np.array(rewards), step, env


def test_physics_is_the_environments_own(tmp_path):
    family = family_of(tmp_path, CHEETAH)
    assert (family.dt, family.horizon, family.observation_size, family.action_size) == (0.05, 30, 17, 6)
    task = family.task({"target_velocity": 2.0})
    observations, rewards, step, env = played(family, [task])
    plain = gymnasium.make("HalfCheetah-v5")
    seed = np.random.default_rng(0).integers(2**31, size=1)[0]
    expected, _ = plain.reset(seed=int(seed))
    np.testing.assert_array_equal(observations[0, 0, 0], expected.astype(np.float32))
    actions = np.random.default_rng(9).uniform(-1, 1, (30, 1, 1, 6))
    speeds = []
    for t in range(30):
        expected, _, _, _, info = plain.step(actions[t, 0, 0].astype(np.float32))
        speeds.append(info["x_velocity"])
        np.testing.assert_array_equal(observations[t + 1, 0, 0], expected.astype(np.float32))
        assert rewards[t, 0, 0] == np.float32(-abs(info["x_velocity"] - 2.0))
    assert step.truncated.all() and not step.terminated.any()
    assert env.shards[0].measures["speed"][0, 0] == pytest.approx(np.mean(speeds))
    assert env.term_sums["reward"][0, 0] == pytest.approx(rewards.sum(), rel=1e-6)


@pytest.mark.parametrize("processes", [2, -1])
def test_processes_change_nothing(tmp_path, processes):
    family = family_of(tmp_path, COUNTER)
    apart = make_family(dataclasses.replace(family.settings, processes=processes))
    tasks = family.sample(3, np.random.default_rng(1))
    here, there = played(family, tasks, 2), played(apart, tasks, 2)
    for ours, theirs in zip(here[:2], there[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert here[3].num_faults == there[3].num_faults


def test_what_the_server_of_processes_loads_is_there():
    """A module that is not would be passed over in silence, and each process would load everything for itself."""
    loading = (
        "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", loading, *LOADED]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_process_that_ends_is_an_error_with_what_to_do(tmp_path):
    dying = COUNTER.replace('raise OSError("the arm is not connected")', "__import__('os')._exit(1)")
    family = make_family(EnvSettings(written(tmp_path, dying), processes=2))
    env = BatchedEnv(family, 2, 1)
    env.set_tasks([family.task({"start": 1.0, "wrong": wrong}) for wrong in (0.0, 1.0)])
    env.reset(rngs(2))
    actions = np.zeros((2, 1, 1))
    env.step(actions)
    env.step(actions)
    with pytest.raises(SimulationFault, match="own.py:tasks: a process of it ended without a word.*family.processes=1"):
        env.step(actions)


@pytest.mark.thorough
def test_a_script_that_does_not_guard_itself_is_told_to(tmp_path):
    source = written(tmp_path, COUNTER)
    (tmp_path / "script.py").write_text(
        "from metarl.envs.batch import BatchedEnv\n"
        "from metarl.envs.foreign.settings import EnvSettings\n"
        "from metarl.envs.registry import make_family\n"
        f"BatchedEnv(make_family(EnvSettings({source!r}, processes=2)), 2, 1)\n"
    )
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True)
    assert "EnvFailed" in done.stderr and "outside of `if __name__ == '__main__':`" in done.stderr


SHORT = """
import gymnasium
import numpy as np
import metarl

class Short(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-9, 9, (3,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, dtype=np.float32), {}

    def step(self, action):
        return np.ones(1, dtype=np.float32), 0.0, False, False, {}

def tasks():
    load = metarl.quantity("load", 0, 1)
    return metarl.GymTasks(Short, (load,), apply=lambda env, task: None, horizon=5, dt=0.1)
"""


def test_an_observation_of_one_number_does_not_fill_a_longer_one(tmp_path, capsys):
    env = BatchedEnv(family_of(tmp_path, SHORT), 1, 1)
    env.reset(rngs(1))
    step = env.step(np.zeros((1, 1, 1)))
    assert step.faulted.all() and step.observations.tolist() == [[[0.0, 0.0, 0.0]]]
    assert "an observation has 1 numbers, and the space of observations 3" in capsys.readouterr().out


def test_what_fails_is_a_fault_and_the_next_episode_is_sound(tmp_path, capsys):
    family = family_of(tmp_path, COUNTER)
    wrongs = ["nothing", "raises", "nan", "ends"]
    tasks = [family.task({"start": 1.0, "wrong": float(i)}) for i in range(4)]
    env = ShardedEnv(family, 4, 1, measuring=True)
    env.set_tasks(tasks)
    for _ in range(2):
        env.reset(rngs(4))
        flags, step = [], None
        for _ in range(6):
            step = env.step(np.full((4, 1, 1), 5.0))
            flags.append([step.faulted[:, 0], step.terminated[:, 0], step.truncated[:, 0]])
        faulted, terminated, truncated = (np.any([step_flags[k] for step_flags in flags], axis=0) for k in range(3))
        assert dict(zip(wrongs, faulted, strict=True)) == {"nothing": 0, "raises": 1, "nan": 1, "ends": 0}
        assert dict(zip(wrongs, terminated, strict=True)) == {"nothing": 0, "raises": 0, "nan": 0, "ends": 1}
        assert truncated.tolist() == [True, False, False, False]
        assert step.observations[1, 0, 0] == 3.0  # held at the last sound step
        totals = env.term_sums["reward"][:, 0]
        assert totals[0] == 6 * 2.0  # the action was clipped to its bounds
        assert totals[3] == 2 * 2.0
        measured = env.shards[0].measures
        assert measured["half"][0, 0] == 3.5 and measured["success"][0, 0] == 1.0 and measured["success"][3, 0] == 0.0
    assert env.num_faults == 4
    said = capsys.readouterr().out
    assert said.count("OSError: the arm is not connected") == 1 and "observation[0] is nan" in said


def test_tasks_are_given_by_options_and_drawn_by_split(tmp_path):
    family = family_of(tmp_path, COUNTER)
    assert family.splits == ("train", "held_out", "ood")
    [task] = family.sample(1, np.random.default_rng(0), "ood")
    assert 10 <= task.values["start"] <= 12
    observations, _, _, _ = played(family, [task], steps=1)
    assert observations[0, 0, 0, 0] == np.float32(task.values["start"])


def test_other_sizes_are_padded_and_the_mask_says_where(tmp_path):
    family = family_of(tmp_path, KINDS)
    assert family.observation_names[:3] == ("joint[0]", "joint[1]", "joint[2]") and family.observation_size == 3 + 3 + 2
    assert family.action_size == 2
    tasks = [family.task({"task": float(i)}) for i in range(4)]
    assert [task.values["kind"] for task in tasks] == [0.0, 1.0, 0.0, 2.0]
    for split, places in (("train", {0.0, 1.0, 2.0}), ("held_out", {3.0})):
        drawn = family.sample(40, np.random.default_rng(0), split)
        assert {task.values["task"] for task in drawn} == places
        assert all(task.values["kind"] == tasks[int(task.values["task"])].values["kind"] for task in drawn)
    observations, _, step, _ = played(family, tasks)
    np.testing.assert_allclose(
        observations[-1, :, 0],
        [
            [0.1, 0.1, 0, 1, 1, 0, 1, 0],
            [0.2, 0.2, 0.2, 1, 1, 1, 1, 1],
            [0.3, 0.3, 0, 1, 1, 0, 1, 0],
            [0.4, 0, 0, 1, 0, 0, 1, 0],
        ],
    )
    assert step.truncated.all()


def test_an_environment_that_follows_a_larger_one_shows_nothing_of_it(tmp_path):
    family = family_of(tmp_path, KINDS)
    env = ShardedEnv(family, 1, 1)
    for number, expected in ((1, [0.2] * 3 + [1] * 5), (0, [0.1, 0.1, 0, 1, 1, 0, 1, 0])):
        env.set_tasks([family.task({"task": float(number)})])
        [shard] = env.shards
        started = shard.reset(rngs(1))
        np.testing.assert_allclose(started[0, 0], expected)
        np.testing.assert_allclose(shard.step(np.zeros((1, 1, 2))).observations[0, 0], expected)


def test_an_oracle_is_told_the_quantities_and_no_number_of_a_task(tmp_path):
    told = reveal(family_of(tmp_path, COUNTER))
    assert told.observation_names[2:] == (
        "task_start [1]",
        *(f"task_wrong={n} [1]" for n in ("nothing", "raises", "nan", "ends")),
    )
    task = told.task({"start": 3.0, "wrong": 1.0})
    observations, _, _, _ = played(told, [task], steps=1)
    np.testing.assert_array_equal(observations[0, 0, 0, 2:], [1.0, 0, 1, 0, 0])
    assert reveal(family_of(tmp_path, KINDS)).observation_size == 8 + 3  # the kind, and not the task's number


def test_a_function_may_return_a_family_of_metarl(tmp_path):
    source = written(
        tmp_path,
        """
        from metarl.envs.registry import make_family
        from metarl.envs.robots.point_goal_settings import PointGoalSettings
        def tasks():
            return make_family(PointGoalSettings())
        """,
    )
    family = make_family(EnvSettings(source, horizon=7))
    assert family.horizon == 7 and not isinstance(family, GymFamily) and family.name == "env"
    env = BatchedEnv(family, 1, 1)
    env.reset(rngs(1))
    assert env.step(np.zeros((1, 1, family.action_size))).rewards.shape == (1, 1)


def test_the_example_swings_a_pendulum_of_the_tasks_mass():
    family = make_family(EnvSettings(processes=1))
    task = family.task({"mass": 2.0, "length": 0.7})
    observations, _, _, _ = played(family, [task], steps=1)
    cos, sin, speed = observations[0, 0, 0].astype(np.float64)
    action = np.random.default_rng(9).uniform(-1, 1, (family.horizon, 1, 1, 1))[0, 0, 0, 0]
    torque = np.clip(action * family.action_scale, -2, 2)
    expected = speed + (3 * 10.0 / (2 * 0.7) * sin + 3.0 / (2.0 * 0.7**2) * torque) * 0.05
    assert observations[1, 0, 0, 2] == pytest.approx(np.clip(expected, -8, 8), abs=1e-5)
    assert cos**2 + sin**2 == pytest.approx(1)


def test_the_largest_of_negative_values_is_negative(tmp_path):
    family = family_of(tmp_path, COUNTER.replace('"half": self.count / 2', '"half": -self.count / 2'))
    env = BatchedEnv(family, 1, 1, measuring=True)
    env.set_tasks([family.task({"start": 2.0, "wrong": 0.0})])
    env.reset(rngs(1))
    for _ in range(3):
        env.step(np.zeros((1, 1, 1)))
    assert env.measures["half"][0, 0] == -1.5


def test_actions_of_whole_numbers_are_the_nearest(tmp_path):
    whole = COUNTER.replace("Box(-2.0, 2.0, (1,))", "Box(-2, 2, (1,), dtype=np.int64)")
    family = family_of(tmp_path, whole)
    env = BatchedEnv(family, 1, 4)
    env.set_tasks([family.task({"start": 0.0, "wrong": 0.0})])
    env.reset(rngs(1))
    asked = np.array([0.7, -0.7, 0.2, 1.6]) / family.action_scale
    assert env.step(asked.reshape(1, 4, 1)).rewards.tolist() == [[1.0, -1.0, 0.0, 2.0]]


WRONG = {
    "raises at once": ("def tasks():\n    raise KeyError('no robot')", "failed: KeyError: 'no robot' (own.py, line"),
    "returns nothing": ("def tasks():\n    return None", "returned NoneType; it must return a metarl.GymTasks"),
    "no function": ("task = 1", "own.py has no function 'tasks'; there are none"),
    "no tasks": ("def tasks():\n    return metarl.GymTasks(make=dict)", "needs either parameters"),
    "no environment": (
        "def tasks():\n    return metarl.GymTasks(make=dict, parameters=(metarl.quantity('a', 0, 1),))",
        "make() returned dict; it must return a gymnasium.Env",
    ),
    "discrete actions": (COUNTER.replace("Box(-2.0, 2.0, (1,))", "Discrete(3)"), "agents choose continuous actions"),
    "no horizon": (COUNTER.replace("horizon=6, ", ""), "give GymTasks(horizon=...)"),
    "no time": (COUNTER.replace("dt=0.1, ", ""), "give GymTasks(dt=...), seconds"),
    "no such key": (
        KINDS.replace('observe=("joint",)', 'observe=("joints",)'),
        "names 'joints', and the observation has",
    ),
    "a reversed range": (COUNTER.replace('"start", 0, 3', '"start", 3, 0'), "is reversed or empty"),
    "one name twice": (COUNTER.replace('category("wrong"', 'category("start"'), "two parameters have the name 'start'"),
    "one parameter": (
        "def tasks():\n    return metarl.GymTasks(make=dict, parameters=metarl.quantity('a', 0, 1))",
        "GymTasks.parameters is to be a tuple",
    ),
    "tasks without splits": (
        "def tasks():\n    return metarl.GymTasks(make=dict, tasks=[1, 2])",
        "GymTasks.tasks is to be {'train'",
    ),
    "a measure by its key": (
        COUNTER.replace('success=metarl.Info("reached")', 'success="reached"'),
        "success is 'reached'; write metarl.Info('reached')",
    ),
    "no reduction": (COUNTER.replace('"m", "max"', '"m", "median"'), "Info('half').reduce is 'median'"),
    "a measure named gain": (COUNTER.replace('{"half":', '{"gain":'), "GymTasks.measures has gain, a name of metarl's"),
    "a measure named return": (COUNTER.replace('{"half":', '{"return_3":'), "GymTasks.measures has return_3"),
    "a letter for a key": (KINDS.replace('observe=("joint",)', 'observe="joint"'), "write observe=('joint',)"),
    "half a step": (COUNTER.replace("horizon=6", "horizon=6.5"), "GymTasks.horizon is 6.5; it is to be a whole number"),
    "steps as text": (COUNTER.replace("horizon=6", 'horizon="6"'), "GymTasks.horizon is '6'"),
    "time back": (COUNTER.replace("dt=0.1", "dt=-0.1"), "GymTasks.dt is -0.1; it must not be negative"),
    "no such time": (COUNTER.replace("dt=0.1", 'dt=float("nan")'), "GymTasks.dt is nan"),
    "endless actions": (COUNTER.replace("dt=0.1", 'dt=0.1, action_scale=float("inf")'), "GymTasks.action_scale is inf"),
    "no function to apply": (
        COUNTER.replace("dt=0.1", "dt=0.1, apply=3"),
        "GymTasks.apply is 3; it is to be",
    ),
    "nothing to choose": (
        COUNTER.replace("Box(-2.0, 2.0, (1,))", "Box(-2.0, 2.0, (0,))"),
        "there is nothing to choose",
    ),
    "a kind that raises": (
        KINDS.replace("lambda task: task[0]", "lambda task: task['size']"),
        "kind failed for the task ('small', 0.1): TypeError",
    ),
    "a kind of no hash": (KINDS.replace("lambda task: task[0]", "lambda task: [task[0]]"), "kind failed for the task"),
    "one split": (KINDS.replace('"held_out": [("new", 0.4)]', '"ood": []'), "needs the splits train and held_out"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_named(tmp_path, case):
    text, message = WRONG[case]
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "own.py"))) as caught:
        family_of(tmp_path, text)
    assert message in str(caught.value)


def test_a_kind_that_follows_from_a_quantity_ends_the_run(tmp_path):
    """Environments of kinds that nobody knew of would be cut to the size of others."""
    text = KINDS.replace(
        'tasks={"train": [("small", 0.1), ("large", 0.2), ("small", 0.3)], "held_out": [("new", 0.4)]}',
        'parameters=(metarl.quantity("g", -1, 1),)',
    )
    text = text.replace("lambda task: task[0]", 'lambda task: "small" if task["g"] <= 0 else "large"')
    family = family_of(tmp_path, text.replace("task[1]", 'task["g"]'))
    env = BatchedEnv(family, 1, 1)
    for g, known in ((-0.5, True), (0.5, False)):
        env.set_tasks([family.task({"g": g})])
        if known:
            env.reset(rngs(1))
            continue
        with pytest.raises(SimulationFault, match="kind returned 'large' for the task .* and otherwise 'small'"):
            env.reset(rngs(1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("float(action[0])", "np.array([1.0])"), "the reward is array([1.]), a ndarray; return a number"),
        (("float(action[0])", 'float("inf")'), "the reward is inf"),
        (('"reached": self.count >= 5', '"reached": None'), "info['reached'] is None, a NoneType; return a number"),
        (("raise OSError(", "raise SystemExit("), "SystemExit: the arm is not connected"),
    ],
)
def test_a_fault_says_what_was_wrong(tmp_path, capsys, change, said):
    family = family_of(tmp_path, COUNTER.replace(*change))
    env = ShardedEnv(family, 1, 1)
    env.set_tasks([family.task({"start": 1.0, "wrong": 1.0 if "SystemExit" in said else 0.0})])
    env.reset(rngs(1))
    for _ in range(6):
        env.step(np.ones((1, 1, 1)))
    assert env.num_faults == 1 and said in capsys.readouterr().out


def test_what_apply_raises_is_said_with_its_line(tmp_path):
    family = family_of(tmp_path, COUNTER.replace("dt=0.1", "dt=0.1, apply=lambda env, task: task['mass']"))
    env = BatchedEnv(family, 1, 1)
    env.set_tasks([family.neutral()])
    with pytest.raises(SimulationFault, match=r"apply failed for the task .*: KeyError: 'mass' \(own.py, line"):
        env.reset(rngs(1))


def test_an_observation_may_be_a_list(tmp_path):
    listed = COUNTER.replace("return np.array([seen, 0], dtype=np.float32)", "return [float(seen), 0.0]")
    family = family_of(tmp_path, listed)
    env = BatchedEnv(family, 1, 1)
    env.set_tasks([family.task({"start": 1.0, "wrong": 0.0})])
    env.reset(rngs(1))
    assert env.step(np.ones((1, 1, 1))).observations[0, 0].tolist() == [2.0, 0.0]


def test_faults_and_other_simulators_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no MuJoCo model of it to break"):
        family_of(tmp_path, COUNTER, faults=("dead",))
    family = family_of(tmp_path, COUNTER)
    with pytest.raises(ValueError, match="no MuJoCo model"):
        family.picture(family.neutral())


def test_descriptions_are_checked():
    make = gymnasium.Env
    for wrong in ({"measures": {"success": Info("x")}}, {"tasks": {"train": [1], "held_out": [2]}}):
        with pytest.raises(ValueError, match="GymTasks"):
            GymTasks(make, parameters=(quantity("a", 0, 1),), **wrong)
    with pytest.raises(ValueError, match="different names"):
        category("leg", ["left", "left"])
    parameter = category("leg", ["left", "right"], held_out=["middle"])
    assert parameter.of_split("held_out").low == 2.0 and parameter.words(2.0) == "middle"
    assert quantity("mass", 1, 4, "kg", log=True).neutral == pytest.approx(2.0)


def test_fetch_reaches_places_that_it_is_not_told():
    """gymnasium-robotics, as docs/environments.md has it: the reward is minus the distance to the task's place."""
    source = Path(__file__).parents[2] / "docs" / "fetch_reach.py"
    family = make_family(EnvSettings(f"{source}:reach", processes=1))
    assert family.observation_size == 10 and family.horizon == 50 and family.dt == pytest.approx(0.04)
    places = np.array([[0.1, 0.0, -0.1], [-0.1, 0.05, 0.1]])
    tasks = [family.task(dict(zip("xyz", place.tolist(), strict=True))) for place in places]
    env = ShardedEnv(family, 2, 1, measuring=True)
    env.set_tasks(tasks)
    begun = env.reset([np.random.default_rng(3), np.random.default_rng(3)])
    np.testing.assert_array_equal(begun[0], begun[1])  # the same start: nothing tells the place
    start = begun[0, 0, :3].astype(np.float64)
    step = env.step(np.zeros((2, 1, 4)))
    for m in range(2):
        distance = np.linalg.norm(step.observations[m, 0, :3] - (start + places[m]))
        assert step.rewards[m, 0] == pytest.approx(-distance, abs=2e-3)
        assert env.shards[0].measures["distance"][m, 0] == pytest.approx(-step.rewards[m, 0], rel=1e-5)


BOUNDS = """
class Bounded(gymnasium.Env):
    observation_space = Box(-1, 1, (1,))
    def __init__(self, most):
        self.action_space = Box(-most, most, (1,))
    def set_task(self, task):
        pass
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, dtype=np.float32), {}
    def step(self, action):
        return np.zeros(1, dtype=np.float32), float(action[0]), False, False, {}
def tasks():
    return metarl.GymTasks(
        make=Bounded, kind=lambda task: task, tasks={"train": [0.5, 1.0], "held_out": [1.0]}, horizon=3, dt=0.05
    )
"""


def test_each_kind_is_acted_on_within_its_own_bounds(tmp_path):
    family = family_of(tmp_path, BOUNDS)
    env = ShardedEnv(family, 2, 1)
    env.set_tasks([family.task({"task": float(i)}) for i in (0, 1)])
    env.reset(rngs(2))
    np.testing.assert_allclose(env.step(np.full((2, 1, 1), 9.0)).rewards[:, 0], [0.5, 1.0])
