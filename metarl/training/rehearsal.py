"""Check that a run can be trained as its settings say, before it is launched on another machine."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

from metarl.agents.ranks import Ranks
from metarl.config import RunConfig
from metarl.envs.sharded import ShardedEnv
from metarl.runs.run import Run, build, require_startable
from metarl.runs.simulators import PACKAGES, simulator_for, unsupported
from metarl.runs.trial import stream
from metarl.training.world import TrainingWorld

TASKS = 8
"""Most tasks that are compiled for the check."""


def require_trainable(config: RunConfig, gpus: bool, ranks: Ranks, new: bool) -> None:
    """Raise UsageError if so many processes cannot train, or the simulators cannot be used with agent and family.

    new: whether the run is still to be begun, which may be refused besides.
    A missing mujoco-warp is refused too. Nothing is simulated, and no GPU is needed: the gpu simulator is made on the
    CPU. gpus: whether the run will have GPUs, on which `training.simulator=auto` may choose the gpu simulator. ranks:
    the processes that will train together; their number is all that is read.
    """
    build(config, "cpu", ranks)
    t = config.training
    simulator = t.simulator
    if simulator == "auto":
        chosen = gpus and t.device != "cpu" and all(map(importlib.util.find_spec, PACKAGES))
        simulator = "gpu" if chosen else "cpu"
    few = dataclasses.replace(
        t, simulator=simulator, device="cpu", tasks=min(t.tasks, TASKS), envs_per_task=1, threads=1
    )
    config = dataclasses.replace(config, training=few)
    family, agent = build(config)
    if new:
        require_startable(config, family)
    run = Run(Path(), config, family, agent, 0, 0)
    TrainingWorld(run).begin(family.sample(few.tasks, stream(t.seed, "tasks", 0)), 0)
    name = config.evaluation.simulator
    if name == "gpu":
        with unsupported("evaluation.simulator"):
            env = ShardedEnv(family, few.tasks, 1, 1, simulator=simulator_for(name, agent, "evaluation.simulator"))
            env.set_tasks(family.sample(few.tasks, stream(t.seed, "evaluation", 0), config.evaluation.split))
