"""Settings of PPO, for every agent that is trained with it."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.agents.agent_settings import AgentSettings
from metarl.bounds import bounded


@dataclass(frozen=True, kw_only=True)
class PpoBlock(AgentSettings):
    """Settings that every PPO has (Schulman 2017)."""

    initial_std: float = bounded(1.0, above=0)
    """Initial standard deviation of the policy, in units of its action."""
    discount: float = bounded(0.99, at_least=0, at_most=1)
    """Discount per step, across the episodes of a trial."""
    gae_lambda: float = bounded(0.95, at_least=0, at_most=1)
    """Lambda of generalised advantage estimation (Schulman 2016), across the episodes of a trial."""
    lr: float = bounded(3e-4, above=0)
    """Adam's first step size."""
    lr_decay_updates: int = bounded(0, at_least=0)
    """Iterations over which the step size falls linearly to `lr_end`. 0: it stays constant."""
    lr_end: float = bounded(3e-5, above=0)
    """Adam's last step size."""
    epochs: int = bounded(5, at_least=1)
    """PPO passes over the data of an update."""
    minibatches: int = bounded(4, at_least=1)
    """Minibatches a pass."""
    clip: float = bounded(0.2, above=0)
    """PPO's clip range of the likelihood ratio."""
    entropy_weight: float = bounded(0.0, at_least=0)
    """Weight of the entropy bonus."""
    value_weight: float = bounded(0.5, at_least=0)
    """Weight of the value loss."""
    max_gradient_norm: float = bounded(0.5, above=0)
    """Norm at which gradients are clipped."""
    normalise_input: bool = True
    """Standardise what the policy reads with its running mean and standard deviation. What only training reads, such as
    privileged values, always is."""
    normalise_reward: bool = True
    """Divide rewards by the running standard deviation of the return, and clip them at ten of it."""
