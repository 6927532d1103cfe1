"""RecurrentPPO of sb3-contrib over whole trials: an LSTM that learns to adapt in its memory, as RL2 does.

It reads RL2's slots (`metarl.agents.rl2.slots`); what differs is the learner, which is somebody else's.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import Tensor, nn

from metarl.agents.agent import Adaptation, Deployable, Reading, Rollout
from metarl.agents.numerics import gaussian_entropy, gaussian_log_prob
from metarl.agents.recurrent import replay
from metarl.agents.rl2 import slots
from metarl.agents.sb3 import Sb3Agent, Standardise
from metarl.agents.settings import RecurrentPpoSettings


@dataclass(frozen=True)
class RecurrentPpoBelief:
    """What the network has read of the tasks at hand, and what its next slot needs besides the observation."""

    hidden: Tensor
    """[M, N, H], of the actor's LSTM."""
    cell: Tensor
    """[M, N, H]."""
    previous_action: Tensor
    """[M, N, act], zero at the start of an episode."""
    previous_reward: Tensor
    """[M, N], zero at the start of an episode."""
    start: Tensor
    """[M, N] bool, True until the episode's first action."""
    ended: Tensor
    """[M, N] bool, True once the episode is over."""


class LstmPolicy(nn.Module):
    """The actor on one slot of one env, every argument [1, size]: (mean action, next hidden state, next cell state)."""

    def __init__(self, policy: Any, moments: RunningMeanStd | None) -> None:
        super().__init__()
        self.standardise = Standardise(moments)
        self.lstm = copy.deepcopy(policy.lstm_actor).cpu()
        self.head = copy.deepcopy(nn.Sequential(policy.mlp_extractor.policy_net, policy.action_net)).cpu()

    def forward(self, *arguments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        *slot, hidden, cell = arguments
        inputs = self.standardise(torch.cat(slot, dim=-1))
        features, (hidden, cell) = self.lstm(inputs.unsqueeze(0), (hidden.unsqueeze(0), cell.unsqueeze(0)))
        return self.head(features[0]), hidden[0], cell[0]


class RecurrentPpo(Sb3Agent):
    """RecurrentPPO behind the Agent protocol: see `metarl.agents.agent.Sb3Learner`."""

    settings: RecurrentPpoSettings
    reads_trials = True
    adapts_by: Adaptation = "memory"

    def __init__(
        self,
        settings: RecurrentPpoSettings,
        observation_size: int,
        action_size: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        options = {
            "net_arch": list(settings.head_sizes),
            "activation_fn": nn.Tanh,
            "lstm_hidden_size": settings.hidden_size,
        }
        size = observation_size + action_size + 3
        policy = RecurrentActorCriticPolicy
        sizes = observation_size, size, action_size
        super().__init__(RecurrentPPO, policy, settings, *sizes, options, generator, device)

    def steps_between(self, steps: int) -> int:
        return steps

    def make_buffer(self, steps: int, num_envs: int) -> RecurrentRolloutBuffer:
        model, s = self.model, self.settings
        empty = torch.zeros(1, num_envs, s.hidden_size, device=self.device)
        model._last_lstm_states = RNNStates((empty, empty), (empty, empty))
        spaces = (model.observation_space, model.action_space)
        shape = (steps, 1, num_envs, s.hidden_size)
        return RecurrentRolloutBuffer(steps, *spaces, shape, self.device, s.gae_lambda, s.discount, num_envs)

    def begin(self, num_tasks: int, envs_per_task: int) -> RecurrentPpoBelief:
        """The belief of a network that has read nothing."""
        shape = (num_tasks, envs_per_task)
        hidden = torch.zeros(*shape, self.settings.hidden_size, device=self.device)
        return RecurrentPpoBelief(
            hidden=hidden,
            cell=hidden,
            previous_action=torch.zeros(*shape, self.action_size, device=self.device),
            previous_reward=torch.zeros(shape, device=self.device),
            start=torch.ones(shape, dtype=torch.bool, device=self.device),
            ended=torch.zeros(shape, dtype=torch.bool, device=self.device),
        )

    def join(self, beliefs: Sequence[RecurrentPpoBelief], order: Tensor) -> RecurrentPpoBelief:
        """One belief about all their tasks; order [M]: the place of each task in the sequence of theirs."""
        joined = {f.name: torch.cat([getattr(b, f.name) for b in beliefs]) for f in fields(RecurrentPpoBelief)}
        return RecurrentPpoBelief(**{name: value[order.to(self.device)] for name, value in joined.items()})

    @torch.no_grad()
    def act(
        self, belief: RecurrentPpoBelief, observations: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, RecurrentPpoBelief]:
        """Read a slot and act; an env whose episode is over reads nothing and keeps its previous action."""
        means, hidden, cell = self._read(belief, observations, belief.start, torch.zeros_like(belief.ended))
        std = self.model.policy.log_std.exp()
        actions = means if noise is None else means + std * noise.to(self.device)
        held = belief.ended.unsqueeze(-1)
        return actions, replace(
            belief,
            hidden=torch.where(held, belief.hidden, hidden),
            cell=torch.where(held, belief.cell, cell),
            previous_action=torch.where(held, belief.previous_action, actions),
            start=torch.zeros_like(belief.start),
        )

    def observe(self, belief: RecurrentPpoBelief, rewards: Tensor, ended: Tensor) -> RecurrentPpoBelief:
        """Keep the rewards [M, N] of the last action for the next slot, and which episodes are over."""
        return replace(
            belief,
            previous_reward=torch.where(belief.ended, belief.previous_reward, rewards.to(self.device)),
            ended=belief.ended | ended.to(self.device),
        )

    @torch.no_grad()
    def adapt(self, belief: RecurrentPpoBelief, rollout: Rollout) -> RecurrentPpoBelief:
        """Read the slot after the episode, with its last reward; the next episode starts from that memory."""
        end = torch.ones_like(belief.ended)
        _, hidden, cell = self._read(belief, rollout.final_observations, torch.zeros_like(end), end)
        return replace(self.begin(*belief.ended.shape), hidden=hidden, cell=cell)

    @torch.no_grad()
    def read(self, belief: RecurrentPpoBelief, rollout: Rollout) -> Reading:
        """Read the slots of a shot, with the actions that were taken."""
        rollout = rollout.to(self.device)
        means, belief = replay(self, belief, rollout)
        log_std = self.model.policy.log_std.detach()
        entropies = gaussian_entropy(log_std).expand(rollout.rewards.shape)
        return Reading(belief, gaussian_log_prob(means, log_std, rollout.actions), entropies)

    def deployable(self, belief: RecurrentPpoBelief) -> Deployable:
        """The network with its slot's parts and its memory as arguments."""
        one = torch.zeros(1, 1)
        inputs = {
            "observation": torch.zeros(1, self.observation_size),
            "previous_action": torch.zeros(1, self.action_size),
            "previous_reward": one,
            "episode_start": torch.ones(1, 1),
            "episode_end": one,
            "hidden": belief.hidden[0].cpu(),
            "cell": belief.cell[0].cpu(),
        }
        module = LstmPolicy(self.model.policy, self.input_moments if self.settings.normalise_input else None)
        return Deployable(module, inputs, ("action", "next_hidden", "next_cell"))

    def belief_state(self, belief: RecurrentPpoBelief) -> dict[str, Any]:
        """The fields of a belief."""
        return {f.name: getattr(belief, f.name).cpu() for f in fields(RecurrentPpoBelief)}

    def load_belief(self, state: dict[str, Any]) -> RecurrentPpoBelief:
        """The belief that `belief_state` gave; raises ValueError if the shapes differ."""
        for name, size in (("hidden", self.settings.hidden_size), ("previous_action", self.action_size)):
            if state[name].shape[2:] != (size,):
                raise ValueError(f"the belief's {name} has shape {tuple(state[name].shape)}, here it is [M, N, {size}]")
        return RecurrentPpoBelief(**{f.name: state[f.name].to(self.device) for f in fields(RecurrentPpoBelief)})

    def _read(
        self, belief: RecurrentPpoBelief, observations: Tensor, start: Tensor, end: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Action means [M, N, act], hidden and cell states [M, N, H] after one slot."""
        inputs = slots(observations.to(self.device), belief.previous_action, belief.previous_reward, start, end)
        memory = tuple(x.flatten(0, 1).unsqueeze(0) for x in (belief.hidden, belief.cell))
        policy = self.model.policy  # its parts: its methods leave their result in the policy, and shards act at once
        features, after = policy.lstm_actor(self._standardise(inputs).flatten(0, 1).unsqueeze(0), memory)
        means = policy.action_net(policy.mlp_extractor.policy_net(features))
        hidden, cell = (x.view(belief.hidden.shape) for x in after)
        return means.view(belief.previous_action.shape), hidden, cell
