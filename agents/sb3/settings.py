"""Settings of the agents of Stable-Baselines3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.agents.agent_settings import AgentSettings


@dataclass(frozen=True)
class Sb3Settings(AgentSettings):
    """What the agents of Stable-Baselines3 share."""

    initial_std: float = 1.0
    """Initial standard deviation of the policy, in units of its action."""
    discount: float = 0.99
    """Discount per step, across the episodes of a trial."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation (Schulman 2016)."""
    lr: float = 3e-4
    """Adam's first step size."""
    lr_decay_updates: int = 0
    """Iterations over which the step size falls linearly to `lr_end`. 0: it stays."""
    lr_end: float = 3e-5
    """Adam's step size once it has fallen."""
    epochs: int = 5
    """PPO passes over the data of an update."""
    minibatches: int = 4
    """Minibatches a pass."""
    clip: float = 0.2
    """PPO's clip range of the likelihood ratio."""
    target_kl: float = 0.0
    """Approximate KL divergence at one and a half of which an update's passes end. 0: none."""
    entropy_weight: float = 0.0
    """Weight of the entropy bonus."""
    value_weight: float = 0.5
    """Weight of the value loss."""
    max_gradient_norm: float = 0.5
    """Norm at which gradients are clipped."""
    normalise_input: bool = True
    """Standardise what is read with its running mean and standard deviation (VecNormalize)."""
    normalise_reward: bool = True
    """Divide rewards by the running standard deviation of the return (VecNormalize)."""


@dataclass(frozen=True)
class PpoSettings(Sb3Settings):
    """PPO of Stable-Baselines3 on all tasks at once: domain randomisation, fine-tuning, training from scratch."""

    adaptation: Literal["none", "fine_tune", "scratch"] = "none"
    """What is made of a shot on a new task: nothing (domain randomisation), PPO steps from the trained policy on, or
    from an untrained one on. It decides nothing in training: one run is evaluated in all three ways."""
    adaptation_lr: float = 3e-4
    """Adam's step size in adaptation."""
    adaptation_epochs: int = 10
    """PPO passes over the data of a shot."""
    adaptation_minibatches: int = 8
    """Minibatches a pass over the data of a shot."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the actor, and of the critic."""
    activation: Literal["tanh", "relu", "elu"] = "tanh"
    """Activation of the hidden layers."""
    steps: int = 50
    """Steps of every env between two updates; an iteration plays a whole episode in every env."""


@dataclass(frozen=True)
class RecurrentPpoSettings(Sb3Settings):
    """RecurrentPPO of sb3-contrib over whole trials: an LSTM that reads what RL2 reads."""

    hidden_size: int = 64
    """Width of the LSTM, of the actor's and of the critic's."""
    head_sizes: tuple[int, ...] = (128, 128)
    """Hidden layers of the actor, and of the critic, after its LSTM."""
    initial_std: float = 0.25
    """Initial standard deviation of the policy, in units of its action."""
    lr: float = 5e-4
    """Adam's first step size."""
    lr_end: float = 1e-4
    """Adam's step size once it has fallen."""
    epochs: int = 6
    """PPO passes over the data of an iteration."""
    minibatches: int = 2
    """Minibatches a pass."""
    max_gradient_norm: float = 1.0
    """Norm at which gradients are clipped."""
