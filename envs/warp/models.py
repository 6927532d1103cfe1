"""Models of many tasks as one mujoco-warp model: fields that vary between worlds, and fields that cannot.

mujoco-warp has one model whose arrays may have a row per world. A field of `PER_WORLD` varies; all other fields must be
equal in all tasks, except those listed here with the reason. Heightfields are joined: each world has its own.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import mujoco_warp
import numpy as np

from metarl.envs.simulation import Unsupported

NEWTON_ITERATIONS = 50
"""Limit of the iterations of Newton's method where it replaces another solver; it needs a few."""
PLANE, HFIELD = int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD)


def _fields(kind: Any, per_world: bool) -> tuple[str, ...]:
    """Return fields of a mujoco-warp class: those that can have a row per world, or the others."""
    rows = {f.name: getattr(f.type, "shape", None) or ("",) for f in dataclasses.fields(kind)}
    return tuple(name for name, shape in rows.items() if (shape[0] == "*") == per_world)


PER_WORLD = (*_fields(mujoco_warp.Model, True), *(f"opt.{name}" for name in _fields(mujoco_warp.Option, True)))
GROUND = ("hfield_size", "hfield_nrow", "hfield_ncol", "hfield_adr", "hfield_data")
STRUCTURE = ("body_simple", "M_rownnz", "M_rowadr", "M_colind", "mapM2M", "D_rownnz", "D_rowadr", "D_diag", "D_colind")
"""Fields of the sparsity of inertia, which depends on inertias aligned with joints; the fullest one holds for all."""
WITHOUT_CONSEQUENCE = (
    *("nhfield", "nhfielddata", *GROUND),  # joined
    *("nC", "nD", "nM", "mapM2D", "mapD2M", *STRUCTURE),  # the base's, see `_fullest`
    "eq_active0",  # each world's data say what is active
    *("nkey", "key_time", "key_qpos", "key_qvel", "key_act", "key_mpos", "key_mquat", "key_ctrl"),  # nobody reads them
    "dof_length",  # only islands that sleep, which are refused, read it
)
READ_BESIDES = (
    *("actuator_plugin", "body_plugin", "geom_plugin", "sensor_plugin", "plugin_attradr", "sensor_needstage"),
    "opt.jacobian",
)
"""Fields that `put_model` derives others from and does not keep."""
SHARED = (
    *(name for name in _fields(mujoco_warp.Model, False) if name not in (*WITHOUT_CONSEQUENCE, "opt")),
    *(f"opt.{name}" for name in _fields(mujoco_warp.Option, False)),
    *READ_BESIDES,
)
FLAGS = {
    "has_tendon_stiffness": ("tendon_stiffness", "tendon_stiffnesspoly"),
    "has_tendon_damping": ("tendon_damping", "tendon_dampingpoly"),
    "has_fluid": ("opt.wind", "opt.density", "opt.viscosity"),
    "has_efm_actuator": ("actuator_gainprm", "actuator_biasprm"),
    "flg_adhesion": ("geom_adhesion", "pair_adhesion"),
    "flg_surfacevel": ("geom_surfacevel",),
}
"""Flags of computations that mujoco-warp skips where fields are zero; set if they are not zero in some task."""
JOINTS = (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT)
"""Transmissions of actuators to a joint."""
ADDED = tuple(f"{kind}_{what}" for kind in ("dof", "tendon") for what in ("damping", "dampingpoly", "armature"))
"""Fields of joints and tendons to which MuJoCo adds those of their actuators."""
DELAYS = ("actuator_delay", "sensor_delay")
FOLDED = ("dof_armature", "tendon_armature", *DELAYS)
"""Fields that `put_model` takes as they are, and mujoco-warp would simulate otherwise than MuJoCo."""
NEARLY = 1e-3
"""Largest distance of a delay from a whole number of steps, in steps, that is one of rounding."""
OWNERS = {
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "jnt": mujoco.mjtObj.mjOBJ_JOINT,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "site": mujoco.mjtObj.mjOBJ_SITE,
    "pair": mujoco.mjtObj.mjOBJ_PAIR,
    "eq": mujoco.mjtObj.mjOBJ_EQUALITY,
    "tendon": mujoco.mjtObj.mjOBJ_TENDON,
    "actuator": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "sensor": mujoco.mjtObj.mjOBJ_SENSOR,
}
"""Kind of element of an array's rows, by the array's prefix."""


