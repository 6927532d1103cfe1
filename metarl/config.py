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
from typing import Any, Literal

import yaml

from metarl.agents.agent_settings import AgentSettings
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.registry import AGENTS, AgentEntry
from metarl.bounds import bounded, check, without_effect
from metarl.envs import strict_yaml
from metarl.envs.family_settings import FamilySettings
from metarl.envs.registry import FAMILIES, FamilyEntry
from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.envs.text import shown
from metarl.errors import UsageError, nearest
from metarl.options import coerce, require_mapping

PRESETS = Path(__file__).parent / "configs"
SPLIT_NAMES = {"train": "training", "held_out": "held-out", "ood": "out-of-distribution"}
"""Each split in words."""
CONFIG = "config.yaml"
"""A run's complete configuration, in its folder."""


@dataclass(frozen=True)
class TrainingSettings:
    """The meta-training loop."""

    iterations: int = bounded(100, at_least=1)
    """Outer steps."""
    tasks: int = bounded(40, at_least=1, at_most=10**6)
    """Tasks an iteration."""
    distinct_tasks: int = bounded(0, at_least=0)
    """Tasks in all that training draws from, a set fixed by the seed. 0: fresh tasks in every iteration."""
    envs_per_task: int = bounded(20, at_least=1, at_most=10**6)
    """Episodes of each task in a shot."""
    adaptations: int = bounded(1, at_least=0)
    """Adaptations in a training trial; its shots are one more."""
    seed: int = bounded(1, at_least=0, at_most=math.inf)
    """Seed of every random number of the run."""
    threads: int = bounded(0, at_least=0, at_most=1024, changes_no_number=True)
    """Threads of the simulation and of torch. 0: all cores."""
    device: Literal["auto", "cpu", "cuda"] = without_effect("auto")
    """Torch device of the agent. auto: cuda if there is one."""
    simulator: Literal["cpu", "gpu", "auto"] = "cpu"
    """What simulates: MuJoCo on the CPU, or mujoco-warp on the agent's device (pip install metarl-robotics[gpu]), in
    single precision. auto: gpu if the agent's device is a GPU and mujoco-warp is installed."""
    checkpoint_every: int = bounded(10, at_least=1, changes_no_number=True)
    """Iterations between checkpoints."""
    keep_checkpoints: int = bounded(3, at_least=1, changes_no_number=True)
    """Latest checkpoints that are kept; the best is kept besides."""
    curriculum: bool = False
    """Draw easy tasks first, and harder ones as returns after adaptation rise; of families that have a difficulty."""
    reveal_task: bool = False
    """Whether observations carry the task's parameters, here and in evaluation: an oracle, to be compared with."""
    evaluate_every: int = bounded(0, at_least=0, changes_no_number=True)
    """Iterations between evaluations on held-out tasks. 0: at the end only."""


@dataclass(frozen=True)
class EvaluationSettings:
    """Adaptation to tasks of one split, the same tasks for every agent."""

    tasks: int = bounded(40, at_least=2, at_most=10**6)
    """Tasks for each seed; an interval needs two."""
    envs_per_task: int = bounded(20, at_least=1, at_most=10**6)
    """Episodes of each task in a shot."""
    adaptations: int = bounded(3, at_least=0)
    """Adaptations in a trial; the return is reported before, between and after them."""
    seeds: tuple[int, ...] = bounded((1, 2, 3), at_least=0, at_most=math.inf, nonempty=True)
    """One set of tasks a seed."""
    split: Literal["train", "held_out", "ood"] = "held_out"
    """Which tasks: those of training, those that training never draws, or those outside its range (ood)."""
    explore: bool = True
    """Act with the policy's noise; otherwise by its mean. MAML adapts by its noise, and not at all without."""
    bootstrap_samples: int = bounded(2000, at_least=1)
    """Resamples of the stratified bootstrap behind the intervals."""
    train_gap: bool = True
    """Also run as many training tasks, and report how much better they go."""
    observation_noise: float = bounded(0.0, at_least=0)
    """Normal noise on what the agent observes; in units of each element's standard deviation under random actions."""
    reward_scale: float = bounded(1.0, above=0)
    """Factor on the rewards that the agent is shown; the returns reported are those of the true ones."""
    simulator: Literal["cpu", "gpu", "auto"] = "cpu"
    """What simulates, see `training.simulator`. Returns of the two differ where contacts are many: on uneven ground."""
    simulator_shift: bool = False
    """Where it is not the simulator of training: also run the tasks on that, and report how far the returns differ."""


