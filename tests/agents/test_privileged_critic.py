"""A critic that reads what a simulator knows, beside a policy that does not."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor

from metarl.agents.agent import Rollout, Trial
from metarl.agents.distilled.distilled import Distilled
from metarl.agents.distilled.settings import DistilledSettings
from metarl.agents.rl2.rl2 import Rl2
from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.sb3.device_ppo import Minibatch, evaluate, ppo_loss
from metarl.agents.sb3.gradient import fill_gradients
from metarl.agents.sb3.learner import EPSILON
from metarl.agents.sb3.ppo import Ppo
from metarl.agents.sb3.settings import PpoSettings
from metarl.agents.trial_ppo.sequence import PRIVILEGED
from metarl.agents.varibad.settings import VaribadSettings
from metarl.agents.varibad.varibad import Varibad
from metarl.cli import app as cli
from metarl.runs.run import load_run
from metarl.runs.tracking import read_metrics

CPU = torch.device("cpu")
SMALL = {"hidden_size": 8, "head_sizes": (8,), "observation_embedding": 8, "minibatches": 2, "epochs": 2}
NAMES = ("task_gain", "contact")
TINY = ("training.tasks=2", "training.envs_per_task=2", "training.threads=1", "family.horizon=10")
TINY += ("evaluation.tasks=2", "evaluation.envs_per_task=2", "evaluation.seeds=1", "evaluation.bootstrap_samples=20")
MADE = {
    "rl2": lambda **given: Rl2(Rl2Settings(**SMALL, **given), 2, 1, generator(), CPU, privileged=NAMES),
    "pieces": lambda **given: Rl2(
        Rl2Settings(chunk=4, memory="linear", **SMALL, **given), 2, 1, generator(), CPU, privileged=NAMES
    ),
    "varibad": lambda **given: Varibad(
        VaribadSettings(decoder_sizes=(8,), **SMALL, **given), 2, 1, generator(), CPU, privileged=NAMES
    ),
    "distilled": lambda **given: Distilled(
        DistilledSettings(distil_updates=0, critic_updates=0, **SMALL, **given),
        2,
        1,
        generator(),
        CPU,
        privileged=NAMES,
    ),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def trial(agent: Rl2 | Varibad | Distilled, told: float | None, shots: int = 2) -> Trial:
    """Random trials with privileged values of this mean; None: without any."""
    rollouts = []
    for shot in range(shots):
        shape, key = (6, 4, 2), 10 * shot
        no = torch.zeros(shape, dtype=torch.bool)
        rollouts.append(
            Rollout(
                observations=draw(*shape, 2, seed=key),
                actions=draw(*shape, 1, seed=key + 1),
                rewards=draw(*shape, seed=key + 2),
                terminated=no,
                truncated=no,
                valid=~no,
                final_observations=draw(4, 2, 2, seed=key + 3),
                privileged=None if told is None else draw(*shape, 2, seed=key + 4) + told,
            )
        )
    return Trial(rollouts, [agent.begin(4, 2, ())] * shots)


@pytest.mark.parametrize("name", MADE)
def test_the_critic_alone_reads_what_is_privileged(name):
    agent = MADE[name](privileged_critic=True)
    assert agent.facts.informed
    agent.meta_update(trial(agent, 0.5), generator())
    (means, values), (same, others) = (agent.evaluate(agent.sequence(trial(agent, told))) for told in (0.0, 2.0))
    steps = agent.sequence(trial(agent, 0.0)).steps
    assert torch.equal(means, same) and not torch.isclose(values, others)[steps].any()
    belief, seen = agent.begin(4, 2, ()), draw(4, 2, 2)
    plain, _ = agent.act(belief, seen, None)
    assert torch.equal(agent.act(agent.inform(belief, draw(4, 2, 2)), seen, None)[0], plain)
    assert PRIVILEGED not in agent.deployable(agent.begin(1, 1, ())).inputs
    assert agent.network.privileged_moments is not None and agent.network.privileged_moments.count == 96


@pytest.mark.parametrize("name", MADE)
def test_without_the_setting_nothing_is_read(name):
    agent = MADE[name]()
    assert agent.network.privileged_moments is None
    assert not any("privileged" in key for key in agent.network.state_dict())
    first, second = (agent.evaluate(agent.sequence(trial(agent, told)))[1] for told in (0.0, 2.0))
    assert torch.equal(first, second)


def test_only_the_policys_own_gradient_reaches_the_policy():
    """The values' gradient reaches memory and embeddings through the features, as without the setting, and no head."""
    agent = MADE["rl2"](privileged_critic=True)
    _, values = agent.evaluate(agent.sequence(trial(agent, 0.0)))
    values.sum().backward()
    assert all(parameter.grad is None for parameter in (*agent.network.actor.parameters(), agent.network.log_std))


def make_ppo(**given) -> Ppo:
    return Ppo(PpoSettings(hidden_sizes=(8,), **given), 2, 1, generator(), CPU, privileged=NAMES)


def steps_of(told: float, size: int = 12) -> Minibatch:
    """Random steps with privileged values of this mean."""
    observations = torch.cat([draw(size, 2), draw(size, 2, seed=1) + told], dim=-1)
    return Minibatch(observations, draw(size, 1, seed=2), *(draw(size, seed=3 + k) for k in range(4)))


