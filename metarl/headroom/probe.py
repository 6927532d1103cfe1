"""How far the task moves the action that is right, by an oracle that is trained a little: before any study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from metarl.agents.agent import Agent
from metarl.envs.family import TaskFamily
from metarl.envs.parameters import Split
from metarl.envs.reveal import told_columns
from metarl.envs.sharded import ShardedEnv
from metarl.runs.trial import run_trial, streams

TASKS, STATES = 24, 600
"""Number of tasks, and of states on which an oracle is told each of them."""


@dataclass(frozen=True)
class Probe:
    """Spread over tasks of an oracle's actions on the same states, as a share of that over all states and tasks."""

    whole: float
    """With the whole task told: 0 if the action does not depend on it."""
    by_parameter: dict[str, float]
    """With one parameter told anew and the others left as they are, by parameter; largest first."""


def probe(agent: Agent, family: TaskFamily, seed: int, threads: int = 1, splits: Sequence[Split] = ("train",)) -> Probe:
    """Return the spread of an oracle's actions; agent: without a memory. family: as `reveal` returned it.

    splits: whose tasks the oracle met in training; it is told those of each equally often.

    On states s that the oracle visits on T tasks, a(s, theta_j) is its mean action when it is told task j:

        spread = sqrt(mean over s and actions of var_j a(s, theta_j)) / sqrt(mean over actions of var a)
    """
    env = ShardedEnv(family, TASKS, 1, threads)
    rng = np.random.default_rng(seed)
    tasks = [task for split in splits for task in family.sample(TASKS // len(splits), rng, split)]
    env.set_tasks(tasks)
    rollout = run_trial(env, agent, streams(seed, "probe", 0, TASKS), 0, explore=False, lives=True).trial.rollouts[0]
    seen = rollout.observations[rollout.valid]
    generator = np.random.default_rng(seed)
    seen = seen[torch.from_numpy(generator.permutation(len(seen))[:STATES])]
    columns = told_columns(family)
    if not columns:
        return Probe(0.0, {})
    where = torch.tensor([k for places in columns.values() for k in places])
    told = _told_at_some_time(rollout.observations[:, :, 0], rollout.valid[:, :, 0], seed)
    whole = actions(agent, _told_anew(seen, where, told[:, where]))
    total = whole.flatten(0, 1).var(dim=0).mean().sqrt().item()
    by_parameter = {}
    for name, places in columns.items():
        own = torch.tensor(places)
        by_parameter[name] = _spread(actions(agent, _told_anew(seen, own, told[:, own])))
    order = sorted(by_parameter, key=lambda name: -by_parameter[name])
    scale = max(total, 1e-12)
    return Probe(_spread(whole) / scale, {name: by_parameter[name] / scale for name in order})


def _told_at_some_time(observations: torch.Tensor, valid: torch.Tensor, seed: int) -> torch.Tensor:
    """Return an observation of each task [T, obs] at a time of its own, as a fault may begin later: of [L, T, obs]."""
    generator = np.random.default_rng((seed, TASKS))
    times = torch.from_numpy(generator.integers(valid.sum(dim=0).clamp(min=1).numpy()))
    return observations[times, torch.arange(len(times))]


def _told_anew(seen: torch.Tensor, where: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """Return observations [T, S, obs]: those seen [S, obs], with columns `where` as each of T tasks has them."""
    anew = seen.expand(len(told), *seen.shape).clone()
    anew[:, :, where] = told[:, None]
    return anew


@torch.no_grad()
def actions(agent: Agent, observations: torch.Tensor) -> torch.Tensor:
    """Return the mean actions [T, S, act] on observations [T, S, obs]."""
    num_tasks, num_states = observations.shape[:2]
    belief = agent.begin(num_tasks, num_states, [torch.Generator() for _ in range(num_tasks)])
    return agent.act(belief, observations.to(agent.device), None)[0].cpu()


def _spread(taken: torch.Tensor) -> float:
    """Return the spread over tasks of actions [T, S, act]."""
    return taken.var(dim=0).mean().sqrt().item()


def words(found: Probe, most: int = 5) -> Sequence[str]:
    """Return what a probe found, in lines."""
    lines = [f"told another task, the oracle's action moves by {found.whole:.2f} of its spread over all states"]
    named = list(found.by_parameter.items())[:most]
    if len(named) > 1:
        lines[0] += f", most by {named[0][0]}: the first to widen where adaptation can gain little"
    return [*lines, *(f"  {name}: {value:.2f}" for name, value in named)]


def most_moving(lines: Sequence[str]) -> str:
    """Return the parameter that moves the actions most, of the `words` of a probe; empty where none is told."""
    return lines[1].partition(":")[0].strip() if len(lines) > 1 else ""
