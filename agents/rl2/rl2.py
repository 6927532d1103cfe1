"""RL2 (Duan 2016): a GRU that reads whole trials and learns to adapt in its hidden state, trained with PPO.

What it reads and remembers is in `metarl.agents.slots`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarl.agents.agent import Rollout, Trial
from metarl.agents.learning import MetaLearner
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.numerics import clipped_surrogate, gaussian_entropy, gaussian_log_prob
from metarl.agents.ranks import ALONE, Ranks, mean_and_std, sum_gradients
from metarl.agents.rl2.network import Rl2Network, TrialSequence, discounted_sums, front, trial_gae
from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.slots import Memory, SlotBelief, SlotReader, slots

ADAM_EPSILON = 1e-5
"""PPO's customary value; Adam's own 1e-8 makes the first steps too long."""


@dataclass(frozen=True)
class Targets:
    """What the policy that collected said of every slot, and what PPO is to make of it; each [L, B]."""

    log_likelihoods: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


Columns = TypeVar("Columns", TrialSequence, Targets)


def select(data: Columns, envs: Tensor) -> Columns:
    """The columns of some envs [K]."""
    return type(data)(**{f.name: getattr(data, f.name)[:, envs] for f in fields(data)})


def value_loss(values: Tensor, old_values: Tensor, targets: Tensor, clip: float) -> Tensor:
    """Huber loss [K]; with a clip > 0 that of the values held within +-clip of the old ones, where it is larger."""
    loss = functional.huber_loss(values, targets, reduction="none")
    if clip > 0.0:
        held = old_values + (values - old_values).clamp(-clip, clip)
        loss = torch.maximum(loss, functional.huber_loss(held, targets, reduction="none"))
    return loss


def explained_variance(targets: Targets, steps: Tensor, ranks: Ranks) -> float:
    """Share of the returns' variance, of all ranks, that the old values predict: 1 is all of it."""
    returns, values = targets.returns[steps], targets.values[steps]
    if ranks.size == 1:
        return 1.0 - ((returns - values).var() / (returns.var() + 1e-8)).item()
    (_, missed), (_, spread) = (mean_and_std(x, ranks, correction=1) for x in (returns - values, returns))
    return 1.0 - (missed.square() / (spread.square() + 1e-8)).item()


def check(settings: Rl2Settings) -> None:
    """Raise ValueError if a setting is out of its range."""
    for name in (
        "hidden_size",
        "observation_embedding",
        "action_embedding",
        "reward_embedding",
        "epochs",
        "minibatches",
    ):
        if getattr(settings, name) < 1:
            raise ValueError(f"rl2: {name} must be at least 1, got {getattr(settings, name)}")
    for name in ("initial_std", "min_std", "lr", "lr_end", "clip", "max_gradient_norm"):
        if not getattr(settings, name) > 0.0:
            raise ValueError(f"rl2: {name} must be greater than 0, got {getattr(settings, name)}")
    for name in ("discount", "gae_lambda"):
        if not 0.0 <= getattr(settings, name) <= 1.0:
            raise ValueError(f"rl2: {name} must lie in [0, 1], got {getattr(settings, name)}")
    for name in ("lr_decay_updates", "value_clip", "entropy_weight", "value_weight"):
        if getattr(settings, name) < 0:
            raise ValueError(f"rl2: {name} must not be negative, got {getattr(settings, name)}")
    if any(width < 1 for width in settings.head_sizes):
        raise ValueError(f"rl2: every one of head_sizes must be at least 1, got {settings.head_sizes}")


class SlotPolicy(nn.Module):
    """The network on one slot of one env, every argument [1, size]: (mean action, next hidden state)."""

    def __init__(self, network: Rl2Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        observation: Tensor,
        previous_action: Tensor,
        previous_reward: Tensor,
        episode_start: Tensor,
        episode_end: Tensor,
        hidden: Tensor,
    ) -> tuple[Tensor, Tensor]:
        slot = torch.cat([observation, previous_action, previous_reward, episode_start, episode_end], dim=-1)
        features, last = self.network(slot.unsqueeze(0), hidden.unsqueeze(0))
        return self.network.means(features)[0], last[0]


