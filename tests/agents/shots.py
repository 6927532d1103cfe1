"""Small agents of every kind, and shots of random data that they adapt from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metarl.agents import beliefs
from metarl.agents.agent import Agent, Rollout
from metarl.agents.registry import make_agent
from tests.small_agents import PRIVILEGED, small_agent

CPU = torch.device("cpu")
OBSERVATION, ACTION, TASKS, ENVS, HORIZON = 3, 2, 4, 2, 6


def make(name: str, seed: int = 0, device: torch.device = CPU) -> Any:
    """A small agent; name: see `small_agent`."""
    generator = torch.Generator().manual_seed(seed)
    agent: Any = make_agent(small_agent(name), OBSERVATION, ACTION, generator, device, privileged=PRIVILEGED)
    if name.endswith(("film", "hypernetwork")):  # a policy that does not depend on what it knows, before training
        head = agent.networks.policy.head if name.startswith("pearl") else agent.network.actor
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.add_(0.1 * draw(*parameter.shape).to(device))
    return agent


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


def of_envs(shot: Rollout, envs: slice) -> Rollout:
    """The same shot of some of the envs of each task."""
    return shot.map(lambda name, x: x[:, envs] if name == "final_observations" else x[:, :, envs])


def generators(shots: int, tasks: slice = slice(TASKS)) -> list[torch.Generator]:
    """A generator for each task, by its place among all."""
    return [torch.Generator().manual_seed(TASKS * shots + m) for m in range(TASKS)[tasks]]


def begun(agent: Agent, tasks: slice = slice(TASKS), envs: int = ENVS) -> Any:
    """The belief about some of the tasks before any shot."""
    return agent.begin(len(range(TASKS)[tasks]), envs, generators(0, tasks))


def after(
    agent: Agent, tasks: slice = slice(TASKS), envs: slice = slice(ENVS), shots: Sequence[Rollout] | None = None
) -> Any:
    """The belief about some of the tasks and envs after shots that were played elsewhere; None: two random ones."""
    belief = begun(agent, tasks, len(range(ENVS)[envs]))
    for k, shot in enumerate([rollout(0), rollout(10)] if shots is None else shots):
        part = of_envs(shot.slice_tasks(tasks), envs)
        belief = agent.adapt(agent.read(belief, part).belief, part, generators(k + 1, tasks))
    return belief


def flat(state: Any, name: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries by their dotted names."""
    if isinstance(state, dict):
        return {key: x for part, value in state.items() for key, x in flat(value, f"{name}.{part}").items()}
    return {name: state}


def assert_close(ours: Any, theirs: Any, **tolerance: float) -> None:
    """Assert that two beliefs are alike."""
    ours, theirs = flat(beliefs.saved(ours)), flat(beliefs.saved(theirs))
    assert ours.keys() == theirs.keys()
    for name, x in ours.items():
        torch.testing.assert_close(x, theirs[name], **tolerance)
