"""Arrays of both libraries: state functions are written once, for NumPy on the CPU and for torch on a device.

They use functions of the array API standard (`state.xp`: NumPy itself, or torch by array-api-compat) whose shapes do
not depend on values, so that a device can replay them without the host.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""np.ndarray, or torch.Tensor where the simulations are on a device."""

_kept: dict[tuple[int, Any, Any], tuple[weakref.ref[np.ndarray], Any]] = {}


@functools.cache
def torch_namespace() -> Any:
    """Return torch with the names and arguments of the array API standard."""
    import array_api_compat.torch as namespace

    return namespace


def namespace(array: Array) -> Any:
    """Return the array API functions of an array's library."""
    return np if isinstance(array, np.ndarray) else torch_namespace()


def like(values: np.ndarray, array: Array) -> Array:
    """Return constants on the device of `array`, floats in its precision. They are copied once and must not change."""
    if isinstance(array, np.ndarray):
        return values
    key = id(values), array.device, array.dtype
    if key not in _kept:
        here = torch_namespace().asarray(values, device=array.device)
        if here.dtype.is_floating_point and array.dtype.is_floating_point:
            here = here.to(array.dtype)
        _kept[key] = weakref.ref(values, lambda _, kept=_kept: kept.pop(key, None)), here
    return _kept[key][1]


def rows(array: Array) -> Array:
    """Transpose [S, n] to [n, S] for computations by row; on the CPU each row is contiguous."""
    return np.ascontiguousarray(array.T) if isinstance(array, np.ndarray) else array.T


def none(mask: Array) -> bool:
    """Return whether no element is True; False for a device's array, which would have to be waited for."""
    return isinstance(mask, np.ndarray) and not np.count_nonzero(mask)  # much less overhead than mask.any()


def write(target: Array, values: Array, where: Array) -> None:
    """Write values to target where the mask is True; the mask is broadcast over the last axes of target."""
    where = where.reshape(*where.shape, *(1,) * (target.ndim - where.ndim))
    if isinstance(target, np.ndarray):
        np.copyto(target, values, where=where, casting="same_kind")
    else:
        target.copy_(torch_namespace().where(where, values, target))
