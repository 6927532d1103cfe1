"""Settings of PEARL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.agents.trial_ppo.settings import HeadChoice
from metarl.bounds import bounded, newer, unbounded


@dataclass(frozen=True)
class PearlSettings(HeadChoice):
    """PEARL (Rakelly 2019): soft actor-critic on a latent variable, inferred from a task's transitions.

    Networks, batches and the number of gradient steps are smaller than published, which two cores take days for.
    """

    latent_size: int = bounded(5, at_least=1)
    """Size of the latent variable."""
    encoder_sizes: tuple[int, ...] = bounded((128, 128), at_least=1)
    """Widths of the hidden layers of the context encoder. Published: 200, 200, 200."""
    hidden_sizes: tuple[int, ...] = bounded((256, 256), at_least=1)
    """Widths of the hidden layers of the policy, and of each Q network. Published: 300, 300, 300."""
    next_observation_in_context: bool = False
    """Let the encoder read a transition's next observation too: for tasks that differ in their dynamics."""
    normalise_input: bool = False
    """Standardise observations with their running mean and standard deviation. The published PEARL does not."""
    kl_weight: float = bounded(0.1, at_least=0)
    """Weight of the KL divergence from the posterior to the prior, summed over the tasks of an update."""
    posterior: Literal["sample", "mean"] = "sample"
    """Latent variable of a shot that is played after others: a draw from the posterior, or its mean. The first shot of
    a trial is played with a draw from the prior."""
    tasks_per_update: int = bounded(16, at_least=1)
    """Tasks of a gradient step."""
    batch_size: int = bounded(32, at_least=1)
    """Transitions a task that the policy and the Q networks learn from in a gradient step. Published: 256."""
    context_size: int = bounded(64, at_least=1)
    """Transitions a task that the encoder reads in a gradient step. Published: 100 to 256."""
    context_iterations: int = bounded(1, at_least=1)
    """Newest iterations of a task that its context is drawn from. Matters for tasks that recur, see
    `training.distinct_tasks`: their other transitions are drawn from all iterations stored."""
    replay_iterations: int = bounded(200, at_least=1)
    """Iterations in the replay buffer."""
    updates_per_step: float = bounded(0.2, above=0)
    """Gradient steps for each env step of training, up to `max_updates` an iteration. Published: 0.4."""
    max_updates: int = bounded(2000, at_least=1)
    """Most gradient steps an iteration."""
    lr: float = bounded(3e-4, above=0)
    """Adam's step size, of all networks and of the temperature."""
    lr_decay_from: int = newer(0, before=0, at_least=0)
    """Iterations before the step size begins to fall; see `lr_decay_updates`."""
    lr_decay_updates: int = newer(0, before=0, at_least=0)
    """Iterations over which the step size then falls linearly to `lr_end`. 0: it stays constant. The published PEARL's
    does; but small last steps average the noise of those before."""
    lr_end: float = newer(3e-5, before=3e-5, above=0)
    """Adam's last step size."""
    discount: float = bounded(0.99, at_least=0, at_most=1)
    """Discount per step."""
    target_rate: float = bounded(0.005, above=0, at_most=1)
    """Share of the Q networks in their targets after each gradient step."""
    reward_scale: float = bounded(5.0, above=0)
    """Factor on the rewards that the Q networks learn from."""
    temperature: float = bounded(1.0, above=0)
    """Weight of the policy's entropy; the first one if it is automatic."""
    automatic_temperature: bool = False
    """Learn the temperature that holds the policy's entropy at `target_entropy`. The published PEARL does not."""
    target_entropy: float = unbounded(-1.0)
    """Entropy a dimension of the action that an automatic temperature aims at; actions count from -1 to 1."""
    policy_penalty: float = bounded(1e-3, at_least=0)
    """Weight of the mean squares of the policy's mean and log-std before tanh."""
    action_bound: float = bounded(1.0, above=0)
    """Largest absolute action. Choose it so that `family.action_scale` times it is within the range of the motors."""
