"""A robot that is declared in Python is the robot of its file."""

from __future__ import annotations

import inspect
from pathlib import Path

import mujoco
import numpy as np
import pytest
import yaml

import metarl
from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.foreign.settings import EnvSettings
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family
from metarl.envs.task import Change, Task
from tests.envs.own_robot.families import ARM, written

MOTOR = '<motor name="lift" joint="lift" ctrlrange="-5 5"/>'
BOOM = ARM.format(extra="", joint="", tendon="", actuator=MOTOR, home=0.7)

MASS = {"name": "m", "quantity": "mass", "target": ".*", "operation": "scale", "distribution": "uniform"}


def tip(state):
    return state.xpos[:, -1]


def spin(state):
    return state.qvel[:, 0]


def fast(state):
    return state.qvel[:, 0] > 0.3


def widen(spec, value):
    spec.joints[0].damping[0] += value


FUNCTIONS = {function.__name__: function for function in (tip, spin, fast, widen)}


def declared(own: dict, sequence: type) -> dict:
    damping = {"name": "d", "quantity": "python", "neutral": 0.0, "distribution": "uniform", "range": sequence([0, 1])}
    return {
        "observation": {"joint_positions": None, "tip": {"term": "python", "function": own["tip"], "size": 3}},
        "reward": {"alive": 1, "spin": {"term": "python", "function": own["spin"], "weight": 0.5}},
        "termination": {"function": own["fast"]},
        "distribution": sequence([{**MASS, "range": sequence([0.5, 2])}, {**damping, "function": own["widen"]}]),
    }


def episode(family: TaskFamily) -> list[np.ndarray]:
    env = BatchedEnv(family, 3, 2, 1)
    tasks = family.sample(3, np.random.default_rng(0), "train")
    env.set_tasks(tasks)
    found = [
        np.array([list(task.values.values()) for task in tasks]),
        env.reset([np.random.default_rng(i) for i in range(3)]),
    ]
    rng = np.random.default_rng(1)
    for _ in range(20):
        result = env.step(rng.normal(size=(3, 2, family.action_size)))
        found += [result.observations, result.rewards, result.terminated]
    return found


def of_file(folder: Path) -> TaskFamily:
    (folder / "own.py").write_text("\n".join(map(inspect.getsource, FUNCTIONS.values())))
    names = {name: f"own.py:{name}" for name in FUNCTIONS}
    (folder / "arm.yaml").write_text(yaml.safe_dump(declared(names, list)))
    return make_family(RobotSettings(written(folder, BOOM), str(folder / "arm.yaml")))


@pytest.mark.parametrize("given", ["file", "function"])
def test_the_same_keys_make_the_same_tasks(given, tmp_path):
    model = written(tmp_path, BOOM) if given == "file" else lambda: mujoco.MjSpec.from_string(BOOM)
    own = metarl.declare_robot(model, declared(FUNCTIONS, tuple))
    for found, expected in zip(episode(own), episode(of_file(tmp_path)), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert own.parameters[1].law.description


def test_numbers_of_numpy_are_numbers(tmp_path):
    mass = {**MASS, "range": np.array([0.5, 2.0])}
    family = metarl.declare_robot(
        written(tmp_path, BOOM),
        {"reward": {"alive": np.float64(2)}, "distribution": [mass], "episode": {"horizon": np.int64(7)}},
    )
    assert family.horizon == 7 and family.rewards["alive"].weight == 2.0


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"rewards": {"alive": 1}}, "declared: unknown key 'rewards'; did you mean 'reward'"),
        ({"reward": {"alive": 1}}, "declared: distribution is empty"),
        (
            {"reward": {"alive": 1}, "distribution": [{**MASS, "target": "lag", "range": [1, 2]}]},
            "declared: .*'lag' matches nothing",
        ),
        (
            {
                "reward": {"spin": {"term": "python", "function": 3, "weight": 1}},
                "distribution": [{**MASS, "range": [1, 2]}],
            },
            "declared: reward.spin.function is 3; it must be text",
        ),
    ],
)
def test_a_mistake_is_named_by_its_key(said, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        metarl.declare_robot(written(tmp_path, BOOM), said)


@pytest.mark.parametrize("keyed", [False, True])
def test_a_mocap_body_goes_where_a_task_and_its_changes_put_it(keyed, tmp_path):
    target = '<body name="target" mocap="true" pos=".5 0 1"><geom size=".05" contype="0" conaffinity="0"/></body>'
    model = BOOM.replace("</worldbody>", f"{target}</worldbody>")
    if not keyed:
        model = model.replace('<key name="home" qpos="0.7"/>', "")

    def aside(spec: mujoco.MjSpec, value: float) -> None:
        spec.body("target").pos[1] += value

    moved = {"name": "y", "quantity": "python", "function": aside, "neutral": 0, "distribution": "uniform"}
    family = metarl.declare_robot(
        written(tmp_path, model),
        {
            "reward": {"alive": 1},
            "distribution": [{**moved, "range": [-1, 1]}],
            "changes": {"parameters": ["y"], "count": 1, "gap": [3, 3]},
        },
    )
    env = BatchedEnv(family, 2, 1, 1)
    tasks = [Task(family.name, {"y": y}, (Change(3, {"y": -2 * y}),)) for y in (0.3, 0.4)]
    env.set_tasks(tasks)
    env.reset([np.random.default_rng(i) for i in range(2)])
    for k in range(5):
        env.step(np.zeros((2, 1, family.action_size)))
        now = [[0.5, y if k < 3 else -2 * y, 1.0] for y in (0.3, 0.4)]
        np.testing.assert_allclose(env.simulation.bind("mocap_pos")[:, 0], now)


def test_a_model_that_needs_an_answer_asks(tmp_path):
    bare = BOOM.replace(MOTOR, "")
    with pytest.raises(ValueError, match=r"robot.xml: .*no actuators"):
        metarl.declare_robot(
            written(tmp_path, bare), {"reward": {"alive": 1}, "distribution": [{**MASS, "range": [1, 2]}]}
        )


def test_a_mistake_in_the_file_of_an_env_is_shown_where_the_user_made_it(tmp_path):
    model = written(tmp_path, BOOM)
    file = written(
        tmp_path, f"import metarl\n\ndef tasks():\n    return metarl.declare_robot({model!r}, {{}})\n", "own.py"
    )
    with pytest.raises(ValueError, match=r"declared: distribution is empty.* \(own.py, line 4: return metarl"):
        make_family(EnvSettings(f"{file}:tasks"))
