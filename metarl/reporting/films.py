"""Films of a policy as MP4, before and after adaptation side by side."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import math
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.error import FFmpegError

from metarl.agents.agent import Facts
from metarl.config import SPLIT_NAMES, EvaluationSettings
from metarl.envs.arrays import Array
from metarl.envs.batch import BatchedEnv, StepResult
from metarl.envs.family import TaskFamily
from metarl.envs.foreign.family import GymFamily
from metarl.envs.foreign.simulation import GymSimulation
from metarl.envs.rendering import Renderer, RenderingUnavailable
from metarl.envs.sharded import ShardedEnv
from metarl.envs.task import Task
from metarl.errors import RunError, UsageError, describe, usage_errors
from metarl.evaluation.outcomes import disturbance_of, exploring
from metarl.files import make_folder, write
from metarl.reporting.figures import AFTER, BEFORE, INK, QUIET, without_glyph_warnings
from metarl.runs.run import Run
from metarl.runs.trial import run_trial, stream, streams
from metarl.wording import number_of

PANE = (480, 360)
"""Width and height of one robot's picture, pixels."""
MAX_FPS = 30
CAPTION_LINES = 3
"""Largest number of lines of parameter values over the pictures."""
APART = ",  "
"""What stands between the values of a task."""
LINE, BAR, GAP = 20, 4, 4
"""Pixels: height of a line of text, height of the progress bar of an episode, width between pictures."""
USUAL = EvaluationSettings()
"""What is said of an evaluation's settings is where they differ from these."""
DPI = 100
BITRATE = 640_000
"""Highest bit rate, bits per second: 10 s stay under 1 MB."""


class Pose(NamedTuple):
    """Pose of a robot."""

    qpos: Array
    """[nq]; of somebody's own environment, the picture that it gave, [height, width, 3] uint8."""
    stage: int = 0
    """Number of changes of the task so far in the trial."""


class RecordingEnv(BatchedEnv):
    """A batch that records the poses of its first env."""

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self.trajectories: list[list[Pose]] = []
        """Poses at the start and after each step that MuJoCo did not flag, one list for each episode of a trial; not of
        those that are played again."""
        self._path: list[Pose] = []

    def reset(
        self,
        rngs: Sequence[np.random.Generator],
        envs: Array | None = None,
        trials: Array | None = None,
        again: bool = False,
    ) -> Array:
        """Reset as `BatchedEnv` does; a new episode of the first env begins a list of poses."""
        observations = super().reset(rngs, envs, trials, again)
        if envs is None or envs[0, 0]:
            self._path = [self._pose()]
            self.trajectories += [] if again else [self._path]
        return observations

    def step(self, actions: Array) -> StepResult:
        """Step as `BatchedEnv` does, and record the pose of the first env."""
        running = self.active[0, 0]
        result = super().step(actions)
        if running and not result.faulted[0, 0]:
            self._path.append(self._pose())
        return result

    def _pose(self) -> Pose:
        seen = self.simulation.picture() if isinstance(self.simulation, GymSimulation) else self.poses[0].copy()
        return Pose(seen, sum(change.step <= self._clock[0] for change in self.tasks[0].changes))


class TaskRenderer:
    """Renderer of a task's robot before and after the changes of the task."""

    def __init__(self, family: TaskFamily, task: Task):
        self.width, self.height = PANE
        with contextlib.ExitStack() as opened:
            stages = family.stages(task)
            self._stages = [opened.enter_context(Renderer(family.picture(stage), *PANE)) for stage in stages]
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def frame(self, pose: Pose) -> Array:
        """Return the picture of a pose, [height, width, 3] uint8."""
        return self._stages[pose.stage].frame(pose.qpos)


class PictureRenderer:
    """Fits the pictures that somebody's own environment gave."""

    width, height = PANE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def frame(self, pose: Pose) -> Array:
        """Return the picture, [height, width, 3] uint8."""
        return fitted(pose.qpos, PANE)


def fitted(picture: Array, size: tuple[int, int]) -> Array:
    """Return a picture of this width and height, [height, width, 3] uint8, white beside a narrower or lower one."""
    from PIL import Image, ImageOps

    return np.array(ImageOps.pad(Image.fromarray(picture), size, color="white"))


@dataclass(frozen=True)
class Clip:
    """An episode to be filmed."""

    title: str
    poses: Sequence[Pose]
    """Poses at the start and after each step."""
    colour: str = INK


