"""How an agent learns: it brings its own trainer, and a world gives the trainer tasks to play.

Axes are named as in `metarl.agents.agent`: T time, M tasks, N envs of a task; S = M N.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from metarl.agents.agent import Agent, Belief, Reading, Rollout, Trial
from metarl.agents.moments import Moments
from metarl.agents.numerics import gaussian_entropy, gaussian_log_prob

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

Trainer = Callable[[torch.Generator], dict[str, float]]
"""One training iteration on the world's current tasks; returns scalar metrics by name. All of its randomness follows
from the generator and from the generators of the world's envs."""
NOTHING_TOLD = "privileged_critic is true, and the family has neither parameters nor privileged terms; leave it out"
SlotMaker = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(observations [S, obs], previous actions [S, act], previous rewards [S], episode starts [S] bool, episode ends [S]
bool) -> what the policy reads, [S, input] float32."""


class Transition(Protocol):
    """The outcome of a control step of a `DeviceEnv`. The next step may overwrite its tensors."""

    @property
    def observations(self) -> Tensor:
        """[S, obs] of the episode that continues or has just begun."""
        ...

    @property
    def rewards(self) -> Tensor:
        """[S]."""
        ...

    @property
    def terminated(self) -> Tensor:
        """[S] bool, True where the episode reached a terminal state."""
        ...

    @property
    def cut(self) -> Tensor:
        """[S] bool, True where the time limit or a simulation fault ended the episode."""
        ...

    @property
    def last_observations(self) -> Tensor:
        """[S, obs] after the step and before any reset."""
        ...


class DeviceEnv(Protocol):
    """Vectorised envs on the agent's device. An env whose episode is over is reset at once, on its own task."""

    num_envs: int
    """S."""

    def reset(self) -> Tensor:
        """Start an episode in every env; returns the observations [S, obs]."""
        ...

    def step(self, actions: Tensor) -> Transition:
        """Take a control step with actions [S, act]."""
        ...

    def repeat(self, function: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
        """Return the function, recorded if the device can replay it. It may call `step`."""
        ...


class World(Protocol):
    """Where an agent learns. Each iteration it has other tasks; it records the outcome of everything played on them.

    A trainer asks for `trials`, `vec_env` or `device_env` once, before the first iteration, so that what cannot be
    provided is refused before anything has been written.
    """

    on_device: bool
    """Whether tasks are simulated on the agent's device; otherwise on the CPU."""
    folder: Path
    """Folder for the agent's own files, beside its checkpoints. It may not exist yet. A file in it is kept as long as
    a kept checkpoint contains its name in the agent's state, as a string."""

    def trials(self) -> Callable[[], Trial]:
        """Return a function that plays one trial on the current tasks, or on this process's share of them."""
        ...

    def vec_env(self, slots: SlotMaker | None = None) -> tuple[VecEnv, int]:
        """Return (Stable-Baselines3's VecEnv, control steps in which every env completes an episode).

        Reset it at the start of each iteration. slots: an episode is then a whole trial, and an observation is what
        `slots` returns. Observations of an informed agent end with the privileged values. ValueError if tasks are
        simulated on the device.
        """
        ...

    def device_env(self) -> tuple[DeviceEnv, int]:
        """Return (envs on the agent's device, control steps in which every env completes an episode).

        Reset them at the start of each iteration. Observations of an informed agent end with the privileged values.
        ValueError if tasks are simulated on the CPU.
        """
        ...

    def oracle(self, run: str) -> tuple[Agent, tuple[int, ...]]:
        """Return (the trained agent of an oracle's run on the family, places of privileged values).

        It observes what the agent in training does, and after it these privileged values. ValueError for the run
        of another family, or of an agent that is no oracle.
        """
        ...

    def collecting(self) -> AbstractContextManager[None]:
        """Count the time spent inside as data collection rather than updates; `trials` does so by itself.

        While simulations step on the CPU, torch runs on one thread: two thread pools on the same cores slow each other
        down.
        """
        ...

    def write(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        """Write a file in `folder` atomically, from parts that are never all in memory at once."""
        ...


class Learner(Agent, Protocol):
    """An agent that can be trained."""

    def trainer(self, world: World) -> Trainer:
        """Return the function that trains this agent in the world for one iteration.

        It is called once, after `load_state_dict` if the run is resumed. ValueError if the agent cannot learn there.
        """
        ...


class MetaLearner:
    """Base class of agents that take one outer step on one trial an iteration.

    Its other methods are those of an agent whose belief stays as it is while it acts and that has a Gaussian policy.
    """

    device: torch.device

    def meta_update(self, trial: Trial, generator: torch.Generator) -> dict[str, float]:
        """Take an outer step on a trial; returns scalar metrics by name."""
        raise NotImplementedError

    def trainer(self, world: World) -> Trainer:
        """Play a trial, then take an outer step on it."""
        play = world.trials()
        return lambda generator: self.meta_update(play(), generator)

    def inform(self, belief: Belief, privileged: Tensor) -> Belief:
        """Return the belief as it is."""
        return belief

    def act(self, belief: Belief, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, Belief]:
        """See `metarl.agents.agent.Agent`."""
        raise NotImplementedError

    def log_std(self) -> Tensor:
        """Return the logarithm of the standard deviation of the actions, [act]."""
        raise NotImplementedError

    def observe(self, belief: Belief, rewards: Tensor, ended: Tensor) -> Belief:
        """Return the belief as it is."""
        return belief

    def revive(self, belief: Belief, fallen: Tensor) -> Belief:
        """Return the belief as it is."""
        return belief

    def adapt(self, belief: Belief, rollout: Rollout, generators: Sequence[torch.Generator]) -> Belief:
        """Return the belief as it is."""
        return belief

    def forget(self, belief: Belief, begun: Belief) -> Belief:
        """Return the belief that knows nothing: the policy depends on nothing else but the observation."""
        return begun

    @torch.no_grad()
    def read(self, belief: Belief, rollout: Rollout) -> Reading:
        """Compare the actions of a shot that was played elsewhere with the policy's mean."""
        rollout, log_std = rollout.to(self.device), self.log_std().detach()
        means = torch.stack([self.act(belief, observations, None)[0] for observations in rollout.observations])
        entropies = gaussian_entropy(log_std).expand(rollout.rewards.shape)
        return Reading(belief, gaussian_log_prob(means, log_std, rollout.actions), entropies, means)

    def observation_moments(self, belief: Belief) -> Moments | None:
        """Return None: none are kept."""
        return None
