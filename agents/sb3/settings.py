"""Settings of the agents of Stable-Baselines3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.agents.ppo_settings import PpoBlock
from metarl.bounds import bounded


@dataclass(frozen=True, kw_only=True)
class Sb3Settings(PpoBlock):
    """Settings of every agent of Stable-Baselines3."""

    target_kl: float = bounded(0.0, at_least=0)
    """Stop an update when the approximate KL divergence exceeds 1.5 times this. 0: never."""


@dataclass(frozen=True, kw_only=True)
class PpoSettings(Sb3Settings):
    """PPO of Stable-Baselines3 on all tasks at once: domain randomisation, fine-tuning, or training from scratch."""

    privileged_critic: bool = False
    """Let the critic, which only training needs, read what a simulator knows: the task's parameters and the family's
    privileged terms. Neither the policy nor an exported file reads them. Needs adaptation=none."""
    adaptation: Literal["none", "fine_tune", "scratch"] = "none"
    """Adaptation to a new task: none (domain randomisation), or PPO steps from the trained policy, with Adam's moments
    of its training (fine_tune), or from an untrained one (scratch). It does not change training: one run can be
    evaluated in all three ways."""
    adaptation_lr: float = bounded(3e-4, above=0)
    """Adam's step size in adaptation."""
    adaptation_epochs: int = bounded(10, at_least=1)
    """PPO passes over the data of a shot."""
    adaptation_minibatches: int = bounded(8, at_least=1)
    """Minibatches a pass over the data of a shot."""
    hidden_sizes: tuple[int, ...] = bounded((64, 64), at_least=1)
    """Widths of the hidden layers of the actor, and of the critic."""
    activation: Literal["tanh", "relu", "elu"] = "tanh"
    """Activation of the hidden layers."""
    steps: int = bounded(50, at_least=1)
    """Steps of each env between two updates; an iteration plays a whole episode in each env."""


@dataclass(frozen=True, kw_only=True)
class RecurrentPpoSettings(Sb3Settings):
    """RecurrentPPO of sb3-contrib over whole trials: an LSTM that reads what RL2 reads."""

    hidden_size: int = bounded(64, at_least=1)
    """Width of the actor's LSTM and of the critic's."""
    head_sizes: tuple[int, ...] = bounded((128, 128), at_least=1)
    """Widths of the hidden layers of the actor, and of the critic, after its LSTM."""
    initial_std: float = 0.25
    lr: float = 5e-4
    lr_end: float = 1e-4
    epochs: int = 6
    """PPO passes over the data of an iteration."""
    minibatches: int = 2
    max_gradient_norm: float = 1.0
