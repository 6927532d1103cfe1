"""Evaluation: held-out tasks, one seed list, return and measures after 0..K rounds of adaptation, and the gain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from metarl.agents.agent import Agent
from metarl.config import EvaluationSettings, RunConfig
from metarl.envs.family import TaskFamily
from metarl.envs.task import Task
from metarl.errors import RunError, usage_errors
from metarl.evaluation.outcomes import OnTrial, TrialOutcome, exploring, run_trials
from metarl.evaluation.simulator_shift import SimulatorShift
from metarl.evaluation.statistics import (
    SHARE,
    UNBOUNDED,
    Array,
    Interval,
    Summary,
    difference_interval,
    interquartile_mean,
    mean,
    summarise,
    task_interval,
)
from metarl.files import plain
from metarl.provenance import provenance
from metarl.runs.run import Run, distinct_tasks
from metarl.runs.trial import stream
from metarl.wording import number_of

SHARES = ("success", "falls", "goal_reached")
"""Measures that are shown in per cent."""


@dataclass(frozen=True)
class Source:
    """Where the evaluated agent comes from."""

    run: str
    """Name of the run."""
    iteration: int
    """Of the checkpoint."""
    env_steps: int
    """Env steps of training up to the checkpoint."""
    trained_rounds: int
    """Rounds of adaptation in a trial of its training."""
    provenance: dict[str, Any]
    """Configuration, command, commit, package versions, machine."""


@dataclass(frozen=True)
class TrainGap:
    """How much better an agent does on tasks of its training; the two sets of tasks are independent of each other."""

    returns: Array
    """[seed, shot, task] on the training tasks."""
    train: Interval
    """IQM of the return on the training tasks after the last round."""
    before: Interval
    """IQM on the training tasks - IQM on those evaluated, before adaptation."""
    after: Interval
    """The same after the last round."""
    own: bool
    """Whether the tasks evaluated are held-out tasks of the very family that the agent was trained on."""

    @property
    def flagged(self) -> bool:
        """Whether the interval after the last round excludes 0."""
        return not self.after.includes(0.0)

    @property
    def warnings(self) -> list[str]:
        """What a gap to held-out tasks means, and what to do."""
        if not (self.own and self.flagged):
            return []
        low, high = sorted((abs(self.after.low), abs(self.after.high)))
        gap = f"{abs(self.after.estimate):.4g} [{low:.4g}, {high:.4g}]"
        if self.after.low > 0:
            return [
                f"the return on training tasks is higher by {gap}: the agent remembers tasks rather than adapts to "
                "them. Train on more tasks or on wider ranges"
            ]
        return [
            f"the return on training tasks is lower by {gap}: the held-out tasks are easier, so their return says "
            "little about generalisation"
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; NaN is None."""
        return plain(asdict(self) | {"flagged": self.flagged})