@dataclass(frozen=True)
class Mix:
    """Models of one layout."""

    models: tuple[mujoco.MjModel, ...]
    """Models as mujoco-warp gets them, [K]: a flat ground among others is a heightfield, too."""
    base: mujoco.MjModel
    """Model with the shared values."""
    varying: frozenset[str]
    """Fields of `PER_WORLD` in which the models differ."""
    grounds: bool
    """Whether each world has a heightfield of its own."""

    def table(self, name: str) -> np.ndarray:
        """Return the models' values of a field as `put_model` would compute them for each, [K, ...]."""
        rows = np.stack([value(model, name) for model in self.models])
        if name == "geom_dataid" and self.grounds:
            rows[:, self.base.geom_type == HFIELD] = np.arange(len(rows))[:, None]
        return rows

    def holds(self, other: Mix) -> bool:
        """Return whether arrays made for this mix have room for another's values."""
        return (
            len(other.models) == len(self.models)
            and other.varying <= self.varying
            and other.base.nC <= self.base.nC
            and self.grounds >= other.grounds
            and (not self.grounds or [m.nhfielddata for m in other.models] == [m.nhfielddata for m in self.models])
            and set(other.flags()) <= set(self.flags())
        )

    def flags(self) -> tuple[str, ...]:
        """Return the flags of mujoco-warp's model that some model needs."""
        return tuple(flag for flag, names in FLAGS.items() if any(self.table(n).any() for n in names))

    def ground(self, name: str) -> np.ndarray:
        """Return a field of `GROUND` for the heightfields one after the other, [K, ...]."""
        rows = [getattr(model, name) for model in self.models]
        if name == "hfield_adr":
            sizes = [model.nhfielddata for model in self.models]
            rows = [row + offset for row, offset in zip(rows, np.cumsum([0, *sizes[:-1]]), strict=True)]
        return np.concatenate(rows)


def mixed(models: Sequence[mujoco.MjModel], like: mujoco.MjModel | None = None) -> Mix:
    """Combine models, and `like`, as worlds of one model; ValueError names what cannot vary.

    like: a model whose shared values must be equal, too; it needs no world.
    """
    every = [*models, *([like] if like is not None else [])]
    for model in every:
        _require_supported(model)
    every = _with_grounds(every)
    base = _as_simulated(_fullest(every))
    if base.opt.solver != raw(base, "opt.solver"):
        base, options = copy.copy(base), {name: raw(base, f"opt.{name}") for name in ("solver", "iterations")}
        for name, chosen in options.items():
            setattr(base.opt, name, chosen)
    names = SHARED if any(model.nsensor for model in every) else [name for name in SHARED if name != "site_size"]
    _require_equal(every, base, names)
    varying = frozenset(name for name in PER_WORLD if _differ(value(model, name) for model in every))
    if {"body_mass", "opt.density", "opt.viscosity", "opt.wind"} & varying and _has_fluid(every):
        _require_equal_arrays("body_mass, between none and some,", [model.body_mass >= 1e-15 for model in every], base)
    ours = tuple(every[: len(models)])
    grounds = any(model.nhfield for model in ours) and any(_differ(getattr(m, n) for m in every) for n in GROUND)
    return Mix(ours, base, varying | ({"geom_dataid"} if grounds else set()), grounds)


def value(model: mujoco.MjModel, name: str) -> np.ndarray:
    """Return a field of `PER_WORLD` as `put_model` computes it for the model."""
    if name == "opt.tolerance":
        return np.array(max(model.opt.tolerance, 1e-6))
    if name == "opt.impratio_invsqrt":
        return np.array(1 / np.sqrt(max(model.opt.impratio, mujoco.mjMINVAL)))
    if name in ADDED:
        return _with_actuators(model, name)
    if name in DELAYS:
        return _between_steps(model, name)
    return np.asarray(raw(model, name))


