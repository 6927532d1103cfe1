"""Show a policy live in MuJoCo's viewer, with the task's parameters on sliders."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Protocol

import mujoco
import numpy as np

from metarl.agents.agent import Belief
from metarl.envs.arrays import Array
from metarl.envs.family import TaskFamily
from metarl.envs.foreign.family import GymFamily
from metarl.envs.parameters import Choice, Parameter
from metarl.envs.rendering import camera, furnish
from metarl.envs.sharded import ShardedEnv
from metarl.envs.task import Task
from metarl.errors import UsageError, describe
from metarl.runs.run import Run
from metarl.runs.trial import stream

FRAME_S = 1 / 60  # s, shortest time between frames
SETTLE_S = 0.3  # s that a slider has to rest before its value is used: every value is a new model
WINDOW_S = 5.0  # s, longest time for the window to close
LATE_S = 0.5  # s, largest delay behind real time that is made up for
ENTER, HOME, SPACE = 257, 268, 32  # as GLFW numbers keys
FOLLOWED = ("type", "fixedcamid", "trackbodyid", "distance", "azimuth", "elevation")
REMEDY = "; metarl render films the policy without one"


class Window(Protocol):
    """A viewer with a slider for each parameter."""

    def is_running(self) -> bool:
        """Return whether the window is still open."""
        ...

    def values(self) -> dict[str, float]:
        """Return the values of the sliders by parameter."""
        ...

    def pressed(self) -> list[int]:
        """Return the keys, as GLFW numbers them, that were pressed since the last call."""
        ...

    def load(self, task: Task) -> None:
        """Show another task."""
        ...

    def show(self, qpos: Array, lines: Mapping[str, str]) -> None:
        """Draw the robot at generalised positions [nq], and lines of text by title."""
        ...


class Scene:
    """A simulated robot that plays episodes of one task with a policy that adapts."""

    def __init__(self, run: Run, task: Task, belief: Belief | None = None, seed: int = 1):
        if isinstance(run.family, GymFamily):
            raise UsageError(
                "metarl watch shows MuJoCo models, and has none of your own environment; film it: metarl render "
                f"{run.directory}"
            )
        self.run, self.belief, self._seed = run, belief, seed
        self.env = ShardedEnv(run.family, 1, 1, threads=1, at_once=1)
        self.change(task)

    def change(self, task: Task) -> None:
        """Start again on a task, with the initial belief."""
        self.task = self.run.family.own(task)
        self.env.set_tasks([self.task])
        self._rng = stream(self._seed, "evaluation/episodes", 0, 0)
        self.controller = self.run.start(self.belief, rng=stream(self._seed, "watch/noise"))
        self.episodes = 0
        """Number of finished episodes."""
        self.last_return = float("nan")
        self._reset()

    def _reset(self) -> None:
        self._observation = self.env.reset([self._rng])[0, 0]
        self._return, self._steps = 0.0, 0

    @property
    def dt(self) -> float:
        """Control step, s."""
        return self.env.shards[0].dt

    @property
    def qpos(self) -> Array:
        """Generalised positions [nq]."""
        return self.env.shards[0].poses[0]

    def step(self) -> None:
        """Take a control step; after the last step of an episode, start the next."""
        step = self.env.step(self.controller.act(self._observation)[None, None])
        self._observation = step.observations[0, 0]
        self._return += float(step.rewards[0, 0])
        self._steps += 1
        if step.faulted[0, 0]:
            self.controller.discard_episode()
            self._reset()
            return
        self.controller.observe(float(step.rewards[0, 0]), bool(step.terminated[0, 0]), bool(step.truncated[0, 0]))
        if not self.env.active[0, 0]:
            self.controller.end_episode(self._observation)
            self.last_return = self._return
            self.episodes += 1
            self._reset()

    def adapt(self) -> None:
        """Play the rest of the shot without drawing it, until the agent has adapted."""
        before = self.controller.adapted
        while self.controller.learning and self.controller.adapted == before:
            self.step()

    @property
    def lines(self) -> dict[str, str]:
        """Lines of text by title."""
        controller = self.controller
        shot = f", episode {self.episodes % controller.episodes_per_shot + 1} of {controller.episodes_per_shot}"
        outside = [p.name for p in self.run.family.parameters if not _trained(p, self.task.values[p.name])]
        return {
            "adaptations": f"{controller.adapted} of {controller.adaptations}{shot if controller.learning else ''}"
            if controller.adaptations
            else f"none{': the agent does not adapt' if not self.run.agent.facts.adapts else ''}",
            "return": f"{self._return:.1f} after {self._steps * self.dt:.1f} s",
            "last return": "" if np.isnan(self.last_return) else f"{self.last_return:.1f}",
            **({"beyond training": ", ".join(outside)} if outside else {}),
            "task": "sliders under Control, on the right",
            **({"Enter": "adapt now"} if controller.adaptations else {}),
            "Home": "start again",
            "Space": "pause",
        }


def watch(
    scene: Scene,
    window: Window,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Play in real time until the window closes; sliders set the task, and keys adapt, restart and pause."""
    paused, due, shown = False, now(), -np.inf
    taken = last = window.values()  # slider values of the current task, and the latest
    since = now()
    while window.is_running():
        values = window.values()
        if values != last:
            last, since = values, now()
        if values != taken and now() - since >= SETTLE_S:
            scene.change(chosen(scene.run.family, values))
            window.load(scene.task)
            taken = last = window.values()
        for key in window.pressed():
            if key == ENTER:
                scene.adapt()
            elif key == HOME:
                scene.change(scene.task)
            paused ^= key == SPACE
        if not paused:
            scene.step()
        if now() - shown >= FRAME_S:
            window.show(scene.qpos, {**({"paused": ""} if paused else {}), **scene.lines})
            shown = now()
        due = max(due + scene.dt, now() - LATE_S)
        sleep(max(0.0, due - now()))


