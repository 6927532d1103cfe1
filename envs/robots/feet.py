"""What only a simulator knows of the feet of Gymnasium's robots: which of them touch something, and where they are."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import mujoco

from metarl.envs.arrays import Array
from metarl.envs.declared.columns import Columns
from metarl.envs.declared.sensors import ContactSensors
from metarl.envs.family import TaskFamily
from metarl.envs.state import State
from metarl.envs.terms import ObservationTerm, elements
from metarl.envs.terrain.on_terrain import Feet


def _watched(base: Callable[[], mujoco.MjSpec], sensors: ContactSensors) -> mujoco.MjSpec:
    """Return the robot with these sensors, which nothing that it does depends on."""
    spec = base()
    sensors.add_to(spec)
    return spec


def telling_contacts(family: TaskFamily, feet: Mapping[str, str]) -> TaskFamily:
    """Return the family with a privileged term, if it has `privileged_feet`: 1 for each foot that touches something.

    feet: the geom of each foot, which is its body's only one, by the foot's name.
    """
    if not family.settings.privileged_feet:
        return family
    sensors = ContactSensors(family.base().compile().nsensordata)
    found = sensors.found(tuple(feet.values()))

    def touching(state: State) -> Array:
        return state.xp.astype(found.of(state.sensordata) > 0, state.sensordata.dtype)

    term = ObservationTerm(touching, elements("1", (f"{foot}_contact" for foot in feet)))
    return dataclasses.replace(
        family,
        base=functools.partial(_watched, family.base, sensors),
        privileged={**family.privileged, "contacts": term},
    )


def standing_on(family: TaskFamily, feet: Mapping[str, str]) -> Feet | None:
    """Return the feet, middles of these geoms by name, around which the ground is told; None: `privileged_feet` is off.

    family: that of the robot on level ground.
    """
    if not family.settings.privileged_feet:
        return None
    model = family.base().compile()
    geoms = Columns([model.geom(geom).id for geom in feet.values()])
    return Feet(tuple(feet), lambda state: geoms.of(state.geom_xpos))
