"""M tasks x N envs as simulations side by side, each on the compiled model of its task."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from metarl.envs import terms
from metarl.envs.arrays import Array, none, write
from metarl.envs.family import TaskFamily
from metarl.envs.reveal import privileged
from metarl.envs.scores import Scores
from metarl.envs.simulation import CPU, Simulator, Unsupported
from metarl.envs.simulation import zeros as simulation_zeros
from metarl.envs.state import State, renewed
from metarl.envs.task import Task

NEVER = np.iinfo(np.int64).max


class SimulationFault(RuntimeError):
    """A mistake in the family, as where a reward is not a number although the simulation is sound."""


class StepResult(NamedTuple):
    """Result of a control step. An env whose episode had ended takes no step: its observation is held, its reward 0.

    On a device the arrays are the env's own: the next step or reset overwrites them.
    """

    observations: Array
    """Observations, [M, N, obs] float32."""
    rewards: Array
    """Rewards, [M, N] float32."""
    terminated: Array
    """Whether the episode ended for good at this step, [M, N] bool."""
    truncated: Array
    """Whether the time limit cut the episode at this step, [M, N] bool."""
    faulted: Array
    """Whether the simulation broke down at this step, [M, N] bool: MuJoCo warned, or an environment of another author
    raised an error. The episode ended; do not learn from it."""


class Stages(NamedTuple):
    """Stages that the tasks of a batch go through, K in all."""

    changes: Array
    """Steps of a trial before each change, [S, changes]."""
    first: Array
    """Place of the first stage of each simulation's task, [S]."""
    values: tuple[Array, ...]
    """Values of each parameter of the family, [K]."""
    carried: dict[str, Array]
    """What a change of the task changes in the simulation's state, see `_carried`."""


def own_simulator(family: TaskFamily, simulator: Simulator) -> Simulator:
    """Return what simulates a family where `simulator` is asked for; Unsupported if it is its own, and another is."""
    if family.simulator is None:
        return simulator
    if simulator not in (CPU, family.simulator):
        raise Unsupported(f"the environments of family {family.name!r} are stepped by their own code; use cpu")
    return family.simulator


def _carried(models: Sequence[mujoco.MjModel], family: TaskFamily) -> dict[str, np.ndarray]:
    """Return the fields of a state, [K, ...] each, that a reset takes from the model and in which the models differ.

    They are the active equality constraints and the poses of mocap bodies: another model alone would not change them.
    """
    bodies = np.argsort(models[0].body_mocapid)[models[0].nbody - models[0].nmocap :]
    fields = {
        "eq_active": np.array([model.eq_active0 for model in models]),
        "mocap_pos": np.array([model.body_pos[bodies] for model in models]),
        "mocap_quat": np.array([model.body_quat[bodies] for model in models]),
    }
    return {name: own for name, own in fields.items() if name not in family.initial and (own != own[0]).any()}


