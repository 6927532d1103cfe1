"""Functions of the user's own as terms: file.py:function, whose code is run."""

from __future__ import annotations

import functools
from typing import Any

from metarl.envs import code
from metarl.envs.arrays import Array
from metarl.envs.state import State, StateFunction


def own_function(name: str, shape: tuple[int, ...] = ()) -> StateFunction:
    """Return the user's function of the state; ValueError if there is none, or it returns no [S, *shape]."""
    function = loaded(name)

    @functools.wraps(function)
    def checked(state: State) -> Array:
        try:
            values = function(state)
        except Exception as error:
            raise ValueError(f"{name} failed: {code.failure(error)}") from error
        wanted = (len(state.qpos), *shape)
        if tuple(getattr(values, "shape", ())) != wanted:
            found = getattr(values, "shape", type(values).__name__)
            raise ValueError(f"{name} returned {found}; it must return an array of shape {wanted}, one row a robot")
        return values

    return checked


def loaded(name: str) -> Any:
    """Return what file.py:function names, or a function that this process holds; ValueError if there is none."""
    if code.file_of(name) is None and not code.is_held(name):
        raise ValueError(f"function is {name!r}; name it as file.py:function")
    try:
        return code.load(name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name} cannot be loaded: {code.failure(error)}") from error
