"""Make the folder of a run, and load config, family and agent from it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import math
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.agents.agent import Agent, Belief
from metarl.agents.learning import Learner
from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.registry import make_agent
from metarl.bounds import MOST
from metarl.config import (
    CONFIG,
    EvaluationSettings,
    RunConfig,
    TrainingSettings,
    code_of,
    config_to_dict,
    dump_yaml,
    hooks_of,
    map_files,
    read_run_config,
)
from metarl.envs.curriculum import Curriculum
from metarl.envs.family import TaskFamily
from metarl.envs.mirror.images import symmetry_of
from metarl.envs.mirror.mirrored import closed
from metarl.envs.registry import keep_files, make_family
from metarl.envs.reveal import privileged_names, reveal, told_as
from metarl.envs.task import Task
from metarl.envs.text import WHOLE, shown, typed
from metarl.errors import RunError, UsageError, describe, nearest, usage_errors
from metarl.files import fresh_folder, make_folder, require_name, write
from metarl.runs.beliefs import load_belief
from metarl.runs.checkpoint import CheckpointError, CheckpointStore, is_finite
from metarl.runs.controller import Controller, Explore
from metarl.runs.entries import run_dir
from metarl.runs.occupied import HELD, held
from metarl.runs.trial import stream, torch_stream
from metarl.runs.unstudied import unstudied
from metarl.trust import trust
from metarl.wording import number_of

CHECKPOINTS = "checkpoints"
FILES = "robot"
"""Subfolder of the run's folder with copies of your own robot's files."""
DEVICES = ("auto", "cpu", "cuda")
MISFITS = (ValueError, KeyError, RuntimeError, TypeError, AttributeError, IndexError, OverflowError)
"""Errors of an agent that loads the state of another."""
CHECKPOINT_KEYS = ("agent", "config", "iteration", "env_steps", "best_return", "tracking")
"""Entries of a run's checkpoint."""


@dataclass(repr=False)
class Run:
    """A trained agent with its configuration, family and folder."""

    directory: Path
    config: RunConfig
    family: TaskFamily
    agent: Learner
    iteration: int
    """Number of training iterations so far."""
    env_steps: int
    """Number of env steps of training so far."""
    curriculum: Curriculum | None = None
    """Curriculum that training draws its tasks by; None: from the whole training split."""
    evaluation: Any = None
    """`EvaluationResult` of the evaluation after training; None if training was stopped, or the run was loaded."""

    def __repr__(self) -> str:
        return (
            f"<Run {typed(self.directory)}: {self.config.agent_name} on {self.config.family_name}, iteration "
            f"{self.iteration}, {self.env_steps:,} env steps>"
        )

    @property
    def explores(self) -> bool:
        """Whether the agent acts with exploration noise while it adapts, in evaluation and on a robot."""
        settings = self.config.evaluation
        return settings.explore or settings.explore_to_adapt or self.agent.facts.needs_own_noise

    def start(
        self,
        belief: Belief | str | Path | None = None,
        adaptations: int | None = None,
        episodes_per_shot: int | None = None,
        explore: Explore | None = None,
        rng: np.random.Generator | int = 0,
    ) -> Controller:
        """Return a controller that runs the policy on one task: `act`, `observe`, `end_episode`.

        belief: a belief, or the file that `metarl adapt` saved; None: the belief before adaptation. adaptations: number
        of shots to adapt after; None: as in the run's evaluation, or 0 if a belief is given or the agent does not
        adapt. episodes_per_shot: None: as in evaluation, or 1 for an agent with a belief per env. explore: None:
        `adapting`, or `never` if evaluation does not explore and the agent does not need its own noise. rng: generator
        or seed of the noise. UsageError if the file cannot be used.
        """
        settings = self.config.evaluation
        if adaptations is None:
            adaptations = settings.adaptations if belief is None and self.agent.facts.adapts else 0
        if episodes_per_shot is None:
            episodes_per_shot = 1 if self.agent.facts.belief_per_env else settings.envs_per_task
        if explore is None:
            explore = "adapting" if self.explores else "never"
        if isinstance(belief, str | Path):
            belief = load_belief(Path(belief), self)
        return Controller(self.agent, self.family, adaptations, episodes_per_shot, explore, rng, belief)


def resolve_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """Return the torch device that `auto`, `cpu` or `cuda` stands for in this process."""
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
    """Return the family and the untrained agent of a configuration; UsageError for values that they refuse.

    device: overrides the configuration's. ranks: the processes that train the agent together.
    """
    config.validate()
    if config.training.tasks < ranks.size:
        raise UsageError(
            f"training.tasks is {config.training.tasks}, and {ranks.size} processes share them; each needs at least one"
        )
    with usage_errors("family"):
        family = make_family(config.family)
    if config.training.reveal_task:
        with usage_errors("training.mirror"):
            family = as_mirrored(config, family)
        family = reveal(family, splits=config.training.splits)
    with usage_errors("training.also_split"):
        for split in config.training.splits:
            family.require_split(split)
    with usage_errors("evaluation.split"):
        family.require_split(config.evaluation.split)
    torch_device = resolve_device(device or config.training.device, ranks)
    generator = torch_stream(config.training.seed, "initialisation")
    _require_weights(config, family)
    sizes, known = (family.observation_size, family.action_size), privileged_names(family)
    with usage_errors("agent"):
        agent = make_agent(config.agent, *sizes, generator, torch_device, ranks, known)
    return family, agent


