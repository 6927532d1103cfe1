"""Settings of RL2."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.agents.agent_settings import AgentSettings
from metarl.bounds import bounded


@dataclass(frozen=True)
class Rl2Settings(AgentSettings):
    """RL2 (Duan 2016): a GRU over whole trials, trained with PPO.

    On HalfCheetah these mattered most: discount .99 with lambda .95, a small initial std, two hidden layers in each
    head, many small meta-updates (20 trials), and a critic that observes how near the trial's end is.
    """

    hidden_size: int = bounded(64, at_least=1)
    """Width of the GRU."""
    observation_embedding: int = bounded(32, at_least=1)
    """Width of the observation's embedding."""
    action_embedding: int = bounded(16, at_least=1)
    """Width of the previous action's embedding."""
    reward_embedding: int = bounded(16, at_least=1)
    """Width of the previous reward's embedding."""
    head_sizes: tuple[int, ...] = bounded((128, 128), at_least=1)
    """Widths of the hidden layers of the actor, and of the critic, after the GRU that they share."""
    initial_std: float = bounded(0.25, above=0)
    """Initial standard deviation of the policy, in units of its action."""
    min_std: float = bounded(1e-3, above=0)
    """Smallest standard deviation of the policy."""
    discount: float = bounded(0.99, at_least=0, at_most=1)
    """Discount per step, across episodes of a trial."""
    gae_lambda: float = bounded(0.95, at_least=0, at_most=1)
    """Lambda of generalised advantage estimation, across episodes of a trial."""
    lr: float = bounded(5e-4, above=0)
    """Adam's step size."""
    lr_decay_updates: int = bounded(0, at_least=0)
    """Meta-updates over which the step size falls linearly to `lr_end`. 0: it stays constant."""
    lr_end: float = bounded(1e-4, above=0)
    """Adam's last step size."""
    epochs: int = bounded(6, at_least=1)
    """PPO passes over the data of an iteration."""
    minibatches: int = bounded(2, at_least=1)
    """Minibatches a pass, each of whole trials."""
    clip: float = bounded(0.2, above=0)
    """PPO's clip range of the likelihood ratio."""
    value_clip: float = bounded(0.0, at_least=0)
    """Clip range of the value's change in an iteration, in units of the normalised return. 0: no clipping."""
    entropy_weight: float = bounded(0.0, at_least=0)
    """Weight of the entropy bonus."""
    value_weight: float = bounded(0.5, at_least=0)
    """Weight of the value loss."""
    max_gradient_norm: float = bounded(1.0, above=0)
    """Norm at which gradients are clipped."""
    normalise_reward: bool = True
    """Divide rewards by the running standard deviation of the return."""
    normalise_input: bool = True
    """Standardise observations and previous rewards with their running mean and standard deviation."""
    observation_skip: bool = True
    """Give the observation to actor and critic directly, in addition to the GRU's output."""
