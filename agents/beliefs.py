"""Beliefs as data: how shards' beliefs are joined, and how a belief is saved and loaded, for every agent.

A belief is a frozen dataclass. Its fields are tensors whose first axis is the task, [M, ...]; mappings, tuples, named
tuples and dataclasses of such; or plain values that are the same for all tasks, such as a number of shots. What can be
computed from the fields belongs in a `functools.cached_property` of the dataclass: it is neither joined nor saved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metarl.agents.agent import Agent, Belief

NOT_SAVED: Mapping[str, Any] = {"saved": False}
"""Metadata of a field that is joined but not saved: a loaded belief has there what a new one has."""
PLAIN = (int, float, str, type(None))
"""Types that are the same for all tasks; a bool is an int."""


def join(parts: Sequence[Any], order: Tensor) -> Any:
    """Join beliefs about different tasks into one about all of them.

    order: [M] int64, the place of each task in the sequence of the parts' tasks. ValueError if a plain value differs.
    """
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))[order.to(first.device)]
    if isinstance(first, PLAIN):
        if any(part != first for part in parts):
            raise ValueError(f"beliefs with different plain values cannot be joined: {', '.join(map(repr, parts))}")
        return first
    names = _names(first)
    joined = [join([_part(part, name) for part in parts], order) for name in names]
    return _rebuilt(first, dict(zip(names, joined, strict=True)))


def saved(belief: Belief) -> Any:
    """Return a belief as nested dictionaries of tensors on the CPU and plain values."""
    if isinstance(belief, Tensor):
        return belief.detach().cpu().clone()
    if isinstance(belief, PLAIN):
        return belief
    return {name: saved(_part(belief, name)) for name in _names(belief) if _is_saved(belief, name)}


def load(agent: Agent, state: Any) -> Belief:
    """Return the belief of an agent that `saved` gave; ValueError if it has other fields or shapes than a new one.

    The number of tasks is free, and so is that of envs where each has a belief of its own. So is the size of an axis
    that is empty in a new belief: it grows with the shots.
    """
    new = agent.begin(1, 1, [torch.Generator()])
    return _loaded(new, state, 2 if agent.facts.belief_per_env else 1, "")


def _loaded(like: Any, state: Any, free: int, name: str) -> Any:
    """Return the state in the form of `like`; free: the number of leading axes that may have any size."""
    if isinstance(like, Tensor):
        _require_shape(like, state, free, name)
        return state.to(like.device)
    if isinstance(like, PLAIN):
        if not isinstance(state, type(like)):
            raise ValueError(f"the belief's {name} is of type {type(state).__name__}, not {type(like).__name__}")
        return state
    names = [part for part in _names(like) if _is_saved(like, part)]
    if not isinstance(state, Mapping) or set(state) != set(names):
        found = ", ".join(map(str, state)) or "nothing" if isinstance(state, Mapping) else type(state).__name__
        where = f"the belief's {name}" if name else "the belief"
        raise ValueError(f"{where} holds {found}, not {', '.join(names) or 'nothing'}")
    inside = f"{name}." if name else ""
    parts = {part: _loaded(_part(like, part), state[part], free, inside + part) for part in names}
    return _rebuilt(like, parts)


def _require_shape(like: Tensor, state: Any, free: int, name: str) -> None:
    """Raise ValueError unless the state is a tensor of the axes of `like`, and of its sizes behind the free ones."""
    if not isinstance(state, Tensor):
        raise ValueError(f"the belief's {name} is of type {type(state).__name__}, not a tensor")
    free = min(free, like.dim())
    fixed = zip(state.shape[free:], like.shape[free:], strict=False)
    if state.dim() != like.dim() or any(ours not in (0, theirs) for theirs, ours in fixed):
        sizes = ["M", "N"][:free] + [str(size or "any") for size in like.shape[free:]]
        raise ValueError(f"the belief's {name} has shape {tuple(state.shape)}, here it is [{', '.join(sizes)}]")


def _names(whole: Any) -> list[str]:
    """Return the names of the parts of a dataclass, a mapping, a named tuple or a tuple."""
    if dataclasses.is_dataclass(whole):
        return [field.name for field in dataclasses.fields(whole)]
    if isinstance(whole, Mapping):
        return [str(name) for name in whole]
    if isinstance(whole, tuple):
        return list(getattr(whole, "_fields", map(str, range(len(whole)))))
    raise TypeError(
        f"a belief holds a {type(whole).__name__}; it must be made of tensors [M, ...], plain values, and dataclasses, "
        "mappings or tuples of them"
    )


def _part(whole: Any, name: str) -> Any:
    if isinstance(whole, Mapping):
        return whole[name]
    return getattr(whole, name) if hasattr(whole, name) else whole[int(name)]


def _rebuilt(like: Any, parts: Mapping[str, Any]) -> Any:
    """Return a whole of the kind of `like` with these parts."""
    if dataclasses.is_dataclass(like) and not isinstance(like, type):
        return dataclasses.replace(like, **parts)
    if isinstance(like, Mapping):
        return dict(parts)
    return type(like)(**parts) if hasattr(like, "_fields") else tuple(parts.values())


def _is_saved(whole: Any, name: str) -> bool:
    if not dataclasses.is_dataclass(whole):
        return True
    return next(f.metadata.get("saved", True) for f in dataclasses.fields(whole) if f.name == name)