def slider_range(family: TaskFamily, parameter: Parameter) -> tuple[float, float]:
    """Return the smallest and largest value of all splits and named tasks, or an interval around the only one."""
    splits = [d for d in (parameter.distribution, parameter.held_out, parameter.ood) if d is not None]
    named = [values[parameter.name] for values in family.named.values() if parameter.name in values]
    low, high = min([*named, *(d.low for d in splits)]), max([*named, *(d.high for d in splits)])
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def chosen(family: TaskFamily, values: Mapping[str, float]) -> Task:
    """Return the task of slider values, clipped to their ranges; a discrete parameter takes the nearest choice."""
    task = {}
    for parameter in family.parameters:
        low, high = slider_range(family, parameter)
        value = min(max(values[parameter.name], low), high)
        splits = (parameter.distribution, parameter.held_out, parameter.ood)
        choices = [v for d in splits if isinstance(d, Choice) for v in d.values]
        discrete = choices and all(d is None or isinstance(d, Choice) for d in splits)
        task[parameter.name] = min(choices, key=lambda v, value=value: abs(v - value)) if discrete else value
    return family.task(task)


def _trained(parameter: Parameter, value: float) -> bool:
    trained = parameter.distribution
    return value in trained.values if isinstance(trained, Choice) else trained.low <= value <= trained.high


def picture(family: TaskFamily, task: Task) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """Return model and data of the task's robot for the viewer.

    The viewer shows a slider for each motor, under `Control`. So the motors are replaced by one for each parameter,
    which moves nothing.
    """
    spec = family.picture(task)
    for actuator in tuple(spec.actuators):
        spec.delete(actuator)
    for sensor in tuple(spec.sensors):  # they may read a motor
        spec.delete(sensor)
    for parameter in family.parameters:
        unit = "" if parameter.unit == "1" else f" [{parameter.unit}]"
        spec.add_actuator(
            name=f"{parameter.name}{unit}",
            target=spec.joints[0].name,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            gear=np.zeros(6),
            ctrllimited=True,
            ctrlrange=slider_range(family, parameter),
        )
    model = furnish(spec, 640, 480)
    data = mujoco.MjData(model)
    data.ctrl[:] = [task.values[parameter.name] for parameter in family.parameters]
    return model, data


