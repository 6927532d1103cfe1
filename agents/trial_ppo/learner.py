"""PPO over whole trials: back-propagation and credit cross from one episode of a trial to the next."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarl.agents.agent import Trial
from metarl.agents.cores.core import Core, Memory
from metarl.agents.learning import MetaLearner
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.numerics import clipped_surrogate, gaussian_entropy, gaussian_log_prob
from metarl.agents.ranks import ALONE, Ranks, mean_and_std, sum_gradients
from metarl.agents.slots import SlotBelief, SlotReader
from metarl.agents.startup import blank
from metarl.agents.step_sizes import falling
from metarl.agents.trial_ppo.network import SlotNetwork
from metarl.agents.trial_ppo.sequence import TrialSequence, cut, discounted_sums, joined, lay_out, trial_gae
from metarl.agents.trial_ppo.settings import TrialPpoBlock

ADAM_EPSILON = 1e-5
"""PPO's customary value; Adam's own 1e-8 makes the first steps too long."""


@dataclass(frozen=True)
class Targets:
    """Targets of PPO for every slot, each [L, B]."""

    log_likelihoods: Tensor
    """Log-likelihoods of the actions under the policy that collected."""
    values: Tensor
    """Values by the critic of that time."""
    advantages: Tensor
    """Normalised advantages."""
    returns: Tensor
    """Targets of the values."""

    def of_envs(self, envs: Tensor) -> Targets:
        """Return the targets of some envs [K]."""
        return Targets(*(getattr(self, f.name)[:, envs] for f in fields(self)))


def value_loss(values: Tensor, old_values: Tensor, targets: Tensor, clip: float) -> Tensor:
    """Return the Huber loss [K]; with clip > 0 that of the values held within +-clip of the old, where it is larger."""
    loss = functional.huber_loss(values, targets, reduction="none")
    if clip > 0.0:
        held = old_values + (values - old_values).clamp(-clip, clip)
        loss = torch.maximum(loss, functional.huber_loss(held, targets, reduction="none"))
    return loss


def with_steps(sequence: TrialSequence) -> Tensor:
    """Return the places [K] of the envs that have a step."""
    return sequence.steps.any(dim=0).nonzero().squeeze(-1)


def explained_variance(targets: Targets, steps: Tensor, ranks: Ranks) -> float:
    """Return the share of the returns' variance, over all ranks, that the old values predict; 1 is all of it."""
    returns, values = targets.returns[steps], targets.values[steps]
    if ranks.size == 1:
        return 1.0 - ((returns - values).var() / (returns.var() + 1e-8)).item()
    (_, missed), (_, spread) = (mean_and_std(x, ranks, correction=1) for x in (returns - values, returns))
    return 1.0 - (missed.square() / (spread.square() + 1e-8)).item()


