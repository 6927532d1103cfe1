"""RecurrentPPO of sb3-contrib over whole trials: an LSTM that learns to adapt in its memory, as RL2 does.

It reads RL2's slots (`metarl.agents.slots`); what differs is the learner, which is somebody else's.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import Tensor, nn

from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.sb3.learner import Sb3Agent, Standardise
from metarl.agents.sb3.settings import RecurrentPpoSettings
from metarl.agents.slots import Memory, SlotReader, slots


class TrialsPolicy(RecurrentActorCriticPolicy):
    """sb3-contrib's, which walks through a minibatch step by step, in Python, if a trial begins anywhere in it.

    Sequences are cut where trials begin: with their first memory cleared here, nothing is left to clear on the way, and
    the LSTM reads them in one call.
    """

    @staticmethod
    def _process_sequence(
        features: Tensor, lstm_states: tuple[Tensor, Tensor], episode_starts: Tensor, lstm: nn.LSTM
    ) -> tuple[Tensor, Any]:
        starts = episode_starts.view(lstm_states[0].shape[1], -1).clone()
        kept = (1.0 - starts[:, 0]).view(1, -1, 1)
        starts[:, 0] = 0.0
        states = (kept * lstm_states[0], kept * lstm_states[1])
        return RecurrentActorCriticPolicy._process_sequence(features, states, starts.flatten(), lstm)


def slots_of_arrays(*parts: np.ndarray) -> np.ndarray:
    """`slots` for the NumPy arrays of a VecEnv."""
    return slots(*map(torch.from_numpy, parts)).numpy()


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


class RecurrentPpo(SlotReader, Sb3Agent):
    """RecurrentPPO behind the Learner protocol: see `metarl.agents.learning.Learner`."""

    settings: RecurrentPpoSettings
    name = "recurrent_ppo"
    slot_maker = staticmethod(slots_of_arrays)
    memory_names = ("hidden", "cell")

    def __init__(
        self,
        settings: RecurrentPpoSettings,
        observation_size: int,
        action_size: int,
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        options = {
            "net_arch": list(settings.head_sizes),
            "activation_fn": nn.Tanh,
            "lstm_hidden_size": settings.hidden_size,
        }
        size = observation_size + action_size + 3
        policy = TrialsPolicy
        sizes = observation_size, size, action_size
        self.memory_size = settings.hidden_size
        super().__init__(RecurrentPPO, policy, settings, *sizes, options, generator, device, ranks)

    def steps_between(self, steps: int) -> int:
        return steps

    def make_buffer(self, steps: int, num_envs: int) -> RecurrentRolloutBuffer:
        model, s = self.model, self.settings
        empty = torch.zeros(1, num_envs, s.hidden_size, device=self.device)
        model._last_lstm_states = RNNStates((empty, empty), (empty, empty))
        spaces = (model.observation_space, model.action_space)
        shape = (steps, 1, num_envs, s.hidden_size)
        return RecurrentRolloutBuffer(steps, *spaces, shape, self.device, s.gae_lambda, s.discount, num_envs)

    def read_slot(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Action means [M, N, act] and the memory after one slot [M, N, input]."""
        before = tuple(memory[name].flatten(0, 1).unsqueeze(0) for name in self.memory_names)
        policy = self.model.policy  # its parts: its methods leave their result in the policy, and shards act at once
        features, after = policy.lstm_actor(self._standardise(inputs).flatten(0, 1).unsqueeze(0), before)
        means = policy.action_net(policy.mlp_extractor.policy_net(features))
        states = {name: x.view(memory[name].shape) for name, x in zip(self.memory_names, after, strict=True)}
        return means.view(*inputs.shape[:2], self.action_size), states

    def log_std(self) -> Tensor:
        """[act], of the actions."""
        return self.model.policy.log_std

    def slot_policy(self) -> nn.Module:
        """On the CPU: (mean action, next states) of a slot's parts and the LSTM's states, all [1, size]."""
        return LstmPolicy(self.model.policy, self.input_moments if self.settings.normalise_input else None)
