"""What a user's robot is told, asked for and rewarded for: what its file says, and what it leaves to us."""

from __future__ import annotations

from metarl.envs.declared.entries import ObservationEntry, PushEntry, TaskEntries
from metarl.envs.declared.rewards import REWARDS
from metarl.envs.own_robot.declaration import Declaration
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.goal import PLACE, TURN
from metarl.envs.own_robot.quantities import COMMANDED

OBSERVED = {
    "sensors": {
        "floating": (
            "base_angular_velocity",
            "projected_gravity",
            "joint_positions",
            "joint_velocities",
            "last_action",
        ),
        "guided": ("guide_positions", "guide_velocities", "joint_positions", "joint_velocities", "last_action"),
        "fixed": ("joint_positions", "joint_velocities", "last_action"),
    },
    "state": {
        "floating": (
            *("base_height", "up", "base_velocity", "base_angular_velocity"),
            *("joint_positions", "joint_velocities"),
        ),
        "guided": ("guide_positions", "guide_velocities", "joint_positions", "joint_velocities"),
        "fixed": ("joint_positions", "joint_velocities"),
    },
}
"""Terms that are observed where the file names none, by the setting `observe` and how the base moves."""
TRACKING = {"command_x": ("track_velocity", "velocity_error"), "command_yaw": ("track_yaw",)}
TRACKING["command_y"] = TRACKING["command_x"]
"""Reward terms that ask for a command, by its quantity."""
AIMING: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(PLACE, ("reach", "distance")),
    **dict.fromkeys(TURN, ("orientation_error",)),
}
"""Reward terms that ask for a target, by the quantity that is drawn of it."""
ANYTHING = "python"
"""Reward term that may ask for anything: it is the user's own."""


def entries(robot: Robot, said: Declaration, observe: str, pushed: str | None) -> TaskEntries:
    """Return the task that the file declares.

    observe: the setting of that name. pushed: parameter of a push's velocity. ValueError for a reward that is missing,
    and for a command or a target that nothing asks for.
    """
    observation = said.observation
    if observation is None:
        names = OBSERVED[observe][robot.mobility]
        command = ("command",) if said.commands.ranges() and observe == "sensors" else ()
        observation = {name: ObservationEntry(name) for name in (*names, *command)}
    _require_reward(robot, said)
    _require_asked(said)
    pushes = None
    if said.pushes is not None:
        if (said.pushes.velocity is None) == (pushed is None):
            raise ValueError(
                "pushes takes a velocity, or the distribution a parameter of quantity push_velocity: one of the two"
            )
        if said.pushes.every <= 0 or (said.pushes.velocity or 0.0) < 0:
            raise ValueError("pushes: every must be above 0 and velocity not negative")
        pushes = PushEntry(said.pushes.velocity or 0.0, said.pushes.every)
    elif pushed is not None:
        raise ValueError(f"{pushed} is the velocity of pushes; say how often by pushes: {{every: 5}}")
    return TaskEntries(
        observation=observation,
        privileged=said.privileged or {},
        rewards=said.reward,
        rewards_per_second=said.rewards_per == "second",
        commands=said.commands.entry(),
        pushes=pushes,
    )


def _require_reward(robot: Robot, said: Declaration) -> None:
    if not said.reward:
        wanted = "reach" if said.goal else "home_cost" if robot.mobility == "fixed" else "forward_velocity"
        raise ValueError(
            f"reward is missing; write reward: {{{wanted}: 1, control_cost: 0.05}}, of {', '.join(REWARDS)}"
        )


def _require_asked(said: Declaration) -> None:
    """Raise ValueError for a command or a target that no reward term asks for, or a command that is drawn twice."""
    terms = {entry.term for entry in said.reward.values()}
    asked = {COMMANDED[e.quantity]: e for e in said.distribution if e.quantity in COMMANDED}
    if "stand_still" in terms and not asked and not said.commands.ranges():
        raise ValueError(
            "reward.stand_still costs motion while a command asks for none, and there is no command; write commands: "
            "{forward_velocity: [0, 1], standing: 0.1}, or use home_cost"
        )
    for quantity, component in COMMANDED.items():
        drawn = component in said.commands.ranges()
        if component not in asked and not drawn:
            continue
        if component in asked and drawn:
            name = asked[component].name
            raise ValueError(f"commands.{component} is {name!r} ({quantity}) already; leave one of them out")
        if not terms & {*TRACKING[quantity], ANYTHING}:
            what = f"commands.{component}" if drawn else f"{asked[component].name!r} ({quantity})"
            raise ValueError(f"no reward term asks for {what}; add {' or '.join(TRACKING[quantity])}")
    for entry in said.distribution:
        if (aiming := AIMING.get(entry.quantity)) and not terms & {*aiming, ANYTHING}:
            raise ValueError(f"no reward term asks for {entry.name!r} ({entry.quantity}); add {' or '.join(aiming)}")
