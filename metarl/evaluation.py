"""Evaluation: held-out tasks, one seed list, return after 0..K rounds of adaptation and the gain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from metarl import tables
from metarl.agents.agent import Agent
from metarl.config import EvaluationSettings, RunConfig, config_from_dict, config_to_dict
from metarl.envs.family import Task, TaskFamily
from metarl.envs.sharded import ShardedEnv
from metarl.errors import RunError, usage_errors
from metarl.provenance import provenance
from metarl.run import Run, load_run
from metarl.statistics import Array, Interval, Summary, summarise
from metarl.trial import run_trial, stream, streams


@dataclass(frozen=True)
class Source:
    """Where the evaluated agent comes from."""

    run: str
    """Name of the run."""
    iteration: int
    """Of the checkpoint."""
    env_steps: int
    """Env steps of training up to the checkpoint."""
    provenance: dict[str, Any]
    """Configuration, command, commit, package versions, machine."""


@dataclass(frozen=True)
class EvaluationResult:
    """Returns of an agent on tasks of a family, and what is said about them."""

    family: TaskFamily
    settings: EvaluationSettings
    tasks: list[list[Task]]
    """[seed][task]"""
    returns: Array
    """[seed, shot, task], mean over the task's sound episodes; NaN where it has none."""
    faults: int
    """Episodes left out because MuJoCo flagged the simulation."""
    summary: Summary
    source: Source | None = None
    """None if the agent is of no run."""
    figures: Mapping[str, Path] = field(default_factory=dict)
    """PNG files that were drawn, by name."""

    @property
    def notes(self) -> list[str]:
        """What a reader must know to compare the numbers."""
        notes = [
            f"{self.summary.tasks_counted} tasks, {self.settings.envs_per_task} episodes a task and round; "
            "IQM: mean of the middle half of the tasks; ±: standard deviation between tasks; [ ]: 95 % bootstrap "
            "interval over tasks, stratified by seed, of this one trained agent"
        ]
        if self.settings.split == "ood":
            notes.append("these are tasks outside the range of training")
        elif not self.family.disjoint_splits:
            notes.append(
                f"{self.family.name} has finitely many tasks: held-out tasks are the training tasks, as in the "
                "published protocol"
            )
        elif self.settings.split == "train":
            notes.append("these are tasks of the training split")
        if self.faults:
            notes.append(
                f"{self.faults} episodes are left out because MuJoCo flagged their simulation; "
                f"{self.summary.tasks_left_out} tasks are left out because a round had no sound episode"
            )
        return notes

    @property
    def scalars(self) -> dict[str, float]:
        """Return after each number of rounds and the last gain, by the name of the metric."""
        returns = {f"evaluation/return_{k}": interval.estimate for k, interval in enumerate(self.summary.iqm)}
        return {**returns, "evaluation/gain": self.summary.gain[-1].estimate}

    @property
    def warnings(self) -> list[str]:
        """Plain sentences about a gain that is not shown, and what to look at."""
        if self.settings.adaptations == 0:
            return []
        return gain_warnings(self.summary.gain[-1], self.settings.adaptations)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; NaN is None."""
        return {
            **(vars(self.source) if self.source else {}),
            "family": self.family.name,
            "evaluation": asdict(self.settings),
            "faults": self.faults,
            "notes": self.notes,
            "warnings": self.warnings,
            "summary": self.summary.to_dict(),
            "tasks": [[dict(task.values) for task in tasks] for tasks in self.tasks],
            "returns": [[[None if np.isnan(r) else float(r) for r in shot] for shot in seed] for seed in self.returns],
        }


def gain_warnings(gain: Interval, rounds: int) -> list[str]:
    """A warning if the interval of the gain after so many rounds does not lie above 0."""
    if gain.low > 0:
        return []
    found = (
        f"the gain after {rounds} round{'s' * (rounds != 1)} of adaptation is {gain.estimate:.4g} "
        f"[{gain.low:.4g}, {gain.high:.4g}]"
    )
    if gain.high < 0:
        return [
            f"{found}, below 0: adaptation makes this agent worse. Look at the return after each round: if it falls "
            "from the first on, make the agent's adaptation steps smaller or train longer"
        ]
    return [
        f"{found}, which includes 0: these tasks do not show that adaptation helps. Look at return/before and "
        "return/after in the learning curve: where the two still part, train longer; where they lie on each other, "
        "the agent makes no use of what it sees. More tasks or seeds narrow the interval"
    ]


def evaluate_agent(
    agent: Agent,
    family: TaskFamily,
    settings: EvaluationSettings,
    threads: int = 0,
    progress: Callable[[str], None] | None = None,
) -> EvaluationResult:
    """Run the agent on `settings.tasks` tasks of the split for each evaluation seed.

    The tasks, starts and action noise follow from the evaluation seeds alone: every agent and every checkpoint meets
    the same ones. threads: of the simulation; 0 takes all cores. progress: called with a line a seed.
    """
    RunConfig(evaluation=settings).validate()
    with usage_errors("evaluation.split"):
        family.require_split(settings.split)
    env = ShardedEnv(family, settings.tasks, settings.envs_per_task, threads)
    tasks, returns, faults = [], [], 0
    for done, seed in enumerate(settings.seeds):
        if progress:
            progress(f"evaluating seed {seed} ({done + 1} of {len(settings.seeds)})")
        drawn = family.sample(settings.tasks, stream(seed, "evaluation/tasks"), settings.split)
        env.set_tasks(drawn)
        rngs = streams(seed, "evaluation/episodes", 0, settings.tasks)
        trial = run_trial(env, agent, rngs, settings.adaptations, settings.explore).trial
        episodes = np.stack([rollout.episode_returns().cpu().numpy() for rollout in trial.rollouts])  # [K, M, N]
        tasks.append(drawn)
        returns.append(mean_of_sound(episodes))
        faults += int(np.isnan(episodes).sum())
    stacked = np.stack(returns)  # [S, K, M]
    try:
        summary = summarise(stacked, settings.bootstrap_samples, stream(settings.seeds[0], "evaluation/bootstrap"))
    except ValueError as error:  # too few tasks without a fault: the settings were checked above
        raise RunError(f"no evaluation: {error}") from error
    return EvaluationResult(family, settings, tasks, stacked, faults, summary)


def evaluate(
    run: Run | Path | str,
    settings: EvaluationSettings | None = None,
    checkpoint: str | Path = "last",
    device: str | None = None,
    threads: int | None = None,
    **overrides: Any,
) -> EvaluationResult:
    """Evaluate a run's agent, print the table, and save JSON and figures in the run's folder.

    run: what `metarl.load` returned, or a run's folder, of which checkpoint and device are as `metarl.load` takes them.
    settings, threads: None takes the run's own. overrides: single fields of the settings. UsageError for a field or
    value that is none.
    """
    loaded = run if isinstance(run, Run) else load_run(Path(run), checkpoint, device)
    data = config_to_dict(loaded.config if settings is None else replace(loaded.config, evaluation=settings))
    data["evaluation"] |= overrides
    config = config_from_dict(data)
    threads = config.training.threads if threads is None else threads
    result = evaluate_agent(loaded.agent, loaded.family, config.evaluation, threads, _say)
    directory = loaded.directory.resolve()
    result = replace(result, source=Source(directory.name, loaded.iteration, loaded.env_steps, provenance(config)))
    tables.show(result)
    return replace(result, figures=tables.save_all(result, directory))


def _say(line: str) -> None:
    print(line, flush=True)


def mean_of_sound(episodes: Array) -> Array:
    """Mean along the last axis over what is not NaN; NaN where nothing is left."""
    sound = ~np.isnan(episodes)
    count = sound.sum(axis=-1)
    total = np.where(sound, episodes, 0.0).sum(axis=-1, dtype=np.float64)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
