"""What `metarl env check` says of environments that break Gymnasium's rules: what is wrong, and what to do."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from metarl.cli.app import main
from metarl.cli.env_remarks import env_remarks, image_remarks, info_remarks

OBSERVED = np.zeros(2, dtype=np.float32)
STEP = (OBSERVED, 0.0, False, False, {})


class Still(gymnasium.Env[Any, Any]):
    """An environment in which nothing happens, and which returns what it is told to."""

    observation_space, action_space = spaces.Box(-1.0, 1.0, (2,)), spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, start: Any = (OBSERVED, {}), step: Any = STEP, space: spaces.Space[Any] | None = None):
        self.start, self.result = start, step
        self.observation_space = space or self.observation_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return _copied(self.start)

    def step(self, action: Any) -> Any:
        return _copied(self.result)


class Unseeded(Still):
    def reset(self, *, options: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _copied(self.start)


class Unoptioned(Still):
    def reset(self, *, seed: int | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().reset(seed=seed)


class Refusing(Still):
    def reset(self, **kwargs: Any) -> Any:
        if "options" in kwargs:
            raise TypeError("options are not taken")
        return super().reset(seed=kwargs.get("seed"))


class Forgetful(Still):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return _copied(self.start)


class Random(Still):
    def step(self, action: Any) -> Any:
        return np.random.default_rng().uniform(-1, 1, 2).astype(np.float32), 0.0, False, False, {}


class Failing(Still):
    def step(self, action: Any) -> Any:
        return {}["speed"]


def _copied(value: Any) -> Any:
    """The value without arrays or dicts that two calls share."""
    if isinstance(value, tuple):
        return tuple(map(_copied, value))
    return value.copy() if isinstance(value, np.ndarray | dict) else value


def starting(observation: Any, **others: Any) -> Still:
    """An environment whose resets and steps return the observation."""
    return Still((observation, {}), (observation, *STEP[1:]), **others)


def stepping(**others: Any) -> Still:
    """An environment whose steps return others than the sound ones."""
    names = ("observation", "reward", "terminated", "truncated", "info")
    return Still(step=tuple(others.get(name, value) for name, value in zip(names, STEP, strict=True)))


class Sharing(Still):
    def step(self, action: Any) -> Any:
        return self.result


class Fixed(Still):
    def reset(self, *, seed: int | None = 7, options: Any = None) -> Any:
        return super().reset(seed=seed, options=options)


class Drifting(Still):
    noise = 0.0

    def step(self, action: Any) -> Any:
        self.noise += 1e-7
        return np.full(2, self.noise, np.float32), 0.0, False, False, {}


class Strong(Still):
    action_space = spaces.Box(-2.0, 2.0, (1,))


OUTSIDE = "its reset returns an observation that observation_space does not contain: "
DICT = spaces.Dict({"place": spaces.Box(0.0, 1.0, (1,))})
FIVE = "return observation, reward, terminated, truncated and info"
RESET = "write def reset(self, *, seed=None, options=None)"
SAID: dict[str, tuple[Still, str]] = {
    "dtype": (
        starting(np.zeros(2)),
        f"{OUTSIDE}its dtype is float64, the space's float32; return observation.astype(np.float32), or declare "
        "Box(..., dtype=np.float64)",
    ),
    "shape": (starting(np.zeros(3, np.float32)), f"{OUTSIDE}its shape is (3,), the space's (2,); change one of them"),
    "value": (
        starting(np.array([0, 3], np.float32)),
        f"{OUTSIDE}element [1] is 3, outside of [-1, 1]; clip it, or widen the space",
    ),
    "not a number": (starting(np.array([np.nan, 0], np.float32)), f"{OUTSIDE}element [0] is nan, outside of [-1, 1]"),
    "part of a dict": (starting({"place": np.full(1, 2, np.float32)}, space=DICT), f"{OUTSIDE}place: element [0] is 2"),
    "keys": (starting({"speed": OBSERVED}, space=DICT), f"{OUTSIDE}it is {{'speed': array([0., 0.], dtype=float32)}}"),
    "step's value": (
        stepping(observation=OBSERVED + 2),
        "its step returns an observation that observation_space does not contain: element [0] is 2",
    ),
    "no seed": (Unseeded(), f"its reset takes no seed: {RESET}"),
    "no options": (Unoptioned(), f"its reset takes no options: {RESET}"),
    "options refused": (Refusing(), f"its reset(options={{}}) fails: options are not taken; {RESET}"),
    "no tuple": (Still(OBSERVED), "its reset returns no tuple but ndarray: return observation and info"),
    "three": (Still((OBSERVED, 0.0, {})), "its reset returns 3 values: return observation and info"),
    "info of reset": (Still((OBSERVED, None)), "its reset returns an info that is NoneType: return a dict"),
    "step's list": (Still(step=list(STEP)), f"its step returns no tuple but list: {FIVE}"),
    "step's three": (Still(step=STEP[:3]), f"its step returns 3 values: {FIVE}"),
    "step's four": (Still(step=(*STEP[:3], {})), f"its step returns 4 values, as those of Gym did: {FIVE}"),
    "terminated": (stepping(terminated=0), "its step returns a terminated that is int: return a bool"),
    "info of step": (stepping(info=[]), "its step returns an info that is list: return a dict"),
    "reward": (stepping(reward=np.zeros(1)), "its step returns a reward that is ndarray: return float(reward)"),
    "infinite reward": (stepping(reward=np.inf), "its step returns a reward that is inf: return a finite number"),
    "seed not passed on": (Forgetful(), "its resets do not follow from their seeds: the same run, made again or"),
    "a default seed": (
        Fixed(),
        f"its reset has the seed 7 by default, so that resets without a seed are all alike: {RESET}",
    ),
    "shared memory": (Sharing(), "its observations share memory with each other"),
    "last digits": (Drifting(), "what it returns follows from seed and actions but for the last digits"),
    "strong actions": (
        Strong(),
        "its actions do not lie between -1 and 1, and those of a new policy lie about 0: give",
    ),
    "own generator": (Random(), "its steps do not follow from seed and actions: the same run, made again or"),
}


def test_nothing_is_said_of_a_sound_environment():
    assert [line for line in env_remarks(Still()) if "render" not in line] == []


@pytest.mark.parametrize("case", SAID)
def test_what_is_wrong_is_said_once_with_what_to_do(case):
    env, words = SAID[case]
    said = env_remarks(env)
    assert len(said) == 1
    assert said[0].startswith(words)
    assert ".py" not in said[0] and "Error" not in said[0]


def test_a_sentence_without_words_of_ours_is_gymnasiums_alone():
    (said,) = env_remarks(stepping(truncated=True))
    assert said == (
        "Gymnasium's checker does not accept the environment: Environment truncates after 1 step, something has gone "
        "very wrong."
    )


def test_what_the_environment_itself_raises_is_said_with_its_place():
    (said,) = env_remarks(Failing())
    assert said.startswith("it fails in Gymnasium's checker: KeyError: 'speed' (test_env_remarks.py, line ")


def test_a_key_that_no_info_has_is_named_with_the_nearest():
    env = stepping(info={"success": 1.0})
    assert info_remarks(env, ["success"], 3) == []
    (said,) = info_remarks(env, ["sucess"], 3)
    assert "had 'sucess' in its info, and where it is missing it counts as 0; did you mean 'success'?" in said
    assert info_remarks(Still(), ["success"], 3)[0].endswith("; all infos were empty")
    assert info_remarks(Failing(), ["success"], 3) == []


def test_an_environment_that_takes_its_task_by_options_is_checked_with_one(tmp_path, capsys):
    (tmp_path / "by_options.py").write_text(BY_OPTIONS)
    assert main(["env", "check", f"{tmp_path / 'by_options.py'}:tasks"]) == 0
    assert "note:" not in capsys.readouterr().out


BY_OPTIONS = """
import gymnasium
import metarl
import numpy as np
from gymnasium.spaces import Box

