"""Tell which class of tasks a robot is in, from its episodes: `Identifier.load` reads what `metarl identify` saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from metarl.agents.metric.calibration import probabilities
from metarl.agents.metric.encoder import steps_of
from metarl.agents.metric.few_shot import Metric
from metarl.agents.metric.heads import novelty
from metarl.agents.metric.settings import MetricSettings
from metarl.deployment.episode import LoggedEpisode
from metarl.envs.arrays import Array
from metarl.errors import UsageError, describe
from metarl.identification.answers import FITTED, Calibration
from metarl.runs import checkpoint
from metarl.runs.checkpoint import CheckpointError, is_finite
from metarl.wording import typed_minus

FILE = "identifier.pt"
"""Name of the file in the folder of an identification."""
NONE = "none of these"
"""Answer to an episode that is like no class."""
MISFITS = (ValueError, KeyError, RuntimeError, TypeError, AttributeError, IndexError)


@dataclass(frozen=True)
class Identified:
    """An answer."""

    answer: str
    """Label of the likeliest class; `none of these` if the episode is so unlike all of them that no more than the share
    `false_alarms` of their own episodes is. So a class may be the answer that is less probable than `none of these`."""
    probabilities: Mapping[str, float]
    """Calibrated probability of each class by its label, and of `none of these`; they sum to 1."""
    seconds: float
    """Mean length of what is read of the episodes, s."""

    def __str__(self) -> str:
        likely = sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:3]
        shares = ", ".join(f"{label} {share:.0%}" for label, share in likely)
        doubt = ", if of these," if likely[0][0] == NONE != self.answer else ""
        return f"{self.answer}{doubt} after {self.seconds:.2f} s ({shares})"


@dataclass(frozen=True)
class Policy:
    """What the episodes of an identifier must be of."""

    family: str
    observation_names: Sequence[str]
    action_size: int
    dt: float
    """Control step, s."""
    run: str
    """Name of the run."""
    iteration: int
    """Iteration of its training."""
    digest: str
    """Digest of what the agent had learned."""
    explore: bool
    """Whether it acted with exploration noise."""


def first_life(episode: LoggedEpisode) -> tuple[Array, Array, Array]:
    """Return observations [T + 1, obs], actions [T, act] and rewards [T] of an episode up to its first fall.

    What follows is a robot that was put back on its feet, by hands that no class has.
    """
    falls = np.flatnonzero(episode.terminated[:-1])
    if not len(falls):
        return episode.observations, episode.actions, episode.rewards
    end = int(falls[0]) + 1
    fallen = episode.fallen_observations
    if fallen is None:  # what the fall led to is unknown
        end -= 1
        return episode.observations[: end + 1], episode.actions[:end], episode.rewards[:end]
    return np.concatenate([episode.observations[:end], fallen[:1]]), episode.actions[:end], episode.rewards[:end]


class Identifier:
    """Compares episodes with those of known classes, its support.

        identifier = metarl.Identifier.load("identifications/NAME")
        robot = metarl.load(RUN).start()
        ...                                        # an episode, or its first seconds
        print(robot.identify(identifier))          # weak FR_calf after 2.00 s (weak FR_calf 93%, ...)

    At first the support is the simulated episodes of every class of the identification. `support` replaces it by
    episodes that were logged, of classes that may be new: nothing is trained.
    """

    def __init__(
        self, metric: Metric, policy: Policy, calibration: Calibration, known: Mapping[str, Tensor] | None = None
    ) -> None:
        """known: embeddings [S, D] of supporting episodes by label."""
        self.metric = metric.eval()
        self.policy = policy
        self.calibration = calibration
        self.known: dict[str, Tensor] = dict(known or {})
        """Embeddings [S, D] of supporting episodes by label."""

    def support(self, episodes: Mapping[str, Sequence[LoggedEpisode]], keep: bool = False) -> None:
        """Take labelled episodes as the support: `metarl.load_episodes` reads them from a folder.

        keep: keep the classes that are known too. ValueError for a class without an episode.
        """
        for label, own in episodes.items():
            if not own:
                raise ValueError(f"class {label!r} has no episode; give at least one, or leave it out")
            if label == NONE:
                raise ValueError(f"no class can be called {NONE!r}")
        added = {
            label: torch.stack([self.embed(*first_life(episode)) for episode in own]) for label, own in episodes.items()
        }
        self.known = {**(self.known if keep else {}), **added}

    def only(self, labels: Sequence[str]) -> Identifier:
        """Return an identifier that knows these classes alone; UsageError for one that it does not know."""
        if isinstance(labels, str):
            raise UsageError(f"only takes a list of classes, got the text {labels!r}; write only([{labels!r}])")
        typed = {typed_minus(label): label for label in self.known}
        own = {}
        for label in labels:
            known = label if label in self.known else typed.get(label)
            if known is None:
                raise UsageError(f"the identifier knows no class {label!r}; it knows {', '.join(self.known)}")
            own[known] = self.known[known]
        return Identifier(self.metric, self.policy, self.calibration, own)

    def doubts(self, digest: str, explored: bool | None = None, adapted: bool = False) -> list[str]:
        """Return why the answers may mislead about episodes of a policy.

        digest: of the policy, as `metarl.runs.beliefs.digest_of` has it. explored: whether it acted with exploration
        noise; None: unknown. adapted: whether it had adapted to the task before.
        """
        ours, found = self.policy, []
        if ours.digest != digest:
            found.append(
                f"the identifier was made with the policy of {ours.run} at iteration {ours.iteration}, and this is "
                "another: episodes of the same class may differ as much as those of two; make one with this policy, or "
                "name the checkpoint that it was made with"
            )
        if adapted:
            found.append(
                "the identifier was made with first episodes on a task, and this one was played after others: a policy "
                "that has adapted moves otherwise; identify by the first episode"
            )
        if explored not in (None, ours.explore):
            was, now = (f"with{'' if noisy else 'out'} exploration noise" for noisy in (ours.explore, explored))
            found.append(
                f"the identifier was made with episodes {was}, and this one is played {now}, so that it may be like "
                f"none of them; make one with --explore {str(explored).lower()}"
            )
        return found

    def identify(self, observations: ArrayLike, actions: ArrayLike, rewards: ArrayLike) -> Identified:
        """Return which class an episode, or its beginning, is of.

        observations: [T + 1, obs]. actions: [T, act], as the policy gave them. rewards: [T]. ValueError for other
        shapes, and for no step.
        """
        return self._answer([self.embed(observations, actions, rewards)], self._read(rewards))

    def identify_logged(self, episodes: Sequence[LoggedEpisode]) -> Identified:
        """Return which class the episodes of one robot are of, by the mean of their embeddings.

        More episodes than a task of the identification had are judged like so many.
        """
        if not episodes:
            raise ValueError("there is no episode to identify")
        lives = [first_life(episode) for episode in episodes]
        return self._answer([self.embed(*own) for own in lives], float(np.mean([self._read(own[2]) for own in lives])))

    def _read(self, rewards: ArrayLike) -> int:
        """Return how many steps of an episode are read: those of the longest duration that was calibrated."""
        return min(len(np.asarray(rewards)), self.calibration.marks[-1])

    @torch.no_grad()
    def embed(self, observations: ArrayLike, actions: ArrayLike, rewards: ArrayLike) -> Tensor:
        """Return the embedding [D] of an episode; arguments and errors as of `identify`."""
        given = {"observations": observations, "actions": actions, "rewards": rewards}
        seen, done, told = (np.asarray(value, dtype=np.float32) for value in given.values())
        count, sizes = len(told), (len(self.policy.observation_names), self.policy.action_size)
        wanted = {"observations": (count + 1, sizes[0]), "actions": (count, sizes[1]), "rewards": (count,)}
        for (name, shape), value in zip(wanted.items(), (seen, done, told), strict=True):
            if value.shape != shape or not count:
                raise ValueError(f"{name} has shape {value.shape}; it must be {shape}, for at least one step")
            if not np.isfinite(value).all():
                raise ValueError(f"{name} has a number that is not finite; leave the episode out")
        read = torch.from_numpy(told) if self.metric.settings.reward_input else None
        steps = steps_of(torch.from_numpy(seen), torch.from_numpy(done), read)
        last = self.calibration.marks[-1]
        return self.metric.encoder(steps[:last, None], torch.tensor([self._read(told)]), [last])[0, 0]

    @torch.no_grad()
    def _answer(self, embedded: Sequence[Tensor], steps: float) -> Identified:
        if len(self.known) < 2:
            raise ValueError(f"the identifier knows {len(self.known)} classes; give it two at least by support(...)")
        labels = list(self.known)
        scores = self.metric.head(torch.stack(list(embedded)).mean(dim=0, keepdim=True), *self._rows())
        of_temperature, unknown = self.calibration.at(steps, len(labels), len(embedded))
        new = novelty(scores)
        shares = probabilities(scores, of_temperature, unknown.probability(new))[0]
        none = bool(new[0] > unknown.threshold)
        answer = NONE if none else labels[int(scores[0].argmax())]
        by_label = dict(zip([*labels, NONE], shares.tolist(), strict=True))
        return Identified(answer, by_label, steps * self.policy.dt)

    def _rows(self) -> tuple[Tensor, Tensor]:
        """Return the support [W, S, D], and the shares [W, S] of its episodes: zero where a class has fewer."""
        known = list(self.known.values())
        counts = torch.tensor([len(own) for own in known]).unsqueeze(1)
        shares = (torch.arange(int(counts.max())) < counts) / counts
        return torch.nn.utils.rnn.pad_sequence(known, batch_first=True), shares

    def save(self, folder: Path, option: str = "--output") -> Path:
        """Write `identifier.pt` into a folder, and return its path. RunError if the disk refuses."""
        path = folder / FILE
        state = {
            "settings": dataclasses.asdict(self.metric.settings),
            "policy": {**dataclasses.asdict(self.policy), "observation_names": list(self.policy.observation_names)},
            "marks": list(self.calibration.marks),
            "ways": list(self.calibration.ways),
            "counts": list(self.calibration.counts),
            "fitted": torch.from_numpy(self.calibration.fitted),
            "weights": dict(self.metric.state_dict()),
            "known": self.known,
        }
        checkpoint.save(path, {"identifier": state}, option)
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Identifier:
        """Return the identifier that a folder holds, or its file; a stranger's runs no code.

        UsageError names the file if it holds something else.
        """
        path = Path(folder)
        path = path / FILE if path.is_dir() else path
        if not path.exists():
            raise CheckpointError(f"no identifier {path}; metarl identify RUN --by PARAMETER makes one")
        state: Any = checkpoint.load(path).get("identifier", {})
        if isinstance(state, dict) and "unknown" in state:
            raise CheckpointError(
                f"{path} is of an older metarl, calibrated for one number of known classes and a single episode; make "
                "it anew by metarl identify RUN --by PARAMETER, with the settings of its identification.json"
            )
        try:
            given = state["settings"]
            listed: dict[str, Any] = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in given.items()}
            policy = Policy(**state["policy"])
            metric = Metric(MetricSettings(**listed), len(policy.observation_names), policy.action_size)
            metric.load_state_dict(state["weights"])
            calibration = Calibration(state["marks"], state["ways"], state["counts"], state["fitted"].numpy())
            axes = calibration.marks, calibration.ways, calibration.counts, FITTED
            if not is_finite(state) or calibration.fitted.shape != (*map(len, axes),):
                raise ValueError("a number is not finite, or one is missing")
            return cls(metric, policy, calibration, state["known"])
        except MISFITS as error:
            raise CheckpointError(f"{path} holds no identifier of metarl: {describe(error)[:200]}") from error
