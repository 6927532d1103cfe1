"""Exported policies: in ONNX Runtime they act as the agent does, and say what a robot's program must know."""

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.agents import beliefs
from metarl.agents.registry import AGENT_SETTINGS
from metarl.cli import app as cli
from metarl.config import TrainingSettings
from metarl.deployment import export
from metarl.envs.batch import BatchedEnv
from metarl.envs.robots.ant_settings import AntLegsSettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.errors import RunError, UsageError
from metarl.runs.beliefs import save_belief
from metarl.training.world import TrainingWorld
from tests.metarl.control_loop import CONTROL_LOOP, loop
from tests.metarl.test_controller import HOPPER, evaluated, make_run
from tests.sampling import sampled
from tests.small_agents import VARIANTS

onnxruntime = pytest.importorskip("onnxruntime")

CHEETAH = HalfCheetahMassSettings(horizon=15)


POLICIES = [*AGENT_SETTINGS, *VARIANTS]
"""Every agent, RL2 with every memory, and agents with other heads and stages."""


def adapted_run(policy: str, folder: Path, family=CHEETAH):
    """A run with moments of its own, and the belief after two adaptations to a task."""
    run = make_run(policy, family, envs=1, adaptations=2)
    run.directory = folder
    training = TrainingSettings(tasks=2, envs_per_task=2, threads=1)
    run.config = dataclasses.replace(run.config, training=training)
    task, other = run.family.sample(2, np.random.default_rng(0))
    TrainingWorld(run).iterate([task, other], 0)
    result = evaluated(run, task, np.random.default_rng(2), explore=True)
    return run, result.trial.beliefs[-1]


