"""RecurrentPPO of sb3-contrib over whole trials: an LSTM that learns to adapt in its memory, as RL2 does.

It reads RL2's slots (`metarl.agents.slots`) and differs from RL2 in the learner, which is sb3-contrib's.
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

from metarl.agents.cores.core import Core, Memory
from metarl.agents.cores.recurrent import LstmCore
from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.sb3.learner import Sb3Agent, Standardise
from metarl.agents.sb3.settings import RecurrentPpoSettings
from metarl.agents.slots import SlotReader, slots


class TrialsPolicy(RecurrentActorCriticPolicy):
    """sb3-contrib's policy, faster: it reads a minibatch step by step, in Python, if a trial begins anywhere in it.

    Sequences are cut where trials begin, so only the memory before the first step must be cleared. Here that is done
    first, and the LSTM then reads the sequences in one call.
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
    """Return `slots` of the NumPy arrays of a VecEnv."""
    return slots(*map(torch.from_numpy, parts)).numpy()


class LstmPolicy(nn.Module):
    """A copy of the actor on the CPU: one slot [B, input] and the memory -> mean action [B, act] and the memory."""

    def __init__(self, policy: Any, moments: RunningMeanStd | None) -> None:
        super().__init__()
        self.standardise = Standardise(moments)
        self.core = LstmCore(copy.deepcopy(policy.lstm_actor).cpu())
        self.head = copy.deepcopy(nn.Sequential(policy.mlp_extractor.policy_net, policy.action_net)).cpu()

    def forward(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        features, after = self.core.step(self.standardise(inputs), memory)
        return self.head(features), after


class RecurrentPpo(SlotReader, Sb3Agent):
    """RecurrentPPO behind the Learner protocol: see `metarl.agents.learning.Learner`."""

    settings: RecurrentPpoSettings
    name = "recurrent_ppo"
    slot_maker = staticmethod(slots_of_arrays)

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
        super().__init__(RecurrentPPO, policy, settings, *sizes, options, generator, device, ranks)
        self._core = LstmCore(self.model.policy.lstm_actor)

    def steps_between(self, steps: int) -> int:
        return steps

    def make_buffer(self, steps: int, num_envs: int) -> RecurrentRolloutBuffer:
        model, s = self.model, self.settings
        empty = torch.zeros(1, num_envs, s.hidden_size, device=self.device)
        model._last_lstm_states = RNNStates((empty, empty), (empty, empty))
        spaces = (model.observation_space, model.action_space)
        shape = (steps, 1, num_envs, s.hidden_size)
        return RecurrentRolloutBuffer(steps, *spaces, shape, self.device, s.gae_lambda, s.discount, num_envs)

    @property
    def core(self) -> Core:
        """LSTM of the actor."""
        return self._core

    def read_slot(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return action means [B, act], and the memory after one slot [B, input]."""
        policy = self.model.policy  # its parts: its methods leave their result in the policy, and shards act at once
        features, after = self.core.step(self._standardise(inputs), memory)
        return policy.action_net(policy.mlp_extractor.policy_net(features)), after

    def log_std(self) -> Tensor:
        """Return the log-std of the actions, [act]."""
        return self.model.policy.log_std

    def slot_network(self) -> nn.Module:
        """Return a copy of the actor, on the CPU."""
        return LstmPolicy(self.model.policy, self.input_moments if self.settings.normalise_input else None)
