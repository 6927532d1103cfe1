"""Bounds of settings: one suite over every settings class that is registered."""

import dataclasses
import math
import re
import typing
from dataclasses import dataclass

import pytest
import torch

from metarl.agents.registry import AGENTS, make_agent
from metarl.bounds import MOST, Bounds, bounded, bounds_of, check, names_without_effect, unbounded, without_effect
from metarl.config import EvaluationSettings, RunConfig, TrackingSettings, TrainingSettings, config_from_dict
from metarl.config import config_to_dict as plain
from metarl.envs.registry import FAMILIES, make_family
from metarl.errors import UsageError

SETTINGS = {
    **{("agent", name): entry.settings for name, entry in AGENTS.items()},
    **{("family", name): entry.settings for name, entry in FAMILIES.items()},
    ("training", ""): TrainingSettings,
    ("evaluation", ""): EvaluationSettings,
    ("tracking", ""): TrackingSettings,
}
NUMERIC = (int, float, tuple[int, ...], tuple[float, ...], tuple[int, int], tuple[float, float])
NUMBERS = [
    (section, name, setting)
    for (section, name), cls in SETTINGS.items()
    for setting, annotation in typing.get_type_hints(cls).items()
    if annotation in NUMERIC
]


def outside(bounds: Bounds, whole: bool) -> list[tuple[float, str]]:
    """Numbers just out of the bounds, and what is said of each."""

    def beyond(end: float, way: int) -> float:
        return end + way if whole else math.nextafter(end, way * math.inf)

    most = bounds.at_most if bounds.at_most is not None else MOST if whole else math.inf
    numbers = [
        (beyond(bounds.at_least, -1), "must be at least"),
        (bounds.above, "must be greater than"),
        (beyond(most, 1), "must be at most"),
        (bounds.below, "must be less than"),
    ]
    return [(int(x) if whole else float(x), words) for x, words in numbers if math.isfinite(x)]


def with_setting(section: str, name: str, setting: str, value: object) -> RunConfig:
    settings = dataclasses.replace(SETTINGS[section, name](), **{setting: value})
    return dataclasses.replace(RunConfig(), **{section: settings})


@pytest.mark.parametrize(("section", "name", "setting"), NUMBERS)
def test_a_numeric_setting_declares_its_bounds_and_is_refused_by_name_just_outside(section, name, setting):
    cls = SETTINGS[section, name]
    bounds = bounds_of(cls, setting)
    assert bounds is not None, f"{cls.__name__}.{setting}: write bounded(...), or unbounded(...) if any number will do"
    check(cls(), section)
    annotation, default = typing.get_type_hints(cls)[setting], getattr(cls(), setting)
    entry = (typing.get_args(annotation) or (annotation,))[0]
    for number, words in outside(bounds, entry is int):
        value = number
        if isinstance(default, tuple):
            value = (number, number) if bounds.pair else (number,)
        index = r"\[0\]" if isinstance(default, tuple) else ""
        config = with_setting(section, name, setting, value)
        message = rf"^{section}\.{setting}{index} is \S+; it {words} "
        with pytest.raises(UsageError, match=message):
            config.validate()
        with pytest.raises(UsageError, match=message):
            config_from_dict(plain(config))
        if section == "family":
            with pytest.raises(ValueError, match=message):
                make_family(config.family)
        if section == "agent":
            with pytest.raises(ValueError, match=message):
                make_agent(config.agent, 3, 2, torch.Generator(), torch.device("cpu"))


@pytest.mark.parametrize(("section", "name", "setting"), [x for x in NUMBERS if bounds_of(SETTINGS[x[:2]], x[2]).pair])
def test_a_range_that_is_upside_down_is_refused_by_name(section, name, setting):
    kind = typing.get_args(typing.get_type_hints(SETTINGS[section, name])[setting])[0]
    bounds = bounds_of(SETTINGS[section, name], setting)
    high, low = (0.75, 0.5) if bounds.broken(kind(3)) else (3, 2)
    for value, shown in (((kind(high), kind(low)), f"{high}, {low}"), ((kind(low),), f"{low}")):
        message = rf"^family\.{setting} is \[{shown}\]; it must be two numbers, the first at most the second$"
        with pytest.raises(ValueError, match=message):
            make_family(dataclasses.replace(SETTINGS[section, name](), **{setting: value}))


def test_bounds_and_their_words():
    @dataclass(frozen=True)
    class Base:
        size: int = bounded(2, at_least=1)
        share: float = bounded(0.5, above=0, at_most=1)
        sizes: tuple[int, ...] = bounded((3,), at_least=1, nonempty=True)
        steps: int = bounded(-1, at_least=1, also=-1)
        shift: float = unbounded(0.0)
        name: str = ""
        device: str = without_effect("cpu")
        threads: int = bounded(0, at_least=0, changes_no_number=True)

    @dataclass(frozen=True)
    class Derived(Base):
        size: int = 5

    cases = {
        "x.size is 0; it must be at least 1": {"size": 0},
        f"x.size is {MOST + 1}; it must be at most {MOST}": {"size": MOST + 1},
        "x.share is 0; it must be greater than 0": {"share": 0.0},
        "x.share is 1.5; it must be at most 1": {"share": 1.5},
        "x.share is nan; it must be a finite number": {"share": math.nan},
        "x.shift is inf; it must be a finite number": {"shift": math.inf},
        "x.sizes is []; it must have at least one number": {"sizes": ()},
        "x.sizes[1] is 0; it must be at least 1": {"sizes": (4, 0)},
        "x.steps is 0; it must be at least 1, or -1": {"steps": 0},
    }
    for message, change in cases.items():
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            check(Derived(**change), "x")
    check(Derived(shift=-1e300, share=1.0), "x")
    assert bounds_of(Derived, "size") == Bounds(at_least=1) and bounds_of(Derived, "name") is None
    assert names_without_effect(Derived) == ("device", "threads")


def test_which_settings_change_no_result():
    changing = {section: names for (section, _), cls in SETTINGS.items() if (names := names_without_effect(cls))}
    assert changing == {
        "agent": ("tasks_per_chunk",),
        "family": ("processes",),
        "training": ("threads", "device", "checkpoint_every", "keep_checkpoints", "evaluate_every"),
        "tracking": ("wandb", "project", "entity", "group"),
    }
