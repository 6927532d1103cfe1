"""Judged record: what one run did on the tasks of a study, in a small file that the report is made from.

The records of a study made on several machines are joined by copying them into one folder; no run is needed there.
"""

from __future__ import annotations

import bz2
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from metarl.bounds import names_without_effect
from metarl.config import EvaluationSettings, read_run_config
from metarl.config import settings_of as config_settings
from metarl.envs.family import TaskFamily
from metarl.envs.strict_yaml import read_file
from metarl.envs.task import Task
from metarl.errors import UsageError, describe
from metarl.evaluation.evaluate import statistics_of
from metarl.evaluation.judged import Judged
from metarl.evaluation.notes import remarked
from metarl.evaluation.records import listed, mapping, number, optional, texts, whole
from metarl.evaluation.results import EvaluationResult, Source, provenance_of, settings_of
from metarl.evaluation.train_gap import gap_of
from metarl.files import make_folder, plain, write
from metarl.headroom.packing import packed, packed_outcome, read_outcome, unpacked
from metarl.runs.checkpoint import CheckpointStore, iteration_of
from metarl.runs.entries import OF_THE_MACHINE, trained_with
from metarl.runs.run import CHECKPOINTS

FOLDER = "judged"
"""Subfolder of a study's folder with the records, one file for each label and training seed."""
FORMAT = 1
"""Version of the format; a record of another one is refused."""
MOST_BYTES = 2**28
"""Largest record that is read, unpacked."""
GIVEN = ("given", "settings", "overrides", "ranges")
"""Parts of a key that hold what was given, and not all that there is."""
NOTHING = "not given"
REMEDY = "remove it, and its run is judged anew; or copy it again from where it was made"


@dataclass(frozen=True)
class Cost:
    """What the training of a run took."""

    run: str
    """Name of the run's folder."""
    env_steps: int
    seconds: float


@dataclass(frozen=True)
class Key:
    """What a run was judged with. Two records are of the same judgement if all of it agrees."""

    study: Mapping[str, Any]
    """What the study trains: family, budget, settings of all arms, and those of the run's own arm."""
    judged_with: Mapping[str, Any]
    """Settings of the evaluation, settings given to the run for it, and a digest of the tasks."""
    checkpoint: Mapping[str, Any]
    """Iteration and digest of the checkpoint, and what the run was trained with, see `trained_with`."""


