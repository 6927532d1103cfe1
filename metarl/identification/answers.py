"""Scores of queries on many few-shot draws, and what is calibrated by them.

Axes: B episodes, N numbers of episodes that are averaged, K durations, D size of an embedding, Q queries of all
problems, W ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.agents.metric.calibration import Unknown, fit_unknown, temperature
from metarl.agents.metric.few_shot import Episodes, Metric, draw
from metarl.agents.metric.heads import novelty
from metarl.envs.arrays import Array
from metarl.identification.settings import IdentifySettings

WAYS = (2, 3, 5, 10, 20, 50, 100, 200, 500)
"""Numbers of ways that are calibrated, and the most that there can be."""
COUNTS = (1, 2, 4, 8, 16)
"""Numbers of episodes on a task that are calibrated and judged together, and all of them."""
LEFT_OUT = 12
"""Classes of a draw that are left out in turn, and asked about, at most."""
FITTED = ("log_temperature", *Unknown._fields)
"""What is fitted."""


class Asked(NamedTuple):
    """Queries of one duration and number of episodes, and their scores."""

    episodes: Tensor
    """[Q] place of each query's episode, the first of those that are averaged."""
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


def up_to(most: int, numbers: Sequence[int]) -> list[int]:
    """Return the numbers below the most that there can be, and that one."""
    return [n for n in numbers if n < most] + [most]


def averaged(episodes: Episodes, embeddings: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the mean of each embedding [K, B, D] and those of the next episodes on its task, [N, K, B, D].

    counts: the N numbers of episodes of a mean. After the last episode on a task comes its first.
    """
    found = torch.empty(len(counts), *embeddings.shape)
    for task in episodes.tasks.unique():
        places = (episodes.tasks == task).nonzero().squeeze(-1)
        own = embeddings[:, places]
        for mean, count in zip(found, counts, strict=True):
            turned = [own.roll(-k, dims=1) for k in range(min(count, len(places)))]
            mean[:, places] = torch.stack(turned).mean(dim=0)
    return found


class Problem(NamedTuple):
    """Episodes as a metric embeds them, from which few-shot problems are drawn."""

    metric: Metric
    episodes: Episodes
    counts: Sequence[int]
    """The N numbers of episodes that queries are the means of; the first is 1."""
    embeddings: Tensor
    """[N, K, B, D], of `averaged`; those of single whole episodes, [0, -1], support."""
    settings: IdentifySettings
    generator: torch.Generator

    @torch.no_grad()
    def asked(self, classes: Sequence[int], ways: int, beside: Sequence[int] = ()) -> list[list[Asked]]:
        """Return the queries of these classes, [N][K], on few-shot problems of so many ways.

        A draw has one class more, and those of `classes` are left out in turn: the same query is of one of the W and of
        none of them, so that the two differ in nothing else. None is left out if there is none more. The problems have
        as many ways together, at least, as the settings say.

        beside: classes that fill up the ways where `classes` are too few; they are not asked about.
        """
        found: list[list[list[Asked]]] = [[[] for _ in row] for row in self.embeddings]
        total, left = min(ways + 1, len(classes) + len(beside)), self.settings.draws * self.settings.ways
        while left > 0:
            own = self._some(classes, total)
            chosen = own + self._some(beside, total - len(own))
            drawn = draw(self.episodes, chosen, total, self.settings.shots, self.generator)
            told = [drawn.classes.index(c) for c in (own[:LEFT_OUT] if total > ways else own)]
            asked = torch.isin(drawn.answers, torch.tensor(told))
            places, answers = drawn.queries[asked], drawn.answers[asked]
            for out in told if total > ways else [total]:
                kept = [way for way in range(total) if way != out]
                right = torch.where(answers == out, -1, answers - (answers > out).long())
                options = torch.tensor(drawn.classes)[kept].expand(len(places), -1)
                support = self.embeddings[0, -1][drawn.support[kept]]  # [W, S, D]
                for row, of_count in zip(found, self.embeddings, strict=True):
                    for cell, embedded in zip(row, of_count, strict=True):
                        cell.append(Asked(places, self.metric.head(embedded[places], support), right, options))
                left -= ways
        return [[Asked(*map(torch.cat, zip(*cell, strict=True))) for cell in row] for row in found]

    def _some(self, classes: Sequence[int], count: int) -> list[int]:
        """Draw so many classes, or all."""
        return [classes[i] for i in torch.randperm(len(classes), generator=self.generator)[:count].tolist()]


@dataclass(frozen=True)
class Calibration:
    """What is fitted for each duration, number of ways and number of episodes on classes that training never met.

    The nearest of more classes is nearer, and so is the mean of more episodes to its own class and to others: no
    threshold fits all.
    """

    marks: Sequence[int]
    """Durations in control steps."""
    ways: Sequence[int]
    counts: Sequence[int]
    """Numbers of episodes whose embeddings are averaged."""
    fitted: Array
    """[marks, ways, counts, 4], by `FITTED`."""

    def at(self, steps: float, ways: int, count: int) -> tuple[float, Unknown]:
        """Return temperature and threshold, linear in steps and in log ways and log count between those calibrated.

        Beyond them those of the nearest hold.
        """
        fitted = self.fitted
        for x, places in (
            (steps, self.marks),
            (np.log(ways), np.log(self.ways)),
            (np.log(count), np.log(self.counts)),
        ):
            fitted = np.apply_along_axis(partial(np.interp, x, places), 0, fitted)
        log_temperature, *unknown = fitted.tolist()
        return float(np.exp(log_temperature)), Unknown(*unknown)


def calibrate(problem: Problem, classes: Sequence[int], beside: Sequence[int], marks: Sequence[int]) -> Calibration:
    """Fit temperature and threshold to the queries of these classes, told apart from each other and those beside."""
    ways = up_to(len(classes) + len(beside) - 1, WAYS)
    share = problem.settings.false_alarms
    found = np.empty((len(marks), len(ways), len(problem.counts), len(FITTED)))
    for w, number in enumerate(ways):
        for n, row in enumerate(problem.asked(classes, number, beside)):
            for k, asked in enumerate(row):
                known = asked.known
                unknown = fit_unknown(known.novelties, asked.unknown.novelties, share)
                found[k, w, n] = np.log(temperature(known.scores, known.right)), *unknown
    return Calibration(marks, ways, problem.counts, found)
