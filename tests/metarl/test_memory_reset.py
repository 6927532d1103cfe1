"""What an agent does that may not remember: of every agent, against loops made by hand, and in files and reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.registry import AGENTS, make_agent
from metarl.agents.rl2.rl2 import Rl2
from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.sb3.settings import PpoSettings
from metarl.agents.slots import slots
from metarl.cli import app as cli
from metarl.config import RESET_WORDS, RunConfig
from metarl.envs.batch import BatchedEnv
from metarl.envs.registry import make_family
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.sharded import ShardedEnv
from metarl.evaluation.comparison import Compared
from metarl.evaluation.saved import read_comparison, read_evaluation
from metarl.reporting.report.reading import gather
from metarl.runs.trial import TrialResult, run_trial, streams
from tests.metarl.test_draws import POINT, Drawn, Sampler
from tests.small_agents import PRIVILEGED, small_agent, small_options

CPU = torch.device("cpu")
FAMILY = make_family(PointGoalSettings(horizon=8))
TASKS = [FAMILY.task({"goal_x": x, "goal_y": 0.0}) for x in (0.0, 0.3, -0.3)]
"""A policy that hardly moves reaches the first at once."""


def make(name: str):
    sizes = FAMILY.observation_size, FAMILY.action_size
    return make_agent(small_agent(name), *sizes, torch.Generator().manual_seed(0), CPU, privileged=PRIVILEGED)


def play(agent, rngs=None, adaptations: int = 2, threads: int = 1, **options) -> TrialResult:
    env = ShardedEnv(FAMILY, 3, 2, threads)
    env.set_tasks(TASKS)
    return run_trial(env, agent, rngs or streams(1, "test", 0, 3), adaptations, **options)


def actions(result: TrialResult) -> Tensor:
    return torch.stack([rollout.actions * rollout.valid.unsqueeze(-1) for rollout in result.trial.rollouts])


@pytest.mark.parametrize("name", AGENTS)
class TestEveryAgent:
    def test_with_its_memory_reset_it_plays_every_episode_as_its_first(self, name: str):
        """To the bit, where the agent draws nothing: the generators of later shots are others."""
        agent = make(name)
        rngs = streams(1, "test", 0, 3)
        firsts = [play(agent, rngs, adaptations=0) for _ in range(3)]
        reset = play(agent, reset_memory="episode")
        if not agent.facts.samples_belief:
            torch.testing.assert_close(actions(reset), torch.cat([actions(r) for r in firsts]), rtol=0, atol=0)
        if agent.facts.adapts:
            assert not torch.equal(actions(reset), actions(play(agent)))

    def test_what_it_forgets_before_an_action_is_what_it_learned_in_the_episode(self, name: str):
        agent = make(name)
        episode, step = (actions(play(agent, reset_memory=reset)) for reset in ("episode", "step"))
        assert torch.equal(episode, step) is not agent.facts.belief_per_env
        torch.testing.assert_close(episode[0, 0], step[0, 0], rtol=0, atol=0)  # the first action of all

    def test_shards_forget_alike(self, name: str):
        agent = make(name)
        for reset in ("episode", "step"):
            one, two = (actions(play(agent, threads=threads, reset_memory=reset)) for threads in (1, 2))
            torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_an_agent_without_memory_has_nothing_to_forget():
    settings = PpoSettings(hidden_sizes=(8,))
    agent = make_agent(settings, FAMILY.observation_size, FAMILY.action_size, torch.Generator().manual_seed(0), CPU)
    assert not agent.facts.adapts
    first, *others = (actions(play(agent, reset_memory=reset)) for reset in ("never", "episode", "step"))
    assert all(torch.equal(first, other) for other in others)


def test_rl2_reads_every_slot_with_an_empty_memory():
    """A loop by hand on the network itself: the previous action and reward are kept, the memory is not."""
    settings = Rl2Settings(hidden_size=8, head_sizes=(8,))
    agent = Rl2(settings, FAMILY.observation_size, FAMILY.action_size, torch.Generator().manual_seed(0), CPU)
    result = play(agent, reset_memory="step", explore=False)
    rngs = streams(1, "test", 0, 3)
    env = BatchedEnv(FAMILY, 3, 2, 1)
    env.set_tasks(TASKS)
    network = agent.network
    ended_early = False
    for rollout in result.trial.rollouts:
        observation = torch.from_numpy(env.reset(rngs).copy())
        for rng in rngs:  # the noise is drawn, and not used
            rng.standard_normal((8, 2, FAMILY.action_size), dtype=np.float32)
        action, reward = torch.zeros(3, 2, FAMILY.action_size), torch.zeros(3, 2)
        for t in range(8):
            flag, taken = torch.full((3, 2), float(t == 0)), torch.from_numpy(env.active.copy())
            if not taken.any():
                break
            ended_early |= not bool(taken.all())
            inputs = slots(observation, action, reward, flag, torch.zeros(3, 2)).flatten(0, 1)
            with torch.no_grad():
                features, _ = network.step(inputs, network.core.initial(6))
                action = network.means(features).unflatten(0, (3, 2))
            torch.testing.assert_close(rollout.actions[t][taken], action[taken], rtol=1e-4, atol=1e-7)
            step = env.step(action.numpy())
            observation, reward = torch.from_numpy(step.observations.copy()), torch.from_numpy(step.rewards.copy())
    assert ended_early
    assert not torch.allclose(actions(result), actions(play(agent, explore=False)), rtol=1e-2)


class Forgetful(Sampler):
    """A `Sampler` that forgets."""

    def forget(self, belief: Drawn, begun: Drawn) -> Drawn:
        return begun


def test_an_agent_that_draws_takes_one_draw_an_episode_from_what_it_knew_at_first():
    agent = Forgetful(POINT.action_size)
    for reset in ("episode", "step"):
        result = play(agent, reset_memory=reset, explore=False)
        drawn = actions(result)[:, 0, :, 0]  # [K, M, act]
        torch.testing.assert_close(drawn, torch.stack([belief.action for belief in result.trial.beliefs]))
        assert all(torch.equal(belief.std, torch.ones(3, 1)) for belief in result.trial.beliefs)
        assert len(drawn.flatten().unique()) == drawn.numel()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, tiny) -> Path:
    folder = tmp_path_factory.mktemp("reset")
    arguments = ["--agent", "rl2", "--family", "point_goal", *tiny, *small_options("rl2"), "training.iterations=1"]
    arguments += ["--runs-dir", str(folder), "--name", "r", "tracking.wandb=disabled"]
    assert cli.main(["train", *arguments]) == 0
    return folder / "r"


@pytest.mark.thorough
def test_an_evaluation_with_reset_is_kept_apart_and_says_so(run_dir: Path, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = run_dir / "evaluation"
    plain = folder / "held_out_seeds1_iteration000001.json"
    before = plain.read_bytes()
    for reset, when in (("step", "action"), ("episode", "episode")):
        capsys.readouterr()
        assert cli.main(["evaluate", str(run_dir), "--reset-memory", reset, "--no-train-gap"]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert f"point_goal, held-out tasks, memory reset before every {when}, run r at iteration 1" in said
        assert f"(evaluation.reset_memory={reset}): the gain is not one of adaptation" in said
        assert "do not show that adaptation helps" not in said and "adaptation makes this agent worse" not in said
        found = read_evaluation(folder / f"held_out_seeds1_reset_{reset}_iteration000001.json")
        assert found.settings.reset_memory == reset
        assert f"evaluation/reset_{reset}/return_0" in found.scalars and "evaluation/return_0" not in found.scalars
    assert plain.read_bytes() == before
    data = json.loads(before)
    del data["evaluation"]["reset_memory"]  # as an older version wrote it
    old = tmp_path / "old.json"
    old.write_text(json.dumps(data))
    assert read_evaluation(old).settings.reset_memory == "never"
    titles = [own.conditions for own in gather([run_dir]).comparisons]
    assert sorted(titles) == sorted([("point_goal", "held_out", words) for words in RESET_WORDS.values()])


@pytest.mark.thorough
def test_a_run_is_compared_with_itself_without_memory(run_dir: Path, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rows = [str(run_dir), f"{run_dir}:evaluation.reset-memory=step", f"{run_dir}:evaluation.reset_memory=episode"]
    assert cli.main(["evaluate", *rows, "--no-train-gap", "--output", "c"]) == 0
    comparison = read_comparison(tmp_path / "c/comparison.json")
    assert [agent.label for agent in comparison.agents] == ["r", "r:reset_memory=step", "r:reset_memory=episode"]
    assert [agent.reset_memory for agent in comparison.agents] == ["never", "step", "episode"]
    assert any("r:reset_memory=step: memory reset before every action" in note for note in comparison.notes)
    own = read_evaluation(run_dir / "evaluation/held_out_seeds1_iteration000001.json")
    assert (comparison.agents[0].result.returns == own.returns).all()
    data = comparison.agents[1].to_dict()
    del data["reset_memory"]
    assert Compared.from_dict(data).reset_memory == "never"
    with pytest.raises(ValueError, match="reset_memory is 'now'"):
        Compared.from_dict(data | {"reset_memory": "now"})
    of_all = [
        "evaluate",
        str(run_dir),
        f"{run_dir}:label=again",
        "--reset_memory=step",
        "--no-train-gap",
        "--output",
        "all",
    ]
    assert cli.main(of_all) == 0
    assert "memory reset before every action" in capsys.readouterr().out
    assert {agent.reset_memory for agent in read_comparison(tmp_path / "all/comparison.json").agents} == {"step"}
    assert "step" in (tmp_path / "all/comparison.csv").read_text().splitlines()[1].split(",")


def test_a_wrong_value_is_told_in_one_line(run_dir: Path, capsys):
    assert cli.main(["evaluate", str(run_dir), "--reset-memory", "sometimes"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "--reset-memory is 'sometimes'" in message and "never, episode, step" in message
    assert RunConfig().evaluation.reset_memory == "never"