@dataclass(frozen=True)
class TrackingSettings:
    """Weights & Biases. metrics.jsonl is written always."""

    wandb: Literal["auto", "online", "offline", "disabled"] = without_effect("auto")
    """auto: online with credentials, otherwise offline."""
    project: str = without_effect("metarl")
    """W&B project."""
    entity: str = without_effect("")
    """W&B user or team. Empty: the account's default."""
    group: str = without_effect("")
    """W&B group, for the seeds of one experiment. Empty: none."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's numbers, and how it is watched."""

    agent: AgentSettings = field(default_factory=MamlSettings)
    """The learner."""
    family: FamilySettings = field(default_factory=HalfCheetahVelocitySettings)
    """The tasks."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """Meta-training."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """Evaluation."""
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    """How the run is watched."""

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
        for name, annotation in options(self).items():
            section, setting = name.split(".")
            value = getattr(getattr(self, section), setting)
            if (meant := coerce(value, annotation, name)) != value:
                raise UsageError(f"{name} is {shown(value)}; write {shown(meant)}")
        try:
            for section in dataclasses.fields(self):
                check(getattr(self, section.name), section.name)
        except ValueError as error:
            raise UsageError(str(error)) from None
        if self.training.distinct_tasks and self.training.curriculum:
            raise UsageError(
                f"training.distinct_tasks is {self.training.distinct_tasks}, but training.curriculum draws tasks "
                "of its own; set one of the two to 0 or false"
            )
        seeds = self.evaluation.seeds
        if len(set(seeds)) < len(seeds):
            raise UsageError(f"evaluation.seeds is {shown(list(seeds))}; give each seed once")
        if not self.tracking.project:
            raise UsageError("tracking.project is empty; name a W&B project, or set tracking.wandb to disabled")


REGISTRIES: dict[str, Mapping[str, AgentEntry | FamilyEntry]] = {"agent": AGENTS, "family": FAMILIES}
"""Sections whose settings depend on a name."""


def settings_of(section: str, name: str) -> type:
    """The settings class of the agent or family of that name."""
    registry = REGISTRIES[section]
    if name not in list(registry):  # whatever YAML made of it, hashable or not
        raise UsageError(f"unknown {section} {shown(name)}{nearest(str(name), registry)}")
    return registry[name].settings


def preset_path(agent: str, family: str) -> Path | None:
    """The published preset for the two, or None where there is none."""
    path = PRESETS / f"{agent}_{family}.yaml"
    return path if path.is_file() else None


def preset(agent: str = "maml", family: str = "half_cheetah_velocity") -> RunConfig:
    """The configuration for an agent on a family: the published one, or the defaults where none is."""
    settings = RunConfig(agent=settings_of("agent", agent)(), family=settings_of("family", family)())
    path = preset_path(agent, family)
    return settings if path is None else load_config(path)


def load_config(path: Path) -> RunConfig:
    """Read a YAML file strictly: what it does not name has its default; UsageError for anything unknown or mistyped.

    Relative paths in it are relative to its folder.
    """
    remedy = "give a YAML file, or choose a preset by --agent and --family"
    if (path / CONFIG).is_file():
        raise UsageError(f"{path} is the folder of a run; did you mean its configuration, {path / CONFIG}?")
    data = read_yaml(path, "config file", remedy)
    try:
        config = config_from_dict({} if data is None else data)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return map_files(config, lambda file: str(path.parent / file))


def read_yaml(path: Path, what: str, remedy: str) -> Any:
    """What a YAML file holds, no key of it twice; UsageError names the file, and the remedy if there is none."""
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
    """The configuration of a run; UsageError names the nearest run if there is none of that name."""
    if not directory.is_dir():
        if directory.is_file() and (directory.parent / CONFIG).is_file():
            raise UsageError(f"{directory} is a file of the run {directory.parent}; give the run's folder")
        places = (directory.parent, Path("runs"))
        runs = sorted({p.parent.name for place in places for p in place.glob(f"*/{CONFIG}")})
        hint = nearest(directory.name, runs) if runs else f"; {directory.parent} holds no run"
        raise UsageError(f"no run folder {directory}{hint}")
    if not (directory / CONFIG).is_file():
        raise UsageError(f"{directory} is no run folder: it has no {CONFIG}")
    config = load_config(directory / CONFIG)
    require_data(config, str(directory / CONFIG), directory)
    return config


def require_data(config: RunConfig, where: str, folder: Path | None = None) -> None:
    """UsageError if the family is made by somebody's code, or of files outside of the folder: nothing that a run or a
    record of results holds is run, and a run's robot is its own copy."""
    for name, value in code_of(config).items():
        raise UsageError(
            f"{where}: family.{name} is the function {value}; a run's robot is data, and no code that a run names is "
            f"run. If you trust it, train it anew: metarl train --config {where}"
        )
    for name, value in files_of(config).items():
        if folder is not None and not os.path.abspath(value).startswith(os.path.abspath(folder) + os.sep):
            raise UsageError(
                f"{where}: family.{name} is {value}, outside of the run; a run's robot is its own copy, in {folder}"
            )