@dataclass(frozen=True, kw_only=True)
class JudgedRecord:
    """One run under one label: what it did on the tasks, and what it was judged with."""

    label: str
    seed: int
    """Seed of its training."""
    key: Key
    agent: str
    adapts: bool
    """Whether the agent learns from a shot."""
    source: Source
    settings: EvaluationSettings
    """Settings of the evaluation as the agent met them."""
    outcome: Mapping[str, Any]
    """Of `packed_outcome`."""
    gap: Mapping[str, Any] | None
    """Returns on training tasks, and whether they are of the very family; None if they were not asked for."""
    cost: Sequence[Cost]
    """Training of the run, then that of its teacher if it has one."""
    elsewhere: str
    unfair: str
    """As in `Judged`."""
    probe: Sequence[str] = ()
    """What the probe of an oracle found, in lines; empty for other agents."""
    provenance: Mapping[str, Any]
    """Command, commit, package versions, machine and time of the judgement."""

    @property
    def trained(self) -> Mapping[str, Any]:
        """What the run was trained with, see `trained_with`."""
        return self.key.checkpoint["trained"]

    @property
    def kind(self) -> dict[str, Any]:
        """What runs of one agent share: all that they were trained with but the seed, the machine and the teacher."""
        return kind_of(self.trained)

    def differences_of_run(self, directory: Path) -> list[str]:
        """Return what differs between the run that was judged and the one in a folder, as it is now."""
        found = checkpoint_of(directory) or {"iteration": 0}
        now = {**found, "kind": kind_of(trained_with(read_run_config(directory)))}
        own = {name: value for name, value in self.key.checkpoint.items() if name != "trained"}
        return differences({**own, "kind": self.kind}, now)

    @classmethod
    def of(cls, judged: Judged, label: str, key: Key, cost: Sequence[Cost], probe: Sequence[str] = ()) -> JudgedRecord:
        """Return the record of a run that was judged."""
        result, gap = judged.result, judged.result.train_gap
        assert result.source is not None
        return cls(
            label=label,
            seed=judged.seed,
            key=key,
            agent=judged.agent,
            adapts=judged.adapts,
            source=result.source,
            settings=result.settings,
            outcome=packed_outcome(result),
            gap=gap and {"returns": packed(gap.returns), "own": gap.own},
            cost=cost,
            elsewhere=judged.elsewhere,
            unfair=judged.unfair,
            probe=probe,
            provenance={name: value for name, value in result.provenance.items() if name != "config"},
        )

    def judged(self, family: TaskFamily, tasks: Sequence[Sequence[Task]], folder: Path, samples: int) -> Judged:
        """Return the run as a comparison takes it. folder: of the run. samples: resamples of the bootstrap."""
        settings = replace(self.settings, bootstrap_samples=samples)
        outcome, training = read_outcome(self.outcome), self.trained["training"]
        shape = (len(tasks), settings.adaptations + 1, len(tasks[0]))
        if outcome.returns.shape != shape:
            raise ValueError(f"returns have the shape {outcome.returns.shape}, and {shape} is needed")
        gap = None
        if self.gap:
            trained_on = unpacked(self.gap["returns"], "gap.returns", 3)[None]
            gap = gap_of(trained_on, outcome.returns[None], settings, bool(self.gap["own"]))
        result = EvaluationResult(
            **statistics_of(settings, [outcome]),
            family=family.name,
            settings=settings,
            tasks=[[family.shown(task) for task in drawn] for drawn in tasks],
            units=dict(family.measure_units),
            success=family.success_text(),
            source=self.source,
            trained_rounds=training["adaptations"],
            also_split=training["also_split"],
            train_gap=gap,
            provenance=self.provenance,
        )
        return Judged(
            result=remarked(result, family, self.adapts),
            agent=self.agent,
            adapts=self.adapts,
            overrides=self.key.judged_with["overrides"],
            folder=folder.resolve(),
            trained=self.trained,
            elsewhere=self.elsewhere,
            unfair=self.unfair,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        parts = {"key": asdict(self.key), "source": asdict(self.source), "settings": plain(asdict(self.settings))}
        return {"format": FORMAT, **own, **parts, "cost": [asdict(part) for part in self.cost]}

    @classmethod
    def from_dict(cls, data: Any) -> JudgedRecord:
        """Return the record that JSON holds; ValueError, TypeError or KeyError if it is none."""
        own = mapping(data, "a record")
        if own["format"] != FORMAT:
            raise ValueError(f"it has format {own['format']!r}, and this version of metarl reads format {FORMAT}")
        key, trained = mapping(own["key"], "key"), own["key"]["checkpoint"]["trained"]
        study, judged_with, checkpoint = (mapping(key[name], name) for name in ("study", "judged_with", "checkpoint"))
        kind_of(trained)
        for name in ("seed", "adaptations", "reveal_task", "also_split"):
            trained["training"][name]
        mapping(judged_with["overrides"], "overrides")
        read_outcome(own["outcome"])
        return cls(
            label=str(own["label"]),
            seed=whole(own["seed"], "seed"),
            key=Key(study, judged_with, checkpoint),
            agent=str(own["agent"]),
            adapts=bool(own["adapts"]),
            source=Source.from_dict(mapping(own["source"], "source")),
            settings=settings_of(own["settings"]),
            outcome=own["outcome"],
            gap=optional(own["gap"], lambda value: mapping(value, "gap")),
            cost=listed(own["cost"], "cost", _cost),
            elsewhere=str(own["elsewhere"]),
            unfair=str(own["unfair"]),
            probe=texts(own["probe"], "probe"),
            provenance=provenance_of(own["provenance"]),
        )


def kind_of(trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return what runs of one agent share, see `JudgedRecord.kind`. trained: of `trained_with`."""
    settings = config_settings("agent", trained["agent"]["name"])
    others = {f.name for f in fields(settings) if f.metadata.get("other_run")} | {*names_without_effect(settings)}
    return {
        "agent": {name: value for name, value in trained["agent"].items() if name not in others},
        "training": {name: value for name, value in trained["training"].items() if name not in OF_THE_MACHINE},
    }


def _cost(data: Any) -> Cost:
    own = mapping(data, "cost")
    return Cost(str(own["run"]), whole(own["env_steps"], "env_steps"), number(own["seconds"], "seconds"))


def path_of(folder: Path, label: str, seed: int) -> Path:
    """Return the file of a record. folder: of the study."""
    return folder / FOLDER / f"{label}_seed{seed}.json.bz2"


def save_record(path: Path, record: JudgedRecord) -> None:
    """Write a record; RunError if the disk refuses."""
    text = json.dumps(record.to_dict(), separators=(",", ":"))
    make_folder(path.parent, "--runs-dir")
    write(path, bz2.compress(text.encode()))  # a quarter smaller than gzip's


def read_record(path: Path) -> JudgedRecord | None:
    """Return the record that a file holds, None if there is no file; UsageError names a file that holds none."""
    try:
        packer = bz2.BZ2Decompressor()
        text = packer.decompress(read_file(path, MOST_BYTES), MOST_BYTES)
        if not packer.eof:
            raise ValueError(f"it is cut short, or has more than {MOST_BYTES:,} bytes")
        return JudgedRecord.from_dict(json.loads(text))
    except FileNotFoundError:
        return None
    except KeyError as error:
        reason = f"it has no {error.args[0]!r}"
    except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = describe(error)[:200]
    raise UsageError(f"{path} is damaged, or no judged record: {reason}; {REMEDY}")


def checkpoint_of(directory: Path) -> dict[str, Any]:
    """Return iteration and digest of a run's last checkpoint; nothing if it has none."""
    paths = CheckpointStore(directory / CHECKPOINTS).paths()
    if not paths:
        return {}
    return {"iteration": iteration_of(paths[-1]), "sha256": hashlib.sha256(paths[-1].read_bytes()).hexdigest()}


def differences(theirs: Any, ours: Any, name: str = "") -> list[str]:
    """Return what differs between plain values, as `a.b (x, here y)`.

    A setting that one of them lacks is of another version of metarl, and is left out; but not among those in `GIVEN`.
    """
    if not (isinstance(theirs, Mapping) and isinstance(ours, Mapping)):
        return [] if theirs == ours else [f"{name} ({_short(theirs)}, here {_short(ours)})"]
    if name.rpartition(".")[2] in GIVEN:
        keys = [*theirs, *(key for key in ours if key not in theirs)]
    else:
        keys = [key for key in theirs if key in ours]
    pairs = ((key, theirs.get(key, NOTHING), ours.get(key, NOTHING)) for key in keys)
    return [text for key, a, b in pairs for text in differences(a, b, f"{name}.{key}".strip("."))]


def _short(value: Any, most: int = 40) -> str:
    text = value if value is NOTHING else json.dumps(value)
    return text if len(text) <= most else f"{text[:most]}..."