class MeanNetwork(nn.Module):
    """The network from one slot [B, input] and the memory to the mean of the action [B, act] and the memory."""

    def __init__(self, network: SlotNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        features, after = self.network.step(inputs, memory)
        return self.network.means(features), after


Settings = TypeVar("Settings", bound=TrialPpoBlock)
Network = TypeVar("Network", bound=SlotNetwork)


class TrialPpo(SlotReader, MetaLearner, Generic[Settings, Network]):
    """Base class of agents that read slots by a `SlotNetwork` and are trained with PPO over whole trials.

    A subclass makes its network. It may add to the sequence (`sequence`), read it in another way (`evaluate`), add a
    loss to PPO's (`auxiliary_loss`), and learn something besides (`learn_besides`).
    """

    label: str
    """Name of the agent in messages."""

    def __init__(
        self,
        settings: Settings,
        observation_size: int,
        action_size: int,
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.settings = settings
        self.ranks = ranks
        self.observation_size, self.action_size = observation_size, action_size
        self.device = device
        self.network = blank(self.make_network)
        self.network.initialise(settings.initial_std, generator)
        self.network.to(device)
        fused = True if device.type == "cpu" else None
        self.optimiser = torch.optim.Adam(self.trained(), lr=settings.lr, eps=ADAM_EPSILON, fused=fused)
        self.updates = 0

    @property
    def reads_reward(self) -> bool:
        """Whether the memory reads the rewards."""
        return self.settings.reward_input

    @property
    def remembers(self) -> bool:
        """Whether PPO's steps read the memory."""
        return True

    def make_network(self) -> Network:
        """Return the network, with parameters that are yet to be drawn."""
        raise NotImplementedError

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that PPO trains."""
        return list(self.network.parameters())

    def sequence(self, trial: Trial) -> TrialSequence:
        """Return a trial as PPO learns from it."""
        return lay_out(trial, self.settings.discount, self.device)

    def evaluate(self, sequence: TrialSequence) -> tuple[Tensor, Tensor]:
        """Return action means [L, B, act] and values [L, B]."""
        features, _ = self.network(sequence.inputs, sequence.memory)
        return self.network.means(features), self.network.values(features, sequence.ending)

    def auxiliary_loss(self, sequence: TrialSequence, count: int) -> tuple[Tensor | None, dict[str, float]]:
        """Return this rank's summand of a loss that is added to PPO's on a minibatch, and of metrics by name.

        count: steps of the minibatch in all ranks.
        """
        return None, {}

    def learn_besides(self, sequence: TrialSequence, generator: torch.Generator) -> dict[str, float]:
        """Learn from a trial besides PPO, after it; returns metrics by name."""
        return {}

    def read_slot(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return action means [B, act], and the memory after one slot [B, input]."""
        features, after = self.network.step(inputs, memory)
        return self.network.means(features), after

    @property
    def core(self) -> Core:
        """Memory of the network."""
        return self.network.core

    def log_std(self) -> Tensor:
        """Return the log-std of the actions, [act]."""
        return self.network.log_std.clamp(min=math.log(self.settings.min_std))

    def slot_network(self) -> nn.Module:
        """Return the network from a slot to the mean of the action, on the CPU."""
        return MeanNetwork(copy.deepcopy(self.network).cpu())

    def observation_moments(self, belief: SlotBelief) -> Moments | None:
        """Return the moments of the observations of training; None if observations are read as they are."""
        return self.network.observation_moments if self.settings.normalise_input else None

    def _lr(self) -> float:
        s = self.settings
        return falling(s.lr, s.lr_end, self.updates, s.lr_decay_updates)

    def meta_update(self, trial: Trial, generator: torch.Generator) -> dict[str, float]:
        """Take PPO's steps on whole trials: back-propagation and credit cross from one episode to the next."""
        sequence = self.sequence(trial).without_padding()
        num_envs, _ = self._places(sequence.steps.shape[1])
        if num_envs == 0:
            return {"trials": 0.0}
        data = self.pieces(sequence, self.remembers)
        targets = self._targets(sequence, data)
        if data is not sequence:
            taken = with_steps(data)
            data, targets = data.of_envs(taken), targets.of_envs(taken)
        for group in self.optimiser.param_groups:
            group["lr"] = self._lr()
        history = [
            self._step(data.of_envs(envs), targets.of_envs(envs), count)
            for envs, count in self.minibatches(data, self.settings.epochs, generator)
        ]
        besides = self.learn_besides(sequence, generator)
        self._update_moments(sequence)
        self.updates += 1
        return {
            **self.mean_of_steps(history),
            **besides,
            "trials": float(num_envs),
            "std": self.log_std().exp().mean().item(),
            "explained_variance": explained_variance(targets, data.steps, self.ranks),
            "lr": self.optimiser.param_groups[0]["lr"],
        }

    def pieces(self, sequence: TrialSequence, remembering: bool) -> TrialSequence:
        """Return the trials, or pieces of them as of several envs each, see `chunk`.

        remembering: whether the memory before each piece is wanted.
        """
        length = self.settings.chunk
        if not length or not sequence.steps.shape[1]:  # another rank may have all envs
            return sequence
        memory = self.network.memories(sequence.inputs, sequence.memory, length) if remembering else {}
        return sequence.cut(length, memory)

    def minibatches(
        self, sequence: TrialSequence, epochs: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, int]]:
        """Yield minibatches of `pieces`, as this rank's own envs [K] and the number of steps in all ranks."""
        own_envs = sequence.steps.shape[1]
        num_envs, first = self._places(own_envs)
        for _ in range(epochs if num_envs else 0):
            order = torch.randperm(num_envs, generator=generator, device=generator.device).to(self.device) - first
            batches = order.tensor_split(min(self.settings.minibatches, num_envs))
            own = [envs[(envs >= 0) & (envs < own_envs)] for envs in batches]
            counts = self.ranks.sum(torch.stack([sequence.steps[:, envs].sum() for envs in own]))
            yield from zip(own, counts.tolist(), strict=True)

    def mean_of_steps(self, history: Sequence[dict[str, float]]) -> dict[str, float]:
        """Return the mean of each metric over gradient steps, of which each rank has its summand."""
        rows = self.ranks.sum(torch.tensor([list(row.values()) for row in history], dtype=torch.float64)).tolist()
        return {name: sum(row[i] for row in rows) / len(rows) for i, name in enumerate(history[0])}

    def _places(self, own: int) -> tuple[int, int]:
        """Return the number of envs of all ranks, and the number of those before this rank's own."""
        counts = torch.zeros(self.ranks.size, dtype=torch.int64, device=self.device)
        counts[self.ranks.rank] = own
        counts = self.ranks.sum(counts).tolist()
        return sum(counts), sum(counts[: self.ranks.rank])

    @torch.no_grad()
    def _targets(self, sequence: TrialSequence, data: TrialSequence) -> Targets:
        """Return the targets of pieces of trials, by one pass of the policy that collected and GAE over whole trials.

        data: the pieces of the trials of the sequence, without any left out.
        """
        settings, steps = self.settings, sequence.steps
        means, of_pieces = self._evaluate(data)
        whole = data is sequence
        values = of_pieces if whole else joined(of_pieces, len(steps))
        rewards = sequence.rewards
        if settings.normalise_reward:
            rewards = (rewards / self.network.return_moments.std).clamp(-INPUT_CLIP, INPUT_CLIP)
        advantages = trial_gae(rewards, values, steps, settings.discount, settings.gae_lambda)
        mean, std = mean_and_std(advantages[steps], self.ranks)
        found = (advantages - mean) / (std + 1e-8), advantages + values
        normalised, returns = found if whole else (cut(x, settings.chunk) for x in found)
        return Targets(
            log_likelihoods=gaussian_log_prob(means, self.log_std(), data.actions),
            values=of_pieces,
            advantages=normalised,
            returns=returns,
        )

    def _evaluate(self, sequence: TrialSequence) -> tuple[Tensor, Tensor]:
        """Return action means [L, B, act] and values [L, B] of a minibatch that may be empty."""
        if not sequence.steps.shape[1]:  # another rank has all of the minibatch; cuDNN takes no empty one
            return sequence.actions, sequence.rewards
        return self.evaluate(sequence)

    def _step(self, sequence: TrialSequence, targets: Targets, count: int) -> dict[str, float]:
        """Take one gradient step on a minibatch of whole trials; returns this rank's summand of each metric.

        count: steps of the minibatch in all ranks.
        """
        settings, steps, size = self.settings, sequence.steps, self.ranks.size
        means, values = self._evaluate(sequence)
        log_std = self.log_std()
        log_ratio = (gaussian_log_prob(means, log_std, sequence.actions) - targets.log_likelihoods)[steps]
        ratio = log_ratio.exp()
        policy_loss = -clipped_surrogate(ratio, targets.advantages[steps], settings.clip).sum() / count
        errors = value_loss(values[steps], targets.values[steps], targets.returns[steps], settings.value_clip)
        critic_loss = errors.sum() / count
        entropy = gaussian_entropy(log_std) / size
        loss = policy_loss + settings.value_weight * critic_loss - settings.entropy_weight * entropy
        auxiliary, more = self.auxiliary_loss(sequence, count)
        loss = loss if auxiliary is None else loss + auxiliary
        self.optimiser.zero_grad(set_to_none=True)
        if loss.requires_grad:  # not where other ranks have all of a minibatch that the critic alone learns from
            loss.backward()
        sum_gradients(self.trained(), self.ranks)
        norm = nn.utils.clip_grad_norm_(self.trained(), settings.max_gradient_norm)
        self.optimiser.step()
        with torch.no_grad():  # below its least it would have no gradient, and never rise again
            self.network.log_std.clamp_(min=math.log(settings.min_std))
        return {
            "policy_loss": policy_loss.item(),
            "value_loss": critic_loss.item(),
            "entropy": entropy.item(),
            "kl": (((ratio - 1.0) - log_ratio).sum() / count).item(),  # Schulman's estimator, never negative
            "clip_fraction": (((ratio - 1.0).abs() > settings.clip).float().sum() / count).item(),
            "gradient_norm": norm.item() / size,
            **more,
        }

    def _update_moments(self, sequence: TrialSequence) -> None:
        """Update the normalisers; after the gradient steps, which need the inputs that the trial was collected with."""
        self.update_input_moments(sequence)
        if self.settings.normalise_reward:
            sums = discounted_sums(sequence.rewards, sequence.steps, self.settings.discount)
            self.network.return_moments.update(sums.unsqueeze(-1), self.ranks)

    def update_input_moments(self, sequence: TrialSequence) -> None:
        """Update the normalisers of what the networks read, from the steps of a trial.

        A policy that reads observations and rewards as they are does not use them; what only training reads is always
        standardised.
        """
        observations = sequence.inputs[..., : self.observation_size]
        self.network.observation_moments.update(observations[sequence.steps], self.ranks)
        self.network.reward_moments.update(sequence.rewards[sequence.steps].unsqueeze(-1), self.ranks)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training continues from, as plain types and tensors."""
        state = {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}
        return copy.deepcopy(state) | {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; raises ValueError if the shapes differ."""
        for name, tensor in self.network.state_dict().items():
            saved = state["network"].get(name)
            if saved is None or saved.shape != tensor.shape:
                found = "nothing" if saved is None else f"shape {tuple(saved.shape)}"
                raise ValueError(
                    f"this {self.label} state does not fit: {name} has shape {tuple(tensor.shape)} here, {found} in "
                    "the state; build the agent with the settings and the family it was saved with"
                )
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))
        self.updates = state["updates"]
