"""Registry of memories."""

from __future__ import annotations

from pkgutil import resolve_name

from metarl.agents.cores.core import Core
from metarl.agents.cores.settings import MemorySettings

CORES: dict[str, str] = {
    "gru": "metarl.agents.cores.recurrent:GruCore",
    "lstm": "metarl.agents.cores.recurrent:make_lstm",
    "linear": "metarl.agents.cores.linear:LinearCore",
    "transformer": "metarl.agents.cores.transformer:TransformerCore",
    "snail": "metarl.agents.cores.snail:SnailCore",
    "external": "metarl.agents.cores.external:ExternalCore",
    "history": "metarl.agents.cores.history:HistoryCore",
    "stack": "metarl.agents.cores.history:StackCore",
}
"""Every memory by its name in the settings: a function of (input size, settings) that makes it, as module:name."""


def make_core(input_size: int, settings: MemorySettings) -> Core:
    """Return the memory that the settings ask for, with parameters that are yet to be drawn by `initialise`."""
    return resolve_name(CORES[settings.memory])(input_size, settings)
