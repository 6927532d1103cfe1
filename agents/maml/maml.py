"""MAML for reinforcement learning (Finn 2017): inner steps batched over tasks, outer step by ProMP or TRPO.

With theta the meta-parameters, phi_0 = theta and phi_{k+1} = phi_k - alpha_k grad L_k(phi_k) for each task, where L_k
is the policy-gradient loss of shot k, the outer step lowers the loss of the last shot as a function of theta. Per-task
means are summed over tasks before differentiation, so that every task's inner gradient is its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from metarl.agents import numerics
from metarl.agents.agent import Deployable, Facts, Reading, Rollout, Trial
from metarl.agents.beliefs import NOT_SAVED
from metarl.agents.learning import MetaLearner
from metarl.agents.maml.inner import InnerLoop, Way
from metarl.agents.maml.outer import OuterLoop
from metarl.agents.maml.preparation import Preparation, exploration_credit
from metarl.agents.maml.rules import State
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.maml.shots import Batch, by_task
from metarl.agents.maml.value import ValueNetwork
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.policy import GaussianPolicy, Layers
from metarl.agents.ranks import ALONE, Ranks

MOST_ADJUSTED = 1.1
"""Largest factor on the inner step sizes in an iteration."""
INNER_SCALE_RANGE = 100.0
"""Largest factor on them in all; its inverse is the smallest."""


@dataclass(frozen=True)
class MamlBelief:
    """The parameters that each task's policy has reached."""

    parameters: Tensor
    """[M, P] flat."""
    steps: int
    """Number of shots adapted from."""
    rule: State
    """State of the rule of inner steps, [M, ...] each."""
    policy: GaussianPolicy = field(metadata=NOT_SAVED)
    """Architecture of the policies."""
    batches: tuple[Batch, ...] = field(default=(), metadata=NOT_SAVED)
    """Shots that were adapted from, which only an outer step needs."""
    ways: tuple[Way, ...] = field(default=(), metadata=NOT_SAVED)
    """Where the inner steps on each of them went."""

    @cached_property
    def layers(self) -> Layers:
        """The parameters as stacked layers."""
        return self.policy.layers(self.parameters)

    @cached_property
    def std(self) -> Tensor:
        """Standard deviations of the policies' actions, [M, 1, act]."""
        return self.layers.log_std.exp()


class MeanPolicy(nn.Module):
    """The mean of one task's policy: observation [1, obs] -> action [1, act]."""

    def __init__(self, policy: GaussianPolicy, moments: Moments | None, layers: Layers):
        super().__init__()
        self.policy, self.moments, self.layers = policy, moments, layers

    def forward(self, observation: Tensor) -> Tensor:
        if self.moments is not None:
            observation = self.moments.standardise(observation).clamp(-INPUT_CLIP, INPUT_CLIP)
        return self.policy(self.layers, observation.unsqueeze(0)).mean[0]


