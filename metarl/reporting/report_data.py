"""What a report is made from: runs, their evaluations and comparisons, read from their files and checked."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from metarl.config import CONFIG, SPLIT_NAMES, RunConfig, config_to_dict, read_run_config, recorded_config
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.strict_yaml import read_file
from metarl.envs.text import shown
from metarl.errors import UsageError, describe
from metarl.evaluation.remarks import joined_notes
from metarl.evaluation.statistics import Array, Interval
from metarl.files import plain
from metarl.runs.checkpoint import CheckpointStore
from metarl.runs.entries import OF_THE_MACHINE, but_for_the_seed, trained_with
from metarl.runs.run import CHECKPOINTS
from metarl.runs.tracking import METRICS, read_record
from metarl.wording import grouped

COMPARISON = "comparison.json"
MOST_BYTES = 2**28
"""Of a comparison or an evaluation that is read."""
SPLIT_ORDER = ("held_out", "ood", "train")


@dataclass(frozen=True)
class Judged:
    """An agent that was evaluated, as a comparison or the evaluation of a run keeps it."""

    label: str
    run: str
    """Name of the run's folder."""
    returns: Array
    """[seed, shot, task], of several training seeds their mean; NaN where a task has no sound episode."""
    envs_per_task: int
    data: Mapping[str, Any]
    """All of it."""
    runs: Mapping[str, int] = field(default_factory=dict)
    """Labels of the runs of the report that it is, several if they differ in the training's seed alone, and the
    iteration at which each was evaluated."""

    @property
    def of(self) -> str:
        """The label of the first of these runs; empty: there is none."""
        return next(iter(self.runs), "")

    @property
    def plain(self) -> bool:
        """Whether it is the run as it was trained and asks to be evaluated, without settings of its own."""
        return not self.data.get("overrides")

    @property
    def key(self) -> str:
        """What tells it from all other agents of a report; of a run's own agent its label."""
        return self.of if self.of and self.plain else f"{self.data.get('folder') or self.run}: {self.label}"

    @functools.cached_property
    def members(self) -> list[Judged]:
        """It as its runs of several training seeds were judged; itself if there is one."""
        trained = self.data.get("trained") or {}

        def member(own: Mapping[str, Any]) -> Judged:
            config = {**trained, "training": {**trained["training"], "seed": own["seed"]}} if trained else {}
            returns = np.array(own["returns"], dtype=np.float64)
            return replace(self, run=own["run"], returns=returns, data={**self.data, **own, "trained": config})

        return [member(own) for own in self.data.get("runs") or ()] or [self]

    @property
    def by_seed(self) -> Array:
        """Returns [training seed, seed, shot, task]."""
        return np.stack([member.returns for member in self.members])

    @property
    def adaptations(self) -> int:
        """Rounds of adaptation."""
        return self.returns.shape[1] - 1

    @property
    def oracle(self) -> bool:
        """Whether its observations tell it the task."""
        return bool(self.data.get("oracle"))

    @property
    def iqm(self) -> list[Interval]:
        """IQM of the return after each round."""
        return self._summary("iqm")

    @property
    def gain(self) -> list[Interval]:
        """IQM of the gain after each round."""
        return self._summary("gain")

    @property
    def worst(self) -> list[Interval]:
        """Mean of the worst tasks after each round; empty in files of before it was reported."""
        return self._summary("worst")

    @property
    def rounds_to_reach(self) -> Interval | None:
        """Rounds until most of the way up is gone; an end is infinite where it may never be. None if no gain is shown,
        which older files do not heed."""
        return interval_of(self.data["summary"].get("rounds_to_reach")) if self.gain[-1].low > 0 else None

    @property
    def oracle_share(self) -> Interval | None:
        """Share of the gap to the oracle that adaptation recovers. None if the oracle's lead is not shown, which older
        files do not heed: see `share_interval`."""
        found = interval_of(self.data.get("oracle_share"))
        return found if found and math.isfinite(found.high) else None

    @property
    def gap(self) -> Interval | None:
        """Return on training tasks - return here, after the last round."""
        return interval_of((self.data.get("train_gap") or {}).get("after"))

    @property
    def flagged(self) -> bool:
        """Whether the interval of that gap excludes 0."""
        return bool((self.data.get("train_gap") or {}).get("flagged"))

    @property
    def recovered(self) -> tuple[Interval, Interval | None] | None:
        """Share of tasks that recover after a change, and the steps it takes, where enough do."""
        found = self.data.get("recovered") or {}
        share, steps = interval_of(found.get("share")), interval_of(found.get("steps"))
        return (share, steps) if share else None

    def measured(self, name: str) -> list[Interval | None]:
        """Mean of a measure after each round."""
        return [interval_of(shot) for shot in (self.data.get("measured") or {}).get(name, [])]

    def _summary(self, name: str) -> list[Interval]:
        return [found for shot in self.data["summary"].get(name, []) if (found := interval_of(shot)) is not None]


