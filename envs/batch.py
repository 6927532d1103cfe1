"""M tasks x N envs as simulations side by side, each on its task's own compiled model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metarl.envs.arrays import Array, none, write
from metarl.envs.family import TaskFamily
from metarl.envs.simulation import CPU, Simulator
from metarl.envs.state import State, renewed
from metarl.envs.task import Task

NEVER = np.iinfo(np.int64).max


class SimulationFault(RuntimeError):
    """A reward that is not a number, though the simulation is sound: a mistake in the family."""


class StepResult(NamedTuple):
    """What a control step led to. Envs that had ended take no step: observation held, reward 0, flags False.

    On a device the arrays are the env's own, and hold until its next step or reset.
    """

    observations: Array
    """[M, N, obs] float32."""
    rewards: Array
    """[M, N] float32."""
    terminated: Array
    """[M, N] bool, the episode ended for good at this step."""
    truncated: Array
    """[M, N] bool, the time limit cut the episode at this step."""
    faulted: Array
    """[M, N] bool, the simulation was flagged at this step: its episode ended and must not be learned from."""


class Stages(NamedTuple):
    """What the tasks of a batch are in turn, K stages in all."""

    changes: Array
    """[S, changes] steps of a trial before each change."""
    first: Array
    """[S] place of each simulation's task as it is at first among all stages."""
    values: tuple[Array, ...]
    """[K] of each parameter of the family."""


