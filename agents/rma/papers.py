"""Published forms of `rma`, by the names that may stand after --agent."""

from __future__ import annotations

from metarl.agents.papers import Paper

RMA_PAPERS: dict[str, Paper] = {
    "roa": Paper(
        "rma",
        {"stages": "roa"},
        "regularised online adaptation: teacher and student at once, each pulled towards the other (Fu 2022)",
    ),
}
"""Methods by name, all of agent rma."""
