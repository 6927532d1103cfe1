"""Run a policy step by step: `Run.start` makes the controller, and your control loop calls it."""

from __future__ import annotations

import warnings
from enum import Enum
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from metarl.agents.agent import Agent, Belief, Rollout
from metarl.agents.moments import INPUT_CLIP
from metarl.agents.storage import Storage
from metarl.envs.arrays import Array
from metarl.envs.family import TaskFamily
from metarl.runs.beliefs import digest_of
from metarl.runs.episode_record import Answer, EpisodeRecord, Identifies
from metarl.runs.trial import AgentGenerators

Explore = Literal["adapting", "always", "never"]
"""When actions have exploration noise: up to the last adaptation; in all episodes, as in evaluation; never."""


class OutOfRange(UserWarning):
    """An observation far outside the range of training."""


class _Next(Enum):
    """The call that is due."""

    ACT = "act(observation)"
    OBSERVE = "observe(reward, terminated, truncated)"
    END = "end_episode(observation)"


class Controller:
    """Run a policy on one robot and one task, and adapt it after the episodes of each shot.

        controller = metarl.load(RUN).start()
        while True:
            observation = reset()
            while not controller.episode_over:
                observation, reward, terminated, truncated = step(controller.act(observation))
                controller.observe(reward, terminated, truncated)
            controller.end_episode(observation)

    Evaluation plays the episodes of a shot in N envs at the same time; here they are played one after another. For an
    agent with one belief per task, N episodes make a shot. For an agent with a belief per env, a robot is one env, and
    each episode is a shot. Whoever puts a robot that fell back on its feet calls `fall` instead of `observe`: the
    episode goes on with another life, as with `evaluation.lives`. After `adaptations` shots the agent stops adapting:
    each later episode starts from the last belief, as the last shot of an evaluation does, and may have any length.

    All buffers are allocated at the start, so that memory does not grow with the steps. The policy is called once at
    the start, because the first call is slow.
    """

    def __init__(
        self,
        agent: Agent,
        family: TaskFamily,
        adaptations: int,
        episodes_per_shot: int,
        explore: Explore = "adapting",
        rng: np.random.Generator | int = 0,
        belief: Belief | None = None,
    ):
        """Start from a belief; None: the belief before adaptation.

        adaptations: number of shots to adapt after. rng: generator, or its seed, of the exploration noise of a shot,
        [horizon, episodes_per_shot, act], at its first step, and of the agent's own draws. ValueError for a negative
        number of adaptations, and for a number of episodes that the agent cannot adapt from.
        """
        if adaptations < 0:
            raise ValueError(f"adaptations is {adaptations}; it must be at least 0")
        if episodes_per_shot < 1:
            raise ValueError(f"episodes_per_shot is {episodes_per_shot}; it must be at least 1")
        if agent.facts.belief_per_env and episodes_per_shot != 1:
            raise ValueError(
                f"episodes_per_shot is {episodes_per_shot}; this agent adapts after each episode, "
                "so a shot is 1 episode"
            )
        self.family = family
        self.adaptations = adaptations
        self.episodes_per_shot = episodes_per_shot
        self.explore: Explore = explore
        self.adapted = 0
        """Number of adaptations so far."""
        self._agent = agent
        self._rng = np.random.default_rng(rng)
        begun = AgentGenerators([self._rng], 0)
        self.shot_belief = agent.begin(1, episodes_per_shot, begun) if belief is None else belief
        """Belief that the episodes of the current shot start from."""
        self._belief, self._met_before = self.shot_belief, belief is not None
        self._next = _Next.ACT
        self._episode = self._step = 0  # index in the shot, in the episode
        steps, n, act = family.horizon, episodes_per_shot, family.action_size
        self._noise = np.zeros((steps, n, act), dtype=np.float32)
        storage = Storage(steps, (1, n), Rollout.fields(family.observation_size, act), torch.device("cpu"))
        self._shot = {name: kept.numpy() for name, kept in storage.tensors.items()}
        self._final = np.zeros((1, n, family.observation_size), dtype=np.float32)
        self._record = EpisodeRecord(steps, family.observation_size, act)
        self._falls: dict[tuple[int, int], Array] = {}  # observation after each fall of the shot, by step and episode
        self._seen = np.zeros(family.observation_size, dtype=np.float32)  # the last observation
        self._know_range()
        self._warned = np.zeros(family.observation_size, dtype=bool)
        self._ended = False  # whether the last call that concerns an episode ended one
        with torch.no_grad():  # the first call of everything is slow
            action, after = agent.act(self._belief, torch.zeros(1, 1, family.observation_size), torch.zeros(1, 1, act))
            agent.observe(after, torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool))
            action.cpu()

    @property
    def belief(self) -> Belief:
        """Current belief; it includes the steps of the current episode."""
        return self._belief

    @property
    def learning(self) -> bool:
        """Whether the agent will still adapt."""
        return self.adapted < self.adaptations

    @property
    def episode_over(self) -> bool:
        """Whether the episode has ended: by its last step, or, while the agent adapts, at the horizon of training."""
        return self._next is _Next.END

    def act(self, observation: ArrayLike) -> Array:
        """Return the action [act] float32 for an observation [obs], as the family's env takes it.

        Motors take `command(action)`. ValueError names the channel of an observation that is not finite. A channel far
        outside the range of training raises the warning `OutOfRange` once. RuntimeError if another call is due.
        """
        self._require(_Next.ACT)
        self._ended = False
        seen = self._checked(observation)
        t, n = self._step, self._episode
        noise = self._draw(t, n)
        with torch.no_grad():
            actions, self._belief = self._agent.act(self._belief, torch.from_numpy(seen[None, None]), noise)
        action = actions.cpu().numpy()[0, 0].copy()
        if self.learning:
            self._shot["observations"][t, 0, n], self._shot["actions"][t, 0, n] = seen, action
        self._record.act(seen, action, noise is not None, self._met_before or self.adapted > 0)
        self._seen = seen
        self._next = _Next.OBSERVE
        return action

    def command(self, action: Array) -> Array:
        """Return MuJoCo's control signals [act] for an action [act], as the env writes them.

        A command asks its joint for zero + size x command; `family.control` has these, with joints and units.
        """
        given = _numbers(action, "the action")
        if given.shape != (self.family.action_size,):
            names = ", ".join(self.family.control.names)
            raise ValueError(f"the action has shape {given.shape}; the robot has {self.family.action_size}: {names}")
        return self.family.command(given)

    def observe(self, reward: float, terminated: bool, truncated: bool) -> None:
        """Record the result of the last action, as Gymnasium's `step` returns it."""
        self._require(_Next.OBSERVE)
        truncated = truncated or (self.learning and self._step + 1 == self.family.horizon and not terminated)
        self._keep(reward, terminated, truncated)
        ended = bool(terminated or truncated)
        self._tell(reward, ended)
        self._next = _Next.END if ended else _Next.ACT

    def fall(self, reward: float, observation: ArrayLike) -> None:
        """Record a last action that made the robot fall, after which it is put back on its feet.

        The episode goes on with what the agent remembers: the next call is `act`, with the observation of the robot as
        it stands again. At the horizon of training, while the agent adapts, a fall ends the episode.

        observation: [obs] after the fall.
        """
        self._require(_Next.OBSERVE, "fall")
        if self.learning and self._step + 1 == self.family.horizon:
            self.observe(reward, terminated=True, truncated=False)
            return
        fallen = self._checked(observation)
        place = self._step, self._episode
        self._keep(reward, terminated=True, truncated=False)
        if self.learning:
            self._falls[place] = fallen
        self._record.fall(fallen)
        self._tell(reward, ended=False)
        with torch.no_grad():
            self._belief = self._agent.revive(self._belief, torch.ones(1, 1, dtype=torch.bool))
        self._next = _Next.ACT

    def _keep(self, reward: float, terminated: bool, truncated: bool) -> None:
        """Keep the result of a step while the agent adapts; ValueError for a reward that is not finite."""
        number = _numbers(reward, "the reward")
        if number.size != 1 or not np.abs(number.item()) <= np.finfo(np.float32).max:
            raise ValueError(
                f"the reward of step {self._step} is {reward}; give a finite number, or leave this episode out by "
                "discard_episode()"
            )
        if self.learning:
            step = {"rewards": reward, "valid": True, "terminated": terminated, "truncated": truncated}
            for name, value in step.items():
                self._shot[name][self._step, 0, self._episode] = value
        self._record.observe(reward)
        self._step += 1

    @torch.no_grad()
    def _tell(self, reward: float, ended: bool) -> None:
        """Let the agent read the result of a step."""
        told = torch.full((1, 1), float(reward)), torch.full((1, 1), ended)
        self._belief = self._agent.observe(self._belief, *told)

    def end_episode(self, observation: ArrayLike | None = None) -> bool:
        """End the episode, or stop it early, and return whether the agent adapted.

        observation: [obs] after the last step; None: the last one given to `act`, which is one control step older.
        """
        if self._next is _Next.OBSERVE:
            self._require(_Next.END)
        if self._step == 0:
            raise RuntimeError("end_episode() ends an episode of at least one step; call act(observation) first")
        if observation is not None:
            self._seen = self._checked(observation)
        self._record.end(self._seen)
        adapts, self._ended = False, True
        if self.learning:
            last, n = self._step - 1, self._episode
            self._shot["truncated"][last, 0, n] |= not self._shot["terminated"][last, 0, n]
            self._final[0, n] = self._seen
            adapts = n + 1 == self.episodes_per_shot
            if adapts:
                self._adapt()
        self._episode = (self._episode + 1) % self.episodes_per_shot
        self._restart()
        return adapts

    def discard_episode(self) -> None:
        """Discard the current episode, for example after a sensor failed; the next one takes its place.

        RuntimeError after `end_episode`, which has made the episode a part of its shot.
        """
        if self._ended:
            raise RuntimeError(
                "discard_episode() discards an episode before end_episode() has ended it; the last one is part of its "
                "shot, and the next one has no step yet: start(adaptations=...) begins anew"
            )
        for kept in self._shot.values():
            kept[:, 0, self._episode] = 0
        self._falls = {place: seen for place, seen in self._falls.items() if place[1] != self._episode}
        self._record.forget()
        self._restart()

    def identify(self, identifier: Identifies[Answer]) -> Answer:
        """Return what an identifier says of the steps so far of this episode, or of the last one until another begins.

        identifier: `metarl.Identifier.load(folder)`, whose answer has a label and calibrated probabilities. It reads an
        episode up to the horizon of training, or to the longest duration of the identification. RuntimeError before the
        first step; a warning if it was made with another policy, with episodes that had noise where these have none, or
        if the policy had adapted to the task before, which none of the identifier's had.
        """
        for doubt in identifier.doubts(
            self._digest, self._record.explored, self._record.adapted and self._agent.facts.adapts
        ):
            warnings.warn(doubt, UserWarning, stacklevel=2)
        return self._record.identify(identifier)

    @cached_property
    def _digest(self) -> str:
        """Digest of what the agent has learned."""
        return digest_of(self._agent)

    def _restart(self) -> None:
        self._belief, self._step, self._next = self.shot_belief, 0, _Next.ACT

    def _adapt(self) -> None:
        taken = {**self._shot, "final_observations": self._final}
        if self._falls:
            taken["next_observations"] = self._reached()
        rollout = Rollout(**{name: torch.from_numpy(kept.copy()) for name, kept in taken.items()})
        self.adapted += 1
        self.shot_belief = self._agent.adapt(self._belief, rollout, AgentGenerators([self._rng], self.adapted))
        self._know_range()
        for kept in self._shot.values():
            kept[:] = 0
        self._falls.clear()

    def _reached(self) -> Array:
        """Return what was observed after each step of the shot, before the robot was put back, [T, 1, N, obs]."""
        reached = np.concatenate([self._shot["observations"][1:], self._final[None]])
        last = self._shot["valid"].sum(axis=0)[0] - 1
        for n, step in enumerate(last):
            reached[step, 0, n] = self._final[0, n]
        for (t, n), seen in self._falls.items():
            reached[t, 0, n] = seen
        return reached

    def _know_range(self) -> None:
        """Set the range of expected observations: any, until the policy has normaliser statistics."""
        size = self.family.observation_size
        self._mean, self._std = np.zeros(size, dtype=np.float32), np.full(size, np.inf, dtype=np.float32)
        moments = self._agent.observation_moments(self.shot_belief)
        if moments is not None and float(moments.count) >= 1:
            self._mean, self._std = moments.mean.cpu().numpy(), moments.std.cpu().numpy()

    def _draw(self, step: int, episode: int) -> torch.Tensor | None:
        """Return the noise [1, 1, act] of a step, or None.

        Like evaluation, it draws the noise of a whole shot at the first step.
        """
        if self.explore == "never" or (self.explore == "adapting" and not self.learning):
            return None
        if step >= self.family.horizon:
            return torch.from_numpy(self._rng.standard_normal((1, 1, self.family.action_size), dtype=np.float32))
        if step == episode == 0:
            self._rng.standard_normal(dtype=np.float32, out=self._noise)
        return torch.from_numpy(self._noise[step, episode][None, None])

    def _require(self, call: _Next, name: str = "") -> None:
        """Raise RuntimeError unless a call is due. name: of a call that stands for it."""
        if self._next is call:
            return
        asked, due = (c.value.partition("(")[0] for c in (call, self._next))
        why = {
            _Next.ACT: "the step before it is complete",
            _Next.OBSERVE: "the result of the last action has not been recorded",
            _Next.END: "the episode is over",
        }
        if self._next is _Next.END and self._step == self.family.horizon:
            why[_Next.END] = f"the episode has the {self._step} steps of an episode in training"
        raise RuntimeError(f"{name or asked}() is not due, {due}() is: {why[self._next]}; call {self._next.value}")

    def _checked(self, observation: ArrayLike) -> Array:
        """Return the observation as [obs] float32; ValueError names what is wrong with it."""
        names = self.family.observation_names
        with np.errstate(over="ignore"):
            seen = _numbers(observation, "the observation").astype(np.float32)
        if seen.shape != (len(names),):
            raise ValueError(
                f"the observation has shape {seen.shape}; the policy reads {len(names)} channels, shape "
                f"({len(names)},): {', '.join(names)}"
            )
        if not np.isfinite(seen).all():
            bad = int(np.flatnonzero(~np.isfinite(seen))[0])
            raise ValueError(
                f"observation {bad}, {names[bad]!r}, is {seen[bad]}; give a finite number, or leave this episode "
                "out by discard_episode()"
            )
        far = (np.abs(seen - self._mean) > INPUT_CLIP * self._std) & ~self._warned
        if far.any():
            self._warn(seen, far)
        return self.family.clipped(seen)

    def _warn(self, seen: Array, far: Array) -> None:
        self._warned |= far
        for i in np.flatnonzero(far):
            warnings.warn(
                f"observation {i}, {self.family.observation_names[i]!r}, is {seen[i]:.4g}, "
                f"{abs(seen[i] - self._mean[i]) / self._std[i]:.0f} standard deviations from the mean of training "
                f"({self._mean[i]:.4g} +- {self._std[i]:.2g}); check the sensor, its unit and its sign. This warning "
                "comes once for each channel",
                OutOfRange,
                stacklevel=4,
            )


def _numbers(values: ArrayLike, name: str) -> Array:
    """Return values as an array of real numbers; ValueError for what a sensor did not give as such, or has masked."""
    given = np.asarray(values)
    if given.dtype.kind not in "biuf":
        raise ValueError(f"{name} is {values!r}; give real numbers")
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has masked values, which no sensor has read; give a number for each")
    return given
