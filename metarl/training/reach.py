"""How far back a memory of attention reads, where a trial is longer."""

from __future__ import annotations

import math

from metarl.agents.cores.settings import MemorySettings
from metarl.agents.slots import SlotReader
from metarl.runs.run import Run

WINDOWED = ("transformer", "snail")
"""Memories whose reach is that of windows, one after the other."""


def reach_note(run: Run) -> str:
    """Return the note that the memory has lost the beginning of a trial before its end; empty if it has not.

    Nothing is said of `history` and `stack`, which are to remember the last slots alone.
    """
    settings, agent, family = run.config.agent, run.agent, run.family
    if not isinstance(settings, MemorySettings) or not isinstance(agent, SlotReader):
        return ""
    reach, shots = agent.core.reach, run.config.training.adaptations + 1
    slots = (family.horizon + 1) * shots
    if settings.memory not in WINDOWED or reach is None or reach + 1 >= slots:
        return ""
    window = 1 + math.ceil((slots - 1) * (settings.attention_window - 1) / reach)  # the reach is in proportion to both
    layers = math.ceil((slots - 1) * settings.memory_layers / reach)
    return (
        f"agent.memory={settings.memory} reads {reach} slots back ({reach * family.dt:.3g} s), and a trial has {slots} "
        f"({family.horizon * shots * family.dt:.3g} s): towards its end the beginning is forgotten. "
        f"agent.attention_window={window} or agent.memory_layers={layers} reads all of it"
    )
