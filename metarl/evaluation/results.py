"""Results of an evaluation as data: returns of an agent on given tasks, their statistics and remarks on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from metarl.config import SPLIT_NAMES, EvaluationSettings, config_from_dict
from metarl.evaluation.binning import Binned
from metarl.evaluation.forgetting import Forgetting, Revisit
from metarl.evaluation.records import Record, array, listed, mapping, number, optional, texts, whole
from metarl.evaluation.statistics import Array, Interval, Summary
from metarl.evaluation.time_course import TimeCourse
from metarl.files import plain
from metarl.wording import number_of

SHARES = ("success", "falls", "goal_reached")
"""Measures that are shares of episodes, shown in per cent."""
Values = Mapping[str, float]
"""Parameter values of a task, by name."""


@dataclass(frozen=True)
class Source:
    """Checkpoint that an evaluated agent was loaded from."""

    run: str
    """Name of the run's folder."""
    iteration: int
    """Iteration of training at which it was saved."""
    env_steps: int
    """Env steps of training up to then."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Source:
        """Return the checkpoint that JSON names beside other keys."""
        return cls(str(data["run"]), whole(data["iteration"], "iteration"), whole(data["env_steps"], "env_steps"))


@dataclass(frozen=True, eq=False)
class TrainGap(Record):
    """Difference between the returns on tasks of training and on the tasks evaluated, two independent sets of tasks."""

    returns: Array
    """Returns on the training tasks, [seed, shot, task]."""
    train: Interval
    """IQM of the return on the training tasks after the last round."""
    before: Interval
    """IQM on the training tasks - IQM on the tasks evaluated, before adaptation."""
    after: Interval
    """The same difference after the last round."""
    own: bool
    """Whether the tasks evaluated are of the range and of the very family that the agent was trained on, and others."""

    @property
    def flagged(self) -> bool:
        """Whether the interval after the last round excludes 0."""
        return not self.after.includes(0.0)

    @property
    def warnings(self) -> list[str]:
        """Warning about a gap to held-out tasks that is not 0, with its meaning and what to do."""
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
            f"the return on training tasks is lower by {gap}: these tasks are easier, so their return says little "
            "about generalisation"
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, with None for NaN."""
        return plain(asdict(self) | {"flagged": self.flagged})

    @classmethod
    def from_dict(cls, data: Any) -> TrainGap:
        """Return the gap that JSON holds."""
        own = mapping(data, "train_gap")
        ends = (Interval.from_dict(own[name]) for name in ("train", "before", "after"))
        return cls(array(own["returns"], "train_gap.returns", 3), *ends, own=bool(own["own"]))


@dataclass(frozen=True)
class SimulatorShift:
    """Difference of returns between the simulator of training and the one of the evaluation, on the same tasks.

    The starts of the first round are the same on both; the agent's noise and later starts differ.
    """

    trained: str
    """Simulator of training: cpu or gpu."""
    evaluated: str
    """Simulator of the evaluation: cpu or gpu."""
    before: Interval | None
    """Return on the former - return on the latter before adaptation, mean over tasks. None if it was not measured."""
    after: Interval | None
    """The same difference after the last round."""

    @property
    def note(self) -> str:
        """One sentence on the two simulators and, if it was measured, the difference."""
        where = f"trained on the {self.trained} simulator and evaluated on the {self.evaluated} one"
        if self.before is None or self.after is None:
            return (
                f"{where}, which simulates contacts a little differently; evaluation.simulator_shift=true measures it"
            )
        parts = [
            f"{interval.estimate:+.4g} [{interval.low:.4g}, {interval.high:.4g}] {when}"
            for interval, when in ((self.before, "before adaptation"), (self.after, "after the last round"))
        ]
        return f"{where}: on the former, the return on the same tasks differs by {' and '.join(parts)}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, with None for NaN."""
        return plain(asdict(self))

    @classmethod
    def from_dict(cls, data: Any) -> SimulatorShift:
        """Return the shift that JSON holds."""
        own = mapping(data, "simulator_shift")
        before, after = (optional(own[name], Interval.from_dict) for name in ("before", "after"))
        return cls(str(own["trained"]), str(own["evaluated"]), before, after)


@dataclass(frozen=True)
class Recovered:
    """Recovery of the reward after the changes of tasks, over tasks."""

    share: Interval
    """Share of the tasks in which the reward was back after every change."""
    steps: Interval | None
    """IQM over these tasks of the control steps that it took; None if there are fewer than two of a seed."""

    @classmethod
    def from_dict(cls, data: Any) -> Recovered:
        """Return the recovery that JSON holds."""
        own = mapping(data, "recovered")
        return cls(Interval.from_dict(own["share"]), optional(own.get("steps"), Interval.from_dict))


