"""The configuration of a run: frozen dataclasses, strict YAML, presets.

Nothing here imports torch or MuJoCo, so that `metarl --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import math
import os
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from metarl.agents.agent_settings import AgentSettings
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.registry import AGENTS, PAPERS, AgentEntry
from metarl.bounds import bounded, check, lacking, newer, without_effect
from metarl.envs import strict_yaml
from metarl.envs.code import digest, file_of, is_held
from metarl.envs.family_settings import FamilySettings
from metarl.envs.faults.settings import FaultSettings
from metarl.envs.foreign.settings import EnvSettings
from metarl.envs.own_robot.declared_ranges import ranges_of
from metarl.envs.own_robot.hooks import functions_in
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import FAMILIES, FamilyEntry
from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.envs.text import shown, typed
from metarl.errors import UsageError, nearest, usage_errors
from metarl.options import ENTRIES, coerce, require_mapping
from metarl.trust import trusted

if TYPE_CHECKING:
    from metarl.envs.parameters import Split

C = TypeVar("C")

PRESETS = Path(__file__).parent / "configs"
ResetMemory = Literal["never", "episode", "step"]
"""When an agent forgets what it knows of the task."""
LIVES_WORDS = {False: "", True: ", other lives after a fall"}
"""What a title says of an evaluation, by `EvaluationSettings.lives`."""
RESET_WORDS = {
    "never": "",
    "episode": ", memory reset before every episode",
    "step": ", memory reset before every action",
}
"""What a title says of an evaluation, by `ResetMemory`."""
SPLIT_NAMES = {"train": "training", "held_out": "held-out", "ood": "out-of-distribution"}
"""Name of each split, as it is written in reports."""
CONFIG = "config.yaml"
"""Name of the file in a run's folder that holds its complete configuration."""
PAIR = tuple[float, float]
"""Type of a setting that is a range."""
MOST_PROJECT, NOT_IN_PROJECT = 128, "/\\#?%:"
"""Most characters of the name of a W&B project, and characters that it cannot have."""


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of meta-training."""

    iterations: int = bounded(100, at_least=1)
    """Number of outer steps."""
    tasks: int = bounded(40, at_least=1, at_most=10**6)
    """Tasks in an iteration."""
    distinct_tasks: int = bounded(0, at_least=0)
    """Size of the fixed set of tasks, drawn by the seed, that training uses. 0: new tasks in every iteration."""
    envs_per_task: int = bounded(20, at_least=1, at_most=10**6)
    """Episodes of each task in a shot."""
    adaptations: int = bounded(1, at_least=0)
    """Adaptations in a training trial, which has one more shot. Agents that learn from single episodes, as ppo does,
    play as many where tasks change while they last, and otherwise one."""
    seed: int = bounded(1, at_least=0, at_most=math.inf)
    """Seed of all random numbers of the run."""
    threads: int = bounded(0, at_least=0, at_most=1024, changes_no_number=True)
    """Threads of the simulation and of torch. 0: all cores; beside processes that keep some busy, fewer are faster."""
    device: Literal["auto", "cpu", "cuda"] = without_effect("auto")
    """Torch device of the agent. auto: cuda if there is one."""
    matmul_precision: Literal["highest", "high", "medium"] = newer("highest", before="highest")
    """Precision of products of matrices of float32 in training. highest: float32; high: TF32 on a GPU that has it;
    medium: TF32 there, and on a CPU that multiplies bfloat16 that, summed in float32: faster for networks of 256 units
    and more. Evaluation and exported policies multiply in float32."""
    simulator: Literal["cpu", "gpu", "auto"] = "cpu"
    """Simulator: MuJoCo on the CPU, or mujoco-warp on the agent's device (pip install metarl-robotics[gpu]), in
    single precision. auto: gpu if the agent's device is a GPU and mujoco-warp is installed."""
    checkpoint_every: int = bounded(10, at_least=1, changes_no_number=True)
    """Iterations between checkpoints."""
    keep_checkpoints: int = bounded(3, at_least=1, changes_no_number=True)
    """Number of latest checkpoints to keep. The best one is always kept: that of the highest mean return after
    adaptation in training, with a curriculum of those whose tasks had the highest mean level. The checkpoint of a stop
    between two is not among them."""
    curriculum: bool = False
    """Draw easy tasks first, and harder ones as returns after adaptation rise. Needs a family with a difficulty."""
    lives: bool = False
    """After a fall, place the robot anew and go on with the episode while its time lasts; memory is kept. Without
    effect on agents that learn from single episodes, as ppo does, and on families whose episodes do not end by a
    fall."""
    reveal_task: bool = False
    """Add the task's parameters to the observation, in training and evaluation: an oracle, for comparison."""
    also_split: Literal["none", "held_out", "ood"] = "none"
    """Split that every other training task is drawn from, for an oracle alone: what can be reached on tasks that no
    other agent meets in training."""
    mirror: bool = newer(False, before=False)
    """Let training meet each task as it is or in a mirror, left for right, at even odds: what it learns of one side
    holds on the other. For robots that are their own mirror image; refused where the robot or its tasks have none.
    Evaluation meets tasks as they are."""
    evaluate_every: int = bounded(0, at_least=0, changes_no_number=True)
    """Iterations between evaluations on held-out tasks. 0: at the end only."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """Splits that training tasks are drawn from, equally often."""
        return ("train",) if self.also_split == "none" else ("train", self.also_split)


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of evaluation: adaptation to tasks of one split, which are the same for every agent."""

    tasks: int = bounded(40, at_least=2, at_most=10**6)
    """Tasks for each seed; an interval needs two."""
    envs_per_task: int = bounded(20, at_least=1, at_most=10**6)
    """Episodes of each task in a shot."""
    adaptations: int = bounded(10, at_least=0)
    """Adaptations in a trial; the return is reported before the first and after each."""
    seeds: tuple[int, ...] = bounded((1, 2, 3), at_least=0, at_most=math.inf, nonempty=True)
    """Seeds; each draws its own set of tasks."""
    split: Literal["train", "held_out", "ood"] = "held_out"
    """Tasks to draw: training tasks, tasks that training never draws (held_out), or tasks outside its range (ood)."""
    explore: bool = True
    """Sample actions from the policy instead of taking its mean. MAML needs it: it adapts from its own noise."""
    explore_to_adapt: bool = newer(False, before=False)
    """Where episodes are judged without exploration noise, adapt from others that are played with it, as in training
    and as a controller does: the agent reads data like those that it learned to read. Twice the simulation."""
    bootstrap_samples: int = bounded(2000, at_least=1)
    """Resamples of the stratified bootstrap that computes the intervals."""
    train_gap: bool = True
    """Also evaluate as many training tasks, and report how much higher their return is."""
    observation_noise: float = bounded(0.0, at_least=0)
    """Standard deviation of normal noise on observations, relative to that of each element under random actions."""
    reset_memory: ResetMemory = "never"
    """When the agent forgets what it knows of the task. never; episode: before every episode; step: before every
    action. If its return is as high as with never, it does not adapt."""
    lives: bool = False
    """After a fall, place the robot anew and go on with the episode while its time lasts, see `training.lives`. The
    return counts all lives of an episode."""
    reward_scale: float = bounded(1.0, above=0)
    """Factor on the rewards that the agent sees. Reported returns are of the true rewards."""
    simulator: Literal["cpu", "gpu", "auto"] = "cpu"
    """Simulator, see `training.simulator`. Returns of the two differ where contacts are many, as on uneven ground."""
    revisit: bool = False
    """Also play each trial on: as many shots on another of the tasks, then on the first task again, with the memory
    kept; report what the agent lost on the first task, and how quickly it regains it."""
    simulator_shift: bool = False
    """Also evaluate on the simulator of training, if it is the other one, and report how far the returns differ."""

    @property
    def explores_apart(self) -> bool:
        """Whether the agent adapts from episodes with noise that are not judged."""
        return self.explore_to_adapt and not self.explore

    @property
    def acting(self) -> dict[str, bool]:
        """What a run keeps of its own where it is judged by the settings of others, by name."""
        return {"explore": self.explore, **({"explore_to_adapt": True} if self.explore_to_adapt else {})}

    @property
    def protocol(self) -> str:
        """What a title says of how trials are played, if it is not the usual way."""
        return LIVES_WORDS[self.lives] + RESET_WORDS[self.reset_memory]