@dataclass(frozen=True)
class Judgement:
    """Agents on the same tasks with the same seeds."""

    family: str
    split: str
    settings: Mapping[str, Any]
    """Of the evaluation."""
    tasks: Sequence[Sequence[Mapping[str, float]]]
    """[seed][task] parameter values by name."""
    agents: tuple[Judged, ...]
    family_settings: Mapping[str, Any]
    units: Mapping[str, str]
    """Of the measures, by name."""
    success: str | None
    improvements: Sequence[Mapping[str, Any]]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    provenance: Mapping[str, Any]
    sources: tuple[Path, ...]
    """Files that it was read from."""

    @property
    def names(self) -> list[str]:
        """The tasks' parameters."""
        return list(self.tasks[0][0])

    def values(self, name: str) -> Array:
        """A parameter's values, [seed x task]."""
        return np.array([task[name] for tasks in self.tasks for task in tasks], dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        kept = ("family", "family_settings", "split", "units", "success", "notes", "warnings", "tasks")
        return {
            **{name: getattr(self, name) for name in kept},
            "evaluation": self.settings,
            "probability_of_improvement": self.improvements,
            "agents": [_agent_dict(agent) for agent in self.agents],
            "provenance": self.provenance,
            "files": [str(path) for path in self.sources],
        }


def _agent_dict(agent: Judged) -> dict[str, Any]:
    reach, share = agent.rounds_to_reach, agent.oracle_share
    return {
        **agent.data,
        "label": agent.label,
        "report_runs": list(agent.runs),
        "summary": {**agent.data["summary"], "rounds_to_reach": plain(reach and dataclasses.asdict(reach))},
        "oracle_share": plain(share and dataclasses.asdict(share)),
    }


@dataclass(frozen=True)
class ReportedRun:
    """A run as its folder has it."""

    label: str
    directory: Path
    config: RunConfig
    iteration: int
    """Of the last checkpoint."""
    env_steps: int
    tracking: Mapping[str, Any]
    """W&B's run id and step."""
    metrics: Sequence[Mapping[str, Any]]
    """One dict an iteration."""
    evaluations: Sequence[Judgement]
    """The newest of each family and split."""
    history: Sequence[Mapping[str, Any]]
    """Provenance of all its evaluations, oldest first."""
    problems: tuple[str, ...] = ()
    """Files that could not be used."""

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.directory.resolve().name

    @property
    def family(self) -> str:
        """Name of the family it was trained on; of your own robot, with its files."""
        settings = self.config.family
        files = [Path(getattr(settings, f.name)).name for f in dataclasses.fields(settings) if f.metadata.get("file")]
        return f"{self.config.family_name} ({', '.join(filter(None, files))})" if files else self.config.family_name

    @property
    def hours(self) -> float:
        """Hours of collection and updates."""
        return float(sum(seconds_of(line) for line in self.metrics)) / 3600


@dataclass
class Material:
    """All that a report is about."""

    runs: list[ReportedRun]
    judgements: list[Judgement]
    problems: list[str] = field(default_factory=list)
    """What is missing or not as a reader would expect."""


def one_agent(judgements: Sequence[Judgement]) -> dict[str, str]:
    """Label of the first run of each run that was judged as one agent with it, if the same ones were wherever they
    were judged."""
    agents = [agent for judgement in judgements for agent in judgement.agents]
    apart = {label for agent in agents if len(agent.runs) == 1 for label in agent.runs}
    groups = {frozenset(agent.runs) for agent in agents}
    together = [
        agent
        for agent in agents
        if len(agent.runs) > 1
        and not apart & agent.runs.keys()
        and not any(agent.runs.keys() & group for group in groups - {frozenset(agent.runs)})
    ]
    return {label: agent.of for agent in together for label in agent.runs}


def interval_of(data: Any) -> Interval | None:
    """An interval as JSON has it, where an infinite end is null; None if there is none."""
    if not data or data.get("estimate") is None:
        return None
    low, high = data.get("low"), data.get("high")
    return Interval(data["estimate"], -math.inf if low is None else low, math.inf if high is None else high)


def seconds_of(line: Mapping[str, Any]) -> float:
    """What an iteration took, without evaluations."""
    return (line.get("time/collect") or 0.0) + (line.get("time/update") or 0.0)


def gather(
    directories: Sequence[Path], comparison: Path | None = None, found_in: Path = Path("comparisons")
) -> Material:
    """Read the runs, and what was measured of them.

    comparison: a comparison's folder or file, or a folder of several; None takes the newest of each family and split in
    `found_in` that has all runs of a family. Of a run that is in none, the newest evaluations in its folder count.
    UsageError for what is no run, lacks a checkpoint, or cannot be read.
    """
    resolved = [directory.resolve() for directory in directories]
    for directory, path in zip(directories, resolved, strict=True):
        if resolved.count(path) > 1:
            raise UsageError(f"run {directory} is given twice")
    configs = [read_run_config(directory) for directory in directories]
    labels = [path.name for path in resolved]
    if len(set(labels)) < len(labels):
        labels = [f"{path.parent.name}/{path.name}" for path in resolved]
    if len(set(labels)) < len(labels):
        labels = [str(directory) for directory in directories]
    runs = [read_run(*job) for job in zip(labels, directories, configs, strict=True)]
    material = Material(runs, [])
    if comparison is not None:
        material.judgements = _given_comparisons(comparison, runs)
    else:
        material.judgements = _found_comparisons(found_in, runs, material.problems)
    _add_evaluations(material)
    material.judgements.sort(key=lambda j: SPLIT_ORDER.index(j.split))
    material.problems += [problem for run in runs for problem in run.problems] + list(_doubts(material))
    return material


def read_run(label: str, directory: Path, config: RunConfig) -> ReportedRun:
    """A run's folder; UsageError if it has no checkpoint."""
    _, state = CheckpointStore(directory / CHECKPOINTS).load("last")
    record = read_record(directory / METRICS, int(state["iteration"])) if (directory / METRICS).exists() else None
    metrics = [line for _, line in sorted(record.lines.items())] if record else []
    problems, history, newest = [record.amiss] if record and record.amiss else [], [], {}
    for path in sorted((directory / "evaluation").glob("*.json")):
        try:
            judgement = evaluation_of(read_json(path), path, label)
        except UsageError as error:
            problems.append(f"{error}; it is left out")
            continue
        history.append(judgement.provenance)
        key = judgement.family, judgement.split
        if key not in newest or newest[key].provenance["time"] <= judgement.provenance["time"]:
            newest[key] = judgement
    history.sort(key=lambda record: record["time"])
    return ReportedRun(
        label,
        directory,
        config,
        int(state["iteration"]),
        int(state["env_steps"]),
        state.get("tracking") or {},
        metrics,
        list(newest.values()),
        history,
        tuple(problems),
    )


def read_json(path: Path) -> Any:
    """A JSON file; UsageError if it cannot be read."""
    try:
        return json.loads(read_file(path, MOST_BYTES))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {describe(_unnamed(error))}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {path}: it is no valid JSON ({describe(error)[:80]})") from error


def _unnamed(error: OSError) -> OSError:
    """The error without the file's name, which is already said."""
    error.filename = None
    return error


def evaluation_of(data: Any, path: Path, label: str) -> Judgement:
    """The evaluation of a run, as metarl/reporting/tables.py saves it; UsageError if the file holds something else."""
    with _checked(path, "an evaluation"):
        agent = judged_of({**data, "label": label}, data["evaluation"]["envs_per_task"], data["tasks"])
        config = _mapping(data["provenance"].get("config", {}))
        return Judgement(
            data["family"],
            _split(data["evaluation"]["split"]),
            data["evaluation"],
            data["tasks"],
            (replace(agent, runs={label: int(data["iteration"])}),),
            _mapping(config.get("family", {"name": str(data["family"])})),
            data.get("units") or {},
            data.get("success"),
            [],
            tuple(map(str, data["notes"])),
            tuple(map(str, data["warnings"])),
            {"time": "", **data["provenance"]},
            (path,),
        )


def comparison_of(data: Any, path: Path) -> Judgement:
    """A comparison, as metarl/reporting/comparison_tables.py saves it; UsageError if the file holds something else."""
    with _checked(path, "a comparison"):
        settings, tasks = data["evaluation"], data["tasks"]
        agents = tuple(judged_of(a, a.get("envs_per_task", settings["envs_per_task"]), tasks) for a in data["agents"])
        if not agents:
            raise ValueError("no agents")
        return Judgement(
            data["family"],
            _split(data["split"]),
            settings,
            tasks,
            agents,
            _mapping(data["family_settings"]),
            data.get("units") or {},
            data.get("success"),
            data.get("probability_of_improvement") or [],
            tuple(map(str, data["notes"])),
            tuple(map(str, data["warnings"])),
            {"time": "", **data["provenance"]},
            (path,),
        )


def _split(name: str) -> str:
    if name not in SPLIT_NAMES:
        raise ValueError(f"unknown split {name!r}")
    return name


def judged_of(data: Mapping[str, Any], envs_per_task: int, tasks: Sequence[Sequence[Any]]) -> Judged:
    """An agent of an evaluation or a comparison; KeyError, TypeError or ValueError if it is none."""
    _require_shapes(data)
    returns = np.array(data["returns"], dtype=np.float64)
    if returns.ndim != 3 or (returns.shape[0], returns.shape[2]) != (len(tasks), len(tasks[0])):
        raise ValueError(f"returns of shape {returns.shape} for {len(tasks)} x {len(tasks[0])} tasks")
    judged = Judged(str(data["label"]), str(data["run"]), returns, int(envs_per_task), data)
    if len(judged.iqm) != returns.shape[1] or len(judged.gain) != returns.shape[1]:
        raise ValueError("a summary of another number of rounds")
    for member in judged.members:
        if member.returns.shape != returns.shape or len(member.iqm) != returns.shape[1]:
            raise ValueError("a run of an agent with other rounds or tasks than the agent")
        for key in ("iteration", "env_steps"):
            int(member.data[key])
    return judged


MAPPINGS = (
    "summary",
    "measured",
    "units",
    "train_gap",
    "recovered",
    "evaluation",
    "provenance",
    "trained",
    "oracle_share",
)
LISTS = ("tasks", "notes", "warnings", "runs")
"""What is a mapping, and what a list, in an evaluation and in an agent of a comparison, where it is there."""


def _require_shapes(data: Mapping[str, Any]) -> None:
    """TypeError unless what is read later from an evaluation, or an agent of a comparison, is what it is taken for."""
    for names, kind in ((MAPPINGS, dict), (LISTS, list)):
        for name in names:
            if not isinstance(data.get(name), kind | None):
                raise TypeError(f"{name} is {shown(data[name])}")
    recovered, gap = data.get("recovered") or {}, data.get("train_gap") or {}
    found = [
        *recovered.values(),
        data.get("oracle_share"),
        gap.get("after"),
        (data.get("summary") or {}).get("rounds_to_reach"),
    ]
    for shots in (data.get("measured") or {}).values():
        found += shots if isinstance(shots, list) else [shots]
    for interval in found:
        if interval is not None and "estimate" not in interval:
            raise TypeError(f"an interval is {shown(interval)}")
    _require_numbers(data)


def _mapping(value: Any) -> dict[str, Any]:
    """The value, which is a mapping; TypeError if it is none."""
    if not isinstance(value, dict):
        raise TypeError(f"settings are {shown(value)}")
    return value


def _require_numbers(data: Any) -> None:
    """TypeError unless what an interval is made of are numbers, wherever one is in the data."""
    if isinstance(data, dict) and "estimate" in data:
        numbers = [data["estimate"], data.get("low"), data.get("high")]
        if not all(number is None or type(number) in (int, float) for number in numbers):
            raise TypeError(f"an interval of {shown(numbers)}")
    for part in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        _require_numbers(part)


class _checked:  # noqa: N801 (used like contextlib's)
    """Turns what a file of another content raises into UsageError."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, KeyError):
            raise UsageError(f"{self.path} is not {self.kind} of metarl: it has no {error.args[0]!r}") from error
        if isinstance(error, TypeError | ValueError | IndexError | AttributeError | OverflowError) and not isinstance(
            error, UsageError
        ):
            raise UsageError(f"{self.path} is not {self.kind} of metarl: {describe(error)[:100]}") from error


def _comparison_files(folder: Path) -> list[Path]:
    """The comparison in a folder, or those in its folders."""
    own = folder / COMPARISON
    return [own] if own.exists() else sorted(folder.glob(f"*/{COMPARISON}"))


def _given_comparisons(given: Path, runs: Sequence[ReportedRun]) -> list[Judgement]:
    files = [given] if given.is_file() else _comparison_files(given)
    if not files:
        what = f"no {COMPARISON} in {given}" if given.is_dir() else f"no comparison {given}"
        raise UsageError(f"{what}; give the folder that metarl evaluate RUN RUN... wrote")
    judgements = [assigned(comparison_of(read_json(path), path), runs) for path in files]
    names = {run.name for run in runs}
    for judgement, path in zip(judgements, files, strict=True):
        if not any(agent.runs for agent in judgement.agents):
            theirs = {str(a.data.get("folder") or a.run) if a.run in names else a.run for a in judgement.agents}
            raise UsageError(f"comparison {path} has none of the runs given; it is of {', '.join(sorted(theirs))}")
    return judgements


def assigned(judgement: Judgement, runs: Sequence[ReportedRun]) -> Judgement:
    """A comparison whose agents know which runs of the report they are."""

    def found(agent: Judged) -> dict[str, int]:
        own = [(_run_of(member, runs), int(member.data["iteration"])) for member in agent.members]
        return {run.label: iteration for run, iteration in own if run is not None}

    return replace(judgement, agents=tuple(replace(agent, runs=found(agent)) for agent in judgement.agents))


def _run_of(agent: Judged, runs: Sequence[ReportedRun]) -> ReportedRun | None:
    """The run that an agent of a comparison is: by its folder, or, where that is gone, by what it was trained with.

    Files of before folders were kept have the name of the folder alone. None if there is no such run, or if it cannot
    be told which.
    """
    if folder := agent.data.get("folder"):
        here = [run for run in runs if run.directory.resolve() == Path(folder)]
        if here or (Path(folder) / CONFIG).exists():
            return here[0] if here else None
        found = [run for run in runs if _trained_alike(agent, run)]
        named = [run for run in found if run.name == agent.run]
    else:
        found = [run for run in runs if run.name == agent.run]
        named = [run for run in found if agent.label.startswith(f"{run.directory.resolve().parent.name}/{run.name}")]
    candidates = found if len(found) == 1 else named
    return candidates[0] if len(candidates) == 1 else None


def _trained_alike(agent: Judged, run: ReportedRun) -> bool:
    """Whether a run has the configuration of an agent, in all settings that both know, and has trained as long."""
    theirs, ours = agent.data.get("trained") or {}, trained_with(run.config)
    if not theirs or int(agent.data["iteration"]) > run.iteration:
        return False
    return all(
        ours[section].get(name, value) == value
        for section, settings in theirs.items()
        for name, value in settings.items()
        if name == "seed" or name not in OF_THE_MACHINE
    )


def _found_comparisons(folder: Path, runs: Sequence[ReportedRun], problems: list[str]) -> list[Judgement]:
    """The newest comparison of each family and split that has all the runs of a family."""
    newest: dict[tuple[str, str], Judgement] = {}
    for path in _comparison_files(folder) if len(runs) > 1 else []:
        try:
            judgement = assigned(comparison_of(read_json(path), path), runs)
        except UsageError as error:
            problems.append(f"{error}; it is left out")
            continue
        key = judgement.family, judgement.split
        newer = key not in newest or newest[key].provenance["time"] <= judgement.provenance["time"]
        ours = [agent for agent in judgement.agents if agent.runs]
        own = [run for run in runs if any(run.label in agent.runs for agent in ours)]
        if any(len(agent.runs) < len(agent.members) for agent in ours):
            continue  # its numbers are of further runs
        families = {run.family for run in own}
        if newer and len(own) > 1 and own == [run for run in runs if run.family in families]:
            newest[key] = judgement
    return list(newest.values())


def _add_evaluations(material: Material) -> None:
    """The runs' own evaluations where no comparison has them; those on the same tasks side by side."""
    covered = {(j.family, j.split, label) for j in material.judgements for agent in j.agents for label in agent.runs}
    alike: dict[str, list[Judgement]] = {}
    for run in material.runs:
        for own in run.evaluations:
            if (own.family, own.split, run.label) in covered:
                continue
            disturbed = {k: own.settings.get(k) for k in ("seeds", "observation_noise", "reward_scale")}
            key = json.dumps([own.family, own.split, own.tasks, disturbed], sort_keys=True)
            alike.setdefault(key, []).append(own)
    material.judgements += [_side_by_side(group) for group in alike.values()]


def _side_by_side(group: Sequence[Judgement]) -> Judgement:
    agents = [(j.agents[0].label, bool(j.settings.get("explore")), j.notes) for j in group]
    return replace(
        group[0],
        agents=tuple(j.agents[0] for j in group),
        units={name: unit for j in group for name, unit in j.units.items()},
        notes=tuple(joined_notes(agents)),
        warnings=tuple(grouped([(j.agents[0].label, text) for j in group for text in j.warnings], len(group))),
        sources=tuple(path for j in group for path in j.sources),
    )


def _doubts(material: Material) -> Iterator[str]:
    """What a reader would otherwise take for granted."""
    runs, judgements = material.runs, material.judgements
    for run in runs:
        found = [agent.runs[run.label] for j in judgements for agent in j.agents if run.label in agent.runs]
        if not found:
            yield (
                f"{run.label} has no evaluation, so nothing is said about it on tasks that it never saw; make one: "
                f"metarl evaluate {run.directory}"
            )
        for iteration in sorted({*found} - {run.iteration}):
            meaning = (
                "the numbers are of the earlier one, the films of the later"
                if iteration < run.iteration
                else "the run in this folder is not the one that was evaluated"
            )
            yield (
                f"{run.label} was evaluated at iteration {iteration}, its last checkpoint is of iteration "
                f"{run.iteration}: {meaning}"
            )
    for judgement in judgements:
        strangers = [f"{a.label} ({a.data.get('folder') or a.run})" for a in judgement.agents if not a.runs]
        strangers += [
            f"{len(a.members) - len(a.runs)} of the {len(a.members)} runs of {a.label}"
            for a in judgement.agents
            if 0 < len(a.runs) < len(a.members)
        ]
        if strangers:
            yield (
                f"{', '.join(map(str, judgement.sources))} also has agents whose runs are not in this report; they are "
                f"in its tables and figures alone: {', '.join(strangers)}"
            )
    families = {run.family for run in runs}
    if len(families) > 1:
        yield (
            f"the runs were trained on different families ({', '.join(sorted(families))}): returns of different "
            "families are not comparable, and each family has its own tables and figures"
        )
    apart = [(j.family, j.split) for j in judgements]
    for family, split in dict.fromkeys(apart):
        own = [j for j in judgements if (j.family, j.split) == (family, split)]
        if len(own) > 1:
            whose = "; ".join(", ".join(agent.label for agent in j.agents) for j in own)
            yield (
                f"agents met different {SPLIT_NAMES[split]} tasks of {family}, or were disturbed in other ways "
                f"({whose}): they are in tables of their own; metarl evaluate RUN RUN... puts them on the same tasks"
            )
    if any(len(agent.members) > 1 for judgement in judgements for agent in judgement.agents):
        return
    if one_by_one := [run.label for run in runs if len(_seeds_alike(run, runs)) > 1]:
        yield (
            f"{', '.join(one_by_one)}: training seeds of the same agent are shown one by one, each with intervals over "
            "tasks alone; metarl evaluate RUN RUN... puts them together"
        )
    else:
        yield (
            "one training seed an agent: intervals are over tasks, and do not say how much another training seed would "
            "change"
        )


def _seeds_alike(run: ReportedRun, runs: Sequence[ReportedRun]) -> set[int]:
    """Training seeds of the runs that differ from a run in the seed alone."""
    own = but_for_the_seed(run.config)
    return {other.config.training.seed for other in runs if but_for_the_seed(other.config) == own}


def family_of(judgement: Judgement, runs: Sequence[ReportedRun]) -> TaskFamily | None:
    """The family whose tasks they are; None if it can no longer be made, for one because its files are gone."""
    for run in runs:
        if config_to_dict(run.config)["family"] == judgement.family_settings:
            return _made(run.config)
    try:
        return _made(recorded_config({"family": dict(judgement.family_settings)}))
    except UsageError:
        return None


def _made(config: RunConfig) -> TaskFamily | None:
    try:
        return make_family(config.family)
    except (ValueError, OSError):
        return None


def config_differences(runs: Sequence[ReportedRun]) -> dict[str, list[Any]]:
    """Settings that are not the same in all runs, by dotted name: one value a run, None where a run has no such one."""
    flat = [
        {
            f"{section}.{name}": value
            for section, settings in config_to_dict(run.config).items()
            for name, value in settings.items()
        }
        for run in runs
    ]
    names = dict.fromkeys(name for settings in flat for name in settings)
    return {
        name: [settings.get(name) for settings in flat]
        for name in names
        if any(settings.get(name) != flat[0].get(name) or (name in settings) != (name in flat[0]) for settings in flat)
    }