@dataclass(frozen=True)
class EvaluationResult:
    """Returns of an agent on tasks of a family, and what is said about them.

    Arrays are means over the agents where several were trained alike with different seeds: see `pooled`.
    """

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
    measures: Mapping[str, Array] = field(default_factory=dict)
    """[seed, shot, task] by name, as `returns`."""
    measured: Mapping[str, list[Interval | None]] = field(default_factory=dict)
    """Mean of each measure over tasks, one a shot; None where fewer than two tasks of a seed have a value."""
    recovery: Array | None = None
    """See `TrialOutcome`."""
    adapts: bool = True
    """Whether the agent makes anything of a shot."""
    recovered: tuple[Interval, Interval | None] | None = None
    """Share of the tasks in which the reward was back after every change, and the IQM of the steps that this took."""
    train_gap: TrainGap | None = None
    """None if it was not asked for, or if the tasks are those of training."""
    shift: SimulatorShift | None = None
    """Of the simulator, from that of training; None where it is the same."""
    overflows: int = 0
    """Simulation steps of single robots in which contacts were left out for want of room."""
    trained_agents: int = 1
    """How many agents it is of, which were trained alike with different seeds."""

    @property
    def notes(self) -> list[str]:
        """What a reader must know to compare the numbers."""
        tasks, episodes = self.summary.tasks_counted, self.settings.envs_per_task
        agents = self.trained_agents
        whose = (
            "of this one trained agent"
            if agents == 1
            else f"and over {agents} training seeds (Student's t), of the mean of the agents trained with them; "
            "probabilities and shares on which few training seeds agree are less certain than their intervals say"
        )
        notes = [
            f"{number_of(tasks, 'task')}, {number_of(episodes, 'episode')} a task and round; "
            "IQM: mean of the middle half of the tasks; ±: standard deviation between tasks; [ ]: 95 % bootstrap "
            f"interval over tasks, stratified by seed, {whose}"
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
        settings = self.settings
        if settings.observation_noise:
            notes.append(
                f"observed with noise: {settings.observation_noise:g} standard deviations of each element under random "
                "actions"
            )
        if settings.reward_scale != 1:
            notes.append(
                f"the agent was shown {settings.reward_scale:g} times the reward; the returns are the true ones"
            )
        if self.source and self.adapts and settings.adaptations > self.source.trained_rounds:
            trained, rounds = self.source.trained_rounds, settings.adaptations
            notes.append(
                f"{number_of(rounds, 'round')} of adaptation {'are' if rounds > 1 else 'is'} more than the {trained} "
                "that the agent was trained for"
            )
        if self.shift:
            notes.append(self.shift.note)
        if self.overflows:
            notes.append(
                f"in {number_of(self.overflows, 'simulation step')} of single robots the gpu simulator had no room for "
                "a contact and left it out"
            )
        if self.faults:
            notes.append(
                f"left out because MuJoCo flagged their simulation: {number_of(self.faults, 'episode')}; because a "
                f"round had no sound episode: {number_of(self.summary.tasks_left_out, 'task')}"
            )
        return notes

    @property
    def scalars(self) -> dict[str, float]:
        """Return after each number of rounds and the last gain, by the name of the metric."""
        returns = {f"evaluation/return_{k}": interval.estimate for k, interval in enumerate(self.summary.iqm)}
        measured = {f"evaluation/{name}": shots[-1] for name, shots in self.measured.items()}
        return {
            **returns,
            "evaluation/gain": self.summary.gain[-1].estimate,
            **{name: interval.estimate for name, interval in measured.items() if interval is not None},
        }

    @property
    def warnings(self) -> list[str]:
        """Plain sentences about a gain that is not shown, and what to look at."""
        gap = self.train_gap.warnings if self.train_gap else []
        if self.settings.adaptations == 0 or not self.adapts:
            return gap
        return gain_warnings(self.summary.gain[-1], self.settings.adaptations) + gap

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
            "measured": {name: plain([i and asdict(i) for i in shots]) for name, shots in self.measured.items()},
            "units": self.family.measure_units,
            "success": self.family.success_text(),
            "recovered": self.recovered
            and {name: i and asdict(i) for name, i in zip(("share", "steps"), self.recovered, strict=True)},
            "train_gap": self.train_gap and self.train_gap.to_dict(),
            "simulator_shift": self.shift and self.shift.to_dict(),
            "overflows": self.overflows,
            "tasks": [[dict(task.values) for task in tasks] for tasks in self.tasks],
            "returns": plain(self.returns),
            "measures": plain(dict(self.measures)),
            "recovery": plain(self.recovery),
        }


def gain_warnings(gain: Interval, rounds: int) -> list[str]:
    """A warning if the interval of the gain after so many rounds does not lie above 0."""
    if gain.low > 0:
        return []
    found = (
        f"the gain after {number_of(rounds, 'round')} of adaptation is {gain.estimate:.4g} "
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
    tasks: list[list[Task]] | None = None,
    on_trial: OnTrial | None = None,
) -> EvaluationResult:
    """Run the agent on `settings.tasks` tasks of the split for each evaluation seed.

    The tasks, the starts and the noise follow from the evaluation seeds alone: every agent and every checkpoint meets
    the same ones, whether it acts with noise or without. An agent that adapts by a policy gradient acts with its noise
    whatever the settings say. threads: of the simulation; 0 takes all cores. progress: called with a line a seed.
    tasks: other than those drawn from the split, as many. on_trial: see `run_trials`.
    """
    RunConfig(evaluation=settings).validate()
    settings = exploring(agent, settings)
    drawn = draw_tasks(family, settings) if tasks is None else tasks
    outcome = run_trials(agent, family, drawn, settings, threads, progress=progress, on_trial=on_trial)
    return _result(family, settings, drawn, [outcome], agent.facts.adapts)


def pooled(results: Sequence[EvaluationResult]) -> EvaluationResult:
    """The result of agents that were trained alike with different seeds, of their results on the same tasks.

    A number is the mean over the agents, its interval is over tasks and training seeds (`seed_deviations`); the rounds
    to reach a level are those of the mean curve, the steps to recover are of the tasks on which all agents do. Faults
    are added up, the source is the first one's.
    """
    first = results[0]
    whole = _result(first.family, first.settings, first.tasks, results, first.adapts)
    gaps = [result.train_gap for result in results]
    found = [gap for gap in gaps if gap is not None]
    if len(found) == len(gaps):
        trained, here = np.stack([gap.returns for gap in found]), np.stack([result.returns for result in results])
        whole = replace(whole, train_gap=_train_gap(trained, here, first.settings, found[0].own))
    return replace(whole, source=first.source)