@dataclass(frozen=True)
class TrackingSettings:
    """Settings of Weights & Biases. metrics.jsonl is always written."""

    wandb: Literal["auto", "online", "offline", "disabled"] = without_effect("auto")
    """auto: online with credentials, otherwise offline."""
    project: str = without_effect("metarl")
    """W&B project."""
    entity: str = without_effect("")
    """W&B user or team. Empty: the account's default."""
    group: str = without_effect("")
    """W&B group, which joins the seeds of one experiment. Empty: none."""


@dataclass(frozen=True)
class RunConfig:
    """Complete configuration of a run."""

    agent: AgentSettings = field(default_factory=MamlSettings)
    """Settings of the agent."""
    family: FamilySettings = field(default_factory=HalfCheetahVelocitySettings)
    """Settings of the task family."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """Settings of meta-training."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """Settings of evaluation."""
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    """Settings of Weights & Biases."""

    @property
    def agent_name(self) -> str:
        """The agent's name in the registry."""
        return _name_of(self.agent, AGENTS)

    @property
    def family_name(self) -> str:
        """The family's name in the registry."""
        return _name_of(self.family, FAMILIES)

    def validate(self) -> None:
        """Raise UsageError for a setting of the wrong type or out of its bounds.

        Settings that are wrong only together are refused when the family or the agent is made.
        """
        for name, annotation in _types(self).items():
            section, setting = name.split(".")
            value = getattr(getattr(self, section), setting)
            if (meant := coerce(value, annotation, name)) != value:
                raise UsageError(f"{name} is {shown(value)}; write {shown(meant)}")
        for section in dataclasses.fields(self):
            with usage_errors(section.name):
                check(getattr(self, section.name), section.name)
        if self.training.distinct_tasks and self.training.curriculum:
            raise UsageError(
                f"training.distinct_tasks is {self.training.distinct_tasks}, but training.curriculum draws tasks "
                "of its own; set one of the two to 0 or false"
            )
        if self.training.also_split != "none" and (not self.training.reveal_task or self.training.curriculum):
            raise UsageError(
                f"training.also_split is {self.training.also_split}, which is for oracles without a curriculum: tasks "
                "to be judged on are not trained on; set training.reveal_task=true training.curriculum=false"
            )
        seeds = self.evaluation.seeds
        if len(set(seeds)) < len(seeds):
            raise UsageError(f"evaluation.seeds is {shown(list(seeds))}; give each seed once")
        project = self.tracking.project
        if not project:
            raise UsageError("tracking.project is empty; name a W&B project, or set tracking.wandb to disabled")
        if len(project) > MOST_PROJECT or set(project) & set(NOT_IN_PROJECT):
            raise UsageError(
                f"tracking.project is {shown(project)}; W&B takes at most {MOST_PROJECT} characters, and none of "
                f"{' '.join(NOT_IN_PROJECT)}"
            )