@dataclass(frozen=True, eq=False, kw_only=True)
class AgentResult(Record):
    """Returns of one agent on given tasks, and their statistics.

    Arrays are means over the agents where several were trained alike with different seeds; see `pooled`.
    """

    returns: Array
    """[seed, shot, task] mean over the episodes of a task that MuJoCo did not flag; NaN where there are none."""
    faults: int
    """Number of episodes left out because the simulation broke down."""
    summary: Summary
    """Statistics of the returns."""
    source: Source | None = None
    """Checkpoint of the agent; None if it does not come from a run."""
    trained_rounds: int = 0
    """Rounds of adaptation in a trial of its training."""
    episodes_per_round: int = 0
    """Episodes of a task that a round of adaptation reads, see `TrialOutcome`; 0 if an older file does not say."""
    also_split: str = "none"
    """Split that its training drew tasks from beside the training split, see `training.also_split`."""
    measures: Mapping[str, Array] = field(default_factory=dict)
    """Measures of the family by name, [seed, shot, task] as `returns`."""
    measured: Mapping[str, Sequence[Interval | None]] = field(default_factory=dict)
    """Mean of each measure over tasks, one for each shot; None if no seed has two tasks with a value."""
    recovery: Array | None = None
    """[seed, task] control steps until the reward was back, see `TrialOutcome`; None if the tasks do not change."""
    recovered: Recovered | None = None
    """Statistics of `recovery`."""
    train_gap: TrainGap | None = None
    """Gap to tasks of training; None if it was not asked for, or if the tasks evaluated are those of training."""
    courses: Sequence[TimeCourse] = ()
    """Time courses over the trial, and after changes of the tasks; empty in files that were saved without them."""
    forgetting: Forgetting | None = None
    """What is lost on a task while another one is met; None unless `evaluation.revisit` asked for it."""
    binned: Sequence[Binned] = ()
    """Values of each task that the time courses are means of; not part of the saved result."""
    revisit: Revisit | None = None
    """Outcome that `forgetting` is computed from; not part of the saved result."""

    @property
    def adaptations(self) -> int:
        """Rounds of adaptation of a trial."""
        return self.returns.shape[1] - 1

    @staticmethod
    def part_of(result: AgentResult) -> AgentResult:
        """Return the part of a larger result, such as an evaluation, that is about the agent."""
        return AgentResult(**{part.name: getattr(result, part.name) for part in fields(AgentResult)})

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, with None for a number that is not finite."""
        return {
            **(
                asdict(self.source) | {"trained_rounds": self.trained_rounds, "also_split": self.also_split}
                if self.source
                else {}
            ),
            "episodes_per_round": self.episodes_per_round,
            "faults": self.faults,
            "summary": self.summary.to_dict(),
            "measured": {name: plain([i and asdict(i) for i in shots]) for name, shots in self.measured.items()},
            "recovered": plain(self.recovered and asdict(self.recovered)),
            "train_gap": self.train_gap and self.train_gap.to_dict(),
            "forgetting": self.forgetting and self.forgetting.to_dict(),
            "time_courses": [course.to_dict() for course in self.courses],
            "returns": plain(self.returns),
            "measures": plain(dict(self.measures)),
            "recovery": plain(self.recovery),
        }

    @classmethod
    def from_dict(cls, data: Any) -> AgentResult:
        """Return the result that JSON holds, beside other keys."""
        return cls(**fields_of(data))


def fields_of(data: Any) -> dict[str, Any]:
    """Return the fields of an `AgentResult` that JSON holds; older files lack some of them."""
    own = mapping(data, "a result")
    returns, summary = array(own["returns"], "returns", 3), Summary.from_dict(own["summary"])
    if len(summary.iqm) != returns.shape[1] or len(summary.gain) != returns.shape[1]:
        raise ValueError(f"returns of shape {returns.shape} and a summary of {len(summary.iqm)} shots")

    def shots(name: str, value: Any) -> list[Interval | None]:
        return listed(value, f"measured.{name}", lambda shot: optional(shot, Interval.from_dict))

    measures, measured = (mapping(own.get(name) or {}, name) for name in ("measures", "measured"))
    return {
        "returns": returns,
        "faults": whole(own["faults"], "faults"),
        "summary": summary,
        "source": Source.from_dict(own) if "run" in own else None,
        "trained_rounds": whole(own.get("trained_rounds", 0), "trained_rounds"),
        "episodes_per_round": whole(own.get("episodes_per_round", 0), "episodes_per_round"),
        "also_split": str(own.get("also_split", "none")),
        "measures": {name: array(value, f"measures.{name}", 3) for name, value in measures.items()},
        "measured": {name: shots(name, value) for name, value in measured.items()},
        "recovery": optional(own.get("recovery"), lambda value: array(value, "recovery", 2)),
        "recovered": optional(own.get("recovered"), Recovered.from_dict),
        "train_gap": optional(own.get("train_gap"), TrainGap.from_dict),
        "courses": listed(own.get("time_courses") or (), "time_courses", TimeCourse.from_dict),
        "forgetting": optional(own.get("forgetting"), Forgetting.from_dict),
    }


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class EvaluationResult(AgentResult):
    """Evaluation of one agent: the tasks, the settings, the result and remarks on it."""

    family: str
    """Name of the family of the tasks."""
    settings: EvaluationSettings
    tasks: Sequence[Sequence[Values]]
    """[seed][task] parameter values."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Units of the measures, by name."""
    success: str = ""
    """Criterion of success in words; empty if the family does not define it."""
    notes: Sequence[str] = field(default_factory=list)
    """Sentences that a reader needs to compare the numbers."""
    warnings: Sequence[str] = field(default_factory=list)
    """Sentences about a gain that is not shown or a gap to training tasks, with what to look at."""
    shift: SimulatorShift | None = None
    """Shift from the simulator of training; None if the evaluation uses the same."""
    overflows: int = 0
    """Simulation steps of single robots in which contacts were left out for want of room."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Configuration, command, commit, package versions and machine; empty without a source."""
    figures: Mapping[str, Path] = field(default_factory=dict)
    """PNG files that were drawn, by name; not part of the saved result."""

    def __repr__(self) -> str:
        tasks = number_of(self.summary.tasks_counted, f"{SPLIT_NAMES[self.settings.split]} task")
        returns = ", ".join(f"{own.estimate:.4g} [{own.low:.4g}, {own.high:.4g}]" for own in self.summary.iqm)
        return f"<EvaluationResult {self.family}, {tasks}: return after each round {returns}>"

    @property
    def scalars(self) -> dict[str, float]:
        """Return after each number of rounds, the last gain and the last means of measures, by the name of a metric.

        An agent that played other lives after a fall, or whose memory was reset, has metrics of its own.
        """
        reset = self.settings.reset_memory
        prefix = "evaluation/lives" if self.settings.lives else "evaluation"
        prefix += "" if reset == "never" else f"/reset_{reset}"
        returns = {f"{prefix}/return_{k}": interval.estimate for k, interval in enumerate(self.summary.iqm)}
        measured = {f"{prefix}/{name}": shots[-1] for name, shots in self.measured.items()}
        return {
            **returns,
            f"{prefix}/gain": self.summary.gain[-1].estimate,
            **{name: interval.estimate for name, interval in measured.items() if interval is not None},
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, with None for a number that is not finite."""
        own = super().to_dict()
        long = ("time_courses", "returns", "measures", "recovery")
        arrays = {name: own.pop(name) for name in long}  # they come last
        return {
            **own,
            **({"provenance": dict(self.provenance)} if self.source else {}),
            "family": self.family,
            "evaluation": asdict(self.settings),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "units": dict(self.units),
            "success": self.success,
            "simulator_shift": self.shift and self.shift.to_dict(),
            "overflows": self.overflows,
            "tasks": [[dict(values) for values in drawn] for drawn in self.tasks],
            **arrays,
        }

    @classmethod
    def from_dict(cls, data: Any) -> EvaluationResult:
        """Return the evaluation that JSON holds."""
        own = mapping(data, "an evaluation")
        result = cls(
            **fields_of(own),
            family=str(own["family"]),
            settings=settings_of(own["evaluation"]),
            tasks=tasks_of(own["tasks"]),
            units=units_of(own),
            success=str(own.get("success") or ""),
            notes=texts(own["notes"], "notes"),
            warnings=texts(own["warnings"], "warnings"),
            shift=optional(own.get("simulator_shift"), SimulatorShift.from_dict),
            overflows=whole(own.get("overflows", 0), "overflows"),
            provenance=provenance_of(own.get("provenance", {})),
        )
        require_tasks(result, result.tasks)
        return result


def settings_of(data: Any) -> EvaluationSettings:
    """Return the settings that JSON holds; settings that an older version did not know have their defaults."""
    return config_from_dict({"evaluation": mapping(data, "evaluation")}).evaluation


def tasks_of(data: Any) -> list[list[Values]]:
    """Return [seed][task] parameter values that JSON holds."""

    def values(task: Any) -> Values:
        return {name: number(value, f"parameter {name}") for name, value in mapping(task, "a task").items()}

    tasks = listed(data, "tasks", lambda seed: listed(seed, "tasks of a seed", values))
    if not tasks or len({len(drawn) for drawn in tasks}) != 1 or not tasks[0]:
        raise ValueError("tasks: as many are needed for each seed, and at least one")
    return tasks


def units_of(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the units of measures that JSON holds; older files have none."""
    return {name: str(unit) for name, unit in mapping(data.get("units") or {}, "units").items()}


def provenance_of(data: Any) -> Mapping[str, Any]:
    """Return the provenance that JSON holds; its parts must be mappings."""
    own = mapping(data, "provenance")
    for name in ("config", "versions", "machine"):
        mapping(own.get(name, {}), f"provenance.{name}")
    mapping(own.get("config", {}).get("family", {}), "provenance.config.family")
    return own


def require_tasks(result: AgentResult, tasks: Sequence[Sequence[Values]]) -> None:
    """Raise ValueError unless the returns are of as many tasks."""
    shape = result.returns.shape
    if (shape[0], shape[2]) != (len(tasks), len(tasks[0])):
        raise ValueError(f"returns of shape {shape} for {len(tasks)} x {len(tasks[0])} tasks")