def map_files(config: RunConfig, change: Callable[[str], str]) -> RunConfig:
    """The configuration with every path of a file that its family is made of changed; `module:function` is none."""
    paths = {k: change(v) for k, v in files_of(config).items() if ":" not in v or ".py:" in v}
    return dataclasses.replace(config, family=dataclasses.replace(config.family, **paths)) if paths else config


def files_of(config: RunConfig) -> dict[str, str]:
    """The files and functions that the family is made of, by the setting that names each."""
    family = config.family
    named = {f.name: getattr(family, f.name) for f in dataclasses.fields(family) if f.metadata.get("file")}
    return {name: value for name, value in named.items() if value}


def code_of(config: RunConfig) -> dict[str, str]:
    """The functions that make the family, whose code is run, by the setting that names each."""
    return {name: value for name, value in files_of(config).items() if ":" in value and not Path(value).is_file()}


def config_from_dict(data: Any) -> RunConfig:
    """The configuration that nested mappings describe; `agent` and `family` have a `name` key."""
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
        built[key] = read_settings(classes[key], settings, key, known)
    config = RunConfig(**built)
    config.validate()
    return config


def recorded_config(data: Any) -> RunConfig:
    """The configuration that a record of results describes; UsageError for a family that somebody's code makes."""
    config = config_from_dict(data)
    require_data(config, "the record")
    return config


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested mappings of plain types, complete."""
    data = {f.name: _plain(dataclasses.asdict(getattr(config, f.name))) for f in dataclasses.fields(config)}
    data["agent"] = {"name": config.agent_name, **data["agent"]}
    data["family"] = {"name": config.family_name, **data["family"]}
    return data


def dump_yaml(config: RunConfig) -> str:
    """The complete configuration as YAML; `load_config` on it gives an equal configuration."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False)


def options(config: RunConfig) -> dict[str, Any]:
    """Type of every setting by its dotted name, for the agent and family of this configuration."""
    return {
        f"{section.name}.{name}": annotation
        for section in dataclasses.fields(config)
        for name, annotation in typing.get_type_hints(type(getattr(config, section.name))).items()
    }


def read_settings(cls: type, data: Mapping[str, Any], section: str, known: Collection[str] = ()) -> Any:
    """A settings class from values by name; UsageError for one that it does not have, or a wrong type.

    known: dotted names of all settings, those of other sections too, where there are others.
    """
    hints = typing.get_type_hints(cls)
    for key in data:
        if key not in hints:
            name = f"{section}.{key}"
            hint = nearest(name, known, owners(name)) if known else nearest(str(key), hints)
            raise UsageError(f"unknown key {shown(name)}{hint}")
    return cls(**{key: coerce(value, hints[key], f"{section}.{key}") for key, value in data.items()})


def owners(name: str) -> str:
    """What to say of a setting, by its dotted name, that other agents or families have; nothing if none has."""
    section, _, setting = name.partition(".")
    having = [other for other, entry in REGISTRIES.get(section, {}).items() if hasattr(entry.settings, setting)]
    if not having:
        return ""
    more = f" and {len(having) - 3} more" if len(having) > 3 else ""
    return f"; it is a setting of {section} {', '.join(having[:3])}{more}"


def _name_of(settings: Any, registry: Mapping[str, AgentEntry | FamilyEntry]) -> str:
    return next(name for name, entry in registry.items() if type(settings) is entry.settings)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