def require_faults(names: Collection[str], family: Any, typed_as: Callable[[str], str] = str) -> None:
    """UsageError for a given setting of faults, by dotted name, where the settings of the family name no fault.

    typed_as: returns a setting as its user typed it.
    """
    given = [name for name in names if name.startswith("family.fault_")]
    if given and not getattr(family, "faults", True):
        file = getattr(family, "file", "")
        stay = f"; the faults that {file} declares stay as they are there" if file else ""
        kinds = typed_as("family.faults")
        raise UsageError(f"{typed_as(given[0])} has no effect without {kinds}: name the kinds too{stay}")


def changed_faults(family: Any) -> list[str]:
    """Return the settings of faults, by dotted name, that are other than their defaults."""
    none = FaultSettings()
    names = [field.name for field in dataclasses.fields(none) if hasattr(family, field.name)]
    return [f"family.{name}" for name in names if getattr(family, name) != getattr(none, name)]


REGISTRIES: dict[str, Mapping[str, AgentEntry | FamilyEntry]] = {"agent": AGENTS, "family": FAMILIES}
"""Entries by name of the sections whose settings depend on a name."""


def settings_of(section: str, name: str) -> type:
    """Return the settings class of an agent or family; UsageError for an unknown name."""
    registry = REGISTRIES[section]
    if name not in list(registry):  # whatever YAML made of it, hashable or not
        papers = list(PAPERS) if section == "agent" else []
        if name in papers:
            own = {"name": PAPERS[name].agent, **_plain(dict(PAPERS[name].settings))}
            written = strict_yaml.to_yaml(own, flow=True).strip()
            raise UsageError(f"agent {name} is {PAPERS[name].agent} with settings of its own; write agent: {written}")
        raise UsageError(f"unknown {section} {shown(name)}{nearest(str(name), [*registry, *papers])}")
    return registry[name].settings