def _result(
    family: TaskFamily,
    settings: EvaluationSettings,
    tasks: list[list[Task]],
    outcomes: Sequence[TrialOutcome | EvaluationResult],
    adapts: bool,
) -> EvaluationResult:
    """What is said of what one agent, or several that were trained alike, did on the tasks."""
    samples, first = settings.bootstrap_samples, settings.seeds[0]
    returns = np.stack([outcome.returns for outcome in outcomes])  # [R, S, K, M]
    measures = {name: np.stack([outcome.measures[name] for outcome in outcomes]) for name in outcomes[0].measures}
    found = [outcome.recovery for outcome in outcomes if outcome.recovery is not None]
    recovery = np.stack(found) if found else None  # [R, S, M]
    try:
        summary = summarise(returns, samples, stream(first, "evaluation/bootstrap"))
    except ValueError as error:  # too few tasks without a fault: the settings were checked before
        raise RunError(f"no evaluation: {error}") from error
    measured = {
        name: [
            task_interval(
                *(shot, mean, samples, stream(first, f"evaluation/{name}")),
                SHARE if name in SHARES else UNBOUNDED,
            )
            for shot in np.moveaxis(v, 2, 0)
        ]
        for name, v in measures.items()
    }
    return EvaluationResult(
        family,
        settings,
        tasks,
        returns.mean(axis=0),
        sum(outcome.faults for outcome in outcomes),
        summary,
        measures={name: v.mean(axis=0) for name, v in measures.items()},
        measured=measured,
        recovery=None if recovery is None else recovery.mean(axis=0),
        adapts=adapts,
        recovered=_recovered(recovery, samples, stream(first, "evaluation/recovery")),
        overflows=sum(outcome.overflows for outcome in outcomes),
        trained_agents=len(outcomes),
    )


def draw_tasks(family: TaskFamily, settings: EvaluationSettings) -> list[list[Task]]:
    """The tasks of the split, [seed][task]; UsageError if the family lacks it."""
    with usage_errors("evaluation.split"):
        family.require_split(settings.split)
    return [family.sample(settings.tasks, stream(seed, "evaluation/tasks"), settings.split) for seed in settings.seeds]


def _recovered(
    recovery: Array | None, samples: int, rng: np.random.Generator
) -> tuple[Interval, Interval | None] | None:
    if recovery is None:
        return None
    share = task_interval(np.where(np.isnan(recovery), np.nan, np.isfinite(recovery)), mean, samples, rng, SHARE)
    steps = task_interval(
        np.where(np.isfinite(recovery), recovery, np.nan), interquartile_mean, samples, rng, (0.0, np.inf)
    )
    return None if share is None else (share, steps)


def training_tasks(run: Run, settings: EvaluationSettings) -> list[list[Task]]:
    """As many tasks of the run's training as are evaluated, [seed][task], none of them by the streams of these."""
    rngs = [stream(seed, "train_gap/tasks") for seed in settings.seeds]
    if run.config.training.distinct_tasks:
        fixed = distinct_tasks(run)
        return [[fixed[i] for i in rng.integers(len(fixed), size=settings.tasks)] for rng in rngs]
    return [run.family.sample(settings.tasks, rng, "train") for rng in rngs]


def train_gap(
    run: Run, result: EvaluationResult, threads: int = 0, progress: Callable[[str], None] | None = None
) -> TrainGap | None:
    """How much better a run's agent does on as many tasks of its training; None where these are what was evaluated."""
    settings, trained_on = result.settings, run.family
    own = trained_on.settings == result.family.settings
    if own and (settings.split == "train" or (settings.split == "held_out" and not trained_on.disjoint_splits)):
        return None
    if progress:
        progress("evaluating on training tasks, for the gap")
    tasks = training_tasks(run, settings)
    returns = run_trials(run.agent, trained_on, tasks, settings, threads, "train_gap").returns
    return _train_gap(returns[None], result.returns[None], settings, own and settings.split == "held_out")


def _train_gap(trained: Array, here: Array, settings: EvaluationSettings, own: bool) -> TrainGap | None:
    """Of returns [R, S, K, M] on tasks of training and on those evaluated; None if hardly a simulation was sound."""
    samples, rng = settings.bootstrap_samples, stream(settings.seeds[0], "train_gap/bootstrap")
    train = task_interval(trained[:, :, -1], interquartile_mean, samples, rng)
    before, after = (
        difference_interval(trained[:, :, k], here[:, :, k], interquartile_mean, samples, rng) for k in (0, -1)
    )
    if train is None or before is None or after is None:
        return None
    return TrainGap(trained.mean(axis=0), train, before, after, own)


def source_of(run: Run, config: RunConfig | None = None) -> Source:
    """Where a run's agent comes from. config: with the settings of the evaluation, if they are not the run's."""
    rounds, record = run.config.training.adaptations, provenance(config or run.config)
    return Source(run.directory.resolve().name, run.iteration, run.env_steps, rounds, record)
