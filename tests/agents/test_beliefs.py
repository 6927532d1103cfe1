"""Beliefs of every agent: joined, saved and loaded by one piece of code."""

from __future__ import annotations

import copy
import dataclasses
import io
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from metarl.agents import beliefs
from metarl.agents.agent import Agent, Facts, Rollout
from metarl.agents.agent_settings import AgentSettings
from metarl.agents.maml.maml import MamlBelief
from metarl.agents.old_beliefs import upgraded
from metarl.agents.registry import AGENTS, make_agent
from metarl.agents.sb3.learner import moments_state
from metarl.agents.sb3.ppo import Ppo
from metarl.agents.sb3.tuned import of_task
from tests.small_agents import PRIVILEGED, small_agent

CPU = torch.device("cpu")
OBSERVATION, ACTION, TASKS, ENVS, HORIZON = 3, 2, 4, 2, 6

NAMES = [*AGENTS, "scratch"]
"""Every agent, and PPO that is trained from scratch on each task."""


def settings_of(name: str) -> AgentSettings:
    few: dict[str, Any] = {"adaptation_epochs": 2, "adaptation_minibatches": 2}
    return small_agent("ppo", adaptation="scratch", **few) if name == "scratch" else small_agent(name, **few)


def make(name: str) -> Any:
    return make_agent(
        settings_of(name), OBSERVATION, ACTION, torch.Generator().manual_seed(0), CPU, privileged=PRIVILEGED
    )


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rollout(seed: int) -> Rollout:
    """A shot of random data whose episodes last to the horizon."""
    shape = (HORIZON, TASKS, ENVS)
    observations, actions = draw(*shape, OBSERVATION, seed=seed), draw(*shape, ACTION, seed=seed + 1)
    truncated = torch.zeros(shape, dtype=torch.bool)
    truncated[-1] = True
    valid = torch.ones(shape, dtype=torch.bool)
    final = draw(TASKS, ENVS, OBSERVATION, seed=seed + 2)
    return Rollout(observations, actions, draw(*shape, seed=seed + 3), ~valid, truncated, valid, final)


def after(agent: Agent, tasks: slice = slice(TASKS), shots: int = 2) -> Any:
    """The belief about some of the tasks after shots that were played elsewhere."""
    belief = agent.begin(len(range(TASKS)[tasks]), ENVS, ())
    for shot in range(shots):
        part = rollout(10 * shot).slice_tasks(tasks)
        belief = agent.adapt(agent.read(belief, part).belief, part, ())
    return belief


def flat(state: Any, name: str = "") -> dict[str, Any]:
    if isinstance(state, dict):
        return {key: x for part, value in state.items() for key, x in flat(value, f"{name}.{part}").items()}
    return {name: state}


def assert_close(ours: Any, theirs: Any, **tolerance: float) -> None:
    ours, theirs = flat(beliefs.saved(ours)), flat(beliefs.saved(theirs))
    assert ours.keys() == theirs.keys()
    for name, x in ours.items():
        torch.testing.assert_close(x, theirs[name], **tolerance)


@pytest.mark.parametrize("name", NAMES)
class TestEveryAgent:
    def test_every_tensor_has_a_task_axis(self, name: str):
        state = flat(beliefs.saved(after(make(name))))
        tensors = [x for x in state.values() if isinstance(x, Tensor)]
        assert tensors
        assert {len(x) for x in tensors} == {TASKS}

    def test_shards_joined_in_any_order_are_the_whole(self, name: str):
        agent = make(name)
        parts = [after(agent, tasks) for tasks in (slice(3, 4), slice(0, 1), slice(1, 3))]
        joined = beliefs.join(parts, torch.tensor([1, 2, 3, 0]))
        whole = after(agent)
        assert_close(joined, whole, rtol=1e-4, atol=1e-5)
        seen = draw(TASKS, ENVS, OBSERVATION)
        torch.testing.assert_close(
            agent.act(joined, seen, None)[0], agent.act(whole, seen, None)[0], rtol=1e-4, atol=1e-5
        )
        rows = [x for x in flat(beliefs.saved(joined)).values() if isinstance(x, Tensor) and x.is_floating_point()]
        assert any(not torch.equal(x[0], x[1]) for x in rows)

    def test_a_file_gives_the_belief_back_to_the_bit(self, name: str):
        agent = make(name)
        belief, file = after(agent), io.BytesIO()
        torch.save(beliefs.saved(belief), file)
        file.seek(0)
        loaded = beliefs.load(agent, torch.load(file, weights_only=True))
        assert_close(loaded, belief, rtol=0, atol=0)
        seen, shot = draw(TASKS, ENVS, OBSERVATION), rollout(50)
        first, second = (agent.adapt(agent.act(b, seen, None)[1], shot, ()) for b in (loaded, belief))
        assert_close(first, second, rtol=0, atol=0)
        actions = [agent.act(b, seen, None)[0] for b in (loaded, belief, agent.begin(TASKS, ENVS, ()))]
        assert torch.equal(actions[0], actions[1])
        assert not torch.equal(actions[0], actions[2])

    def test_what_was_saved_is_not_changed_by_going_on(self, name: str):
        agent = make(name)
        state = beliefs.saved(after(agent))
        before = copy.deepcopy(state)
        agent.adapt(beliefs.load(agent, state), rollout(50), ())
        for name_, x in flat(state).items():
            torch.testing.assert_close(x, flat(before)[name_], rtol=0, atol=0)

    def test_a_state_that_does_not_fit_is_refused(self, name: str):
        agent = make(name)
        state = beliefs.saved(after(agent))
        with pytest.raises(ValueError, match="the belief holds .*other"):
            beliefs.load(agent, state | {"other": 1})
        with pytest.raises(ValueError, match="the belief holds nothing, not "):
            beliefs.load(agent, {})
        with pytest.raises(ValueError, match="the belief holds list, not "):
            beliefs.load(agent, [])


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
    assert set(beliefs.saved(belief)) == {"parameters", "steps"}
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
