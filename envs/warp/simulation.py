"""Simulations by mujoco-warp: one model whose fields have a row per world, and arrays shared with torch.

It computes in single precision. On CUDA a control step is recorded once as a graph; on Warp's CPU device, for tests,
the same kernels run one after the other.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mujoco
import numpy as np

from metarl.envs.arrays import torch_namespace
from metarl.envs.simulation import STATE, Simulator, Unsupported

try:
    import mujoco_warp
    import torch
    import warp as wp

    from metarl.envs.warp import step as warp_step
    from metarl.envs.warp.capacity import convex_pairs, most_contacts
    from metarl.envs.warp.kernels import KINDS, correct, restore, watch
    from metarl.envs.warp.models import GROUND, Mix, mixed

    torch_namespace()
except ImportError as error:
    raise ValueError(
        f"the gpu simulator needs a package that is not installed ({error}): pip install metarl-robotics[gpu]"
    ) from error

wp.config.log_level = wp.LOG_WARNING  # compiling a kernel is not worth a line

CCD_ITERATIONS = 50
"""Most iterations of a convex collision: the memory of one grows with them (500 take 70 kB)."""
LOSSES = ("NEFC", "NJMAX_NNZ", "BROADPHASE", "NARROWPHASE", "CCD", "HFIELD", "CONTACT_MATCH", "EPA_HORIZON", "TACTILE")
"""Overflows that drop contacts or constraints; the others are iterations that reached their limit."""
INITIAL = (
    *("qpos", "qvel", "act", "history", "qacc_warmstart", "ctrl", "qfrc_applied", "xfrc_applied", "time"),
    *("mocap_pos", "mocap_quat", "userdata"),
)
"""Fields that a reset sets: the state except `eq_active`."""
CONTACT_FORCES = ("cacc", "cfrc_ext", "cfrc_int")
"""Fields that a step computes only for a sensor, or if they are bound."""


def _contacts(model: Any, data: Any) -> None:
    """Correct the contacts that mujoco-warp found."""
    contact = data.contact
    inputs = [model.geom_type, data.geom_xmat, data.nacon, contact.worldid, contact.geom, contact.includemargin]
    wp.launch(correct, dim=data.naconmax, inputs=[*inputs, contact.frame, contact.dist, contact.pos])


class WarpSimulation:
    """`num_sims` worlds of mujoco-warp. Host values have the precision of the arrays."""

    def __init__(self, model: mujoco.MjModel, num_sims: int, threads: int, device: str, deterministic: bool) -> None:
        """threads: not used. device: "cpu" or "cuda:N". deterministic: whether a run on CUDA repeats bit for bit."""
        self.num_sims = num_sims
        self.xp = torch_namespace()
        self.device = torch.device(device)
        self._device = wp.get_device(device)
        self._deterministic = deterministic
        self._bound: dict[str, torch.Tensor] = {}
        self._contact_forces = False
        self._mix: Mix | None = None
        self._recorded = 0
        """Version that changes whenever a recording would refer to arrays that are no longer used."""
        self._tables: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        """The models' values of each field that varies, [K, ...], and mujoco-warp's own, [S, ...]."""
        self._model: Any = None
        self._data: Any = None
        self._nconmax = self._njmax = 0
        self._index = self.array(np.zeros(num_sims, dtype=np.int64))
        self._faulted = self.array(np.zeros(num_sims, dtype=bool))
        self._counts = self.array(np.zeros(KINDS, dtype=np.int64))
        self.take([model])
        self.assign(self._index.clone())

    def array(self, values: np.ndarray) -> torch.Tensor:
        if values.dtype == np.float64:
            values = values.astype(np.float32)
        elif values.dtype == np.uint64:
            values = values.view(np.int64)
        return torch.tensor(values, device=self.device)

    def host(self, array: torch.Tensor) -> np.ndarray:
        return array.detach().cpu().numpy()

    def bind(self, name: str) -> torch.Tensor:
        if name not in self._bound:
            if name in CONTACT_FORCES and not self._contact_forces:
                self._contact_forces = True
                self._use_options()
            self._bound[name] = self._view(name)
        return self._bound[name]

    def live(self) -> list[torch.Tensor]:
        views = (self._bound.get(name, self._view(name)) for name in {**dict.fromkeys(STATE), **self._bound})
        return [view for view in views if view.numel()]

    def _view(self, name: str) -> torch.Tensor:
        """Return a field of the data as a torch tensor of MuJoCo's shape."""
        specs = {f.name: getattr(f.type, "shape", None) for f in dataclasses.fields(mujoco_warp.Data)}
        if (specs.get(name) or ("",))[0] != "nworld" or getattr(self._data, name) is None:
            raise Unsupported(
                f"mujoco-warp has no field {name!r} of its data for each simulation; use simulator cpu, or a family "
                "that does not read it"
            )
        view = wp.to_torch(getattr(self._data, name))
        return view.reshape(*view.shape[:-2], 9) if view.shape[2:] == (3, 3) else view

    def take(self, models: Sequence[mujoco.MjModel]) -> None:
        before = self._mix
        try:
            if before is None:
                raise ValueError("nothing was taken before")
            mix = mixed(models, before.base)
        except ValueError:  # the models may not fit those that were taken before
            self._build(mixed(models), models)
            return
        if before.holds(mix):
            self._mix = dataclasses.replace(before, models=mix.models)
            self._fill(self._mix)
        else:
            varying, grounds = mix.varying | before.varying, mix.grounds or before.grounds
            self._build(dataclasses.replace(mix, varying=varying, grounds=grounds), models)

    def assign(self, index: torch.Tensor) -> None:
        self._index.copy_(index)
        for table, buffer in self._tables.values():
            torch.index_select(table, 0, self._index, out=buffer)
        for name, table in self._static.items():
            self._view(name).index_copy_(1, self._static_geoms, table[self._index])

    def reset(self, chosen: torch.Tensor) -> None:
        self._set_initial(chosen)
        active = self._view("eq_active")
        active.copy_(torch.where(chosen[:, None], self._active[self._index], active))

    def forward(self, chosen: torch.Tensor) -> None:
        derived = [view for name, view in self._bound.items() if name not in (*INITIAL, "eq_active")]
        before = [view.clone() for view in derived]
        with self._warp():
            warp_step.forward(self._model, self._data)
        for view, old in zip(derived, before, strict=True):  # simulations not chosen keep their last values
            view.copy_(torch.where(chosen.reshape(-1, *(1,) * (view.ndim - 1)), view, old))
        self._faulted.zero_()

    def step(self, chosen: torch.Tensor, substeps: int) -> None:
        faulted = torch.zeros_like(self._faulted)
        with self._warp():
            for _ in range(substeps):
                self._advance(self._model, self._data)
                self._look(faulted)
        self._faulted |= faulted
        self._set_initial(faulted)  # as MuJoCo does by itself: a world that is no number would never converge

    def faulted(self) -> torch.Tensor:
        flagged = self._faulted.clone()
        self._faulted.zero_()
        return flagged

    def overflows(self) -> dict[str, int]:
        """Return the number of simulation steps of worlds in which contacts or constraints were dropped, by reason."""
        counts = self.host(self._counts)
        counted = {name: int(counts[int(math.log2(mujoco_warp.OverflowType[name]))]) for name in LOSSES}
        return {name: count for name, count in counted.items() if count}

    def renew(self) -> None:
        self._recorded += 1

    def repeat(self, function: Callable[[torch.Tensor], None]) -> Callable[[torch.Tensor], None]:
        return function if self.device.type == "cpu" else _Recording(self, function)

    def _advance(self, model: Any, data: Any) -> None:
        """Take one simulation step."""
        if model.opt.integrator != mujoco_warp.IntegratorType.RK4:
            warp_step.step(model, data)
            return
        warp_step.forward(model, data)
        sensors = wp.clone(data.sensordata)
        warp_step.rungekutta4(self._without_sensors, data)  # MuJoCo evaluates them at the step's start alone
        wp.copy(data.sensordata, sensors)

    def _look(self, faulted: torch.Tensor) -> None:
        d = self._data
        inputs = [d.qpos, d.qvel, d.qacc, wp.from_torch(faulted), d.overflow, wp.from_torch(self._counts)]
        wp.launch(watch, dim=self.num_sims, inputs=inputs)

    def _set_initial(self, chosen: torch.Tensor) -> None:
        with self._warp():
            mask, index = wp.from_torch(chosen), wp.from_torch(self._index)
            for table, state in self._initial.values():
                wp.launch(restore, dim=state.shape, inputs=[mask, index, wp.from_torch(table), wp.from_torch(state)])

    def _build(self, mix: Mix, models: Sequence[mujoco.MjModel]) -> None:
        """Make new arrays of mujoco-warp for the mix; those of the state stay in use."""
        self._mix = mix
        nconmax, njmax = most_contacts(models)
        self._nconmax, self._njmax = max(nconmax, self._nconmax), max(njmax, self._njmax)
        own = [name for name in mix.varying if not name.startswith("opt.")]
        with self._warp(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                self._model = m = mujoco_warp.put_model(mix.base, dict.fromkeys(own, self.num_sims))
                data = mujoco_warp.make_data(
                    mix.base,
                    self.num_sims,
                    nconmax=self._nconmax,
                    nccdmax=min(self._nconmax, convex_pairs(m)),
                    njmax=self._njmax,
                )
            except (NotImplementedError, ValueError) as error:
                raise Unsupported(
                    f"the gpu simulator cannot simulate this robot: {error}; use simulator cpu"
                ) from error
            for flag in mix.flags():
                setattr(m, flag, True)
            for name in mix.varying.difference(own):
                one = getattr(m.opt, name[4:])
                setattr(m.opt, name[4:], wp.array(np.repeat(one.numpy(), self.num_sims, axis=0), dtype=one.dtype))
            for name in GROUND if mix.grounds else ():
                setattr(m, name, wp.array(mix.ground(name), dtype=getattr(m, name).dtype))
            if self._data is not None:
                _keep_arrays(self._data, data)
            self._data = data
            self._use_options()
            self._make_tables(mix)
        self._fill(mix)

    def _use_options(self) -> None:
        """Set mujoco-warp's options, which makes old recordings invalid."""
        self._model.callback.contactfilter = _contacts
        options = self._model.opt
        options.warn_overflow = 0  # counted instead
        options.deterministic = self._deterministic
        options.ccd_iterations = min(options.ccd_iterations, CCD_ITERATIONS)
        options.run_rne_postconstraint = self._contact_forces
        if self.device.type == "cuda":
            options.graph_conditional = wp.is_conditional_graph_supported()
        self._without_sensors = copy.copy(self._model)
        self._without_sensors.opt = copy.copy(options)
        self._without_sensors.opt.disableflags |= int(mujoco_warp.DisableBit.SENSOR)
        self._without_sensors.opt.run_rne_postconstraint = False
        self.renew()

    def _make_tables(self, mix: Mix) -> None:
        """Allocate tables for the values of K models, which `_fill` writes."""
        m, count = self._model, len(mix.models)

        def rows(like: torch.Tensor) -> torch.Tensor:
            return torch.zeros((count, *like.shape[1:]), dtype=like.dtype, device=self.device)

        fields = {
            name: getattr(m.opt, name[4:]) if name.startswith("opt.") else getattr(m, name) for name in mix.varying
        }
        buffers = {name: wp.to_torch(array) for name, array in fields.items()}
        self._tables = {name: (rows(buffer), buffer) for name, buffer in buffers.items()}
        states = {name: self._view(name).reshape(self.num_sims, -1) for name in INITIAL}
        self._initial = {name: (rows(state), state) for name, state in states.items() if state.numel()}
        self._active = rows(self._view("eq_active"))
        base = mix.base
        static = (base.body_weldid == 0) & (base.body_mocapid[base.body_rootid] == -1)
        self._static_geoms = self.array(np.flatnonzero(static[base.geom_bodyid]))
        views = {name: self._view(name)[:, self._static_geoms] for name in ("geom_xpos", "geom_xmat")}
        self._static = {name: rows(view) for name, view in views.items()}

    def _fill(self, mix: Mix) -> None:
        """Write the values of the models into the tables."""

        def write(table: torch.Tensor, values: np.ndarray) -> None:
            table.copy_(torch.as_tensor(values.reshape(tuple(table.shape))))

        for name, (table, _) in self._tables.items():
            write(table, mix.table(name))
        for name in GROUND if mix.grounds else ():
            write(wp.to_torch(getattr(self._model, name)), mix.ground(name))
        datas = [mujoco.MjData(model) for model in mix.models]
        for model, data in zip(mix.models, datas, strict=True):
            mujoco.mj_kinematics(model, data)
        for name, (table, _) in self._initial.items():
            write(table, np.stack([np.atleast_1d(getattr(data, name)) for data in datas]))
        write(self._active, np.stack([model.eq_active0 for model in mix.models]))
        static = self.host(self._static_geoms)
        for name, table in self._static.items():
            write(table, np.stack([getattr(data, name)[static] for data in datas]))

    @contextlib.contextmanager
    def _warp(self) -> Iterator[None]:
        """Let Warp use the device and torch's stream."""
        if not self._device.is_cuda:
            with wp.ScopedDevice(self._device):
                yield
            return
        stream = torch.cuda.current_stream(self.device)
        if (self._device.stream.cuda_stream or 0) == stream.cuda_stream:
            with wp.ScopedDevice(self._device):
                yield
        else:
            with wp.ScopedStream(wp.stream_from_torch(stream)):
                yield


class _Recording:
    """A function of one array that is a CUDA graph after its first call.

    The first call compiles kernels and copies constants to the device; recording runs nothing. It is recorded again
    when the simulation no longer uses the arrays that it refers to.
    """

    def __init__(self, simulation: WarpSimulation, function: Callable[[torch.Tensor], None]) -> None:
        self._simulation, self._function = simulation, function
        self._seen = -1
        """Version of the simulation at the last call."""
        self._graph: Any = None

    def __call__(self, values: torch.Tensor) -> None:
        simulation = self._simulation
        if self._seen != simulation._recorded:
            self._seen, self._graph = simulation._recorded, None
            self._function(values)
            return
        if self._graph is None:
            self._graph = self._record(values)
        self._input.copy_(values)
        wp.capture_launch(self._graph, stream=wp.stream_from_torch(torch.cuda.current_stream(simulation.device)))

    def _record(self, values: torch.Tensor) -> Any:
        """Record with Warp, which can record loops with a condition, and a memory pool of torch's for it."""
        device = self._simulation.device
        self._input = values.detach().clone()
        self._pool = torch.cuda.MemPool()
        here, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        side.wait_stream(here)
        stream = wp.stream_from_torch(side)
        with torch.cuda.stream(side), torch.cuda.use_mem_pool(self._pool), wp.ScopedStream(stream, sync_enter=False):
            wp.capture_begin(stream=stream, capture_mode=wp.CaptureMode.RELAXED)
            try:
                self._function(self._input)
            finally:
                graph = wp.capture_end(stream=stream)
        here.wait_stream(side)
        return graph


def _keep_arrays(old: Any, new: Any) -> None:
    """Let mujoco-warp's new data use the old arrays, which others may hold, where shapes are equal."""
    for field in dataclasses.fields(new):
        before, now = getattr(old, field.name), getattr(new, field.name)
        if isinstance(now, wp.array) and isinstance(before, wp.array) and before.shape == now.shape:
            setattr(new, field.name, before)


def simulator(device: str, deterministic: bool = False) -> Simulator:
    """Return the simulator mujoco-warp on a device: "cpu" (Warp's own, for tests) or "cuda:N".

    deterministic: fixed order of contacts and sums on CUDA, which costs time; the CPU device is deterministic anyway.
    """
    return Simulator(functools.partial(WarpSimulation, device=device, deterministic=deterministic), shards=1)
