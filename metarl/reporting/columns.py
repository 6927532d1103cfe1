"""Columns of the tables on agents: each quantity is defined once, for the terminal, Markdown, HTML and CSV."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metarl.evaluation.comparison import Compared
from metarl.evaluation.results import SHARES, Recovered
from metarl.evaluation.statistics import REACHED, WORST, Interval
from metarl.wording import number_of

ABSENT = "—"
"""Cell of a number that there is not."""


@dataclass(frozen=True)
class Table:
    """A table of texts, which `metarl.reporting.terminal` prints and the templates of the report show."""

    caption: str
    columns: Sequence[str]
    """Headings."""
    rows: Sequence[Sequence[str]]
    """Cells; the first cell of a row is its heading."""
    kind = "table"


@dataclass(frozen=True)
class Agents:
    """Agents that are shown in one table."""

    agents: Sequence[Compared]
    places: int
    """Decimal places of their returns."""

    @classmethod
    def of(cls, agents: Sequence[Compared]) -> Agents:
        """Return the agents with as many places as their returns after adaptation need."""
        return cls(agents, places_of(agent.result.summary.iqm[-1] for agent in agents))

    @property
    def several_seeds(self) -> bool:
        """Whether one of them was trained with several seeds."""
        return any(agent.runs for agent in self.agents)

    @property
    def oracle(self) -> bool:
        """Whether there is an oracle among them."""
        return any(agent.oracle for agent in self.agents)


Cell = Callable[[Compared, Agents], str]
"""Text of an agent in a column; empty if the column does not apply to it."""


@dataclass(frozen=True)
class Column:
    """A quantity of an agent. A column whose cells are all empty is left out of a table."""

    heading: str
    """Heading on the page of a report."""
    cell: Cell
    """Text on the page, with the interval."""
    brief: str
    """Heading in a terminal of 100 columns."""
    brief_cell: Cell
    """Text in the terminal."""
    intervals: Mapping[str, Callable[[Compared], Interval | None]]
    """Numbers in the CSV file, by the name of their column there."""
    reason: str = ""
    """Why an agent may have `ABSENT`, in the words of a note."""

    def has_absent(self, agents: Agents) -> bool:
        """Return whether the number of some agent is absent, so that the reason is to be told."""
        return any(self.cell(agent, agents) == ABSENT for agent in agents.agents)


def page_table(caption: str, columns: Sequence[Column], agents: Agents) -> Table:
    """Return the table of a page: every cell has its interval, and a cell without a number has `ABSENT`."""
    kept = [column for column in columns if any(column.cell(agent, agents) for agent in agents.agents)]
    rows = [
        (name_on_page(agent), *(column.cell(agent, agents) or ABSENT for column in kept)) for agent in agents.agents
    ]
    return Table(caption, ("agent", *(column.heading for column in kept)), rows)


def brief_table(caption: str, columns: Sequence[Column], agents: Agents, name: Callable[[Compared], str]) -> Table:
    """Return the table of a terminal, where the caption is the heading of the agents. name: label of an agent."""
    kept = [column for column in columns if any(column.brief_cell(agent, agents) for agent in agents.agents)]
    rows = [(name(agent), *(column.brief_cell(agent, agents) for column in kept)) for agent in agents.agents]
    return Table(caption, (caption, *(column.brief for column in kept)), rows)


def name_on_page(agent: Compared) -> str:
    """Return the label of an agent, and whether it is an oracle."""
    return agent.label + (" (oracle)" if agent.oracle else "")


def csv_numbers(columns: Sequence[Column], agent: Compared) -> dict[str, Any]:
    """Return the numbers of an agent by CSV column: estimate, low and high end of each interval; empty for none."""
    numbers: dict[str, Any] = {}
    for column in columns:
        for name, interval_of in column.intervals.items():
            found = interval_of(agent)
            ends: Sequence[Any] = ("", "", "") if found is None else (found.estimate, found.low, found.high)
            numbers |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
    return numbers


def interval_text(i: Interval, places: int, sign: str = "") -> str:
    """Return an estimate and its interval, such as `-1.5 [-2.0, -1.0]`."""
    return f"{i.estimate:{sign}z.{places}f} [{i.low:{sign}z.{places}f}, {i.high:{sign}z.{places}f}]"


def share_text(share: Interval) -> str:
    """Return a share and its interval in per cent, such as `57 % [51, 63]`."""
    return f"{100 * share.estimate:z.0f} % [{100 * share.low:z.0f}, {100 * share.high:z.0f}]"


def places_of(intervals: Iterable[Interval]) -> int:
    """Return the decimal places for numbers of that size: 1 from 100 on, 2 below."""
    return 1 if max(abs(i.estimate) for i in intervals) >= 100 else 2


def measure_name(name: str, unit: str) -> str:
    """Return the name of a measure in words, with its unit."""
    words = name.replace("_", " ")
    return f"{words}, %" if name in SHARES else words if unit == "1" else f"{words}, {unit}"


def measure_text(name: str, measured: Interval | None) -> str:
    """Return the mean of a measure with its interval."""
    if measured is None:
        return ABSENT
    if name in SHARES:
        return interval_text(Interval(*(100 * x for x in (measured.estimate, measured.low, measured.high))), 0)
    return interval_text(measured, places_of([measured]))


def brief_measure_text(name: str, measured: Interval | None) -> str:
    """Return the mean of a measure without its interval."""
    if measured is None:
        return ABSENT
    return f"{100 * measured.estimate:.0f}" if name in SHARES else f"{measured.estimate:.3g}"


def measure_column(name: str, unit: str, shot: int = -1) -> Column:
    """Return the column of a measure after a number of rounds; -1 for the last."""

    def interval(agent: Compared) -> Interval | None:
        shots = agent.result.measured.get(name)
        return shots[shot] if shots else None

    return Column(
        measure_name(name, unit),
        lambda agent, agents: measure_text(name, interval(agent)),
        measure_name(name, unit).replace(", ", "\n"),
        lambda agent, agents: brief_measure_text(name, interval(agent)),
        {name: interval},
    )


def _returns(agent: Compared, agents: Agents, shot: int) -> str:
    return interval_text(agent.result.summary.iqm[shot], agents.places)


def _gain(agent: Compared, agents: Agents) -> str:
    return interval_text(agent.result.summary.gain[-1], agents.places, "+") if agent.adaptations else ""


def _gap(agent: Compared, agents: Agents, flag: str) -> str:
    gap = agent.result.train_gap
    return "" if gap is None else interval_text(gap.after, agents.places, "+") + flag * gap.flagged


def _reach(agent: Compared, agents: Agents) -> str:
    reach = agent.result.summary.rounds_to_reach
    if reach is None:
        return ABSENT if agent.adaptations else ""
    low, high = (f"{end:g}" if math.isfinite(end) else "never" for end in (reach.low, reach.high))
    return f"{reach.estimate:g} [{low}, {high}] rounds, {_episodes(agent, reach)}"


def _episodes(agent: Compared, reach: Interval) -> str:
    return number_of(reach.estimate * agent.episodes_per_round, "episode")


def _brief_reach(agent: Compared, agents: Agents) -> str:
    reach = agent.result.summary.rounds_to_reach
    return _episodes(agent, reach) if reach else _reach(agent, agents)


def _share(agent: Compared, agents: Agents) -> str:
    if agent.oracle_share is None:
        return ABSENT if agents.oracle and agent.adaptations and not agent.oracle else ""
    return share_text(agent.oracle_share)


def _recovery(agent: Compared, agents: Agents) -> str:
    found = agent.result.recovered
    if found is None:
        return ""
    took = f", in {interval_text(found.steps, 0)} steps" if found.steps else ""
    return f"{measure_text('success', found.share)} % of tasks{took}"


def _brief_recovery(agent: Compared, agents: Agents) -> str:
    found = agent.result.recovered
    if found is None:
        return ""
    took = f"{number_of(round(found.steps.estimate), 'step')}, " if found.steps else ""
    return f"{took}{100 * found.share.estimate:z.0f} %"


def _recovered(agent: Compared, part: Callable[[Recovered], Interval | None]) -> Interval | None:
    return part(agent.result.recovered) if agent.result.recovered else None


def _seeds(agent: Compared, agents: Agents) -> str:
    return str(len(agent.members)) if agents.several_seeds else ""


def _rounds(agent: Compared, agents: Agents) -> str:
    return str(agent.adaptations)


SEEDS = Column("training seeds", _seeds, "runs", _seeds, {})
ROUNDS = Column("rounds", _rounds, "rounds", _rounds, {})
BEFORE = Column(
    "before adaptation",
    lambda agent, agents: _returns(agent, agents, 0),
    "before",
    lambda agent, agents: f"{agent.result.summary.iqm[0].estimate:z.{agents.places}f}",
    {"return_before": lambda agent: agent.result.summary.iqm[0]},
)
AFTER = Column(
    "after adaptation",
    lambda agent, agents: _returns(agent, agents, -1) if agent.adaptations else "",
    "after",
    lambda agent, agents: _returns(agent, agents, -1),
    {"return_after": lambda agent: agent.result.summary.iqm[-1]},
)
GAIN = Column("gain", _gain, "gain", _gain, {"gain": lambda agent: agent.result.summary.gain[-1]})
GAP = Column(
    "training tasks − these tasks",
    lambda agent, agents: _gap(agent, agents, " ⚑ not 0"),
    "training tasks: gap",
    lambda agent, agents: _gap(agent, agents, " !"),
    {"train_gap": lambda agent: agent.result.train_gap and agent.result.train_gap.after},
)
WORST_TASKS = Column(
    f"worst {100 * WORST:g} % of tasks",
    lambda agent, agents: (
        interval_text(agent.result.summary.worst[-1], agents.places) if agent.result.summary.worst else ""
    ),
    f"worst {100 * WORST:g} %",
    lambda agent, agents: f"{agent.result.summary.worst[-1].estimate:z.{agents.places}f}",
    {f"worst_{100 * WORST:g}_percent": lambda agent: agent.result.summary.worst[-1]},
)
REACH = Column(
    f"{100 * REACHED:g} % of the gain after",
    _reach,
    f"{100 * REACHED:g} % after",
    _brief_reach,
    {f"rounds_to_{100 * REACHED:g}_percent": lambda agent: agent.result.summary.rounds_to_reach},
    "the interval of the gain does not lie above 0",
)
SHARE = Column(
    "share of the oracle's lead",
    _share,
    "of the oracle's lead",
    _share,
    {"oracle_share": lambda agent: agent.oracle_share},
    "the interval of the oracle's lead over the agent before adaptation does not lie above 0",
)
RECOVERY = Column(
    "recovery after a change",
    _recovery,
    "recovers in",
    _brief_recovery,
    {
        "recovered": lambda agent: _recovered(agent, lambda found: found.share),
        "steps_to_recover": lambda agent: _recovered(agent, lambda found: found.steps),
    },
)
PAGE = (SEEDS, ROUNDS, BEFORE, AFTER, GAIN, GAP, WORST_TASKS, REACH, SHARE, RECOVERY)
"""Columns of a page; the gap comes before what a narrow window hides."""
RETURNS = (SEEDS, ROUNDS, BEFORE, AFTER, GAIN)
"""Columns of the first table of a terminal."""
ADAPTATION = (WORST_TASKS, REACH, SHARE, RECOVERY, GAP)
"""Columns of the second table of a terminal."""
