"""Read which runs to compare, each with its own overrides, and the family whose tasks they are compared on.

Nothing here imports torch or MuJoCo, so that mistakes show at once.
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
from metarl.config import (
    CONFIG,
    RunConfig,
    TrainingSettings,
    config_to_dict,
    map_files,
    options,
    read_run_config,
    settings_of,
    with_settings,
)
from metarl.envs.family_settings import FamilySettings
from metarl.envs.own_robot.hooks import functions_in
from metarl.envs.own_robot.settings import DECLARATIONS, RobotSettings
from metarl.envs.text import typed
from metarl.errors import UsageError, nearest
from metarl.files import plain
from metarl.options import value_of

ENTRY = re.compile(r"(?P<path>.+?)(:(?P<settings>[a-z_]+(\.[a-z_0-9-]+)?=.*))?", re.DOTALL)
SETTING = re.compile(r"[a-z_-]+(\.[a-z_0-9-]+)?")
"""Names of settings, as an entry gives them."""
OF_THE_MACHINE = ("seed", *names_without_effect(TrainingSettings))
"""Settings of training that may differ between runs of one agent: the seed, and those of the machine."""
OWN_EVALUATION = tuple(
    f"evaluation.{name}" for name in ("adaptations", "envs_per_task", "explore", "explore_to_adapt", "reset_memory")
)
"""Settings of the evaluation that may differ between agents; the tasks stay the same."""


@dataclass(frozen=True)
class Entry:
    """A run to compare, with its overrides."""

    path: Path
    config: RunConfig
    """The run's configuration, with the overrides."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Overridden settings by dotted name: of the agent, or in `OWN_EVALUATION`."""
    explore: bool | None = None
    """`evaluation.explore` of this run; None: as for all agents."""
    name: str = ""
    """Label that `label=` gives; empty: derived from the run's folder and the overrides."""

    @property
    def trained(self) -> RunConfig:
        """The run's configuration without the overrides."""
        return read_run_config(self.path) if self.overrides else self.config

    @property
    def agent_overrides(self) -> dict[str, Any]:
        """Overridden settings of the agent, by name."""
        return {k.removeprefix("agent."): v for k, v in self.overrides.items() if k.startswith("agent.")}

    @property
    def own_evaluation(self) -> dict[str, Any]:
        """Overridden settings of the evaluation, by name."""
        given = {k.removeprefix("evaluation."): v for k, v in self.overrides.items() if k.startswith("evaluation.")}
        return {**({} if self.explore is None else self.config.evaluation.acting), **given}

    def exploring_as_trained(self) -> Entry:
        """Return the entry with the exploration noise of its run's config: MAML needs it, other agents do not."""
        return dataclasses.replace(self, explore=self.config.evaluation.explore)


def read_entries(text: str, runs_dir: Path = Path("runs")) -> list[Entry]:
    """Return the runs that `PATH[:setting=value[,setting=value...]]` names, with their overrides.

    PATH: a run's folder, its name in runs_dir, or a pattern of either, whose matches all get the overrides. UsageError
    if there is no such run.
    """
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


def require_apart(entries: Sequence[Entry]) -> None:
    """UsageError if a run is given twice alike, which would be compared with itself, or be two of its own agent."""
    seen = set()
    for entry in entries:
        what = (entry.path.resolve(), entry.name, repr(sorted(entry.overrides.items())))
        if what in seen:
            raise UsageError(f"run {typed(entry.path)} is given twice; give it once, or with settings or a label")
        seen.add(what)


def _fitting(pattern: str, runs_dir: Path) -> list[Path]:
    """Return the folders of runs that match a pattern, sorted by name, 2 before 10."""
    pattern = str(Path(pattern).expanduser())
    found = [path for path in map(Path, glob.glob(pattern)) if (path / CONFIG).exists()]
    found = found or [path for path in map(Path, glob.glob(str(runs_dir / pattern))) if (path / CONFIG).exists()]
    if not found:
        raise UsageError(f"no run matches {pattern!r}")
    return sorted(found, key=lambda path: [int(n) if n.isdigit() else n for n in re.split(r"(\d+)", str(path))])


def run_dir(name: str, runs_dir: Path = Path("runs")) -> Path:
    """Return a run's folder; name: its path, or its name in runs_dir."""
    return runs_dir / name if not Path(name).exists() and (runs_dir / name).is_dir() else Path(name)


def trained_with(config: RunConfig) -> dict[str, Any]:
    """Return the settings that a run was trained with, as plain types; files by name, without their folders."""
    data = plain(config_to_dict(map_files(config, lambda file: Path(file).name)))
    return {section: data[section] for section in ("agent", "family", "training")}


def files_by_content(config: RunConfig, anywhere: bool = False) -> RunConfig:
    """Return the configuration with its files by name and content, which the copies of a robot share.

    anywhere: as of `content_anywhere`, for configurations that are compared and not recorded.
    """

    def words(file: str) -> str:
        path, hashed = Path(file), content_anywhere if anywhere else content
        return f"{path.name} ({hashed(file)[:8]})" if path.is_file() else path.name

    return map_files(config, words)


