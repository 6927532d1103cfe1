"""What several processes compute together, `in_ranks.py FILE`: iterations of every agent that learns in ranks.

A program of its own, for torchrun or by itself. The first process saves what the test compares. Everything is in
float64, so that what differs is how the work was shared and not how float32 was rounded.
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import torch

from metarl.agents.distilled.settings import DistilledSettings
from metarl.agents.maml.maml import Maml
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.trial_ppo.learner import TrialPpo
from metarl.agents.varibad.settings import VaribadSettings
from metarl.config import RunConfig, TrainingSettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.envs.robots.quadruped_settings import QuadrupedTerrainSettings
from metarl.envs.sharded import ShardedEnv
from metarl.runs.run import Run, build, make_curriculum
from metarl.runs.trial import run_trial, stream, streams
from metarl.training.launched import join
from metarl.training.loop import Counters, iterate
from metarl.training.world import TrainingWorld

MAML = MamlSettings(hidden_sizes=(8,), tasks_per_chunk=2, normalise_input=False)
TRIAL_PPO: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "observation_embedding", "action_embedding", "reward_embedding"), 4),
    "head_sizes": (8,),
    "epochs": 2,
    "minibatches": 18,
}
"""More minibatches than some process has envs: it has none of some of them."""
VARIBAD = VaribadSettings(**TRIAL_PPO, decoder_sizes=(8,), vae_batch=3, elbo_terms=3, decoded_steps=5)
CASES = {
    "promp": (dataclasses.replace(MAML, outer="promp"), HalfCheetahMassSettings(horizon=25), 5, 2),
    "trpo": (dataclasses.replace(MAML, outer="trpo"), HalfCheetahMassSettings(horizon=25), 6, 1),
    "moments": (dataclasses.replace(MAML, normalise_input=True), HalfCheetahMassSettings(horizon=25), 5, 1),
    "variants": (
        dataclasses.replace(
            MAML,
            inner_rule="lstm",
            inner_rule_size=3,
            inner_kl_target=0.01,
            exploration_credit=0.5,
            baseline="adapted_value",
        ),
        HalfCheetahMassSettings(horizon=25),
        5,
        2,
    ),
    "reptile": (dataclasses.replace(MAML, outer="reptile"), HalfCheetahMassSettings(horizon=25), 5, 2),
    "rl2": (Rl2Settings(**TRIAL_PPO), HalfCheetahMassSettings(horizon=25), 5, 2),
    "distilled": (
        DistilledSettings(**TRIAL_PPO, distil_updates=0, critic_updates=1),
        HalfCheetahMassSettings(horizon=25),
        5,
        2,
    ),
    "varibad": (VARIBAD, HalfCheetahMassSettings(horizon=25), 5, 2),
    "curriculum": (
        dataclasses.replace(MAML, outer="trpo"),
        QuadrupedTerrainSettings(horizon=40, physics="exact"),
        5,
        2,
    ),
}
"""Agent, family, tasks an iteration, iterations. The quadruped's fast physics amplifies a difference in rounding."""


class Flagging(TrainingWorld):
    """Takes one env of the second task for flagged, as MuJoCo would have it: whoever has it learns nothing from it."""

    def iterate(self, tasks, key):
        agent = self.run.agent
        learn = agent.meta_update

        def without(trial, generator):
            for rollout in trial.rollouts if 1 in self.own else ():
                rollout.valid[:, self.own.index(1), 0] = False
            return learn(trial, generator)

        agent.meta_update = without
        try:
            return super().iterate(tasks, key)
        finally:
            del agent.meta_update


def meta_gradient(agent: Maml, run: Run, own: range) -> torch.Tensor:
    """Of both outer steps of MAML on a trial of fresh tasks, with one inner step."""
    t = run.config.training
    tasks = run.family.sample(t.tasks, stream(3, "gradient/tasks"))
    env = ShardedEnv(run.family, len(own), t.envs_per_task, t.threads)
    env.set_tasks([tasks[m] for m in own])
    trial = run_trial(env, agent, streams(3, "gradient", 0, own), 1).trial
    batches = [agent.prepare(*shot) for shot in zip(trial.rollouts, trial.beliefs, strict=True)]
    losses = agent.inner.surrogate, agent.inner.promp_loss
    return torch.cat([agent.outer.meta_gradient(agent.theta, batches, len(tasks), loss) for loss in losses])


def compute(name: str, ranks: Ranks) -> dict[str, Any]:
    settings, family, num_tasks, iterations = CASES[name]
    training = TrainingSettings(tasks=num_tasks, envs_per_task=4, seed=3, threads=1, curriculum=name == "curriculum")
    config = RunConfig(agent=settings, family=family, training=training)
    made, agent = build(config, ranks=ranks)
    run = Run(Path(), config, made, agent, 0, 0, make_curriculum(config, made))
    world, counters, drawn, metrics = Flagging(run, ranks), Counters(), [], []
    gradient = meta_gradient(agent, run, world.own) if isinstance(agent, Maml) else None
    draw = run.curriculum.sample if run.curriculum else made.sample

    def kept(*arguments):
        drawn.append(draw(*arguments))
        return drawn[-1]

    vars(run.curriculum or made)["sample"] = kept  # a frozen dataclass refuses attributes
    for _ in range(iterations):
        metrics.append(iterate(world, counters))
    if isinstance(agent, TrialPpo):  # of the last minibatch
        gradient = torch.cat([p.grad.flatten() for p in agent.network.parameters()])
    return {
        "tasks": [[dict(task.values) for task in tasks] for tasks in drawn],
        "own": [list(world.own)],
        "gradient": gradient,
        "state": agent.state_dict(),
        "curriculum": run.curriculum and run.curriculum.state_dict(),
        "metrics": [{k: v for k, v in m.items() if "time" not in k and k != "env_steps_per_s"} for m in metrics],
    }


def main(file: Path) -> None:
    torch.set_default_dtype(torch.float64)
    launched = join()
    ranks = launched or ALONE
    found = {name: compute(name, ranks) for name in CASES}
    for rank in range(ranks.size):  # every process has drawn the same tasks, and has its own share of them
        for name in CASES:
            theirs = ranks.any(rank == ranks.rank and found[name]["own"][0] == list(ranks.own(CASES[name][2])))
            assert theirs
            drawn = ranks.from_first(lambda name=name: found[name]["tasks"])
            assert drawn == found[name]["tasks"]
    if ranks.is_first:
        torch.save(found, file)
    if launched is not None:
        launched.leave(0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]))
