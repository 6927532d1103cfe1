"""Training and evaluation on either simulator; here mujoco-warp runs on the CPU, as it does where there is no GPU."""

import json
import subprocess
import sys

import pytest
import torch

from metarl.agents.maml.settings import MamlSettings
from metarl.agents.registry import make_agent
from metarl.cli.app import main
from metarl.envs.simulation import CPU
from metarl.errors import UsageError
from metarl.runs.simulators import NAMES, simulator_for, simulator_name

SMALL = (
    *("training.iterations=2", "training.tasks=3", "training.envs_per_task=2", "family.horizon=12"),
    *("training.device=cpu", "evaluation.tasks=3", "evaluation.envs_per_task=2", "evaluation.seeds=1"),
    *("evaluation.adaptations=1", "evaluation.bootstrap_samples=50", "tracking.wandb=disabled"),
)
GROUPS = """<mujoco>
  <option actuatorgroupdisable="1"/>
  <worldbody>
    <geom type="plane" size="5 5 .1"/>
    <body name="trunk" pos="0 0 .1">
      <freejoint/>
      <geom type="box" size=".2 .1 .05"/>
      <body pos="0 .12 0"><joint name="wheel" axis="0 1 0"/><geom type="cylinder" size=".1 .02" euler="90 0 0"/></body>
    </body>
  </worldbody>
  <actuator><motor joint="wheel" ctrlrange="-1 1"/></actuator>
</mujoco>"""
"""A robot of whose motors groups can be switched off."""


def train(tmp_path, agent, *overrides, family="half_cheetah_mass"):
    command = ["train", "--agent", agent, "--family", family, "--runs-dir", str(tmp_path), "--name", agent]
    return main([*command, *SMALL, *overrides])


def evaluated(run):
    (path,) = run.glob("evaluation/held_out_*.json")
    return json.loads(path.read_text())


@pytest.mark.thorough
@pytest.mark.parametrize("agent", [pytest.param("maml", marks=pytest.mark.slow), "rl2", "ppo"])
def test_a_run_trained_on_the_gpu_simulator_is_evaluated_on_the_other(tmp_path, agent, capsys):
    assert train(tmp_path, agent, "training.simulator=gpu", "evaluation.simulator_shift=true") == 0
    metrics = [json.loads(line) for line in (tmp_path / agent / "metrics.jsonl").read_text().splitlines()]
    episodes = 3 * 2 * (1 if agent == "ppo" else 2)
    assert [row["env_steps"] for row in metrics] == [12 * episodes, 24 * episodes]
    result = evaluated(tmp_path / agent)
    shift = result["simulator_shift"]
    assert (shift["trained"], shift["evaluated"]) == ("gpu", "cpu")
    assert abs(shift["before"]["estimate"]) < 2  # m/s times steps: the noise of the policy differs too
    assert any(note.startswith("trained on the gpu simulator and evaluated on the cpu one") for note in result["notes"])
    assert "trained on the gpu simulator" in " ".join(capsys.readouterr().out.split())


@pytest.mark.thorough
def test_a_run_goes_on_on_the_other_simulator(tmp_path):
    assert train(tmp_path, "maml", "training.simulator=cpu", "evaluation.simulator=gpu") == 0
    result = evaluated(tmp_path / "maml")
    assert result["simulator_shift"] == {"trained": "cpu", "evaluated": "gpu", "before": None, "after": None}
    assert any("evaluation.simulator_shift=true measures it" in note for note in result["notes"])


@pytest.mark.thorough
def test_both_simulators_give_nearly_the_same_returns_without_noise(tmp_path):
    returns = []
    for simulator in ("cpu", "gpu"):
        folder = tmp_path / simulator
        overrides = (f"evaluation.simulator={simulator}", "evaluation.explore=false")
        assert train(folder, "ppo", "training.simulator=cpu", *overrides) == 0
        returns.append(torch.tensor(evaluated(folder / "ppo")["returns"])[:, 0])  # of the same starts
    torch.testing.assert_close(returns[0], returns[1], rtol=1e-3, atol=1e-3)
    assert not torch.equal(returns[0], returns[1])


def test_an_agent_that_steps_envs_on_the_host_is_refused(tmp_path, capsys):
    assert train(tmp_path, "recurrent_ppo", "training.simulator=gpu") == 2
    error = capsys.readouterr().err
    assert "training.simulator: recurrent_ppo steps its envs on the host" in error
    assert "training.simulator=cpu" in error
    assert not (tmp_path / "recurrent_ppo").exists()  # the name is free again


def test_tasks_of_several_layouts_are_refused_for_ppo_by_name(tmp_path, capsys):
    assert train(tmp_path, "ppo", "training.simulator=gpu", family="ant_legs") == 2
    assert "tasks of family 'ant_legs' have several layouts" in capsys.readouterr().err
    assert not (tmp_path / "ppo").exists()


@pytest.mark.parametrize("setting", ["training.simulator", "evaluation.simulator"])
def test_what_mujoco_warp_cannot_simulate_is_refused_and_leaves_no_run(tmp_path, capsys, setting):
    (tmp_path / "robot.xml").write_text(GROUPS)
    (tmp_path / "task.yaml").write_text(
        "reward: {track_velocity: 1}\ndistribution:\n"
        "  - {name: load, target: trunk, quantity: mass, operation: scale, distribution: uniform, range: [1, 2]}\n"
    )
    command = ["train", "--robot", str(tmp_path / "robot.xml"), "--family", str(tmp_path / "task.yaml")]
    command += ["--runs-dir", str(tmp_path / "runs"), "--name", "groups", *SMALL]
    assert main([*command, f"{setting}=gpu"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {setting}: the gpu simulator cannot disable groups of actuators")
    assert (tmp_path / "runs" / "groups").exists() == (setting == "evaluation.simulator")  # it was trained by then


def test_auto_is_the_cpu_where_the_agent_is_on_it():
    agent = make_agent(MamlSettings(), 4, 2, torch.Generator(), torch.device("cpu"))
    assert [simulator_name(name, agent) for name in NAMES] == ["cpu", "gpu", "cpu"]
    assert simulator_for("auto", agent) is CPU


@pytest.mark.thorough
def test_a_missing_package_is_named_with_what_to_install():
    code = (
        "import sys; sys.modules['mujoco_warp'] = None\n"  # as it is where the package is not installed
        "import torch; from metarl.agents.registry import make_agent\n"
        "from metarl.agents.maml.settings import MamlSettings\n"
        "from metarl.runs.simulators import simulator_for\n"
        "agent = make_agent(MamlSettings(), 4, 2, torch.Generator(), torch.device('cpu'))\n"
        "try: simulator_for('gpu', agent)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith(UsageError.__name__)
    assert "pip install metarl-robotics[gpu]" in said