class Rl2(MetaLearner, SlotReader):
    """RL2 behind the Learner protocol: see `metarl.agents.learning.Learner`."""

    memory_names = ("hidden",)

    def __init__(
        self,
        settings: Rl2Settings,
        observation_size: int,
        action_size: int,
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        check(settings)
        self.settings = settings
        self.ranks = ranks
        self.memory_size = settings.hidden_size
        self.observation_size, self.action_size = observation_size, action_size
        self.device = device
        with torch.device("meta"):  # default initialisation would draw from the global generator
            network = Rl2Network(settings, observation_size, action_size)
        self.network = network.to_empty(device="cpu")
        self.network.initialise(settings.initial_std, generator)
        self.network.to(device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.lr, eps=ADAM_EPSILON)
        self.updates = 0

    def read_slot(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Action means [M, N, act] and the memory after one slot [M, N, input]."""
        hidden = memory["hidden"]
        features, after = self.network(inputs.flatten(0, 1).unsqueeze(0), hidden.flatten(0, 1).unsqueeze(0))
        means = self.network.means(features).view(*inputs.shape[:2], self.action_size)
        return means, {"hidden": after.view(hidden.shape)}

    def log_std(self) -> Tensor:
        """[act], of the actions."""
        return self.network.log_std.clamp(min=math.log(self.settings.min_std))

    def slot_policy(self) -> nn.Module:
        """On the CPU: (mean action, next hidden state) of a slot's parts and the hidden state, all [1, size]."""
        return SlotPolicy(copy.deepcopy(self.network).cpu())

    def observation_moments(self, belief: SlotBelief) -> Moments | None:
        """Of the observations of training; None if they are read as they are."""
        return self.network.observation_moments if self.settings.normalise_input else None

    def _lr(self) -> float:
        settings = self.settings
        if settings.lr_decay_updates == 0:
            return settings.lr
        return settings.lr + (settings.lr_end - settings.lr) * min(1.0, self.updates / settings.lr_decay_updates)

    def _sequence(self, trial: Trial) -> TrialSequence:
        """The slots of whole trials, without the envs that were flagged in any shot."""
        rollouts = [rollout.to(self.device) for rollout in trial.rollouts]
        episodes = [self._episode(rollout) for rollout in rollouts]
        inputs, actions, rewards, taken, steps = (torch.cat(parts) for parts in zip(*episodes, strict=True))
        keep = torch.stack([rollout.valid.any(dim=0).flatten() for rollout in rollouts]).all(dim=0)
        order = front(taken)
        horizon, shots = len(rollouts[0].valid), len(rollouts)
        left = torch.cat([torch.arange(horizon, -1, -1) + horizon * k for k in reversed(range(shots))])
        ending = (self.settings.discount ** left.to(inputs)).unsqueeze(-1).expand(taken.shape)
        wide = order.unsqueeze(-1)
        return TrialSequence(
            inputs=inputs.take_along_dim(wide, dim=0)[:, keep],
            actions=actions.take_along_dim(wide, dim=0)[:, keep],
            rewards=rewards.take_along_dim(order, dim=0)[:, keep],
            steps=steps.take_along_dim(order, dim=0)[:, keep],
            ending=ending.take_along_dim(order, dim=0)[:, keep],
            hidden=trial.beliefs[0].memory["hidden"].flatten(0, 1)[None, keep],
        )

    def _episode(self, rollout: Rollout) -> tuple[Tensor, ...]:
        """Inputs, actions, rewards, taken and steps of one shot's T + 1 slots, [T + 1, B, ...], in env time."""
        actions, rewards = rollout.actions.flatten(1, 2), rollout.rewards.flatten(1, 2)
        valid = rollout.valid.flatten(1, 2)
        last = (valid.sum(dim=0, keepdim=True) - 1).clamp(min=0)  # [1, B], the step that ended the episode
        blank_action, blank_reward = torch.zeros_like(actions[:1]), torch.zeros_like(rewards[:1])
        previous_actions = torch.cat([blank_action, actions[:-1], actions.take_along_dim(last.unsqueeze(-1), dim=0)])
        previous_rewards = torch.cat([blank_reward, rewards[:-1], rewards.take_along_dim(last, dim=0)])
        observations = torch.cat([rollout.observations, rollout.final_observations.unsqueeze(0)]).flatten(1, 2)
        start, end = torch.zeros_like(previous_rewards), torch.zeros_like(previous_rewards)
        start[0], end[-1] = 1.0, 1.0
        inputs = slots(observations, previous_actions, previous_rewards, start, end)
        taken = torch.cat([valid, valid.any(dim=0, keepdim=True)])
        steps = torch.cat([valid, torch.zeros_like(valid[:1])])
        return inputs, torch.cat([actions, blank_action]), torch.cat([rewards, blank_reward]), taken, steps

    def meta_update(self, trial: Trial, generator: torch.Generator) -> dict[str, float]:
        """PPO on whole trials: back-propagation and credit cross from one episode to the next."""
        sequence = self._sequence(trial)
        own_envs = sequence.steps.shape[1]
        num_envs, first = self._places(own_envs)
        if num_envs == 0:
            return {"trials": 0.0}
        targets = self._targets(sequence)
        for group in self.optimiser.param_groups:
            group["lr"] = self._lr()
        history = []
        for _ in range(self.settings.epochs):
            order = torch.randperm(num_envs, generator=generator, device=generator.device).to(self.device) - first
            batches = order.tensor_split(min(self.settings.minibatches, num_envs))
            own = [envs[(envs >= 0) & (envs < own_envs)] for envs in batches]
            counts = self.ranks.sum(torch.stack([sequence.steps[:, envs].sum() for envs in own]))
            for envs, count in zip(own, counts.tolist(), strict=True):
                history.append(self._step(select(sequence, envs), select(targets, envs), count))
        self._update_moments(sequence)
        self.updates += 1
        rows = self.ranks.sum(torch.tensor([list(row.values()) for row in history], dtype=torch.float64)).tolist()
        metrics = {name: sum(row[i] for row in rows) / len(rows) for i, name in enumerate(history[0])}
        return metrics | {
            "trials": float(num_envs),
            "std": self.log_std().exp().mean().item(),
            "explained_variance": explained_variance(targets, sequence.steps, self.ranks),
            "lr": self.optimiser.param_groups[0]["lr"],
        }

    def _places(self, own: int) -> tuple[int, int]:
        """Envs of all ranks, and how many of them come before this rank's own, which follow one another."""
        counts = torch.zeros(self.ranks.size, dtype=torch.int64, device=self.device)
        counts[self.ranks.rank] = own
        counts = self.ranks.sum(counts).tolist()
        return sum(counts), sum(counts[: self.ranks.rank])

    @torch.no_grad()
    def _targets(self, sequence: TrialSequence) -> Targets:
        """One pass of the policy that collected, and GAE over each trial as one sequence."""
        settings, steps = self.settings, sequence.steps
        means, values = self._evaluate(sequence)
        rewards = (sequence.rewards / self.network.return_moments.std).clamp(-INPUT_CLIP, INPUT_CLIP)
        advantages = trial_gae(rewards, values, steps, settings.discount, settings.gae_lambda)
        mean, std = mean_and_std(advantages[steps], self.ranks)
        return Targets(
            log_likelihoods=gaussian_log_prob(means, self.log_std(), sequence.actions),
            values=values,
            advantages=(advantages - mean) / (std + 1e-8),
            returns=advantages + values,
        )

    def _evaluate(self, sequence: TrialSequence) -> tuple[Tensor, Tensor]:
        """Action means [L, B, act] and values [L, B]."""
        if not sequence.steps.shape[1]:  # another rank has all of the minibatch; cuDNN takes no empty one
            return sequence.actions, sequence.rewards
        features, _ = self.network(sequence.inputs, sequence.hidden)
        return self.network.means(features), self.network.values(features, sequence.ending)

    def _step(self, sequence: TrialSequence, targets: Targets, count: int) -> dict[str, float]:
        """One gradient step on a minibatch of whole trials; returns this rank's summand of each metric.

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
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        sum_gradients(self.network.parameters(), self.ranks)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), settings.max_gradient_norm)
        self.optimiser.step()
        return {
            "policy_loss": policy_loss.item(),
            "value_loss": critic_loss.item(),
            "entropy": entropy.item(),
            "kl": (((ratio - 1.0) - log_ratio).sum() / count).item(),  # Schulman's estimator, never negative
            "clip_fraction": (((ratio - 1.0).abs() > settings.clip).float().sum() / count).item(),
            "gradient_norm": norm.item() / size,
        }

    def _update_moments(self, sequence: TrialSequence) -> None:
        """After the update: a trial is learned from with the very inputs that it was collected with."""
        if self.settings.normalise_input:
            observations = sequence.inputs[..., : self.observation_size]
            self.network.observation_moments.update(observations[sequence.steps], self.ranks)
            self.network.reward_moments.update(sequence.rewards[sequence.steps].unsqueeze(-1), self.ranks)
        if self.settings.normalise_reward:
            sums = discounted_sums(sequence.rewards, sequence.steps, self.settings.discount)
            self.network.return_moments.update(sums.unsqueeze(-1), self.ranks)

    def state_dict(self) -> dict[str, Any]:
        """Everything that training goes on from: plain types and tensors."""
        state = {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}
        return copy.deepcopy(state) | {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; raises ValueError if the shapes differ."""
        for name, tensor in self.network.state_dict().items():
            saved = state["network"].get(name)
            if saved is None or saved.shape != tensor.shape:
                found = "nothing" if saved is None else f"shape {tuple(saved.shape)}"
                raise ValueError(
                    f"this RL2 state does not fit: {name} has shape {tuple(tensor.shape)} here, {found} in the state; "
                    "build the agent with the settings and the family it was saved with"
                )
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.updates = state["updates"]