class MujocoWindow:
    """MuJoCo's viewer as a `Window`."""

    def __init__(self, family: TaskFamily, task: Task):
        """Open the window. UsageError, with what to do, if none can be opened."""
        require_display()
        import mujoco.viewer

        self._family, self._pressed = family, []
        self._model, self._data = picture(family, task)
        before = set(threading.enumerate())
        self._viewer = mujoco.viewer.launch_passive(
            self._model, self._data, key_callback=self._pressed.append, show_left_ui=False
        )
        self._threads = set(threading.enumerate()) - before
        self._follow()

    def _follow(self) -> None:
        with self._viewer.lock():
            ours, theirs = camera(self._model), self._viewer.cam
            for name in FOLLOWED:
                setattr(theirs, name, getattr(ours, name))
            theirs.lookat[:] = ours.lookat

    def is_running(self) -> bool:
        """Return whether the window is still open."""
        return self._viewer.is_running()

    def values(self) -> dict[str, float]:
        """Return the values of the sliders by parameter."""
        return {p.name: float(value) for p, value in zip(self._family.parameters, self._data.ctrl, strict=True)}

    def pressed(self) -> list[int]:
        """Return the keys, as GLFW numbers them, that were pressed since the last call."""
        keys = self._pressed[:]
        del self._pressed[: len(keys)]
        return keys

    def load(self, task: Task) -> None:
        """Show another task."""
        if not self._family.edits_model and self._family.decorate is None:
            self._data.ctrl[:] = [task.values[parameter.name] for parameter in self._family.parameters]
            return
        model, data = picture(self._family, task)
        simulate = self._viewer._get_sim()  # the handle has no public way to show another model
        if simulate is not None:
            simulate.load(model, data, "")
            self._model, self._data = model, data  # only now: the window draws the old ones until then
            self._follow()

    def show(self, qpos: Array, lines: Mapping[str, str]) -> None:
        """Draw the robot at generalised positions [nq], and lines of text by title."""
        with self._viewer.lock():
            self._data.qpos[:] = qpos
            mujoco.mj_fwdPosition(self._model, self._data)
        self._viewer.set_texts((None, None, "\n".join(lines), "\n".join(lines.values())))
        self._viewer.sync()

    def close(self) -> None:
        """Close the window and wait for its drawing thread."""
        self._viewer.close()
        for thread in self._threads:
            thread.join(WINDOW_S)


def require_display() -> None:
    """UsageError, with what to do, if no window with OpenGL can be opened here."""
    needs = "metarl watch opens a window, and"
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UsageError(f"{needs} there is no display here (DISPLAY is not set){REMEDY}")
    try:
        import glfw
        import mujoco.viewer
    except (ImportError, RuntimeError, OSError) as error:
        raise UsageError(f"{needs} GLFW cannot be loaded ({describe(error)}){REMEDY}") from error
    if sys.platform == "darwin":
        if mujoco.viewer._MJPYTHON is None:
            raise UsageError(f"{needs} MuJoCo's viewer on macOS needs its own Python: mjpython -m metarl watch ...")
        return  # there a window must not be opened outside its thread
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        window = None
        if glfw.init():
            glfw.window_hint(glfw.VISIBLE, glfw.FALSE)
            window = glfw.create_window(64, 64, "metarl", None, None)
            glfw.terminate()
        if not window:
            reason = "; ".join(str(warning.message) for warning in said)
            raise UsageError(f"{needs} no window can be opened here ({reason or 'GLFW gives no reason'}){REMEDY}")


def watch_run(run: Run, task: Task, belief: Belief | None = None, seed: int = 1) -> None:
    """Show a run's policy on a task until the window closes. UsageError if no window can be opened."""
    window = MujocoWindow(run.family, task)
    try:
        watch(Scene(run, task, belief, seed), window)
    finally:
        window.close()
