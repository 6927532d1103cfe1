"""What is compared: runs, each with settings of its own, and the family whose tasks all of them meet.

Nothing here imports torch or MuJoCo: mistakes are told at once.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metarl.bounds import names_without_effect
from metarl.options import value_of
from metarl.config import CONFIG, RunConfig, TrainingSettings, config_to_dict, map_files, options, read_run_config, settings_of
from metarl.envs.family_settings import FamilySettings
from metarl.errors import UsageError, nearest
from metarl.files import plain

ENTRY = re.compile(r"(?P<path>.+?)(:(?P<settings>[a-z_]+(\.[a-z_0-9]+)?=.*))?", re.DOTALL)
OF_THE_MACHINE = ("seed", *names_without_effect(TrainingSettings))
"""Settings of the training that may differ between runs of one agent: its random numbers, and how it was run."""
OWN_EVALUATION = ("evaluation.adaptations", "evaluation.envs_per_task", "evaluation.explore")
"""Settings of the evaluation that may differ from agent to agent: each still meets the same tasks."""


@dataclass(frozen=True)
class Entry:
    """A run that is to be compared, and what is other than in its training."""

    path: Path
    config: RunConfig
    """With the agent's settings as they are to be."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """By dotted name: of the agent, or of `OWN_EVALUATION`."""
    explore: bool | None = None
    """`evaluation.explore` where all agents' is not the same; None: it is."""
    name: str = ""
    """Given to it by `label=`; empty: by the run's folder and the overrides."""

    @property
    def agent_overrides(self) -> dict[str, Any]:
        """Those of the agent, by the setting's name."""
        return {k.removeprefix("agent."): v for k, v in self.overrides.items() if k.startswith("agent.")}

    @property
    def own_evaluation(self) -> dict[str, Any]:
        """Settings of the evaluation that are the agent's own, by the setting's name."""
        given = {k.removeprefix("evaluation."): v for k, v in self.overrides.items() if k.startswith("evaluation.")}
        return {**({} if self.explore is None else {"explore": self.explore}), **given}

    def exploring_as_trained(self) -> Entry:
        """The entry, to act with noise or without as its run's config says: MAML adapts by it, others need none."""
        return dataclasses.replace(self, explore=self.config.evaluation.explore)


def read_entries(text: str, runs_dir: Path = Path("runs")) -> list[Entry]:
    """`PATH[:setting=value[,setting=value...]]`, the path of a run or its bare name, or a pattern of several, which all
    get the settings. UsageError for what is neither, and for a pattern that no run fits."""
    match = None if Path(text).exists() else ENTRY.fullmatch(text)
    name, settings = (match["path"], _settings(match["settings"] or "")) if match else (text, [])
    entries = []
    own = run_dir(name, runs_dir)
    for path in _fitting(name, runs_dir) if glob.has_magic(name) and not own.exists() else [own]:
        entry = Entry(path, read_run_config(path))
        for setting, value in settings:
            entry = _override(entry, setting, value)
        entries.append(entry)
    return entries


def _fitting(pattern: str, runs_dir: Path) -> list[Path]:
    """The folders of runs that fit a pattern, by name, 2 before 10."""
    pattern = str(Path(pattern).expanduser())
    found = [path for path in map(Path, glob.glob(pattern)) if (path / CONFIG).exists()]
    found = found or [path for path in map(Path, glob.glob(str(runs_dir / pattern))) if (path / CONFIG).exists()]
    if not found:
        raise UsageError(f"no run's folder fits {pattern!r}")
    return sorted(found, key=lambda path: [int(n) if n.isdigit() else n for n in re.split(r"(\d+)", str(path))])


def run_dir(name: str, runs_dir: Path = Path("runs")) -> Path:
    """A run's folder by its path or its bare name."""
    return runs_dir / name if not Path(name).exists() and (runs_dir / name).is_dir() else Path(name)


def trained_with(config: RunConfig) -> dict[str, Any]:
    """What a run was trained with, as plain types; of files that its family is made of the names, wherever they are."""
    data = plain(config_to_dict(map_files(config, lambda file: Path(file).name)))
    return {section: data[section] for section in ("agent", "family", "training")}


def _settings(text: str) -> list[tuple[str, str]]:
    """(name, value) of `a=b,c=d`; what has no `=` goes on with the list before it."""
    pairs: list[tuple[str, str]] = []
    for piece in text.split(",") if text else ():
        name, equals, value = piece.partition("=")
        if equals:
            pairs.append((name, value))
        elif pairs:
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]},{piece}")
    return pairs


