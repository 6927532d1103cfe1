"""Beliefs as they were saved before `metarl.agents.beliefs`, in the form that it loads."""

from __future__ import annotations

from typing import Any

import torch

from metarl.agents.prototype.core import KNOWN, PREVIOUS, STEPS
from metarl.agents.sb3.tuned import ADAM, MOMENTS

FIELDS = ("previous_action", "previous_reward", "start", "ended")
"""Fields of a memory's belief, beside which its states were saved."""


def upgraded(state: dict[str, Any]) -> dict[str, Any]:
    """Return the saved state of a belief in today's form; one that has it already is returned as it is."""
    if set(FIELDS) <= set(state) and "memory" not in state:
        return {
            "memory": {name: value for name, value in state.items() if name not in FIELDS},
            **{name: state[name] for name in FIELDS},
        }
    memory = state.get("memory")
    if isinstance(memory, dict) and PREVIOUS in memory and KNOWN not in memory:  # a start's flag says it of a new one
        return {**state, "memory": {**memory, KNOWN: torch.ones_like(memory[STEPS])}}
    if set(state) == {"parameters", "steps"}:  # before there were other rules of inner steps than a fixed one
        return {**state, "rule": {}}
    if isinstance(state.get("tuned"), list):
        if not state["tuned"]:
            raise ValueError("it was saved before any shot was learned from; start without a belief instead")
        return {"shots": state["shots"], "tuned": _stacked(state["tuned"])}
    return state


def _stacked(tuned: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return policies with their optimisers and normalisers, one a task, as tensors with a task axis."""
    names = list(tuned[0]["policy"])
    stacked = {"policy": {name: torch.stack([own["policy"][name] for own in tuned]) for name in names}}
    for kind in ADAM:
        stacked[kind] = {
            name: torch.stack([_adam(own, i, kind, own["policy"][name]) for own in tuned])
            for i, name in enumerate(names)
        }
    for normaliser in ("inputs", "returns"):
        stacked[normaliser] = {
            name: torch.stack([torch.as_tensor(own[normaliser][name], dtype=torch.float64) for own in tuned])
            for name in MOMENTS
        }
    return stacked


def _adam(own: dict[str, Any], index: int, kind: str, parameter: torch.Tensor) -> torch.Tensor:
    """Return a part of Adam's state for a parameter; zeros before its first step."""
    kept = own["optimiser"]["state"].get(index)
    if kept is not None:
        return kept[kind]
    return torch.zeros(()) if kind == "step" else torch.zeros_like(parameter)
