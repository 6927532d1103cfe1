"""Few-shot draws from labelled episodes, and the training of an encoder and a head on them.

Axes: B episodes, W ways (classes), S shots, Q queries, D size of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.agents.metric.encoder import EpisodeEncoder
from metarl.agents.metric.heads import HEADS, Head
from metarl.agents.metric.settings import MetricSettings


@dataclass(frozen=True)
class Episodes:
    """Labelled episodes."""

    steps: Tensor
    """[T, B, input] float32, see `encoder.steps_of`."""
    lengths: Tensor
    """[B] int64, number of steps, at least 1."""
    classes: Tensor
    """[B] int64."""
    tasks: Tensor
    """[B] int64; episodes on one task share its number."""

    def of_classes(self, classes: Sequence[int]) -> Tensor:
        """Return the places of the episodes of some classes, [K]."""
        return torch.isin(self.classes, torch.tensor(list(classes))).nonzero().squeeze(-1)


@dataclass(frozen=True)
class Draw:
    """A few-shot problem: places of episodes."""

    classes: list[int]
    """The W classes."""
    support: Tensor
    """[W, S] places of supporting episodes."""
    queries: Tensor
    """[Q] places of episodes of these classes, on other tasks than the support."""
    answers: Tensor
    """[Q] place of each query's class among the W."""


def draw(
    episodes: Episodes,
    classes: Sequence[int],
    ways: int,
    shots: int,
    generator: torch.Generator,
    queries: int | None = None,
) -> Draw:
    """Draw classes, supporting episodes on one half of each class's tasks, and queries on the other half.

    So a class must be told on tasks that differ in all else. Shots are drawn anew where a class has too few. queries:
    of each class; None: all that there are. ValueError for a class with a single task.
    """
    order = torch.randperm(len(classes), generator=generator)[:ways].tolist()
    chosen = [classes[i] for i in order]
    support, asked, answers = [], [], []
    for way, number in enumerate(chosen):
        own = (episodes.classes == number).nonzero().squeeze(-1)
        tasks = episodes.tasks[own].unique()
        if len(tasks) < 2:
            raise ValueError(f"class {number} has episodes on {len(tasks)} task; a draw needs two")
        mixed = tasks[torch.randperm(len(tasks), generator=generator)]
        known = torch.isin(episodes.tasks[own], mixed[: len(tasks) // 2])
        support.append(_some(own[known], shots, generator))
        left = own[~known]
        asked.append(left if queries is None else _some(left, queries, generator))
        answers += [way] * len(asked[-1])
    return Draw(chosen, torch.stack(support), torch.cat(asked), torch.tensor(answers))


def _some(places: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` of the places, each once as long as there are enough."""
    rounds = -(-count // len(places))
    mixed = [places[torch.randperm(len(places), generator=generator)] for _ in range(rounds)]
    return torch.cat(mixed)[:count]


class Metric(nn.Module):
    """An encoder and the head that compares what it gives."""

    def __init__(self, settings: MetricSettings, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = EpisodeEncoder(settings, observation_size, action_size)
        self.head: Head = HEADS[settings.head](settings)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw initial parameters."""
        self.encoder.initialise(generator)
        self.head.initialise(generator)

    @torch.no_grad()
    def embed(self, episodes: Episodes, until: Sequence[int], batch: int = 256) -> Tensor:
        """Return embeddings [K, B, D] of the first `until` steps of each episode."""
        self.eval()
        parts = zip(episodes.steps.split(batch, dim=1), episodes.lengths.split(batch), strict=True)
        return torch.cat([self.encoder(steps, lengths, until) for steps, lengths in parts], dim=1)


def train(
    metric: Metric,
    episodes: Episodes,
    classes: Sequence[int],
    until: Sequence[int],
    generator: torch.Generator,
    progress: Callable[[int, float], None] = lambda update, accuracy: None,
) -> None:
    """Train encoder and head on few-shot draws from some classes, with the loss of the head (Vinyals 2016; Snell 2017).

    The support has whole episodes; the queries of a draw end after one of the numbers of steps `until`, drawn at
    random. progress: called with the number of each update and its accuracy.
    """
    settings = metric.settings
    optimiser = torch.optim.AdamW(metric.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.updates)
    own = episodes.of_classes(classes)
    metric.encoder.standardise_by(episodes.steps[:, own], episodes.lengths[own])
    metric.train()
    for update in range(settings.updates):
        drawn = draw(
            *(episodes, classes, settings.training_ways, settings.training_shots, generator, settings.training_queries)
        )
        end = until[int(torch.randint(len(until), (), generator=generator))]
        with torch.random.fork_rng(devices=[]):  # dropout draws from torch's own generator
            torch.random.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            scores = _scores(metric, episodes, drawn, end)
        loss = metric.head.loss(scores, drawn.answers)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(metric.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        accuracy = (scores.argmax(dim=1) == drawn.answers).float().mean().item()
        progress(update + 1, accuracy)
    metric.eval()


def _scores(metric: Metric, episodes: Episodes, drawn: Draw, end: int) -> Tensor:
    """Return the scores [Q, W] of a draw whose queries end after some steps."""
    places = drawn.support.flatten()
    support = metric.encoder(episodes.steps[:, places], episodes.lengths[places], [len(episodes.steps)])[0]
    queries = metric.encoder(episodes.steps[:, drawn.queries], episodes.lengths[drawn.queries], [end])[0]
    return metric.head(queries, support.unflatten(0, drawn.support.shape))
