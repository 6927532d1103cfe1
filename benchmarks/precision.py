"""What products of matrices in bfloat16 (`training.matmul_precision=medium`) save a gradient step of PEARL on this CPU.

    python -m benchmarks.precision

CPU milliseconds of one thread, medians; both take turns. Something is saved where the CPU multiplies bfloat16.
"""

from __future__ import annotations

import time
from statistics import median

import torch

from metarl.agents.arithmetic import matmul_precision
from metarl.agents.pearl.sac import Batch, Networks, SoftActorCritic, context_size
from metarl.agents.pearl.settings import PearlSettings

OBSERVATION, ACTION, TASKS, CONTEXT = 20, 6, 4, 64
SHAPES = ((128, 128), 64), ((256, 256, 256), 64), ((300, 300, 300), 256)
"""Hidden layers of the policy and the Q networks, and transitions a task to learn from."""
ROUNDS, STEPS = 15, 10


def made(hidden: tuple[int, ...]) -> SoftActorCritic:
    """Return a learner with these hidden layers."""
    settings = PearlSettings(hidden_sizes=hidden, encoder_sizes=(128, 128))
    return SoftActorCritic(Networks(settings, OBSERVATION, ACTION, torch.Generator().manual_seed(0)), settings, ACTION)


def transitions(learner: SoftActorCritic, batch: int, generator: torch.Generator) -> Batch:
    """Return random transitions."""

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(TASKS, *size, generator=generator)

    context = draw(CONTEXT, context_size(learner.settings, OBSERVATION, ACTION))
    ended = torch.zeros(TASKS, batch, dtype=torch.bool)
    return Batch(
        draw(batch, OBSERVATION), draw(batch, ACTION).tanh(), draw(batch), draw(batch, OBSERVATION), ended, context
    )


def cost(learner: SoftActorCritic, batch: Batch, precision: str, generator: torch.Generator) -> float:
    """Take gradient steps; returns the CPU milliseconds of one."""
    with matmul_precision(precision):
        began = time.process_time()
        for _ in range(STEPS):
            learner.step(batch, generator)
        return 1e3 * (time.process_time() - began) / STEPS


def main() -> None:
    """The command line."""
    torch.set_num_threads(1)
    for hidden, batch in SHAPES:
        generator = torch.Generator().manual_seed(1)
        learner = made(hidden)
        drawn = transitions(learner, batch, generator)
        rounds = [[cost(learner, drawn, p, generator) for p in ("highest", "medium")] for _ in range(1 + ROUNDS)][1:]
        plain, half = (median(each) for each in zip(*rounds, strict=True))
        ratio = median(a / b for a, b in rounds)
        size = "x".join(map(str, hidden))
        print(f"{size}, {TASKS * batch} transitions: {plain:.1f} ms, {half:.1f} ms in bfloat16; {ratio:.2f} times")


if __name__ == "__main__":
    main()
