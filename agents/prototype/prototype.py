"""A policy on the prototype: it reads the mean of the embeddings of all that it met on a task, a set without an order.

PPO trains policy and encoder end to end, over whole trials. Beside it the metric loss of prototypical networks (Snell
2017) tells tasks apart: each episode after the first is a query, and the prototypes of first episodes are the classes.
`metarl.agents.slots` has the inputs and the belief, `core` the prototype.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarl.agents.agent import Facts, Trial
from metarl.agents.prototype.core import PrototypeCore
from metarl.agents.prototype.settings import PrototypeSettings
from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.rl2.network import Rl2Network
from metarl.agents.trial_ppo.learner import TrialPpo
from metarl.agents.trial_ppo.sequence import TrialSequence, lay_beside

TASK = "task"
"""Name of the number of a step's task, [L, B], among what is added to a sequence; 0 in other slots."""


class PrototypeNetwork(Rl2Network):
    """Embeddings, the prototype, and heads that read it beside the observation."""

    def __init__(self, settings: PrototypeSettings, observation_size: int, action_size: int) -> None:
        slot_size = observation_size + action_size + 1
        make_core = functools.partial(PrototypeCore, slot_size=slot_size)
        super().__init__(settings, observation_size, action_size, make_core)
        self.metric_scale = Scale()

    def embed(self, normalised: Tensor) -> Tensor:
        """Return the core's inputs [..., embedding + slot + 2] of normalised slots: the slot is there as it is too."""
        observation, action, reward, flags = normalised.split_with_sizes(self.sizes, dim=-1)
        reward = reward if self.reward_input else torch.zeros_like(reward)
        return torch.cat([super().embed(normalised), observation, action, reward, flags], dim=-1)

    @property
    def encoder(self) -> PrototypeCore:
        """The memory, as what it is."""
        core = self.core
        assert isinstance(core, PrototypeCore)
        return core

    def episodes(self, sequence: TrialSequence) -> Tensor:
        """Return the mean embedding of each episode of trials, [K, B, E], for K shots."""
        inputs = self.embed(self.normalise(sequence.inputs))
        embedded, weights = self.encoder.embeddings(inputs, *self.encoder.before(inputs, sequence.memory))
        ends = sequence.inputs[..., -1]  # 1 in the slot after an episode
        number = (ends.cumsum(dim=0) - ends).long()  # [L, B]
        shots = int(ends.sum(dim=0).amax())
        own = functional.one_hot(number.clamp(max=shots), shots + 1)[..., :shots].to(embedded)  # [L, B, K]
        counts = torch.einsum("lbk,lb->kb", own, weights.squeeze(-1))
        return torch.einsum("lbk,lbe->kbe", own, embedded) / counts.clamp(min=1).unsqueeze(-1)


class Scale(nn.Module):
    """The logarithm of the factor on squared distances, in a module so that it is zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.zeros(1))

    def forward(self, distances: Tensor) -> Tensor:
        return self.log.exp() * distances


class Prototype(TrialPpo[PrototypeSettings, PrototypeNetwork]):
    """The policy on the prototype behind the Learner protocol: see `metarl.agents.learning.Learner`."""

    facts = Facts(belief_per_env=True, infers_one_task=True)
    label = "the policy on the prototype"
    settings: PrototypeSettings

    def __init__(
        self,
        settings: PrototypeSettings,
        observation_size: int,
        action_size: int,
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        if ranks.size > 1:
            raise ValueError(
                f"prototype tells the tasks of an iteration apart in one process, not in {ranks.size}; train it "
                "without torchrun"
            )
        if settings.chunk and settings.metric_weight:
            raise ValueError(
                f"agent.chunk is {settings.chunk}, but the metric loss compares whole episodes; set agent.chunk=0 or "
                "agent.metric_weight=0"
            )
        super().__init__(settings, observation_size, action_size, generator, device, ranks)

    def make_network(self) -> PrototypeNetwork:
        """Return embeddings, prototype and heads."""
        return PrototypeNetwork(self.settings, self.observation_size, self.action_size)

    def sequence(self, trial: Trial) -> TrialSequence:
        """Return a trial with the number of each step's task; a task that was drawn several times is one."""
        names = [task.id for task in trial.tasks] or [str(m) for m in range(trial.rollouts[0].valid.shape[1])]
        numbers = torch.tensor([names.index(name) for name in names])
        tasks = [numbers.view(1, -1, 1).expand(r.valid.shape) for r in trial.rollouts]
        return replace(super().sequence(trial), extra={TASK: lay_beside(trial, tasks, self.device)})

    @torch.no_grad()
    def update_input_moments(self, sequence: TrialSequence) -> None:
        """Update the normalisers, and after them those of the steps, which read normalised slots."""
        super().update_input_moments(sequence)
        core, inputs = self.network.encoder, self.network.embed(self.network.normalise(sequence.inputs))
        slots, before = core.slots(inputs)[1:], core.slots(inputs)[:-1]
        led_to = sequence.transitions[:-1]  # [L - 1, B], steps that the next slot shows
        core.step_moments.update(torch.cat([slots, slots - before], dim=-1)[led_to])

    def auxiliary_loss(self, sequence: TrialSequence, count: int) -> tuple[Tensor | None, dict[str, float]]:
        """Return the cross-entropy of telling each later episode's task by the prototypes of first episodes.

        None where there is a single task or a single episode on each.
        """
        found = {"metric_loss": 0.0, "metric_accuracy": 0.0}
        if not self.settings.metric_weight:
            return None, found
        episodes = self.network.episodes(sequence)
        classes = sequence.extra[TASK].amax(dim=0).unique(return_inverse=True)[1]  # [B]
        if len(episodes) < 2 or int(classes.max()) < 1:
            return None, found
        scores = -self.network.metric_scale(distances_to_first(episodes, classes))  # [K - 1, B, W]
        scores, right = scores.flatten(0, 1), classes.repeat(len(episodes) - 1)
        loss = functional.cross_entropy(scores, right)
        accuracy = (scores.argmax(dim=1) == right).float().mean().item()
        return self.settings.metric_weight * loss, {"metric_loss": loss.item(), "metric_accuracy": accuracy}


def distances_to_first(episodes: Tensor, classes: Tensor) -> Tensor:
    """|z_kb - c_w|^2 for c_w the mean of the first episodes z_0b of class w (Snell 2017), [K, B, E] -> [K - 1, B, W].

    classes: [B] int64, each of 0..W-1 at least once.
    """
    members = functional.one_hot(classes).to(episodes)  # [B, W]
    prototypes = members.T @ episodes[0] / members.sum(dim=0).unsqueeze(-1)  # [W, E]
    return (episodes[1:].unsqueeze(2) - prototypes).square().sum(dim=-1)