def as_mirrored(config: RunConfig, family: TaskFamily) -> TaskFamily:
    """Return the family as an oracle reads it that may have met tasks in a mirror."""
    known = config.training.mirror and any(p.categories for p in family.parameters)
    return closed(family, symmetry_of(family)) if known else family


def require_startable(config: RunConfig, family: TaskFamily) -> None:
    """UsageError for what is refused of a new run alone: one of before is there to be read and gone on with.

    It is a curriculum that the family lacks, a fault or a change that never begins, or an evaluation that comes back to
    tasks which change.
    """
    make_curriculum(config, family)
    for settings in (config.training, config.evaluation):
        _require_changes(settings, family)
    require_evaluable(config.evaluation, family)


def _require_changes(settings: TrainingSettings | EvaluationSettings, family: TaskFamily) -> None:
    """UsageError for a fault or a change that begins after the last step of every trial of training or evaluation."""
    rounds = settings.adaptations + 1
    name = "training" if isinstance(settings, TrainingSettings) else "evaluation"
    for what, (least, _) in family.onsets.items():
        if least and least >= rounds * family.horizon:
            raise UsageError(
                f"family: no {what} ever begins: the first comes after {least} control steps at the earliest, and a "
                f"trial of {name} has {rounds * family.horizon} ({number_of(rounds, 'episode')} of "
                f"{family.horizon}); let it begin earlier, or raise the horizon or {name}.adaptations"
            )


def require_evaluable(settings: EvaluationSettings, family: TaskFamily) -> None:
    """UsageError if the family lacks the split of an evaluation, or its tasks change where it comes back to them."""
    with usage_errors("evaluation.split"):
        family.require_split(settings.split)
    if settings.revisit and family.changing:
        raise UsageError(
            "evaluation.revisit compares a task with the same one before, and these tasks change on the way (changes "
            "or faults of the family): what they change would count as forgotten; leave it out"
        )


def _require_weights(config: RunConfig, family: TaskFamily) -> None:
    """UsageError for layers whose weights exceed any memory: the system would kill the process without a message."""
    for name in ("hidden_sizes", "hidden_size"):
        given = getattr(config.agent, name, ())
        layers = (family.observation_size, *(given if isinstance(given, tuple) else (given, given)), family.action_size)
        weights = sum(a * b for a, b in itertools.pairwise(layers))
        if weights > MOST:
            raise UsageError(
                f"agent.{name} is {given}, which makes {weights:.2g} weights; it must make at most {MOST:.0g}"
            )


def make_curriculum(config: RunConfig, family: TaskFamily) -> Curriculum | None:
    """Return the curriculum at its start, or None without one; UsageError if the family has no difficulty."""
    with usage_errors("training.curriculum"):
        return Curriculum(family) if config.training.curriculum else None


def distinct_tasks(run: Run) -> list[Task]:
    """Return the fixed set of training tasks (`training.distinct_tasks`), drawn with the run's seed."""
    t = run.config.training
    return new_tasks(run, t.distinct_tasks, stream(t.seed, "tasks/distinct"))


def new_tasks(run: Run, count: int, rng: np.random.Generator) -> list[Task]:
    """Return tasks of the splits that the run trains on, as many of each as of the others."""
    splits = run.config.training.splits
    drawn = [run.family.sample(len(range(k, count, len(splits))), rng, split) for k, split in enumerate(splits)]
    return list(itertools.chain(*drawn))


