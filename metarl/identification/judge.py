"""Judge a trained metric on few-shot draws of classes that training never met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from metarl.agents.metric.calibration import Unknown, auroc, probabilities, reliability
from metarl.agents.metric.few_shot import Episodes
from metarl.evaluation.statistics import Interval, bootstrap_interval, mean, stratified_resamples
from metarl.identification.answers import Asked, Calibration, Problem
from metarl.identification.classes import Uses
from metarl.identification.result import AtDuration, Confusion

SHOWN_S = 2.0
"""Duration of the queries of confusion matrix and reliability diagram, s, or the nearest that is judged."""
MORE_DRAWS = 10
"""Draws of the confusion matrix, which asks all classes at once, are this many times fewer."""


def curve(
    problem: Problem, uses: Uses, calibration: Calibration, dt: float, rng: np.random.Generator
) -> list[AtDuration]:
    """Return what a query of each duration tells. dt: control step, s. rng: of the bootstrap."""
    judged, trained = (
        [asked.known for asked in problem.asked(own, problem.ways(own))] for own in (uses.judged, uses.training)
    )
    opened = problem.asked(uses.judged, problem.ways(uses.judged, unknown=True))

    def share(asked: Asked, values: Tensor) -> Interval:
        return by_task(problem.episodes, asked.episodes, values, problem.settings.bootstrap_samples, rng)

    found = []
    for k, (closed, seen, either) in enumerate(zip(judged, trained, opened, strict=True)):
        of_temperature, limit = calibration.temperatures[k], calibration.unknown[k].threshold
        known, unknown = either.known, either.unknown
        found.append(
            AtDuration(
                seconds=calibration.marks[k] * dt,
                accuracy=share(closed, closed.hits),
                trained=share(seen, seen.hits),
                calibration_error=reliability(closed.confidences(of_temperature), closed.hits).error,
                uncalibrated_error=reliability(closed.confidences(1.0), closed.hits).error,
                temperature=of_temperature,
                auroc=auroc(known.novelties, unknown.novelties),
                false_alarms=share(known, (known.novelties > limit).double()),
                detected=share(unknown, (unknown.novelties > limit).double()),
                open_error=open_error(either, of_temperature, calibration.unknown[k]),
            )
        )
    return found


def open_error(asked: Asked, of_temperature: float, unknown: Unknown) -> float:
    """Return the expected calibration error of the likeliest of the W classes and none of these.

    Queries whose class is among the W, and the others, count as much on the whole.
    """
    confidence, said = probabilities(asked.scores, of_temperature, unknown.probability(asked.novelties)).max(dim=1)
    none = asked.right < 0
    right = said == torch.where(none, asked.scores.shape[1], asked.right)
    weights = torch.where(none, 0.5 / none.sum(), 0.5 / (~none).sum())
    return reliability(confidence, right, weights=weights).error


def by_task(episodes: Episodes, asked: Tensor, values: Tensor, resamples: int, rng: np.random.Generator) -> Interval:
    """Return the mean of values [Q] of queries with its bootstrap interval over tasks, within each class.

    asked: [Q], places of the queries' episodes.
    """
    tasks, places = episodes.tasks[asked].unique(return_inverse=True)
    sums, counts = (torch.bincount(places, weights=x) for x in (values.double(), torch.ones_like(values).double()))
    first = torch.zeros_like(tasks).scatter(0, places, episodes.classes[asked])
    order = first.argsort(stable=True)
    means = (sums / counts)[order].numpy()[None]
    sizes = [int(n) for n in first.bincount() if n]
    return bootstrap_interval(means, stratified_resamples(sizes, resamples, rng), mean)


def shown_of(calibration: Calibration, dt: float) -> int:
    """Return the place of the duration that confusion matrix and reliability diagram are of."""
    return int(np.argmin([abs(mark * dt - SHOWN_S) for mark in calibration.marks]))


def reliability_at(
    problem: Problem, classes: Sequence[int], of_temperature: float, shown: int
) -> Mapping[str, Sequence[float]]:
    """Return the reliability diagram of queries of one duration."""
    asked = problem.asked(classes, problem.ways(classes))[shown].known
    found = reliability(asked.confidences(of_temperature), asked.hits)
    return {name: getattr(found, name).tolist() for name in ("confidence", "accuracy", "share")}


def confusion(
    problem: Problem, classes: Sequence[int], labels: Sequence[str], unknown: Unknown, shown: int, seconds: float
) -> Confusion:
    """Return the answers to queries of one duration, with all the classes in the support; labels: of them."""
    draws = max(MORE_DRAWS, problem.settings.draws // MORE_DRAWS)
    asked = problem.asked(classes, len(classes), draws)[shown]
    places = {number: i for i, number in enumerate(classes)}
    said = asked.options.gather(1, asked.scores.argmax(dim=1, keepdim=True)).squeeze(1)
    rows = [places[int(number)] for number in problem.episodes.classes[asked.episodes]]
    none = asked.novelties > unknown.threshold
    columns = [len(classes) if no else places[int(number)] for no, number in zip(none, said, strict=True)]
    counts = np.zeros((len(classes), len(classes) + 1))
    np.add.at(counts, (rows, columns), 1.0)
    return Confusion(seconds, list(labels), counts / counts.sum(axis=1, keepdims=True))


def several(problem: Problem, classes: Sequence[int], most: int, rng: np.random.Generator) -> dict[int, Interval]:
    """Return the accuracy from 1, 2, ... `most` whole episodes on a task, whose embeddings are averaged."""
    numbers = [n for n in (1, 2, 4, 8, 16) if n < most] + [most]
    whole = problem.embeddings[-1]
    pooled = torch.stack([*(_with_next(problem.episodes, whole, n) for n in numbers), whole])
    asked = [own.known for own in problem._replace(embeddings=pooled).asked(classes, problem.ways(classes))]
    resamples = problem.settings.bootstrap_samples
    return {
        n: by_task(problem.episodes, own.episodes, own.hits, resamples, rng)
        for n, own in zip(numbers, asked[:-1], strict=True)
    }


def _with_next(episodes: Episodes, embeddings: Tensor, count: int) -> Tensor:
    """Return the mean of each embedding [B, D] and those of the next episodes on its task, in a circle."""
    found = torch.empty_like(embeddings)
    for task in episodes.tasks.unique():
        own = embeddings[episodes.tasks == task]
        turned = [own.roll(-k, dims=0) for k in range(min(count, len(own)))]
        found[episodes.tasks == task] = torch.stack(turned).mean(dim=0)
    return found