@dataclass(frozen=True)
class Video:
    """A film that was written."""

    path: Path
    seconds: float
    episode_s: float
    """Length of the longest episode that it shows."""
    size: int
    """Size in bytes."""
    task: str
    """Values of the task, of which those that found no room over the pictures too."""

    def __str__(self) -> str:
        cut = f"the first {self.seconds:.1f} s of {self.episode_s:.1f} s" if self.seconds < self.episode_s else ""
        return f"{self.path} ({cut or f'{self.seconds:.1f} s'}, {self.size / 1000:.0f} KB)"


def render_run(
    run: Run,
    task: Task | None = None,
    split: str | None = None,
    seed: int | None = None,
    shot: int | None = None,
    output: Path | None = None,
    seconds: float = 10.0,
    threads: int = 0,
    altered: Mapping[str, Any] = MappingProxyType({}),
) -> Video:
    """Film a run's policy on one task: an episode before adaptation beside one after it.

    task: None takes the first task that an evaluation with this split and seed meets, and its first episode. shot:
    rounds of adaptation before the second episode; with 0, or if the agent does not adapt, there is only the first.
    seconds: longest part of an episode. altered: settings of the family that are not those of the run's training, by
    name, for the heading and the file's name. None takes the value of the run's evaluation settings. UsageError if
    there is no renderer.
    """
    settings, family = run.config.evaluation, run.family
    seed = settings.seeds[0] if seed is None else seed
    split = settings.split if split is None else split
    shot = settings.adaptations if shot is None else shot
    _check(seconds, seed)
    if shot < 0:
        raise UsageError(f"--shot is {shot}; it must be at least 0")
    adapts = run.agent.facts.adapts
    shot = shot if adapts else 0
    shown, of_what = _draw(family, task, split, seed)
    if output is None:
        name = f"{shown.id.removeprefix(f'{family.name}-') if task else split}_seed{seed}"
        name += f"_{hashlib.sha256(repr(dict(altered)).encode()).hexdigest()[:8]}" if altered else ""
        output = run.directory / "evaluation" / f"video_{name}_shot{shot}_iteration{run.iteration:06d}.mp4"
    with _renderer(family, shown) as renderer:
        env = ShardedEnv(visible(family), 1, settings.envs_per_task, threads, batch=RecordingEnv)
        env.set_tasks([shown])
        [shard] = env.shards
        assert isinstance(shard, RecordingEnv)
        explore = exploring(run.agent, replace(settings, adaptations=shot)).explore
        rngs = streams(seed, "evaluation/episodes", 0, 1)
        disturbance = disturbance_of(family, settings, threads)
        played = (shot, explore, disturbance, settings.reset_memory, settings.lives)
        result = run_trial(env, run.agent, rngs, *played, explore_to_adapt=settings.explore_to_adapt)
        clips = []
        for k in [0, shot] if shot else [0]:
            returns = result.returns[k][0]  # [N]
            colour = AFTER if k else BEFORE
            title = _shot(k, len(returns), run.agent.facts)
            clips.append(Clip(f"{title}:  {_return(returns)}", shard.trajectories[k], colour))
        closed(shard)
        parts = [f"{run.directory.resolve().name}, iteration {run.iteration}", of_what]
        conditions = {name: getattr(settings, name) for name in ("observation_noise", "reward_scale")}
        conditions = {name: value for name, value in conditions.items() if value != getattr(USUAL, name)}
        changed = (conditions | dict(altered)).items()
        parts += [f"{name.replace('_', ' ')} {setting_caption(value)}" for name, value in changed]
        return film(renderer, shard.dt, clips, captions(family, shown, "  |  ".join(parts)), output, seconds)


def render_family(
    family: TaskFamily,
    task: Task | None = None,
    split: str = "train",
    seed: int = 1,
    actions: str = "random",
    output: Path | None = None,
    seconds: float = 10.0,
) -> Video:
    """Film an episode of one task without a policy. actions: `random`, uniform in their bounds, or `zero`."""
    _check(seconds, seed)
    shown, of_what = _draw(family, task, split, seed)
    with _renderer(family, shown) as renderer:
        env = RecordingEnv(visible(family), 1, 1, threads=1, like=shown)
        env.set_tasks([shown])
        rng = stream(seed, "render/actions")
        env.reset(streams(seed, "evaluation/episodes", 0, 1))
        total = 0.0
        while env.active[0, 0]:
            action = rng.uniform(family.action_low, family.action_high) / family.action_scale
            result = env.step((action if actions == "random" else np.zeros_like(action))[None, None])
            total += float(result.rewards[0, 0])
        closed(env)
        clips = [Clip(f"{actions} actions:  {_return(np.array([total]))}", env.trajectories[0])]
        lines = captions(family, shown, f"{family.name}  |  {of_what}")
        return film(renderer, env.dt, clips, lines, output or Path(f"{family.name}_{actions}.mp4"), seconds)


