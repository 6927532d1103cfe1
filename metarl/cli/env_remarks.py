"""Say what Gymnasium's checker finds wrong with an environment, and how to mend it."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from metarl.envs import code, mujoco_log
from metarl.envs.family import TaskFamily
from metarl.envs.foreign.family import GymFamily
from metarl.envs.foreign.guard import Guarded, Start
from metarl.envs.parameters import Choice
from metarl.envs.text import one_line, shown
from metarl.errors import LONGEST, nearest

Env = gymnasium.Env[Any, Any]
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
HARMLESS = re.compile("infinity. This is probably|different from the unwrapped|RecordConstructorArgs|render")
"""What the checker says of environments that can be used as they are."""
OUTSIDE = re.compile(r"The (?:first element|observation|obs) returned by (?:the )?`(?:env\.)?(reset|step)\(")
"""How it begins to speak of an observation that the space does not contain."""
KIND = r"type: `?<class '(?:\w+\.)*(\w+)'>"
RESET = "write def reset(self, *, seed=None, options=None)"
FIVE = "return observation, reward, terminated, truncated and info"
UNSCALED = "symmetric and normalized"
SEEDED = "call super().reset(seed=seed) in reset, and draw from self.np_random alone"
WORDS = {
    r"does not provide an? `(\w+)`": rf"its reset takes no \1: {RESET}",
    r"cannot be reset with a random seed.*error was: (.*)": rf"its reset(seed=123) fails: \1; {RESET}",
    r"cannot be reset with options.*error was: (.*)": rf"its reset(options={{}}) fails: \1; {RESET}",
    rf"by `env.reset\(\)` was not a tuple.*{KIND}": r"its reset returns no tuple but \1: return observation and info",
    r"reset method did not return a 2-tuple.*: (\d+)": r"its reset returns \1 values: return observation and info",
    rf"second element .*`env.reset\(\)`.*{KIND}": r"its reset returns an info that is \1: return a dict",
    rf"step result to be a tuple, actual {KIND}": rf"its step returns no tuple but \1: {FIVE}",
    r"five element tuple, .* returned: (\d+)": rf"its step returns \1 values: {FIVE}",
    r"old step API|to unpack \(expected 5, got 4": f"its step returns 4 values, as those of Gym did: {FIVE}",
    rf"`(\w+)` signal to be a boolean, actual {KIND}": r"its step returns a \1 that is \2: return a bool",
    rf"`info` returned by `step\(\)`.*{KIND}": r"its step returns an info that is \1: return a dict",
    rf"reward returned by `step\(\)`.*{KIND}": r"its step returns a reward that is \1: return float(reward)",
    r"reward is an? (NaN|inf) value": r"its step returns a reward that is \1: return a finite number",
    "number generator to have been|does not call `super|is non-deterministic as": (
        f"its resets do not follow from their seeds: the same run, made again or resumed, may differ; {SEEDED}"
    ),
    "properly been updated after step|Deterministic step": (
        f"its steps do not follow from seed and actions: the same run, made again or resumed, may differ; {SEEDED}"
    ),
    "although similar": (
        "what it returns follows from seed and actions but for the last digits: the same run, made again or resumed, "
        "may differ"
    ),
    r"seed argument in .*Actual default: (?:seed.*= )?(.*)": (
        rf"its reset has the seed \1 by default, so that resets without a seed are all alike: {RESET}"
    ),
    r"The (observation|info)s returned by .*share an": (
        r"its \1s share memory with each other, so one that is kept changes later: return a copy each time"
    ),
    UNSCALED: (
        "its actions do not lie between -1 and 1, and those of a new policy lie about 0: give "
        "GymTasks(action_scale=...), or, if 0 is not their middle, gymnasium.wrappers.RescaleAction(env, -1, 1)"
    ),
}
"""What is wrong and what to do, by a pattern of the checker's sentence."""