def new_name(config: RunConfig) -> str:
    """Return the name of a run that is not given one: agent, family, seed and time."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"{config.agent_name}_{config.family_name}_{config.training.seed}_{stamp}"


def new_run_dir(config: RunConfig, runs_dir: Path, name: str | None = None) -> Path:
    """Make the folder of a new run, and return it. UsageError if a folder of the given name exists."""
    if name is None:
        return fresh_folder(runs_dir / new_name(config), "--runs-dir")
    directory = runs_dir / name
    try:
        make_folder(directory, "--runs-dir", exist_ok=False)
    except FileExistsError:
        remedy = f"; resume it with metarl train --resume {typed(directory)}, or choose another --name"
        if (what := held(directory)) != HELD[CONFIG]:
            remedy = f" and is the folder of {what};" if what else " and is not a run; move it away, or"
            remedy += " choose another --name"
        raise UsageError(f"{directory} exists{remedy}") from None
    return directory


def start_run(
    config: RunConfig, runs_dir: Path, name: str | None = None, ranks: Ranks = ALONE, device: str | None = None
) -> Path:
    """Make the folder of a new run with its config.yaml, after a check that family and agent accept the settings.

    The files of your own robot are copied into the folder, and `read_run_config` names the copies: the run does not
    depend on the originals, and the folder can be moved. A start that fails leaves nothing behind. ranks: the processes
    that will train the run; only one of them calls this. device: device for the check, if the run will be trained on
    another machine.
    """
    if name is not None:
        require_name(name)
    for function in (*code_of(config).values(), *hooks_of(config)):
        trust(function)
    family, _ = build(config, device, ranks)
    require_startable(config, family)
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
    """Write the complete config.yaml: `metarl train --config` on it repeats the run."""
    folder = os.path.abspath(directory)

    def within(file: str) -> str:
        path = os.path.abspath(file)
        return os.path.relpath(path, folder) if path.startswith(folder + os.sep) else path

    write(directory / CONFIG, dump_yaml(map_files(config, within)).encode())


def restore(agent: Agent, family: TaskFamily, config: RunConfig, path: Path, state: Mapping[str, Any]) -> None:
    """Load an agent's state from a checkpoint; CheckpointError if it is another agent's or another family's."""
    missing = [key for key in CHECKPOINT_KEYS if key not in state]
    if missing:
        raise CheckpointError(f"checkpoint {path} lacks {', '.join(missing)}: it is not a checkpoint of a run")
    require_state(path, state)
    ours = config_to_dict(config)
    for section in ("agent", "family"):
        theirs = state["config"][section]["name"]
        if theirs != ours[section]["name"]:
            raise CheckpointError(
                f"checkpoint {path} is of the {section} {shown(theirs)}, this run of {ours[section]['name']!r}"
            )
    if config.training.reveal_task and state.get("told") != told_as(family):
        raise CheckpointError(
            f"checkpoint {path} is of an oracle (training.reveal_task) that was told the task in another form: this "
            "version tells categories one-hot and quantities scaled to their range; train it again, or use the version "
            "of metarl that wrote it"
        )
    try:
        agent.load_state_dict(state["agent"])
    except MISFITS as error:
        raise CheckpointError(f"checkpoint {path} does not fit the agent of this run: {describe(error)}") from error


def require_state(path: Path, state: Mapping[str, Any]) -> None:
    """CheckpointError unless the entries that a run resumes from have the types that it writes, and are finite."""
    fits = {
        "config": all(isinstance(_at(state["config"], section, "name"), str) for section in ("agent", "family")),
        "iteration": type(state["iteration"]) is int and 0 < state["iteration"] <= MOST,
        "env_steps": type(state["env_steps"]) is int and 0 <= state["env_steps"] < WHOLE,
        "best_return": type(state["best_return"]) is float and state["best_return"] < math.inf,
        "best_level": type(level := state.get("best_level", 0.0)) is float and 0 <= level <= 1,  # newer than others
        "tracking": isinstance(_at(state["tracking"], "wandb_id"), str | None),
        "agent": isinstance(state["agent"], dict) and is_finite(state["agent"]),
    }
    for key, fit in fits.items():
        if not fit:
            raise CheckpointError(f"checkpoint {path} is damaged: its entry {key} is not what metarl writes")


def restore_curriculum(curriculum: Curriculum, path: Path, state: Mapping[str, Any]) -> None:
    """Load a curriculum's state from a checkpoint; CheckpointError if it does not fit."""
    try:
        curriculum.load_state_dict(state["curriculum"])
    except MISFITS as error:
        raise CheckpointError(f"checkpoint {path} has no curriculum of this run: {describe(error)}") from error


def _at(data: Any, *keys: str) -> Any:
    """Return an entry of nested mappings; None if there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def load_run(
    directory: Path | str,
    checkpoint: str | Path = "last",
    device: str | None = None,
    agent_settings: Mapping[str, Any] | None = None,
) -> Run:
    """Load a run at a checkpoint: `last`, `best` or a file.

    directory: the run's folder, or its name if it is in `runs/`; UsageError names the nearest if there is none. device:
    overrides the run's. agent_settings: override the run's settings of the agent.
    """
    if isinstance(directory, Run):
        raise UsageError("this is a Run, loaded already; to load another checkpoint of it, give its directory")
    directory = run_dir(str(directory))
    config = read_run_config(directory)
    if agent_settings:
        config = dataclasses.replace(config, agent=dataclasses.replace(config.agent, **agent_settings))
    path, state = CheckpointStore(directory / CHECKPOINTS).load(checkpoint)
    family, agent = build(config, device)
    restore(agent, family, config, path, state)
    if note := unstudied(config.agent, int(state["iteration"]), "the checkpoint"):
        print(f"warning: {note}", file=sys.stderr, flush=True)
    return Run(directory, config, family, agent, int(state["iteration"]), int(state["env_steps"]))
