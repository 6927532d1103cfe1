"""A run's folder, and what is made from it: config, family, agent."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.bounds import MOST
from metarl.agents.agent import Agent, Belief
from metarl.agents.learning import Learner
from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.registry import make_agent
from metarl.runs.beliefs import load_belief
from metarl.runs.checkpoint import CheckpointError, CheckpointStore, is_finite, iteration_of
from metarl.config import CONFIG, RunConfig, config_to_dict, dump_yaml, map_files, read_run_config
from metarl.runs.entries import run_dir
from metarl.envs.curriculum import Curriculum
from metarl.envs.family import TaskFamily
from metarl.envs.task import Task
from metarl.envs.registry import keep_files, make_family
from metarl.envs.reveal import reveal
from metarl.envs.text import CONTROL, WHOLE, shown
from metarl.errors import RunError, UsageError, describe, nearest, usage_errors
from metarl.files import fresh_folder, make_folder, write
from metarl.runs.interface import Explore, RobotInterface
from metarl.runs.trial import stream, torch_stream

CHECKPOINTS = "checkpoints"
FILES = "robot"
"""Copies of the files that the family is made of, in a run's folder."""
MOST_NAME = 200
"""Bytes of a run's name: file systems take 255, and what is made of a run has longer names."""
DEVICES = ("auto", "cpu", "cuda")
MISFITS = (ValueError, KeyError, RuntimeError, TypeError, AttributeError, IndexError, OverflowError)
"""What an agent raises that is given the state of something else."""
CHECKPOINT_KEYS = ("agent", "config", "iteration", "env_steps", "best_return", "tracking")
"""What the checkpoint of a run holds."""


@dataclass
class Run:
    """A trained agent with everything around it."""

    directory: Path
    config: RunConfig
    family: TaskFamily
    agent: Learner
    iteration: int
    """Iterations that the agent was trained for."""
    env_steps: int
    """Env steps that the agent was trained on."""
    curriculum: Curriculum | None = None
    """What training draws its tasks by; None: from the training split as it is."""
    evaluation: Any = None
    """The `EvaluationResult` that training ended with; None if it did not end, or the run was loaded."""

    def start(
        self,
        belief: Belief | str | Path | None = None,
        adaptations: int | None = None,
        episodes_per_shot: int | None = None,
        explore: Explore | None = None,
        rng: np.random.Generator | int = 0,
    ) -> RobotInterface:
        """The policy for a robot on one task: `act`, `observe`, `end_episode`.

        belief: what is known of the task, or the file that `metarl adapt` made; None: nothing. adaptations: that are to
        come; None: those of the run's evaluation, or none where a belief is given or the agent does not adapt.
        episodes_per_shot: None: those of evaluation, 1 for an agent that adapts by memory. explore: None: `adapting`,
        or `never` if evaluation does not explore and the agent does not adapt by its noise. rng: of the noise.
        UsageError if the file cannot be used.
        """
        settings = self.config.evaluation
        if adaptations is None:
            adaptations = settings.adaptations if belief is None and self.agent.facts.adapts else 0
        if episodes_per_shot is None:
            episodes_per_shot = 1 if self.agent.facts.belief_per_env else settings.envs_per_task
        if explore is None:
            explore = "adapting" if settings.explore or self.agent.facts.needs_own_noise else "never"
        if isinstance(belief, str | Path):
            belief = load_belief(Path(belief), self)
        return RobotInterface(self.agent, self.family, adaptations, episodes_per_shot, explore, rng, belief)