@pytest.mark.parametrize(
    ("family", "name"),
    sampled(
        [
            *((CHEETAH, name) for name in POLICIES),
            *itertools.product((HOPPER, AntLegsSettings(horizon=10)), AGENT_SETTINGS),
        ],
        3,
    ),
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
def test_in_onnx_runtime_the_adapted_policy_acts_as_the_agent(family, name, tmp_path):
    run, belief = adapted_run(name, tmp_path, family)
    written = export.export_run(run, tmp_path / "p.onnx", belief, "b.pt")
    assert written.steps >= 4 and 0 <= written.error <= 1e-5 and written.size == (tmp_path / "p.onnx").stat().st_size
    session = onnxruntime.InferenceSession(tmp_path / "p.onnx", providers=["CPUExecutionProvider"])
    inputs = {i.name: np.zeros(i.shape, dtype=np.float32) for i in session.get_inputs()}
    about = json.loads(session.get_modelmeta().custom_metadata_map["metarl"])
    inputs |= {name: np.array([start], dtype=np.float32) for name, start in about["states"].items()}
    rng, controller = np.random.default_rng(0), run.start(belief)
    for _ in range(20):
        observation = rng.normal(size=inputs["observation"].shape).astype(np.float32) * 3
        given = inputs | {"observation": observation}
        given |= {"episode_start": np.ones((1, 1), np.float32)} if "episode_start" in inputs else {}
        action, command = session.run(["action", "command"], given)
        expected = run.agent.act(belief, torch.from_numpy(observation[None]), None)[0][0, 0].numpy()
        np.testing.assert_allclose(action[0], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(command[0], controller.command(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in AGENT_SETTINGS if hasattr(AGENT_SETTINGS[n], "reward_input")])
@pytest.mark.parametrize("reads", [True, False])
def test_a_policy_that_reads_no_reward_acts_alike_whatever_it_is_told(name, reads, tmp_path):
    run = make_run(name, CHEETAH, envs=1, adaptations=1, reward_input=reads)
    run.directory = tmp_path
    task = run.family.sample(1, np.random.default_rng(0))[0]
    belief = evaluated(run, task, np.random.default_rng(2), explore=True).trial.beliefs[-1]
    observation, still = torch.full((1, 1, run.family.observation_size), 0.3), torch.zeros(1, 1, dtype=torch.bool)
    acted = []
    for reward in (-2.0, 3.0):
        _, after = run.agent.act(belief, observation, None)
        told = run.agent.observe(after, torch.full((1, 1), reward), still)
        acted.append(run.agent.act(told, observation, None)[0])
    assert torch.equal(*acted) != reads
    export.export_run(run, tmp_path / "p.onnx", belief, "b.pt")
    session = onnxruntime.InferenceSession(tmp_path / "p.onnx", providers=["CPUExecutionProvider"])
    assert ("previous_reward" in [i.name for i in session.get_inputs()]) == reads


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("name", sampled(POLICIES, 3))
def test_the_control_loop_of_docs_does_what_the_controller_does(name, adapted, tmp_path, monkeypatch):
    """Four episodes in an env, recorded and replayed. In the first one both are told of a fall after five steps.

    A memory is carried across as many as evaluation carries it, and a later one starts from what it was then.
    """
    run, belief = adapted_run(name, tmp_path)
    belief = belief if adapted else None
    export.export_run(run, tmp_path / "p.onnx", belief)
    env = BatchedEnv(run.family, 1, 1, threads=1)
    remembers = run.agent.facts.belief_per_env
    shots = {} if remembers else {"adaptations": 0}
    controller = run.start(belief, **shots, episodes_per_shot=1, explore="never")
    assert controller.adaptations == (2 if remembers and run.agent.facts.adapts and not adapted else 0)
    observations, rewards, commands = [], [], []
    for _ in range(4):
        observation = env.reset([np.random.default_rng(3)])[0, 0]
        observations.append(observation)
        while env.active[0, 0]:
            action = controller.act(observation)
            step = env.step(action[None, None])
            observation, reward = step.observations[0, 0], float(step.rewards[0, 0])
            if len(rewards) == 4:
                controller.fall(reward, observation)
            else:
                controller.observe(reward, bool(step.terminated[0, 0]), bool(step.truncated[0, 0]))
            observations.append(observation)
            rewards.append(reward)
            commands.append(controller.command(action))
        controller.end_episode(observation)
    assert np.abs(np.diff(commands, axis=0)).max() > 1e-3
    control_loop = loop()
    monkeypatch.setattr(control_loop.time, "sleep", lambda seconds: None)
    replayed = []

    class Robot:
        def reset(self):
            return observations.pop(0)

        def send(self, command):
            replayed.append(command)

        def read(self):
            return observations.pop(0), rewards.pop(0), False

    class Policy(control_loop.Policy):
        calls = 0

        def act(self, *given, **named):
            self.calls += 1
            return super().act(*given, **named, fallen=self.calls == 6)

    policy = Policy(tmp_path / "p.onnx")
    for _ in range(4):
        control_loop.episode(policy, Robot())
    np.testing.assert_allclose(replayed, commands, rtol=1e-5, atol=1e-5)


def test_the_control_loop_of_docs_acts_on_what_it_has_just_read(tmp_path, monkeypatch):
    """By a clock of the test: dt lies between a command and the next observation, also after a read that took long."""
    run, belief = adapted_run("maml", tmp_path)
    export.export_run(run, tmp_path / "p.onnx", belief)
    control_loop, now, took = loop(), [100.0], {4: 0.34, 9: 0.048, 12: 0.02}
    monkeypatch.setattr(control_loop.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(control_loop.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))

    class Robot:
        sent, reads = [], []

        def reset(self):
            return np.zeros(20)

        def send(self, command):
            self.sent.append(now[0])

        def read(self):
            self.reads.append(now[0])
            now[0] += took.get(len(self.reads), 0.004)
            return np.zeros(20), 0.0, False

    control_loop.episode(control_loop.Policy(tmp_path / "p.onnx"), Robot())
    sent, reads = np.array(Robot.sent), np.array(Robot.reads)
    assert len(sent) == len(reads) == 15
    np.testing.assert_allclose(sent[1:] - reads[:-1], [took.get(i, 0.004) for i in range(1, 15)])
    waits = reads - sent
    assert waits.min() > 0.024 and waits.max() < 0.0501
    late = np.array([took.get(i, 0.004) for i in range(15)])  # before each command
    np.testing.assert_allclose(waits[1:], np.where(late[1:] < 0.025, 0.05 - late[1:], 0.05))


def test_what_the_env_clips_the_file_and_the_controller_clip(tmp_path):
    run = make_run("rl2", CHEETAH, envs=1, adaptations=1)
    *kept, last = run.family.observation.items()
    run.family = dataclasses.replace(
        run.family, observation={**dict(kept), last[0]: dataclasses.replace(last[1], clip=0.2)}
    )
    bounds = run.family.observation_bounds
    assert bounds is not None and np.isinf(bounds[0]) and bounds[-1] == 0.2
    run.directory = tmp_path
    export.export_run(run, tmp_path / "p.onnx")
    acted, unclipped = [], []
    for beyond in (0.2, 7.0):
        seen = np.where(np.isinf(bounds), np.linspace(-3, 3, len(bounds)), beyond).astype(np.float32)
        policy, controller = loop().Policy(tmp_path / "p.onnx"), run.start(explore="never")
        unclipped.append(run.agent.act(controller.belief, torch.from_numpy(seen[None, None]), None)[0][0, 0].numpy())
        acted.append(controller.act(seen))
        policy.act(seen, start=True)
        np.testing.assert_allclose(policy.action, acted[-1], atol=1e-5)
        assert policy.about["observation"]["clip"][-1] == pytest.approx(0.2)
    np.testing.assert_array_equal(*acted)
    assert np.abs(np.subtract(*unclipped)).max() > 1e-3


def test_the_control_loop_of_docs_refuses_what_no_sensor_has_read(tmp_path):
    """It says which channel, and the memory is as it was."""
    run, _ = adapted_run("rl2", tmp_path)
    export.export_run(run, tmp_path / "p.onnx")
    asked, plain = (loop().Policy(tmp_path / "p.onnx") for _ in range(2))
    seen, lost = np.linspace(-1, 1, 20), np.full(20, np.nan)
    for policy in (asked, plain):
        policy.act(seen, start=True)
    for observation, reward, message in (
        (lost, 0.0, "observation 0, 'root_z', is nan"),
        (np.where(np.arange(20) == 3, np.inf, seen), 0.0, "observation 3, '.*', is inf"),
        (0.1, 0.0, r"the observation has shape \(\), not \(20,\)"),
        ([0.1], 0.0, r"has shape \(1,\)"),
        (["0.1"] * 20, 0.0, "give real numbers"),
        (np.ma.masked_array(seen, mask=np.arange(20) == 2), 0.0, "give real numbers, none of them masked"),
        (np.where(np.arange(20) == 3, 1e39, seen), 0.0, r"observation 3, '.*', is 1e\+39"),
        (seen, 1e39, "the reward is 1e"),
        (seen, np.nan, "the reward is nan"),
    ):
        with pytest.raises(ValueError, match=message):
            asked.act(observation, reward)
    np.testing.assert_array_equal(asked.act(-seen, 1.0), plain.act(-seen, 1.0))
    np.testing.assert_array_equal(asked.action, plain.action)
    first = asked.act(seen, start=True), asked.act(-seen, 1.0)
    asked.act(seen, end=True)
    assert np.abs(asked.act(seen, start=True) - first[0]).max() > 0
    asked.forget()
    np.testing.assert_array_equal([asked.act(seen, start=True), asked.act(-seen, 1.0)], first)


def test_the_loop_of_the_worked_example_runs_as_it_is_written(tmp_path, monkeypatch):
    """With a policy that cannot walk yet, and falls."""
    text = (CONTROL_LOOP.parent / "quadruped.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    run = make_run("rl2", QuadrupedSettings(faults=("weak",)), envs=1, adaptations=1, reward_input=False)
    run.directory = tmp_path
    export.export_run(run, tmp_path / "policy.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(CONTROL_LOOP.parent)
    names = {}
    exec(block, names)  # a page of this repository
    assert 0 < names["step"] < 249 and names["terminated"] and np.isfinite(names["observation"]).all()


def test_the_control_loop_of_docs_needs_neither_metarl_nor_torch(tmp_path):
    run, belief = adapted_run("rl2", tmp_path)
    export.export_run(run, tmp_path / "p.onnx", belief)
    script = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import control_loop
policy = control_loop.Policy("p.onnx")
assert policy.act(np.zeros(20), start=True).shape == (6,)
assert not {"torch", "metarl", "mujoco", "onnx"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(CONTROL_LOOP.parent)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


def test_the_file_says_what_a_robots_program_must_know(tmp_path):
    run, belief = adapted_run("rl2", tmp_path)
    export.export_run(run, tmp_path / "p.onnx", belief, "b.pt")
    session = onnxruntime.InferenceSession(tmp_path / "p.onnx", providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["metarl"])
    names = dict(zip(about["observation"]["names"], about["observation"]["units"], strict=True))
    assert (names["root_pitch"], names["root_x_velocity"], len(names)) == ("rad", "m/s", 20)
    assert about["dt"] == pytest.approx(0.05) and about["horizon"] == 15
    motors = ["bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"]
    assert about["action"] == {"names": motors, "scale": 1.0, "low": [-1.0] * 6, "high": [1.0] * 6}
    assert about["command"] == {
        "names": motors,
        "joints": motors,
        "kinds": ["force"] * 6,
        "units": ["N m"] * 6,
        "offset": [0.0] * 6,
        "gain": [1.0] * 6,
        "zero": [0.0] * 6,
        "size": [120.0, 90.0, 60.0, 120.0, 60.0, 30.0],  # the gears of Gymnasium's model
        "ctrl_range": [[-1.0, 1.0]] * 6,
    }
    assert about["home"] == dict.fromkeys(["rootx", "rootz", "rooty", *motors], 0.0)
    assert (about["agent"], about["family"], about["belief"]) == ("rl2", "half_cheetah_mass", "b.pt")
    moments = run.agent.network.observation_moments
    np.testing.assert_allclose(about["observation"]["mean"], moments.mean)
    np.testing.assert_allclose(about["states"]["hidden"], belief.memory["hidden"][0, 0])
    versions = about["versions"]
    assert versions["torch"] == metadata.version("torch") and versions["mujoco"]
    assert torch.__version__.startswith(
        versions["torch"]
    )  # a CUDA build from another place may end in +cu130 here alone
    sizes = {i.name: i.shape for i in session.get_inputs()}
    scalars = {name: [1, 1] for name in ("previous_reward", "episode_start", "episode_end")}
    assert sizes == {"observation": [1, 20], "previous_action": [1, 6], **scalars, "hidden": [1, 8]}
    assert [o.name for o in session.get_outputs()] == ["action", "command", "next_hidden"]


@pytest.mark.thorough
def test_an_oracle_is_told_what_the_robot_has_to_supply(tmp_path, tiny, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = ["train", "--family", "half_cheetah_mass", "--name", "r", *tiny, "training.iterations=1"]
    assert cli.main([*train, "training.reveal_task=true", "tracking.wandb=disabled"]) == 0
    capsys.readouterr()
    assert cli.main(["export", "r"]) == 0
    assert re.fullmatch(
        r"warning: runs/r is an oracle \(training.reveal_task\): the last 1 of its \d+ observations are what an "
        r"oracle is told, which you have to supply: task_mass_scale: mass_scale, 0.5 to 2 mapped [^\n]* -1 to 1\n",
        capsys.readouterr().err,
    )
    about = export.ExportedPolicy(Path("runs/r/policy.onnx").read_bytes()).about
    [told] = about["observation"]["told"]
    assert told.startswith("task_mass_scale: mass_scale, ")


@pytest.mark.parametrize("name", list(AGENT_SETTINGS))
def test_a_file_that_differs_from_the_agent_is_not_left(name, tmp_path, monkeypatch):
    run, belief = adapted_run(name, tmp_path)
    monkeypatch.setattr(run.agent, "deployable", scaled(run.agent.deployable))
    with pytest.raises(RunError, match="no file is written: at step 1 ONNX Runtime's action differs from torch's by"):
        export.export_run(run, tmp_path / "p.onnx", belief)
    assert not list(tmp_path.rglob("*.onnx"))


def test_commands_of_strong_motors_are_compared_in_units_of_action(tmp_path, monkeypatch):
    run, belief = adapted_run("maml", tmp_path)
    for gain in (300.0, 1e5, 0.0):
        run.family = dataclasses.replace(
            run.family, control=dataclasses.replace(run.family.control, gain=np.full(6, gain))
        )
        assert export.export_run(run, tmp_path / "p.onnx", belief).error < 1e-5
    wrong = export.Commanded.forward

    def double(self, *inputs):
        action, command, *states = wrong(self, *inputs)
        return action, 2 * command + 1, *states

    monkeypatch.setattr(export.Commanded, "forward", double)
    with pytest.raises(RunError, match="ONNX Runtime's command differs"):
        export.export_run(run, tmp_path / "p.onnx", belief)


def test_actions_without_bounds_are_exported(tmp_path):
    run, belief = adapted_run("rl2", tmp_path)
    unbounded = np.full(6, np.inf)
    run.family = dataclasses.replace(run.family, action_low=-unbounded, action_high=unbounded)
    written = export.export_run(run, tmp_path / "p.onnx", belief)
    about = export.ExportedPolicy(written.path.read_bytes()).about
    assert about["action"]["low"] == about["action"]["high"] == [None] * 6


def scaled(deployable):
    """The same, each weight of its last layer a hundredth larger."""

    def wrong(belief):
        policy = deployable(belief)

        def larger(module, inputs, output):
            return output * 1.01 if isinstance(output, torch.Tensor) else (output[0] * 1.01, *output[1:])

        policy.module.register_forward_hook(larger)
        return policy

    return wrong


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_its_packages_it_says_what_to_install(missing, tmp_path, monkeypatch):
    run = make_run("maml")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=r"pip install 'metarl-robotics\[deploy\]'"):
        export.export_run(run, tmp_path / "p.onnx")


@pytest.mark.thorough
def test_the_command_exports_a_belief(tmp_path, tiny, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = ["train", "--family", "point_goal", "--name", "r", *tiny, "training.iterations=1"]
    assert cli.main([*train, "tracking.wandb=disabled"]) == 0
    from metarl.runs.run import load_run

    run = load_run(Path("runs/r"))
    belief = beliefs.load(run.agent, {"parameters": run.agent.theta[None] * 1.1, "steps": 1, "rule": {}})
    save_belief(Path("b.pt"), run, belief, 1, "here")
    capsys.readouterr()
    assert cli.main(["export", "r"]) == 0 and cli.main(["export", "runs/r", "--format=onnx", "--belief", "b.pt"]) == 0
    said = capsys.readouterr().out
    assert "saved runs/r/policy.onnx" in said and "saved runs/r/b.onnx" in said
    assert cli.main(["export", "r", "--checkpoint", "best"]) == 0
    assert "saved runs/r/policy_best.onnx" in capsys.readouterr().out
    actions = [
        export.ExportedPolicy(Path(f"runs/r/{n}.onnx").read_bytes()).act(observation=[1, 1])[0] for n in ("policy", "b")
    ]
    np.testing.assert_allclose(actions[1], run.start(belief=belief).act([1, 1]), rtol=1e-5)
    assert not np.allclose(*actions)
    for arguments, message in {
        ("absent",): "no run folder absent",
        ("r", "--format", "tflite"): "--format is 'tflite'",
        ("r", "--output", "p.pt"): "--output is 'p.pt'; name a file that ends with .onnx",
        ("r", "--belief", "absent.pt"): "no belief file absent.pt",
        ("r", "--belief", "runs/r/config.yaml"): "cut short, or no checkpoint",
        ("r", "s"): "metarl export takes the folder of one run",
    }.items():
        assert cli.main(["export", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
