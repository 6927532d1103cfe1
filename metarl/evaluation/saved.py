"""Reading of saved evaluations and comparisons."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from metarl.envs.strict_yaml import read_file
from metarl.errors import UsageError, describe
from metarl.evaluation.comparison import Comparison
from metarl.evaluation.results import EvaluationResult

T = TypeVar("T")
COMPARISON = "comparison.json"
"""Name of a comparison's file in its folder."""
MOST_BYTES = 2**28
"""Largest file that is read."""


def read_evaluation(path: Path) -> EvaluationResult:
    """Return the evaluation of a run that a file holds; UsageError names the file if it holds something else."""
    return _read(path, "an evaluation", "metarl evaluate RUN", EvaluationResult.from_dict)


def read_comparison(path: Path) -> Comparison:
    """Return the comparison that a file holds; UsageError names the file if it holds something else."""
    return _read(path, "a comparison", "metarl evaluate RUN RUN...", Comparison.from_dict)


def _read(path: Path, kind: str, command: str, from_dict: Callable[[Any], T]) -> T:
    data = read_json(path)
    try:
        return from_dict(data)
    except KeyError as error:
        reason = f"it has no {error.args[0]!r}"
    except (TypeError, ValueError, OverflowError) as error:
        reason = describe(error)[:200]
    raise UsageError(f"{path} is not {kind} of metarl: {reason}; make it again with {command}")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; UsageError if it cannot be read."""
    try:
        return json.loads(read_file(path, MOST_BYTES))
    except OSError as error:
        error.filename = None  # the message has it already
        raise UsageError(f"cannot read {path}: {describe(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {path}: it is no valid JSON ({describe(error)[:80]})") from error