def _override(entry: Entry, name: str, text: str) -> Entry:
    if name == "label":
        return dataclasses.replace(entry, name=text)
    known = options(entry.config)
    valid = {k: t for k, t in known.items() if k.startswith("agent.") or k in OWN_EVALUATION}
    if name not in valid:
        raise UsageError(f"{entry.path}: {name!r} cannot be set for one run{nearest(name, [*valid, 'label'])}")
    value = value_of(name, [text], valid[name])
    section, setting = name.split(".")
    changed = dataclasses.replace(getattr(entry.config, section), **{setting: value})
    config = dataclasses.replace(entry.config, **{section: changed})
    config.validate()
    return dataclasses.replace(entry, config=config, overrides={**entry.overrides, name: value})


def by_agent(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The entries, those together that differ in nothing but the seed of their training: they are one agent.

    Different labels keep them apart, and so does the same seed: trained twice it tells nothing more.
    """
    keys = [(but_for_the_seed(e.config), e.overrides, e.explore, e.name) for e in entries]
    groups: list[tuple[Any, list[Entry]]] = []
    for key, entry in zip(keys, entries, strict=True):
        for known, group in groups:
            if key == known and entry.config.training.seed not in {e.config.training.seed for e in group}:
                group.append(entry)
                break
        else:
            groups.append((key, [entry]))
    return [group for _, group in groups]


def but_for_the_seed(config: RunConfig) -> tuple[Any, ...]:
    """What an agent is trained with, apart from the seed and the rest of `OF_THE_MACHINE`, to be compared."""
    config = map_files(config, content)
    training = {k: v for k, v in dataclasses.asdict(config.training).items() if k not in OF_THE_MACHINE}
    return training, config.agent, config.family


def content(file: str) -> str:
    """What a file holds, which runs have copies of; its name if it is gone."""
    path = Path(file)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else path.name


def labels(agents: Sequence[Sequence[Entry]]) -> list[str]:
    """A name for each agent, no two alike: the folder of its run, with what was overridden; its parent where that is
    not enough, and a number where it is the same run once more. Of several runs what their folders' names begin with,
    or the first one where that is not enough. UsageError for a label that is given to different ones."""
    given = Counter(entries[0].name for entries in agents if entries[0].name)
    for name, count in given.items():
        if count > 1:
            raise UsageError(
                f"the label {name!r} is given to {count} agents: their runs differ in more than the seed of their "
                "training (training.seed), or have the same; give each its own"
            )
    short = [entries[0].name or _plain_label(entries) for entries in agents]
    alike = Counter(short)
    short = [
        _plain_label(entries[:1]) if alike[name] > 1 and not entries[0].name else name
        for entries, name in zip(agents, short, strict=True)
    ]
    alike = Counter(short)
    longer = [
        f"{entries[0].path.resolve().parent.name}/{name}" if alike[name] > 1 and not entries[0].name else name
        for entries, name in zip(agents, short, strict=True)
    ]
    seen: Counter[str] = Counter()
    result = []
    for name in longer:
        seen[name] += 1
        result.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
    return result


def _plain_label(entries: Sequence[Entry]) -> str:
    changed = ",".join(f"{k.split('.')[1]}={_word(v)}" for k, v in entries[0].overrides.items())
    return _common([entry.path.resolve().name for entry in entries]) + (f":{changed}" if changed else "")


def _common(names: Sequence[str]) -> str:
    """The words that all names begin with, parted by what is no letter and no digit; the first name if that is none."""
    words = [re.split(r"([\W_]+)", name) for name in names]
    pairs = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    return re.sub(r"([\W_]+seed)?[\W_]+$", "", "".join(column[0] for column in pairs)) or names[0]


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def family_settings(entries: Sequence[Entry], name: str | None) -> tuple[FamilySettings, dict[str, Any]]:
    """The settings of the family whose tasks all meet, and those of them that were taken over from the first run.

    name: None stands for the runs' own family. Another family gets what the first run's settings say other than by
    default, where both have such a setting: how the robot acts and what it observes. UsageError if the runs are of
    different families and none is named.
    """
    first = entries[0].config
    if name is None:
        for other in entries[1:]:
            if other.config.family_name != first.family_name:
                families = (first.family_name, other.config.family_name)
                raise UsageError(
                    f"{entries[0].path} was trained on {families[0]}, {other.path} on {families[1]}; say whose "
                    f"tasks they are to meet, such as --family {first.family_name}"
                )
        return first.family, {}
    cls = settings_of("family", name)
    for entry in entries:
        if entry.config.family_name == name:
            return entry.config.family, {}
    own, default, target = first.family, type(first.family)(), cls()
    taken = {
        f.name: getattr(own, f.name)
        for f in dataclasses.fields(cls)
        if hasattr(own, f.name)
        and getattr(own, f.name) != getattr(default, f.name)
        and getattr(own, f.name) != getattr(target, f.name)
    }
    return dataclasses.replace(target, **taken), taken
