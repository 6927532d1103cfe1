"""Heads that compare a query's embedding with those of the support: a score for each class, the higher the likelier.

Axes: W ways (classes), S shots (supporting episodes of a class), Q queries, D size of an embedding. The order of a
class's shots, and of the classes, changes nothing. softmax over the W scores gives the probability of each class
(`calibration.probabilities`), and the highest score says how familiar a query is (`novelty`).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarl.agents.metric.settings import MetricSettings

FIRST_SCALE = {"prototypical": 0.1, "cosine": 10.0, "matching": 10.0}
"""Factor on distances and cosines before training."""


def prototypes(support: Tensor, shares: Tensor | None) -> Tensor:
    """c_w = 1/S sum_s x_ws (Snell 2017, eq. 1), or the mean weighted by `shares` [W, S]; [W, S, D] -> [W, D]."""
    return support.mean(dim=1) if shares is None else (shares.unsqueeze(-1) * support).sum(dim=1)


def squared_distances(queries: Tensor, others: Tensor) -> Tensor:
    """|q - c_w|^2; queries [Q, D], others [W, D] -> [Q, W]."""
    return (queries.unsqueeze(1) - others).square().sum(dim=-1)


def cosines(queries: Tensor, others: Tensor) -> Tensor:
    """q . x / (|q| |x|); queries [Q, D], others [..., D] -> [Q, ...]."""
    flat = functional.normalize(others.reshape(-1, others.shape[-1]), dim=-1)
    return (functional.normalize(queries, dim=-1) @ flat.T).unflatten(1, others.shape[:-1])


def attention_scores(similarities: Tensor, log_shares: Tensor) -> Tensor:
    """log sum_s share_ws exp(a_ws), [Q, W, S] -> [Q, W]; log_shares: [W, S].

    softmax over W of it is the attention that a class's shots get together, p(w) = sum_s a(q, x_ws) of Vinyals 2016,
    eq. 1, where every class has S shots.
    """
    return (similarities + log_shares).logsumexp(dim=-1)


def novelty(scores: Tensor) -> Tensor:
    """Return - max_w score_w, the distance from the nearest class, [Q, W] -> [Q]: high where no class is alike.

    The nearest of more classes is nearer, so a threshold fits one number of classes. Yet it tells unknown queries
    better than an energy (Liu 2020) less log W.
    """
    return -scores.amax(dim=-1)


class Head(nn.Module):
    """A comparison of queries with a support."""

    squared_error = False
    """Whether it is trained by squared errors of each score by itself, instead of the cross-entropy of all."""

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, queries: Tensor, support: Tensor, shares: Tensor | None = None) -> Tensor:
        """Return scores [Q, W] of queries [Q, D] for the classes of a support [W, S, D].

        shares: [W, S], weights of a class's shots, which sum to 1, where classes have not equally many; None: 1/S.
        """
        raise NotImplementedError

    def loss(self, scores: Tensor, classes: Tensor) -> Tensor:
        """Return the mean loss of scores [Q, W] where the queries are of classes [Q] in 0..W-1."""
        if not self.squared_error:
            return functional.cross_entropy(scores, classes)
        wanted = functional.one_hot(classes, scores.shape[1]).to(scores)
        return (scores.sigmoid() - wanted).square().mean()

    def initialise(self, generator: torch.Generator) -> None:
        """Draw orthogonal weights, and set biases to zero; a scale keeps its first value."""
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.orthogonal_(parameter, generator=generator)
            elif name != "log_scale":
                nn.init.zeros_(parameter)


class Prototypical(Head):
    """score = - e^a |q - c|^2 (Snell 2017), or e^a cos(q, c), with the prototype c, the mean of a class's shots."""

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        self.by_angle = settings.head == "cosine"
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE[settings.head])))

    def forward(self, queries: Tensor, support: Tensor, shares: Tensor | None = None) -> Tensor:
        means = prototypes(support, shares)
        alike = cosines(queries, means) if self.by_angle else -squared_distances(queries, means)
        return self.log_scale.exp() * alike


class Matching(Head):
    """Attention over all supporting episodes, each embedded in the context of all (Vinyals 2016).

    The query's context is the paper's attLSTM (eq. 3 to 6). The paper reads the support by a bidirectional LSTM, whose
    result depends on its order; here each of its episodes attends to all, which does not.
    """

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        size, self.rounds = settings.embedding_size, settings.context_steps
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE["matching"])))
        self.wanted, self.offered, self.given = (nn.Linear(size, size, bias=False) for _ in range(3))
        self.cell = nn.LSTMCell(size, 2 * size)
        self.project = nn.Linear(2 * size, size)

    def forward(self, queries: Tensor, support: Tensor, shares: Tensor | None = None) -> Tensor:
        log_shares = (
            (torch.full(support.shape[:2], 1 / support.shape[1]) if shares is None else shares).log().to(support)
        )
        rows = self.in_context(support.flatten(0, 1), log_shares.flatten())  # [W S, D]
        alike = cosines(self.attending(queries, rows, log_shares.flatten()), rows.unflatten(0, support.shape[:2]))
        return attention_scores(self.log_scale.exp() * alike, log_shares)

    def in_context(self, rows: Tensor, log_shares: Tensor) -> Tensor:
        """Return g(x_i, support) = x_i + attention of x_i over the support, [W S, D]."""
        weights = self.wanted(rows) @ self.offered(rows).T / math.sqrt(rows.shape[1])
        return rows + (weights + log_shares).softmax(dim=-1) @ self.given(rows)

    def attending(self, queries: Tensor, rows: Tensor, log_shares: Tensor) -> Tensor:
        """Return f(q, support) [Q, D] after rounds of an LSTM that reads q and attends to the support [W S, D]."""
        hidden = queries.new_zeros(len(queries), 2 * queries.shape[1])
        cell, found = hidden, queries
        for _ in range(self.rounds):
            hidden, cell = self.cell(queries, (hidden, cell))
            found = queries + self.project(hidden)
            read = (found @ rows.T + log_shares).softmax(dim=-1) @ rows
            hidden = torch.cat([found, read], dim=-1)
        return found


class Relation(Head):
    """A network that compares the query with the mean of a class's shots (Sung 2018, who sums: S is then fixed)."""

    squared_error = True

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        sizes = (3 * settings.embedding_size, *settings.relation_sizes, 1)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, queries: Tensor, support: Tensor, shares: Tensor | None = None) -> Tensor:
        means = prototypes(support, shares).expand(len(queries), -1, -1)  # [Q, W, D]
        others = queries.unsqueeze(1).expand_as(means)
        x = torch.cat([means, others, (means - others).square()], dim=-1)
        for layer in self.layers[:-1]:
            x = functional.silu(layer(x))
        return self.layers[-1](x).squeeze(-1)


HEADS: dict[str, type[Head]] = {
    "prototypical": Prototypical,
    "cosine": Prototypical,
    "matching": Matching,
    "relation": Relation,
}
"""Every head by name; each is made with the settings."""
