"""Files of adapted beliefs: `metarl adapt` writes them; `metarl export`, `metarl watch` and `Run.start` read them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from metarl.agents import beliefs
from metarl.agents.agent import Agent, Belief
from metarl.agents.old_beliefs import upgraded
from metarl.config import RunConfig
from metarl.envs.family import TaskFamily
from metarl.envs.text import shown, typed
from metarl.errors import UsageError, describe
from metarl.files import make_folder
from metarl.runs import checkpoint
from metarl.runs.checkpoint import CheckpointError, is_finite


class PolicyOfRun(Protocol):
    """The policy of a run: see `metarl.runs.run.Run`."""

    directory: Path
    config: RunConfig
    family: TaskFamily
    iteration: int

    @property
    def agent(self) -> Agent:
        """The agent that acts."""
        ...


FOLDER = "beliefs"
"""Folder of belief files in a run's folder."""
NOT_FINITE = "not finite"
NOT_FINITE_REMEDY = "adapt from episodes with smaller numbers, from fewer, or with a smaller step size of the agent"
KEYS = ("belief", "agent", "family", "iteration", "adaptations")
"""Keys of a belief file."""
POLICY = "policy"
"""Key of the digest of the agent that the belief is of."""


def save_belief(path: Path, run: PolicyOfRun, belief: Belief, adaptations: int, source: str) -> None:
    """Write a belief about one task; source: the data it was adapted from, in words. UsageError if it is not finite."""
    state = beliefs.saved(belief)
    if not is_finite(state):
        raise UsageError(f"the belief adapted from {source} is {NOT_FINITE} and is not saved: {NOT_FINITE_REMEDY}")
    make_folder(path.parent, "--output")
    values = (state, run.config.agent_name, run.config.family_name, run.iteration, adaptations)
    more = {"source": source, POLICY: digest_of(run.agent)}
    checkpoint.save(path, {**dict(zip(KEYS, values, strict=True)), **more}, "--output")


def source_of(path: Path) -> str:
    """Return what the belief in a file was adapted from; empty without such a file."""
    try:
        return str(checkpoint.load(path).get("source", "")) if path.exists() else ""
    except CheckpointError:
        return ""


def digest_of(agent: Agent) -> str:
    """Return a digest of all that an agent has learned, which another agent's differs from."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Mapping):
            for key in sorted(value, key=str):
                digest.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for own in value:
                add(own)
        elif isinstance(value, torch.Tensor | np.ndarray):
            digest.update(np.ascontiguousarray(torch.as_tensor(value).detach().cpu().numpy()).tobytes())
        else:
            digest.update(repr(value).encode())

    add(agent.state_dict())
    return digest.hexdigest()


def load_belief(path: Path, run: PolicyOfRun) -> Belief:
    """Return the belief in a file; CheckpointError (a UsageError) if it holds none, or one of another policy."""
    if not path.exists():
        raise CheckpointError(f"no belief file {path}; metarl adapt {typed(run.directory)} --rollouts DIR makes one")
    state: dict[str, Any] = checkpoint.load(path)
    missing = [key for key in KEYS if key not in state]
    if missing:
        raise CheckpointError(f"{path} holds no belief, it lacks {', '.join(missing)}; metarl adapt writes such files")
    for name, ours in (("agent", run.config.agent_name), ("family", run.config.family_name)):
        if state[name] != ours:
            raise CheckpointError(f"the belief {path} is of the {name} {shown(state[name])}, this run of {ours!r}")
    if state["iteration"] != run.iteration:
        raise CheckpointError(
            f"the belief {path} was adapted from iteration {shown(state['iteration'])} of a policy, this is iteration "
            f"{run.iteration}; choose the --checkpoint that it was adapted from, or adapt again"
        )
    if state.get(POLICY, digest := digest_of(run.agent)) != digest:  # a file of before has none
        raise CheckpointError(
            f"the belief {path} was adapted from another policy, trained with another seed or trained anew; adapt this "
            "one"
        )
    if not is_finite(state["belief"]):
        raise CheckpointError(f"the belief {path} is {NOT_FINITE} and is not used: {NOT_FINITE_REMEDY}")
    try:
        belief = beliefs.load(run.agent, upgraded(state["belief"]))
        with torch.no_grad():  # about one task and one robot, or this fails
            action, _ = run.agent.act(belief, torch.zeros(1, 1, run.family.observation_size), None)
        if action.shape != (1, 1, run.family.action_size):
            raise ValueError(f"it is about tasks and envs {list(action.shape[:2])}, a robot is one")
        if not is_finite(action):
            raise ValueError(f"its actions are {NOT_FINITE}")
        return belief
    except (ValueError, KeyError, AttributeError, RuntimeError, TypeError, IndexError, OverflowError) as error:
        raise CheckpointError(f"the belief {path} does not fit the agent of this run: {describe(error)}") from error
