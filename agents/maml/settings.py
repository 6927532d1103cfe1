"""Settings of MAML, and of what varies it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from metarl.agents.agent_settings import AgentSettings
from metarl.bounds import bounded, newer


@dataclass(frozen=True)
class MamlSettings(AgentSettings):
    """MAML for reinforcement learning (Finn 2017), and what adapts by gradients as it does.

    What is adapted, by which rule, from which estimate of the gradient, and what the outer step differentiates are
    chosen apart from each other. The defaults are ProMP (Rothfuss 2019).
    """

    outer: Literal["promp", "trpo", "reptile"] = "promp"
    """Outer step: ProMP (clipped surrogate, Adam), TRPO (natural gradient, line search), or Reptile (Nichol 2018): a
    part of the way to the mean of the adapted parameters, after an inner step on the last shot too."""
    first_order: bool = False
    """Drop the second-order term of the meta-gradient (FOMAML)."""
    implicit_strength: float = bounded(0.0, at_least=0)
    """Weight of half the squared distance from where a shot's inner steps began, added to their loss; the outer step
    then differentiates their fixed point instead of the steps (iMAML, Rajeswaran 2019). 0: the steps. Take several
    inner steps: they should come near to the fixed point."""
    implicit_cg_iterations: int = bounded(10, at_least=1)
    """Conjugate-gradient iterations for that derivative."""
    adapted: tuple[str, ...] = field(default=("all",))
    """What is adapted: all; head, the last layer (ANIL, Raghu 2020); context (CAVIA, Zintgraf 2019); log_std; or
    pieces by name, such as layer1.weight or layer2.bias. The rest is the same for all tasks."""
    context_parameters: int = bounded(0, at_least=0)
    """Inputs of the policy besides the observation that are parameters. They are 0 when a trial begins."""
    context_as: Literal["inputs", "film"] = newer("inputs", before="inputs")
    """inputs: of the first layer; film: of what scales and shifts the last hidden layer's outputs (FiLM, Perez 2018,
    as CAVIA has it for images), so that the layers before it are evaluated once a shot, as for the head alone."""
    inner_steps: int = bounded(1, at_least=1)
    """Inner steps on the data of one shot. Each shot brings fresh data."""
    inner_lr: float = bounded(0.1, above=0)
    """Step size of the inner policy-gradient step; the first one where it is learnt."""
    inner_lr_decay: float = bounded(1.0, above=0)
    """Factor on the inner step size after each shot (MAML 2017 evaluates with 0.5)."""
    inner_rule: Literal["fixed", "layer", "parameter", "lstm"] = "fixed"
    """Inner step: of a fixed size; of sizes that are learnt for each layer, or for each parameter (Meta-SGD, Li 2017);
    or what an LSTM that reads gradient and loss makes of it, the same one for all parameters (Ravi 2017), whose first
    step is at most 0.99 of the gradient."""
    inner_rule_size: int = bounded(8, at_least=1)
    """Width of that LSTM."""
    inner_clip: float = bounded(0.0, at_least=0)
    """Longest inner gradient, for each task; a longer one is scaled down to it. 0: no bound."""
    inner_kl: float = bounded(0.0, at_least=0)
    """Bound on the mean KL divergence between the policies before and after an inner step, for each task; a longer
    step is shortened to it. 0: no bound."""
    inner_kl_target: float = bounded(0.0, at_least=0)
    """Mean KL divergence of an inner step to which the inner step sizes adjust themselves, by a factor of at most 1.1
    an iteration. 0: they do not."""
    inner_surrogate: Literal["ratio", "log_likelihood", "dice", "loaded_dice"] = "ratio"
    """Inner loss: likelihood ratio (low-variance curvature, ProMP); log-likelihood (MAML 2017); or a loss whose second
    derivatives are unbiased, DiCE with its baseline term (Foerster 2018) and Loaded DiCE (Farquhar 2019)."""
    dice_lambda: float = bounded(0.9, at_least=0, at_most=1)
    """Loaded DiCE: how much the dependence on earlier actions counts, by step; 1 has no bias, less has less variance.
    """
    exploration_credit: float = bounded(0.0, at_least=0)
    """Weight of E-MAML's term (Stadie 2018), which credits the actions before adaptation with the return after it.
    1: unbiased."""
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
    """Bootstrap the value at a time limit: the baseline is the value of a process that goes on, so that it reads no
    time and its targets have the value at the limit (Pardo 2018). The published protocol of MAML and ProMP does not."""
    baseline: Literal["linear", "value", "adapted_value"] = "linear"
    """Baseline of the advantages: linear in features of observation and time, refitted to every task and shot (Duan
    2016); a network that is learnt over all tasks; or this network after gradient steps on the shot's returns."""
    baseline_ridge: float = bounded(1e-5, above=0)
    """Ridge coefficient of the linear feature baseline."""
    value_lr: float = bounded(1e-3, above=0)
    """Value network: Adam's step size."""
    value_epochs: int = bounded(10, at_least=1)
    """Value network: Adam's steps on all data, an iteration."""
    value_inner_lr: float = bounded(0.1, above=0)
    """Value network: step size of its gradient steps on a shot, where it is adapted."""
    value_inner_steps: int = bounded(5, at_least=1)
    """Value network: number of these steps."""
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
    reptile_lr: float = bounded(1.0, above=0, at_most=1)
    """Reptile: part of the way to the mean of the adapted parameters. The whole way lost point_goal's policy."""
    tasks_per_chunk: int = bounded(0, at_least=0, changes_no_number=True)
    """Tasks in one backward pass. 0: on the CPU as many as fit its cache, which is faster; on a GPU all."""