def preset_path(agent: str, family: str) -> Path | None:
    """Return the path of the preset for an agent on a family, or None if there is none."""
    path = PRESETS / f"{agent}_{family}.yaml"
    return path if path.is_file() else None


def is_preset(agent: str, family: str) -> bool:
    """Return whether `preset` has settings chosen for an agent on a family, and not the defaults."""
    names = [agent, *([PAPERS[agent].agent] if agent in PAPERS else [])]
    return any(preset_path(name, family) for name in names)


def preset(agent: str = "maml", family: str = "half_cheetah_velocity") -> RunConfig:
    """Return the preset for an agent on a family, or the defaults if there is no preset.

    agent: a registered one, or a name in `PAPERS`: the preset of its agent with its settings, if it has none itself.
    """
    if agent in PAPERS and preset_path(agent, family) is None:
        paper = PAPERS[agent]
        own = {f"agent.{name}": value for name, value in paper.settings.items()}
        return with_settings(preset(paper.agent, family), own)
    if agent not in PAPERS:
        settings_of("agent", agent)
    family_settings = settings_of("family", family)
    path = preset_path(agent, family)
    return RunConfig(settings_of("agent", agent)(), family_settings()) if path is None else load_config(path)


def load_config(path: Path, saved: bool = False) -> RunConfig:
    """Read a configuration from a YAML file; settings that it does not name keep their defaults.

    Relative paths in it are relative to its folder. saved: see `config_from_dict`. UsageError for an unknown key or a
    value of the wrong type.
    """
    remedy = "give a YAML file, or choose a preset by --agent and --family"
    if (path / CONFIG).is_file():
        raise UsageError(f"{path} is the folder of a run; did you mean its configuration, {path / CONFIG}?")
    data = read_yaml(path, "config file", remedy)
    try:
        config = config_from_dict({} if data is None else data, saved)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return map_files(config, lambda file: str(path.parent / file))


def read_yaml(path: Path, what: str, remedy: str) -> Any:
    """Read a YAML file, in which no key may occur twice; UsageError names the file, and the remedy if it is missing."""
    try:
        return strict_yaml.read_yaml(path)
    except FileNotFoundError:
        raise UsageError(f"no {what} {path}; {remedy}") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder, and no {what}; {remedy}") from None
    except OSError as error:
        raise UsageError(f"cannot read {what} {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} {error}") from error


def read_run_config(directory: Path) -> RunConfig:
    """Read the configuration of a run; UsageError names the nearest run if there is none of that name."""
    if not directory.is_dir():
        if directory.is_file() and (directory.parent / CONFIG).is_file():
            raise UsageError(f"{directory} is a file of the run {directory.parent}; give the run's folder")
        places = (directory.parent, Path("runs"))
        runs = sorted({p.parent.name for place in places for p in place.glob(f"*/{CONFIG}")})
        hint = nearest(directory.name, runs) if runs else f"; {directory.parent} holds no run"
        raise UsageError(f"no run folder {directory}{hint}")
    if not (directory / CONFIG).is_file():
        raise UsageError(f"{directory} is no run folder: it has no {CONFIG}")
    config = load_config(directory / CONFIG, saved=True)
    require_data(config, str(directory / CONFIG), directory)
    return config


