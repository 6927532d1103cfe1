"""Rewards and measures of each simulation, term by term, summed over its running episode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from metarl.envs.arrays import Array, none, write
from metarl.envs.family import TaskFamily
from metarl.envs.simulation import Simulation, zeros
from metarl.envs.state import State


class Scores:
    """Sums over the running episodes of S simulations, where the simulations are."""

    def __init__(
        self,
        family: TaskFamily,
        simulation: Simulation,
        measuring: bool,
        blame: Callable[[str, np.ndarray, int], None],
    ):
        """measuring: whether measures are computed. blame: raises for a term, its values [S] on the host, and the
        place of one that is not finite."""
        self.simulation = simulation
        self.terms = {name: zeros(simulation) for name in family.rewards}
        """Each weighted reward term summed over the running episode, by name, [S]; live."""
        self._rewards, self._success = family.rewards, family.success
        self._measures = dict(family.measures) if measuring else {}
        self._sums = {name: (zeros(simulation), zeros(simulation)) for name in self._measures}
        """Each measure's sum, and the sum of what it is divided by, by name, [S]."""
        self._unsound = zeros(simulation, (), bool)
        """Whether a reward was not finite, [S]."""
        self._blame = blame

    def functions(self) -> Iterator[Callable[[State], Array]]:
        """Yield the functions of the state that are evaluated."""
        yield from (term.function for term in self._rewards.values())
        for measure in self._measures.values():
            yield measure.function
            if measure.per is not None:
                yield measure.per

    def reward(self, seen: State, sound: Array, whole: bool) -> Array | float:
        """Add a step's terms and return their weighted sum [S], 0 where a simulation is not sound.

        sound: [S] bool. whole: whether all are known to be.
        """
        xp, total = self.simulation.xp, 0.0
        values: dict[str, Array] = {}
        for name, term in self._rewards.items():
            value = term.function(seen)
            if xp is not np and value.dtype in (xp.bool, xp.int64):  # which torch would weigh in single precision
                value = xp.astype(value, self.terms[name].dtype)
            value = term.weight * value if whole else xp.where(sound, term.weight * value, 0.0)
            values[name] = value
            total = total + value
        for name, value in values.items():
            self.terms[name] += value
        if values:
            self._check(values, xp.isfinite(total))  # False where a term is not finite
        return total

    def _check(self, values: dict[str, Array], finite: Array) -> None:
        """Blame the first term that is not finite; a device only notes where. values: by term, [S] each."""
        if self.simulation.xp is not np:
            self._unsound |= ~finite
        elif not none(~finite):
            for name, value in values.items():
                for bad in np.flatnonzero(~np.isfinite(value)):
                    self._blame(name, value, int(bad))

    def measure(self, seen: State, sound: Array) -> None:
        """Add a step's measures where simulations are sound [S] bool."""
        xp = self.simulation.xp
        for name, measure in self._measures.items():
            total, divisor = self._sums[name]
            values = measure.function(seen)
            if measure.reduce == "max":
                values = xp.where(total > values, total, xp.astype(values, total.dtype))
            write(total, values if measure.reduce in ("last", "max") else total + values, where=sound)
            if measure.per is not None:
                write(divisor, divisor + measure.per(seen), where=sound)

    def clear(self, chosen: Array) -> None:
        """Set the sums of the simulations `chosen` [S] bool to 0, and what the largest value is to be of to -inf."""
        for zeroed in self.terms.values():
            write(zeroed, 0, where=chosen)
        for name, (total, divisor) in self._sums.items():
            write(total, -math.inf if self._measures[name].reduce == "max" else 0, where=chosen)
            write(divisor, 0, where=chosen)

    def verify(self) -> None:
        """Blame a term if a reward was not finite since this was last asked; a device does not look meanwhile."""
        bad = np.flatnonzero(self.simulation.host(self._unsound))
        if bad.size:
            sums = self.term_sums()
            name = next((name for name in sums if not np.isfinite(sums[name][bad[0]])), next(iter(sums)))
            self._unsound[...] = False
            self._blame(name, sums[name], int(bad[0]))

    def term_sums(self) -> dict[str, np.ndarray]:
        """Return `terms` on the host."""
        return {name: self.simulation.host(sums) for name, sums in self.terms.items()}

    def measured(self, taken: np.ndarray) -> dict[str, np.ndarray]:
        """Return each measure and, where the family defines it, `success` (1 or 0), by name, [S] on the host.

        taken: control steps of each episode, [S]. NaN where that is 0, and where a measure is divided by 0.
        """
        values, host = {}, self.simulation.host
        steps = np.where(taken > 0, taken, np.nan)
        for name, measure in self._measures.items():
            total, divisor = map(host, self._sums[name])
            by = steps if measure.reduce == "mean" else np.where(divisor > 0, divisor, np.nan) if measure.per else 1.0
            values[name] = np.where(np.isnan(steps), np.nan, total / by)
        if values and self._success:
            kept = [(c.low <= values[c.measure]) & (values[c.measure] <= c.high) for c in self._success]
            values["success"] = np.where(np.isnan(steps), np.nan, np.all(kept, axis=0))
        return values
