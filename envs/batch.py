"""M tasks x N envs as simulations of one `mujoco.batch.Batch`, each on its task's own compiled model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mujoco.batch
import numpy as np

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


class BatchedEnv:
    """Episodes of M tasks x N envs in step.

    An env whose episode ended stays as it is until `reset`: its last observation is never overwritten.
    """

    def __init__(self, family: TaskFamily, num_tasks: int, envs_per_task: int, threads: int = 0):
        """threads: of the simulation; 0 takes all cores."""
        if num_tasks < 1 or envs_per_task < 1:
            raise ValueError(f"need at least 1 task and 1 env a task, got {num_tasks} and {envs_per_task}")
        self.family = family
        self.num_tasks = num_tasks
        self.envs_per_task = envs_per_task
        self._neutral = family.compile(family.neutral())
        self._models = [self._neutral] * num_tasks
        self.batch = mujoco.batch.Batch(self._neutral, num_tasks * envs_per_task, threads)
        num_sims = self.batch.nsim
        self._state = State(self.batch.bind)
        self._state.dt = family.frame_skip * self._neutral.opt.timestep
        self._state.previous_qpos = np.zeros((num_sims, self._neutral.nq))
        self._state.action = np.zeros((num_sims, family.action_size))
        self._warnings = np.zeros(num_sims, dtype=np.int64)
        self._steps = np.zeros(num_sims, dtype=np.int64)
        self._active = np.zeros(num_sims, dtype=bool)
        self._observations = np.zeros((num_sims, family.observation_size), dtype=np.float32)
        self.num_faults = 0
        """Simulations that MuJoCo flagged since this env was made."""
        self.term_sums = {name: np.zeros(num_sims) for name in family.rewards}
        """[S] each weighted reward term summed over the running episode, by name."""
        self.set_tasks([family.neutral()] * num_tasks)
        self._bind_fields()

    def _bind_fields(self) -> None:
        """Ask for every field that the family reads: a call fills only the derived fields that were bound before it."""
        family = self.family
        with np.errstate(all="ignore"):  # of a robot that has not been reset yet
            for function in (family.observe, family.terminate, *(term.function for term in family.rewards.values())):
                if function is not None:
                    function(self._state)

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Compile and take up one model a task. Every env must be reset before it is stepped."""
        if len(tasks) != self.num_tasks:
            raise ValueError(f"this env holds {self.num_tasks} tasks, got {len(tasks)}")
        self.tasks = [self.family.own(task) for task in tasks]
        if self.family.edits_model:
            self._models = [self.family.compile(task) for task in self.tasks]
            self.batch.set_models([model for model in self._models for _ in range(self.envs_per_task)])
        self._state.task = {
            p.name: np.repeat([task.values[p.name] for task in self.tasks], self.envs_per_task)
            for p in self.family.parameters
        }
        self._active[:] = False

    @property
    def dt(self) -> float:
        """Control step, s."""
        return self._state.dt

    @property
    def active(self) -> Array:
        """[M, N] bool, True where an episode is running."""
        return self._shape(self._active)

    def reset(self, rngs: Sequence[np.random.Generator], envs: Array | None = None) -> Array:
        """Start an episode in all envs, or in those of `envs` [M, N] bool; one generator a task.

        Returns the observations, [M, N, obs] float32.
        """
        chosen = np.ones(self.batch.nsim, dtype=bool) if envs is None else envs.reshape(-1)
        ids = np.flatnonzero(chosen)
        self.batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE)
        for m, (model, rng) in enumerate(zip(self._models, rngs, strict=True)):
            sims = ids[(ids >= m * self.envs_per_task) & (ids < (m + 1) * self.envs_per_task)]
            if sims.size:
                self._state.qpos[sims], self._state.qvel[sims] = self.family.reset(model, rng, sims.size)
        self.batch.forward(ids)  # derived fields, and the solver's warm start as mj_forward leaves it
        self._warnings = self._count_warnings()
        self._steps[chosen] = 0
        self._active[chosen] = True
        self._state.previous_qpos[ids] = self._state.qpos[ids]
        self._state.action[ids] = 0.0
        for sums in self.term_sums.values():
            sums[ids] = 0.0
        self._observations[ids] = self.family.observe(self._state)[ids]
        return self._shape(self._observations).copy()

    def step(self, actions: Array) -> StepResult:
        """Advance every running episode by one control step; actions [M, N, act], scaled and clipped here."""
        family, state, was_active = self.family, self._state, self._active
        flat = actions.reshape(self.batch.nsim, family.action_size)
        np.multiply(flat, family.action_scale, out=state.action)
        np.clip(state.action, family.action_low, family.action_high, out=state.action)
        np.copyto(state.previous_qpos, state.qpos)
        family.actuate(state)
        all_active = was_active.all()
        self.batch.step(None if all_active else np.flatnonzero(was_active), nstep=family.frame_skip)
        self._steps += was_active
        faulted = self._faults(was_active)
        sound = was_active & ~faulted
        rewards = self._reward(sound)
        terminated = np.zeros_like(sound) if family.terminate is None else family.terminate(state) & sound
        truncated = (self._steps >= family.horizon) & sound & ~terminated
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
                    f"reward term {name!r} of family {self.family.name!r} is {value[bad]} at step {self._steps[bad]} "
                    f"of task {dict(task.values)}, and MuJoCo reports no fault: mend the term's function"
                )
            self.term_sums[name] += value
            total += value
        return total.astype(np.float32)

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