def resolve_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """The torch device that `auto`, `cpu` or `cuda` stands for in this process."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "the device is cuda, but torch sees no CUDA device; set training.device to auto or cpu "
            "(of metarl evaluate: --device)"
        )
    if name not in DEVICES:
        raise UsageError(f"unknown device {name!r}{nearest(name, DEVICES)}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return ranks.cuda_device() if name == "cuda" else torch.device(name)


def build(config: RunConfig, device: str | None = None, ranks: Ranks = ALONE) -> tuple[TaskFamily, Learner]:
    """The family and the untrained agent that a configuration describes; UsageError for values they refuse.

    device: other than the configuration's own. ranks: the processes that the agent learns in.
    """
    config.validate()
    if config.training.tasks < ranks.size:
        raise UsageError(
            f"training.tasks is {config.training.tasks}, and {ranks.size} processes share them; each needs one at least"
        )
    with usage_errors("family"):
        family = make_family(config.family)
    if config.training.reveal_task:
        family = reveal(family)
    with usage_errors("evaluation.split"):
        family.require_split(config.evaluation.split)
    torch_device = resolve_device(device or config.training.device, ranks)
    generator = torch_stream(config.training.seed, "initialisation")
    _require_weights(config, family)
    with usage_errors("agent"):
        agent = make_agent(config.agent, family.observation_size, family.action_size, generator, torch_device, ranks)
    return family, agent


def _require_weights(config: RunConfig, family: TaskFamily) -> None:
    """UsageError for layers whose weights no memory would hold: the machine would end the process without a word."""
    for name in ("hidden_sizes", "hidden_size"):
        given = getattr(config.agent, name, ())
        layers = (family.observation_size, *(given if isinstance(given, tuple) else (given, given)), family.action_size)
        weights = sum(a * b for a, b in itertools.pairwise(layers))
        if weights > MOST:
            raise UsageError(
                f"agent.{name} is {given}, which makes {weights:.2g} weights; it must make at most {MOST:.0g}"
            )


def make_curriculum(config: RunConfig, family: TaskFamily) -> Curriculum | None:
    """The curriculum that the configuration asks for, at its start; UsageError if the family has none."""
    with usage_errors("training.curriculum"):
        return Curriculum(family) if config.training.curriculum else None


def distinct_tasks(run: Run) -> list[Task]:
    """The fixed set of tasks of a run that trains on one; it follows from the run's seed."""
    t = run.config.training
    return run.family.sample(t.distinct_tasks, stream(t.seed, "tasks/distinct"), "train")


def require_name(name: str) -> None:
    """UsageError unless a run's name is that of one folder: it is what the run is found by."""
    if len(os.fsencode(name)) > MOST_NAME:
        raise UsageError(f"--name has {len(os.fsencode(name))} bytes; give one of at most {MOST_NAME}")
    if name in ("", ".", "..") or set(name) & {"/", "\\"} or CONTROL.search(name):
        raise UsageError(
            f"--name is {shown(name)}; give one folder's name, without a slash, and the folder that it is to be in by "
            "--runs-dir"
        )


