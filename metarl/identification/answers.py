"""Scores of queries on many few-shot draws, and what is calibrated by them.

Axes: B episodes, K durations, D size of an embedding, Q queries of all draws, W ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.metric.calibration import Unknown, fit_unknown, temperature
from metarl.agents.metric.few_shot import Episodes, Metric, draw
from metarl.agents.metric.heads import novelty
from metarl.identification.settings import IdentifySettings


class Asked(NamedTuple):
    """Queries of one duration, and their scores."""

    episodes: Tensor
    """[Q] place of each query's episode."""
    scores: Tensor
    """[Q, W]."""
    right: Tensor
    """[Q] place of the right class among the W; -1 if it is none of them."""
    options: Tensor
    """[Q, W] numbers of the W classes."""

    @property
    def known(self) -> Asked:
        """Those whose class is in the support."""
        return Asked(*(x[self.right >= 0] for x in self))

    @property
    def unknown(self) -> Asked:
        """Those whose class is not."""
        return Asked(*(x[self.right < 0] for x in self))

    @property
    def hits(self) -> Tensor:
        """[Q] 1 where the class with the highest score is the right one, else 0."""
        return (self.scores.argmax(dim=1) == self.right).double()

    @property
    def novelties(self) -> Tensor:
        """[Q]."""
        return novelty(self.scores)

    def confidences(self, of_temperature: float) -> Tensor:
        """Return the highest probability among the W classes, [Q]."""
        return (self.scores / of_temperature).softmax(dim=1).amax(dim=1)


class Problem(NamedTuple):
    """Episodes as a metric embeds them, from which few-shot problems are drawn."""

    metric: Metric
    episodes: Episodes
    embeddings: Tensor
    """[K, B, D]; the last are those of whole episodes, which support."""
    settings: IdentifySettings
    generator: torch.Generator

    def ways(self, classes: Sequence[int], unknown: bool = False) -> int:
        """Return the number of classes that a query is told apart from; unknown: at least one class is left out."""
        return max(1, min(self.settings.ways, len(classes) - unknown))

    @torch.no_grad()
    def asked(self, classes: Sequence[int], ways: int, draws: int = 0) -> list[Asked]:
        """Return the queries of each duration on draws from these classes.

        Where `ways` leaves classes out, their episodes are queries too. draws: 0: as many as the settings say.
        """
        found: list[list[Asked]] = [[] for _ in self.embeddings]
        for _ in range(draws or self.settings.draws):
            drawn = draw(self.episodes, classes, ways, self.settings.shots, self.generator)
            others = self.episodes.of_classes([c for c in classes if c not in drawn.classes])
            places = torch.cat([drawn.queries, others])
            right = torch.cat([drawn.answers, torch.full_like(others, -1)])
            options = torch.tensor(drawn.classes).expand(len(places), -1)
            support = self.embeddings[-1][drawn.support]  # [W, S, D]
            for own, embedded in zip(found, self.embeddings, strict=True):
                own.append(Asked(places, self.metric.head(embedded[places], support), right, options))
        return [Asked(*map(torch.cat, zip(*own, strict=True))) for own in found]


@dataclass(frozen=True)
class Calibration:
    """What is fitted for each duration of a query on classes that training never met."""

    marks: Sequence[int]
    """The K durations in control steps."""
    temperatures: Sequence[float]
    unknown: Sequence[Unknown]


def calibrate(problem: Problem, classes: Sequence[int], marks: Sequence[int]) -> Calibration:
    """Fit temperature and threshold of each duration on draws from these classes."""
    closed = [asked.known for asked in problem.asked(classes, problem.ways(classes))]
    opened = problem.asked(classes, problem.ways(classes, unknown=True))
    share = problem.settings.false_alarms
    return Calibration(
        marks,
        [temperature(asked.scores, asked.right) for asked in closed],
        [fit_unknown(asked.known.novelties, asked.unknown.novelties, share) for asked in opened],
    )
