"""RMA (Kumar 2021) and its one-stage form ROA (Fu 2022): a teacher with an encoding, and a student that infers it.

The policy reads the observation and a latent. While the teacher plays, an encoder of the privileged values gives the
latent, and PPO trains policy and encoder. While the student plays, its memory gives the latent; the memory is then
regressed on the encoding of what it met itself (DAgger, Ross 2011), and policy and encoder stay as they are. Outside of
training there is the student alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarl.agents.agent import TEACHER, Trial
from metarl.agents.rma.network import RmaNetwork
from metarl.agents.rma.settings import RmaSettings
from metarl.agents.slots import SlotBelief
from metarl.agents.teacher.learner import InformedBelief, InformedPpo
from metarl.agents.trial_ppo.sequence import PRIVILEGED, TrialSequence


class Rma(InformedPpo[RmaSettings, RmaNetwork]):
    """RMA behind the Learner protocol: see `metarl.agents.learning.Learner`."""

    label = "RMA"
    settings: RmaSettings

    @property
    def remembers(self) -> bool:
        """Whether PPO's steps read the memory: where they pull towards what it infers."""
        return bool(self.pull)

    def make_network(self) -> RmaNetwork:
        """Return policy, critic, encoder and memory."""
        sizes = self.observation_size, self.action_size, len(self.privileged)
        return RmaNetwork(self.settings, *sizes, self.make_core)

    def studied(self) -> list[nn.Parameter]:
        """Return the parameters of the student's memory."""
        return list(self.network.student())

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters of policy, critic and encoder."""
        return list(self.network.teacher())

    @property
    def studying(self) -> bool:
        """Whether the student plays the current iteration."""
        settings = self.settings
        if settings.stages == "rma":
            return self.updates >= settings.teacher_updates
        return (self.updates + 1) % settings.study_every == 0

    @property
    def pull(self) -> float:
        """Weight of the squared distance from the teacher's encoding to the student's."""
        settings = self.settings
        if settings.stages == "rma":
            return 0.0
        return settings.pull_weight * min(1.0, max(0.0, (self.updates - settings.pull_from) / settings.pull_updates))

    @torch.no_grad()
    def act(self, belief: SlotBelief, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, SlotBelief]:
        """Act as the student does, and in the teacher's iterations of training as the teacher does."""
        told = belief.privileged if isinstance(belief, InformedBelief) else None
        if told is None or self.studying:
            return super().act(belief, observations, noise)
        means = self.network.means(self.network.policy_inputs(observations.to(self.device), self.network.encode(told)))
        return means if noise is None else means + self.log_std().exp() * noise.to(self.device), belief

    def evaluate(self, sequence: TrialSequence) -> tuple[Tensor, Tensor]:
        """Return the teacher's action means [L, B, act] and values [L, B]."""
        network, privileged = self.network, sequence.extra[PRIVILEGED]
        means = network.means(network.policy_inputs(sequence.inputs, network.encode(privileged)))
        return means, network.state_values(sequence.inputs, privileged, sequence.ending)

    def auxiliary_loss(self, sequence: TrialSequence, count: int) -> tuple[Tensor | None, dict[str, float]]:
        """Return the pull of the teacher's encoding towards the student's."""
        if not self.pull:
            return None, {}
        latents = self.network.encode(sequence.extra[PRIVILEGED])
        with torch.no_grad():
            estimates = self.network.estimates(sequence.inputs, sequence.memory) if latents.numel() else latents
        distance = (latents - estimates).square().mean(dim=-1)[sequence.steps].sum() / count
        return self.pull * distance, {"pull_distance": distance.item(), "pull_weight": self.pull / self.ranks.size}

    def meta_update(self, trial: Trial, generator: torch.Generator) -> dict[str, float]:
        """Train the teacher on a trial that it played, or the student on one of its own."""
        if not self.studying:
            return {**super().meta_update(trial, generator), TEACHER: 1.0}
        sequence = self.sequence(trial)
        with torch.no_grad():
            latents = self.network.encode(sequence.extra[PRIVILEGED])

        def update_moments() -> None:
            super(Rma, self).update_input_moments(sequence)  # of the student: its own, from what it met itself

        def estimates(own: TrialSequence) -> Tensor:
            return self.network.estimates(own.inputs, own.memory)

        metrics = self.study(sequence, latents, estimates, generator, update_moments)
        self.updates += 1
        return {**metrics, TEACHER: 0.0}

    def update_input_moments(self, sequence: TrialSequence) -> None:
        """Update the normalisers of policy, critic and encoder."""
        steps = sequence.steps
        observations = sequence.inputs[..., : self.observation_size]
        self.network.policy_moments.update(observations[steps], self.ranks)
        self.network.privileged_moments.update(sequence.extra[PRIVILEGED][steps], self.ranks)
