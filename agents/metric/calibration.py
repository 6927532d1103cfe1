"""Calibrated probabilities: temperature, expected calibration error, reliability, and the answer "none of these".

Pure functions of scores, on the CPU. Axes: Q queries, W classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

ITERATIONS = 60
"""Steps of Newton's method and of bisection, many times what they need."""


def temperature(scores: Tensor, classes: Tensor) -> float:
    """Return the T > 0 that minimises the cross-entropy of softmax(scores / T) (Guo 2017), by bisection in log T.

    scores: [Q, W]. classes: [Q], the right ones. The cross-entropy is convex in 1 / T, so its slope has one zero.
    """
    scores = scores.double()
    right = scores.gather(1, classes.unsqueeze(1)).squeeze(1)
    low, high = torch.tensor(-7.0).double(), torch.tensor(7.0).double()  # log T
    for _ in range(ITERATIONS):
        middle = (low + high) / 2
        expected = ((scores / middle.exp()).softmax(dim=1) * scores).sum(dim=1)
        # d loss / d (1 / T) = mean(E[score] - right score); above 0: a smaller 1 / T is better
        low, high = (middle, high) if (expected - right).mean() > 0 else (low, middle)
    return float(((low + high) / 2).exp())


class Reliability(NamedTuple):
    """A reliability diagram: bins of confidence, the highest probability of an answer."""

    confidence: Tensor
    """[bins], mean confidence of each bin; NaN where it is empty."""
    accuracy: Tensor
    """[bins], share of right answers."""
    share: Tensor
    """[bins], share of all queries."""

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini 2015): sum over bins of share |accuracy - confidence|."""
        gaps = (self.accuracy - self.confidence).abs().nan_to_num()
        return float((self.share * gaps).sum())


def reliability(confidence: Tensor, right: Tensor, bins: int = 10, weights: Tensor | None = None) -> Reliability:
    """Return the reliability diagram of confidences [Q] in [0, 1] and whether each answer is right, [Q] bool.

    weights: [Q], how much each query counts; None: all alike.
    """
    places = (confidence * bins).long().clamp(max=bins - 1)
    weights = (torch.ones_like(confidence) if weights is None else weights).double()
    counts = torch.bincount(places, weights=weights, minlength=bins)

    def mean(values: Tensor) -> Tensor:
        return torch.bincount(places, weights=weights * values.double(), minlength=bins) / counts

    return Reliability(mean(confidence), mean(right), counts / counts.sum())


class Unknown(NamedTuple):
    """The answer "none of these": a threshold on the novelty of a query, and its probability."""

    threshold: float
    """Novelty above which the answer is "none of these"."""
    slope: float
    offset: float
    """P(none) = sigmoid(slope x novelty + offset), where known and unknown queries are equally frequent."""

    def probability(self, novelty: Tensor) -> Tensor:
        """Return the probability that a query is of none of the classes, for novelties [...]."""
        return torch.sigmoid(self.slope * novelty + self.offset)


def fit_unknown(known: Tensor, unknown: Tensor, false_alarms: float) -> Unknown:
    """Return the threshold that a share `false_alarms` of known queries exceeds, and a logistic fit (Platt 1999).

    known, unknown: novelties [Q] of queries of the support's classes, and of others; each side counts as much.
    """
    known, unknown = known.double(), unknown.double()
    both = torch.cat([known, unknown])
    middle, spread = both.mean(), both.std().clamp(min=1e-9)
    x = torch.stack([(both - middle) / spread, torch.ones_like(both)], dim=1)
    y = torch.cat([torch.zeros_like(known), torch.ones_like(unknown)])
    weights = torch.cat([torch.full_like(known, 0.5 / len(known)), torch.full_like(unknown, 0.5 / len(unknown))])
    w = torch.zeros(2, dtype=torch.float64)
    for _ in range(ITERATIONS):  # Newton; a small ridge keeps separable data finite
        p = torch.sigmoid(x @ w)
        gradient = x.T @ (weights * (p - y)) + 1e-3 * w
        hessian = (x * (weights * p * (1 - p)).unsqueeze(1)).T @ x + 1e-3 * torch.eye(2, dtype=torch.float64)
        w = w - torch.linalg.solve(hessian, gradient)
    slope = float(w[0] / spread)
    return Unknown(float(known.quantile(1 - false_alarms)), slope, float(w[1] - slope * middle))


def auroc(known: Tensor, unknown: Tensor) -> float:
    """Return the probability that an unknown query has a higher novelty than a known one; ties count half."""
    order = torch.cat([known, unknown]).double()
    _, inverse, counts = order.unique(return_inverse=True, return_counts=True)
    upto = counts.cumsum(0).double()
    ranks = (upto - (counts.double() - 1) / 2)[inverse]  # mean rank of ties, from 1
    k, u = len(known), len(unknown)
    return float((ranks[k:].sum() - u * (u + 1) / 2) / (k * u))


def probabilities(scores: Tensor, of_temperature: float, none: Tensor) -> Tensor:
    """Return [Q, W + 1]: the probability of each class, and last that of none of them.

    scores: [Q, W]. none: [Q], its probability.
    """
    known = functional.softmax(scores / of_temperature, dim=1) * (1 - none).unsqueeze(1)
    return torch.cat([known, none.unsqueeze(1)], dim=1)
