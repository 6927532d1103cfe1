"""The step size of a run's iterations, which may fall towards the end."""

from __future__ import annotations


def falling(lr: float, lr_end: float, done: int, over: int, start: int = 0) -> float:
    """Return the step size after `done` iterations: from `start` on it falls from lr to lr_end, linearly.

    over: iterations of the fall; 0: it stays lr.
    """
    if not over:
        return lr
    return lr + (lr_end - lr) * min(max((done - start) / over, 0.0), 1.0)
