"""M tasks x N envs as simulations of one `mujoco.batch.Batch`, each on its task's own compiled model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import mujoco.batch
import numpy as np

from metarl.envs import mujoco_log
from metarl.envs.family import Array, State, Task, TaskFamily


class SimulationFault(RuntimeError):
    """A reward that is not a number, though the simulation is sound: a mistake in the family."""


class StepResult(NamedTuple):
    """What a control step led to. Envs that had ended take no step: observation held, reward 0, flags False."""

    observations: Array
    """[M, N, obs] float32."""
    rewards: Array
    """[M, N] float32."""
    terminated: Array
    """[M, N] bool, the episode ended for good at this step."""
    truncated: Array
    """[M, N] bool, the time limit cut the episode at this step."""
    faulted: Array
    """[M, N] bool, MuJoCo flagged the simulation at this step: its episode ended and must not be learned from."""


class _Stage(NamedTuple):
    """What a task is from a step of its trial on."""

    start: int
    sims: Array
    """Of the task."""
    task: Task
    model: mujoco.MjModel


class BatchedEnv:
    """Episodes of M tasks x N envs in step.

    An env whose episode ended stays as it is until `reset`: its last observation is never overwritten.
    """

    def __init__(
        self,
        family: TaskFamily,
        num_tasks: int,
        envs_per_task: int,
        threads: int = 0,
        like: Task | None = None,
        measuring: bool = False,
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
        self.batch = mujoco.batch.Batch(self._base, num_tasks * envs_per_task, threads)
        num_sims = self.batch.nsim
        self._state = State(self.batch.bind)
        self._state.dt = family.frame_skip * self._base.opt.timestep
        self._state.previous = {name: np.copy(getattr(self._state, name)) for name in family.previous}
        self._state.action = np.zeros((num_sims, family.action_size))
        self._episodes = np.zeros(num_sims, dtype=np.int64)
        self._clock = np.zeros(num_sims, dtype=np.int64)
        self._starts: list[tuple[int, _Stage]] = []
        self._changes: list[tuple[int, _Stage]] = []
        self._state.steps = np.zeros(num_sims, dtype=np.int64)
        self._state.task_index = np.zeros(num_sims, dtype=np.int64)
        self._state.keys = np.zeros(num_sims, dtype=np.uint64)
        self._state.memory = {name: np.zeros((num_sims, *shape)) for name, shape in family.memory.items()}
        self._warnings = np.zeros(num_sims, dtype=np.int64)
        self._active = np.zeros(num_sims, dtype=bool)
        self._observations = np.zeros((num_sims, family.observation_size), dtype=np.float32)
        self.num_faults = 0
        """Simulations that MuJoCo flagged since this env was made."""
        self.term_sums = {name: np.zeros(num_sims) for name in family.rewards}
        """[S] each weighted reward term summed over the running episode, by name."""
        self._measured = dict(family.measures) if measuring else {}
        self._measure_sums = {name: np.zeros((2, num_sims)) for name in self._measured}  # and of what they are per
        self.set_tasks([self._like] * num_tasks)
        self._bind_fields()

    def _bind_fields(self) -> None:
        """Ask for every field that the family reads: a call fills only the derived fields that were bound before it."""
        family = self.family
        rewards = (term.function for term in family.rewards.values())
        with np.errstate(all="ignore"):  # of a robot that has not been reset yet
            measures = (f for measure in self._measured.values() for f in (measure.function, measure.per))
            for function in (family.update, family.observe, family.terminate, family.truncate, *rewards, *measures):
                if function is not None:
                    function(self._state)

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
        stages = [stage for m in range(self.num_tasks) for stage in self._stages(m)]
        self._models = [stage.model for stage in stages]
        self._state.take(self._models)
        self._state.task = {p.name: np.zeros(self.batch.nsim) for p in self.family.parameters}
        self._starts = [(place, stage) for place, stage in enumerate(stages) if stage.start == 0]
        self._changes = [(place, stage) for place, stage in enumerate(stages) if stage.start > 0]
        self._begin_trials(np.ones(self.batch.nsim, dtype=bool))
        self._state.steps[:] = 0
        self._active[:] = False

    def _stages(self, m: int) -> list[_Stage]:
        """A task's models and values, from the start and from each change on."""
        sims = np.arange(m * self.envs_per_task, (m + 1) * self.envs_per_task)
        starts = (0, *(change.step for change in self.tasks[m].changes))
        tasks = self.family.stages(self.tasks[m])
        compiled = self.family.edits_model
        return [
            _Stage(start, sims, task, self.family.compile(task) if compiled else self._base)
            for start, task in zip(starts, tasks, strict=True)
        ]

    def _begin_trials(self, chosen: Array) -> None:
        """Let the tasks of the chosen simulations [S] bool be what they are at first."""
        for place, stage in self._starts:
            self._enter(place, stage, stage.sims[chosen[stage.sims]])
        self._episodes[chosen] = self._clock[chosen] = 0
        self._use_models()

    def _enter(self, place: int, stage: _Stage, sims: Array) -> None:
        for name, value in stage.task.values.items():
            self._state.task[name][sims] = value
        self._state.task_index[sims] = place

    def _use_models(self) -> None:
        if self.family.edits_model:
            self.batch.set_models([self._models[place] for place in self._state.task_index])

    def _change(self) -> None:
        """Let the tasks be what they have changed into, for every env by the steps of its own trial."""
        clock = (self._episodes - 1) * self.family.horizon + self._state.steps
        changed = False
        for place, stage in self._changes:
            due = (self._clock[stage.sims] < stage.start) & (stage.start <= clock[stage.sims])
            if due.any():
                self._enter(place, stage, stage.sims[due])
                changed = True
        self._clock = clock
        if changed:
            self._use_models()

    @property
    def dt(self) -> float:
        """Control step, s."""
        return self._state.dt

    @property
    def active(self) -> Array:
        """[M, N] bool, True where an episode is running."""
        return self._shape(self._active)

    def reset(
        self, rngs: Sequence[np.random.Generator], envs: Array | None = None, trials: Array | None = None
    ) -> Array:
        """Start an episode in all envs, or in those of `envs` [M, N] bool; one generator a task.

        trials: [M, N] bool, True where a new trial begins: the task there is again what it was at first.

        Returns the observations, [M, N, obs] float32.
        """
        chosen = np.ones(self.batch.nsim, dtype=bool) if envs is None else envs.reshape(-1)
        ids = np.flatnonzero(chosen)
        if trials is not None and self._changes:
            self._begin_trials(trials.reshape(-1))
        self._episodes[ids] += 1
        self._state.steps[ids] = 0
        if self._changes:
            self._change()
        self.batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE)
        for m, rng in enumerate(rngs):
            sims = ids[(ids >= m * self.envs_per_task) & (ids < (m + 1) * self.envs_per_task)]
            if sims.size:
                model = self._models[self._state.task_index[sims[0]]]
                self._state.qpos[sims], self._state.qvel[sims] = self.family.reset(model, rng, sims.size)
                for name, value in self.family.initial.items():
                    getattr(self._state, name)[sims] = value
                if self.family.noisy:
                    self._state.keys[sims] = rng.integers(2**64, size=sims.size, dtype=np.uint64)
        with mujoco_log.silent():
            self.batch.forward(ids)  # derived fields, and the solver's warm start as mj_forward leaves it
        self._warnings = self._count_warnings()
        self._active[chosen] = True
        for name, before in self._state.previous.items():
            before[ids] = getattr(self._state, name)[ids]
        self._state.action[ids] = 0.0
        for zeroed in (*self._state.memory.values(), *self.term_sums.values()):
            zeroed[ids] = 0.0
        for sums in self._measure_sums.values():
            sums[:, ids] = 0.0
        if self.family.begin is not None:
            self.family.begin(self._state, ids)
        self._observations[ids] = self.family.observe(self._state)[ids]
        return self._shape(self._observations).copy()

    def step(self, actions: Array) -> StepResult:
        """Advance every running episode by one control step; actions [M, N, act], scaled and clipped here."""
        family, state, was_active = self.family, self._state, self._active
        if self._changes:
            self._change()
        flat = actions.reshape(self.batch.nsim, family.action_size)
        state.action[:] = family.applied(flat)
        for name, before in state.previous.items():
            np.copyto(before, getattr(state, name))
        state.ctrl[:] = family.control.of(state.action)[:, : state.ctrl.shape[1]]
        if family.actuate is not None:
            family.actuate(state)
        all_active = was_active.all()
        with mujoco_log.silent():  # of a simulation that is unstable; it is counted below
            self.batch.step(None if all_active else np.flatnonzero(was_active), nstep=family.frame_skip)
        state.steps += was_active
        if family.update is not None:
            family.update(state)
        faulted = self._faults(was_active)
        sound = was_active & ~faulted
        rewards = self._reward(sound)
        self._measure(sound)
        terminated = np.zeros_like(sound) if family.terminate is None else family.terminate(state) & sound
        truncated = state.steps >= family.horizon
        if family.truncate is not None:
            truncated |= family.truncate(state)
        truncated &= sound & ~terminated
        observations = family.observe(state)
        np.copyto(self._observations, observations, where=sound[:, None], casting="same_kind")
        self._active = sound & ~terminated & ~truncated
        return StepResult(
            self._shape(self._observations).copy(),
            self._shape(rewards),
            self._shape(terminated),
            self._shape(truncated),
            self._shape(faulted),
        )

    def _reward(self, sound: Array) -> Array:
        total = np.zeros(self.batch.nsim)
        for name, term in self.family.rewards.items():
            value = term.weight * term.function(self._state)
            value[~sound] = 0.0
            if not np.isfinite(value).all():
                bad = int(np.flatnonzero(~np.isfinite(value))[0])
                task = self.tasks[bad // self.envs_per_task]
                raise SimulationFault(
                    f"reward term {name!r} of family {self.family.name!r} is {value[bad]} "
                    f"at step {self._state.steps[bad]} of task {dict(task.values)}, "
                    "and MuJoCo reports no fault: mend the term's function"
                )
            self.term_sums[name] += value
            total += value
        return total.astype(np.float32)

    def _measure(self, sound: Array) -> None:
        for name, measure in self._measured.items():
            total, divisor = self._measure_sums[name]
            values = measure.function(self._state)
            if measure.reduce == "last":
                np.copyto(total, values, where=sound)
            else:
                np.add(total, values, out=total, where=sound)
            if measure.per is not None:
                np.add(divisor, measure.per(self._state), out=divisor, where=sound)

    @property
    def measures(self) -> dict[str, Array]:
        """[M, N] each measure of the running episode and, where the family defines it, `success` (1 or 0), by name.

        Empty unless this env is measuring. NaN before the first step, and where what a measure is divided by is 0.
        """
        values = {}
        steps = np.where(self._state.steps > 0, self._state.steps, np.nan)
        for name, measure in self._measured.items():
            total, divisor = self._measure_sums[name]
            by = steps if measure.reduce == "mean" else np.where(divisor > 0, divisor, np.nan) if measure.per else 1.0
            values[name] = np.where(np.isnan(steps), np.nan, total / by)
        if values and self.family.success:
            kept = [(c.low <= values[c.measure]) & (values[c.measure] <= c.high) for c in self.family.success]
            values["success"] = np.where(np.isnan(steps), np.nan, np.all(kept, axis=0))
        return {name: self._shape(value) for name, value in values.items()}

    def _faults(self, was_active: Array) -> Array:
        counts = self._count_warnings()
        faulted = (counts > self._warnings) & was_active
        self._warnings = counts
        self.num_faults += int(faulted.sum())
        return faulted

    def _count_warnings(self) -> Array:
        return self.batch.warning[:, :, 1].sum(axis=1)

    def _shape(self, flat: Array) -> Array:
        return flat.reshape(self.num_tasks, self.envs_per_task, *flat.shape[1:])