def captions(family: TaskFamily, task: Task, heading: str) -> list[str]:
    """Return the lines over the pictures: a heading, and the values of the task with their units.

    Name, fault and changes of the task come first, as values that find no room are left out at the end.
    """
    changes = [
        f"from step {change.step} of the trial on {' and '.join(value_captions(family, change.values))}"
        for change in task.changes
    ]
    fault, others = _split_captions(family, task.values)
    changing = {name for change in task.changes for name in change.values}
    first, rest = ([text for name, text in others.items() if (name in changing) == there] for there in (True, False))
    return [heading, APART.join([*name_captions(family, task), *fault, *first, *changes, *rest])]


def setting_caption(value: Any) -> str:
    """Return a setting as text: a range of numbers by its ends, or the one number that it holds, and a list's items."""
    if not isinstance(value, tuple | list):
        return str(value)
    items = [f"{item:g}" if isinstance(item, int | float) else str(item) for item in value]
    if len(items) == 2 and all(isinstance(item, int | float) for item in value):
        return " to ".join(dict.fromkeys(items))
    return ", ".join(items)


def name_captions(family: TaskFamily, task: Task) -> list[str]:
    """Return the name of a named task as text; nothing for another."""
    name = family.name_of(task.values)
    return [name.replace("_", " ")] if name else []


def value_captions(family: TaskFamily, values: Mapping[str, float]) -> list[str]:
    """Return a text such as `target velocity 1.5 m/s` for each parameter that has a value, and one for a fault."""
    fault, others = _split_captions(family, values)
    return [*fault, *others.values()]


def _split_captions(family: TaskFamily, values: Mapping[str, float]) -> tuple[list[str], dict[str, str]]:
    """Return the text of a fault, if the values say of one, and those of the other values by name."""
    fault, apart = family.faults.said(values) if family.faults is not None else ("", frozenset())
    others = [p for p in family.parameters if p.name in values and p.name not in apart]
    texts = {p.name: f"{p.name.replace('_', ' ')} {p.words(values[p.name])}" for p in others}
    return [fault] if apart & values.keys() else [], texts


def film(
    renderer: TaskRenderer | PictureRenderer,
    step_s: float,
    clips: Sequence[Clip],
    lines: Sequence[str],
    path: Path,
    seconds: float,
) -> Video:
    """Write the clips, side by side and at the same time, as an MP4.

    step_s: seconds between poses. lines: over the pictures; the last one has the values of the task.
    """
    every = math.ceil(1 / step_s / MAX_FPS - 1e-9)
    count = max(len(clip.poses) for clip in clips)
    shown = min(count, 1 + math.floor(seconds / step_s + 1e-9))
    fps = Fraction(1 / (step_s * every)).limit_denominator(1000)
    data = encode(compose(renderer, clips, lines, range(0, shown, every)), fps)
    make_folder(path.parent, "--output")
    write(path, data, "--output")
    return Video(path, (shown - 1) * step_s, (count - 1) * step_s, len(data), lines[-1])


def compose(
    renderer: TaskRenderer | PictureRenderer, clips: Sequence[Clip], lines: Sequence[str], steps: range
) -> Iterator[Array]:
    """Yield frames [height, width, 3] uint8 of even sizes: captions above, a picture of each clip below."""
    width = renderer.width * len(clips)
    top = caption([wrapped for line in lines for wrapped in _wrap(line, width)], width)
    titles = np.hstack([caption([clip.title], renderer.width, clip.colour) for clip in clips])
    panes: list[Array] = [np.empty(0)] * len(clips)
    for t in steps:
        bar = np.full((BAR, width, 3), 255, dtype=np.uint8)
        for i, clip in enumerate(clips):
            last = len(clip.poses) - 1
            if t <= last or not panes[i].size:
                panes[i] = renderer.frame(clip.poses[min(t, last)])
                panes[i][:, renderer.width - GAP * (i + 1 < len(clips)) :] = 255
            over = round(renderer.width * min(1.0, t / max(last, 1)))
            bar[:, i * renderer.width : i * renderer.width + over] = _rgb(clip.colour if t < last else QUIET)
        frame = np.vstack([top, titles, bar, np.hstack(panes)])
        yield np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)], mode="edge")