class Maml(MetaLearner):
    """Model-agnostic meta-learning of a Gaussian policy."""

    facts = Facts(needs_own_noise=True)

    def __init__(
        self,
        settings: MamlSettings,
        observation_size: int,
        action_size: int,
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks = ALONE,
    ):
        require_together(settings)
        self.settings = settings
        self.ranks = ranks
        self.policy = GaussianPolicy(
            observation_size,
            action_size,
            settings.hidden_sizes,
            settings.activation,
            settings.min_std,
            settings.context_parameters,
            settings.context_as,
        )
        self.device = device
        self.inner = InnerLoop(settings, self.policy)
        self.theta = self.inner.initial(generator).to(device)
        """Meta-parameters [P + R]: of the policy, and of the rule of inner steps."""
        self._optimiser = torch.optim.Adam([self.theta], lr=settings.promp_lr)
        self._moments = Moments(observation_size).to(device)
        self.outer = OuterLoop(self.inner, ranks)
        self._value = (
            None if settings.baseline == "linear" else ValueNetwork(settings, observation_size, generator, device)
        )
        self._preparation = Preparation(settings, self.policy, self._moments, self._value, self.inner.chunks)

    def begin(self, num_tasks: int, envs_per_task: int, generators: Sequence[torch.Generator]) -> MamlBelief:
        """Return the belief that every task's policy is the one of the meta-parameters."""
        theta = self.theta.detach()
        parameters = self.inner.parts.whole(theta[: self.inner.size], self.inner.start(theta, num_tasks))
        return MamlBelief(parameters.clone(), 0, self.inner.rule.start(num_tasks, theta), self.policy)

    def act(self, belief: MamlBelief, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, MamlBelief]:
        actions = self.policy(
            belief.layers, self._preparation.inputs(observations.to(self.device), self.theta.dtype)
        ).mean
        if noise is not None:
            actions = actions + belief.std * noise.to(self.device)
        return actions, belief

    def adapt(self, belief: MamlBelief, rollout: Rollout, generators: Sequence[torch.Generator]) -> MamlBelief:
        """Take the inner steps on the rollout."""
        batch, features = self.shot(rollout, belief)
        phi, theta = self.inner.parts.take(belief.parameters), self.theta.detach()
        ways, states = [], []
        for chunk in self.inner.chunks(batch.weights):
            state = tuple(x[chunk] for x in belief.rule)
            way, state = self.inner.step(
                theta, phi[chunk], batch.tasks(chunk), belief.steps, state, create_graph=False, features=features[chunk]
            )
            ways.append(way)
            states.append(tuple(x.detach() for x in state))
        points = tuple(torch.cat(parts) for parts in zip(*(way.points for way in ways), strict=True))
        way = Way(points, torch.cat([way.shortened for way in ways]))
        parameters = self.inner.parts.whole(theta[: self.inner.size], points[-1])
        rule = tuple(torch.cat(parts) for parts in zip(*states, strict=True))
        batches, ways = (*belief.batches, batch), (*belief.ways, way)
        return MamlBelief(parameters, belief.steps + 1, rule, self.policy, batches, ways)

    @torch.no_grad()
    def read(self, belief: MamlBelief, rollout: Rollout) -> Reading:
        steps, m, n = rollout.rewards.shape
        rollout = rollout.to(self.device)
        policy = self.policy(belief.layers, self._preparation.inputs(by_task(rollout.observations), self.theta.dtype))
        log_probs = numerics.gaussian_log_prob(*policy, by_task(rollout.actions))
        entropies = numerics.gaussian_entropy(policy.log_std).expand(m, steps * n)
        found = log_probs, entropies.contiguous(), policy.mean.contiguous()
        return Reading(belief, *(x.view(m, steps, n, *x.shape[2:]).transpose(0, 1) for x in found))

    def observation_moments(self, belief: MamlBelief) -> Moments | None:
        return self._moments if self.settings.normalise_input else None

    def deployable(self, belief: MamlBelief) -> Deployable:
        moments = copy.deepcopy(self.observation_moments(belief))
        layers = self.policy.layers(belief.parameters.cpu())
        module = MeanPolicy(self.policy, None if moments is None else moments.cpu(), layers)
        return Deployable(module, {"observation": torch.zeros(1, self.policy.observation_size)}, ("action",))

    def meta_update(self, trial: Trial, generator: torch.Generator) -> dict[str, float]:
        batches = [*trial.beliefs[-1].batches, self.prepare(trial.rollouts[-1], trial.beliefs[-1])]
        num_tasks = int(self.ranks.sum(torch.tensor(len(batches[0].weights), device=self.device)))
        measured = self._inner_kl(trial.beliefs[-1].ways, batches[:-1])
        if self.settings.exploration_credit:
            credit = self.settings.exploration_credit * exploration_credit(batches[-1], num_tasks, self.ranks)
            batches = [batch._replace(credit=credit) for batch in batches[:-1]] + batches[-1:]
        if self.settings.outer == "promp":
            metrics = self.outer.promp_step(self.theta, self._optimiser, batches, num_tasks)
        elif self.settings.outer == "trpo":
            metrics = self.outer.trpo_step(self.theta, batches, num_tasks, generator)
        else:
            metrics = self.outer.reptile_step(self.theta, batches, num_tasks)
        metrics |= measured | self._adjust(measured)
        if self._value is not None:
            shots = [self._preparation.returns(rollout.to(self.device), self.theta.dtype) for rollout in trial.rollouts]
            metrics["value_error"] = self._value.learn(shots, self.inner.chunks, self.ranks)
        if self.settings.normalise_input:  # last: a trial is learned from with the inputs that it was collected with
            observations = torch.cat([r.observations[r.valid] for r in trial.rollouts])
            self._moments.update(observations.to(self.device), self.ranks)
        log_std = dict(zip(self.policy.pieces, self.policy.split(self.theta[: self.inner.size]), strict=True))[
            "log_std"
        ]
        log_std.detach().clamp_(min=math.log(self.settings.min_std))  # below it, it would have no gradient
        return {**metrics, "std": float(log_std.exp().mean())}

    @torch.no_grad()
    def _inner_kl(self, ways: Sequence[Way], batches: Sequence[Batch]) -> dict[str, float]:
        """Return the mean KL divergence of an inner step on the shots, and the share of them that were shortened."""
        if not ways:
            return {}
        kls, shortened = [], []
        for way, batch in zip(ways, batches, strict=True):
            before = batch.old
            for point in way.points:
                after = self.inner.acting(self.theta, point, batch.observations)
                kls.append((batch.weights * numerics.gaussian_kl(*before, *after)).sum(1).double())
                before = after
            shortened.append(way.shortened.double())
        of_steps = torch.cat(kls)
        sums = torch.stack([of_steps.sum(), torch.cat(shortened).sum(), torch.ones_like(of_steps).sum()])
        total, short, count = self.ranks.sum(sums).tolist()
        return {"inner_kl": total / count, **({"inner_shortened": short / count} if self.settings.inner_kl else {})}

    def _adjust(self, measured: dict[str, float]) -> dict[str, float]:
        """Move the factor of the inner step sizes towards its target of KL divergence; returns it as a metric.

        Steps that changed no policy, as where no reward differs, say nothing about it.
        """
        target = self.settings.inner_kl_target
        if not target or not measured:
            return {}
        if measured["inner_kl"] > 0:
            change = (target / measured["inner_kl"]) ** 0.5  # the divergence grows with the step's square
            self.theta[-1] *= min(max(change, 1 / MOST_ADJUSTED), MOST_ADJUSTED)
            self.theta[-1].clamp_(1 / INNER_SCALE_RANGE, INNER_SCALE_RANGE)
        return {"inner_scale": float(self.theta[-1])}

    def state_dict(self) -> dict[str, Any]:
        moments, optimiser = self._moments.state_dict(), self._optimiser.state_dict()
        value = {} if self._value is None else {"value": self._value.state_dict()}
        own = {"theta": self.theta.detach(), "layout": self._layout, "optimiser": optimiser, "moments": moments}
        return copy.deepcopy({**own, **value})

    @property
    def _layout(self) -> dict[str, Any]:
        """What the numbers of theta are."""
        return {"film": self.policy.context_as == "film", "pieces": self.policy.pieces}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        theta = state["theta"]
        alike = state.get("layout", {**self._layout, "film": False}) == self._layout  # there was no other before
        if theta.shape != self.theta.shape or not alike or ("value" in state) != (self._value is not None):
            raise ValueError(
                f"the checkpoint's policy has {theta.numel()} parameters, this one {self.theta.numel()}: their layer "
                "sizes, contexts, observations, actions, rules of inner steps or baselines differ; use the config that "
                "the checkpoint was made with"
            )
        self.theta.copy_(theta)
        self._optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))
        self._moments.load_state_dict(state["moments"])
        if self._value is not None:
            self._value.load_state_dict(state["value"])

    def prepare(self, rollout: Rollout, belief: MamlBelief) -> Batch:
        """Return a shot's steps by task, with advantages over the baseline; belief: that collected it."""
        return self.shot(rollout, belief)[0]

    def shot(self, rollout: Rollout, belief: MamlBelief) -> tuple[Batch, Tensor]:
        """Return what `prepare` does, and the outputs [M, B, .] of the layers that no inner step changes."""
        return self._preparation.batch(rollout.to(self.device), belief.layers, self.inner.frozen, self.theta.dtype)


