"""Trials as sequences, and sums over them: each against a plain loop over one env at a time."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from metarl.agents.agent import Rollout, Trial
from metarl.agents.cores.registry import CORES
from metarl.agents.rl2.rl2 import Rl2
from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.slots import SlotBelief
from metarl.agents.trial_ppo.learner import Targets
from metarl.agents.trial_ppo.sequence import (
    TrialSequence,
    cut,
    discounted_sums,
    joined,
    lay_out,
    sums_of_later,
    trial_gae,
)

CPU = torch.device("cpu")
OBSERVATION, ACTION, TASKS, ENVS, HORIZON = 3, 2, 2, 2, 4
LENGTHS = (torch.tensor([[4, 2], [1, 3]]), torch.tensor([[2, 4], [4, 1]]))
FIELDS = ("inputs", "actions", "rewards", "steps", "ending")


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def trial_of(lengths: tuple[Tensor, ...]) -> Trial:
    """A trial of random data, whose episodes last `lengths` [M, N]; what is not valid is drawn too."""
    shape, rollouts = (HORIZON, TASKS, ENVS), []
    for shot, length in enumerate(lengths):
        time = torch.arange(HORIZON).view(-1, 1, 1)
        rollouts.append(
            Rollout(
                observations=draw(*shape, OBSERVATION, seed=10 * shot),
                actions=draw(*shape, ACTION, seed=10 * shot + 1),
                rewards=draw(*shape, seed=10 * shot + 2),
                terminated=time == length - 1,
                truncated=torch.zeros(shape, dtype=torch.bool),
                valid=time < length,
                final_observations=draw(TASKS, ENVS, OBSERVATION, seed=10 * shot + 3),
            )
        )
    empty = torch.zeros(TASKS, ENVS, dtype=torch.bool)
    memory = {"hidden": torch.arange(TASKS * ENVS * 5.0).view(TASKS, ENVS, 5)}
    belief = SlotBelief(memory, torch.zeros(TASKS, ENVS, ACTION), torch.zeros(TASKS, ENVS), ~empty, empty)
    return Trial(rollouts, [belief] * len(rollouts))


def rows_of(trial: Trial, m: int, n: int, discount: float) -> list[tuple[Tensor, Tensor, float, bool, float]]:
    """Inputs, action, reward, whether it is a step, and ending of the slots of one env that were taken, in order."""
    rows, shots = [], len(trial.rollouts)
    for k, rollout in enumerate(trial.rollouts):
        action, reward = torch.zeros(ACTION), 0.0
        length = int(rollout.valid[:, m, n].sum())
        for t in [*range(length), HORIZON]:
            last = t == HORIZON
            seen = rollout.final_observations[m, n] if last else rollout.observations[t, m, n]
            inputs = torch.cat([seen, action, torch.tensor([reward, float(t == 0), float(last)])])
            if not last:
                action, reward = rollout.actions[t, m, n], float(rollout.rewards[t, m, n])
            left = (HORIZON + 1) * (shots - k) - 1 - t - (shots - k - 1)
            rows.append((inputs, torch.zeros(ACTION) if last else action, 0.0 if last else reward, not last, left))
    return [(*row[:4], discount ** row[4]) for row in rows]


@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[:1], (torch.full((TASKS, ENVS), HORIZON),) * 3])
def test_a_trial_is_laid_out_as_its_slots_in_turn(lengths: tuple[Tensor, ...]) -> None:
    trial = trial_of(lengths)
    sequence = lay_out(trial, 0.9, CPU)
    for env in range(TASKS * ENVS):
        rows = rows_of(trial, *divmod(env, ENVS), discount=0.9)
        for name, expected in zip(FIELDS, zip(*rows, strict=True), strict=True):
            found = getattr(sequence, name)[: len(rows), env]
            values = torch.stack(expected) if isinstance(expected[0], Tensor) else torch.tensor(expected)
            torch.testing.assert_close(found, values)
        assert not sequence.steps[len(rows) :, env].any()
    torch.testing.assert_close(sequence.memory["hidden"], torch.arange(TASKS * ENVS * 5.0).view(-1, 5))


def test_without_a_discount_the_critic_is_told_the_share_of_the_trial_that_is_over() -> None:
    ending = lay_out(trial_of((torch.full((TASKS, ENVS), HORIZON),) * 2), 1.0, CPU).ending
    expected = torch.tensor([0, 1, 2, 3, 4, 4, 5, 6, 7, 8]) / 8
    torch.testing.assert_close(ending, expected.unsqueeze(-1).expand(-1, TASKS * ENVS))


def test_an_env_that_was_flagged_in_any_shot_is_left_out() -> None:
    trial = trial_of(LENGTHS)
    whole = lay_out(trial, 0.9, CPU)
    trial.rollouts[1].valid[:, 0, 1] = False
    rest, kept = lay_out(trial, 0.9, CPU), torch.tensor([0, 2, 3])
    for name in FIELDS:
        found, expected = getattr(rest, name), getattr(whole, name)[:, kept]
        torch.testing.assert_close(found[whole.steps[:, kept]], expected[whole.steps[:, kept]])
    torch.testing.assert_close(rest.memory["hidden"], whole.memory["hidden"][kept])


def test_padding_is_what_no_env_took() -> None:
    short = tuple(length.clamp(max=2) for length in LENGTHS)
    whole = lay_out(trial_of(short), 0.9, CPU)
    extra = {"beside": draw(*whole.steps.shape, 3)}
    found = dataclasses.replace(whole, extra=extra).without_padding()
    most = max(int(a + b) for a, b in zip(*(length.flatten() for length in short), strict=True)) + 2  # an end each
    assert len(found.steps) == most < len(whole.steps)
    for name in FIELDS:
        assert torch.equal(getattr(found, name), getattr(whole, name)[:most])
    assert torch.equal(found.extra["beside"], extra["beside"][:most])
    full = lay_out(trial_of((torch.full((TASKS, ENVS), HORIZON),) * 2), 0.9, CPU)
    assert len(full.without_padding().steps) == len(full.steps)
    none = full.of_envs(torch.empty(0, dtype=torch.int64))
    assert none.without_padding().steps.shape == (len(full.steps), 0)


def test_padding_changes_no_target() -> None:
    settings = Rl2Settings(hidden_size=8, head_sizes=(8,), observation_embedding=4, action_embedding=4)
    agent = Rl2(settings, OBSERVATION, ACTION, torch.Generator().manual_seed(0), CPU)
    rollouts = trial_of(tuple(length.clamp(max=2) for length in LENGTHS)).rollouts
    whole = agent.sequence(Trial(rollouts, [agent.begin(TASKS, ENVS, ())] * 2))
    short = whole.without_padding()
    assert len(short.steps) < len(whole.steps)
    found, expected = agent._targets(short, short), agent._targets(whole, whole)
    for f in dataclasses.fields(found):
        ours, theirs = getattr(found, f.name)[short.steps], getattr(expected, f.name)[whole.steps]
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 11, 12, 50])
def test_pieces_are_those_of_the_trials_one_trial_after_the_other(length: int) -> None:
    values = draw(12, 3, 2)
    pieces = cut(values, length)
    count = -(-12 // length)
    assert pieces.shape == (length, 3 * count, 2) and torch.equal(joined(pieces, 12), values)
    for b in range(3):
        for k in range(count):
            own = values[k * length : (k + 1) * length, b]
            piece = pieces[:, b * count + k]
            assert torch.equal(piece[: len(own)], own) and not piece[len(own) :].any()


@pytest.mark.parametrize("memory", CORES)
def test_pieces_are_read_with_the_memory_that_was_there_and_have_the_targets_of_the_trials(memory: str) -> None:
    small = {"hidden_size": 8, "head_sizes": (8,), "observation_embedding": 4, "action_embedding": 4}
    settings = Rl2Settings(memory=memory, history_length=3, attention_window=5, chunk=3, **small)
    agent = Rl2(settings, OBSERVATION, ACTION, torch.Generator().manual_seed(0), CPU)
    trial = Trial(trial_of(LENGTHS).rollouts, [agent.begin(TASKS, ENVS, ())] * 2)
    whole = agent.sequence(trial)
    pieces = agent.pieces(whole, remembering=True)
    slots = len(whole.steps)
    assert slots % 3 and pieces.steps.shape == (3, whole.steps.shape[1] * -(-slots // 3))
    with torch.no_grad():
        for ours, theirs in zip(agent.evaluate(pieces), agent.evaluate(whole), strict=True):
            torch.testing.assert_close(joined(ours, slots), theirs, rtol=1e-4, atol=1e-5)
    found, expected = agent._targets(whole, pieces), agent._targets(whole, whole)
    for f in dataclasses.fields(found):
        ours, theirs = joined(getattr(found, f.name), slots), getattr(expected, f.name)
        torch.testing.assert_close(ours[whole.steps], theirs[whole.steps], rtol=1e-4, atol=1e-5)


def test_minibatches_are_of_pieces_that_have_a_step_and_each_is_learned_from_once_a_pass() -> None:
    settings = Rl2Settings(hidden_size=8, head_sizes=(8,), chunk=2, minibatches=3, epochs=2)
    agent = Rl2(settings, OBSERVATION, ACTION, torch.Generator().manual_seed(0), CPU)
    trial = Trial(trial_of(LENGTHS).rollouts, [agent.begin(TASKS, ENVS, ())] * 2)
    met, step = [], agent._step

    def spied(sequence: TrialSequence, targets: Targets, count: int) -> dict[str, float]:
        assert sequence.steps.any(dim=0).all() and len(sequence.steps) == 2 and count == sequence.steps.sum()
        met.append(sequence.rewards[sequence.steps])
        return step(sequence, targets, count)

    agent._step = spied
    agent.meta_update(trial, torch.Generator().manual_seed(1))
    whole = agent.sequence(trial)
    assert len(met) == 6
    for part in (met[:3], met[3:]):
        assert torch.equal(torch.cat(part).sort().values, whole.rewards[whole.steps].sort().values)


def test_a_piece_as_long_as_a_trial_is_the_trial() -> None:
    after = []
    for chunk in (0, 2 * HORIZON + 2):
        settings = Rl2Settings(hidden_size=8, head_sizes=(8,), chunk=chunk, minibatches=2, epochs=2)
        agent = Rl2(settings, OBSERVATION, ACTION, torch.Generator().manual_seed(0), CPU)
        trial = Trial(trial_of(LENGTHS).rollouts, [agent.begin(TASKS, ENVS, ())] * 2)
        agent.meta_update(trial, torch.Generator().manual_seed(1))
        after.append(agent.network.state_dict())
    for name, value in after[0].items():
        torch.testing.assert_close(after[1][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 9, 402])
@pytest.mark.parametrize("factor", [0.0, 0.9405, 1.0])
def test_sums_of_later_rows_are_those_of_a_loop(length: int, factor: float) -> None:
    values = draw(length, 3, dtype=torch.float64)
    expected, running = torch.empty_like(values), torch.zeros(3, dtype=torch.float64)
    for t in reversed(range(length)):
        running = values[t] + factor * running
        expected[t] = running
    torch.testing.assert_close(sums_of_later(values, factor), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sums_of_later(values.float(), factor), expected.float(), rtol=1e-6, atol=1e-5)


def test_advantages_are_those_of_a_loop_over_each_envs_steps() -> None:
    rewards, values = (draw(402, 5, seed=seed, dtype=torch.float64) for seed in (1, 2))
    steps = draw(402, 5, seed=3) > -0.5
    advantages = trial_gae(rewards, values, steps, 0.99, 0.95)
    assert (advantages[~steps] == 0).all()
    for env in range(5):
        after = running = 0.0
        for t in reversed(steps[:, env].nonzero().flatten().tolist()):
            delta = float(rewards[t, env]) + 0.99 * after - float(values[t, env])
            after, running = float(values[t, env]), delta + 0.99 * 0.95 * running
            assert float(advantages[t, env]) == pytest.approx(running, rel=1e-9, abs=1e-12)


def test_discounted_sums_are_those_of_a_loop_over_each_envs_steps() -> None:
    rewards, steps = draw(50, 4, seed=1, dtype=torch.float64), draw(50, 4, seed=2) > 0.0
    expected = torch.zeros_like(rewards)
    for env in range(4):
        running = 0.0
        for place, t in enumerate(steps[:, env].nonzero().flatten().tolist()):
            running = float(rewards[t, env]) + 0.9 * running
            expected[place, env] = running
    most = int(steps.sum(0).max())
    taken = torch.arange(50).unsqueeze(1) < steps.sum(0)
    torch.testing.assert_close(discounted_sums(rewards, steps, 0.9), expected[:most][taken[:most]])