def require_data(config: RunConfig, where: str, folder: Path | None = None) -> None:
    """Raise UsageError if the family is made by code that the user has not named, or of files outside the folder.

    No code that a run or a record of results names is run before, and a run keeps its own copy of its robot.
    """
    if isinstance(config.family, EnvSettings):
        if config.family.source and not (trusted(config.family.digest) or is_held(config.family.source)):
            raise UsageError(
                f"{where}: family.source is the function {config.family.source}, and no code that a run names is run "
                f"before you have named it yourself. If you trust it: metarl env check {typed(config.family.source)}"
            )
        return
    for function in hooks_of(config):
        path = file_of(function)
        if path is not None and not path.is_file():
            raise UsageError(f"{where}: there is no {path}, whose function its robot's file names; put it back")
        if path is None or not trusted(digest(path)):
            raise UsageError(
                f"{where}: {function} is a function that its robot's file names, and no code that a run names is run "
                "before you have named it yourself. If you trust it: metarl robot check MODEL --family FILE.yaml, with "
                "a file that names it"
            )
    for name, value in code_of(config).items():
        raise UsageError(
            f"{where}: family.{name} is the function {value}; a run's robot is data, and no code that a run names is "
            f"run. If you trust it, train it anew: metarl train --config {typed(where)}"
        )
    for name, value in files_of(config).items():
        if folder is not None and not os.path.abspath(value).startswith(os.path.abspath(folder) + os.sep):
            raise UsageError(
                f"{where}: family.{name} is {value}, outside of the run; a run's robot is its own copy, in {folder}"
            )


def map_files(config: RunConfig, change: Callable[[str], str]) -> RunConfig:
    """Return the configuration with each path of its family's files changed; `module:function` is no path."""
    paths = {k: change(v) for k, v in files_of(config).items() if ":" not in v or ".py:" in v}
    return dataclasses.replace(config, family=dataclasses.replace(config.family, **paths)) if paths else config


def files_of(config: RunConfig) -> dict[str, str]:
    """Return the files and functions that the family is made of, by the name of their setting."""
    named = {name: getattr(config.family, name) for name in file_settings(config.family)}
    return {name: value for name, value in named.items() if value}


def file_settings(family: FamilySettings) -> list[str]:
    """Return the names of the settings that are files, or functions in them."""
    return [f.name for f in dataclasses.fields(family) if f.metadata.get("file")]


def code_of(config: RunConfig) -> dict[str, str]:
    """Return the functions whose code is run to make the family, by the name of their setting."""
    return {name: value for name, value in files_of(config).items() if ":" in value and not Path(value).is_file()}


def hooks_of(config: RunConfig) -> list[str]:
    """Return the functions that the file of your own robot names, file.py:function each."""
    if not isinstance(config.family, RobotSettings) or not config.family.file:
        return []
    return list(functions_in(config.family.file).values())


