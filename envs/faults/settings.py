"""Settings of faults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.bounds import newer

FaultKind = Literal[
    "dead",
    "weak",
    "stuck",
    "saturated",
    "reversed",
    "dead_band",
    "locked",
    "encoder_offset",
    "encoder_scale",
    "encoder_drift",
    "encoder_frozen",
    "sensor_lost",
    "delay",
    "slack",
    "short_leg",
]


@dataclass(frozen=True, kw_only=True)
class FaultSettings:
    """Faults that tasks of a family may have; none by default."""

    faults: tuple[FaultKind, ...] = newer((), before=())
    """Kinds of faults, of which a task has one. Empty: no faults. `metarl families show NAME --family.faults KIND ...`
    says what each does."""
    fault_share: float = newer(1.0, before=1.0, above=0, at_most=1)
    """Share of tasks that have a fault."""
    fault_places: tuple[str, ...] = newer((), before=())
    """Joints, actuators, observation terms or groups of joints that can fail, by name or by regular expression
    such as .*_calf; one element of a term, such as gravity_x, by name. A group fails as a whole. Empty: each joint with
    an actuator."""
    fault_held_out: tuple[str, ...] = newer((), before=())
    """Places, or groups of them, that fail in held-out tasks and never in training tasks. Empty: all fail in both. All,
    as by .*: training tasks have no fault."""
    fault_severity: tuple[float, float] = newer((0.5, 1.0), before=(0.5, 1.0), at_least=-1, at_most=1, pair=True)
    """Least and largest severity, in [0, 1]; each kind says what 0 and 1 mean. Of an encoder's offset, scale and drift
    also from -1: an error of the other sign."""
    fault_onset: tuple[int, int] = newer((0, 0), before=(0, 0), at_least=0, pair=True)
    """Fewest and most control steps of a trial before the fault begins. 0: it is there from the start."""
    fault_duration: tuple[int, int] = newer((0, 0), before=(0, 0), at_least=0, pair=True)
    """Fewest and most control steps that the fault lasts. 0, 0: it lasts for good."""
    fault_repeats: int = newer(0, before=0, at_least=0, at_most=1000)
    """How often the fault comes back, with a severity drawn anew."""
    fault_pause: tuple[int, ...] = newer((), before=(), at_least=0)
    """Fewest and most control steps between two of its times. 0 0: the fault jumps from one severity to the next.
    Empty: a pause is as long as a duration."""