class BatchedEnv:
    """Episodes of M tasks x N envs in step.

    An env whose episode ended stays as it is until `reset`: its last observation is never overwritten. It returns NumPy
    arrays if its simulations are on the CPU, and torch tensors on their device otherwise.
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
        telling: bool = False,
    ):
        """threads: threads of the simulation; 0 takes all cores. like: a task of the layout that all tasks have; None:
        the neutral one. measuring: whether the family's measures are computed, see `measures`. telling: whether the
        privileged values are, see `privileged`."""
        if num_tasks < 1 or envs_per_task < 1:
            raise ValueError(f"need at least 1 task and 1 env a task, got {num_tasks} and {envs_per_task}")
        self.family = family
        self.num_tasks = num_tasks
        self.envs_per_task = envs_per_task
        self._like = family.own(like or family.neutral())
        self._base = family.compile(self._like)
        self.simulation = own_simulator(family, simulator).make(self._base, num_tasks * envs_per_task, threads)
        self._told = privileged(family) if telling else {}
        self._state = State(self.simulation.bind, self.simulation.xp, self.simulation.array)
        self._state.dt = family.seconds(self._base)
        self._allocate()
        self._starts: tuple[Array, ...] = ()
        """Starts that are kept, [count S, ...] of each array of `_start`; `_next` is the place of each env's next."""
        self._scores = Scores(family, self.simulation, measuring, self._blame)
        self._sizes: tuple[int | str, ...] = ()  # number of stages of all tasks, the most of one task, what is carried
        self._control = self.simulation.repeat(self.advance)
        self.set_tasks([self._like] * num_tasks)
        self._bind_fields()

    def _allocate(self) -> None:
        """Make the arrays of the state and of what a step returns."""
        family, state = self.family, self._state
        zeros = functools.partial(simulation_zeros, self.simulation)
        state.previous = {name: zeros(tuple(getattr(state, name).shape[1:])) for name in family.previous}
        state.action = zeros((family.action_size,))
        state.steps, state.task_index, state.keys = zeros((), np.int64), zeros((), np.int64), zeros((), np.uint64)
        self._mirrored = zeros((), bool)
        state.memory = {name: zeros(shape) for name, shape in family.memory.items()}
        state.task = {p.name: zeros() for p in family.parameters}
        self._episodes, self._clock, self._faults, self._next = (zeros((), np.int64) for _ in range(4))
        self._observations, self._rewards = zeros((family.observation_size,), np.float32), zeros((), np.float32)
        self._privileged = zeros((sum(len(term.elements) for term in self._told.values()),), np.float32)
        self._active, self._terminated, self._truncated, self._faulted = (zeros((), bool) for _ in range(4))
        self._shown = StepResult(*map(self._shape, self.results))
        """Result of the last control step, live, [M, N, ...] each."""

    def _bind_fields(self) -> None:
        """Bind every field that the family reads: a call fills only the derived fields that were bound before it."""
        family = self.family
        with np.errstate(all="ignore"):  # the robot has not been reset yet
            if family.update is not None:
                family.update(self._state)
            seen = family.seen(self._state)
            for function in (
                family.drive,
                family.observe,
                self._tell,
                family.terminate,
                family.truncate,
                *self._scores.functions(),
            ):
                if function is not None:
                    function(seen)

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Compile one model per task and take it up. Reset every env before the next step."""
        if len(tasks) != self.num_tasks:
            raise ValueError(f"this env holds {self.num_tasks} tasks, got {len(tasks)}")
        tasks = [self.family.own(task) for task in tasks]
        for task in tasks:
            if self.family.layout_of(task) != self.family.layout_of(self._like):
                raise ValueError(
                    f"this env's tasks have the layout {self.family.layout_of(self._like)}, got one of "
                    f"{self.family.layout_of(task)}; make one env per layout, as ShardedEnv does"
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
        carried = _carried(self._models, self.family) if self._changing and compiled else {}
        made = Stages(
            changes=put(np.repeat(begin[:, 1:], each, axis=0)),
            first=put(np.repeat(np.cumsum([0, *counts[:-1]]), each)),
            values=tuple(put(np.array([stage.values[p.name] for stage in flat])) for p in self.family.parameters),
            carried={name: put(values) for name, values in carried.items()},
        )
        self._mirrored[...] = put(np.repeat([task.mirrored for task in tasks], each))
        self._state.take(self._models)
        if compiled:
            self.simulation.take(self._models)
        self._episodes[...] = self._clock[...] = self._state.steps[...] = 0
        self._active[...] = False
        sizes = (len(flat), max(counts), *carried)
        if self._sizes != sizes:  # a recording reads arrays of other shapes
            self._sizes, self._stages = sizes, made
            self.simulation.renew()
        else:
            renewed(self._stages, made)
        self._enter(self._stages.first)

    def _enter(self, index: Array) -> None:
        """Give each simulation the stage at this place, [S]."""
        self._state.task_index[...] = index
        for parameter, values in zip(self.family.parameters, self._stages.values, strict=True):
            self._state.task[parameter.name][...] = values[index]
        if self.family.edits_model:
            self.simulation.assign(self._state.task_index)
        for name, values in self._stages.carried.items():
            getattr(self._state, name)[...] = values[index]

    def _change(self) -> None:
        """Give each simulation the stage that its trial's steps have come to."""
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
        """Whether an episode is running, [M, N] bool; a copy."""
        return self._shape(self.simulation.xp.asarray(self._active, copy=True))

    @property
    def over(self) -> bool:
        """Whether no episode is running; False on a device, which would have to be waited for."""
        return none(self._active)

    @property
    def poses(self) -> np.ndarray:
        """Positions qpos on the host, [S, nq]; on the CPU they are live."""
        return self.simulation.host(self._state.qpos)

    @property
    def task_values(self) -> dict[str, np.ndarray]:
        """Current value of each parameter in each simulation, [S] by name, on the host: a task may have changed."""
        return {name: self.simulation.host(values) for name, values in self._state.task.items()}

    @property
    def num_faults(self) -> int:
        """Number of simulations that were flagged since this env was made."""
        return int(self.simulation.host(self._faults).sum())

    @property
    def term_sums(self) -> dict[str, np.ndarray]:
        """`terms` on the host."""
        return self._scores.term_sums()

    def reset(
        self,
        rngs: Sequence[np.random.Generator],
        envs: np.ndarray | None = None,
        trials: np.ndarray | None = None,
        again: bool = False,
    ) -> Array:
        """Start an episode in all envs, or in those of `envs` [M, N] bool; one generator a task.

        trials: [M, N] bool, True where a new trial begins: the task returns to its first stage. Both are on the host.
        again: whether it is the trial's episode before, once more, so that changes of the task come when they did.

        Returns the observations, [M, N, obs] float32.
        """
        simulation, state = self.simulation, self._state
        here = np.ones(simulation.num_sims, dtype=bool) if envs is None else envs.reshape(-1)
        chosen = simulation.array(here)
        if trials is not None:
            anew = simulation.array(trials.reshape(-1))
            for counter in (self._episodes, self._clock):
                write(counter, 0, where=anew)
        if not again:
            write(self._episodes, self._episodes + 1, where=chosen)
        write(state.steps, 0, where=chosen)
        if self._changing:
            self._change()
        places = np.split(np.arange(simulation.num_sims), self.num_tasks)
        self._begin([(of_task[here[of_task]], rng) for of_task, rng in zip(places, rngs, strict=True)], chosen)
        self._scores.clear(chosen)
        return self.observations

    def revive(self, rng_of: Callable[[int], np.random.Generator]) -> Array | None:
        """Place the robots anew that fell in the last step, where their episode has time left: another life in it.

        The episode's steps, sums and task go on. rng_of: returns the generator that simulation s is placed by.
        Returns the envs of a new life, [M, N] bool; None if there is none, or the family's episodes end by no fall.
        """
        if not self.family.can_fall:
            return None
        chosen = self._terminated & (self._state.steps < self.family.horizon)
        here = np.flatnonzero(self.simulation.host(chosen))
        if not here.size:
            return None
        self._begin([(here[k : k + 1], rng_of(int(s))) for k, s in enumerate(here)], chosen)
        return self._shape(chosen)

    def _begin(self, draws: Iterable[tuple[np.ndarray, np.random.Generator]], chosen: Array) -> None:
        """Start the simulations `chosen` [S] bool anew, by draws as in `_place`."""
        simulation, state = self.simulation, self._state
        simulation.reset(chosen)
        self._place(draws, chosen)
        simulation.forward(chosen)
        write(self._active, chosen, where=chosen)
        for name, before in state.previous.items():
            write(before, getattr(state, name), where=chosen)
        write(state.action, 0, where=chosen)
        for remembered in state.memory.values():
            write(remembered, 0, where=chosen)
        if self.family.begin is not None:
            self.family.begin(state, chosen)
        seen = self.family.seen(state)
        write(self._observations, self._observe(seen), where=chosen)
        write(self._privileged, self._tell(seen), where=chosen)

    def _place(self, draws: Iterable[tuple[np.ndarray, np.random.Generator]], chosen: Array) -> None:
        """Set start and noise keys of the simulations `chosen` [S] bool.

        draws: simulations of one task by their places, and the generator that they are drawn from.
        """
        simulation, state = self.simulation, self._state
        index = simulation.host(state.task_index)
        fields = [getattr(state, name) for name in self.family.starts]
        starts = [np.zeros(tuple(field.shape)) for field in fields]
        keys = np.zeros(simulation.num_sims, dtype=np.uint64)
        for sims, rng in draws:
            if sims.size:
                for stage in dict.fromkeys(index[sims].tolist()):  # a task that changes: each env may be in another
                    there = sims[index[sims] == stage]
                    drawn = self.family.reset(self._models[stage], rng, there.size)
                    for values, own in zip(starts, drawn, strict=True):
                        values[there] = own
                if self.family.noisy:
                    keys[sims] = rng.integers(2**64, size=sims.size, dtype=np.uint64)
        for field, values in zip(fields, starts, strict=True):
            write(field, simulation.array(values), where=chosen)
        if self.family.noisy:
            write(state.keys, simulation.array(keys), where=chosen)
        for name, value in self.family.initial.items():
            field = getattr(state, name)
            write(field, simulation.array(np.array(np.broadcast_to(value, tuple(field.shape)))), where=chosen)

    def step(self, actions: Array) -> StepResult:
        """Advance every running episode by one control step; actions [M, N, act], scaled and clipped here."""
        self._control(actions.reshape(self.simulation.num_sims, self.family.action_size))
        return StepResult(*[shown.copy() for shown in self._shown]) if self.simulation.xp is np else self._shown

    def advance(self, actions: Array) -> None:
        """Take a control step of actions [S, act] by operations that do not depend on values; see `results`."""
        family, state, simulation, xp = self.family, self._state, self.simulation, self.simulation.xp
        if self._changing:
            self._change()
        if family.mirror is not None:
            actions = family.mirror.actions.where(self._mirrored, actions)
        state.action[...] = family.applied(actions)
        for name, before in state.previous.items():
            before[...] = getattr(state, name)
        state.ctrl[...] = family.control.of(state.action)[:, : state.ctrl.shape[1]]
        if family.actuate is not None:
            family.actuate(state)
        self._simulate()
        state.steps += self._active
        if family.update is not None:
            family.update(state)
        seen = family.seen(state)
        self._faulted[...] = simulation.faulted() & self._active
        self._faults += self._faulted
        sound = self._active & ~self._faulted
        whole = none(~sound)
        self._rewards[...] = self._scores.reward(seen, sound, whole)
        self._scores.measure(seen, sound)
        if family.terminate is not None:
            self._terminated[...] = sound & family.terminate(seen)
        truncated = state.steps >= family.horizon
        if family.truncate is not None:
            truncated = truncated | family.truncate(seen)
        self._truncated[...] = truncated & sound & ~self._terminated
        observations = xp.astype(self._observe(seen), self._observations.dtype, copy=False)
        if whole:
            self._observations[...] = observations
        else:
            write(self._observations, observations, where=sound)
        if self._told:
            write(self._privileged, self._tell(seen), where=sound)
        self._active[...] = sound & ~self._terminated & ~self._truncated

    def _simulate(self) -> None:
        """Take the simulation steps of a control step."""
        drive, simulation = self.family.drive, self.simulation
        if drive is None:
            simulation.step(self._active, self.family.frame_skip)
            return
        for _ in range(self.family.frame_skip):
            self._state.ctrl[...] = drive(self._state)
            simulation.step(self._active, 1)

    def keep_starts(self, rngs: Sequence[np.random.Generator], count: int, rounds: int = 1) -> None:
        """Keep `count` starts of each env, which `restart` goes through, and start all envs from the last of them.

        count: a multiple of `rounds`, the episodes of a trial: each start is then always of the same round, and of the
        stage that its task has there. The last is of the first round, the first of the next.
        """
        everything = np.ones((self.num_tasks, self.envs_per_task), dtype=bool)
        kept = []
        self._episodes[...] = 1
        for k in range(1, count + 1):
            self.reset(rngs, everything, everything if k % rounds == 0 else ~everything)
            kept.append([self.simulation.xp.asarray(live, copy=True) for live in self._start()])
        starts = tuple(self.simulation.xp.concat(each) for each in zip(*kept, strict=True))
        self._starts = renewed(self._starts, starts) if len(self._starts) == len(starts) else starts
        self._next[...] = self.simulation.array(np.arange(self.simulation.num_sims, dtype=np.int64))

    def restart(self, rounds: int = 1) -> None:
        """Start an episode where none is running, by operations that do not depend on values.

        Its start is the next of those kept; after the last comes the first again. rounds: those they were kept for.
        """
        ended, num_sims = ~self._active, self.simulation.num_sims
        for live, kept in zip(self._start(), self._starts, strict=True):
            write(live, kept[self._next], where=ended)
        self._next[...] = (self._next + num_sims * ended) % len(self._starts[0])
        write(self._episodes, self._episodes % rounds + 1, where=ended)
        write(self._state.steps, 0, where=ended)
        write(self._state.action, 0, where=ended)
        self._scores.clear(ended)
        write(self._active, True, where=ended)
        if self._changing:
            self._change()

    @property
    def observations(self) -> Array:
        """Observations of all envs, [M, N, obs] float32; a copy."""
        return self._shape(self.simulation.xp.asarray(self._observations, copy=True))

    def _observe(self, seen: State) -> Array:
        """Return the observations, [S, obs], those of mirrored tasks as in the mirror."""
        values, mirror = self.family.observe(seen), self.family.mirror
        return values if mirror is None else mirror.observation.where(self._mirrored, values)

    def _tell(self, seen: State) -> Array:
        """Return the privileged values, [S, P], those of mirrored tasks as in the mirror; P is 0 unless this env is
        telling."""
        if not self._told:
            return self._privileged
        values, mirror = terms.observe(self._told, seen), self.family.mirror
        return values if mirror is None else mirror.privileged.where(self._mirrored, values)

    def _start(self) -> list[Array]:
        """Return the live arrays that differ from one start of an episode to another."""
        state = self._state
        own = [*state.memory.values(), *state.previous.values(), state.keys, self._observations, self._privileged]
        return [*self.simulation.live(), *own]

    @property
    def results(self) -> StepResult:
        """Result of the last control step, live, [S, ...] each."""
        return StepResult(self._observations, self._rewards, self._terminated, self._truncated, self._faulted)

    @property
    def privileged(self) -> Array:
        """What only a simulator knows of each env, [M, N, P] float32, a copy; P is 0 unless this env is telling.

        Where an episode is over, the values are those of its end.
        """
        return self._shape(self.simulation.xp.asarray(self._privileged, copy=True))

    @property
    def steps(self) -> Array:
        """Control steps taken in the running episode, live, [S] int64."""
        return self._state.steps

    @property
    def episodes(self) -> Array:
        """Number of the running episode in its trial, from 1, live, [S] int64."""
        return self._episodes

    def verify(self) -> None:
        """Raise SimulationFault if a reward was not a number since the last reset, which a device does not report."""
        self._scores.verify()

    def _blame(self, name: str, values: np.ndarray, bad: int) -> None:
        raise SimulationFault(
            f"reward term {name!r} of family {self.family.name!r} is {values[bad]} at step "
            f"{int(self._state.steps[bad])} of task {dict(self.tasks[bad // self.envs_per_task].values)}, "
            "and MuJoCo reports no fault: correct the term's function"
        )

    @property
    def terms(self) -> dict[str, Array]:
        """Each weighted reward term summed over the running episode, by name, [S]; live, where the simulations are."""
        return self._scores.terms

    @property
    def measures(self) -> dict[str, np.ndarray]:
        """Each measure of the running episode and, where the family defines it, `success` (1 or 0), by name, [M, N].

        Empty unless this env is measuring. NaN before the first step, and where a measure is divided by 0. On the host.
        """
        taken = self.simulation.host(self._state.steps)
        return {name: self._shape(value) for name, value in self._scores.measured(taken).items()}

    def _shape(self, flat: Array) -> Array:
        return flat.reshape(self.num_tasks, self.envs_per_task, *flat.shape[1:])