def require_together(settings: MamlSettings) -> None:
    """Raise ValueError for settings that contradict each other."""
    s = settings
    if s.first_order and s.implicit_strength:
        raise ValueError(
            "agent.first_order drops the derivative that agent.implicit_strength asks for; set one of them"
        )
    if s.implicit_strength and s.inner_rule != "fixed":
        raise ValueError(
            f"agent.implicit_strength differentiates the fixed point of the inner steps, which says nothing about the "
            f"rule that reaches it, so that agent.inner_rule={s.inner_rule} would never be learned; set one of them"
        )
    if s.context_parameters and not {"context", "all"} & set(s.adapted):
        raise ValueError(
            f"agent.context_parameters is {s.context_parameters}, but agent.adapted names no context; add it"
        )
    if s.context_as != "inputs" and not s.context_parameters:
        raise ValueError(
            f"agent.context_as is {s.context_as}, but there is no context; set agent.context_parameters, for instance 5"
        )
    if 0 < s.inner_kl <= s.inner_kl_target:
        raise ValueError(
            f"agent.inner_kl={s.inner_kl:g} shortens every inner step that reaches agent.inner_kl_target="
            f"{s.inner_kl_target:g}, so that step sizes would grow without end; set a larger bound, or no bound (0)"
        )
    if s.outer == "reptile":
        lost = {
            "agent.adapted": s.adapted != ("all",),
            "agent.context_parameters": s.context_parameters > 0,
            "agent.inner_rule": s.inner_rule != "fixed",
            "agent.exploration_credit": s.exploration_credit > 0,
        }
        if given := [name for name, wrong in lost.items() if wrong]:
            raise ValueError(
                f"agent.outer is reptile, which learns what is adapted and nothing else; leave {' and '.join(given)} "
                "as they are by default, or choose promp or trpo"
            )
