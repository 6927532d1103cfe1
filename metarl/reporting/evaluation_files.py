"""Files of an evaluation: JSON, the adaptation curve and the learning curve, in a run's folder."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metarl.config import EvaluationSettings
from metarl.envs.family import TaskFamily
from metarl.errors import RunError, describe
from metarl.evaluation.comparison import Comparison
from metarl.evaluation.results import EvaluationResult
from metarl.files import write
from metarl.reporting import comparison_figures, figures, time_figures, time_table
from metarl.runs.tracking import METRICS, read_metrics, read_record


def save_all(result: EvaluationResult, family: TaskFamily, directory: Path) -> dict[str, Path]:
    """Save an evaluation and the learning curve in a run's folder, and print where; return the figures by name."""
    saved = save(result, family, directory / "evaluation")
    drawn = {"adaptation": saved.with_suffix(".png"), **save_time_figures(result, saved)}
    table = save_time_table(result, saved)
    if (learning := save_learning_curve(directory, family.name)) is not None:
        drawn["learning"] = learning
    for path in (saved, *([table] if table else []), *drawn.values()):
        print(f"saved {os.path.relpath(path)}")
    return drawn


def save(result: EvaluationResult, family: TaskFamily, folder: Path) -> Path:
    """Write the JSON file and the adaptation curve beside it, and return the path of the JSON file.

    The name has split, seeds and iteration. A file of that name is replaced only if it was made with the same settings;
    otherwise a number is added. A gap to training tasks that was measured before is kept. RunError if the disk refuses.
    """
    text = json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        content = json.loads(text)
        path = _free_path(folder, name_of(result.settings, result.source and result.source.iteration), content)
        write(path, _with_gap(text, content, path).encode(), "")
        figures.adaptation_curve(result, family, path.with_suffix(".png"))
    return path


def save_time_figures(result: EvaluationResult, saved: Path) -> dict[str, Path]:
    """Draw the time courses and the return back on a task, if there are any; return the figures by name.

    saved: JSON file of the evaluation, which they stand beside.
    """
    timed = comparison_figures.timed_of(_alone(result))
    title = figures.whose(result)
    drawn: dict[str, Path] = {}
    with disk_errors(saved.parent):
        if timed[0].course():
            drawn["time"] = saved.with_name(f"{saved.stem}_time.png")
            time_figures.courses(timed, result.units, title, drawn["time"])
        if result.forgetting:
            drawn["revisit"] = saved.with_name(f"{saved.stem}_revisit.png")
            time_figures.revisits(timed, title, drawn["revisit"])
    return drawn


def save_time_table(result: EvaluationResult, saved: Path) -> Path | None:
    """Write the curves against seconds as CSV, and return its path; None if there are none.

    saved: JSON file of the evaluation, which it stands beside.
    """
    if not result.courses:
        return None
    path = saved.with_name(f"{saved.stem}_time.csv")
    with disk_errors(saved.parent):
        write(path, time_table.csv_text(_alone(result).agents).encode(), "")
    return path


def _alone(result: EvaluationResult) -> Comparison:
    return Comparison.of(result, result.source.run if result.source else result.family)


def save_learning_curve(directory: Path, family: str) -> Path | None:
    """Draw evaluation/learning.png from a run's metrics.jsonl, and return its path; None without an iteration."""
    if not (directory / METRICS).exists() or not (metrics := read_metrics(directory)):
        return None
    path = learning_path(directory)
    with disk_errors(path.parent):
        path.parent.mkdir(exist_ok=True)
        figures.learning_curve(metrics, path, f"{family}, run {directory.name}: meta-training")
    return path


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Raise RunError where the disk refuses to save."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot save in {folder}: {describe(error)}; make room, or allow writing there") from error


def name_of(settings: EvaluationSettings, iteration: int | None) -> str:
    """Return the name of an evaluation's files. iteration: of the checkpoint; None if the agent is not of a run."""
    seeds = settings.seeds
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        named = f"{seeds[0]}to{seeds[-1]}"
    elif len(seeds) <= 4:
        named = "_".join(map(str, seeds))
    else:
        named = hashlib.sha256(repr(seeds).encode()).hexdigest()[:8]
    at = "" if iteration is None else f"_iteration{iteration:06d}"
    reset = "" if settings.reset_memory == "never" else f"_reset_{settings.reset_memory}"
    lives = "_lives" if settings.lives else ""
    apart = "_explore_to_adapt" if settings.explores_apart else ""
    return f"{settings.split}_seeds{named}{lives}{apart}{reset}{at}"


def has_pictures(directory: Path, settings: EvaluationSettings, iteration: int) -> bool:
    """Return whether a run's folder has all pictures that `save_all` makes of an evaluation with these settings."""
    saved = list((directory / "evaluation").glob(f"{name_of(settings, iteration)}*.json"))
    drawn = any(path.with_suffix(".png").is_file() for path in saved) or not saved
    metrics = directory / METRICS
    return drawn and (learning_path(directory).is_file() or not (metrics.exists() and read_record(metrics).lines))


def learning_path(directory: Path) -> Path:
    """Return the path of a run's learning curve."""
    return directory / "evaluation" / "learning.png"


def _free_path(folder: Path, name: str, content: dict[str, Any]) -> Path:
    """Return the path of a file that does not exist, or was made with the same settings."""
    for number in itertools.count(1):
        path = folder / f"{name}{f'_{number}' if number > 1 else ''}.json"
        if not path.exists() or _made_with(_read(path)) == _made_with(content):
            return path
    raise AssertionError("unreachable")


def _with_gap(text: str, content: dict[str, Any], path: Path) -> str:
    """Return the JSON of an evaluation, with the gap to training tasks of the file that it replaces if it has none."""
    before = _read(path) if path.exists() else {}
    if content.get("train_gap") is not None or before.get("train_gap") is None:
        return text
    kept = content | {
        "train_gap": before["train_gap"],
        "evaluation": content["evaluation"] | {"train_gap": True},
    }
    return json.dumps(kept, indent=1, allow_nan=False) + "\n"


def _made_with(content: dict[str, Any]) -> dict[str, Any]:
    """Return the settings and versions that an evaluation's numbers follow from."""
    provenance = content.get("provenance", {})
    config = provenance.get("config", {})
    return {
        **{key: content.get(key) for key in ("family", "iteration", "env_steps")},
        # The gap to training tasks changes no other number; settings that an older version lacks have their defaults.
        "evaluation": {**_plain_settings(), **(content.get("evaluation") or {}), "train_gap": None},
        **{key: config.get(key) for key in ("agent", "family", "training")},
        **{key: provenance.get(key) for key in ("metarl", "commit", "versions")},
    }


def _plain_settings() -> dict[str, Any]:
    return json.loads(json.dumps(asdict(EvaluationSettings())))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # damaged, or another program's: it is kept
        return {}
    return content if isinstance(content, dict) else {}