def caption(lines: Sequence[str], width: int, colour: str = INK) -> Array:
    """Return lines of text on white, [LINE x lines, width, 3] uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = LINE * len(lines)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    for i, line in enumerate(lines):
        y = 1 - (i + 0.55) / len(lines)
        figure.text(8 / width, y, line, va="center", fontsize=9.5, color=colour, parse_math=False)
    with without_glyph_warnings():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def encode(frames: Iterable[Array], fps: Fraction) -> bytes:
    """Return frames [height, width, 3] uint8 of even sizes as H.264 in an MP4 that every player and browser reads."""
    limits = {"maxrate": str(BITRATE), "bufsize": str(BITRATE)}
    rest = iter(frames)
    first = next(rest)
    with encodable(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film.mp4")  # on disk: the index is moved to the file's front in a second pass
        with av.open(path, "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=fps, options={"crf": "22", "preset": "medium", **limits})
            stream.height, stream.width = first.shape[:2]
            stream.pix_fmt = "yuv420p"
            for frame in itertools.chain([first], rest):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return path.read_bytes()


@contextlib.contextmanager
def encodable() -> Iterator[None]:
    """Raise RunError, which names the requirements, where the encoder fails."""
    try:
        yield
    except (FFmpegError, UnknownCodecError) as error:
        raise RunError(
            f"no film: PyAV cannot encode it ({describe(error)}); it needs the encoder libx264, which the wheels of "
            f"PyAV have, and room in {tempfile.gettempdir()}"
        ) from error


def poster(path: Path) -> bytes:
    """Return the frame in the middle of a film as JPEG."""
    from PIL import Image

    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    buffer = io.BytesIO()
    Image.fromarray(frames[len(frames) // 2]).save(buffer, "jpeg", quality=80)
    return buffer.getvalue()


@contextlib.contextmanager
def usable_renderer() -> Iterator[None]:
    """Raise UsageError, which says what to install or set, where there is no renderer."""
    try:
        yield
    except RenderingUnavailable as error:
        raise UsageError(str(error)) from error


def closed(env: BatchedEnv) -> None:
    """Close somebody's own environment whose pictures are taken: a renderer must not outlive its library."""
    if isinstance(env.simulation, GymSimulation):
        env.simulation.close()


def visible(family: TaskFamily) -> TaskFamily:
    """Return the family with envs that can be filmed; UsageError for somebody's own environment that gives none."""
    with usage_errors("family"):
        return family.pictured() if isinstance(family, GymFamily) else family


def _renderer(family: TaskFamily, task: Task) -> TaskRenderer | PictureRenderer:
    if isinstance(family, GymFamily):
        return PictureRenderer()
    with usable_renderer():
        return TaskRenderer(family, task)


def _draw(family: TaskFamily, task: Task | None, split: str, seed: int) -> tuple[Task, str]:
    """Return the task, and its origin in words."""
    if task is not None:
        return family.own(task), f"a task of your own, seed {seed}"
    with usage_errors("--split"):
        drawn = family.sample(1, stream(seed, "evaluation/tasks"), split)[0]  # pyright: ignore[reportArgumentType]
    return drawn, f"{SPLIT_NAMES[split]} task, seed {seed}"


def _check(seconds: float, seed: int) -> None:
    if not seconds > 0:
        raise UsageError(f"--seconds is {seconds:g}; it must be greater than 0")
    if seed < 0:
        raise UsageError(f"--seed is {seed}; it must be at least 0")


def _shot(k: int, envs: int, facts: Facts) -> str:
    """Return the number of episodes before shot k in words; a memory of each env has seen its own episodes alone."""
    if not facts.adapts:
        return "one policy for all tasks"
    episodes = k if facts.belief_per_env else k * envs
    return f"after {number_of(episodes, 'episode')}" if k else "before adaptation"


def _return(returns: Array) -> str:
    if np.isnan(returns[0]):
        return "stopped, the simulation broke down"
    mean = f" (mean of {len(returns)}: {_number(float(np.nanmean(returns)))})" if len(returns) > 1 else ""
    return f"return {_number(float(returns[0]))}{mean}"


def _number(value: float) -> str:
    return f"{value:z.1f}".replace("-", "\N{MINUS SIGN}")


def _wrap(line: str, width: int) -> list[str]:
    """Return a line of values as lines of a width in pixels; says how many values find no room."""
    values = line.split(APART)
    for left_out in range(len(values)):
        said = [*values[: len(values) - left_out], *([f"and {left_out} more"] if left_out else [])]
        wrapped = textwrap.wrap(APART.join(said), width // 7)
        if len(wrapped) <= CAPTION_LINES:
            return wrapped
    return textwrap.wrap(line, width // 7, max_lines=CAPTION_LINES, placeholder=" …")


def _rgb(colour: str) -> Array:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)
