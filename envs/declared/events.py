"""What happens to a robot besides its actions: commands that are drawn, and pushes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from metarl.envs import noise
from metarl.envs.arrays import Array, like, none, write
from metarl.envs.declared.entries import CommandEntry, PushEntry
from metarl.envs.declared.rig import Rig, Tracker
from metarl.envs.state import State


def give_commands(rig: Rig, entry: CommandEntry, told: Mapping[str, str]) -> None:
    """Keep `command`, [S, n]: drawn from its ranges in each episode, or as the task's parameters say.

    told: name of the parameter by the component that it is.
    """
    if not rig.commands:
        return
    ends = np.array([entry.ranges.get(name, (0.0, 0.0)) for name in rig.commands])
    low, high = ends[:, 0], ends[:, 1]
    every = max(1, round(entry.every / rig.dt)) if entry.every else 0

    def draw(state: State, step: Array | int, chosen: Array) -> None:
        command = state.memory["command"]
        least, most = like(low, command), like(high, command)
        drawn = least + (most - least) * noise.uniform(state.keys, step, noise.COMMANDS, len(low))
        if entry.standing:
            moves = noise.uniform(state.keys, step, noise.STANDING, 1) >= entry.standing
            drawn = drawn * moves
        write(command, drawn, where=chosen)

    def tell(state: State, chosen: Array) -> None:
        command = state.memory["command"]
        for i, name in enumerate(rig.commands):
            if name in told:
                write(command[:, i], state.task[told[name]], where=chosen)

    def begin(state: State, chosen: Array) -> None:
        if entry.ranges:
            draw(state, 0, chosen)
        tell(state, chosen)

    def update(state: State) -> None:
        if every and entry.ranges:
            due = state.steps % every == 0
            if not none(due):
                draw(state, state.steps, due)
        if told:
            tell(state, state.steps > 0)

    rig.use("command", Tracker({"command": (len(rig.commands),)}, begin, update=update if told or every else None))


def push(rig: Rig, entry: PushEntry, told: str | None) -> None:
    """Add a velocity to the base every so often, in a random horizontal direction.

    told: parameter that is the velocity, m/s; None: the entry has it.
    """
    base, every = rig.needed_base, max(1, round(entry.every / rig.dt))
    if base.qvel < 0:
        raise ValueError("pushes: the base has no free joint that could be pushed; leave them out")

    def actuate(state: State) -> None:
        due = (state.steps % every == 0) & (state.steps > 0)
        if not none(due):
            xp = state.xp
            angle = 2 * np.pi * noise.uniform(state.keys, state.steps, noise.PUSHES, 1)
            size = entry.velocity if told is None else state.task[told][:, None]
            velocity = state.qvel[:, base.qvel : base.qvel + 2]
            write(velocity, velocity + size * xp.concat([xp.cos(angle), xp.sin(angle)], axis=1), where=due)

    rig.use("pushes", Tracker({}, actuate=actuate))
