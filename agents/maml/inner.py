"""Inner steps of MAML, batched over tasks, and the losses after them as functions of the meta-parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents import numerics
from metarl.agents.maml.adapted import Adapted
from metarl.agents.maml.estimators import ESTIMATORS
from metarl.agents.maml.rules import Rule, State, make_rule
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.maml.shots import Batch, ratio
from metarl.agents.policy import Gaussian, GaussianPolicy, Layers

MOST_STEPS = 2**13
"""Steps in one backward pass on the CPU: their activations stay in the cache."""
TINY = 1e-24
"""Added to the square of a gradient's length, which has a slope at 0 then."""
KL_TRIES = 8
"""Times that an inner step is shortened for its bound on the KL divergence, at most."""


class Way(NamedTuple):
    """Where the inner steps on a shot went."""

    points: tuple[Tensor, ...]
    """The adapted part [M, A] after each of them, in order."""
    shortened: Tensor
    """[M], how many of them were shortened for their bound on the KL divergence."""


@dataclass(frozen=True)
class InnerLoop:
    """Inner steps from the meta-parameters theta [P + R] to the adapted part phi [M, A] of each task's policy.

    theta: the policy's parameters [P], which `policy` lays out, those of the rule [R], and, if the step sizes adjust
    themselves, their factor. Pieces that are not adapted are theta's in every task.
    """

    settings: MamlSettings
    """Settings of MAML."""
    policy: GaussianPolicy
    """Architecture of the policies."""

    @cached_property
    def parts(self) -> Adapted:
        """Which pieces are adapted."""
        return Adapted(self.policy, self.settings.adapted)

    @cached_property
    def rule(self) -> Rule:
        """What becomes of them."""
        return make_rule(self.settings, self.parts)

    @cached_property
    def size(self) -> int:
        """P, the number of parameters of a policy."""
        return sum(self.policy.pieces.values())

    def initial(self, generator: torch.Generator) -> Tensor:
        """Draw the first meta-parameters [P + R]."""
        policy = self.policy.initial(self.settings.initial_std, self.settings.output_gain, generator)
        factor = torch.ones(1 if self.settings.inner_kl_target else 0)
        return torch.cat([policy, self.rule.initial(generator), factor])

    def chunks(self, of_steps: Tensor) -> Iterator[slice]:
        """Return the ranges of tasks that are handled at once, for something of each step, [M, B]."""
        num_tasks, steps = of_steps.shape
        on_cpu = of_steps.device.type == "cpu"
        size = self.settings.tasks_per_chunk or (max(1, MOST_STEPS // max(1, steps)) if on_cpu else num_tasks)
        return (slice(i, min(i + size, num_tasks)) for i in range(0, num_tasks, size))

    def start(self, theta: Tensor, num_tasks: int) -> Tensor:
        """Return phi_0, the adapted part of theta for every task; a context is 0."""
        phi = self.parts.take(theta[None, : self.size])
        if c := self.policy.context_size:  # the last piece
            phi = torch.cat([phi[:, :-c], torch.zeros_like(phi[:, -c:])], dim=1)
        return phi.expand(num_tasks, -1)

    def acting(self, theta: Tensor, phi: Tensor, observations: Tensor, features: Tensor | None = None) -> Gaussian:
        """Return the distribution of actions of each task's policy for observations [M, B, obs].

        features: theta's for them, if they are known.
        """
        layers = self.parts.layers(theta[: self.size], phi)
        return self.policy(layers, observations) if features is None else self.policy(layers, features, self.frozen)

    @property
    def frozen(self) -> int:
        """Number of layers, from the first on, that no inner step changes."""
        return self.parts.frozen

    def features(self, layers: Layers, observations: Tensor) -> Tensor:
        """Return what those layers make of observations [M, B, obs]; themselves if there are none."""
        return self.policy.hidden(layers, observations, 0, self.frozen)

    def adapted(self, theta: Tensor, batches: Sequence[Batch], create_graph: bool) -> list[Tensor]:
        """Return phi_0, phi_1, ... phi_K [M, A], before and after the inner steps on each shot, functions of theta."""
        num_tasks = len(batches[0].weights)
        phis, state = [self.start(theta, num_tasks)], self.rule.start(num_tasks, theta)
        for k, batch in enumerate(batches[:-1]):
            way, state = self.step(theta, phis[-1], batch, k, state, create_graph)
            phis.append(way.points[-1])
        return phis

    def step(
        self,
        theta: Tensor,
        phi: Tensor,
        batch: Batch,
        k: int,
        state: State,
        create_graph: bool,
        features: Tensor | None = None,
    ) -> tuple[Way, State]:
        """Return where the inner steps on shot k go from the adapted part phi [M, A], and the rule's state.

        As functions of theta if create_graph. features: theta's for the shot, if they are known.
        """
        second_order = create_graph and not self.settings.first_order
        if not create_graph:
            theta, phi = theta.detach(), phi.detach()
        if features is None:
            features = self.features(self.parts.layers(theta[: self.size], phi), batch.observations)
        anchor, points, shortened = phi, [], torch.zeros_like(phi[:, 0])
        for _ in range(self.settings.inner_steps):
            if not create_graph:
                phi = phi.detach().requires_grad_()
            loss = self.loss(theta, phi, batch, features)
            (gradient,) = torch.autograd.grad(loss.sum(), phi, create_graph=second_order)
            if self.settings.implicit_strength:
                gradient = gradient + self.settings.implicit_strength * (phi - anchor)
            if self.settings.inner_clip:
                norm = (gradient.square().sum(dim=1, keepdim=True) + TINY).sqrt()  # its slope at 0 is 0
                gradient = gradient * (self.settings.inner_clip / norm).clamp(max=1)
            new, state = self.rule(theta[self.size : self.size + self.rule.size], phi, gradient, loss, k, state)
            new = torch.where(batch.weights.any(1, keepdim=True), new, phi)  # a task of which no step counts
            if self.settings.inner_kl_target:  # the factor is adjusted, not learnt
                new = phi + theta[-1].detach() * (new - phi)
            if self.settings.inner_kl:
                share = self._within_kl(theta, phi, new, batch, features)
                shortened = shortened + (share < 1).squeeze(1)
                new = phi + share * (new - phi)
            phi = new
            points.append(phi if create_graph else phi.detach())
        return Way(tuple(points), shortened), state

    def loss(self, theta: Tensor, phi: Tensor, batch: Batch, features: Tensor | None = None) -> Tensor:
        """Return the loss [M] of inner steps, by the estimator of the settings."""
        log_probs = numerics.gaussian_log_prob(*self.acting(theta, phi, batch.observations, features), batch.actions)
        return ESTIMATORS[self.settings.inner_surrogate](log_probs, batch, self.settings.dice_lambda)

    def _within_kl(self, theta: Tensor, phi: Tensor, new: Tensor, batch: Batch, features: Tensor) -> Tensor:
        """Return the longest share [M, 1] of an inner step whose KL divergence is in its bound.

        The divergence grows with the square of the step, nearly. No derivative is taken through the length.
        """
        with torch.no_grad():
            share = torch.ones_like(phi[:, :1])
            for _ in range(KL_TRIES):
                kl = self.kl(theta, phi, torch.lerp(phi, new, share), batch, features)
                shorter = 0.99 * (self.settings.inner_kl / kl.clamp(min=1e-12)).sqrt()
                share = torch.where((kl > self.settings.inner_kl).unsqueeze(1), share * shorter.unsqueeze(1), share)
        return share

    def kl(self, theta: Tensor, phi: Tensor, new: Tensor, batch: Batch, features: Tensor | None = None) -> Tensor:
        """Return the mean KL divergence [M] of a shot between the policies of phi and of new."""
        before, after = (self.acting(theta, x, batch.observations, features) for x in (phi, new))
        return (batch.weights * numerics.gaussian_kl(*before, *after)).sum(1)

    def surrogate(self, theta: Tensor, phis: Sequence[Tensor], batches: Sequence[Batch]) -> Tensor:
        """Return -E[pi / pi_old A] of the last shot after adaptation, summed over tasks; phis: as `adapted` gives."""
        query = batches[-1]
        likelihoods = self._ratio(theta, phis[-1], query)
        loss = -(query.weights * likelihoods * query.advantages).sum()
        return loss + self._credit(theta, phis, batches)

    def promp_loss(self, theta: Tensor, phis: Sequence[Tensor], batches: Sequence[Batch]) -> Tensor:
        """Return ProMP's loss, summed over tasks (Rothfuss 2019, eq. 11): the clipped surrogate of the last shot, and
        the weighted KL(old || new) of the earlier ones."""
        s, query = self.settings, batches[-1]
        surrogate = numerics.clipped_surrogate(self._ratio(theta, phis[-1], query), query.advantages, s.promp_clip)
        loss = -(query.weights * surrogate).sum() + self._credit(theta, phis, batches)
        for phi, batch in zip(phis[:-1], batches[:-1], strict=True):
            new = self.acting(theta, phi, batch.observations)
            loss = loss + s.promp_inner_kl * (batch.weights * numerics.gaussian_kl(*batch.old, *new)).sum()
        return loss

    def _ratio(self, theta: Tensor, phi: Tensor, batch: Batch) -> Tensor:
        """Return pi / pi_old [M, B] of a shot's actions."""
        new = self.acting(theta, phi, batch.observations)
        return ratio(numerics.gaussian_log_prob(*new, batch.actions), batch)

    def _credit(self, theta: Tensor, phis: Sequence[Tensor], batches: Sequence[Batch]) -> Tensor:
        """Return E-MAML's term (Stadie 2018), summed over tasks; 0 if it has no weight."""
        term = theta.new_zeros(())
        if self.settings.exploration_credit:
            for phi, batch in zip(phis[:-1], batches[:-1], strict=True):
                valid = batch.weights > 0
                term = term - (batch.credit * (valid * self._ratio(theta, phi, batch)).sum(1)).sum()
        return term
