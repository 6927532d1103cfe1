"""Memory that several terms share: actions, joint velocities, the feet's time in the air."""

from __future__ import annotations

from metarl.envs.declared.rig import Rig, Tracker
from metarl.envs.state import State


def track_actions(rig: Rig) -> None:
    """Keep `action` and `action_change`, [S, act], of the last control step."""

    def actuate(state: State) -> None:
        memory = state.memory
        memory["action_change"][...] = state.action - memory["action"]
        memory["action"][...] = state.action

    size = (len(rig.actuators),)
    rig.use("actions", Tracker({"action": size, "action_change": size}, actuate=actuate))


def track_action_acceleration(rig: Rig) -> None:
    """Keep `action_acceleration`, a_t - 2 a_{t-1} + a_{t-2}, [S, act]."""

    def actuate(state: State) -> None:
        memory = state.memory
        change = state.action - memory["last_action"]
        memory["action_acceleration"][...] = change - memory["last_change"]
        memory["last_action"][...], memory["last_change"][...] = state.action, change

    size = (len(rig.actuators),)
    names = ("last_action", "last_change", "action_acceleration")
    rig.use("action acceleration", Tracker(dict.fromkeys(names, size), actuate=actuate))


def track_joint_velocity(rig: Rig) -> None:
    """Keep `joint_velocity`, [S, J], as it was before the control step."""
    joints = rig.joints

    def actuate(state: State) -> None:
        state.memory["joint_velocity"][...] = joints.velocities.of(state.qvel)

    rig.use("joint velocity", Tracker({"joint_velocity": (len(joints.names),)}, actuate=actuate))


def track_air_time(rig: Rig) -> None:
    """Keep `air_time` of each foot, [S, F] s, and `flight`: that of feet that landed in this step, 0 elsewhere."""
    feet, dt = rig.needed_feet, rig.dt
    touching = rig.touching(feet.contacts)

    def update(state: State) -> None:
        air, contacts = state.memory["air_time"], touching(state)
        state.memory["flight"][...] = air * contacts
        air += dt
        air *= ~contacts

    size = (len(feet.names),)
    rig.use("air time", Tracker({"air_time": size, "flight": size}, update=update))
