"""Beliefs as data, with messages about those that do not fit; those of every agent: test_every_agent.py."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from metarl.agents import beliefs
from metarl.agents.agent import Agent, Facts
from metarl.agents.maml.maml import MamlBelief
from metarl.agents.old_beliefs import upgraded
from metarl.agents.sb3.learner import moments_state
from metarl.agents.sb3.ppo import Ppo
from metarl.agents.sb3.tuned import of_task
from tests.agents.shots import TASKS, after, assert_close, begun, make, rollout


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("maml", {"parameters": torch.zeros(4, 7)}, r"parameters has shape \(4, 7\), here it is \[M, 52\]"),
        ("maml", {"parameters": torch.zeros(52)}, r"parameters has shape \(52,\), here it is \[M, 52\]"),
        ("maml", {"parameters": [0.0]}, "parameters is of type list, not a tensor"),
        ("maml", {"steps": "one"}, "steps is of type str, not int"),
        ("rl2", {"memory": {"hidden": torch.zeros(4, 2, 9)}}, r"memory.hidden has shape .* here it is \[M, N, 8\]"),
        ("rl2", {"memory": {"cell": torch.zeros(4, 2, 8)}}, "the belief's memory holds cell, not hidden"),
        ("ppo", {"tuned": {}}, "the belief's tuned holds nothing, not policy, "),
    ],
)
def test_the_message_names_what_does_not_fit(name: str, change: dict[str, Any], message: str):
    agent = make(name)
    with pytest.raises(ValueError, match=message):
        beliefs.load(agent, beliefs.saved(after(agent)) | change)


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


@dataclass(frozen=True)
class Posterior:
    """A belief of every kind of part; the context grows with the shots."""

    mean: Tensor
    context: Tensor
    parts: dict[str, tuple[Pair, ...]]
    shots: int = 0
    replayed: tuple[Tensor, ...] = field(default=(), metadata=beliefs.NOT_SAVED)

    @cached_property
    def double(self) -> Tensor:
        return 2 * self.mean


def posterior(tasks: int, context: int = 0, start: float = 0.0, shots: int = 0) -> Posterior:
    rows = start + torch.arange(tasks, dtype=torch.float32)
    pair = Pair(rows.view(-1, 1), -rows)
    wide = rows.view(-1, 1, 1).expand(tasks, context, 2)
    return Posterior(rows.view(-1, 1).repeat(1, 3), wide, {"a": (pair,)}, shots, (rows,) * shots)


PROBABILISTIC: Any = SimpleNamespace(begin=lambda tasks, envs, generators: posterior(tasks), facts=Facts())
"""As much of an agent as loading asks for."""


def test_any_dataclass_of_tensors_is_joined():
    parts = [posterior(2, 5, 0.0, 1), posterior(1, 5, 2.0, 1)]
    assert parts[0].double[1, 0] == 2
    joined = beliefs.join(parts, torch.tensor([2, 0, 1]))
    rows = torch.tensor([2.0, 0.0, 1.0])
    assert torch.equal(joined.mean[:, 0], rows) and torch.equal(joined.context[:, 4, 1], rows)
    assert torch.equal(joined.parts["a"][0].second, -rows) and joined.shots == 1
    assert torch.equal(joined.replayed[0], rows)
    assert torch.equal(joined.double[:, 0], 2 * rows)


def test_beliefs_after_different_numbers_of_shots_are_not_joined():
    with pytest.raises(ValueError, match="beliefs with different plain values cannot be joined: 1, 0"):
        beliefs.join([posterior(1, shots=1), posterior(1)], torch.tensor([0, 1]))


def test_any_dataclass_of_tensors_is_saved_and_loaded():
    belief = posterior(3, 7, shots=2)
    state = beliefs.saved(belief)
    assert set(state) == {"mean", "context", "parts", "shots"}
    assert state["context"].untyped_storage().nbytes() == 4 * 3 * 7 * 2
    loaded = beliefs.load(PROBABILISTIC, state)
    assert_close(loaded, belief, rtol=0, atol=0)
    assert isinstance(loaded.parts["a"][0], Pair) and loaded.replayed == ()
    with pytest.raises(ValueError, match=r"the belief's context has shape \(3, 7, 9\), here it is \[M, any, 2\]"):
        beliefs.load(PROBABILISTIC, state | {"context": torch.zeros(3, 7, 9)})


def test_what_a_belief_cannot_hold_is_named():
    with pytest.raises(TypeError, match="a belief holds a list; it must be made of tensors"):
        beliefs.saved(dataclasses.replace(posterior(1), parts={"a": ([1],)}))


def test_data_for_the_outer_step_is_joined_and_not_saved():
    agent = make("maml")
    belief = after(agent)
    assert isinstance(belief, MamlBelief) and len(belief.batches) == 2
    joined = beliefs.join([after(agent, slice(2, 4)), after(agent, slice(0, 2))], torch.tensor([2, 3, 0, 1]))
    for ours, theirs in zip(joined.batches, belief.batches, strict=True):
        for x, y in zip(ours, theirs, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)
    assert set(beliefs.saved(belief)) == {"parameters", "steps", "rule"}
    assert beliefs.load(agent, beliefs.saved(belief)).batches == ()


class TestOldFiles:
    def same(self, agent: Agent, old: dict[str, Any], belief: Any) -> None:
        assert_close(beliefs.load(agent, upgraded(old)), belief, rtol=0, atol=0)

    def test_of_maml_are_as_they_are_now(self):
        belief = after(agent := make("maml"))
        self.same(agent, {"parameters": belief.parameters, "steps": 2}, belief)

    @pytest.mark.parametrize("name", ["rl2", "recurrent_ppo"])
    def test_of_a_memory_held_states_and_other_fields_side_by_side(self, name: str):
        belief = after(agent := make(name))
        others = {n: getattr(belief, n) for n in ("previous_action", "previous_reward", "start", "ended")}
        self.same(agent, {**belief.memory, **others}, belief)

    @pytest.mark.parametrize("empty", [False, True])
    def test_of_a_prototype_did_not_say_whether_there_was_a_slot_before(self, empty: bool):
        """Of one that has met nothing too: the flag of a start says so."""
        agent = make("prototype")
        belief = begun(agent) if empty else after(agent)
        old = beliefs.saved(belief)
        del old["memory"]["previous_known"]
        loaded = beliefs.load(agent, upgraded(old))
        shot = rollout(20)
        torch.testing.assert_close(*(agent.read(own, shot).means for own in (loaded, belief)), rtol=0, atol=0)

    @pytest.mark.parametrize("name", ["ppo", "scratch"])
    def test_of_ppo_held_a_list_of_policies(self, name: str):
        belief = after(agent := make(name))
        assert isinstance(agent, Ppo)
        tuned = []
        for own in (of_task(belief.tuned, m, agent.model.policy) for m in range(TASKS)):
            policy, optimiser = own.policy.state_dict(), own.policy.optimizer.state_dict()
            moments = {"inputs": moments_state(own.inputs), "returns": moments_state(own.returns)}
            tuned.append({"policy": policy, "optimiser": optimiser, **moments})
        self.same(agent, {"num_tasks": TASKS, "shots": 2, "tuned": tuned}, belief)

    def test_of_ppo_before_any_shot_say_what_to_do(self):
        with pytest.raises(ValueError, match="start without a belief instead"):
            upgraded({"num_tasks": 1, "shots": 0, "tuned": []})