class Placed(gymnasium.Env):
    observation_space, action_space = Box(-1.0, 1.0, (1,)), Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = options["place"]
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), -abs(self.place - float(action[0])), False, False, {}

def tasks():
    return metarl.GymTasks(make=Placed, parameters=(metarl.quantity("place", -1, 1, "m"),), horizon=5, dt=0.1)
"""
UNTOLD = """
import gymnasium
import metarl
import numpy as np
from gymnasium.spaces import Box

class Placed(gymnasium.Env):
    observation_space, action_space = Box(-1.0, 1.0, (1,)), Box(-1.0, 1.0, (1,))
    place = size = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), -abs(self.place + self.size - float(action[0])), False, False, {}

def on_the_wrapper(env, task):
    env.place = task["place"]
    env.unwrapped.size = task["size"]

def tasks(apply=None, listed=False):
    both = (metarl.quantity("place", -1, 1, "m"), metarl.quantity("size", -1, 1))
    given = {"tasks": {"train": [1, 2, 3], "held_out": [4]}} if listed else {"parameters": both}
    make = lambda: gymnasium.wrappers.OrderEnforcing(Placed())
    return metarl.GymTasks(make=make, apply=apply, horizon=5, dt=0.1, **given)

def wrapped():
    return tasks(on_the_wrapper)

def listed():
    return tasks(listed=True)
"""


@pytest.mark.parametrize(
    ("function", "silent", "words"),
    [
        ("tasks", ("place", "size"), "does its reset(options=task) read it? Give GymTasks(apply=...)"),
        ("wrapped", ("place",), "does apply set what the environment reads?"),
        ("listed", ("task",), "does its reset(options=task) read it?"),
    ],
)
def test_a_parameter_that_changes_nothing_is_named(function, silent, words, tmp_path, capsys):
    (tmp_path / "untold.py").write_text(UNTOLD)
    assert main(["env", "check", f"{tmp_path / 'untold.py'}:{function}"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    named = [name for name in ("place", "size", "task") if f"note: {name} changes nothing that random" in said]
    assert named == [*silent]
    assert said.count(words) == len(silent)


def test_an_image_is_said_to_be_read_as_numbers():
    class Seeing(Still):
        observation_space = spaces.Dict(
            {"camera": spaces.Box(0, 255, (8, 8, 3), np.uint8), "joint": spaces.Box(-1, 1, (2,))}
        )

    (said,) = image_remarks(Seeing())
    assert said.startswith("camera is an image, which agents read as 192 separate numbers")
    assert image_remarks(Still()) == []


FILE = """
import gymnasium
import metarl
from gymnasium.spaces import Box

class Bare(gymnasium.Env):
    {space} = Box(-1.0, 1.0, (1,))

def tasks():
    return metarl.GymTasks(make=Bare, parameters=(metarl.quantity("place", -1, 1, "m"),), horizon=5, dt=0.1)
"""


@pytest.mark.parametrize(
    ("space", "missing"), [("action_space", "observation_space"), ("observation_space", "action_space")]
)
def test_a_space_that_is_missing_is_named(space, missing, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"no_{missing}.py").write_text(FILE.format(space=space))
    assert main(["env", "check", f"no_{missing}.py:tasks"]) == 2
    assert f"its environment has no {missing}; set self.{missing} in __init__" in capsys.readouterr().err
