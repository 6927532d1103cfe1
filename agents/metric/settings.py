"""Settings of an encoder of episodes, and of how it is trained to compare them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.bounds import bounded


@dataclass(frozen=True, kw_only=True)
class MetricSettings:
    """An encoder of episodes, the head that compares them, and their training on few-shot draws."""

    head: Literal["prototypical", "cosine", "matching", "relation"] = "prototypical"
    """prototypical: squared distance to the mean of a class (Snell 2017); cosine: its angle instead; matching:
    attention over all supporting episodes, each embedded in the context of all (Vinyals 2016); relation: a network that
    compares (Sung 2018)."""
    reader: Literal["set", "gru"] = "set"
    """set: the mean over steps, whatever their order; gru: a recurrent network reads them in order."""
    reward_input: bool = False
    """Read the rewards too, which a robot may be unable to measure."""
    window: int = bounded(3, at_least=1, at_most=64)
    """Control steps that the features of a step are made from, the step among them."""
    hidden_sizes: tuple[int, ...] = bounded((96, 96), at_least=1, nonempty=True)
    """Widths of the hidden layers of the features of a step; the first reads the window."""
    embedding_size: int = bounded(32, at_least=1)
    """Size of an embedding."""
    context_steps: int = bounded(3, at_least=1, at_most=32)
    """Of matching: rounds in which a query attends to the support."""
    relation_sizes: tuple[int, ...] = bounded((64,), at_least=1, nonempty=True)
    """Of relation: widths of the hidden layers of the network that compares."""
    updates: int = bounded(1500, at_least=1)
    """Gradient steps, each on one few-shot draw."""
    training_ways: int = bounded(12, at_least=2)
    """Classes of a draw in training; all if there are fewer."""
    training_shots: int = bounded(3, at_least=1)
    """Supporting episodes of a class in a draw."""
    training_queries: int = bounded(3, at_least=1)
    """Episodes of a class to tell in a draw."""
    dropout: float = bounded(0.1, at_least=0, below=1)
    """Share of a step's features that are set to zero in training."""
    lr: float = bounded(1e-3, above=0)
    """Adam's first step size; it falls to 0 along a cosine."""
    weight_decay: float = bounded(1e-4, at_least=0)
    """AdamW's decay of the weights."""