def test_the_critic_of_ppo_alone_reads_what_is_privileged():
    agent = make_ppo(privileged_critic=True)
    assert agent.facts.informed and agent.input_moments.mean.shape == (4,)
    agent.input_moments.update(draw(50, 4, seed=9).double().numpy() + 1.0)
    policy = agent.model.policy
    (means, values), (same, others) = (evaluate(policy, steps_of(told).observations) for told in (0.0, 2.0))
    assert torch.equal(means, same) and not torch.isclose(values, others).any()
    seen = draw(3, 2, 2, seed=5)
    acted, _ = agent.act(agent.begin(3, 2, ()), seen, None)
    moments = agent.observation_moments(agent.begin(3, 2, ()))
    assert moments is not None and moments.mean.shape == (2,)
    own = (seen - moments.mean) / (moments.variance + EPSILON).sqrt()
    whole = torch.cat([own.float(), torch.zeros(3, 2, 2)], dim=-1)
    torch.testing.assert_close(acted, evaluate(policy, whole.flatten(0, 1))[0].view(3, 2, 1))
    module = agent.deployable(agent.begin(1, 1, ())).module
    torch.testing.assert_close(module(seen[:1, 0]), acted[:1, 0])


def test_the_gradient_of_ppo_written_out_is_autograds():
    agent = make_ppo(privileged_critic=True)
    policy, steps = agent.model.policy, steps_of(0.5)
    fill_gradients(policy, steps, agent.settings)
    ours = [parameter.grad.clone() for parameter in policy.parameters()]
    loss, _ = ppo_loss(policy, steps, agent.settings)
    for own, theirs in zip(ours, torch.autograd.grad(loss, tuple(policy.parameters())), strict=True):
        torch.testing.assert_close(own, theirs)


@pytest.mark.thorough
@pytest.mark.parametrize("simulator", ["cpu", pytest.param("gpu", marks=pytest.mark.slow)])
def test_ppo_trains_with_it_and_exports_the_observation_alone(simulator: str, tmp_path, monkeypatch):
    """And resumes to the same metrics; gpu: on Warp's CPU device."""
    monkeypatch.chdir(tmp_path)
    more = (
        "agent.privileged_critic=true",
        "agent.hidden_sizes=8",
        "agent.minibatches=2",
        f"training.simulator={simulator}",
    )
    command = ["train", "--agent", "ppo", "--family", "half_cheetah_mass", "tracking.wandb=disabled", *more, *TINY]
    assert cli.main([*command, "--name", "whole", "training.iterations=2"]) == 0
    run = load_run("runs/whole")
    assert isinstance(run.agent, Ppo) and run.agent.told == 1 and run.agent.input_moments.mean.shape == (21,)
    masses = run.agent.input_moments
    assert -1.0 <= masses.mean[-1] <= 1.0 and masses.var[-1] > 0.0
    assert cli.main([*command, "--name", "parts", "training.iterations=1"]) == 0
    assert cli.main(["train", "--resume", "runs/parts", "training.iterations=2"]) == 0
    for name in ("agent/value_loss", "return/after"):
        whole, parts = ([row[name] for row in read_metrics(Path("runs") / folder)] for folder in ("whole", "parts"))
        assert whole == parts
    assert cli.main(["export", "runs/whole", "--output", "policy.onnx"]) == 0
    (only,) = onnx.load("policy.onnx").graph.input
    assert [size.dim_value for size in only.type.tensor_type.shape.dim] == [1, 20]


def test_ppo_that_adapts_has_no_such_critic(tmp_path, monkeypatch, capsys):
    with pytest.raises(
        ValueError, match="privileged_critic: outside of a simulator nobody knows what this critic reads"
    ):
        make_ppo(privileged_critic=True, adaptation="fine_tune")
    monkeypatch.chdir(tmp_path)
    command = ["train", "--agent", "ppo", "--family", "half_cheetah_mass", "agent.privileged_critic=true", *TINY]
    assert cli.main([*command, "agent.adaptation=scratch"]) == 2
    assert "set adaptation to none" in capsys.readouterr().err and not Path("runs").exists()


def test_a_trial_or_a_family_without_privileged_values_is_refused():
    agent = MADE["rl2"](privileged_critic=True)
    with pytest.raises(ValueError, match="RL2 learns from privileged values, and the trial has none"):
        agent.sequence(trial(agent, None))
    nothing = Rl2(Rl2Settings(**SMALL, privileged_critic=True), 2, 1, generator(), CPU)
    with pytest.raises(ValueError, match="privileged_critic is true, and the family has neither parameters nor"):
        nothing.trainer(None)  # pyright: ignore[reportArgumentType]


@pytest.mark.thorough
def test_a_run_resumes_to_the_same_metrics_and_exports_no_more_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("agent.hidden_size=8", "agent.head_sizes=8", "tracking.wandb=disabled", "agent.minibatches=2", *TINY)
    command = ["train", "--agent", "rl2", "--family", "half_cheetah_mass", "agent.privileged_critic=true", *small]
    assert cli.main([*command, "--name", "whole", "training.iterations=4"]) == 0
    assert cli.main([*command, "--name", "parts", "training.iterations=2"]) == 0
    assert cli.main(["train", "--resume", "runs/parts", "training.iterations=4"]) == 0

    def learned(name: str) -> list[dict]:
        rows = read_metrics(Path("runs") / name)
        return [{k: v for k, v in row.items() if k.startswith(("train/", "agent/", "return"))} for row in rows]

    assert len(learned("whole")) == 4 and learned("whole") == learned("parts") and learned("whole")[3]
    assert cli.main(["export", "runs/whole", "--output", "policy.onnx"]) == 0
    inputs = {value.name for value in onnx.load("policy.onnx").graph.input}
    assert inputs == {"observation", "previous_action", "previous_reward", "episode_start", "episode_end", "hidden"}
