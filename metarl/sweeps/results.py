"""Compute the result of a sweep from its journal and its variants' folders: numbers only."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from metarl.evaluation.sweep_result import SweepResult, TaskAxis, TaskMap, Variant
from metarl.files import plain
from metarl.provenance import provenance
from metarl.sweeps.effects import effects_of
from metarl.sweeps.generalisation import generalisation_of
from metarl.sweeps.study import Study
from metarl.sweeps.yardstick import Yardstick

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def variants_of(study: Study) -> list[Variant]:
    """Return every variant of a sweep, by number."""
    return [_variant(trial, study) for trial in study.trials()]


def _variant(trial: FrozenTrial, study: Study) -> Variant:
    whole = len(trial.params) == len(study.sweep.dimensions)
    params = study.sweep.point(trial.params) if whole else dict(trial.params)
    value = trial.value if trial.state == TrialState.COMPLETE else None
    return Variant(trial.number, STATES.get(trial.state, "running"), params, value, dict(trial.user_attrs))


def best_of(ended: Sequence[Variant]) -> Variant:
    """Return the best variant; where seeds vary, of the configuration whose mean over seeds is highest."""
    groups: dict[str, list[Variant]] = {}
    for variant in ended:
        params = {k: v for k, v in variant.params.items() if k != "training.seed"}
        groups.setdefault(json.dumps(params, sort_keys=True, default=list), []).append(variant)
    most = max(map(len, groups.values()))

    def score(group: list[Variant]) -> float:
        return float(np.mean(np.array([variant.objective for variant in group], dtype=float)))

    winners = max((group for group in groups.values() if len(group) == most), key=score)
    return max(winners, key=lambda variant: variant.objective or 0.0)


def result_of(
    study: Study, stick: Yardstick, variants: Sequence[Variant], axes: Sequence[TaskAxis], maps: Sequence[TaskMap]
) -> SweepResult:
    """Return the result of a sweep. variants: at least one of them complete. axes, maps: see `task_maps`."""
    ended = [variant for variant in variants if variant.complete]
    best = best_of(ended)
    return SweepResult(
        name=study.folder.resolve().name,
        settings=plain(study.sweep.fingerprint()),
        split=stick.split,
        ranges={name: (d.low, d.high) for name, d in stick.wide.items()},
        unshared=stick.unshared,
        best=best.number,
        variants=tuple(variants),
        effects=effects_of(study, ended),
        generalisation=generalisation_of(study, stick, ended, best, maps),
        maps=tuple(maps),
        provenance=plain(provenance(study.sweep.base)),
        axes=tuple(axes),
    )
