"""Settings of every agent. Apart from the agents, so that `metarl --help` need not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MamlSettings:
    """MAML for reinforcement learning (Finn 2017), outer step by TRPO or ProMP (Rothfuss 2019)."""

    outer: Literal["promp", "trpo"] = "promp"
    """Outer step: ProMP (clipped surrogate, Adam) or TRPO (natural gradient, line search)."""
    first_order: bool = False
    """Drop the second-order term of the meta-gradient (FOMAML)."""
    inner_lr: float = 0.1
    """Step size of the inner policy-gradient step."""
    inner_lr_decay: float = 1.0
    """Factor on the inner step size after each step (MAML 2017 evaluates with 0.5)."""
    inner_surrogate: Literal["ratio", "log_likelihood"] = "ratio"
    """Inner loss: likelihood ratio (low-variance curvature, ProMP) or log-likelihood (MAML 2017)."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the policy's hidden layers."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Activation of the hidden layers."""
    initial_std: float = 1.0
    """Initial standard deviation of the policy, in units of its action."""
    output_gain: float = 1.0
    """Factor on the last layer's initial weights. A small one starts all policies near zero, whatever they observe."""
    min_std: float = 1e-6
    """Smallest standard deviation of the policy."""
    discount: float = 0.99
    """Discount per step."""
    normalise_input: bool = True
    """Standardise observations with their running mean and standard deviation. The published MAML does not."""
    gae_lambda: float = 1.0
    """Lambda of generalised advantage estimation (Schulman 2016)."""
    bootstrap_truncation: bool = False
    """Bootstrap the value at a time limit. The published protocol of MAML and ProMP does not."""
    baseline_ridge: float = 1e-5
    """Ridge coefficient of the linear feature baseline."""
    promp_lr: float = 1e-3
    """ProMP: Adam's first step size."""
    promp_epochs: int = 5
    """ProMP: full-batch gradient steps an iteration."""
    promp_clip: float = 0.3
    """ProMP: clip range of the likelihood ratio."""
    promp_inner_kl: float = 5e-4
    """ProMP: weight of the KL penalty between the pre-update policies."""
    promp_kl: float = 0.05
    """ProMP: bound on the mean KL divergence between adapted policies over an iteration."""
    trpo_kl: float = 0.01
    """TRPO: bound on the mean KL divergence between adapted policies."""
    trpo_cg_iterations: int = 10
    """TRPO: conjugate-gradient iterations."""
    trpo_damping: float = 1e-5
    """TRPO: damping of the Fisher-vector product."""
    trpo_fisher_share: float = 0.2
    """TRPO: share of the states that the Fisher-vector product uses."""
    trpo_backtracks: int = 15
    """TRPO: line-search steps, each shortening the step by 0.8."""
    tasks_per_chunk: int = 8
    """Tasks in one backward pass: a chunk that fits the cache is faster. 0: all at once."""


@dataclass(frozen=True)
class Rl2Settings:
    """RL2 (Duan 2016): a GRU over whole trials, trained with PPO.

    What decided on HalfCheetah, measured: discount .99 with lambda .95, a small initial std, two hidden layers in each
    head, many small meta-updates (20 trials), and a critic that knows how near the trial's end is.
    """

    hidden_size: int = 64
    """Width of the GRU."""
    observation_embedding: int = 32
    """Width of the observation's embedding."""
    action_embedding: int = 16
    """Width of the previous action's embedding."""
    reward_embedding: int = 16
    """Width of the previous reward's embedding."""
    head_sizes: tuple[int, ...] = (128, 128)
    """Hidden layers of the actor, and of the critic, after the GRU that they share."""
    initial_std: float = 0.25
    """Initial standard deviation of the policy, in units of its action."""
    min_std: float = 1e-3
    """Smallest standard deviation of the policy."""
    discount: float = 0.99
    """Discount per step, across episodes of a trial."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation, across episodes of a trial."""
    lr: float = 5e-4
    """Adam's step size."""
    lr_decay_updates: int = 0
    """Meta-updates over which the step size falls linearly to `lr_end`. 0: it stays."""
    lr_end: float = 1e-4
    """Adam's step size once it has fallen."""
    epochs: int = 6
    """PPO passes over the data of an iteration."""
    minibatches: int = 2
    """Minibatches a pass, each of whole trials."""
    clip: float = 0.2
    """PPO's clip range of the likelihood ratio."""
    value_clip: float = 0.0
    """Change of a value in an iteration beyond which the value loss rewards nothing, in normalised return. 0: none."""
    entropy_weight: float = 0.0
    """Weight of the entropy bonus."""
    value_weight: float = 0.5
    """Weight of the value loss."""
    max_gradient_norm: float = 1.0
    """Norm at which gradients are clipped."""
    normalise_reward: bool = True
    """Divide the rewards that are learned from by the running standard deviation of the return."""
    normalise_input: bool = True
    """Standardise observations and previous rewards with their running mean and standard deviation."""
    observation_skip: bool = True
    """Give the observation to actor and critic directly, beside the GRU's output."""


@dataclass(frozen=True)
class Sb3Settings:
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


AgentSettings = MamlSettings | Rl2Settings | PpoSettings | RecurrentPpoSettings

AGENT_SETTINGS: dict[str, type[AgentSettings]] = {
    "maml": MamlSettings,
    "rl2": Rl2Settings,
    "ppo": PpoSettings,
    "recurrent_ppo": RecurrentPpoSettings,
}
"""Every agent by name."""
