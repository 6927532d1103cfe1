"""Settings of MAML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.agents.agent_settings import AgentSettings
from metarl.bounds import bounded


@dataclass(frozen=True)
class MamlSettings(AgentSettings):
    """MAML for reinforcement learning (Finn 2017), outer step by TRPO or ProMP (Rothfuss 2019)."""

    outer: Literal["promp", "trpo"] = "promp"
    """Outer step: ProMP (clipped surrogate, Adam) or TRPO (natural gradient, line search)."""
    first_order: bool = False
    """Drop the second-order term of the meta-gradient (FOMAML)."""
    inner_lr: float = bounded(0.1, above=0)
    """Step size of the inner policy-gradient step."""
    inner_lr_decay: float = bounded(1.0, above=0)
    """Factor on the inner step size after each step (MAML 2017 evaluates with 0.5)."""
    inner_surrogate: Literal["ratio", "log_likelihood"] = "ratio"
    """Inner loss: likelihood ratio (low-variance curvature, ProMP) or log-likelihood (MAML 2017)."""
    hidden_sizes: tuple[int, ...] = bounded((64, 64), at_least=1, nonempty=True)
    """Widths of the policy's hidden layers."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Activation of the hidden layers."""
    initial_std: float = bounded(1.0, above=0)
    """Initial standard deviation of the policy, in units of its action."""
    output_gain: float = bounded(1.0, above=0)
    """Factor on the last layer's initial weights. A small one makes the first actions near zero."""
    min_std: float = bounded(1e-6, above=0)
    """Smallest standard deviation of the policy."""
    discount: float = bounded(0.99, at_least=0, at_most=1)
    """Discount per step."""
    normalise_input: bool = True
    """Standardise observations with their running mean and standard deviation. The published MAML does not."""
    gae_lambda: float = bounded(1.0, at_least=0, at_most=1)
    """Lambda of generalised advantage estimation (Schulman 2016)."""
    bootstrap_truncation: bool = False
    """Bootstrap the value at a time limit. The published protocol of MAML and ProMP does not."""
    baseline_ridge: float = bounded(1e-5, above=0)
    """Ridge coefficient of the linear feature baseline."""
    promp_lr: float = bounded(1e-3, above=0)
    """ProMP: Adam's first step size."""
    promp_epochs: int = bounded(5, at_least=1)
    """ProMP: full-batch gradient steps an iteration."""
    promp_clip: float = bounded(0.3, at_least=0)
    """ProMP: clip range of the likelihood ratio."""
    promp_inner_kl: float = bounded(5e-4, at_least=0)
    """ProMP: weight of the KL penalty between the pre-update policies."""
    promp_kl: float = bounded(0.05, above=0)
    """ProMP: bound on the mean KL divergence between adapted policies over an iteration."""
    trpo_kl: float = bounded(0.01, above=0)
    """TRPO: bound on the mean KL divergence between adapted policies."""
    trpo_cg_iterations: int = bounded(10, at_least=1)
    """TRPO: conjugate-gradient iterations."""
    trpo_damping: float = bounded(1e-5, at_least=0)
    """TRPO: damping of the Fisher-vector product."""
    trpo_fisher_share: float = bounded(0.2, above=0, at_most=1)
    """TRPO: share of the states that the Fisher-vector product uses."""
    trpo_backtracks: int = bounded(15, at_least=1)
    """TRPO: line-search steps, each shortening the step by 0.8."""
    tasks_per_chunk: int = bounded(8, at_least=0)
    """Tasks in one backward pass; few enough to fit the cache are faster. 0: all at once."""