class BatchedEnv:
    """Episodes of M tasks x N envs in step.

    An env whose episode ended stays as it is until `reset`: its last observation is never overwritten. What it returns
    is NumPy's where its simulations are on the CPU, and torch's on their device.
    """

    def __init__(
        self,
        family: TaskFamily,
        num_tasks: int,
        envs_per_task: int,
        threads: int = 0,
        like: Task | None = None,
        measuring: bool = False,
        simulator: Simulator = CPU,
    ):
        """threads: of the simulation; 0 takes all cores. like: a task of the layout that all have; None: neutral.
        measuring: whether the family's measures are taken, see `measures`."""
        if num_tasks < 1 or envs_per_task < 1:
            raise ValueError(f"need at least 1 task and 1 env a task, got {num_tasks} and {envs_per_task}")
        self.family = family
        self.num_tasks = num_tasks
        self.envs_per_task = envs_per_task
        self._like = family.own(like or family.neutral())
        self._base = family.compile(self._like)
        self.simulation = simulator.make(self._base, num_tasks * envs_per_task, threads)
        self._state = State(self.simulation.bind, self.simulation.xp, self.simulation.array)
        self._state.dt = family.frame_skip * self._base.opt.timestep
        self._state.previous = {name: self._zeros(getattr(self._state, name)) for name in family.previous}
        self._state.action = self._zeros((family.action_size,))
        self._episodes, self._clock = self._zeros((), np.int64), self._zeros((), np.int64)
        self._state.steps, self._state.task_index = self._zeros((), np.int64), self._zeros((), np.int64)
        self._state.keys = self._zeros((), np.uint64)
        self._state.memory = {name: self._zeros(shape) for name, shape in family.memory.items()}
        self._state.task = {p.name: self._zeros(()) for p in family.parameters}
        self._observations = self._zeros((family.observation_size,), np.float32)
        self._rewards = self._zeros((), np.float32)
        self._active, self._terminated, self._truncated, self._faulted, self._unsound = (
            self._zeros((), bool) for _ in range(5)
        )
        self._faults = self._zeros((), np.int64)
        self._starts: tuple[Array, ...] = ()
        """[count S, ...] of each array of `_start`, of the starts that are kept."""
        self._next = self._zeros((), np.int64)
        """[S] place of the one that comes next."""
        self.terms = {name: self._zeros(()) for name in family.rewards}
        """[S] each weighted reward term summed over the running episode, by name; live, where the simulations are."""
        self._measured = dict(family.measures) if measuring else {}
        self._sums = {name: (self._zeros(()), self._zeros(())) for name in self._measured}  # and of what they are per
        self._sizes: tuple[int, int] | None = None  # stages of all tasks, and the most of one
        self.set_tasks([self._like] * num_tasks)
        self._bind_fields()

    def _zeros(self, shape: tuple[int, ...] | Array, dtype: type = np.float64) -> Array:
        """[S, ...] of the simulations; the shape is without the S, or that of another array."""
        whole = (self.simulation.num_sims, *shape) if isinstance(shape, tuple) else tuple(shape.shape)
        return self.simulation.array(np.zeros(whole, dtype))

    def _bind_fields(self) -> None:
        """Ask for every field that the family reads: a call fills only the derived fields that were bound before it."""
        family = self.family
        rewards = (term.function for term in family.rewards.values())
        with np.errstate(all="ignore"):  # of a robot that has not been reset yet
            measures = (f for measure in self._measured.values() for f in (measure.function, measure.per))
            if family.update is not None:
                family.update(self._state)
            seen = family.seen(self._state)
            for function in (family.observe, family.terminate, family.truncate, *rewards, *measures):
                if function is not None:
                    function(seen)

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Compile and take up one model a task. Every env must be reset before it is stepped."""
        if len(tasks) != self.num_tasks:
            raise ValueError(f"this env holds {self.num_tasks} tasks, got {len(tasks)}")
        tasks = [self.family.own(task) for task in tasks]
        for task in tasks:
            if self.family.layout_of(task) != self.family.layout_of(self._like):
                raise ValueError(
                    f"this env's tasks have the layout {self.family.layout_of(self._like)}, got one of "
                    f"{self.family.layout_of(task)}; make one env a layout, as ShardedEnv does"
                )
        self.tasks = tasks
        stages = [self.family.stages(task) for task in tasks]
        flat = [stage for of_task in stages for stage in of_task]
        compiled = self.family.edits_model
        self._models = [self.family.compile(stage) if compiled else self._base for stage in flat]
        put, each = self.simulation.array, self.envs_per_task
        counts = [len(of_task) for of_task in stages]
        begin = np.full((self.num_tasks, max(counts)), NEVER, dtype=np.int64)
        for m, task in enumerate(tasks):
            begin[m, : counts[m]] = (0, *(change.step for change in task.changes))
        self._changing = max(counts) > 1
        made = Stages(
            changes=put(np.repeat(begin[:, 1:], each, axis=0)),
            first=put(np.repeat(np.cumsum([0, *counts[:-1]]), each)),
            values=tuple(put(np.array([stage.values[p.name] for stage in flat])) for p in self.family.parameters),
        )
        self._state.take(self._models)
        if compiled:
            self.simulation.take(self._models)
        self._episodes[...] = self._clock[...] = self._state.steps[...] = 0
        self._active[...] = False
        if self._sizes != (len(flat), max(counts)):  # what was recorded reads arrays of other shapes
            self._sizes, self._stages = (len(flat), max(counts)), made
            self._control = self.simulation.repeat(self.advance)
        else:
            renewed(self._stages, made)
        self._enter(self._stages.first)

    def _enter(self, index: Array) -> None:
        """Let the simulations be of these stages [S]."""
        self._state.task_index[...] = index
        for parameter, values in zip(self.family.parameters, self._stages.values, strict=True):
            self._state.task[parameter.name][...] = values[index]
        if self.family.edits_model:
            self.simulation.assign(self._state.task_index)

    def _change(self) -> None:
        """Let the tasks be what they have changed into, for every env by the steps of its own trial."""
        self._clock[...] = (self._episodes - 1) * self.family.horizon + self._state.steps
        passed = self.simulation.xp.sum(self._stages.changes <= self._clock[:, None], axis=1)
        index = self._stages.first + passed
        if not none(index != self._state.task_index):
            self._enter(index)

    @property
    def dt(self) -> float:
        """Control step, s."""
        return self._state.dt

    @property
    def active(self) -> Array:
        """[M, N] bool, True where an episode is running: a copy."""
        return self._shape(self.simulation.xp.asarray(self._active, copy=True))

    @property
    def over(self) -> bool:
        """Whether no episode is running, where that is known without waiting for a device."""
        return none(self._active)

    @property
    def poses(self) -> np.ndarray:
        """[S, nq] qpos on the host; on the CPU it is live."""
        return self.simulation.host(self._state.qpos)

    @property
    def num_faults(self) -> int:
        """Simulations that were flagged since this env was made."""
        return int(self.simulation.host(self._faults).sum())

    @property
    def term_sums(self) -> dict[str, np.ndarray]:
        """`terms` on the host."""
        return {name: self.simulation.host(sums) for name, sums in self.terms.items()}

    def reset(
        self, rngs: Sequence[np.random.Generator], envs: np.ndarray | None = None, trials: np.ndarray | None = None
    ) -> Array:
        """Start an episode in all envs, or in those of `envs` [M, N] bool; one generator a task.

        trials: [M, N] bool, True where a new trial begins: the task there is again what it was at first. Both are the
        host's.

        Returns the observations, [M, N, obs] float32.
        """
        simulation, state = self.simulation, self._state
        here = np.ones(simulation.num_sims, dtype=bool) if envs is None else envs.reshape(-1)
        chosen = simulation.array(here)
        if trials is not None and self._changing:
            anew = simulation.array(trials.reshape(-1))
            for counter in (self._episodes, self._clock):
                write(counter, 0, where=anew)
        write(self._episodes, self._episodes + 1, where=chosen)
        write(state.steps, 0, where=chosen)
        if self._changing:
            self._change()
        simulation.reset(chosen)
        self._place(rngs, here, chosen)
        simulation.forward(chosen)
        write(self._active, chosen, where=chosen)
        for name, before in state.previous.items():
            write(before, getattr(state, name), where=chosen)
        self._clear(chosen)
        for remembered in state.memory.values():
            write(remembered, 0, where=chosen)
        if self.family.begin is not None:
            self.family.begin(state, chosen)
        write(self._observations, self.family.observe(self.family.seen(state)), where=chosen)
        return self._shape(simulation.xp.asarray(self._observations, copy=True))

    def _place(self, rngs: Sequence[np.random.Generator], here: np.ndarray, chosen: Array) -> None:
        """Where the episodes of the simulations `here` [S] bool start, and what they make their noise from."""
        simulation, state = self.simulation, self._state
        index = simulation.host(state.task_index)
        qpos, qvel = (np.zeros(tuple(field.shape)) for field in (state.qpos, state.qvel))
        keys = np.zeros(simulation.num_sims, dtype=np.uint64)
        for m, rng in enumerate(rngs):
            sims = m * self.envs_per_task + np.flatnonzero(here[m * self.envs_per_task : (m + 1) * self.envs_per_task])
            if sims.size:
                qpos[sims], qvel[sims] = self.family.reset(self._models[index[sims[0]]], rng, sims.size)
                if self.family.noisy:
                    keys[sims] = rng.integers(2**64, size=sims.size, dtype=np.uint64)
        write(state.qpos, simulation.array(qpos), where=chosen)
        write(state.qvel, simulation.array(qvel), where=chosen)
        if self.family.noisy:
            write(state.keys, simulation.array(keys), where=chosen)
        for name, value in self.family.initial.items():
            field = getattr(state, name)
            write(field, simulation.array(np.array(np.broadcast_to(value, tuple(field.shape)))), where=chosen)

    def step(self, actions: Array) -> StepResult:
        """Advance every running episode by one control step; actions [M, N, act], scaled and clipped here."""
        self._control(actions.reshape(self.simulation.num_sims, self.family.action_size))
        results = (result.copy() for result in self.results) if self.simulation.xp is np else self.results
        return StepResult(*map(self._shape, results))

    def advance(self, actions: Array) -> None:
        """A control step of actions [S, act], the same sequence of operations whatever the values; see `results`."""
        family, state, simulation, xp = self.family, self._state, self.simulation, self.simulation.xp
        if self._changing:
            self._change()
        state.action[...] = family.applied(actions)
        for name, before in state.previous.items():
            before[...] = getattr(state, name)
        state.ctrl[...] = family.control.of(state.action)[:, : state.ctrl.shape[1]]
        if family.actuate is not None:
            family.actuate(state)
        simulation.step(self._active, family.frame_skip)
        state.steps += self._active
        if family.update is not None:
            family.update(state)
        seen = family.seen(state)
        self._faulted[...] = simulation.faulted() & self._active
        self._faults += self._faulted
        sound = self._active & ~self._faulted
        whole = none(~sound)
        self._reward(seen, sound, whole)
        self._measure(seen, sound)
        if family.terminate is not None:
            self._terminated[...] = sound & family.terminate(seen)
        truncated = state.steps >= family.horizon
        if family.truncate is not None:
            truncated = truncated | family.truncate(seen)
        self._truncated[...] = truncated & sound & ~self._terminated
        observations = xp.astype(family.observe(seen), self._observations.dtype, copy=False)
        if whole:
            self._observations[...] = observations
        else:
            write(self._observations, observations, where=sound)
        self._active[...] = sound & ~self._terminated & ~self._truncated

    def keep_starts(self, rngs: Sequence[np.random.Generator], count: int) -> None:
        """Start an episode in all envs, from the last of `count` starts of each, which `restart` goes through."""
        everything = np.ones((self.num_tasks, self.envs_per_task), dtype=bool)
        kept = []
        for _ in range(count):
            self.reset(rngs, everything, everything)
            kept.append([self.simulation.xp.asarray(live, copy=True) for live in self._start()])
        starts = tuple(self.simulation.xp.concat(each) for each in zip(*kept, strict=True))
        self._starts = renewed(self._starts, starts) if len(self._starts) == len(starts) else starts
        self._next[...] = self.simulation.array(np.arange(self.simulation.num_sims, dtype=np.int64))

    def restart(self) -> None:
        """Start an episode of a new trial where none is running, the same sequence of operations whatever the values.

        Its start is one of those kept, which are gone through one after another, again and again.
        """
        ended, num_sims = ~self._active, self.simulation.num_sims
        for live, kept in zip(self._start(), self._starts, strict=True):
            write(live, kept[self._next], where=ended)
        self._next[...] = (self._next + num_sims * ended) % len(self._starts[0])
        write(self._episodes, 1, where=ended)
        write(self._state.steps, 0, where=ended)
        self._clear(ended)
        write(self._active, True, where=ended)

    def _clear(self, chosen: Array) -> None:
        """Forget the last action and what the episode has summed, of the simulations `chosen` [S] bool."""
        sums = (kept for pair in self._sums.values() for kept in pair)
        for zeroed in (self._state.action, *self.terms.values(), *sums):
            write(zeroed, 0, where=chosen)

    def _start(self) -> list[Array]:
        """Live arrays that differ from one start of an episode to another."""
        state = self._state
        own = [*state.memory.values(), *state.previous.values(), state.keys, self._observations]
        return [*self.simulation.live(), *own]

    @property
    def results(self) -> StepResult:
        """What the last control step led to, live: [S, ...] of each."""
        return StepResult(self._observations, self._rewards, self._terminated, self._truncated, self._faulted)

    @property
    def steps(self) -> Array:
        """[S] int64 control steps taken in the running episode, live."""
        return self._state.steps

    def _reward(self, seen: State, sound: Array, whole: bool) -> None:
        """The weighted sum of the terms, 0 where the simulation is not sound; whole: all are known to be."""
        xp, total = self.simulation.xp, 0.0
        for name, term in self.family.rewards.items():
            value = term.function(seen)
            if xp is not np and value.dtype in (xp.bool, xp.int64):  # which torch would weigh in single precision
                value = xp.astype(value, self.terms[name].dtype)
            value = term.weight * value if whole else xp.where(sound, term.weight * value, 0.0)
            finite = xp.isfinite(value)
            if xp is not np:
                self._unsound |= ~finite
            elif not finite.all():
                self._blame(name, value, int(np.flatnonzero(~finite)[0]))
            self.terms[name] += value
            total = total + value
        self._rewards[...] = total

    def verify(self) -> None:
        """SimulationFault if a reward was not a number since the last reset: on a device nobody looked meanwhile."""
        bad = np.flatnonzero(self.simulation.host(self._unsound))
        if bad.size:
            sums = self.term_sums
            name = next((name for name in sums if not np.isfinite(sums[name][bad[0]])), next(iter(sums)))
            self._unsound[...] = False
            self._blame(name, sums[name], int(bad[0]))

    def _blame(self, name: str, values: np.ndarray, bad: int) -> None:
        raise SimulationFault(
            f"reward term {name!r} of family {self.family.name!r} is {values[bad]} at step "
            f"{int(self._state.steps[bad])} of task {dict(self.tasks[bad // self.envs_per_task].values)}, "
            "and MuJoCo reports no fault: mend the term's function"
        )

    def _measure(self, seen: State, sound: Array) -> None:
        for name, measure in self._measured.items():
            total, divisor = self._sums[name]
            values = measure.function(seen)
            write(total, values if measure.reduce == "last" else total + values, where=sound)
            if measure.per is not None:
                write(divisor, divisor + measure.per(seen), where=sound)

    @property
    def measures(self) -> dict[str, np.ndarray]:
        """[M, N] each measure of the running episode and, where the family defines it, `success` (1 or 0), by name.

        Empty unless this env is measuring. NaN before the first step, and where what a measure is divided by is 0. They
        are the host's.
        """
        values, host = {}, self.simulation.host
        taken = host(self._state.steps)
        steps = np.where(taken > 0, taken, np.nan)
        for name, measure in self._measured.items():
            total, divisor = map(host, self._sums[name])
            by = steps if measure.reduce == "mean" else np.where(divisor > 0, divisor, np.nan) if measure.per else 1.0
            values[name] = np.where(np.isnan(steps), np.nan, total / by)
        if values and self.family.success:
            kept = [(c.low <= values[c.measure]) & (values[c.measure] <= c.high) for c in self.family.success]
            values["success"] = np.where(np.isnan(steps), np.nan, np.all(kept, axis=0))
        return {name: self._shape(value) for name, value in values.items()}

    def _shape(self, flat: Array) -> Array:
        return flat.reshape(self.num_tasks, self.envs_per_task, *flat.shape[1:])
