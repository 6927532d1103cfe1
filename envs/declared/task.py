"""A declared task on a robot: the terms of a family, and the memory that they need."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from metarl.envs.arrays import Array
from metarl.envs.declared.catalogue import TakesSettings, WrongSetting
from metarl.envs.declared.entries import ObservationEntry, RewardEntry, TaskEntries
from metarl.envs.declared.events import give_commands, push
from metarl.envs.declared.history import remember
from metarl.envs.declared.observations import OBSERVATIONS
from metarl.envs.declared.rewards import REWARDS
from metarl.envs.declared.rig import Rig
from metarl.envs.state import State, StateFunction
from metarl.envs.terms import Element, ObservationTerm, RewardTerm
from metarl.envs.text import near


def task_terms(
    rig: Rig,
    task: TaskEntries,
    told: Mapping[str, str] | None = None,
    pushed: str | None = None,
    factor: str | float = 1.0,
) -> dict[str, Any]:
    """Return the fields of a `TaskFamily` that the entries describe.

    told: parameters of the family by the component of the command that they are. pushed: parameter that is the velocity
    of a push; None: the entry has it. factor: number or parameter that noise is multiplied by. ValueError names the
    entry that is wrong, as in a robot's file.
    """
    give_commands(rig, task.commands, told or {})
    observed = {
        name: _observation(rig, entry, f"observation.{name}", name, factor) for name, entry in task.observation.items()
    }
    privileged = {name: _told(rig, entry, f"privileged.{name}", name) for name, entry in task.privileged.items()}
    _require_own_names(observed, "observation")
    _require_own_names(privileged, "privileged")
    rewards = {name: _reward(rig, entry, f"reward.{name}", task) for name, entry in task.rewards.items()}
    if task.pushes is not None:
        push(rig, task.pushes, pushed)
    trackers = rig.trackers.values()
    return {
        "observation": observed,
        "privileged": privileged,
        "rewards": rewards,
        "terminate": rig.fallen,
        "memory": {name: shape for tracker in trackers for name, shape in tracker.memory.items()},
        "begin": _together([tracker.begin for tracker in trackers]),
        "actuate": _together([tracker.actuate for tracker in trackers]),
        "update": _together([tracker.update for tracker in trackers]),
    }


def _together(functions: list[Callable[..., None] | None]) -> Callable[..., None] | None:
    """Return a function that calls each in turn; None if there is none."""
    known = [function for function in functions if function is not None]
    if len(known) <= 1:
        return known[0] if known else None

    def every(*arguments: State | Array) -> None:
        for function in known:
            function(*arguments)

    return every


def _made(kinds: Mapping[str, TakesSettings], rig: Rig, entry: ObservationEntry | RewardEntry, where: str) -> Any:
    if entry.term not in kinds:
        raise ValueError(f"{where}: there is no term {entry.term!r}{near(entry.term, kinds)}")
    kind = kinds[entry.term]
    try:
        kind.check(entry.settings)
        return kind.make(rig, **entry.settings)
    except WrongSetting as error:
        raise ValueError(f"{where} {error}") from error
    except ValueError as error:
        raise ValueError(f"{where}: this robot has no {entry.term!r}: {error}") from error


def _observation(rig: Rig, entry: ObservationEntry, where: str, name: str, factor: str | float) -> ObservationTerm:
    function, named = _named(rig, entry, where, name)
    if entry.scale != 1.0:
        named = tuple(Element(e.name, f"{1 / entry.scale:g} {e.unit}".removesuffix(" 1")) for e in named)
    term = ObservationTerm(function, named, entry.noise, entry.scale, entry.clip)
    return term if entry.history == 1 else remember(rig, name, term, entry.history, factor)


def _told(rig: Rig, entry: ObservationEntry, where: str, name: str) -> ObservationTerm:
    """Return a privileged term, which is as it is."""
    function, named = _named(rig, entry, where, name)
    if (entry.noise, entry.scale, entry.history) != (0.0, 1.0, 1) or entry.clip < math.inf:
        raise ValueError(f"{where}: a privileged term has neither noise, scale, clip nor history; leave them out")
    return ObservationTerm(function, named)


def _named(rig: Rig, entry: ObservationEntry, where: str, name: str) -> tuple[StateFunction, tuple[Element, ...]]:
    function, named = _made(OBSERVATIONS, rig, entry, where)
    if entry.term == "python":
        named = tuple(Element(f"{name}{e.name}", e.unit) for e in named)
    if entry.names:
        if len(entry.names) != len(named):
            raise ValueError(f"{where}.names has {len(entry.names)} names, but the term has {len(named)} elements")
        named = tuple(Element(name, e.unit) for name, e in zip(entry.names, named, strict=True))
    return function, named


def _require_own_names(terms: Mapping[str, ObservationTerm], where: str) -> None:
    """Raise ValueError if two elements have the same name."""
    owner: dict[str, str] = {}
    for name, term in terms.items():
        for element in term.elements:
            if element.name in owner:
                raise ValueError(
                    f"{where}: {element.name!r} is an element of {owner[element.name]} and of {name}; give those of "
                    f"one other names: {name}: {{names: [...]}}"
                )
            owner[element.name] = name


def _reward(rig: Rig, entry: RewardEntry, where: str, task: TaskEntries) -> RewardTerm:
    function = _made(REWARDS, rig, entry, where)
    weight = entry.weight * (rig.dt if task.rewards_per_second else 1.0)
    return RewardTerm(function, -weight if REWARDS[entry.term].cost else weight)