def _settings(text: str) -> list[tuple[str, str]]:
    """Return the pairs (name, value) of `a=b,c=d`.

    A piece without `=` belongs to the list before it, and one that begins with no setting's name to the label before.
    """
    pairs: list[tuple[str, str]] = []
    for piece in text.split(",") if text else ():
        name, equals, value = piece.partition("=")
        if equals and (SETTING.fullmatch(name) or not pairs or pairs[-1][0] != "label"):
            pairs.append((name.replace("-", "_"), value))
        elif pairs:
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]},{piece}")
    return pairs


def _override(entry: Entry, name: str, text: str) -> Entry:
    if name == "label":
        return dataclasses.replace(entry, name=text)
    known = options(entry.config)
    valid = {k: t for k, t in known.items() if k.startswith("agent.") or k in OWN_EVALUATION}
    if name not in valid:
        hint = nearest(name, [*valid, "label"])
        if entry.name:
            hint += f"; if it is part of the label, write a space after the comma: 'label={entry.name}, {name}={text}'"
        raise UsageError(f"{entry.path}: {name!r} cannot be set for one run{hint}")
    value = value_of(name, [text], valid[name])
    config = with_settings(entry.config, {name: value})
    config.validate()
    return dataclasses.replace(entry, config=config, overrides={**entry.overrides, name: value})


def by_agent(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Group the entries by agent: runs that differ only in their training seed are one agent.

    Different labels keep runs apart, and so does the same seed: a run repeated with its seed adds no information.
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
    """Return the settings that define an agent: all but the seed and those that change results by rounding at most.

    Another run that it is trained with, such as its teacher, counts by what defines that.
    """
    config = map_files(config, content_anywhere)
    training = {k: v for k, v in dataclasses.asdict(config.training).items() if k not in OF_THE_MACHINE}
    without_effect = names_without_effect(type(config.agent))
    agent = {k: v for k, v in dataclasses.asdict(config.agent).items() if k not in without_effect}
    for f in dataclasses.fields(config.agent):
        folder = Path(agent[f.name]) if f.metadata.get("other_run") and agent[f.name] else None
        if folder is not None and (folder / CONFIG).is_file():
            agent[f.name] = but_for_the_seed(read_run_config(folder))
    return training, config.agent_name, agent, config.family


def content(file: str) -> str:
    """Return a hash of a file, which copies share; its name if it does not exist."""
    path = Path(file)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else path.name


def content_anywhere(file: str) -> str:
    """Return a hash as `content` does, in which the code that a declaration names counts by its name.

    The copy in a run's folder names it by its absolute path, which is another in another checkout; what it holds is in
    the settings.
    """
    functions = functions_in(file) if file.endswith(DECLARATIONS) else {}
    if not functions:
        return content(file)
    data = Path(file).read_bytes()
    for name in functions:
        data = data.replace(name.encode(), Path(name).name.encode())
    return hashlib.sha256(data).hexdigest()


def labels(agents: Sequence[Sequence[Entry]]) -> list[str]:
    """Return a distinct label for each agent.

    It is the folder's name of its run, with the overrides; for several runs, the beginning that the names share. If
    that is not distinct, it is the name of the first run, then with the parent folder, then with a number. UsageError
    for one label that is given to different agents.
    """
    given = Counter(entries[0].name for entries in agents if entries[0].name)
    for name, count in given.items():
        if count > 1:
            raise UsageError(
                f"the label {name!r} is given to {count} agents: their runs differ in more than training.seed, or have "
                "the same training.seed; give each agent its own label"
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
    """Return the words that all names begin with; the first name if there are none."""
    words = [re.split(r"([\W_]+)", name) for name in names]
    pairs = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    return re.sub(r"([\W_]+seed)?[\W_]+$", "", "".join(column[0] for column in pairs)) or names[0]


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def family_settings(entries: Sequence[Entry], name: str | None) -> tuple[FamilySettings, dict[str, Any]]:
    """Return the settings of the family to compare on, and those of them that are taken from the first run.

    name: None is the runs' own family. Another family takes those settings of the first run that are not at their
    default and that it has too, such as the action scale; a file declares other tasks of one's own robot, with its own
    ranges. UsageError if the runs have different families and name is None, and for a file with the run of another
    family.
    """
    first = entries[0].config
    if name is None:
        for other in entries[1:]:
            if other.config.family_name != first.family_name:
                families = (first.family_name, other.config.family_name)
                raise UsageError(
                    f"{entries[0].path} was trained on {families[0]}, {other.path} on {families[1]}; name "
                    f"the family to compare them on, such as --family {first.family_name}"
                )
        return first.family, {}
    if name.endswith(DECLARATIONS):
        for entry in entries:
            if not isinstance(entry.config.family, RobotSettings):
                raise UsageError(
                    f"--family {name} declares tasks of a robot of one's own, and {entry.path} was trained on "
                    f"{entry.config.family_name}"
                )
        return dataclasses.replace(entries[0].config.family, file=name, hooks=(), ranges={}), {}
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
