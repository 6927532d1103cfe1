"""Settings of the policy on the prototype."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.agents.rl2.settings import Rl2Block
from metarl.bounds import bounded


@dataclass(frozen=True, kw_only=True)
class PrototypeSettings(Rl2Block):
    """A policy that reads its task's prototype (Snell 2017), the mean of the embeddings of all steps on it so far.

    PPO trains policy and encoder, and a metric loss places episodes on one task together and those on others apart.
    """

    prototype_size: int = bounded(16, at_least=1)
    """Size of an embedding, and of the prototype."""
    step_sizes: tuple[int, ...] = bounded((64,), at_least=1, nonempty=True)
    """Widths of the hidden layers that embed a step: what was seen before it, the action, and what came of it."""
    prior_steps: float = bounded(1.0, above=0)
    """Weight, in steps, of the prototype 0 that a task has before the first step."""
    metric_weight: float = bounded(0.1, at_least=0)
    """Weight of the metric loss beside PPO's; it needs two episodes on a task. 0: PPO alone."""
