"""Distillation of an oracle into a policy with a memory, and PPO from there (Ross 2011, Lee 2020).

The student acts, with the noise of the teacher. First the teacher says at every step what it would have done, knowing
the task, and the student is regressed on that; then the critic learns to judge the student, which stays as it is; then
PPO trains both. The network is RL2's, with a memory and normalisers of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarl.agents.agent import Agent, Rollout, Trial
from metarl.agents.distilled.settings import DistilledSettings
from metarl.agents.learning import Trainer, World
from metarl.agents.rl2.network import Rl2Network
from metarl.agents.teacher.learner import InformedPpo
from metarl.agents.trial_ppo.sequence import PRIVILEGED, TrialSequence, lay_beside

CRITIC = ("critic.", "value.")
"""Beginnings of the names of the critic's parameters."""


class Distilled(InformedPpo[DistilledSettings, Rl2Network]):
    """A distilled policy behind the Learner protocol: see `metarl.agents.learning.Learner`."""

    label = "the distilled policy"
    settings: DistilledSettings
    teacher: Agent | None = None
    """The oracle; None if it is not imitated any more."""
    told: tuple[int, ...] = ()
    """Places of the privileged values that the oracle observes after the observation."""

    def make_network(self) -> Rl2Network:
        """Return embeddings, core and heads."""
        told = len(self.privileged) if self.settings.privileged_critic else 0
        return Rl2Network(self.settings, self.observation_size, self.action_size, self.make_core, told)

    def studied(self) -> list[nn.Parameter]:
        """Return the parameters of the mean of the actions."""
        named = self.network.named_parameters()
        return [parameter for name, parameter in named if not name.startswith(CRITIC) and name != "log_std"]

    @property
    def distilling(self) -> bool:
        """Whether the oracle is imitated in the current iteration."""
        return self.updates < self.settings.distil_updates

    @property
    def warming(self) -> bool:
        """Whether the critic alone learns in the current iteration."""
        return not self.distilling and self.updates < self.settings.distil_updates + self.settings.critic_updates

    def trainer(self, world: World) -> Trainer:
        """Load the oracle if it is still to be imitated, then play and learn. ValueError without one that fits."""
        if self.distilling:
            if not self.settings.teacher:
                raise ValueError(
                    "teacher is empty: give the folder of an oracle's run on this family, which metarl train --agent "
                    "ppo training.reveal_task=true makes"
                )
            self.teacher, self.told = world.oracle(self.settings.teacher)
            if not self.updates:
                self._take_noise(self.teacher)
        return super().trainer(world)

    @torch.no_grad()
    def _take_noise(self, teacher: Agent) -> None:
        """Act with the noise of the teacher: more of it leads to states that no good policy meets."""
        size = self.observation_size + len(self.told)
        belief, seen = teacher.begin(1, 1, [torch.Generator()]), torch.zeros(1, 1, size, device=teacher.device)
        still, _ = teacher.act(belief, seen, None)
        noisy, _ = teacher.act(belief, seen, torch.ones_like(still))
        self.network.log_std.copy_((noisy - still).flatten().clamp(min=self.settings.min_std).log())

    def log_std(self) -> Tensor:
        """Return the log-std of the actions, [act], which the critic's iterations leave as it is."""
        return super().log_std().detach() if self.warming else super().log_std()

    def update_input_moments(self, sequence: TrialSequence) -> None:
        """Update the normalisers of what the network reads; the policy's not while it is to stay as it is."""
        if not self.warming:
            super().update_input_moments(sequence)
        self.network.learn_privileged(sequence, self.ranks)

    def means(self, sequence: TrialSequence) -> Tensor:
        """Return action means [L, B, act]."""
        features, _ = self.network(sequence.inputs, sequence.memory)
        return self.network.means(features)

    def evaluate(self, sequence: TrialSequence) -> tuple[Tensor, Tensor]:
        """Return action means [L, B, act] and values [L, B]; the gradient may reach the critic alone."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.warming):
            features, _ = self.network(sequence.inputs, sequence.memory)
            means = self.network.means(features)
        return means, self.network.values(features, sequence.ending, sequence.extra[PRIVILEGED])

    def labels(self, trial: Trial, generator: torch.Generator) -> Tensor:
        """Return the oracle's action means [L, B, act] for what the student met: an oracle that remembers or adapts has
        read all of the trial before."""
        assert self.teacher is not None
        _, num_tasks, envs_per_task = trial.rollouts[0].rewards.shape
        belief = self.teacher.begin(num_tasks, envs_per_task, self._generators(num_tasks, generator))
        means = []
        for shot, rollout in enumerate(trial.rollouts, 1):
            seen = self._seen(rollout)
            reading = self.teacher.read(belief, seen)
            means.append(reading.means)
            if shot < len(trial.rollouts):
                generators = self._generators(num_tasks, generator)
                belief = self.teacher.adapt(reading.belief, seen.to(self.teacher.device), generators)
        return lay_beside(trial, means, self.device)

    def _generators(self, num_tasks: int, generator: torch.Generator) -> list[torch.Generator]:
        """Return a generator for each of this process's tasks; the tasks of all processes are drawn for."""
        count, first = self._places(num_tasks)
        seeds = torch.randint(2**62, (count,), generator=generator, device=generator.device)
        return [torch.Generator().manual_seed(seed) for seed in seeds[first : first + num_tasks].tolist()]

    def _seen(self, rollout: Rollout) -> Rollout:
        """Return a rollout as the oracle would have observed it; after the last step it is told what it was before."""
        assert rollout.privileged is not None
        told = rollout.privileged[..., list(self.told)]
        last = (rollout.valid.sum(dim=0) - 1).clamp(min=0)  # [M, N], the step that ended the episode
        final = told.take_along_dim(last[None, :, :, None], dim=0)[0]
        added = {"observations": told, "next_observations": told, "final_observations": final}
        return rollout.map(lambda name, x: torch.cat([x, added[name]], dim=-1) if name in added else x)

    def meta_update(self, trial: Trial, generator: torch.Generator) -> dict[str, float]:
        """Imitate the oracle on a trial, then let the critic learn from trials, then both by PPO."""
        if not self.distilling:
            return super().meta_update(trial, generator)
        sequence = self.sequence(trial)

        def update_moments() -> None:
            self._update_moments(sequence)

        labels = self.labels(trial, generator)
        metrics = self.study(sequence, labels, self.means, generator, update_moments)
        self.updates += 1
        return metrics
