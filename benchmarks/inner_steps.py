"""Time and memory of adaptation by gradients: `python -m benchmarks.inner_steps`.

Against each other, in turn in one run: the second-order meta-gradient stacked over 40 tasks, and task by task in plain
torch; the inner step of ANIL and CAVIA, and MAML's; the peak memory of the exact meta-gradient, and of the first-order
one, each in a process of its own. Policies of 64x64 on 17 observations and 6 actions, as HalfCheetah has.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from metarl.agents.agent import Rollout
from metarl.agents.maml.maml import Maml
from metarl.agents.maml.papers import MAML_PAPERS
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.maml.shots import Batch

TASKS, OBSERVATION, ACTION = 40, 17, 6
SHOTS = {2000: (200, 10), 200: (20, 10), 20: (20, 1)}
"""(T, N) by the number of samples of a task. The most first: a process that has freed large arrays, as any that trains
has, does not give its memory back and ask for it again."""
ROUNDS = 9
CHEAPER = ("anil", "cavia", "cavia_film")
"""Papers whose inner step is timed against MAML's: they adapt less."""


@dataclass(frozen=True)
class Speedup:
    """Times of two ways, by round, in seconds."""

    slow: list[float]
    fast: list[float]

    @property
    def ratios(self) -> list[float]:
        """Slow over fast, by round."""
        return [a / b for a, b in zip(self.slow, self.fast, strict=True)]


def make(**settings: object) -> Maml:
    """Return an agent of MAML."""
    values: dict[str, object] = {"normalise_input": False, **settings}
    made = MamlSettings(**values)  # pyright: ignore[reportArgumentType]
    return Maml(made, OBSERVATION, ACTION, torch.Generator().manual_seed(0), torch.device("cpu"))


def rollout(samples: int, seed: int) -> Rollout:
    """Return a shot of random numbers."""
    steps, envs = SHOTS[samples]
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.randn(steps, TASKS, envs, *size, generator=generator)

    ones = torch.ones(steps, TASKS, envs, dtype=torch.bool)
    truncated = torch.zeros_like(ones)
    truncated[-1] = True
    final = torch.randn(TASKS, envs, OBSERVATION, generator=generator)
    return Rollout(draw(OBSERVATION), draw(ACTION), draw(), ~ones, truncated, ones, final)


def batches_of(agent: Maml, samples: int) -> list[Batch]:
    """Return the data of two shots, with an inner step between them."""
    support, query = rollout(samples, 1), rollout(samples, 2)
    begun = agent.begin(TASKS, 1, ())
    adapted = agent.adapt(begun, support, ())
    return [*adapted.batches, agent.prepare(query, adapted)]


def plain_gradient(agent: Maml, batches: list[Batch], task: int) -> Tensor:
    """Return the second-order meta-gradient of the surrogate loss of one task, as one writes it in plain torch."""
    theta = agent.theta.detach().requires_grad_()
    support, query = (batch.tasks(slice(task, task + 1)) for batch in batches)

    def loss(flat: Tensor, batch: Batch) -> Tensor:
        x, at = batch.observations[0], 0
        for layer, (i, o) in enumerate(agent.policy.shapes):
            x = torch.addmm(flat[at + i * o : at + i * o + o], x, flat[at : at + i * o].view(i, o))
            at += i * o + o
            x = torch.tanh(x) if layer < len(agent.policy.shapes) - 1 else x
        log_prob = torch.distributions.Normal(x, flat[at:].exp()).log_prob(batch.actions[0]).sum(-1)
        return -(torch.exp(log_prob - batch.old_log_probs[0]) * batch.advantages[0]).mean()

    (slope,) = torch.autograd.grad(loss(theta, support), theta, create_graph=True)
    return torch.autograd.grad(loss(theta - agent.settings.inner_lr * slope, query), theta)[0]


def in_turn(slow: Callable[[], object], fast: Callable[[], object], rounds: int = ROUNDS) -> Speedup:
    """Time two functions in turn, after one call of each that is not counted."""
    taken: tuple[list[float], list[float]] = ([], [])
    for round_ in range(rounds + 1):
        for own, work in zip(taken, (slow, fast), strict=True):
            began = time.perf_counter()
            work()
            if round_:
                own.append(time.perf_counter() - began)
    return Speedup(*taken)


def stacked_over_tasks(samples: int) -> Speedup:
    """Time the meta-gradient of 40 tasks, task by task and stacked; AssertionError if the two differ."""
    agent = make()
    batches = batches_of(agent, samples)

    def loop() -> Tensor:
        return torch.stack([plain_gradient(agent, batches, m) for m in range(TASKS)]).mean(0)

    def stacked() -> Tensor:
        return agent.outer.meta_gradient(agent.theta, batches, TASKS, agent.inner.surrogate)

    torch.testing.assert_close(stacked(), loop(), rtol=1e-3, atol=1e-5)
    return in_turn(loop, stacked)


def inner_cost(paper: str, samples: int = 2000) -> Speedup:
    """Time MAML's inner step on 40 tasks, and that of a paper."""
    agents = make(), make(**MAML_PAPERS[paper].settings)
    works = []
    for agent in agents:
        belief = agent.begin(TASKS, 1, ())
        phi, shot = agent.inner.parts.take(belief.parameters), agent.shot(rollout(samples, 1), belief)

        def work(agent: Maml = agent, phi: Tensor = phi, shot: tuple[Batch, Tensor] = shot) -> None:
            batch, features = shot
            for chunk in agent.inner.chunks(batch.weights):
                own = batch.tasks(chunk)
                agent.inner.step(agent.theta, phi[chunk], own, 0, (), create_graph=False, features=features[chunk])

        works.append(work)
    return in_turn(*works)


def peak_bytes(first_order: bool) -> int:
    """Return what the meta-gradient of all tasks at once adds to the peak memory of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.inner_steps", "--peak", "first" if first_order else "exact"]
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed leaves the process at once
    return int(subprocess.run(command, capture_output=True, check=True, text=True, env=env).stdout)


def _peak(first_order: bool) -> int:
    agent = make(tasks_per_chunk=TASKS, first_order=first_order)
    batches = batches_of(agent, 2000)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew at what is resident now
    before = _status("VmRSS")
    agent.outer.meta_gradient(agent.theta, batches, TASKS, agent.inner.surrogate)
    return _status("VmHWM") - before


def _status(name: str) -> int:
    """Return a size of this process by Linux's name of it, in bytes."""
    sizes = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(sizes[name].split()[0])


def main() -> None:
    if "--peak" in sys.argv:
        print(_peak("first" in sys.argv))
        return
    for samples in SHOTS:
        found = stacked_over_tasks(samples)
        print(
            f"second-order meta-gradient, {TASKS} tasks of {samples} samples: {1e3 * median(found.slow):.1f} ms "
            f"task by task, {1e3 * median(found.fast):.1f} ms stacked, {median(found.ratios):.2f} times as fast",
            flush=True,
        )
    for paper in CHEAPER:
        found = inner_cost(paper)
        print(
            f"inner step, {TASKS} tasks of 2000 samples: MAML {1e3 * median(found.slow):.1f} ms, {paper} "
            f"{1e3 * median(found.fast):.1f} ms, {1 / median(found.ratios):.2f} of it",
            flush=True,
        )
    exact, first = peak_bytes(first_order=False), peak_bytes(first_order=True)
    print(
        f"peak memory of the meta-gradient, all tasks at once: exact {exact / 1e6:.0f} MB, first order "
        f"{first / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