def raw(model: mujoco.MjModel, name: str) -> Any:
    """Return a field of the model or its options, with Newton's method in place of PGS, which has the same solution.

    Newton's method gets the iterations that it needs to converge, of which PGS may be given fewer on purpose.
    """
    if model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
        if name == "opt.solver":
            return int(mujoco.mjtSolver.mjSOL_NEWTON)
        if name == "opt.iterations":
            return max(model.opt.iterations, NEWTON_ITERATIONS)
    return getattr(model.opt, name[4:], 0) if name.startswith("opt.") else getattr(model, name, 0)


def _as_simulated(base: mujoco.MjModel) -> mujoco.MjModel:
    """Return a model whose own fields are those of `FOLDED`: mujoco-warp reads the base's as they are."""
    if all(np.array_equal(value(base, name), getattr(base, name)) for name in FOLDED):
        return base
    made = copy.copy(base)
    for name in FOLDED:
        getattr(made, name)[:] = value(base, name)
    made.actuator_armature[:] = 0
    return made


def _between_steps(model: mujoco.MjModel, name: str) -> np.ndarray:
    """Return delays, of which those of held signals by whole steps end in the middle of a step.

    mujoco-warp's time is a float32, with which a whole number of steps becomes one more in a long episode.
    """
    delay, step = getattr(model, name), model.opt.timestep
    if not delay.any():
        return delay
    whole, held = np.round(delay / step), getattr(model, name.replace("delay", "history"))[:, 1] == 0
    return np.where(held & (whole > 0) & (np.abs(delay / step - whole) < NEARLY), (whole - 0.5) * step, delay)


def _with_actuators(model: mujoco.MjModel, name: str) -> np.ndarray:
    """Return damping or armature of joints or tendons plus that of their actuators, as MuJoCo adds it at each step."""
    kind, what = name.split("_")
    total, added = getattr(model, name).copy(), getattr(model, f"actuator_{what}")
    for k in range(model.nactuator):
        of, target = int(model.actuator_trntype[k]), int(model.actuator_trnid[k, 0])
        factor = model.actuator_gear[k, 0] ** 2
        if kind == "dof" and of in JOINTS:
            total[model.dof_jntid == target] += added[k] * factor
        elif kind == "tendon" and of == mujoco.mjtTrn.mjTRN_TENDON:
            total[target] += added[k] * factor
    return total


def _differ(values: Iterable[Any]) -> bool:
    values = iter(values)
    first = np.asarray(next(values))
    return any(not np.array_equal(first, other, equal_nan=first.dtype.kind == "f") for other in values)


def _fullest(models: Sequence[mujoco.MjModel]) -> mujoco.MjModel:
    """Return the model whose inertia is the fullest: its pattern includes those of the others."""
    return max(models, key=lambda model: model.nC)


def _has_fluid(models: Sequence[mujoco.MjModel]) -> bool:
    return any(m.opt.density > 0 or m.opt.viscosity > 0 or m.opt.wind.any() for m in models)


def _require_supported(model: mujoco.MjModel) -> None:
    """Raise ValueError for features that mujoco-warp ignores silently."""
    if model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_SLEEP:
        raise Unsupported("the gpu simulator cannot let islands sleep; use simulator cpu, or clear the option's flag")
    if model.opt.disableactuator:
        raise Unsupported("the gpu simulator cannot disable groups of actuators; use simulator cpu, or remove them")
    reached = (*JOINTS, mujoco.mjtTrn.mjTRN_TENDON)
    for k in np.flatnonzero(model.actuator_armature).tolist():
        if int(model.actuator_trntype[k]) not in reached:
            raise Unsupported(
                f"the gpu simulator leaves out the inertia of a rotor (armature of {_element(model, 'actuator_', k)}), "
                "but of one at a joint or a tendon; use simulator cpu, or leave it out"
            )
    for kind in ("jnt", "tendon"):
        margin = getattr(model, f"{kind}_margin")
        if not margin.any():
            continue
        low, high = getattr(model, f"{kind}_range").T
        limited = getattr(model, f"{kind}_limited").astype(bool) & (2 * margin > high - low)
        if kind == "jnt":
            limited &= np.isin(model.jnt_type, (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE))
        for k in np.flatnonzero(limited).tolist():
            raise Unsupported(
                f"the gpu simulator feels one end alone of a range whose margin is more than half of it (margin of "
                f"{_element(model, f'{kind}_', k)}); use simulator cpu, or a smaller margin"
            )
    for k in np.flatnonzero((model.sensor_interval[:, 0] > 0) & (model.sensor_history[:, 0] > 0)).tolist():
        raise Unsupported(
            f"the gpu simulator samples a sensor with an interval and a history at other steps (interval of "
            f"{_element(model, 'sensor_', k)}); use simulator cpu, or leave out its interval"
        )


