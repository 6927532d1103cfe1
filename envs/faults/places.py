"""Places where faults happen: those that settings name, and what can fail there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from metarl.envs.faults.kinds import KINDS
from metarl.envs.faults.parts import Anatomy, Part, listed
from metarl.envs.faults.sensors import READINGS
from metarl.envs.faults.settings import FaultKind, FaultSettings

Places = Mapping[str, tuple[Part, ...]]
"""Parts of each place by its name, in the order of the values 1, 2, ... of `fault_place`."""
HeldOut = Mapping[FaultKind, frozenset[str]]
"""Names of the places that have each kind of fault in held-out tasks only."""


def places_of(robot: Anatomy, settings: FaultSettings) -> tuple[dict[str, tuple[Part, ...]], HeldOut]:
    """Return the parts of each place where something of the settings can fail, and the held-out places of each kind."""
    named: dict[str, tuple[Part, ...]] = {}
    for pattern in settings.fault_places:
        found = robot.found(pattern, "fault_places")
        able = {name: parts for name, parts in found.items() if _able(robot, settings, parts)}
        if not able:
            reasons = listed(f"{kind} as {obstacle(robot, kind, *found.values())}" for kind in settings.faults)
            raise ValueError(f"fault_places has {pattern!r}, which can have no fault of these: {reasons}")
        named |= able
    if not settings.fault_places:
        named = {part.name: (part,) for part in robot.driven if _able(robot, settings, (part,))}
    apart = [
        part
        for pattern in settings.fault_held_out
        for parts in robot.found(pattern, "fault_held_out").values()
        for part in parts
    ]
    held_out: HeldOut = {
        kind: frozenset(
            name
            for name, parts in named.items()
            if _failing(kind, parts) & _failing(kind, apart) and not obstacle(robot, kind, parts)
        )
        for kind in settings.faults
    }
    if settings.fault_held_out and not any(held_out.values()):
        raise ValueError(
            f"fault_held_out {listed(settings.fault_held_out)} is among none of the places that fail: {listed(named)}"
        )
    return named, held_out


def _failing(kind: FaultKind, parts: Iterable[Part]) -> set[str | int]:
    """Return what a fault strikes in some parts: of sensors, elements of the observation, which terms have, too."""
    return {each for part in parts for each in (part.elements if kind in READINGS else (part.name,))}


def _able(robot: Anatomy, settings: FaultSettings, parts: tuple[Part, ...]) -> bool:
    """Return whether a place can have a fault of the settings."""
    return any(not obstacle(robot, kind, parts) for kind in settings.faults)


def obstacle(robot: Anatomy, kind: FaultKind, *places: tuple[Part, ...]) -> str:
    """Return why one of the places cannot have the fault; empty if all can."""
    checks = (KINDS[kind].obstacle(robot, part) for parts in places for part in parts)
    return next(filter(None, checks), "")


def open_places(
    robot: Anatomy,
    kind: FaultKind,
    places: Places,
    held_out: HeldOut,
    settings: FaultSettings,
) -> dict[str, tuple[float, ...]]:
    """Return the values of the places that can have a fault, of training and of held-out tasks.

    There are none of training tasks if all are held out. ValueError if there are none of held-out tasks, or for a place
    that is held out for another kind, and not for this one.
    """
    able = {name: float(i) for i, (name, parts) in enumerate(places.items(), 1) if not obstacle(robot, kind, parts)}
    if not able:
        tried = places or {part.name: (part,) for part in robot.driven}
        can = [other for other in KINDS if any(not obstacle(robot, other, parts) for parts in tried.values())]
        raise ValueError(
            f"faults has {kind!r}, which nothing here can have: {obstacle(robot, kind, *tried.values())}; "
            f"what can fail: {listed(can)}"
        )
    train = tuple(value for name, value in able.items() if name not in held_out[kind])
    apart = tuple(value for name, value in able.items() if name in held_out[kind]) if settings.fault_held_out else train
    if not apart:
        raise ValueError(
            f"fault_held_out {listed(settings.fault_held_out)} has no place where {kind!r} can happen, so no held-out "
            f"task could have it; hold out one of {listed(able)} too, or leave {kind!r} out of faults"
        )
    for other, others in held_out.items():
        if mixed := [name for name in able if name in others and name not in held_out[kind]]:
            raise ValueError(
                f"{mixed[0]} shares sensors with fault_held_out {listed(settings.fault_held_out)}, so only held-out "
                f"tasks have {other!r} there, and training tasks would have {kind!r}; hold out {mixed[0]} too, or "
                f"leave {other!r} or {kind!r} out of faults"
            )
    return {"train": train, "held_out": apart}