@mujoco_log.silent()
def env_remarks(env: Env, scaled: bool = False) -> list[str]:
    """Return what Gymnasium's checker has to say of an environment, a line each. It is reset and stepped.

    scaled: whether a policy's actions from -1 to 1 are scaled to those of the environment.
    """
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        try:
            check_env(env, skip_render_check=True)
        except Exception as error:
            if HARMLESS.search(str(error)) or HARMLESS.search(code.failure(error)):
                return []
            said.append(_failure(error, env))
        lines = [COLOUR.sub("", str(warning.message)).removeprefix("WARN: ") for warning in caught]
        for line in lines:
            if not HARMLESS.search(line) and not (scaled and UNSCALED in line):
                said.append(_in_words(line, env) or f"Gymnasium's checker says: {line}")
    return [one_line(line, LONGEST) for line in dict.fromkeys(said)]


def info_remarks(env: Env, keys: Sequence[str], steps: int) -> list[str]:
    """Return which of the keys no info has in an episode of random actions, a line each. It is reset and stepped."""
    seen: set[str] = set()
    env.action_space.seed(0)
    try:
        env.reset(seed=0)
        for _ in range(steps):
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            seen |= info.keys()
            if terminated or truncated:
                break
    except Exception:  # which `env_remarks` or the episodes tell of
        return []
    return [
        f"no step of an episode of random actions had {key!r} in its info, and where it is missing it counts as 0"
        + (nearest(key, sorted(seen)) or "; all infos were empty")
        for key in keys
        if key not in seen
    ]


def image_remarks(env: Env) -> list[str]:
    """Return which observations are images, a line each: no agent has a convolution."""
    space = env.observation_space
    parts = space.spaces if isinstance(space, spaces.Dict) else {"observation": space}
    return [
        f"{name} is an image, which agents read as {np.prod(part.shape)} separate numbers, 0 to 255: metarl has no "
        "convolution; encode it in a wrapper of the environment, or leave it out by GymTasks(observe=...)"
        for name, part in parts.items()
        if isinstance(part, spaces.Box) and part.dtype == np.uint8 and len(part.shape) > 1
    ]


MOST_TASKS = 4
"""Number of values of a category, or of tasks of a list, that are compared."""


def task_remarks(family: GymFamily) -> list[str]:
    """Return which parameters change nothing in an episode of one seed and the same random actions, a line each."""
    tasks, blueprint = family.gym_tasks, family.blueprint
    assert tasks is not None and blueprint is not None
    guarded = Guarded(tasks, blueprint, np.zeros(blueprint.width))
    try:
        neutral = family.neutral().values
        plain = list(_episode(guarded, family, neutral))
        if _differs(plain, _episode(guarded, family, neutral)):
            return []  # `env_remarks` tells of what does not follow from its seed
        said = []
        for parameter in family.parameters:
            drawn, name = parameter.distribution, parameter.name
            ends = drawn.values[:MOST_TASKS] if isinstance(drawn, Choice) else (drawn.low, drawn.high)
            if name not in neutral or len(ends) == 1 or (tasks.tasks and name != "task"):
                continue
            told = (family.task({**neutral, name: value}).values for value in ends)
            if not any(_differs(plain, _episode(guarded, family, values)) for values in told):
                values, steps = " and ".join(parameter.words(value) for value in ends), len(plain) - 1
                said.append(
                    f"{name} changes nothing that random actions meet: with {values} and one seed, all {steps} steps "
                    "of an episode are the same to the last digit. Where only the end of a search is rewarded, that "
                    f"may be right; otherwise, {_how_given(guarded)}"
                )
        return said
    except Exception:  # which `env_remarks` or the episodes tell of
        return []
    finally:
        guarded.close()


def action_bounds(family: TaskFamily) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of random actions, [act] each: the family's, and +-1000 where it has none."""
    return np.clip(family.action_low, -1e3, 1e3), np.clip(family.action_high, -1e3, 1e3)