def with_settings(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """Return the configuration with other values of settings, by dotted name."""
    for name, value in settings.items():
        config = with_setting(config, name, value)
    return config


def with_setting(config: C, name: str, value: Any) -> C:
    """Return a dataclass with sections of settings with another value of one, by dotted name: see `options`."""
    section, setting, entry = named(name)
    settings = getattr(config, section)
    if entry:
        value = {**getattr(settings, setting), entry: value}
    changed = dataclasses.replace(settings, **{setting: value})
    return dataclasses.replace(typing.cast(Any, config), **{section: changed})


def named(name: str) -> tuple[str, str, str]:
    """Return section, setting and entry that a dotted name names; no entry unless the setting is a mapping."""
    section, setting, *entry = name.split(".", 2)
    return section, setting, "".join(entry)


def config_from_dict(data: Any, saved: bool = False) -> RunConfig:
    """Return the configuration that nested mappings describe; `agent` and `family` have a `name` key.

    saved: whether a run or a record of results holds it. A setting that it lacks has the value that such a run had
    before there was the setting, see `metarl.bounds.newer`; others have their defaults.
    """
    sections = {f.name: f for f in dataclasses.fields(RunConfig)}
    require_mapping(data, "the config")
    for key in data:
        if key not in sections:
            raise UsageError(f"unknown key {shown(key)}{nearest(str(key), [*sections, *options(RunConfig())])}")
    classes: dict[str, type] = {name: type(getattr(RunConfig(), name)) for name in sections}
    for key, value in data.items():
        require_mapping(value, key)
        if key in REGISTRIES:
            if "name" not in value:
                raise UsageError(f"{key} has no name; add `name:` and one of {', '.join(REGISTRIES[key])}")
            classes[key] = settings_of(key, value["name"])
    known = [f"{section}.{name}" for section, cls in classes.items() for name in typing.get_type_hints(cls)]
    built: dict[str, Any] = {}
    for key, value in data.items():
        settings = {k: v for k, v in value.items() if k != "name" or key not in REGISTRIES}
        settings |= lacking(classes[key], settings, saved)
        built[key] = read_settings(classes[key], settings, key, known)
    config = RunConfig(**built)
    config.validate()
    return config


def recorded_config(data: Any) -> RunConfig:
    """Return the configuration in a record of results; UsageError if its family is made by code."""
    config = config_from_dict(data, saved=True)
    require_data(config, "the record")
    return config


def complete_family(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return a family's settings as a saved record has them, and those that came later as they were before."""
    name = saved.get("name")
    later = lacking(FAMILIES[name].settings, saved, saved=True) if name in list(FAMILIES) else {}
    return {**saved, **{name: _plain(value) for name, value in later.items()}}


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """Return the complete configuration as nested mappings of plain types."""
    data = {f.name: _plain(dataclasses.asdict(getattr(config, f.name))) for f in dataclasses.fields(config)}
    data["agent"] = {"name": config.agent_name, **data["agent"]}
    data["family"] = {"name": config.family_name, **data["family"]}
    return data


def dump_yaml(config: RunConfig) -> str:
    """Return the complete configuration as YAML, from which `load_config` reads an equal one."""
    return strict_yaml.to_yaml(config_to_dict(config))


def options(config: RunConfig) -> dict[str, Any]:
    """Return the type of each setting by its dotted name; of a mapping's entries, in the mapping's place.

    Entries are ranges of your own robot, `family.ranges.payload`; none if its file cannot be read.
    """
    plain = {name: kind for name, kind in _types(config).items() if typing.get_origin(kind) is not Mapping}
    try:
        ranges = ranges_of(config.family) if isinstance(config.family, RobotSettings) else {}
    except ValueError:
        ranges = {}
    return plain | {f"{ENTRIES}{name}": tuple[float, ...] if r.choice else PAIR for name, r in ranges.items()}


def _types(config: RunConfig) -> dict[str, Any]:
    return {
        f"{section.name}.{name}": annotation
        for section in dataclasses.fields(config)
        for name, annotation in typing.get_type_hints(type(getattr(config, section.name))).items()
    }


def read_settings(cls: type, data: Mapping[str, Any], section: str, known: Collection[str] = ()) -> Any:
    """Return settings from values by name; UsageError for an unknown name or a value of the wrong type.

    known: dotted names of the settings of all sections, if there are several.
    """
    hints = typing.get_type_hints(cls)
    for key in data:
        if key not in hints:
            name = f"{section}.{key}"
            hint = owners(name) or nearest(name, known) if known else nearest(str(key), hints)
            raise UsageError(f"unknown key {shown(name)}{hint}")
    return cls(**{key: coerce(value, hints[key], f"{section}.{key}") for key, value in data.items()})


def owners(name: str) -> str:
    """Return a hint that names the agents or families which have a setting; empty if none has."""
    section, setting, _ = named(name) if "." in name else (name, "", "")
    having = [
        other
        for other, entry in REGISTRIES.get(section, {}).items()
        if setting in typing.get_type_hints(entry.settings)
    ]
    if not having:
        return ""
    more = f" and {len(having) - 3} more" if len(having) > 3 else ""
    own = "; of your own robot the YAML file says it: --family FILE.yaml" if section == "family" else ""
    return f"; it is a setting of {section} {', '.join(having[:3])}{more}{own}"


def _name_of(settings: Any, registry: Mapping[str, AgentEntry | FamilyEntry]) -> str:
    return next(name for name, entry in registry.items() if type(settings) is entry.settings)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