def _require_equal(models: Sequence[mujoco.MjModel], base: mujoco.MjModel, names: Iterable[str]) -> None:
    for name in names:
        _require_equal_arrays(name, [np.asarray(raw(model, name)) for model in models], base)
    if any((model.body_simple < base.body_simple).any() for model in models):
        raise Unsupported(_refusal("which bodies' inertias are aligned with their joints", "body_simple"))


def _require_equal_arrays(name: str, values: Sequence[np.ndarray], base: mujoco.MjModel) -> None:
    """Raise ValueError unless all are equal."""
    first = values[0]
    for k, other in enumerate(values):
        if not np.array_equal(first, other):
            place = f"task {k}"
            if first.shape == other.shape and first.ndim:
                row = int(np.argwhere(first != other)[0][0])
                place += f" differs in {_element(base, name, row)}"
            else:
                place += f" has {_told(other)}, task 0 has {_told(first)}"
            raise Unsupported(_refusal(name, place))


def _refusal(name: str, place: str) -> str:
    return (
        f"the gpu simulator cannot vary {name} from task to task ({place}); use simulator cpu, or a family or settings "
        "in which all tasks agree in it"
    )


def _told(values: np.ndarray) -> str:
    return f"{values.item():g}" if values.size == 1 else f"one of shape {list(values.shape)}"


def _element(model: mujoco.MjModel, name: str, row: int) -> str:
    prefix = name.partition("_")[0]
    named = prefix in OWNERS and mujoco.mj_id2name(model, OWNERS[prefix], row)
    return f"{prefix} {named!r}" if named else f"row {row}"


def _with_grounds(models: Sequence[mujoco.MjModel]) -> list[mujoco.MjModel]:
    """Return the models with heightfields in place of planes where others have them."""
    donor = next((model for model in models if model.nhfield), None)
    if donor is None:
        return list(models)
    if donor.nhfield > 1 and any(_differ(getattr(model, name) for model in models) for name in GROUND):
        raise Unsupported(_refusal("heightfields", f"the robot has {donor.nhfield} of them, and one can vary"))
    return [model if model.nhfield else _flat_field(model, donor) for model in models]


def _flat_field(model: mujoco.MjModel, donor: mujoco.MjModel) -> mujoco.MjModel:
    """Return the model with a flat heightfield of the donor's extent where it has a plane and the donor has one."""
    made = copy.copy(donor)
    for source, target in ((model, made), (model.opt, made.opt)):
        for name in dir(source):
            values, there = getattr(source, name), getattr(target, name)
            if isinstance(values, np.ndarray) and values.shape == there.shape and there.flags.writeable:
                there[...] = values
            elif source is model.opt and isinstance(values, int | float) and not name.startswith("_"):
                setattr(target, name, values)
    made.hfield_data[:] = 0
    for g in np.flatnonzero((donor.geom_type == HFIELD) & (model.geom_type == PLANE)):
        for name in ("geom_type", "geom_dataid", "geom_size", "geom_aabb", "geom_rbound"):
            getattr(made, name)[g] = getattr(donor, name)[g]
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, model.geom_quat[g])
        turn = turn.reshape(3, 3)
        aside = turn.T @ (donor.geom_pos[g] - model.geom_pos[g])
        made.geom_pos[g] = model.geom_pos[g] + turn @ (aside * (1, 1, 0))  # height 0 lies in the plane
    return made