def new_name(config: RunConfig) -> str:
    """The name of a run that is given none: by agent, family, seed and time."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"{config.agent_name}_{config.family_name}_{config.training.seed}_{stamp}"


def new_run_dir(config: RunConfig, runs_dir: Path, name: str | None = None) -> Path:
    """Make the folder of a new run; without a name it is called by agent, family, seed and time."""
    if name is None:
        return fresh_folder(runs_dir / new_name(config), "--runs-dir")
    directory = runs_dir / name
    try:
        make_folder(directory, "--runs-dir", exist_ok=False)
    except FileExistsError:
        remedy = f"; go on with it by metarl train --resume {directory}, or choose another --name"
        if not (directory / CONFIG).exists():
            remedy = " and holds no run: remove it, or choose another --name"
        raise UsageError(f"{directory} exists{remedy}") from None
    return directory


def start_run(
    config: RunConfig, runs_dir: Path, name: str | None = None, ranks: Ranks = ALONE, device: str | None = None
) -> Path:
    """Make the folder of a new run with its config.yaml, after the family and the agent have taken their settings.

    Files that the family is made of, such as your robot, are copied: the run is trained on its own copy, which
    `read_run_config` names, whatever becomes of them, and wherever the folder is moved. A start that fails leaves
    nothing behind. ranks: the processes that it will be trained in; one of them makes the folder. device: that the
    settings are tried on, where the run's own is of another machine.
    """
    if name is not None:
        require_name(name)
    family, _ = build(config, device, ranks)
    make_curriculum(config, family)
    first = not runs_dir.exists()
    directory = new_run_dir(config, runs_dir, name)
    try:
        try:
            with usage_errors("family"):
                kept = keep_files(config.family, directory / FILES)
        except OSError as error:
            raise RunError(f"cannot copy the robot into {directory}: {describe(error)}") from error
        save_config(dataclasses.replace(config, family=kept), directory)
    except BaseException:  # the name is free again
        shutil.rmtree(directory, ignore_errors=True)
        if first:
            with contextlib.suppress(OSError):
                runs_dir.rmdir()
        raise
    return directory


def save_config(config: RunConfig, directory: Path) -> None:
    """Write config.yaml, complete: `metarl train --config` on it repeats the run."""
    folder = os.path.abspath(directory)

    def within(file: str) -> str:
        path = os.path.abspath(file)
        return os.path.relpath(path, folder) if path.startswith(folder + os.sep) else path

    write(directory / CONFIG, dump_yaml(map_files(config, within)).encode())


def restore(agent: Agent, config: RunConfig, path: Path, state: Mapping[str, Any]) -> None:
    """Load an agent's state from a checkpoint; CheckpointError if it is another agent's or another family's."""
    missing = [key for key in CHECKPOINT_KEYS if key not in state]
    if missing:
        raise CheckpointError(f"checkpoint {path} lacks {', '.join(missing)}: it is no checkpoint of a run")
    require_state(path, state)
    ours = config_to_dict(config)
    for section in ("agent", "family"):
        theirs = state["config"][section]["name"]
        if theirs != ours[section]["name"]:
            raise CheckpointError(
                f"checkpoint {path} is of the {section} {shown(theirs)}, this run of {ours[section]['name']!r}"
            )
    try:
        agent.load_state_dict(state["agent"])
    except MISFITS as error:
        raise CheckpointError(f"checkpoint {path} does not fit the agent of this run: {describe(error)}") from error


def require_state(path: Path, state: Mapping[str, Any]) -> None:
    """CheckpointError unless what a run goes on from is of the types that it writes, and finite."""
    fits = {
        "config": all(isinstance(_at(state["config"], section, "name"), str) for section in ("agent", "family")),
        "iteration": type(state["iteration"]) is int and 0 < state["iteration"] <= MOST,
        "env_steps": type(state["env_steps"]) is int and 0 <= state["env_steps"] < WHOLE,
        "best_return": type(state["best_return"]) is float and state["best_return"] < math.inf,
        "tracking": isinstance(_at(state["tracking"], "wandb_id"), str | None),
        "agent": isinstance(state["agent"], dict) and is_finite(state["agent"]),
    }
    for key, fit in fits.items():
        if not fit:
            raise CheckpointError(f"checkpoint {path} is damaged: its {key} is not what metarl writes there")


def restore_curriculum(curriculum: Curriculum, path: Path, state: Mapping[str, Any]) -> None:
    """Load a curriculum's state from a checkpoint; CheckpointError if it is none."""
    try:
        curriculum.load_state_dict(state["curriculum"])
    except MISFITS as error:
        raise CheckpointError(f"checkpoint {path} holds no curriculum of this run: {describe(error)}") from error


def _at(data: Any, *keys: str) -> Any:
    """What is in mappings within mappings; None where there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def load_run(
    directory: Path | str,
    checkpoint: str | Path = "last",
    device: str | None = None,
    agent_settings: Mapping[str, Any] | None = None,
) -> Run:
    """A run as it was at a checkpoint: `last`, `best` or a file.

    directory: the run's folder, or its bare name where it is in `runs/`; UsageError names the nearest if there is none.
    device: other than the run's own. agent_settings: of the agent, other than the run's own.
    """
    directory = run_dir(str(directory))
    config = read_run_config(directory)
    if agent_settings:
        config = dataclasses.replace(config, agent=dataclasses.replace(config.agent, **agent_settings))
    path, state = CheckpointStore(directory / CHECKPOINTS).load(checkpoint)
    family, agent = build(config, device)
    restore(agent, config, path, state)
    return Run(directory, config, family, agent, int(state["iteration"]), int(state["env_steps"]))
