"""Settings of memories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.agents.agent_settings import AgentSettings
from metarl.bounds import bounded


@dataclass(frozen=True, kw_only=True)
class MemorySettings(AgentSettings):
    """Settings of agents that hold a memory.

    gru, lstm and linear remember whole trials at little cost: take one of them first; lstm and linear train faster on a
    CPU. history is enough, and simplest, where a second of the past tells the task, as a payload or a friction does.
    transformer, snail and external pick out single past slots, which the others blur, and cost several times as much.
    """

    memory: Literal["gru", "lstm", "linear", "transformer", "snail", "external", "history", "stack"] = "gru"
    """gru (Cho 2014); lstm (Hochreiter 1997); linear, a linear recurrence (Orvieto 2023); transformer, causal and over
    the last slots (Transformer-XL, Dai 2019); snail, convolutions and attention (Mishra 2018); external, rows that an
    LSTM reads and writes (Santoro 2016); history, the last slots read by a convolution (RMA, Kumar 2021); stack, the
    last slots side by side."""
    hidden_size: int = bounded(64, at_least=1)
    """Width of the memory, and of its features."""
    history_length: int = bounded(20, at_least=2)
    """Slots that history and stack remember, the present one among them."""
    memory_layers: int = bounded(2, at_least=1)
    """Layers of linear and transformer, and stages of snail, one after the other."""
    attention_window: int = bounded(64, at_least=2)
    """Slots that each layer of transformer and snail attends to, the present one among them. A transformer reads
    memory_layers * (attention_window - 1) slots back, snail twice as many."""
    attention_heads: int = bounded(4, at_least=1)
    """Heads of each layer of transformer, and heads by which external reads and writes."""
    attention_gate: bool = False
    """Join the layers of transformer by gates instead of sums (GTrXL, Parisotto 2020)."""
    external_rows: int = bounded(32, at_least=1)
    """Rows of external."""
