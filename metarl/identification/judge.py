"""Judge a trained metric on few-shot draws of classes that training never met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.agents.metric.calibration import Unknown, auroc, probabilities, reliability
from metarl.agents.metric.few_shot import Episodes
from metarl.evaluation.statistics import Interval, bootstrap_interval, mean, stratified_resamples
from metarl.identification.answers import Asked, Calibration, Problem
from metarl.identification.classes import Uses
from metarl.identification.result import Confusion, Judged, Told

SHOWN_S = 2.0
"""Duration of the queries of confusion matrix and reliability diagram, s, or the nearest that is judged."""


class Judgement(NamedTuple):
    """What a metric tells."""

    curve: list[Judged]
    """By duration, of single episodes."""
    several: dict[int, Judged]
    """By number of whole episodes on a task."""
    reliability: Mapping[str, Sequence[float]]
    """Of the queries of the duration that is shown."""


def all_but_one(uses: Uses) -> int:
    """Return the number of ways of a query whose class alone is unknown."""
    return len(uses.training) + len(uses.calibration) + len(uses.judged) - 1


def judge(
    problem: Problem, uses: Uses, ways: int, calibration: Calibration, dt: float, rng: np.random.Generator
) -> Judgement:
    """Judge each duration of a query, and each number of whole episodes. dt: control step, s. rng: of the bootstrap."""
    others = [*uses.training, *uses.calibration]
    most = all_but_one(uses)
    few = problem.asked(uses.judged, ways, others)
    among_all = problem.asked(uses.judged, most, others)
    trained = problem.asked(uses.training, ways, [*uses.judged, *uses.calibration])
    resamples = problem.settings.bootstrap_samples

    def at(n: int, k: int) -> Judged:
        mark, count, seen = calibration.marks[k], problem.counts[n], trained[n][k].known
        fit, of_all = (calibration.at(mark, number, count) for number in (ways, most))
        known = few[n][k].known
        return Judged(
            **_told(problem.episodes, few[n][k], fit, resamples, rng),
            seconds=mark * dt,
            trained=by_task(problem.episodes, seen.episodes, seen.hits, resamples, rng),
            calibration_error=reliability(known.confidences(fit[0]), known.hits).error,
            uncalibrated_error=reliability(known.confidences(1.0), known.hits).error,
            temperature=fit[0],
            among_all=Told(**_told(problem.episodes, among_all[n][k], of_all, resamples, rng)),
        )

    shown = shown_of(calibration, dt)
    curve = [at(0, k) for k in range(len(calibration.marks))]
    several = {count: at(n, -1) for n, count in enumerate(problem.counts)}
    return Judgement(curve, several, reliability_of(few[0][shown].known, curve[shown].temperature))


def _told(
    episodes: Episodes, asked: Asked, fit: tuple[float, Unknown], resamples: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return the fields of `Told`, by the temperature and the threshold of a fit."""
    known, unknown = asked.known, asked.unknown

    def share(own: Asked, values: Tensor) -> Interval:
        return by_task(episodes, own.episodes, values, resamples, rng)

    return {
        "accuracy": share(known, known.hits),
        "auroc": auroc(known.novelties, unknown.novelties),
        "false_alarms": share(known, (known.novelties > fit[1].threshold).double()),
        "detected": share(unknown, (unknown.novelties > fit[1].threshold).double()),
        "open_error": open_error(asked, *fit),
    }


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


def reliability_of(asked: Asked, of_temperature: float) -> Mapping[str, Sequence[float]]:
    """Return the reliability diagram of queries."""
    found = reliability(asked.confidences(of_temperature), asked.hits)
    return {name: getattr(found, name).tolist() for name in ("confidence", "accuracy", "share")}


def confusion(
    problem: Problem, classes: Sequence[int], labels: Sequence[str], unknown: Unknown, shown: int, seconds: float
) -> Confusion:
    """Return the answers to queries of one duration, with all these classes in the support; labels: of them."""
    asked = problem.asked(classes, len(classes))[0][shown]
    places = {number: i for i, number in enumerate(classes)}
    said = asked.options.gather(1, asked.scores.argmax(dim=1, keepdim=True)).squeeze(1)
    rows = [places[int(number)] for number in problem.episodes.classes[asked.episodes]]
    none = asked.novelties > unknown.threshold
    columns = [len(classes) if no else places[int(number)] for no, number in zip(none, said, strict=True)]
    counts = np.zeros((len(classes), len(classes) + 1))
    np.add.at(counts, (rows, columns), 1.0)
    return Confusion(seconds, list(labels), counts / counts.sum(axis=1, keepdims=True))