def _differs(rows: Sequence[np.ndarray], others: Iterator[np.ndarray]) -> bool:
    """Return whether an episode differs from another, which is played as far as the two are alike."""
    return any(a is None or b is None or not np.array_equal(a, b) for a, b in itertools.zip_longest(rows, others))


def _episode(guarded: Guarded, family: GymFamily, values: Mapping[str, float]) -> Iterator[np.ndarray]:
    """Play an episode of random actions, and yield its rows [width], its start first."""
    rng = np.random.default_rng(0)
    low, high = action_bounds(family)
    guarded.start(Start(0, 0, values))
    yield guarded.row.copy()
    for _ in range(family.horizon):
        guarded.step(rng.uniform(low, high))
        yield guarded.row.copy()
        if guarded.over:
            break


def _how_given(guarded: Guarded) -> str:
    """Return how the environment is given its task, and what to look at."""
    match guarded.given_by:
        case "apply":
            return "does apply set what the environment reads? An attribute of a wrapper is none of env.unwrapped"
        case "set_task":
            return "does its set_task set what its reset and its step read?"
        case _:
            return "does its reset(options=task) read it? Give GymTasks(apply=...), or write set_task(task)"


def _failure(error: Exception, env: Env) -> str:
    """Return what the checker refuses; of an exception of the environment's own code, where it was raised."""
    if words := _in_words(str(error), env):
        return words
    at = traceback.extract_tb(error.__traceback__)[-1].filename
    if Path(gymnasium.__file__).parent not in Path(at).parents:
        return f"it fails in Gymnasium's checker: {code.failure(error)}"
    return f"Gymnasium's checker does not accept the environment: {str(error) or type(error).__name__}"


def _in_words(line: str, env: Env) -> str:
    """Return what is wrong and what to do in our words; empty for what has none."""
    if outside := OUTSIDE.match(line):
        why = _outside(env)
        return f"its {outside[1]} returns an observation that observation_space does not contain: {why}"
    found = ((re.search(pattern, line, re.S), words) for pattern, words in WORDS.items())
    return next((match.expand(words) for match, words in found if match), "")


def _outside(env: Env) -> str:
    """Return how the first observation that the space does not contain differs from it, and what to do."""
    space, seen = env.observation_space, []
    with contextlib.suppress(Exception):
        seen.append(env.reset(seed=123)[0])
        seen.append(env.step(env.action_space.sample())[0])
    differences = (_difference(observation, space) for observation in seen)
    return next(filter(None, differences), f"return one of {space}, or declare another space")


def _difference(observation: Any, space: spaces.Space[Any]) -> str:
    """Return how an observation differs from its space, and what to do; empty if the space contains it."""
    if isinstance(space, spaces.Dict) and isinstance(observation, dict) and observation.keys() == space.keys():
        each = ((key, _difference(observation[key], part)) for key, part in space.items())
        return next((f"{key}: {text}" for key, text in each if text), "")
    if isinstance(space, spaces.Box):
        return _difference_of_box(observation, space)
    return "" if observation in space else f"it is {shown(observation)}; return one of {space}"


def _difference_of_box(observation: Any, space: spaces.Box) -> str:
    if not isinstance(observation, np.ndarray | np.generic):
        return f"it is {type(observation).__name__}; return np.array(..., dtype=np.{space.dtype})"
    values: np.ndarray = np.asarray(observation)
    given, wanted = values.dtype, space.dtype
    if values.shape != space.shape:
        return f"its shape is {values.shape}, the space's {space.shape}; change one of them"
    if not np.can_cast(given, wanted):
        return (
            f"its dtype is {given}, the space's {wanted}; return observation.astype(np.{wanted}), "
            f"or declare Box(..., dtype=np.{given})"
        )
    beyond = np.argwhere(~((values >= space.low) & (values <= space.high)))
    if not len(beyond):
        return ""
    at = tuple(map(int, beyond[0]))
    value, low, high = (float(each[at]) for each in (values, space.low, space.high))
    return f"element {list(at)} is {value:g}, outside of [{low:g}, {high:g}]; clip it, or widen the space"
