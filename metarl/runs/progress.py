"""Show the progress of a run: a live line on a terminal, and one line for each iteration elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as LiveProgress

from metarl.wording import number_of


def duration(seconds: float) -> str:
    """Return a duration as `1:02:03`, or `2:03` under an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Shows iteration, env steps, env steps/s, return before and after adaptation, and the time left."""

    def __init__(self, total: int, start: int = 0, console: Console | None = None):
        """total: iterations of the run. start: iterations before it was resumed."""
        self.total = total
        self.console = console or Console(file=sys.stdout)
        self._start = start
        self._began = time.monotonic()
        self._live: LiveProgress | None = None
        if self.console.is_terminal:
            self._live = LiveProgress(
                SpinnerColumn(),
                BarColumn(bar_width=20),
                TextColumn("{task.description}"),
                console=self.console,
                transient=False,
            )
            self._task = self._live.add_task(f"iteration {start}/{total}", total=total, completed=start)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, metrics: Mapping[str, float]) -> None:
        """Show the metrics of an iteration."""
        text = self.describe(metrics)
        if self._live is None:
            print(text, file=self.console.file, flush=True)
        else:
            self._live.update(self._task, completed=metrics["iteration"], description=text)

    def line(self, text: str) -> None:
        """Print a line, above the live one if there is one."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def describe(self, metrics: Mapping[str, float]) -> str:
        """Return one line about an iteration."""
        iteration = int(metrics["iteration"])
        done = iteration - self._start
        left = (time.monotonic() - self._began) / done * (self.total - iteration) if done > 0 else 0.0
        parts = [f"iteration {iteration}/{self.total}", f"{_thousands(metrics['env_steps'])} env steps"]
        if "env_steps_per_s" in metrics:
            parts.append(f"{_thousands(metrics['env_steps_per_s'])}/s")
        if "return/before" in metrics and "return/after" in metrics:
            parts.append(f"return {metrics['return/before']:z.1f} -> {metrics['return/after']:z.1f}")
        if metrics.get("overflows"):
            parts.append(f"too many contacts in {metrics['overflows']:.0f} simulation steps")
        if metrics.get("faults"):
            parts.append(f"{number_of(metrics['faults'], 'simulation')} broke down")
        parts.append(f"{duration(left)} left")
        return "  ".join(parts)


def _thousands(count: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.2f}{unit}"
    return f"{count:.0f}"
