"""Columns of the tables on adaptation in time: seconds until adapted, what memory adds, what is forgotten."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from metarl.evaluation.comparison import Compared
from metarl.evaluation.forgetting import Forgetting
from metarl.evaluation.statistics import REACHED, Interval
from metarl.evaluation.time_course import MemoryGap, TimeCourse
from metarl.reporting.columns import Agents, Column, interval_text, places_of
from metarl.wording import number_of

NEVER_ADAPTS = "does not adapt"
"""Cell of an agent whose reward per second does not rise, or which has no memory."""


def _places(seconds: float) -> int:
    return 1 if seconds >= 10 else 2


def seconds_text(found: Interval) -> str:
    """Return seconds with their interval, such as `3.0 s [2.5, 4.0]`; an infinite end is `never`."""
    places = _places(found.estimate)
    low, high = (f"{end:.{places}f}" if math.isfinite(end) else "never" for end in (found.low, found.high))
    return f"{found.estimate:.{places}f} s [{low}, {high}]"


def _brief_seconds(found: Interval) -> str:
    return f"{found.estimate:.{_places(found.estimate)}f} s"


def _rise_text(course: TimeCourse, text: Callable[[Interval], str]) -> str:
    return NEVER_ADAPTS if course.seconds is None else text(course.seconds)


def _courses(agent: Compared, changes: bool) -> list[TimeCourse]:
    return [course for course in agent.result.courses if bool(course.change) is changes]


def _adapted(agent: Compared, agents: Agents) -> str:
    texts = []
    for course in _courses(agent, changes=False):
        rise = interval_text(course.rise, places_of([course.rise]), "+")
        texts.append(f"{_rise_text(course, seconds_text)}; rise {rise}")
    return "".join(texts)


def _brief_adapted(agent: Compared, agents: Agents) -> str:
    return "".join(_rise_text(course, _brief_seconds) for course in _courses(agent, changes=False))


def _after_changes(agent: Compared, text: Callable[[TimeCourse], str]) -> str:
    courses = _courses(agent, changes=True)
    number = "" if [course.change for course in courses] == [1] else "{}: "
    return "; ".join(number.format(course.change) + text(course) for course in courses)


def _returns_after_changes(agent: Compared, text: Callable[[Interval], str]) -> str:
    """Return the rewards after the changes; empty where there is none, and of records of before."""
    known = all(course.total for course in _courses(agent, changes=True))
    return _after_changes(agent, lambda course: text(course.total) if course.total else "") if known else ""


def _return_after_first(agent: Compared) -> Interval | None:
    return next((course.total for course in _courses(agent, changes=True) if course.change == 1), None)


def _memory(agent: Compared, agents: Agents) -> str:
    gap = agent.memory_gap
    if gap is None:
        return ""
    level = interval_text(gap.level, places_of([gap.level]), "+")
    return f"{level}; {'nothing is shown' if gap.seconds is None else seconds_text(gap.seconds)}"


def _brief_memory(agent: Compared, agents: Agents) -> str:
    gap = agent.memory_gap
    if gap is None:
        return ""
    return "nothing" if gap.seconds is None else f"{gap.level.estimate:+.3g}, {_brief_seconds(gap.seconds)}"


def _lost(agent: Compared, agents: Agents) -> str:
    found = agent.result.forgetting
    return "" if found is None else interval_text(found.difference, agents.places, "+")


def _brief_lost(agent: Compared, agents: Agents) -> str:
    found = agent.result.forgetting
    return "" if found is None else f"{found.difference.estimate:+z.{agents.places}f}"


def _regained(agent: Compared, agents: Agents, text: Callable[[Interval], str]) -> str:
    found = agent.result.forgetting
    if found is None:
        return ""
    if not found.lost:
        return "no loss is shown"
    if found.rounds is None and found.seconds is None:
        return f"not within {number_of(len(found.back), 'episode')}"
    rounds = [] if found.rounds is None else [number_of(found.rounds.estimate * agent.episodes_per_round, "episode")]
    return ", ".join([*rounds, *([] if found.seconds is None else [text(found.seconds)])])


def _of_course(agent: Compared, part: Callable[[TimeCourse], Interval | None]) -> Interval | None:
    courses = _courses(agent, changes=False)
    return part(courses[0]) if courses else None


def _of_gap(agent: Compared, part: Callable[[MemoryGap], Interval | None]) -> Interval | None:
    return part(agent.memory_gap) if agent.memory_gap else None


def _of_forgetting(agent: Compared, part: Callable[[Forgetting], Interval | None]) -> Interval | None:
    return part(agent.result.forgetting) if agent.result.forgetting else None


PERCENT = f"{100 * REACHED:g}_percent"
ADAPTED = Column(
    f"{100 * REACHED:g} % of the rise of reward per second after",
    _adapted,
    "adapts in",
    _brief_adapted,
    {
        f"seconds_to_{PERCENT}": lambda agent: _of_course(agent, lambda course: course.seconds),
        "rise_per_second": lambda agent: _of_course(agent, lambda course: course.rise),
    },
)
AFTER_CHANGES = Column(
    "the same after each change",
    lambda agent, agents: _after_changes(agent, lambda course: _rise_text(course, seconds_text)),
    "after changes",
    lambda agent, agents: _after_changes(agent, lambda course: _rise_text(course, _brief_seconds)),
    {},
)
RETURN_AFTER_CHANGES = Column(
    "return in the time after each change",
    lambda agent, agents: _returns_after_changes(agent, lambda total: interval_text(total, agents.places)),
    "return then",
    lambda agent, agents: _returns_after_changes(agent, lambda total: f"{total.estimate:z.{agents.places}f}"),
    {"return_after_change": _return_after_first},
)
MEMORY = Column(
    f"reward per second that memory adds; {100 * REACHED:g} % of it after",
    _memory,
    "memory adds",
    _brief_memory,
    {
        "memory_per_second": lambda agent: _of_gap(agent, lambda gap: gap.level),
        f"seconds_to_{PERCENT}_of_memory": lambda agent: _of_gap(agent, lambda gap: gap.seconds),
    },
)
LOST = Column(
    "back on the first task",
    _lost,
    "back on A",
    _brief_lost,
    {"back_on_first_task": lambda agent: _of_forgetting(agent, lambda found: found.difference)},
)
REGAINED = Column(
    f"{100 * REACHED:g} % of what was lost is regained in",
    lambda agent, agents: _regained(agent, agents, seconds_text),
    "regained in",
    lambda agent, agents: _regained(agent, agents, _brief_seconds),
    {
        "rounds_to_regain": lambda agent: _of_forgetting(agent, lambda found: found.rounds),
        "seconds_to_regain": lambda agent: _of_forgetting(agent, lambda found: found.seconds),
    },
)
TIME: Sequence[Column] = (ADAPTED, AFTER_CHANGES, RETURN_AFTER_CHANGES, MEMORY, LOST, REGAINED)
"""Columns of the table on adaptation in time."""
