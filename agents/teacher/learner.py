"""Agents that are trained with privileged values and act without them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarl.agents.agent import Facts, Trial
from metarl.agents.beliefs import NOT_SAVED
from metarl.agents.cores.registry import make_core
from metarl.agents.learning import Trainer, World
from metarl.agents.moments import Moments
from metarl.agents.ranks import ALONE, Ranks, sum_gradients
from metarl.agents.slots import SlotBelief
from metarl.agents.teacher.network import InformedNetwork
from metarl.agents.teacher.settings import StudySettings
from metarl.agents.trial_ppo.learner import ADAM_EPSILON, TrialPpo, with_steps
from metarl.agents.trial_ppo.network import CoreMaker, SlotNetwork
from metarl.agents.trial_ppo.sequence import TrialSequence, with_privileged

HISTORIES = (5, 20, 50, 200)
"""Numbers of slots read so far by which an error of the student is logged."""

Settings = TypeVar("Settings", bound=StudySettings)
Network = TypeVar("Network", bound=SlotNetwork)


@dataclass(frozen=True)
class InformedBelief(SlotBelief):
    """A memory, and in training the privileged values of the moment."""

    privileged: Tensor | None = field(default=None, metadata=NOT_SAVED)
    """[M, N, P]; None outside of training."""


class InformedPpo(TrialPpo[Settings, Network], Generic[Settings, Network]):
    """Base class of agents that are trained with privileged values, by PPO and by a regression of their memory."""

    facts = Facts(belief_per_env=True, informed=True)
    make_core: CoreMaker = staticmethod(make_core)

    def __init__(
        self,
        settings: Settings,
        observation_size: int,
        action_size: int,
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks = ALONE,
        privileged: Sequence[str] = (),
    ) -> None:
        """privileged: names of the privileged values."""
        self.privileged = tuple(privileged)
        super().__init__(settings, observation_size, action_size, generator, device, ranks)
        self.study_optimiser = torch.optim.Adam(self.studied(), lr=settings.study_lr, eps=ADAM_EPSILON)

    def studied(self) -> Sequence[nn.Parameter]:
        """Return the parameters that the regression trains."""
        raise NotImplementedError

    def trainer(self, world: World) -> Trainer:
        """Play a trial, then learn from it. ValueError if there is nothing privileged to learn from."""
        if not self.privileged:
            raise ValueError(
                f"{self.label} learns from what only a simulator knows, and the family has neither parameters nor "
                "privileged terms; choose another family, or an agent such as rl2"
            )
        return super().trainer(world)

    def begin(self, num_tasks: int, envs_per_task: int, generators: Sequence[torch.Generator]) -> InformedBelief:
        """Return the belief of a network that has read nothing."""
        return InformedBelief(**vars(super().begin(num_tasks, envs_per_task, generators)))

    def inform(self, belief: InformedBelief, privileged: Tensor) -> InformedBelief:
        """Return the belief with the privileged values [M, N, P]."""
        return dataclasses.replace(belief, privileged=privileged.to(self.device))

    def observation_moments(self, belief: SlotBelief) -> Moments | None:
        """Return the memory's moments; those of the policy before the memory has learned from anything."""
        moments, network = super().observation_moments(belief), self.network
        unread = moments is not None and not moments.count
        return network.policy_moments if unread and isinstance(network, InformedNetwork) else moments

    def sequence(self, trial: Trial) -> TrialSequence:
        """Return a trial as PPO learns from it, with its privileged values."""
        return with_privileged(super().sequence(trial), trial, self.label, self.device)

    def study(
        self,
        sequence: TrialSequence,
        targets: Tensor,
        estimates: Callable[[TrialSequence], Tensor],
        generator: torch.Generator,
        update_moments: Callable[[], None] | None = None,
    ) -> dict[str, float]:
        """Regress estimates on targets [L, B, size], each by the steps of a trial; returns metrics by name.

        estimates: returns those of a sequence, [L, B, size]. The errors are those that the trial was played with: they
        come before update_moments and before anything is learned from it.
        """
        with torch.no_grad():
            metrics = self.errors(estimates(sequence) if sequence.steps.numel() else targets, targets, sequence.steps)
        if update_moments is not None:
            update_moments()
        whole = dataclasses.replace(sequence, extra={**sequence.extra, "targets": targets})
        data = self.pieces(whole, remembering=True)
        if data is not whole:
            data = data.of_envs(with_steps(data))
        parameters, history = list(self.studied()), []
        for envs, count in self.minibatches(data, self.settings.study_epochs, generator):
            part = data.of_envs(envs)
            loss = regression(estimates(part), part.extra["targets"], part.steps, count) if len(envs) else None
            self.study_optimiser.zero_grad(set_to_none=True)
            if loss is not None:
                loss.backward()
            sum_gradients(parameters, self.ranks)
            norm = nn.utils.clip_grad_norm_(parameters, self.settings.max_gradient_norm)
            self.study_optimiser.step()
            summand = 0.0 if loss is None else loss.item()
            history.append({"student_loss": summand, "student_gradient_norm": norm.item() / self.ranks.size})
        return {**self.mean_of_steps(history), **metrics} if history else {}

    def errors(self, estimates: Tensor, targets: Tensor, steps: Tensor) -> dict[str, float]:
        """Return the root mean squared error of estimates [L, B, size] of a trial that was not learned from yet.

        It is given over all steps, as a share of the targets' standard deviation, and by the number of slots read.
        """
        squares = (estimates - targets).double().square().mean(dim=-1)
        read = torch.arange(1, len(steps) + 1, device=steps.device).unsqueeze(-1)
        groups = {"": steps}
        for low, high in zip((0, *HISTORIES), (*HISTORIES, len(steps) + HISTORIES[-1]), strict=True):
            name = f"_{low + 1}_to_{high}_slots" if high in HISTORIES else f"_beyond_{low}_slots"
            groups[name] = steps & (read > low) & (read <= high)
        sums = torch.stack([torch.stack([(squares * own).sum(), own.sum()]) for own in groups.values()])
        wide = targets.double()[steps]  # [K, size]
        spread = torch.stack([wide.sum(0), wide.square().sum(0)])
        sums, spread = self.ranks.sum(sums), self.ranks.sum(spread)
        count = float(sums[0, 1])
        if not count:
            return {}
        variance = (spread[1] / count - (spread[0] / count).square()).clamp(min=0).mean().item()
        found = {f"student_error{name}": (total / own) ** 0.5 for name, (total, own) in _rows(groups, sums) if own}
        return {**found, "student_error_share": found["student_error"] / (variance + 1e-12) ** 0.5}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training continues from, as plain types and tensors."""
        return super().state_dict() | {"study_optimiser": copy.deepcopy(self.study_optimiser.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; raises ValueError if the shapes differ."""
        super().load_state_dict(state)
        self.study_optimiser.load_state_dict(copy.deepcopy(state["study_optimiser"]))


def regression(estimates: Tensor, targets: Tensor, steps: Tensor, count: int) -> Tensor:
    """Return this rank's summand of the Huber loss of estimates [L, B, size] of the steps [L, B].

    count: steps in all ranks. It grows as the distance beyond 1, so no target makes the gradient explode.
    """
    losses = functional.huber_loss(estimates, targets, reduction="none").mean(dim=-1)
    return losses[steps].sum() / count


def _rows(names: dict[str, Tensor], sums: Tensor) -> list[tuple[str, list[float]]]:
    return list(zip(names, sums.tolist(), strict=True))
