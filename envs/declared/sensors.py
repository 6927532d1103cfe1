"""Contact sensors of bodies and geoms: a model gets those that its terms ask for."""

from __future__ import annotations

from collections.abc import Mapping

import mujoco

from metarl.envs.declared.columns import Columns

FOUND, FORCE = (int(d) for d in (mujoco.mjtConDataField.mjCONDATA_FOUND, mujoco.mjtConDataField.mjCONDATA_FORCE))
NET_FORCE = 3  # the sensor's way to sum over contacts, in the world's frame


class ContactSensors:
    """Places in `sensordata` of contact sensors, which are added after those that the model has."""

    def __init__(self, first: int, present: Mapping[str, int] | None = None):
        """first: number of a model's sensor readings without them. present: places of sensors that it has, by name."""
        self._next, self._present = first, dict(present or {})
        self._added: dict[tuple[str, int], int] = {}

    def found(self, names: tuple[str, ...]) -> Columns:
        """Return the columns of the number of contacts of these bodies, or geoms where no body has the name."""
        return Columns([self._present[n] if n in self._present else self._place(n, FOUND) for n in names])

    def force(self, names: tuple[str, ...]) -> Columns:
        """Return the columns of the force of these on what they touch, in the world's frame, three each."""
        return Columns([self._place(name, FORCE) + axis for name in names for axis in range(3)])

    def _place(self, name: str, data: int) -> int:
        if (name, data) not in self._added:
            self._added[name, data] = self._next
            self._next += 3 if data == FORCE else 1
        return self._added[name, data]

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Add the sensors that were asked for to a specification."""
        bodies = {body.name for body in spec.bodies}
        for name, data in self._added:
            kind = mujoco.mjtObj.mjOBJ_BODY if name in bodies else mujoco.mjtObj.mjOBJ_GEOM
            add_contact_sensor(spec, f"{name} {'force' if data == FORCE else 'contact'}", kind, name, data)


def add_contact_sensor(spec: mujoco.MjSpec, name: str, kind: mujoco.mjtObj, of: str, data: int = FOUND) -> None:
    """Add a sensor of the number of contacts of a geom or a body, or of the force of them all."""
    spec.add_sensor(
        name=name,
        type=mujoco.mjtSensor.mjSENS_CONTACT,
        objtype=kind,
        objname=of,
        intprm=[1 << data, NET_FORCE if data == FORCE else 0, 1],
    )
